# Bare Debian roots, for scripts that source this with $suite set (bookworm, trixie). Only root can make them; they need
# debootstrap, util-linux, iproute2 and Debian's mirror.
#   ROOTS=DIR     where the roots are made (/var/tmp/certbot-seafile-roots); the bare root of a suite stays there
#   MIRROR=URL    http://deb.debian.org/debian
# shellcheck shell=bash
ROOTS=${ROOTS:-/var/tmp/certbot-seafile-roots}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
command=$(basename "$0")
[ "$(id -u)" -eq 0 ] || { echo "$command: only root can make roots" >&2; exit 1; }

say() { echo "$command: ${suite:?}: $*"; }

# Programs in a root see its own processes and mounts only, all of which end with the command.
# The first word: "online", "offline" for nothing but loopback, or "booted": offline, in a machine of its own as far as
# an init system can see.
in_root() {
    local network=$1 root=$2
    shift 2
    local namespaces=(--mount --pid --fork --kill-child)
    [ "$network" = online ] || namespaces+=(--net)
    [ "$network" != booted ] || namespaces+=(--uts --ipc --cgroup)
    # shellcheck disable=SC2016 # expanded by the inner shell
    env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb \
        DEBIAN_FRONTEND=noninteractive "${lent[@]}" \
        unshare "${namespaces[@]}" bash -euc '
            network=$1 root=$2; shift 2
            [ "$network" = online ] || ip link set lo up
            [ "$network" != booted ] || mount --bind "$root" "$root"
            mount -t proc proc "$root/proc"
            mount -t tmpfs -o mode=755 tmpfs "$root/dev"
            for device in null zero full random urandom tty; do
                touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
            done
            ln -s /proc/self/fd "$root/dev/fd"
            mkdir -m 1777 "$root/dev/shm"
            mkdir "$root/dev/pts"
            mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
            ln -s pts/ptmx "$root/dev/ptmx"
            [ "$network" = booted ] || exec chroot "$root" "$@"
            mount -t sysfs sysfs "$root/sys"
            mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
            mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
            mount -t tmpfs -o mode=755 tmpfs "$root/run"
            cd "$root"
            mkdir -p host
            pivot_root . host
            umount --lazy /host
            exec "$@"' in-root "$network" "$root" "$@" < /dev/null
}

# Run COMMAND in a root that systemd has booted as PID 1, and leave what it said in LOG; both are paths in the root. The
# machine ends with the command, and with its exit code.
in_booted_root() {
    local root=$1 command=$2 log=$3
    printf '[Unit]\nAfter=multi-user.target\nSuccessAction=exit\nFailureAction=exit\n
[Service]\nType=oneshot\nExecStart=%s\nStandardOutput=file:%s\nStandardError=inherit\n
[Install]\nWantedBy=default.target\n' "$command" "$log" > "$root/etc/systemd/system/command-of-test.service"
    in_root offline "$root" systemctl --quiet enable command-of-test.service
    in_root booted "$root" env container=test /lib/systemd/systemd --log-target=journal --unit=default.target
}

# What this machine needs to reach a mirror, the roots need too.
lend_network() {
    local root=$1
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    apt-config dump | grep -iE '^Acquire::(https?|ftp|Check|Retries|Force|Max)' > "$root/etc/apt/apt.conf.d/80host" || true
    cp -r /usr/local/share/ca-certificates/. "$root/usr/local/share/ca-certificates/" 2>/dev/null || true
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    cp /etc/pip.conf "$root/etc/" 2>/dev/null || true
    mkdir -p "$root/root/.config"
    cp -r "${XDG_CONFIG_HOME:-$HOME/.config}/pip" "$root/root/.config/" 2>/dev/null || true
}

make_bare_root() {
    local root=$ROOTS/$suite.bare
    [ ! -e "$root.complete" ] || return 0
    rm -rf --one-file-system "$root"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$MIRROR"
    printf 'deb %s %s main\n' "$MIRROR" "$suite" "$MIRROR" "$suite-updates" "${MIRROR%/debian}/debian-security" \
        "$suite-security" > "$root/etc/apt/sources.list"
    # Nothing that apt would keep, and no service that a package would start.
    printf 'APT::Install-Recommends "false";\n' > "$root/etc/apt/apt.conf.d/90tests"
    printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    lend_network "$root"
    in_root online "$root" apt-get update -q
    touch "$root.complete"
}

# Copy the root $1; the copy ends with this script.
copy_root() {
    local copy
    copy=$(mktemp -d "$work/XXXXXX")
    chmod 755 "$copy"
    cp -a "$1/." "$copy/"
    echo "$copy"
}

# Proxies and pip's variables: what this machine needs to reach mirrors and indexes. Files that they name are this
# machine's; those of certificates are in the root at the usual place, others are not lent.
lent=()
while IFS= read -r variable; do
    case ${variable#*=} in /*) [ "${variable#*=}" = /etc/ssl/certs/ca-certificates.crt ] || continue ;; esac
    lent+=("$variable")
done < <(env | grep -iE '^((https?|ftp|no)_proxy|PIP_[A-Z_]+|SSL_CERT_FILE|REQUESTS_CA_BUNDLE)=' || true)

mkdir -p "$ROOTS"
work=$(mktemp -d "$ROOTS/$suite.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
