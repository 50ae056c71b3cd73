"""What stands between people and nginx: other programs on its ports, and where names lead.

The law: only the certificate's own names are looked up, by the system's resolver, and called, as people's browsers call
them, for 10 s in all. Below another root folder, nobody is asked.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.doctor.findings import WARNING, Finding, listed
from certbot_seafile.doctor.subject import Machine, Subject
from certbot_seafile.ocsp import fetch
from certbot_seafile.site import model
from certbot_seafile.system import files, handshake, serving
from certbot_seafile.system.handshake import Endpoint

#: Where people come who type https://NAME, whatever port a router passes that on to.
_HTTPS_PORT = 443
_LOOK_UP_SECONDS = _CALL_SECONDS = 3.0
_NGINX = ("nginx", "openresty", "angie")
_CADDY = re.compile(r"(?im)^\s*image:.*caddy")


def port_taken(subject: Subject) -> Iterator[Finding]:
    """Yield the programs that hold a TLS port of the site where clients are not handed the certificate.

    As Caddy after a move to nginx. nginx -t does not notice, and a running nginx goes on with its old configuration.
    Where clients are handed it, the program passes them on to nginx, as docker-proxy does.
    """
    standing = subject.standing
    if standing.failure or not (standing.is_current or standing.earlier):
        for port in sorted({place.port for place in serving.endpoints(subject.site.tls, tls=True)}):
            yield from taken(subject, port)


def taken(subject: Subject, port: int) -> Iterator[Finding]:
    """Yield who listens on a port in nginx's place, which does not answer there as it should."""
    ctl, holders = os.path.basename(subject.context.nginx.ctl), subject.machine.listeners.get(port, [])
    is_nginx = any(holder.program == ctl or holder.program.endswith(_NGINX) for holder in holders)
    if holders and not is_nginx:
        fact = f"{holders[0].program} (process {holders[0].process}) listens on port {port}, which the site needs"
        stop = f"`systemctl disable --now {holders[0].program}`"
        fix = f"stop it for good, for example with {stop} or in its compose file, then reload nginx"
        yield Finding("PORT-TAKEN", fact, "nginx does not answer there", fix)


def compose_starts_caddy(machine: Machine) -> Iterator[Finding]:
    """Yield the compose files of Seafile that start Caddy, where nginx is to answer."""
    for path in machine.seafile.compose_files if machine.readable else ():
        text = files.text(path)
        if caddy := _CADDY.search(text):
            place = f"{path}:{text.count(chr(10), 0, caddy.end()) + 1}"
            fact = f"{place} starts Caddy, which takes ports 80 and 443"
            fix = (
                "take it out, or its file out of COMPOSE_FILE in .env, then run "
                "`docker compose up -d --remove-orphans` in that folder"
            )
            yield Finding("COMPOSE-CADDY", fact, "nginx may not start next time", fix, WARNING, place=place)


def name_astray(subject: Subject) -> Iterator[Finding]:
    """Yield the names of the certificate that do not lead to nginx, looked at from this machine."""
    standing, machine = subject.standing, subject.machine
    if machine.root != "/" or standing.failure or not (standing.is_current or standing.earlier):
        return  # what is wrong nearer by is told already
    for name in [name for name in subject.lineage.names if "*" not in name and not model.is_address(name)]:
        if time.monotonic() < machine.deadline:
            yield from _call(subject, name)


def _call(subject: Subject, name: str) -> Iterator[Finding]:
    addresses = _look_up(name)
    if addresses == []:
        fact = f"the name {name} leads nowhere: this machine's resolver knows no address"
        fix = "make a DNS record for it, or correct /etc/resolv.conf"
        yield Finding("NAME-UNKNOWN", fact, "people, or this machine at least, cannot come in by it", fix, WARNING)
    leaf_der = (subject.standing.earlier or subject.lineage).leaf_der
    seen = {address: _leaf_at(subject.machine, address, name) for address in addresses or ()}
    if others := [address for address, leaf in seen.items() if leaf not in (None, leaf_der)]:
        fact = f"the name {name} leads to {listed(others)}, where another certificate is served"
        fix = "see what answers there, and correct the DNS record"
        yield Finding("NAME-ELSEWHERE", fact, "people do not come to this machine", fix, WARNING)
    elif silent := [address for address, leaf in seen.items() if leaf is None and ":" not in address]:
        fact = f"this machine does not reach {name} at {listed(silent)}, port {_HTTPS_PORT}"
        fix = f"let the router pass that on (hairpin NAT), or put a line with {name} into /etc/hosts"
        effect = "SeaDoc and OnlyOffice, which fetch files by that name, fail"
        yield Finding("NAME-NOT-REACHED", fact, effect, fix, WARNING)
    elif silent := [address for address, leaf in seen.items() if leaf is None]:
        fact = f"the name {name} has the IPv6 address {listed(silent)}, where nobody answers"
        fix = f"take the AAAA record out, or let the site `listen [::]:{_HTTPS_PORT} ssl;` on a machine that has IPv6"
        effect = "clients with IPv6 wait, and the CA may fail to renew"
        yield Finding("NAME-AAAA", fact, effect, fix, WARNING)


def _leaf_at(machine: Machine, address: str, name: str) -> bytes | None:
    """Return the leaf that is served at an address for a name, as DER; None where no handshake ends well in time."""
    seconds = min(_CALL_SECONDS, max(machine.deadline - time.monotonic(), 0.1))
    try:
        return handshake.perform(Endpoint(address, _HTTPS_PORT), name, seconds=seconds).leaf_der
    except errors.NotServed:
        return None


def _look_up(name: str) -> list[str] | None:
    """Return the addresses that the system's resolver has for a name; None where it gives no answer in time."""
    try:
        rows = fetch.look_up(name, _HTTPS_PORT, _LOOK_UP_SECONDS)
    except (OSError, UnicodeError) as error:
        return [] if getattr(error, "errno", None) in (socket.EAI_NONAME, socket.EAI_NODATA) else None
    return sorted({str(row[4][0]).partition("%")[0] for row in rows})
