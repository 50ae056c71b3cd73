"""What the site answers now: which server blocks it has, and what clients are handed by them.

The law: here is looked, at the configuration and from outside; nothing is changed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

from certbot_seafile import errors
from certbot_seafile.site import model, plan
from certbot_seafile.system import handshake, lineages, nginx
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage

SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.05


def find_site(context: Context, domains: Sequence[str]) -> plan.Site:
    """Return the site that answers for the domains, from what nginx reads now.

    Raises errors.SiteNotFound, errors.SiteAmbiguous, errors.SiteRefused, errors.SyntaxRefused.
    """
    site_path = os.path.realpath(context.options.site) if context.options.site else None

    def find(statements: Sequence[model.Statement]) -> plan.Site:
        every = model.http_servers(statements)
        return plan.find(every, domains, site_path=site_path, http_port=context.options.http_port)

    if site_path is not None:
        return find(context.nginx.statements())
    found = find(context.nginx.statements(plan.matters(domains)))
    # Who else reads an included file, only the whole configuration tells.
    return find(context.nginx.statements()) if found.spans_files else found


def endpoints(
    chosen: Sequence[model.Server], port: int | None = None, *, tls: bool = False
) -> list[handshake.Endpoint]:
    """Return where the servers can be looked at from this machine: their own listen addresses."""
    found: dict[handshake.Endpoint, None] = {}
    for server in chosen:
        for listen in server.listens:
            if listen.socket.address.startswith("unix:") or server.is_tls(listen) != tls:
                continue
            if port is not None and listen.socket.port != port:
                continue
            address = {"*": "127.0.0.1", "::": "::1"}.get(listen.socket.address, listen.socket.address)
            found[handshake.Endpoint(address, listen.socket.port, listen.has_proxy_protocol)] = None
    return list(found)


def look(context: Context, lineage: Lineage) -> None:
    """Wait until a TLS client is handed the lineage's leaf by every listen address. Raises errors.NotServed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            _look_once(context, lineage, find_site(context, lineage.names))
            return
        except errors.NotServed:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def looks(
    context: Context, lineage: Lineage, site: plan.Site
) -> Iterator[tuple[str, handshake.Endpoint, handshake.Look]]:
    """Yield what a TLS client is handed for each name at each listen address of the site. Raises errors.NotServed."""
    paired = why_paired(context, lineage, site) is not None
    ciphers = {"rsa": b"aRSA", "ecdsa": b"aECDSA"}.get(lineage.key_type) if paired else None
    for name in lineage.names:
        for endpoint in endpoints(site.tls, tls=True):
            yield name, endpoint, handshake.handshake(endpoint, name, ciphers=ciphers, tls12=ciphers is not None)


def _look_once(context: Context, lineage: Lineage, site: plan.Site) -> None:
    looked = False
    for name, endpoint, seen in looks(context, lineage, site):
        looked = True
        if seen.leaf_der != lineage.leaf_der:
            raise errors.NotServed(
                f"after the reload a TLS client that asks {endpoint} for {name} is handed another certificate than "
                f"{lineage.name}'s: another server block answers there; name the site's file with --seafile-site, "
                "or take the name out of the other block"
            )
    if not looked:
        raise errors.NotServed(
            f"no server block of the site speaks TLS for {', '.join(lineage.names)}; add `listen 443 ssl;` to it"
        )


def is_served(context: Context, lineage: Lineage, site: plan.Site) -> bool:
    """Tell whether TLS clients are handed the lineage's leaf now."""
    try:
        _look_once(context, lineage, site)
    except errors.NotServed:
        return False
    return True


def kept_pairs(context: Context, lineage: Lineage) -> frozenset[str]:
    """Return the paths of other lineages of the other key type for the same names: their pair may stand beside ours."""
    kept: set[str] = set()
    for name in lineages.names_of_plugin(context.config_dir):
        if name == lineage.name:
            continue
        with contextlib.suppress(errors.LineageRefused):
            other = lineages.load(context.config_dir, name)
            if other.key_type != lineage.key_type and set(other.names) & set(lineage.names):
                kept |= {other.fullchain_path, other.key_path}
    return frozenset(kept)


def why_paired(context: Context, lineage: Lineage, site: plan.Site) -> str | None:
    """Return why no staple can be served where a server has two certificates; None where none has."""
    named = {os.fsdecode(said.arguments[0]) for server in site.tls for said in server.level(b"ssl_certificate")}
    others = named - {lineage.fullchain_path}
    # The other lineages are read only where the site names another certificate: each look comes by here.
    if others and others & kept_pairs(context, lineage):
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
