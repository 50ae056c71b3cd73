"""A lineage's staple on disk: obtained, stored, refreshed, withdrawn.

The law: the order of writes. A response is stored before the snippet that names it, and the snippet is taken away
before the response, so that nginx can start from what is on disk at every instant.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.ocsp import staple
from certbot_seafile.site import syntax
from certbot_seafile.system import files, lineages
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of a lineage's staple: the staple to serve (None: none), why not, whether the leaf is revoked."""

    staple: staple.Staple | None
    reason: str | None = None
    is_revoked: bool = False


def stored_staple(lineage: Lineage, now: datetime.datetime) -> staple.Staple | None:
    """Return the stored staple where it is authentic, unexpired and for this very leaf; None otherwise."""
    return staple_at(lineage.response_path, lineage, now)


def staple_at(path: str, lineage: Lineage, now: datetime.datetime) -> staple.Staple | None:
    """Return the staple in the file at path where it is authentic, unexpired and for the leaf; None otherwise."""
    try:
        response = files.read_if_present(path)
        return None if response is None else staple.recheck(response, lineage.leaf, lineage.chain, now)
    except (errors.ResponseRefused, errors.FileRefused):
        return None


def last_success(lineage: Lineage) -> datetime.datetime | None:
    """Return when the responder last gave a good answer: the time on the stored response."""
    try:
        return datetime.datetime.fromtimestamp(os.stat(lineage.response_path).st_mtime, datetime.UTC)
    except OSError:
        return None


def why_unstapled(lineage: Lineage) -> str | None:
    """Return why the lineage is not to be stapled at all; None where it is."""
    if lineage.options.stapling == "off":
        return "stapling is off (--seafile-stapling off)"
    if lineage.responder_url is None:
        return "its certificate names no OCSP responder, so there is nothing to staple"
    return None


@dataclass(frozen=True)
class Question:
    """What the responder at url is to be asked about a lineage, and the staple that is stored until then, if any."""

    url: str
    request: bytes
    stored: staple.Staple | None


def question(context: Context, lineage: Lineage, *, force: bool = False) -> Question | Outcome:
    """Return what is to be asked, where that is due; else the outcome that needs no asking."""
    if reason := why_unstapled(lineage):
        return Outcome(None, reason)
    now = context.now()
    stored = stored_staple(lineage, now)
    if not force and not staple.is_due(stored, now, last_success(lineage)):
        return Outcome(stored)
    try:
        request = staple.build_request(lineage.leaf, staple.find_issuer(lineage.leaf, lineage.chain))
    except errors.ResponseRefused as refused:
        return _fall_back(lineage, stored, now, str(refused))
    return Question(lineage.responder_url or "", request, stored)


def ask(asked: Question) -> bytes | errors.ResponderFailed:
    """Return the responder's answer, whatever it is, or why there is none. Waits, and does little else."""
    from certbot_seafile.ocsp import responder  # requests takes longer to import than all the rest

    try:
        return responder.fetch(asked.url, asked.request)
    except errors.ResponderFailed as failed:
        return failed


def conclude(context: Context, lineage: Lineage, asked: Question, answer: bytes | errors.ResponderFailed) -> Outcome:
    """Judge the answer; return the staple that the lineage is to serve now."""
    now, stored = context.now(), asked.stored
    if isinstance(answer, errors.ResponderFailed):
        return _fall_back(lineage, stored, now, str(answer))
    try:
        must_staple = lineage.is_must_staple
        return Outcome(staple.judge(answer, lineage.leaf, lineage.chain, now, must_staple=must_staple, previous=stored))
    except errors.CertificateRevoked as revoked:
        return Outcome(None, "; ".join(revoked.reasons), is_revoked=True)
    except errors.ResponseRefused as refused:
        return _fall_back(lineage, stored, now, str(refused))


def obtain(context: Context, lineage: Lineage, *, force: bool = False, tries: Sequence[float] = (0,)) -> Outcome:
    """Return the staple that the lineage is to serve now: the stored one, or a new one where that is due.

    tries: seconds to wait before each time that the responder is asked, as long as it gives no good answer.
    """
    asked = question(context, lineage, force=force)
    if isinstance(asked, Outcome):
        return asked
    outcome = Outcome(asked.stored)
    for pause in tries:
        if pause:
            time.sleep(pause)
        outcome = conclude(context, lineage, asked, ask(asked))
        if outcome.reason is None or outcome.is_revoked:
            break
    return outcome


def _fall_back(lineage: Lineage, stored: staple.Staple | None, now: datetime.datetime, failure: str) -> Outcome:
    if stored is None or (staple.must_withdraw(stored, now) and not lineage.is_must_staple):
        return Outcome(None, failure)
    return Outcome(stored, failure)


def snippet_bytes(lineage: Lineage) -> bytes:
    """Return the snippet: the two directives that make nginx serve the stored response."""
    path = syntax.quote(os.fsencode(lineage.response_path))
    return (
        b"# The OCSP staple of the lineage " + lineage.name.encode() + b", kept by certbot-seafile: "
        b"this file comes and goes with it.\nssl_stapling on;\nssl_stapling_file " + path + b";\n"
    )


