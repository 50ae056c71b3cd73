"""Deploy a lineage, and keep it served.

The law: each use case is told here as a table of contents; how a step is done stands in the rooms below.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import NoReturn

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.ocsp.store import Outcome
from certbot_seafile.sealed import pinning
from certbot_seafile.site import edits, plan
from certbot_seafile.system import challenge, files, lineages, records, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import refresh

logger = logging.getLogger(__name__)


def deploy(context: Context, lineage: Lineage) -> None:
    """Let the site use the lineage's certificate, with its staple: the whole of the deploy hook.

    Raises errors.Error; then the site is as it was, and nginx serves what it served.
    """
    with files.lock(context.lock_path):
        store.remove_dangling_snippet(lineage)
        context.nginx.test()
        site = serving.find_site(context, lineage.names)
        _remove_leftovers(context, lineage, site)
        outcome = _outcome(context, lineage, site)
        loading = store.Round(context)
        loading.write(lineage, outcome)
        if pinning.unpin(context, lineage):
            loading.must_reload = True
        is_loaded = _edit(context, lineage, loading)
        if not is_loaded and not _ensure_served(context, lineage, loading):
            context.say(f"Ready: the certificate of {lineage.name}, which nginx serves once root's step has run")
            return
        loading.finish()
        pinning.clear(context, lineage)
        context.say(f"Served: the certificate of {lineage.name}, {outcome}")
    _complete_renewal(context, lineage)
    if outcome.is_revoked:
        raise errors.NotStapled(
            f"{lineage.name}: {outcome.reason}; get a new certificate with "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`"
        )


def _outcome(context: Context, lineage: Lineage, site: plan.Site) -> Outcome:
    """Return the staple to serve; where a must-staple certificate has none, leave the earlier certificate in place."""
    if reason := serving.why_paired(context, lineage, site):
        return Outcome(None, records.load(context.state_dir, lineage), reason)
    if not lineage.is_must_staple:
        return store.ensure_staple(context, lineage)
    is_served = serving.is_served(context, lineage, site)
    if not is_served:
        pinning.pin(context, lineage)
    outcome = store.ensure_staple(context, lineage, tries=context.must_staple_tries)
    if not is_served and outcome.staple is None:
        _wait_for_staple(context, lineage, outcome)
    return outcome


def _edit(context: Context, lineage: Lineage, loading: store.Round) -> bool:
    """Edit the site where it does not use the certificate yet, and load it; return whether that was needed."""
    try:
        is_loaded = put_into_site(context, lineage, serving.find_site(context, lineage.names))
    except errors.RootNeeded:  # where only lines for stapling are missing, the renewed certificate can be served
        loading.load()
        raise
    if is_loaded:
        loading.must_reload = False
    return is_loaded


def _ensure_served(context: Context, lineage: Lineage, loading: store.Round) -> bool:
    """Load what was written, and see that clients are handed the leaf; return whether nginx has loaded it already."""
    if loading.must_reload or not serving.is_served(context, lineage, serving.find_site(context, lineage.names)):
        loading.load()
        if context.nginx.reads_later:
            return False
        serving.verify_served(context, lineage)
    return True


def put_into_site(context: Context, lineage: Lineage, site: plan.Site) -> bool:
    """Edit the site where it does not use the certificate yet, reload nginx, see that it is served; return if needed.

    Raises errors.Error; then the site is as it was.
    """
    planned = plan_for(context, lineage, site)
    if planned:
        with writing.edited(context, planned, f"certbot-seafile deploy {lineage.name}"):
            context.nginx.reload()
            serving.verify_served(context, lineage)
        context.say(f"Site edited: {writing.count_lines(planned)}")
    return bool(planned)


def plan_for(context: Context, lineage: Lineage, site: plan.Site) -> edits.Edits:
    """Plan what lets the site answer challenges and use the lineage's certificate."""
    is_stapled = store.why_unstapled(lineage) is None and serving.why_paired(context, lineage, site) is None
    certificate = plan.Certificate(
        lineage.fullchain_path,
        lineage.key_path,
        lineage.snippet_path,
        is_stapled,
        serving.kept_pairs(context, lineage),
    )
    return _plan(context, site, certificate)


