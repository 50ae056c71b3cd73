"""certbot's enhancements: redirect, Strict-Transport-Security, staple-ocsp.

The law: an enhancement is asked for by a person and named by certbot; what it means for a site, site/plan.py plans.
"""

from __future__ import annotations

from functools import partial

from certbot_seafile import errors
from certbot_seafile.site import edits, find, plan
from certbot_seafile.system import answers, files, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options
from certbot_seafile.usecases import deploy


def enhance(context: Context, domain: str, enhancement: str, options: object = None) -> None:
    """Add redirect, ensure-http-header (HSTS) or staple-ocsp to the domain's site. Raises errors.EnhancementPresent."""
    known = lineages.load_each(context.config_dir, lineages.all_names(context.config_dir), options=context.options)
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
    names = lineage.names if lineage else (domain,)  # certbot enhances one after the other
    with files.lock(context.lock_path):
        planned = serving.plan_edits(context, names, partial(add_edits, context.options))
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


def _add_redirect(options: Options, planned: edits.Edits, site: find.Site) -> None:
    if not site.tls:
        raise errors.Error(
            f"nginx has no TLS for {', '.join(site.domains)}, so a redirect to https would lead nowhere, or in "
            "circles; deploy the certificate first, or let what ends TLS in front of nginx redirect"
        )
    for server in site.plain:
        if not find.redirects_all(server):
            plan.redirect(planned, server, (options.http_port, options.https_port))


def _add_hsts(options: Options, planned: edits.Edits, site: find.Site) -> None:
    for server in site.tls:
        plan.add_hsts(planned, server)
