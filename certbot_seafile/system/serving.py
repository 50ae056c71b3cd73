"""What the site answers now: which server blocks it has, and what clients are handed by them.

The law: the configuration and the running nginx are only looked at; nothing is changed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence

from certbot_seafile import errors
from certbot_seafile.site import edits, model, plan, proof
from certbot_seafile.site.config import Configuration, Statement
from certbot_seafile.system import handshake, lineages, nginx
from certbot_seafile.system.context import Context
from certbot_seafile.system.handshake import Endpoint, Handshake
from certbot_seafile.system.lineages import Lineage

_WAIT_SECONDS = 2.0
_POLL_SECONDS = 0.05
_LOOPBACK = {"*": "127.0.0.1", "::": "::1"}


def find_site(context: Context, domains: Sequence[str], configuration: Configuration | None = None) -> plan.Site:
    """Return the site that answers for the domains, from what nginx reads now, or in another configuration.

    Raises errors.SiteNotFound, errors.SiteAmbiguous, errors.SiteRefused, errors.SyntaxRefused.
    """
    read, options = configuration or context.nginx.configuration(), context.options
    site_path = os.path.realpath(options.site) if options.site else None

    def find(statements: Sequence[Statement]) -> plan.Site:
        servers = model.http_servers(statements)
        return plan.find(servers, domains, read.readers, site_path=site_path, http_port=options.http_port)

    try:
        return find(read.statements(domains, site_path=site_path))
    except errors.SiteNotFound:
        return find(read.statements())  # whose message names Seafile sites with other names


def plan_edits(
    context: Context, domains: Sequence[str], add_edits: Callable[[edits.Edits, plan.Site], None]
) -> edits.Edits:
    """Return edits for the site of the domains by which nobody else is hurt. Raises errors.SiteRefused."""
    return proof.plan_harmless(
        context.nginx.configuration(), lambda state: find_site(context, domains, state), add_edits
    )


def endpoints(servers: Sequence[model.Server], port: int | None = None, *, tls: bool = False) -> list[Endpoint]:
    """Return where the servers can be looked at from this machine: their own listen addresses."""
    listens = [
        (server, listen.socket) for server in servers for listen in server.listens if server.is_tls(listen) == tls
    ]
    endpoints = (
        Endpoint(_LOOPBACK.get(socket.address, socket.address), socket.port, b"proxy_protocol" in server.spoken[socket])
        for server, socket in listens
        if not socket.address.startswith("unix:") and port in (None, socket.port)
    )
    return list(dict.fromkeys(endpoints))


def wait_for(check: Callable[[], None], failure: type[errors.Error], seconds: float = _WAIT_SECONDS) -> None:
    """Check until that succeeds, for a while: a reloaded nginx may answer by the old configuration for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except failure:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def verify_served(context: Context, lineage: Lineage, response: bytes | None = None, seconds: float = 2.0) -> None:
    """Wait until a TLS client is handed the lineage's leaf, and this staple with it, at every listen address.

    response: None for any staple or none. Raises errors.NotServed after so many seconds.
    """
    site = find_site(context, lineage.names)
    wait_for(lambda: _refuse_other(lineage, site, response), errors.NotServed, seconds)


def handshakes(lineage: Lineage, site: plan.Site) -> Iterator[tuple[str, Endpoint, Handshake]]:
    """Yield what a TLS client is handed for each name at each listen address of the site. Raises errors.NotServed."""
    is_paired = why_paired(lineage, site) is not None
    ciphers = {"rsa": b"aRSA", "ecdsa": b"aECDSA"}.get(lineage.key_type) if is_paired else None
    for name in lineage.names:
        for endpoint in endpoints(site.tls, tls=True):
            yield name, endpoint, handshake.perform(endpoint, name, ciphers=ciphers)


def _refuse_other(lineage: Lineage, site: plan.Site, response: bytes | None = None) -> None:
    has_looked = False
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
    if not has_looked:
        raise errors.NotServed(
            f"no server block of the site speaks TLS for {', '.join(lineage.names)}; add `listen 443 ssl;` to it"
        )


def is_served(lineage: Lineage, site: plan.Site) -> bool:
    """Tell whether TLS clients are handed the lineage's leaf now."""
    try:
        _refuse_other(lineage, site)
    except errors.NotServed:
        return False
    return True


def why_paired(lineage: Lineage, site: plan.Site) -> str | None:
    """Return why no staple can be served where a server has two certificates; None where none has."""
    certificates = {line for server in site.tls for line in server.level(b"ssl_certificate")}
    others = {os.fsdecode(line.arguments[0]) for line in certificates} - {lineage.fullchain_path}
    # The other lineages are loaded only where the site names another certificate.
    if others and others & lineages.pairs_beside(lineage):
        return "its server has an RSA and an ECDSA certificate, and nginx would serve one's staple with both"
    return None


def why_no_ecdsa(context: Context, site: plan.Site) -> str | None:
    """Return why a TLS client could not be served an ECDSA certificate by the site; None where one could."""
    for server in site.tls:
        ciphers = server.effective(b"ssl_ciphers")
        protocols = server.effective(b"ssl_protocols")
        spoken = {os.fsdecode(word) for word in protocols.arguments} if protocols else context.nginx.default_protocols
        if "TLSv1.3" in spoken or ciphers is None:
            continue
        if not nginx.ciphers_allow_ecdsa(os.fsdecode(ciphers.arguments[0])):
            return f"{ciphers.path}:{ciphers.line} has ssl_ciphers without ECDSA, and there is no TLSv1.3"
    return None
