"""What the site answers now: which server blocks it has, and what clients are handed by them.

The law: the configuration and the running nginx are only looked at; nothing is changed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from certbot_seafile import errors
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import edits, find, model, proof
from certbot_seafile.site.config import Configuration, Statement
from certbot_seafile.site.model import Server, Socket
from certbot_seafile.system import handshake, lineages, nginx, progress
from certbot_seafile.system.context import Context
from certbot_seafile.system.handshake import Answer, Endpoint, Handshake
from certbot_seafile.system.lineages import Lineage

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 5.0


def find_site(context: Context, domains: Sequence[str], configuration: Configuration | None = None) -> find.Site:
    """Return the site that answers for the domains, from what nginx reads now, or in another configuration.

    Raises errors.SiteNotFound, errors.SiteRefused, errors.SyntaxRefused.
    """
    if not domains:
        raise errors.SiteNotFound("the certificate is for no name, so no site is its own; get a new one with -d NAME")
    options = context.options
    site_path = os.path.realpath(options.site) if options.site else None
    read, ports = configuration or context.nginx.configuration(), (options.http_port, options.https_port)
    site = _site_in(read, _asked(read, domains), site_path, *ports)
    wildcards = tuple(domain for domain in domains if domain.startswith("*."))
    return replace(site, wildcards=wildcards) if wildcards else site


def _asked(read: Configuration, domains: Sequence[str]) -> tuple[str, ...]:
    """Return the domains, with the names of server blocks that a wildcard covers in its place (RFC 6125 6.4.3)."""
    wildcards = {domain for domain in domains if domain.startswith("*.")}
    if not wildcards:
        return tuple(domains)
    names = {name for server in model.http_servers(read.outline()) for name in server.names}
    covered = sorted(name for name in names if name[:1] != "~" and model.covers(wildcards, name))
    # A block that has the wildcard itself, or "." in its place, answers for any name below.
    asked = [name if name[:1] not in "*." else f"certbot-seafile.{name.partition('.')[2]}" for name in covered]
    return tuple(dict.fromkeys([*(domain for domain in domains if domain not in wildcards), *asked])) or tuple(domains)


@functools.lru_cache(maxsize=2)  # several steps of one deployment ask for the same
def _site_in(
    read: Configuration, domains: tuple[str, ...], site_path: str | None, http_port: int, https_port: int
) -> find.Site:
    def site_in(statements: Sequence[Statement]) -> find.Site:
        servers = model.http_servers(statements)
        return find.site(servers, domains, site_path=site_path, http_port=http_port, https_port=https_port)

    try:
        return site_in(read.statements(domains, site_path=site_path))
    except errors.SiteNotFound:
        return site_in(read.statements())  # whose message names Seafile sites with other names


def plan_edits(
    context: Context,
    domains: Sequence[str],
    add_edits: Callable[[edits.Edits, find.Site], None],
    own: Collection[str] = (),
) -> edits.Edits:
    """Return edits for the site of the domains by which nobody else is hurt. own: see proof.plan_harmless().

    Raises errors.SiteRefused.
    """
    return proof.plan_harmless(
        context.nginx.configuration(), lambda state: find_site(context, domains, state), add_edits, own
    )


def refuse_taken(context: Context, planned: edits.Edits) -> None:
    """Refuse edits by which nginx would listen where somebody else does already. Raises errors.SiteRefused."""
    verdict = proof.judge(context.nginx.configuration(), planned)
    if planned and context.nginx.has_our_ports:
        present, wanted = (
            model.sockets(model.http_servers(state.outline())) for state in (verdict.read, verdict.after)
        )
        for socket in wanted:
            if socket.port and socket not in present and handshake.is_taken(socket.address, socket.port):
                raise errors.SiteRefused(
                    f"the site needs `listen {socket};`, but another program (or nginx's own stream block) holds that "
                    "port: see which with `ss -ltnp`, and end it, or name another with --http-01-port or --https-port"
                )


def endpoints(
    servers: Sequence[model.Server], port: int | None = None, *, tls: bool = False, is_everywhere: bool = False
) -> list[Endpoint]:
    """Return where the servers can be looked at from this machine: their own listen addresses.

    Left out, where there are others, are addresses that are not this machine's now (another's, or IPv6 is off), unless
    is_everywhere, and in clear sockets for HTTP/2, which before nginx 1.25.1 speak nothing else.
    """
    spoken = servers[0].spoken if servers else {}
    sockets = [socket for server in servers for socket in server.sockets if server.is_tls(socket) == tls]
    sockets = [socket for socket in sockets if port in (None, socket.port)]
    every = _endpoints([socket for socket in sockets if tls or b"http2" not in spoken[socket]] or sockets, spoken)
    return [endpoint for endpoint in every if is_everywhere or handshake.is_here(endpoint.address)] or every


def _endpoints(sockets: Iterable[Socket], spoken: Mapping[Socket, Collection[bytes]]) -> list[Endpoint]:
    endpoints = (
        Endpoint(_address(socket, spoken), socket.port, b"proxy_protocol" in spoken[socket])
        for socket in sockets
        if socket.port
    )
    return list(dict.fromkeys(endpoints))


def _address(socket: Socket, others: Collection[Socket]) -> str:
    """Return an address at which this machine reaches a socket; a wildcard's is one that has no socket of its own."""
    if socket.address == "*":
        free = (f"127.0.0.{number}" for number in range(1, 255))
        return next((each for each in free if Socket(each, socket.port) not in others), "127.0.0.1")
    return "::1" if socket.address == "::" else socket.address


