"""systemd's units for renewals without root, as bytes.

The law: text only, from the settings and nothing else. Hardening stops where certbot's or nginx's own work begins:
certbot changes the group of a key, so no filter of system calls; a plugin may need memory that is writable and
executable (cffi's callbacks), so that is not denied.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from certbot_seafile.sealed.settings import Settings

SOCKET = "certbot-seafile.socket"
SERVICE = "certbot-seafile@.service"
DROP_IN = "certbot-seafile.conf"

#: What runs `certbot renew`: Debian's and PyPI's recipes, then Fedora's and Arch's.
CERTBOT_SERVICES = ("certbot.service", "certbot-renew.service")

_SOCKET = """\
# Written by `certbot-seafile setup`: where {user} asks root's step to look at what was renewed.
[Unit]
Description=Asks root to let nginx read what {user} renewed

[Socket]
ListenStream={socket}
SocketUser={user}
SocketMode=0600
Accept=yes
MaxConnections=8

[Install]
WantedBy=sockets.target
"""

# nginx's test opens its logs, its pid file and its ports, and looks up the names of upstreams, so network and /var stay
# as they are. oneshot: for other types, the time to start is no limit to the step's own (systemd.service(5)).
_SERVICE = """\
# Written by `certbot-seafile setup`: root's step. It takes nothing from who asks.
[Unit]
Description=Lets nginx read what {user} renewed
CollectMode=inactive-or-failed

[Service]
Type=oneshot
ExecStart={command} settle
StandardInput=null
StandardOutput=socket
StandardError=journal
TimeoutStartSec=150
NoNewPrivileges=yes
ProtectSystem=full
ReadWritePaths={writable}
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
"""

_DROP_IN = """\
# Written by `certbot-seafile setup`: certbot runs as {user}, who can write certbot's own folders and nothing else.
[Service]
User={user}
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
ProtectSystem=strict
ReadWritePaths={writable}
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
LockPersonality=yes
SystemCallArchitectures=native
"""


def contents(chosen: Settings, settings_path: str, services: Sequence[str], command: Sequence[str]) -> dict[str, bytes]:
    """Return the units' contents by name. services: what runs `certbot renew`; command: what runs this program."""
    user, contents = chosen.user, {}
    if chosen.socket is not None:
        staple_dirs = sorted({options.staple_dir for options in (*chosen.lineages.values(), chosen.options)})
        step = _escaped(shlex.join([*command, "--settings", settings_path]))
        contents[SOCKET] = _SOCKET.format(user=user, socket=_escaped(chosen.socket))
        contents[SERVICE] = _SERVICE.format(user=user, command=step, writable=_paths([chosen.state_dir, *staple_dirs]))
    for name in services:
        writable = _paths([owned.path for owned in chosen.handed])
        contents[f"{name}.d/{DROP_IN}"] = _DROP_IN.format(user=user, writable=writable)
    return {name: content.encode() for name, content in contents.items()}


def _paths(paths: Sequence[str]) -> str:
    """Return paths as a list in a unit; "-" passes over those that are not there (systemd.exec(5))."""
    return " ".join(shlex.quote(f"-{_escaped(path)}") for path in paths)


def _escaped(text: str) -> str:
    """Return text with systemd's specifiers turned off (systemd.unit(5))."""
    return text.replace("%", "%%")