def store(context: Context, lineage: Lineage, outcome: Outcome) -> bool:
    """Bring response and snippet on disk in line with a staple that is there; return whether nginx must reload.

    Response first, then the snippet: nginx does not start when a named response is missing. Where the response is left
    for root's step, so is the snippet.
    """
    if outcome.staple is None:
        raise ValueError("nothing to store")
    changed = False
    wanted = [(lineage.response_path, outcome.staple.response)]
    if lineage.options.outbox is None:
        wanted.append((lineage.snippet_path, snippet_bytes(lineage)))
    for path, content in wanted:
        files.make_folder(os.path.dirname(path))
        if files.read_if_present(path) != content:
            note_pending(context)
            files.replace(path, content)
            changed = True
    if not changed and outcome.reason is None:
        _note_success(context, lineage, outcome)
    files.remove(revocation_path(lineage.options, lineage.name))
    return changed


def _note_success(context: Context, lineage: Lineage, outcome: Outcome) -> None:
    """Put the time of the last good answer on the stored response, where it is an answer of just now."""
    if outcome.staple is not None and staple.is_due(outcome.staple, context.now(), last_success(lineage)):
        os.utime(lineage.response_path)


def withdraw_snippet(context: Context, lineage: Lineage) -> bool:
    """Take the snippet away; return whether nginx must reload. The response stays until it has.

    Root's step does so itself where it is left no response.
    """
    path = lineage.snippet_path if lineage.options.outbox is None else lineage.response_path
    if not os.path.lexists(path):
        return False
    note_pending(context)
    files.remove(path)
    return True


def settle(context: Context, lineage: Lineage, outcome: Outcome) -> bool:
    """Bring what is on disk in line with the outcome; return whether nginx must reload.

    A must-staple leaf keeps the last staple that it had: without one, clients refuse it just as well.
    """
    if outcome.is_revoked:
        _note_revocation(lineage, outcome)
    if outcome.staple is not None:
        return store(context, lineage, outcome)
    if lineage.is_must_staple and not outcome.is_revoked and why_unstapled(lineage) is None:
        return False
    return withdraw_snippet(context, lineage)


# --- the mark that nginx must reload ---------------------------------------------------------------------------------


def note_pending(context: Context) -> None:
    """Write down that nginx must reload, before the change that asks for it: a killed run leaves the mark."""
    if not os.path.exists(context.pending_path):
        files.make_folder(os.path.dirname(context.pending_path), 0o700)
        files.replace(context.pending_path, b"", mode=0o600)


def is_pending(context: Context) -> bool:
    """Tell whether a run before this one changed staples and did not live to reload nginx."""
    return os.path.exists(context.pending_path)


def reload(context: Context) -> None:
    """Test and reload, and take the mark away. Raises errors.NginxRefused; then the mark stays."""
    context.nginx.test()
    context.nginx.reload()
    note_reloaded(context)


def note_reloaded(context: Context) -> None:
    """Take the mark away: nginx has read what is on disk."""
    files.remove(context.pending_path)


# --- revocation ------------------------------------------------------------------------------------------------------


def revocation_path(options: Options, name: str) -> str:
    """Return the path of the note that the CA said "revoked" of a leaf of the lineage called name."""
    return os.path.join(os.path.dirname(lineages.response_path(options, name)), "revoked")


def revocation(lineage: Lineage) -> str | None:
    """Return what the CA last said about the leaf, when and why, where that was "revoked"; None where it was not."""
    try:
        note = files.read_if_present(revocation_path(lineage.options, lineage.name)) or b""
    except errors.FileRefused:
        return None
    serial, _, said = note.decode("utf-8", "replace").strip().partition(" ")
    return said if serial == f"{lineage.leaf.serial_number:x}" else None


def _note_revocation(lineage: Lineage, outcome: Outcome) -> None:
    path = revocation_path(lineage.options, lineage.name)
    files.make_folder(os.path.dirname(path))
    note = f"{lineage.leaf.serial_number:x} {outcome.reason}\n".encode()
    if files.read_if_present(path) != note:
        files.replace(path, note)


def is_withdrawn(lineage: Lineage, outcome: Outcome) -> bool:
    """Tell whether a stored response is left over that no snippet names any more."""
    return (
        outcome.staple is None and os.path.lexists(lineage.response_path) and not os.path.lexists(lineage.snippet_path)
    )


def withdraw_responses(context: Context, paths: Collection[str]) -> None:
    """Remove stored responses, once nginx has reloaded.

    Those stay that the configuration names, and those that a site named before we edited it: undo brings that back.
    """
    if not paths:
        return
    named = {
        said.arguments[0]
        for outer in context.nginx.statements(lambda source: b"ssl_stapling_file" in source)
        for said in (outer, *outer.walk())
        if said.name == b"ssl_stapling_file" and said.arguments
    }
    sites = [entry.before for entry in context.journal.entries()]
    for path in paths:
        name = os.fsencode(path)
        if name not in named and not any(name in before for before in sites):
            files.remove(path)
            files.remove_folder_if_empty(os.path.dirname(path))


def mend(lineage: Lineage) -> None:
    """Take away a snippet whose response is missing: nginx could not start from it (someone removed the response)."""
    is_ours = lineage.options.outbox is None
    if is_ours and os.path.lexists(lineage.snippet_path) and not os.path.exists(lineage.response_path):
        files.remove(lineage.snippet_path)
        logger.warning("%s named a missing response and was removed", lineage.snippet_path)


def staple_phrase(outcome: Outcome) -> str:
    """Return what is to be said about a lineage's staple, in one phrase."""
    if outcome.staple is None:
        return f"without a staple: {outcome.reason}"
    until = f"with an OCSP staple that holds until {outcome.staple.end:%Y-%m-%d %H:%M} UTC"
    return until if outcome.reason is None else f"{until} (no newer one: {outcome.reason})"
