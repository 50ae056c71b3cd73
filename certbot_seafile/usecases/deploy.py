"""Deploy a lineage, and keep it served.

The law: each use case is told here as a table of contents; how a step is done stands in the rooms below.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import pinning
from certbot_seafile.site import edits, plan
from certbot_seafile.system import challenge, files, lineages, records, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Paths
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
        loading.must_reload |= pinning.unpin(context, lineage)
        if not _ensure_served(context, lineage, loading):
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


def _outcome(context: Context, lineage: Lineage, site: plan.Site) -> store.Outcome:
    """Return the staple to serve. Raises errors.NotStapled where a must-staple certificate has none."""
    if reason := serving.why_paired(lineage, site):
        return store.Outcome(None, records.load(context.state_dir, lineage), reason)
    if not lineage.is_must_staple:
        return store.ensure_staple(context, lineage)
    is_served = serving.is_served(lineage, site)
    if not is_served:
        pinning.pin(context, lineage)
    outcome = store.ensure_staple(context, lineage, tries=context.must_staple_tries)
    if not is_served and outcome.staple is None:  # clients would refuse it, so the earlier certificate stays
        pinning.keep_staple(context, lineage)
        _complete_renewal(context, lineage)
        raise errors.NotStapled(
            f"{lineage.name} must be stapled but cannot be, so the old certificate stays: {outcome.reason}; "
            f"the next `certbot renew` tries again, or run `certbot-seafile deploy --cert-name {lineage.name}`"
        )
    return outcome


def _ensure_served(context: Context, lineage: Lineage, loading: store.Round) -> bool:
    """Edit the site where it does not use the certificate yet, and see that it is served; False where root loads it."""
    try:
        if put_into_site(context, lineage, serving.find_site(context, lineage.names)):
            loading.must_reload = False
            return True
    except errors.RootNeeded:  # where only lines for stapling are missing, the renewed certificate can be served
        loading.load()
        raise
    if loading.must_reload or not serving.is_served(lineage, serving.find_site(context, lineage.names)):
        loading.load()
        if context.nginx.reads_later:
            return False
        serving.verify_served(context, lineage)
    return True


def put_into_site(context: Context, lineage: Lineage, site: plan.Site) -> bool:
    """Edit the site where needed, see that the leaf is served; return whether it was edited. Raises errors.Error."""
    planned = plan_for(context, lineage, site)
    if planned:
        with writing.edited(context, planned, f"certbot-seafile deploy {lineage.name}"):
            context.nginx.reload()
            serving.verify_served(context, lineage)
        context.say(f"Site edited: {writing.count_lines(planned)}")
    return bool(planned)


def plan_for(context: Context, lineage: Lineage, site: plan.Site) -> edits.Edits:
    """Plan what lets the site answer challenges and use the lineage's certificate."""
    is_stapled = store.why_unstapled(lineage) is None and serving.why_paired(lineage, site) is None
    return _plan(context, site, lineage, is_stapled, lineages.pairs_beside(lineage))


def _plan(
    context: Context, site: plan.Site, paths: Paths, is_stapled: bool = True, pairs: frozenset[str] = frozenset()
) -> edits.Edits:
    certificate = plan.Certificate(paths.fullchain_path, paths.key_path, paths.snippet_path, is_stapled, pairs)
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
    """Return the site for the names, where a deployment can be planned; write nothing. Raises errors.SiteRefused."""
    site = serving.find_site(context, names)
    _plan(context, site, Paths(names[0], context.config_dir, context.options))
    for server in site.tls:
        if strangers := plan.strangers(server, names):
            context.say(
                f"{', '.join(strangers)}: {server} answers for this name too, and the certificate is not for it; "
                f"add it with -d {' -d '.join(strangers)}"
            )
    return site


def keep(context: Context, lineage: Lineage) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    How that ended is remembered. Raises errors.Error where a client would be hurt: revoked, must-staple without a
    staple, or not served.
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
    if not serving.is_served(lineage, site):
        deploy(context, lineage)
        return
    with files.lock(context.lock_path):
        _remove_leftovers(context, lineage, site)
        if lineage.is_must_staple or os.path.lexists(pinning.response_path(lineage.options, lineage.name)):
            pinning.release(context, lineage)  # what a killed run left held
    if serving.why_paired(lineage, site) is not None:
        return
    result = refresh.refresh_one(context, lineage)
    result.report(context.say)
    if result.is_fault:
        raise errors.NotStapled(f"{lineage.name}: {result.failure}; `certbot-seafile check` says what to do")


def _remove_leftovers(context: Context, lineage: Lineage, site: plan.Site) -> None:
    context.checkpoints.close()
    record_path = records.path(context.state_dir, lineage.name)
    paths = (*site.paths, lineage.snippet_path, lineage.response_path, lineage.renewal_path, record_path)
    for folder in {context.state_dir, *map(os.path.dirname, paths)}:
        files.sweep(folder)


def _complete_renewal(context: Context, lineage: Lineage) -> None:
    if context.hook_command and lineages.complete_renewal(lineage, context.hook_command):
        logger.info("installer and deploy hook were added to %s", lineage.renewal_path)