def _plan(context: Context, site: plan.Site, certificate: plan.Certificate) -> edits.Edits:
    planned = challenge.plan_challenge(context, site, only_missing=True)
    for server, domain in site.nameless:
        if server in site.tls and server not in site.plain:
            plan.add_name(planned, server, domain)
    for server in site.tls:
        plan.install(planned, site, server, certificate)
    if not site.tls:
        for server in site.plain:
            plan.add_tls(planned, site, server, certificate, context.options.https_port)
    return planned


def check_plan(context: Context, names: Sequence[str]) -> plan.Site:
    """Plan a deployment for the names and write nothing: what cannot be done is refused before the CA is asked.

    Return the site. Raises errors.SiteRefused and its kinds.
    """
    site = serving.find_site(context, names)
    folder = os.path.join(context.config_dir, "live", names[0])
    pair = os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem")
    snippet = lineages.snippet_path(context.options, names[0])
    _plan(context, site, plan.Certificate(*pair, snippet, True))
    for server in site.tls:
        if strangers := plan.strangers(server, names):
            context.say(
                f"{', '.join(strangers)}: {server} answers for this name too, and the certificate is not for it; "
                f"add it with -d {' -d '.join(strangers)}"
            )
    return site


def keep(context: Context, lineage: Lineage) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    When it came by and how that ended is remembered. Raises errors.Error where a client would be hurt: revoked,
    must-staple without a staple, or not served.
    """
    failure: str | None = "it was interrupted"
    try:
        _keep(context, lineage)
        failure = None
    except errors.CertbotError as error:
        failure = str(error)
        raise
    finally:
        record = replace(records.load(context.state_dir, lineage), last_run=context.now(), last_failure=failure)
        with contextlib.suppress(errors.FileRefused):  # a full disk has been told already
            records.write(context.state_dir, lineage.name, record)


def _keep(context: Context, lineage: Lineage) -> None:
    site = serving.find_site(context, lineage.names)
    if not serving.is_served(context, lineage, site):
        deploy(context, lineage)
        return
    with files.lock(context.lock_path):
        _remove_leftovers(context, lineage, site)
        pinning.repair(context, lineage)
    if serving.why_paired(context, lineage, site) is not None:
        return
    result = refresh.refresh_one(context, lineage)
    result.report(context.say)
    if result.is_fault:
        raise errors.NotStapled(f"{lineage.name}: {result.failure}; `certbot-seafile check` says what to do")


def _remove_leftovers(context: Context, lineage: Lineage, site: plan.Site) -> None:
    """Remove what a killed run left open or half-written."""
    context.checkpoints.close()
    record_path = records.path(context.state_dir, lineage.name)
    paths = (*site.paths, lineage.snippet_path, lineage.response_path, lineage.renewal_path, record_path)
    for folder in {context.state_dir, *map(os.path.dirname, paths)}:
        files.sweep(folder)


def _wait_for_staple(context: Context, lineage: Lineage, outcome: Outcome) -> NoReturn:
    """Leave the certificate that is served where it is: clients would refuse one that must be stapled and is not."""
    pinning.keep_staple(context, lineage)
    _complete_renewal(context, lineage)
    raise errors.NotStapled(
        f"{lineage.name} must be stapled but cannot be, so the old certificate stays: {outcome.reason}; "
        f"the next `certbot renew` tries again, or run `certbot-seafile deploy --cert-name {lineage.name}`"
    )


def _complete_renewal(context: Context, lineage: Lineage) -> None:
    if context.hook_command and lineages.complete_renewal(lineage, context.hook_command):
        logger.info("installer and deploy hook were added to %s", lineage.renewal_path)
