"""Root's step, where another user renews: what that user left is verified and stored, and nginx reads it.

The law: no network; nothing from the user decides what is written where. What the user left is data: certificates and
one response for each lineage that the settings name, read as nothing but that, and judged again. nginx is handed a copy
that only root can write, so that it can start from what is on disk whatever the user does.
"""

from __future__ import annotations

import logging
import os
import pwd
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.ocsp.store import Outcome
from certbot_seafile.sealed import settings
from certbot_seafile.sealed.settings import Settings
from certbot_seafile.system import files, lineages, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.system.nginx import Nginx

logger = logging.getLogger(__name__)

RESPONSE_BYTES = 65536
_CERTIFICATE_BYTES = 1_000_000
_LINK = r"\.\./\.\./archive/{}/cert([1-9][0-9]*)\.pem"


@dataclass
class _Turn:
    """One nginx's part. leaves: what it will serve, as fingerprints by the path of the note on the last one."""

    round: store.Round
    leaves: dict[str, bytes] = field(default_factory=dict)


def settle(chosen: Settings, context_for: Callable[[Options], Context]) -> list[str]:
    """Store or withdraw each lineage's staple, and reload nginx where anything is new; return what went wrong.

    Raises errors.NginxRefused, errors.FileRefused; the next run goes on where this one ended.
    """
    turns: dict[Nginx, _Turn] = {}
    failures = []
    with files.lock(os.path.join(chosen.state_dir, ".lock")):
        for name, options in sorted(chosen.lineages.items()):
            context = context_for(options)
            try:
                _settle(turns.setdefault(context.nginx, _Turn(store.Round(context))), load(chosen, name), chosen)
            except (errors.LineageRefused, errors.FileRefused) as refused:
                failures.append(f"{name}: {refused}")
        for turn in turns.values():
            _reload(turn)
    return failures


def load(chosen: Settings, name: str) -> Lineage:
    """Return the lineage called name as the user has it, with root's options; those for new ones where it is new.

    live/NAME/cert.pem must be the link that certbot makes, and is not followed: what it says is read from archive/.
    Raises errors.LineageRefused, errors.FileRefused.
    """
    settings.check_name(name)
    owner = pwd.getpwnam(chosen.user).pw_uid
    number = _version(chosen, name)
    parts = []
    for kind, at_least in (("cert", 1), ("chain", 0)):
        path = ("archive", name, f"{kind}{number}.pem")
        content = files.read_owned(owner, chosen.config_dir, *path, at_most_bytes=_CERTIFICATE_BYTES)
        parts.append(lineages.parse_certificates(content, os.path.join(chosen.config_dir, *path), at_least))
    (leaf, *_), chain = parts
    return Lineage(name, chosen.config_dir, leaf, tuple(chain), {}, chosen.lineages.get(name, chosen.options))


def _version(chosen: Settings, name: str) -> str:
    path = os.path.join(chosen.config_dir, "live", name, "cert.pem")
    try:
        target = os.readlink(path)
    except OSError as error:
        raise errors.LineageRefused(
            f"{path} cannot be read: {error.strerror}; `certbot certificates` lists the lineages"
        ) from error
    numbered = re.fullmatch(_LINK.format(re.escape(name)), target)
    if numbered is None:
        raise errors.LineageRefused(f"{path} is no link that certbot made; look at who put it there")
    return numbered.group(1)


def _settle(turn: _Turn, lineage: Lineage, chosen: Settings) -> None:
    for folder in (lineage.options.staple_dir, os.path.dirname(lineage.response_path)):
        _refuse_foreign(folder)
        files.sweep(folder)
    for folder in (chosen.state_dir, os.path.dirname(records.path(chosen.state_dir, lineage.name))):
        files.sweep(folder)
    outcome = _outcome(turn.round.context, lineage, chosen)
    if turn.round.write(lineage, outcome):
        logger.info("%s: %s", lineage.name, outcome)
    note = os.path.join(chosen.state_dir, f"{lineage.name}.leaf")
    if files.read_if_present(note) != lineage.fingerprint.hex().encode():
        turn.leaves[note] = lineage.fingerprint.hex().encode()


def _refuse_foreign(folder: str) -> None:
    """Refuse a folder that somebody else could write to. Raises errors.FileRefused."""
    if not os.path.lexists(folder):
        return
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise errors.FileRefused(
            f"{folder} is not a folder that root alone can write; look at what is in it, then run "
            f"`chown root {folder}` and `chmod 755 {folder}`"
        )


def _outcome(context: Context, lineage: Lineage, chosen: Settings) -> Outcome:
    """Return the staple to serve: the one that was left where it is good, else the stored one where that still is.

    Where nothing was left, none is to be served: so the user withdraws.
    """
    record = records.load(context.state_dir, lineage)
    path = lineages.response_path(Options(outbox=lineages.outbox_path(chosen.config_dir)), lineage.name)
    if not os.path.lexists(path):
        return Outcome(None, record, f"{chosen.user} left no staple")
    stored = store.stored_staple(lineage, context.now())
    response: bytes | errors.Error
    try:
        owner = pwd.getpwnam(chosen.user).pw_uid
        names = os.path.relpath(path, chosen.config_dir).split(os.sep)
        response = files.read_owned(owner, chosen.config_dir, *names, at_most_bytes=RESPONSE_BYTES)
    except errors.FileRefused as refused:
        response = refused
    outcome = store.verify_response(context, lineage, store.Due("", b"", stored, record), response)
    if outcome.staple == stored:
        outcome = replace(outcome, record=record)  # what the user asked the responder is not ours to remember
    if outcome.reason is not None and not outcome.is_revoked:
        logger.warning("%s: what %s left is not stored: %s", lineage.name, chosen.user, outcome.reason)
    return outcome


def _reload(turn: _Turn) -> None:
    if turn.leaves:
        turn.round.must_reload = True
    turn.round.finish()
    for note, leaf in turn.leaves.items():
        files.replace(note, leaf, mode=0o600)
