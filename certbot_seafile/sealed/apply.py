"""Root's step, where certificates come from a folder that root does not trust: received, judged, served.

The law: no network but this machine's own nginx; what is served where follows from root's settings alone. What lies in
the folder is read by a child that has become the file's owner, and is data: chain, key and staple are parsed, judged,
and written by root as a version of its own. What is served never goes back to an older certificate or staple.
"""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from certbot_seafile import errors
from certbot_seafile.ocsp import pkix, store, verify
from certbot_seafile.sealed import bundle, seal, versions
from certbot_seafile.sealed.bundle import Bundle
from certbot_seafile.sealed.settings import Entry, Settings
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import files, records, users
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options, Paths
from certbot_seafile.usecases.boundary import Failure, attempt_each, remembered

logger = logging.getLogger(__name__)

#: Reloads that come faster leave workers behind that wait for their clients.
RELOAD_INTERVAL = datetime.timedelta(minutes=1)
_MOST_LOOKS = 4  # at one entry: two certificates, each after its wait


def apply(settings: Settings, context_for: Callable[[Options], Context]) -> list[Failure]:
    """Serve the newest good set of each entry of root's settings; return what went wrong."""

    def work(name: str) -> None:
        entry = settings.entries[name]
        seconds: float | None = 0
        for _ in range(_MOST_LOOKS):
            if seconds is not None:
                time.sleep(seconds)  # without the lock, which root's other commands need
                seconds = _apply(context_for(entry.options), entry)
        if seconds:
            raise errors.Error(
                f"{name}: the new certificate still waits for its turn, because nginx was just reloaded for another; "
                "the next run of `certbot-seafile apply` serves it"
            )

    return attempt_each(sorted(settings.entries), work)[1]


def _apply(context: Context, entry: Entry) -> float | None:
    """Apply one entry, and remember how that ended, for `check`; return in how many seconds to look again, if at all.

    A new certificate waits for its turn; and what came while it was served, systemd's path unit does not see.
    """
    own = Paths(entry.name, context.config_dir, entry.options)

    def remember(failure: str | None) -> None:
        version = versions.served(own, entry.names)
        known = None if version is None else records.load(context.state_dir, version)
        if known is not None and known.last_failure != failure:
            record = replace(known, last_run=context.now(), last_failure=failure)
            records.write(context.state_dir, entry.name, record)

    with files.lock(context.lock_path), remembered(remember):
        served = seal.resume(context, own, entry.names)
        received, refusal = _receive(context, entry, served)
        if received is not None and (served is None or received.leaf != served.leaf):
            if (seconds := _seconds_to_turn(context)) > 0:
                return seconds
            _serve(context, entry, own, received)
            return 0
        if served is not None:
            _keep_staple(context, served, received)
        if refusal is not None:
            raise refusal
        return None


def _receive(context: Context, entry: Entry, served: Version | None) -> tuple[Bundle | None, errors.Error | None]:
    """Return the set that was handed over, judged but for its staple (None without), and why one is refused."""
    now = context.now()
    try:
        content = users.read_as(entry.uid, entry.gid, entry.path)
        if content is None:
            return None, None
        received = bundle.parse(content)
        bundle.refuse_unfit(received, entry.names, now)
        begins = pkix.time_of(received.leaf, "not_valid_before")
        if served is not None and begins < served.not_before and now < served.not_after:
            raise errors.BundleRefused(["it is older than the certificate that is served"])
    except (errors.BundleRefused, errors.FileRefused) as refused:
        return None, errors.FileRefused(f"what was handed over in {entry.path} is not served: {refused}")
    return received, None


def _seconds_to_turn(context: Context) -> float:
    """Return after how many seconds the last reload for a new certificate is long enough ago."""
    last, now = records.last_reload(context.state_dir), context.now()
    if last is None or last > now:  # the clock was set back
        return 0.0
    return (RELOAD_INTERVAL - (now - last)).total_seconds()


def _serve(context: Context, entry: Entry, own: Paths, received: Bundle) -> None:
    """Serve a new certificate, with its staple where that is good. Raises errors.Error where it demands one."""
    leaf = Lineage(own.name, own.config_dir, own.options, received.leaf, received.issuers, {})
    outcome = _verified(context, leaf, received.response, None)
    if leaf.is_must_staple and outcome.staple is None:
        raise errors.Error(
            f"{entry.name} must be stapled, and was handed over without a good staple, so the old certificate stays: "
            f"{outcome.reason}"
        )
    seal.serve(context, own, replace(received, response=outcome.response), outcome.record, entry.names)
    logger.info("%s: served, %s", entry.name, outcome)


def _keep_staple(context: Context, served: Version, received: Bundle | None) -> None:
    """Let the served version have the staple that was handed over, where that is newer.

    Withdraw one that ends soon, or is handed over no more, as of a revoked certificate; one that is demanded stays.
    """
    response = None if received is None else received.response
    is_withdrawn = received is not None and response is None and not served.is_must_staple
    outcome = _verified(context, served, response, None if is_withdrawn else store.stored_staple(served, context.now()))
    loading = store.Round(context)
    if loading.write(served, outcome):
        logger.info("%s: %s", served.name, outcome)
    loading.finish()
    loading.hand_over()
    if outcome.is_revoked:
        raise errors.Error(f"{served.name}: {outcome.reason}; get a new certificate")


def _verified(context: Context, leaf: Lineage, response: bytes | None, present: verify.Staple | None) -> store.Outcome:
    """Return what to serve of a staple that was handed over, beside the one that is present."""
    record = records.load(context.state_dir, leaf)
    if reason := store.why_unstapled(leaf):
        return store.Outcome(None, record, reason)
    outcome = store.verify_response(context, leaf, store.Outcome(present, record), partial(_handed, response))
    return replace(outcome, record=record) if outcome.staple == present is not None else outcome


def _handed(response: bytes | None) -> bytes:
    if response is None:
        raise errors.ResponseRefused(["no staple was handed over"])
    return response


def escaped(text: str) -> str:
    """Return text in which nothing can steer a terminal: whoever may write a handover file may have put it there."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
