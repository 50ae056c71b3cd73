"""What the package does, step by step: deploy a lineage, keep it served, undo.

The law: each use case is told here as a table of contents; how a step is done stands in the rooms below.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import NoReturn

from certbot_seafile import (
    challenge,
    edits,
    errors,
    files,
    lineage,
    pinning,
    refreshing,
    serving,
    site,
    stapling,
    writing,
)
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage
from certbot_seafile.stapling import Outcome

logger = logging.getLogger(__name__)


def plan_deploy(host: Host, found: site.Site, wanted: site.Certificate) -> edits.Edits:
    """Plan what lets the site answer challenges and use the certificate."""
    planned = challenge.plan(host, found, only_unwired=True)
    for server, domain in found.nameless:
        if server in found.tls and server not in found.plain:
            site.add_name(planned, server, domain)
    for server in found.tls:
        site.install(planned, found, server, wanted)
    if not found.tls:
        for server in found.plain:
            site.add_tls(planned, found, server, wanted, host.options.https_port)
    return planned


def rehearse(host: Host, names: Sequence[str]) -> site.Site:
    """Plan a deployment for the names and write nothing: what cannot be done is refused before the CA is asked.

    Raises errors.SiteRefused and its kinds.
    """
    found = serving.find_site(host, names)
    folder = os.path.join(host.config_dir, "live", names[0])
    pair = os.path.join(folder, "fullchain.pem"), os.path.join(folder, "privkey.pem")
    plan_deploy(host, found, site.Certificate(*pair, os.path.join(host.options.staple_dir, f"{names[0]}.conf"), True))
    for server in found.tls:
        if strangers := site.strangers(server, names):
            host.say(
                f"{', '.join(strangers)}: {server} answers for this name too, and the certificate is not for it; "
                f"add it with -d {' -d '.join(strangers)}"
            )
    return found


def deploy(host: Host, found: Lineage) -> None:
    """Let the site use the lineage's certificate, with its staple: the whole of the deploy hook.

    Raises errors.Error; then the site is as it was, and nginx serves what it served.
    """
    with files.lock(host.lock_path):
        stapling.mend(found)
        host.nginx.test()
        where = serving.find_site(host, found.names)
        _tidy(host, found, where)
        reason = serving.why_paired(host, found, where)
        is_waiting = found.is_must_staple and reason is None and not serving.is_served(host, found, where)
        if is_waiting:
            pinning.pin(host, found)
        outcome = Outcome(None, reason) if reason else stapling.obtain(host, found, tries=_tries(host, found))
        if is_waiting and outcome.staple is None:
            _wait_for_staple(host, found, outcome)
        _deploy(host, found, where, outcome)
    _complete_renewal(host, found)
    if outcome.is_revoked:
        raise errors.NotStapled(
            f"{found.name}: {outcome.reason}; get a new certificate with "
            f"`certbot renew --force-renewal --cert-name {found.name}`"
        )


def _tidy(host: Host, found: Lineage, where: site.Site) -> None:
    """Remove what a killed run left open or half-written."""
    host.checkpoints.settle()
    paths = (*where.paths, found.snippet_path, found.response_path, found.renewal_path, host.lock_path)
    for folder in {os.path.dirname(path) for path in paths}:
        files.sweep(folder)


def _wait_for_staple(host: Host, found: Lineage, outcome: Outcome) -> NoReturn:
    """Leave the certificate that is served where it is: clients would refuse one that must be stapled and is not."""
    pinning.keep_staple(host, found)
    _complete_renewal(host, found)
    raise errors.NotStapled(
        f"{found.name} must be stapled but cannot be, so the old certificate stays: {outcome.reason}; "
        f"the next `certbot renew` tries again, or run `certbot-seafile deploy --cert-name {found.name}`"
    )


def _complete_renewal(host: Host, found: Lineage) -> None:
    if host.hook_command and lineage.complete_renewal(found, host.hook_command):
        logger.info("installer and deploy hook were added to %s", found.renewal_path)


def _tries(host: Host, found: Lineage) -> Sequence[float]:
    return host.must_staple_tries if found.is_must_staple else (0,)


def _deploy(host: Host, found: Lineage, where: site.Site, outcome: Outcome) -> None:
    needs_reload = stapling.settle(host, found, outcome) or stapling.is_pending(host)
    if pinning.unpin(host, found):
        where, needs_reload = serving.find_site(host, found.names), True
    try:
        is_loaded = put_into_site(host, found, where)
    except errors.RootNeeded:  # where only lines for stapling are missing, the renewed certificate can be served
        host.nginx.test()
        host.nginx.reload()
        raise
    if not is_loaded and (needs_reload or not serving.is_served(host, found, where)):
        host.nginx.test()
        host.nginx.reload()
        if host.nginx.reads_later:
            host.say(f"Ready: the certificate of {found.name}, which nginx serves once root's step has run")
            return
        serving.look(host, found)
    stapling.note_reloaded(host)
    if stapling.is_withdrawn(found, outcome):
        stapling.withdraw_responses(host, [found.response_path])
    pinning.clear(host, found)
    host.say(f"Served: the certificate of {found.name}, {stapling.staple_phrase(outcome)}")


def put_into_site(host: Host, found: Lineage, where: site.Site) -> bool:
    """Edit the site where it does not use the certificate yet, and reload nginx; return whether that was needed.

    Raises errors.Error; then the site is as it was.
    """
    planned = plan_for(host, found, where)
    if planned:
        with writing.edited(host, planned, f"certbot-seafile deploy {found.name}"):
            host.nginx.reload()
            serving.look(host, found)
        host.say(f"Site edited: {writing.count_lines(planned)}")
    return bool(planned)


def plan_for(host: Host, found: Lineage, where: site.Site) -> edits.Edits:
    """Plan what lets the site answer challenges and use the lineage's certificate."""
    has_stapling = stapling.why_unstapled(found) is None and serving.why_paired(host, found, where) is None
    wanted = site.Certificate(
        found.fullchain_path, found.key_path, found.snippet_path, has_stapling, serving.kept_pairs(host, found)
    )
    return plan_deploy(host, where, wanted)


def keep(host: Host, found: Lineage) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    Raises errors.Error where a client would be hurt: revoked, must-staple without a staple, or not served.
    """
    where = serving.find_site(host, found.names)
    if not serving.is_served(host, found, where):
        deploy(host, found)
        return
    with files.lock(host.lock_path):
        _tidy(host, found, where)
        pinning.mend(host, found)
    if serving.why_paired(host, found, where) is not None:
        return
    result = refreshing.refresh_one(host, found)
    result.report(host.say)
    if result.is_revoked or (found.is_must_staple and result.failure and result.ends_soon):
        raise errors.NotStapled(f"{found.name}: {result.failure}; `certbot-seafile check` says what to do")