@progress.waiting("nginx to serve it")
def wait_for(context: Context, check: Callable[[], None], seconds: float | None = None) -> None:
    """Check until that succeeds, for a while: a reloaded nginx may answer by the old configuration for a moment.

    seconds: None for as long as nginx may. Raises errors.NginxRefused where it could not load the new one.
    """
    time.sleep(max(context.nginx.settles_at - time.monotonic(), 0.0))
    deadline = time.monotonic() + (context.nginx.wait_seconds if seconds is None else seconds)
    while True:
        try:
            return check()
        except errors.NotServed:
            context.nginx.refuse_unloaded()
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def verify_served(context: Context, lineage: Lineage, seconds: float | None = None) -> None:
    """Wait until a TLS client is handed the lineage's leaf, and a sealed version's staple, at every listen address.

    Names that are another's are left out. Raises errors.NotServed after so many seconds; None: see wait_for().
    """
    site, _ = own_site(context, lineage)
    every = endpoints(site.tls, tls=True, is_everywhere=True)
    elsewhere = [endpoint for endpoint in every if not handshake.is_here(endpoint.address)]
    if elsewhere:
        context.say(f"Not looked at: {', '.join(map(str, elsewhere))}, which is not an address of this machine now")
    if not elsewhere or len(elsewhere) < len(every):
        wait_for(context, lambda: _refuse_other(lineage, site), seconds)


def handshakes(lineage: Lineage, site: find.Site) -> Iterator[tuple[str, Endpoint, Handshake]]:
    """Yield what a TLS client is handed for each name at each listen address of the site. Raises errors.NotServed."""
    is_paired = why_paired(lineage, site) is not None
    ciphers = {"rsa": b"aRSA", "ecdsa": b"aECDSA"}.get(lineage.key_type) if is_paired else None
    for name in site.secured if find.front(site) else site.domains:
        for endpoint in endpoints(site.tls, tls=True):
            yield name, endpoint, handshake.perform(endpoint, name, ciphers=ciphers)


def _refuse_other(lineage: Lineage, site: find.Site) -> None:
    has_looked = False
    response = lineage.named_response() if isinstance(lineage, Version) else None
    for name, endpoint, seen in handshakes(lineage, site):
        has_looked = True
        if seen.leaf_der != lineage.leaf_der:
            raise errors.NotServed(
                f"after the reload a TLS client that asks {endpoint} for {name} is handed another certificate than "
                f"{lineage.name}'s: another server block answers there; name the site's file with --seafile-site, "
                "or take the name out of the other block"
            )
        if response is not None and seen.staple != response:
            raise errors.NotServed(
                f"after the reload a TLS client that asks {endpoint} for {name} is handed the certificate without the "
                "staple that was stored for it; see nginx's error log"
            )
    if not has_looked and find.front(site) is None:
        raise errors.NotServed(
            f"no server block of the site speaks TLS for {', '.join(lineage.names)}; add `listen 443 ssl;` to it"
        )


def is_served(lineage: Lineage, site: find.Site) -> bool:
    """Tell whether TLS clients are handed the lineage's leaf now, of a sealed version its staple too."""
    with contextlib.suppress(errors.NotServed):
        _refuse_other(lineage, site)
        return True
    return False


def why_paired(lineage: Lineage, site: find.Site) -> str | None:
    """Return why no staple can be served where a server has two certificates; None where none has."""
    if pairs_beside(lineage, site):
        return "its server has an RSA and an ECDSA certificate, and nginx would serve one's staple with both"
    return None


def pairs_beside(lineage: Lineage, site: find.Site) -> frozenset[str]:
    """Return the paths of the certificates, and their keys, of the other key type for names of the lineage's."""
    others = named_certificates(site) - {lineage.fullchain_path}
    beside = [
        other
        for other in lineages.at_paths(lineage.config_dir, others)
        if other.fullchain_path in others
        and other.key_type != lineage.key_type
        and any(model.covers(other.names, name) for name in lineage.names)
    ]
    return frozenset(path for other in beside for path in (other.fullchain_path, other.key_path))


def named_certificates(site: find.Site) -> set[str]:
    """Return the paths of the certificates that the site's TLS servers name."""
    return set().union(*map(_named_by, site.tls))


