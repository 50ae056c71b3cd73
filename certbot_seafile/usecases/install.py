"""A certificate put into the site: planned, written, loaded, and looked at.

The law: what is to stand in a site for a certificate is planned here for every use, so that a plan which is checked
before the CA is asked is the one that a deployment carries out.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from certbot_seafile.ocsp import store
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import edits, find, plan
from certbot_seafile.system import answers, challenge, files, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Paths


def put_into_site(context: Context, lineage: Lineage, site: find.Site) -> bool:
    """Edit the site where needed, see that the leaf is served; return whether it was edited. Raises errors.Error."""
    planned = plan_for(context, lineage, site)
    if planned:
        before = answers.see(context, site)
        with writing.edited(context, planned, "deploy", lineage.name):
            context.nginx.reload()
            serving.verify_served(context, lineage)
            answers.verify(context, site.domains, before)
        context.say(f"Site edited: {writing.count_lines(planned)}")
    return bool(planned)


def plan_for(context: Context, lineage: Lineage, site: find.Site) -> edits.Edits:
    """Plan what lets the site answer challenges and use the lineage's certificate."""
    is_sealed = isinstance(lineage, Version)
    kept = frozenset() if is_sealed else serving.pairs_beside(lineage, site)
    is_stapled = not kept and store.why_unstapled(lineage) is None
    certificate = plan.Certificate(
        lineage.fullchain_path, lineage.key_path, lineage.snippet_path, is_stapled, kept, is_sealed
    )
    is_by_dns = lineage.renewal.get("authenticator", "").startswith("dns-")
    return _plan(context, lineage.names, lineage.name, certificate, is_by_dns=is_by_dns)


def check_plan(context: Context, names: Sequence[str], cert_name: str | None, *, must_staple: bool) -> find.Site:
    """Return the site for the names, where a deployment can be planned and written; edit nothing.

    Raises errors.SiteRefused, errors.FileRefused.
    """
    site = serving.find_site(context, names)
    paths = Paths(cert_name or names[0], context.config_dir, context.options)
    is_sealed, is_by_dns = must_staple or versions.is_sealed(paths), any(name.startswith("*.") for name in names)
    certificate = plan.Certificate(paths.fullchain_path, paths.key_path, paths.snippet_path, True, is_sealed=is_sealed)
    planned = _plan(context, names, paths.name, certificate, is_by_dns=is_by_dns)
    if context.renewer is None:
        writing.refuse_fixed(context, planned)
        serving.refuse_taken(context, planned)
        if is_sealed:
            files.refuse_read_only(context.options.staple_dir)
    has_staples = is_sealed or os.path.isdir(context.options.staple_dir)  # many CAs have none
    read = [paths.snippet_path] if has_staples else []
    context.nginx.refuse_unseen([*planned.paths, os.path.dirname(paths.fullchain_path), *read])
    for server in site.tls:
        if strangers := find.strangers(server, names):
            context.say(
                f"{', '.join(strangers)}: {server} answers for this name too, and the certificate is not for it: what "
                f"is answered to it stays as it is; add it with -d {' -d '.join(strangers)}"
            )
    if (line := find.front(site)) is not None:
        context.say(
            f"TLS ends in front of nginx, as {line.path}:{line.line} shows: the site gets neither TLS nor a redirect; "
            "let what ends TLS there use the certificate"
        )
    return site


def _plan(
    context: Context, names: Sequence[str], cert_name: str, certificate: plan.Certificate, *, is_by_dns: bool
) -> edits.Edits:
    options = context.options

    def add_edits(planned: edits.Edits, site: find.Site) -> None:
        if not is_by_dns:  # what is validated by DNS needs no location for challenges, and no port 80
            challenge.let_answer(options, planned, site, only_missing=True)
        for server, domain in site.nameless:
            if server in site.tls and server not in site.plain:
                plan.add_name(planned, server, domain)
        for server in site.tls:
            plan.install(planned, server, certificate, options.https_port)
        if find.front(site) is None:
            ports = options.http_port, options.https_port
            for server in find.serving(site):
                plan.add_tls(planned, site, server, certificate, ports, not options.no_redirect)

    plain = Paths(cert_name, context.config_dir, options)
    own = plain.fullchain_path, certificate.fullchain, certificate.include
    return serving.plan_edits(context, names, add_edits, own)


def including(context: Context, paths: Paths) -> list[str]:
    """Return the lines, "FILE:LINE", of what nginx reads that include the lineage's snippet."""
    include = os.fsencode(plan.staple_include(paths.snippet_path))
    statements = context.nginx.configuration().mentioning(include)
    return [f"{each.path}:{each.line}" for each in statements if each.arguments[:1] == (include,)]
