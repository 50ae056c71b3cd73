"""certbot's enhancements: redirect, Strict-Transport-Security, staple-ocsp.

The law: an enhancement is asked for by a person and named by certbot; what it means for a site, site/plan.py plans.
"""

from __future__ import annotations

from collections.abc import Sequence

from certbot_seafile import errors
from certbot_seafile.site import edits, plan
from certbot_seafile.system import answers, files, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.usecases import deploy


def enhance(context: Context, domain: str, enhancement: str, options: object = None) -> None:
    """Add redirect, ensure-http-header (HSTS) or staple-ocsp to the domain's site. Raises errors.EnhancementPresent."""
    if enhancement == "staple-ocsp":
        deploy.deploy(context, _lineage_for(context, domain))
        return
    with files.lock(context.lock_path):
        is_redirect = enhancement == "redirect"
        names = _names_beside(context, domain)
        planned = _plan_redirect(context, names) if is_redirect else _plan_header(context, names, options)
        before = answers.see(context, serving.find_site(context, names))
        with writing.edited(context, planned, enhancement, domain):
            context.nginx.reload()
            answers.verify(context, names, before)
        context.say(f"Site edited: {writing.count_lines(planned)}")


def _plan_redirect(context: Context, names: Sequence[str]) -> edits.Edits:
    def add_edits(planned: edits.Edits, site: plan.Site) -> None:
        if not site.tls:
            raise errors.Error(
                f"nginx has no TLS for {', '.join(names)}, so a redirect to https would lead nowhere, or in circles; "
                "deploy the certificate first, or let what ends TLS in front of nginx redirect"
            )
        for server in site.plain:
            if not plan.redirects_all(server):
                plan.redirect(planned, server, (context.options.http_port, context.options.https_port))

    planned = serving.plan_edits(context, names, add_edits)
    if not planned:
        raise errors.EnhancementPresent("the site redirects to https already")
    return planned


def _plan_header(context: Context, names: Sequence[str], options: object) -> edits.Edits:
    if options != "Strict-Transport-Security":
        raise errors.Error(f"the header {options} cannot be ensured; only Strict-Transport-Security can")

    def add_edits(planned: edits.Edits, site: plan.Site) -> None:
        for server in site.tls:
            plan.add_hsts(planned, server)

    planned = serving.plan_edits(context, names, add_edits)
    if not planned:
        raise errors.EnhancementPresent("the site sends Strict-Transport-Security already")
    return planned


def _names_beside(context: Context, domain: str) -> tuple[str, ...]:
    """Return the names of the certificate that is for a domain: certbot enhances one after the other."""
    try:
        return _lineage_for(context, domain).names
    except errors.LineageRefused:
        return (domain,)


def _lineage_for(context: Context, domain: str) -> lineages.Lineage:
    for name in lineages.all_names(context.config_dir):
        lineage = lineages.load(context.config_dir, name, options=context.options)
        if domain in lineage.names:
            return lineage
    raise errors.LineageRefused(
        f"no certificate is for {domain}; get one with `certbot certonly -a seafile -d {domain}`"
    )