def _named_by(server: Server) -> set[str]:
    return {os.fsdecode(line.arguments[0]) for line in server.level(b"ssl_certificate")}


def own_site(context: Context, lineage: Lineage) -> tuple[find.Site, dict[str, str]]:
    """Return the site for those of the lineage's names that are its own, else for all; the others with whose they are.

    Raises errors.SiteNotFound, errors.SiteRefused, errors.SyntaxRefused.
    """
    site = find_site(context, lineage.names)
    others = _owners(context, lineage, site)
    own = [name for name in site.domains if name not in others]
    return (find_site(context, own) if others and own else site), others


def _owners(context: Context, lineage: Lineage, site: find.Site) -> dict[str, str]:
    """Return those of the site's names that are served by another valid lineage like this one, with that one's name.

    Such a one is named in each server block that answers for the name over TLS, where this one is not, and is for all
    of the site's names for which the block answers.
    """
    found: dict[str, list[str | None]] = {}
    for server in site.tls:
        sockets = server.sockets
        answered = [n for n in site.domains if server in (model.choose(site.every, each, n) for each in sockets)]
        owner = _owner(context, lineage, _named_by(server), answered)
        for name in answered:
            found.setdefault(name, []).append(owner)
    return {name: each[0] for name, each in found.items() if each[0] and None not in each}


def _owner(context: Context, lineage: Lineage, named: Collection[str], names: Iterable[str]) -> str | None:
    if (versions.served(lineage) or lineage).fullchain_path in named:
        return None
    for other in lineages.at_paths(context.config_dir, named):
        is_like = other.key_type == lineage.key_type and all(model.covers(other.names, name) for name in names)
        is_named = (versions.served(other) or other).fullchain_path in named
        if other.name != lineage.name and is_like and is_named and context.now() < other.not_after:
            return other.name
    return None


def why_no_ecdsa(context: Context, site: find.Site) -> str | None:
    """Return why a TLS client could not be served an ECDSA certificate by the site; None where one could."""
    for server in (*site.tls, *(() if find.front(site) else find.serving(site))):
        ciphers = server.effective(b"ssl_ciphers")
        if ciphers is None or all("TLSv1.3" in _protocols(context, each) for each in _leading(context, site, server)):
            continue
        if not nginx.ciphers_allow_ecdsa(os.fsdecode(ciphers.arguments[0])):
            return f"{ciphers.path}:{ciphers.line} has ssl_ciphers without ECDSA, and there is no TLSv1.3"
    return None


def _leading(context: Context, site: find.Site, server: Server) -> list[Server]:
    """Return the server blocks that decide which versions of TLS a site has: its own, and the defaults of its sockets.

    A version is chosen before the name is looked at (ngx_http_ssl_servername).
    """
    port = context.options.https_port
    places = (
        model.socket_at(site.every, Socket(each.address, each.port if server in site.tls else port))
        for each in server.sockets
    )
    leading = (model.default_server(site.every, each) for each in places if each and b"ssl" in server.spoken[each])
    return [server, *filter(None, leading)]


def _protocols(context: Context, server: Server) -> Collection[str]:
    protocols = server.effective(b"ssl_protocols")
    return {os.fsdecode(word) for word in protocols.arguments} if protocols else context.nginx.default_protocols


# --- what others are handed, before an edit and after it -------------------------------------------------------------

#: How somebody looks: as a client of this name, there, over TLS or in clear.
Look = tuple[str, Endpoint, bool]


def see_neighbours(neighbours: Iterable[proof.Neighbour]) -> dict[Look, Answer | bytes]:
    """Return what clients of others are handed now: what is answered in clear, and over TLS the leaf's DER."""
    seen: dict[Look, Answer | bytes] = {}
    for server, socket, name in neighbours:
        for endpoint in _endpoints([socket], server.spoken):
            with contextlib.suppress(errors.NotServed):
                if b"ssl" in server.spoken[socket]:
                    seen[name, endpoint, True] = handshake.perform(endpoint, name).leaf_der
                elif (answer := handshake.get(endpoint, name, "/", seconds=_LOOK_SECONDS)).is_steady:
                    seen[name, endpoint, False] = answer.bare
    return seen


def verify_neighbours(
    context: Context, neighbours: Sequence[proof.Neighbour], before: dict[Look, Answer | bytes]
) -> None:
    """Wait until neighbours are answered as before. Raises errors.NotServed."""

    def check() -> None:
        now = see_neighbours(neighbours)
        for look, sight in before.items():
            name, endpoint, tls = look
            if now.get(look, sight) != sight:
                what = "is handed another certificate" if tls else "is answered otherwise"
                raise errors.NotServed(
                    f"after the reload a client that asks {endpoint} for {name} {what} than before, so the edits were "
                    "taken out again: give the Seafile site files and server blocks of its own"
                )

    wait_for(context, check)
