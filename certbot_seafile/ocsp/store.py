"""A lineage's staple: fetched where it is due, verified, stored, loaded by nginx, withdrawn.

The law: the order of writes, told once and for all uses. The response is stored before the snippet that names it; a
snippet is removed and nginx reloaded before the response goes; so nginx can start from what is on disk at every
instant. That nginx must reload is written down before the first change.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from certbot_seafile import errors
from certbot_seafile.ocsp import fetch, pkix, verify
from certbot_seafile.sealed import handover
from certbot_seafile.system import files, lineages, progress, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.system.records import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What a lineage is to serve: the staple (None: none), why not (or why no newer one), and what to remember.

    ask: returns the responder's response, or raises errors.ResponderFailed; None where none is due. With a reason, no
    staple is to be served: then the responder is asked only whether the leaf is revoked.
    """

    staple: verify.Staple | None
    record: Record
    reason: str | None = None
    is_revoked: bool = False
    ask: Callable[[], bytes] | None = None

    @property
    def response(self) -> bytes | None:
        """Return the DER response to serve; None for none."""
        return None if self.staple is None else self.staple.response

    def __str__(self) -> str:
        if self.staple is None:
            return f"without a staple: {self.reason}"
        until = f"with an OCSP staple that holds until {self.staple.end:%Y-%m-%d %H:%M} UTC"
        return until if self.reason is None else f"{until} (no newer one: {self.reason})"


def stored_staple(lineage: Lineage, now: datetime.datetime) -> verify.Staple | None:
    """Return the stored staple where it is authentic, unexpired and for the leaf; None otherwise."""
    try:
        response = lineage.stored_response()
        return None if response is None else verify.verify_stored(response, lineage.leaf, lineage.chain, now)
    except (errors.ResponseRefused, errors.FileRefused):
        return None


def why_unstapled(lineage: Lineage, record: Record | None = None) -> str | None:
    """Return why the lineage is not to be stapled at all; None where it is. record: what is remembered of it."""
    if lineage.options.stapling == "off" and not lineage.is_must_staple:
        return "stapling is off (--seafile-stapling off)"
    if lineage.responder_url is None:
        return "its certificate names no OCSP responder, so there is nothing to staple"
    return record.refused_lines if record is not None else None


# --- fetch and verify ------------------------------------------------------------------------------------------------


def find_due(context: Context, lineage: Lineage, *, force: bool = False, unstapled: str | None = None) -> Outcome:
    """Return what the lineage is to serve until the responder is asked, and how to ask it, where that is due.

    unstapled: why the site serves no staple, though the lineage could have one.
    """
    record, now = records.load(context.state_dir, lineage), context.now()
    unstapled = unstapled or why_unstapled(lineage, record)
    known = Outcome(None if unstapled else stored_staple(lineage, now), record, unstapled)
    if unstapled:
        is_due = record.revocation is not None or verify.is_old(record.last_success, now)
    else:
        is_due = verify.is_due(known.staple, now, record.last_success)
    if lineage.responder_url is None or not (force or is_due):
        return known
    try:
        request = verify.build_request(lineage.leaf, pkix.find_issuer(lineage.leaf, lineage.chain))
    except errors.ResponseRefused as refused:
        return _without_news(lineage, known, now, unstapled or str(refused))
    return replace(known, ask=partial(fetch.fetch, lineage.responder_url, request))


def verify_response(context: Context, lineage: Lineage, known: Outcome, receive: Callable[[], bytes]) -> Outcome:
    """Return what the lineage is to serve. known: what find_due() returned. receive: as its `ask`."""
    now, record = context.now(), known.record
    updates = [record.newest_update, known.staple.this_update if known.staple else None]
    is_short_good = lineage.is_must_staple or known.reason is not None
    try:
        staple = verify.verify(
            receive(), lineage.leaf, lineage.chain, now,
            must_staple=is_short_good, known_update=max(filter(None, updates), default=None),
        )  # fmt: skip
    except errors.CertificateRevoked as revoked:
        record = replace(record, newest_update=revoked.this_update, revocation="; ".join(revoked.reasons))
        outcome = Outcome(None, record)
    except (errors.ResponseRefused, errors.ResponderFailed, errors.FileRefused) as failure:
        outcome = _without_news(lineage, known, now, str(failure))
    else:
        record = replace(record, last_success=now, newest_update=staple.this_update, revocation=None)
        outcome = Outcome(staple, record)
    if record.revocation is not None:
        return Outcome(None, record, record.revocation, is_revoked=True)
    return outcome if known.reason is None else Outcome(None, record, known.reason)


def _without_news(lineage: Lineage, known: Outcome, now: datetime.datetime, reason: str) -> Outcome:
    """Keep the stored staple as long as it may be served until the next run; a must-staple leaf keeps it to its end."""
    staple = known.staple
    if staple is not None and verify.must_withdraw(staple, now) and not lineage.is_must_staple:
        staple = None
    return Outcome(staple, known.record, reason)


