"""Deploy a lineage, and keep it served.

The law: each use case is told here as a table of contents; how a step is done stands in the rooms below.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from certbot_seafile import errors
from certbot_seafile.doctor import outcome, schedule
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import handover, seal, versions
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import find, plan
from certbot_seafile.system import answers, challenge, files, lineages, records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import install, refresh
from certbot_seafile.usecases.boundary import remembered

logger = logging.getLogger(__name__)

_HANDED_SECONDS = 60.0  # within which root's step lets nginx serve what was handed over
_LOOK_SECONDS = 2.0
#: How a renewal ended that certbot began and did not bring to its end, as the record has it.
UNFINISHED = "certbot could not renew the certificate; letsencrypt.log says why"


def deploy(context: Context, lineage: Lineage, *, is_upkeep: bool = False) -> None:
    """Let the site use the lineage's certificate, with its staple: the whole of the deploy hook.

    is_upkeep: nobody asked for it now; names for which the site has another valid certificate are left to that one.
    Raises errors.Error; then the site is as it was, and nginx serves what it served.
    """
    _refuse_unfit(context, lineage)
    if is_upkeep:
        if (own := _own_part(context, lineage)) is None:
            return
        lineage = own
    with _naming_pre_hook(context, lineage), files.lock(context.lock_path):
        if records.is_undone(context.state_dir, lineage.name):  # first, so that renewals go on where this run is killed
            record = records.load(context.state_dir, subject(context, lineage))
            records.write(context.state_dir, lineage.name, replace(record, is_undone=False))
            _complete_renewal(context, lineage)
        served = (_deploy_here if context.renewer is None else _hand_over)(context, lineage)
        site = serving.find_site(context, lineage.names)
        if site.tls or find.front(site) is None:
            context.say(f"Served: the certificate of {lineage.name}, {served}")
        else:
            context.say(f"Ready: the certificate in {lineage.folder}, for what ends TLS in front of nginx")
    _complete_renewal(context, lineage)
    for finding in outcome.at_once(answers.Behind(context, site)):
        context.say(str(replace(finding, name=lineage.name)))
    if served.is_revoked:
        raise errors.Error(
            f"{lineage.name}: {served.reason}; get a new certificate with "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`"
        )


def _own_part(context: Context, lineage: Lineage) -> Lineage | None:
    """Return the lineage for those of its names that the site leaves to it; None, with a message, where it has none."""
    site, others = serving.own_site(context, lineage)
    if not others:
        return lineage
    if not others.keys() >= set(site.domains):
        return replace(lineage, for_names=site.domains)
    context.say(
        f"Left alone: the site has the certificate {', '.join(dict.fromkeys(others.values()))}, which is for the names "
        f"of {lineage.name} too; `certbot delete` removes the one that is not needed, `certbot-seafile deploy "
        f"--cert-name {lineage.name}` puts this one into the site"
    )
    return None


@contextlib.contextmanager
def _naming_pre_hook(context: Context, lineage: Lineage) -> Iterator[None]:
    """Let a failed reload say which pre-hook of certbot's stopped nginx, where one did."""
    try:
        yield
    except errors.NginxRefused as refused:
        if not context.nginx.is_stopped:
            raise
        path, config_dir = lineage.renewal_path, context.config_dir
        places = [f"pre_hook in {path}"] if schedule.stops_nginx(lineage.renewal.get("pre_hook", "")) else []
        places += schedule.places_that_stop_nginx(schedule.jobs(config_dir=config_dir), config_dir)
        if not places:
            raise
        raise errors.NginxRefused(
            f"nginx could not be reloaded, because it was stopped by a pre-hook: {places[0]}; take that out, because "
            f"this plugin needs nginx to run, start nginx, and run `certbot-seafile deploy --cert-name {lineage.name}`"
        ) from refused


