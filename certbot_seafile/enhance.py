"""certbot's enhancements: redirect, Strict-Transport-Security, staple-ocsp.

The law: an enhancement is asked for by a person and named by certbot; what it means for a site is planned in site.py.
"""

from __future__ import annotations

from certbot_seafile import deploy, edits, errors, files, lineage, serving, site, writing
from certbot_seafile.host import Host


def enhance(host: Host, domain: str, enhancement: str, options: object = None) -> None:
    """Add certbot's enhancement to the domain's site: redirect, ensure-http-header (HSTS) or staple-ocsp.

    Raises errors.EnhancementPresent where it stands there already.
    """
    with files.lock(host.lock_path):
        host.nginx.test()
        where = serving.find_site(host, [domain])
        planned = edits.Edits()
        if enhancement == "redirect":
            _plan_redirect(host, planned, where)
        elif enhancement == "ensure-http-header":
            _plan_header(planned, where, options)
        if planned:
            with writing.edited(host, planned, f"certbot-seafile {enhancement} {domain}"):
                host.nginx.reload()
            host.say(f"Site edited: {writing.count_lines(planned)}")
    if enhancement == "staple-ocsp":
        _enhance_staple(host, domain)


def _plan_redirect(host: Host, planned: edits.Edits, where: site.Site) -> None:
    missing = [server for server in where.plain if not site.redirects_all(server)]
    if not missing:
        raise errors.EnhancementPresent("the site redirects to https already")
    for server in missing:
        is_shared = any(server.is_tls(listen) for listen in server.listens)
        site.redirect(planned, server, host.options.https_port, is_shared=is_shared)


def _plan_header(planned: edits.Edits, where: site.Site, options: object) -> None:
    if options != "Strict-Transport-Security":
        raise errors.EnhancementUnknown(f"the header {options} cannot be ensured; only Strict-Transport-Security can")
    missing = [server for server in where.tls if not site.has_hsts(server)]
    if not missing:
        raise errors.EnhancementPresent("the site sends Strict-Transport-Security already")
    for server in missing:
        site.add_hsts(planned, server)


def _enhance_staple(host: Host, domain: str) -> None:
    for name in lineage.all_names(host.config_dir):
        found = lineage.load(host.config_dir, name, options=host.options)
        if domain in found.names:
            deploy.deploy(host, found)
            return
    raise errors.LineageRefused(
        f"no certificate is for {domain}; get one with `certbot certonly -a seafile -d {domain}`"
    )
