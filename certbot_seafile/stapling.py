"""A lineage's staple on disk: obtained, stored, refreshed, withdrawn.

The law: the order of writes. A response is stored before the snippet that names it, and the snippet is taken away
before the response, so that nginx can start from what is on disk at every instant.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

from certbot_seafile import errors, files, staple, syntax
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a lineage's staple: the staple to serve (None: none), why not, and whether files changed."""

    staple: staple.Staple | None
    reason: str | None = None
    is_revoked: bool = False


def stored_staple(found: Lineage, now: datetime.datetime) -> staple.Staple | None:
    """Return the stored staple where it is authentic, unexpired and for this very leaf; None otherwise."""
    try:
        response = files.read_if_present(found.response_path)
        return None if response is None else staple.recheck(response, found.leaf, found.chain, now)
    except (errors.ResponseRefused, errors.FileRefused):
        return None


def last_success(found: Lineage) -> datetime.datetime | None:
    """Return when the responder last gave a good answer: the time on the stored response."""
    try:
        return datetime.datetime.fromtimestamp(os.stat(found.response_path).st_mtime, datetime.UTC)
    except OSError:
        return None


def why_unstapled(found: Lineage) -> str | None:
    """Return why the lineage is not to be stapled at all; None where it is."""
    if found.options.stapling == "off":
        return "stapling is off (--seafile-stapling off)"
    if found.responder_url is None:
        return "its certificate names no OCSP responder, so there is nothing to staple"
    return None


def fetch_staple(found: Lineage, previous: staple.Staple | None, now: datetime.datetime) -> staple.Staple:
    """Ask the responder once and judge its answer. Raises errors.ResponderFailed, errors.ResponseRefused."""
    from certbot_seafile import responder  # requests takes longer to import than all the rest

    url = found.responder_url
    if url is None:
        raise errors.ResponseRefused(["the certificate names no OCSP responder"])
    request = staple.build_request(found.leaf, staple.find_issuer(found.leaf, found.chain))
    response = responder.fetch(url, request)
    return staple.judge(response, found.leaf, found.chain, now, must_staple=found.is_must_staple, previous=previous)


def obtain(host: Host, found: Lineage, *, force: bool = False, tries: Sequence[float] = (0,)) -> Outcome:
    """Return the staple that the lineage is to serve now: the stored one, or a new one where that is due."""
    if reason := why_unstapled(found):
        return Outcome(None, reason)
    now = host.now()
    stored = stored_staple(found, now)
    if not force and not staple.is_due(stored, now, last_success(found)):
        return Outcome(stored)
    failure = ""
    for pause in tries:
        time.sleep(pause)
        try:
            return Outcome(fetch_staple(found, stored, host.now()))
        except errors.CertificateRevoked as revoked:
            return Outcome(None, str(revoked), is_revoked=True)
        except (errors.ResponderFailed, errors.ResponseRefused) as refused:
            failure = str(refused)
    return _fall_back(found, stored, now, failure)


def _fall_back(found: Lineage, stored: staple.Staple | None, now: datetime.datetime, failure: str) -> Outcome:
    if stored is None or (staple.must_withdraw(stored, now) and not found.is_must_staple):
        return Outcome(None, failure)
    return Outcome(stored, failure)


def snippet_bytes(found: Lineage) -> bytes:
    """Return the snippet: the two directives that make nginx serve the stored response."""
    path = syntax.quote(os.fsencode(found.response_path))
    return (
        b"# The OCSP staple of the lineage " + found.name.encode() + b", kept by certbot-seafile: "
        b"this file comes and goes with it.\nssl_stapling on;\nssl_stapling_file " + path + b";\n"
    )


