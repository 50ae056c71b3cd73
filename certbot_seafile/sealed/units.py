"""systemd's units and cron's lines: `certbot renew` by an ordinary user, and root's step `apply`, as text.

The law: text only, from the settings and nothing else. Hardening stops where certbot's or nginx's own work begins: a
plugin of certbot's or a module of nginx's may need memory that is writable and executable, so that is not denied.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from certbot_seafile.sealed.settings import Settings

APPLY, RENEW = "certbot-seafile-apply", "certbot-seafile-renew"

_SANDBOX = """\
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=read-only
PrivateTmp=yes
PrivateDevices=yes
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@resources
SystemCallErrorNumber=EPERM
"""

# The timer spreads the runs, so certbot does not wait by itself.
_RENEW_SERVICE = """\
# Written by `certbot-seafile setup`: {user} renews, and can write its own folders and nothing else.
[Unit]
Description=Renews certificates as {user}
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
User={user}
ExecStart={command} -q renew --no-random-sleep-on-renew
UMask=0077
CapabilityBoundingSet=
RemoveIPC=yes
ProtectProc=invisible
"""

_TRIGGER = """\
# Written by `certbot-seafile setup`.
[Unit]
Description={what}

[{kind}]
{lines}

[Install]
WantedBy={target}.target
"""

# As root, `nginx -t` opens nginx's ports, its pid file, and logs and folders of its workers' user; a child becomes the
# user whose file is read, and is killed where it hangs. A start limit that is hit would fail the path unit too.
_APPLY_SERVICE = """\
# Written by `certbot-seafile setup`: root's step. It takes nothing from whoever wrote the handed certificates.
[Unit]
Description=Serves certificates that were handed over
After=nginx.service
StartLimitIntervalSec=0

[Service]
Type=oneshot
ExecStart={command}
StandardInput=null
TimeoutStartSec=10min
CapabilityBoundingSet=CAP_NET_BIND_SERVICE CAP_DAC_OVERRIDE CAP_FOWNER CAP_CHOWN CAP_KILL CAP_SETUID CAP_SETGID
"""


def contents(
    settings: Settings, apply: Sequence[str], certbot: Sequence[str], writable: Sequence[str]
) -> dict[str, bytes]:
    """Return the units' contents by name.

    apply: the words that run root's step; certbot: those that run certbot; writable: the paths that root's step writes.
    """
    folders = sorted({entry.folder for entry in settings.entries.values()})
    watched = [f"PathChanged={_escaped(folder)}" for folder in folders]
    what, service = "Sees that a certificate is handed over", _APPLY_SERVICE.format(command=_command(apply))
    texts = {
        f"{APPLY}.path": _trigger("Path", what, *watched, "TriggerLimitIntervalSec=0"),
        f"{APPLY}.service": service + _SANDBOX.format(writable=_paths(writable)),
        # It sees what the path unit missed while its service ran, and all that happens on NFS.
        f"{APPLY}.timer": _trigger("Timer", what, "OnBootSec=1min", "OnCalendar=*:0/15", "RandomizedDelaySec=1min"),
    }
    if settings.user is not None:
        what, times = "Renews certificates twice a day", ("OnCalendar=*-*-* 00/12:00:00", "RandomizedDelaySec=6h")
        service = _RENEW_SERVICE.format(user=settings.user, command=_command(certbot))
        written = [settings.home, *(owned.path for owned in settings.webroots)]
        texts[f"{RENEW}.service"] = service + _SANDBOX.format(writable=_paths(written))
        texts[f"{RENEW}.timer"] = _trigger("Timer", what, *times, "Persistent=yes")
    return {name: text.encode() for name, text in texts.items()}


def _trigger(kind: str, what: str, *lines: str) -> str:
    return _TRIGGER.format(kind=kind, what=what, lines="\n".join(lines), target=f"{kind.lower()}s")


def cron_lines(settings: Settings, apply: Sequence[str], certbot: Sequence[str]) -> str:
    """Return the lines of a file in /etc/cron.d, for machines without systemd; words as in contents()."""
    lines = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    if settings.user is not None:
        lines.append(f"17 */12 * * *  {settings.user}  {_of_cron(certbot)} -q renew")
    lines.append(f"* * * * *  root  {_of_cron(apply)}")
    return "\n".join(lines) + "\n"


def _of_cron(words: Sequence[str]) -> str:
    return shlex.join(words).replace("%", "\\%")  # a bare one ends the command (crontab(5))


def _command(words: Sequence[str]) -> str:
    return _escaped(shlex.join(words)).replace("$", "$$")  # else a variable (systemd.service(5))


def _paths(paths: Sequence[str]) -> str:
    return " ".join(shlex.quote(f"-{_escaped(path)}") for path in paths)  # "-": missing or not (systemd.exec(5))


def _escaped(text: str) -> str:
    return text.replace("%", "%%")  # else a specifier (systemd.unit(5))
