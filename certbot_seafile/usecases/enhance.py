"""certbot's enhancements: redirect, Strict-Transport-Security, staple-ocsp.

The law: an enhancement is asked for by a person and named by certbot; what it means for a site, site/plan.py plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from certbot_seafile import errors
from certbot_seafile.site import edits, find, model, plan
from certbot_seafile.site.model import Server
from certbot_seafile.system import answers, files, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options
from certbot_seafile.usecases import deploy


def enhance(
    context: Context, domain: str, enhancement: str, options: object = None, cert_name: str | None = None
) -> None:
    """Add redirect, ensure-http-header (HSTS) or staple-ocsp where nginx answers for the domain, and nowhere else.

    cert_name: the lineage whose domain it is; None for the first that has it. Raises errors.EnhancementPresent.
    """
    among = [cert_name] if cert_name else lineages.all_names(context.config_dir)
    known = lineages.load_each(context.config_dir, among, options=context.options)
    lineage = next((lineage for lineage in known if domain in lineage.names), None)
    if enhancement == "staple-ocsp":
        if lineage is None:
            raise errors.LineageRefused(
                f"no certificate is for {domain}; get one with `certbot certonly -a seafile -d {domain}`"
            )
        deploy.deploy(context, lineage)
        return
    is_redirect = enhancement == "redirect"
    if not is_redirect and options != "Strict-Transport-Security":
        raise errors.Error(f"the header {options} cannot be ensured; only Strict-Transport-Security can")
    add_edits = _add_redirect if is_redirect else _add_hsts
    names = lineage.names if lineage else (domain,)  # whom else it may change; certbot enhances one after the other
    with files.lock(context.lock_path):
        planned = serving.plan_edits(context, names, partial(add_edits, context.options, domain))
        if not planned:
            raise errors.EnhancementPresent(
                "the site redirects to https already"
                if is_redirect
                else "the site sends Strict-Transport-Security already"
            )
        before = answers.see(context, serving.find_site(context, names))
        with writing.edited(context, planned, enhancement, domain):
            context.nginx.reload()
            answers.verify(context, names, before)
        context.say(f"Site edited: {writing.count_lines(planned)}")


def _add_redirect(options: Options, domain: str, planned: edits.Edits, site: find.Site) -> None:
    meant = _answering(site, domain, site.plain)
    ready = {*site.secured} - {name for server, name in site.nameless if server in site.tls}
    servers = [server for server in meant if ready.issuperset(site.names_of(server))]
    if not site.tls or (meant and not servers):
        raise errors.Error(
            f"nginx has no TLS for {', '.join(name for name in site.domains if name not in ready)}, so a redirect to "
            "https would lead nowhere, or in circles; deploy the certificate first, or let what ends TLS in front of "
            "nginx redirect"
        )
    for server in servers:
        if not find.redirects_all(server, site.names_of(server)):
            plan.redirect(planned, server, (options.http_port, options.https_port))


def _add_hsts(options: Options, domain: str, planned: edits.Edits, site: find.Site) -> None:
    for server in _answering(site, domain, site.tls):
        plan.add_hsts(planned, server)


def _answering(site: find.Site, domain: str, servers: Sequence[Server]) -> list[Server]:
    """Return those of the servers that answer for the domain, or for a name that it covers."""
    return [each for each in servers if any(model.covers({domain.lower()}, name) for name in site.names_of(each))]