def store(host: Host, found: Lineage, outcome: Outcome) -> bool:
    """Bring response and snippet on disk in line with a staple that is there; return whether nginx must reload.

    Response first, then the snippet: nginx does not start when a named response is missing.
    """
    if outcome.staple is None:
        raise ValueError("nothing to store")
    files.make_folder(os.path.dirname(found.response_path))
    changed = False
    if files.read_if_present(found.response_path) != outcome.staple.response:
        files.replace(found.response_path, outcome.staple.response)
        changed = True
    elif outcome.reason is None and not changed:
        _note_success(host, found, outcome)
    wanted = snippet_bytes(found)
    if files.read_if_present(found.snippet_path) != wanted:
        files.replace(found.snippet_path, wanted)
        changed = True
    return changed


def _note_success(host: Host, found: Lineage, outcome: Outcome) -> None:
    """Put the time of the last good answer on the stored response, where it is an answer of just now."""
    if outcome.staple is not None and staple.is_due(outcome.staple, host.now(), last_success(found)):
        os.utime(found.response_path)


def withdraw_snippet(host: Host, found: Lineage) -> bool:
    """Take the snippet away and test; return whether nginx must reload. The response stays until it has."""
    if not files.remove(found.snippet_path):
        return False
    host.nginx.test()
    return True


def withdraw_response(host: Host, found: Lineage) -> None:
    """Remove the stored response, once nginx has reloaded; it stays where the configuration still names it."""
    named = os.fsencode(found.response_path)
    statements = host.nginx.statements(lambda source: named in source)
    everything = (inner for outer in statements for inner in (outer, *outer.walk()))
    if any(said.name == b"ssl_stapling_file" and said.arguments == (named,) for said in everything):
        return
    files.remove(found.response_path)
    files.remove_folder_if_empty(os.path.dirname(found.response_path))


def mend(found: Lineage) -> None:
    """Take away a snippet whose response is missing: nginx could not start from it (someone removed the response)."""
    if os.path.lexists(found.snippet_path) and not os.path.exists(found.response_path):
        files.remove(found.snippet_path)
        logger.warning("%s named a missing response and was removed", found.snippet_path)


def staple_phrase(outcome: Outcome) -> str:
    """Return what is to be said about a lineage's staple, in one phrase."""
    if outcome.staple is None:
        return f"without a staple: {outcome.reason}"
    until = f"with an OCSP staple that holds until {outcome.staple.end:%Y-%m-%d %H:%M} UTC"
    return until if outcome.reason is None else f"{until} (no newer one: {outcome.reason})"


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did for one lineage: failure (None: none) and whether nginx has to reload for it."""

    lineage: Lineage
    outcome: Outcome
    needs_reload: bool
    failure: str | None


def refresh(host: Host, found: Sequence[Lineage], *, force: bool = False) -> list[Refreshed]:
    """Refresh the staples that are due, store them, and reload nginx once where one changed."""
    results = [_refresh(host, one, force) for one in found]
    if any(result.needs_reload for result in results):
        host.nginx.test()
        host.nginx.reload()
    for result in results:
        if result.outcome.staple is None and result.needs_reload:
            withdraw_response(host, result.lineage)
    return results


def _refresh(host: Host, found: Lineage, force: bool) -> Refreshed:
    outcome = obtain(host, found, force=force)
    with files.lock(host.lock_path):
        mend(found)
        changed = store(host, found, outcome) if outcome.staple else withdraw_snippet(host, found)
    failed = outcome.reason if why_unstapled(found) is None else None
    return Refreshed(found, outcome, changed, failed)


def report(host: Host, results: Sequence[Refreshed]) -> bool:
    """Say what a refresh did, lineage by lineage; return whether each one has what it is to have."""
    for result in results:
        name, outcome = result.lineage.name, result.outcome
        if result.needs_reload and outcome.staple is not None:
            host.say(f"{name}: stored {staple_phrase(outcome).removeprefix('with ')}")
        elif result.needs_reload:
            host.say(f"{name}: stapling withdrawn: {outcome.reason}")
        if result.failure is not None:
            logger.warning("%s: %s", name, result.failure)
    return all(result.failure is None for result in results)
