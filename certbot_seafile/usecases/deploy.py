"""What the package does, step by step: deploy a lineage, keep it served, undo.

The law: each use case is told here as a table of contents; how a step is done stands in the rooms below.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NoReturn

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.ocsp.store import Outcome
from certbot_seafile.sealed import pinning
from certbot_seafile.site import edits, plan
from certbot_seafile.system import challenge, files, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import refresh

logger = logging.getLogger(__name__)


def plan_deploy(context: Context, site: plan.Site, wanted: plan.Certificate) -> edits.Edits:
    """Plan what lets the site answer challenges and use the certificate."""
    planned = challenge.plan_challenge(context, site, only_unwired=True)
    for server, domain in site.nameless:
        if server in site.tls and server not in site.plain:
            plan.add_name(planned, server, domain)
    for server in site.tls:
        plan.install(planned, site, server, wanted)
    if not site.tls:
        for server in site.plain:
            plan.add_tls(planned, site, server, wanted, context.options.https_port)
    return planned


def rehearse(context: Context, names: Sequence[str]) -> plan.Site:
    """Plan a deployment for the names and write nothing: what cannot be done is refused before the CA is asked.

    Raises errors.SiteRefused and its kinds.
    """
    site = serving.find_site(context, names)
    folder = os.path.join(context.config_dir, "live", names[0])
    pair = os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem")
    plan_deploy(
        context, site, plan.Certificate(*pair, os.path.join(context.options.staple_dir, f"{names[0]}.conf"), True)
    )
    for server in site.tls:
        if strangers := plan.strangers(server, names):
            context.say(
                f"{', '.join(strangers)}: {server} answers for this name too, and the certificate is not for it; "
                f"add it with -d {' -d '.join(strangers)}"
            )
    return site


def deploy(context: Context, lineage: Lineage) -> None:
    """Let the site use the lineage's certificate, with its staple: the whole of the deploy hook.

    Raises errors.Error; then the site is as it was, and nginx serves what it served.
    """
    with files.lock(context.lock_path):
        store.mend(lineage)
        context.nginx.test()
        site = serving.find_site(context, lineage.names)
        _tidy(context, lineage, site)
        reason = serving.why_paired(context, lineage, site)
        is_waiting = lineage.is_must_staple and reason is None and not serving.is_served(context, lineage, site)
        if is_waiting:
            pinning.pin(context, lineage)
        outcome = Outcome(None, reason) if reason else store.obtain(context, lineage, tries=_tries(context, lineage))
        if is_waiting and outcome.staple is None:
            _wait_for_staple(context, lineage, outcome)
        _deploy(context, lineage, site, outcome)
    _complete_renewal(context, lineage)
    if outcome.is_revoked:
        raise errors.NotStapled(
            f"{lineage.name}: {outcome.reason}; get a new certificate with "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`"
        )


def _tidy(context: Context, lineage: Lineage, site: plan.Site) -> None:
    """Remove what a killed run left open or half-written."""
    context.checkpoints.settle()
    paths = (*site.paths, lineage.snippet_path, lineage.response_path, lineage.renewal_path, context.lock_path)
    for folder in {os.path.dirname(path) for path in paths}:
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


def _tries(context: Context, lineage: Lineage) -> Sequence[float]:
    return context.must_staple_tries if lineage.is_must_staple else (0,)


def _deploy(context: Context, lineage: Lineage, site: plan.Site, outcome: Outcome) -> None:
    needs_reload = store.settle(context, lineage, outcome) or store.is_pending(context)
    if pinning.unpin(context, lineage):
        site, needs_reload = serving.find_site(context, lineage.names), True
    try:
        is_loaded = put_into_site(context, lineage, site)
    except errors.RootNeeded:  # where only lines for stapling are missing, the renewed certificate can be served
        context.nginx.test()
        context.nginx.reload()
        raise
    if not is_loaded and (needs_reload or not serving.is_served(context, lineage, site)):
        context.nginx.test()
        context.nginx.reload()
        if context.nginx.reads_later:
            context.say(f"Ready: the certificate of {lineage.name}, which nginx serves once root's step has run")
            return
        serving.look(context, lineage)
    store.note_reloaded(context)
    if store.is_withdrawn(lineage, outcome):
        store.withdraw_responses(context, [lineage.response_path])
    pinning.clear(context, lineage)
    context.say(f"Served: the certificate of {lineage.name}, {store.staple_phrase(outcome)}")


def put_into_site(context: Context, lineage: Lineage, site: plan.Site) -> bool:
    """Edit the site where it does not use the certificate yet, and reload nginx; return whether that was needed.

    Raises errors.Error; then the site is as it was.
    """
    planned = plan_for(context, lineage, site)
    if planned:
        with writing.edited(context, planned, f"certbot-seafile deploy {lineage.name}"):
            context.nginx.reload()
            serving.look(context, lineage)
        context.say(f"Site edited: {writing.count_lines(planned)}")
    return bool(planned)


def plan_for(context: Context, lineage: Lineage, site: plan.Site) -> edits.Edits:
    """Plan what lets the site answer challenges and use the lineage's certificate."""
    has_stapling = store.why_unstapled(lineage) is None and serving.why_paired(context, lineage, site) is None
    wanted = plan.Certificate(
        lineage.fullchain_path,
        lineage.key_path,
        lineage.snippet_path,
        has_stapling,
        serving.kept_pairs(context, lineage),
    )
    return plan_deploy(context, site, wanted)


def keep(context: Context, lineage: Lineage) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    Raises errors.Error where a client would be hurt: revoked, must-staple without a staple, or not served.
    """
    site = serving.find_site(context, lineage.names)
    if not serving.is_served(context, lineage, site):
        deploy(context, lineage)
        return
    with files.lock(context.lock_path):
        _tidy(context, lineage, site)
        pinning.mend(context, lineage)
    if serving.why_paired(context, lineage, site) is not None:
        return
    result = refresh.refresh_one(context, lineage)
    result.report(context.say)
    if result.is_revoked or (lineage.is_must_staple and result.failure and result.ends_soon):
        raise errors.NotStapled(f"{lineage.name}: {result.failure}; `certbot-seafile check` says what to do")
