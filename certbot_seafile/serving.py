"""What the site answers now: which server blocks it has, and what clients are handed by them.

The law: here is looked, at the configuration and from outside; nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from certbot_seafile import errors, lineage, nginx, probe, servers, site
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage

SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.05


def find_site(host: Host, domains: Sequence[str]) -> site.Site:
    """Return the site that answers for the domains, from what nginx reads now.

    Raises errors.SiteNotFound, errors.SiteAmbiguous, errors.SiteRefused, errors.SyntaxRefused.
    """
    site_path = os.path.realpath(host.options.site) if host.options.site else None

    def find(statements: Sequence[servers.Statement]) -> site.Site:
        every = servers.http_servers(statements)
        return site.find(every, domains, site_path=site_path, http_port=host.options.http_port)

    if site_path is not None:
        return find(host.nginx.statements())
    found = find(host.nginx.statements(site.matters(domains)))
    # Who else reads an included file, only the whole configuration tells.
    return find(host.nginx.statements()) if found.spans_files else found


def endpoints(chosen: Sequence[servers.Server], port: int | None = None, *, tls: bool = False) -> list[probe.Endpoint]:
    """Return where the servers can be looked at from this machine: their own listen addresses."""
    found: dict[probe.Endpoint, None] = {}
    for server in chosen:
        for listen in server.listens:
            if listen.socket.address.startswith("unix:") or server.is_tls(listen) != tls:
                continue
            if port is not None and listen.socket.port != port:
                continue
            address = {"*": "127.0.0.1", "::": "::1"}.get(listen.socket.address, listen.socket.address)
            found[probe.Endpoint(address, listen.socket.port, listen.has_proxy_protocol)] = None
    return list(found)


def look(host: Host, found: Lineage) -> None:
    """Wait until a TLS client is handed the lineage's leaf by every listen address. Raises errors.NotServed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            _look_once(host, found, find_site(host, found.names))
            return
        except errors.NotServed:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def looks(host: Host, found: Lineage, where: site.Site) -> Iterator[tuple[str, probe.Endpoint, probe.Look]]:
    """Yield what a TLS client is handed for each name at each listen address of the site. Raises errors.NotServed."""
    paired = why_paired(host, found, where) is not None
    ciphers = {"rsa": b"aRSA", "ecdsa": b"aECDSA"}.get(found.key_type) if paired else None
    for name in found.names:
        for endpoint in endpoints(where.tls, tls=True):
            yield name, endpoint, probe.handshake(endpoint, name, ciphers=ciphers, tls12=ciphers is not None)


def _look_once(host: Host, found: Lineage, where: site.Site) -> None:
    looked = False
    for name, endpoint, seen in looks(host, found, where):
        looked = True
        if seen.leaf_der != found.leaf_der:
            raise errors.NotServed(
                f"after the reload a TLS client that asks {endpoint} for {name} is handed another certificate than "
                f"{found.name}'s: another server block answers there; name the site's file with --seafile-site, "
                "or take the name out of the other block"
            )
    if not looked:
        raise errors.NotServed(
            f"no server block of the site speaks TLS for {', '.join(found.names)}; add `listen 443 ssl;` to it"
        )


def is_served(host: Host, found: Lineage, where: site.Site) -> bool:
    """Tell whether TLS clients are handed the lineage's leaf now."""
    try:
        _look_once(host, found, where)
    except errors.NotServed:
        return False
    return True


def kept_pairs(host: Host, found: Lineage) -> frozenset[str]:
    """Return the paths of other lineages of the other key type for the same names: their pair may stand beside ours."""
    kept: set[str] = set()
    for name in lineage.names_of_plugin(host.config_dir):
        if name == found.name:
            continue
        with contextlib.suppress(errors.LineageRefused):
            other = lineage.load(host.config_dir, name)
            if other.key_type != found.key_type and set(other.names) & set(found.names):
                kept |= {other.fullchain_path, other.key_path}
    return frozenset(kept)


def why_paired(host: Host, found: Lineage, where: site.Site) -> str | None:
    """Return why no staple can be served where a server has two certificates; None where none has."""
    named = {os.fsdecode(said.arguments[0]) for server in where.tls for said in server.level(b"ssl_certificate")}
    others = named - {found.fullchain_path}
    # The other lineages are read only where the site names another certificate: each look comes by here.
    if others and others & kept_pairs(host, found):
        return "its server has an RSA and an ECDSA certificate, and nginx would serve one's staple with both"
    return None


def why_no_ecdsa(host: Host, found: site.Site) -> str | None:
    """Return why a TLS client could not be served an ECDSA certificate by the site; None where one could."""
    for server in found.tls:
        ciphers = server.effective(b"ssl_ciphers")
        protocols = server.effective(b"ssl_protocols")
        spoken = {os.fsdecode(word) for word in protocols.arguments} if protocols else host.nginx.default_protocols
        if "TLSv1.3" in spoken or ciphers is None:
            continue
        if not nginx.ciphers_allow_ecdsa(os.fsdecode(ciphers.arguments[0])):
            return f"{ciphers.path}:{ciphers.line} has ssl_ciphers without ECDSA, and there is no TLSv1.3"
    return None