@progress.waiting("the OCSP responder")
def ensure_staple(
    context: Context, lineage: Lineage, tries: Sequence[float] = (0,), *, unstapled: str | None = None
) -> Outcome:
    """Return what the lineage is to serve: the stored staple, or a new one where that is due.

    tries: seconds to wait before each request, as long as the responder gives no good response. unstapled: as for
    find_due().
    """
    outcome = known = find_due(context, lineage, unstapled=unstapled)
    if known.ask is None:
        return known
    for pause in tries:
        time.sleep(pause)
        outcome = verify_response(context, lineage, known, known.ask)
        if outcome.reason is None or outcome.is_revoked or known.reason is not None:
            break
    return outcome


# --- store, load, withdraw -------------------------------------------------------------------------------------------


def reload_mark(context: Context) -> records.Mark:
    """Return whether the context's nginx must reload."""
    return records.Mark(context.state_dir, context.options.ctl, context.options.server_root)


class Round:
    """One nginx's round: lineages' staples are written, nginx loads them once, what it no longer names is removed."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._mark = reload_mark(context)
        self.must_reload = self._mark.is_set
        self._loading: dict[str, Record] = {}
        self._unnamed: list[str] = []
        self.handed: list[tuple[Lineage, bytes | None]] = []

    def write(self, lineage: Lineage, outcome: Outcome) -> bool:
        """Bring response and snippet on disk in line with the outcome; return whether nginx must reload for that.

        The lock is the caller's. Raises errors.FileRefused.
        """
        repair_snippet(lineage)
        record, is_without = outcome.record, outcome.staple is None and not outcome.is_revoked
        # A must-staple leaf keeps its last staple: without one, clients refuse it just as well.
        is_kept = is_without and lineage.is_must_staple and verify.is_whole(lineage.stored_response() or b"")
        wanted = [] if is_kept else lineage.contents(outcome.response)
        missing = [(path, content) for path, content in wanted if files.read_if_present(path) != content]
        if missing:
            self._mark.set()
            self.must_reload = True
            self.context.nginx.changed()
        former = records.former_revocation_path(lineage)
        if os.path.lexists(former) or record != records.load(self.context.state_dir, lineage):
            records.write(self.context.state_dir, lineage.name, record)
            files.remove(former)
        put(missing)
        if record.needs_reload:
            self.must_reload = True
            self._loading[lineage.name] = replace(record, needs_reload=False)
        if outcome.staple is None and not is_kept:
            self._unnamed += [path for path in (lineage.response_path,) if path not in dict(lineage.contents(None))]
        if lineage.options.handover:
            self.handed.append((lineage, outcome.response))
        return bool(missing)

    def load(self) -> None:
        """Test, and let nginx load what was written. Raises errors.NginxRefused; then a later run does it."""
        self.context.nginx.test()
        self.context.nginx.reload()
        self.must_reload = False

    def finish(self) -> None:
        """Let nginx load what was written and is not loaded; then remove what nothing names. Raises NginxRefused."""
        if self.must_reload:
            self.load()
        self._mark.clear()
        for name, record in self._loading.items():
            records.write(self.context.state_dir, name, record)
        remove_unnamed(self.context, self._unnamed)

    def hand_over(self) -> None:
        """Leave what was written for those to whom it is handed. Raises errors.FileRefused."""
        for lineage, response in self.handed:
            handover.write(lineage, response)


def put(contents: Iterable[tuple[str, bytes | None]]) -> None:
    """Write files one after the other; None removes one. Raises errors.FileRefused."""
    for path, content in contents:
        if content is None:
            files.remove(path)
        else:
            files.put(path, content)


def remove_unnamed(context: Context, paths: Sequence[str]) -> None:
    """Remove stored responses that neither the configuration names nor a site named before us: undo brings it back."""
    present = [path for path in paths if os.path.lexists(path)]
    statements = context.nginx.configuration().mentioning(b".response") if present else ()
    named = {word for statement in statements for word in statement.arguments}
    sites = [entry.before for entry in context.journal.entries()] if present else ()
    for path in present:
        name = os.fsencode(path)
        if name not in named and not any(name in before for before in sites):
            files.remove(path)
            files.remove_folder_if_empty(os.path.dirname(path))


def repair_snippet(lineage: Lineage) -> None:
    """Let a snippet name no response that is missing: nginx could not start (someone removed the response)."""
    if os.path.exists(lineage.response_path):
        return
    if lineages.quoted(lineage.response_path).encode() in (files.read_if_present(lineage.snippet_path) or b""):
        put(lineage.contents(None))
        logger.warning("%s named a missing response; it is served without one", lineage.snippet_path)