def _refuse_unfit(context: Context, lineage: Lineage) -> None:
    """Refuse a certificate that no client would accept. Raises errors.LineageRefused."""
    if not lineage.names:
        raise errors.LineageRefused(f"the certificate {lineage.name} is for no name; get a new one with -d NAME")
    if lineage.not_after <= context.now():
        raise errors.LineageRefused(
            f"the certificate {lineage.name} expired on {lineage.not_after:%Y-%m-%d %H:%M} UTC; get a new one with "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`"
        )


def _deploy_here(context: Context, lineage: Lineage) -> store.Outcome:
    """Let the site name live/NAME and the staple's snippet; where it is sealed, let nginx read a version of its own."""
    is_sealed, served = lineage.is_must_staple or versions.is_sealed(lineage), seal.resume(context, lineage)
    site = _prepared_site(context, lineage)
    unstapled = serving.why_paired(served or lineage, site)
    if is_sealed and unstapled:
        raise errors.Error(f"{lineage.name} cannot be sealed: {unstapled}; delete one of the two certificates")
    if is_sealed and (served is None or served.leaf != lineage.leaf):
        outcome = _ensure_demanded(context, lineage, lineage, served)

        def serve(outcome: store.Outcome) -> None:
            seal.serve(context, lineage, handover.read_bundle(lineage, outcome.response), outcome.record)

        return _serve(lineage, outcome, serve)
    current = served or lineage
    return _serve(current, store.ensure_staple(context, current, unstapled=unstapled), partial(_load, context, current))


def _load(context: Context, lineage: Lineage, outcome: store.Outcome) -> None:
    """Let the site use the lineage or its version with this staple, and see that clients are handed it."""
    loading = store.Round(context)
    loading.write(lineage, outcome)
    site = serving.find_site(context, lineage.names)
    if install.put_into_site(context, lineage, site):
        loading.must_reload = False
    elif loading.must_reload or not serving.is_served(lineage, site):
        loading.load()
        serving.verify_served(context, lineage)
    else:
        context.nginx.test()
    loading.finish()
    loading.hand_over()


def _serve(lineage: Lineage, outcome: store.Outcome, serve: Callable[[store.Outcome], object]) -> store.Outcome:
    """Serve a certificate with its staple, or without where nginx refuses that one's lines alone; return which.

    Such as `ssl_stapling` beside `ssl_certificate_compression` since nginx 1.29.1. Raises errors.Error.
    """
    try:
        serve(outcome)
    except (errors.SiteRefused, errors.NginxRefused) as refused:
        causes = [each for each in (refused, refused.__cause__) if isinstance(each, errors.ConfigurationRefused)]
        if not causes or outcome.staple is None or lineage.is_must_staple:
            raise
        reason = f"nginx refuses the lines that staple: {causes[0].complaint}"
        outcome = store.Outcome(None, replace(outcome.record, refused_lines=reason), reason)
        try:
            serve(outcome)
        except errors.Error:  # so those lines were not the reason, or not alone
            raise refused from None
    return outcome


def _hand_over(context: Context, lineage: Lineage) -> store.Outcome:
    """Leave the set for root's step, and wait until that has let nginx serve it. Raises errors.NotServed."""
    handed = handover.load(lineage)
    current = handed if handed.leaf == lineage.leaf else handover.unwritten(lineage)
    outcome = _ensure_demanded(context, lineage, current, handed if handed.bundle else None)
    handover.write(lineage, outcome.response)
    records.write(context.state_dir, lineage.name, outcome.record)
    is_told = handed.bundle is not None and handed.leaf == lineage.leaf  # a step before this one has waited
    seconds = _LOOK_SECONDS if is_told else _HANDED_SECONDS
    try:
        serving.verify_served(context, lineage, seconds=seconds)
    except errors.NotServed as failure:
        raise errors.NotServed(
            f"{lineage.name} was handed over, but root's step has not served it within {seconds:.0f} s: see "
            "`systemctl status certbot-seafile-apply.path` and `journalctl -u certbot-seafile-apply`, or run "
            f"`sudo certbot-seafile apply` ({failure})"
        ) from failure
    return outcome


def _ensure_demanded(context: Context, lineage: Lineage, current: Lineage, earlier: Lineage | None) -> store.Outcome:
    """Return what the lineage is to serve. current: as it is, or is handed over; earlier: what is served until then.

    Raises errors.Error where a must-staple leaf has no staple: clients would refuse it, so what is earlier stays,
    with a fresh staple.
    """
    outcome = store.ensure_staple(context, current, context.must_staple_tries if lineage.is_must_staple else (0,))
    if not lineage.is_must_staple or outcome.staple is not None:
        return outcome
    if earlier is not None:
        loading = store.Round(context)
        loading.write(earlier, store.ensure_staple(context, earlier))
        loading.finish()
        loading.hand_over()
    _complete_renewal(context, lineage)
    raise errors.Error(
        f"{lineage.name} must be stapled but cannot be, so the old certificate stays: {outcome.reason}; "
        f"the next `certbot renew` tries again, or run `certbot-seafile deploy --cert-name {lineage.name}`"
    )


def _prepared_site(context: Context, lineage: Lineage) -> find.Site:
    """Return the site, with what killed runs left removed. Raises errors.Error."""
    store.repair_snippet(lineage)
    record = records.load(context.state_dir, lineage)
    if record.refused_lines is not None:  # they are tried again
        records.write(context.state_dir, lineage.name, replace(record, refused_lines=None))
    site = serving.find_site(context, lineage.names)
    _remove_leftovers(context, lineage, site)
    return site


def keep(context: Context, lineage: Lineage, refreshed: refresh.Refreshed | None = None) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    refreshed: what became of its staple, where this run has refreshed it already. How the run ended is remembered.
    Raises errors.Error where a client would be hurt: revoked, must-staple without a staple, or not served.
    """
    with remembered(partial(remember, context, lineage)):
        if records.is_undone(context.state_dir, lineage.name):
            return
        lineages.refuse_cut_off(lineage)
        if (own := _own_part(context, lineage)) is None:
            return
        lineage = own
        site = serving.find_site(context, lineage.names)
        current = subject(context, lineage)
        is_lost = isinstance(current, handover.Handed) and current.bundle is None  # somebody removed the handover file
        include = plan.staple_include(lineage.snippet_path)
        is_moved = any(plan.includes_elsewhere(server, include) for server in site.tls)
        if is_lost or is_moved or not serving.is_served(lineage, site):
            deploy(context, lineage, is_upkeep=True)
            return
        if context.renewer is None:
            with files.lock(context.lock_path):
                _remove_leftovers(context, lineage, site)
                seal.resume(context, lineage)
        again = partial(lineages.load, context.config_dir, lineage.name, options=lineage.options)
        result = refreshed or refresh.refresh_one(context, lineage.name, lambda: subject(context, again()))
        if refreshed is None:
            result.report(context.say)
        _complete_renewal(context, lineage)  # `certbot reconfigure --deploy-hook` may have taken our hook out
        if result.is_fault:
            raise errors.Error(f"{lineage.name}: {result.failure}; `certbot-seafile check` says what to do")


def remember(context: Context, lineage: Lineage, failure: str | None) -> None:
    """Remember that `certbot renew` came by for a lineage, and how that ended; failure: None for well."""
    known = records.load(context.state_dir, subject(context, lineage))
    record = replace(known, last_run=context.now(), last_failure=failure)
    with contextlib.suppress(errors.FileRefused):  # a full disk has been told already
        records.write(context.state_dir, lineage.name, record)


def subject(context: Context, lineage: Lineage) -> Lineage:
    """Return what is served for the lineage, whose staple is to be fresh: a set handed over, a version, or itself."""
    if context.renewer is not None:
        return handover.load(lineage)
    return versions.served(lineage) or lineage


def _remove_leftovers(context: Context, lineage: Lineage, site: find.Site) -> None:
    context.checkpoints.close()
    challenge.clean_up(context)
    record_path = records.path(context.state_dir, lineage.name)
    paths = (*site.paths, lineage.snippet_path, lineage.response_path, lineage.renewal_path, record_path)
    for folder in {context.state_dir, *map(os.path.dirname, paths)}:
        files.sweep(folder)


def _complete_renewal(context: Context, lineage: Lineage) -> None:
    if isinstance(lineage, Version):  # another user or machine renews it
        return
    if context.hook_command and lineages.complete_renewal(lineage, context.hook_command):
        logger.info("installer and deploy hook were added to %s", lineage.renewal_path)
