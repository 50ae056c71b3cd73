"""Root's step, where another user renews: what that user left is verified and stored, and nginx reads it.

The law: no network; nothing from the user decides what is written where. What the user left is data: certificates and
one response for each lineage that the settings name. nginx is handed a copy that only root can write, so that it can
start from what is on disk whatever the user does.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import re
import stat
from collections.abc import Callable
from dataclasses import replace

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


def settle(chosen: Settings, context_for: Callable[[Options], Context]) -> list[str]:
    """Store or withdraw each lineage's staple, and reload nginx where anything is new; return what went wrong.

    Raises errors.NginxRefused, errors.FileRefused; the next run goes on where this one ended.
    """
    rounds: dict[Nginx, store.Round] = {}
    leaves: dict[str, bytes] = {}  # fingerprints that nginx is to read, by the path of the note on what it has read
    failures = []
    with files.lock(os.path.join(chosen.state_dir, ".lock")):
        for name, options in sorted(chosen.lineages.items()):
            context = context_for(options)
            turn = rounds.setdefault(context.nginx, store.Round(context))
            try:
                lineage = load(chosen, name)
                _settle(turn, lineage, chosen)
            except (errors.LineageRefused, errors.FileRefused) as refused:
                failures.append(f"{name}: {refused}")
                continue
            note, leaf = os.path.join(chosen.state_dir, f"{name}.leaf"), lineage.fingerprint.hex().encode()
            if files.read_if_present(note) != leaf:
                turn.must_reload, leaves[note] = True, leaf
        for turn in rounds.values():
            turn.finish()
        for note, leaf in leaves.items():
            files.replace(note, leaf, mode=0o600)
    return failures


def load(chosen: Settings, name: str) -> Lineage:
    """Return the lineage called name as the user has it, with root's options; those for new ones where it is new.

    live/NAME/cert.pem must be the link that certbot makes, and is not followed: its content is read from archive/.
    Raises errors.LineageRefused, errors.FileRefused.
    """
    settings.check_name(name)
    link = os.path.join(chosen.config_dir, "live", name, "cert.pem")
    try:
        numbered = re.fullmatch(_LINK.format(re.escape(name)), os.readlink(link))
    except OSError as error:
        raise errors.LineageRefused(
            f"{link} cannot be read: {error.strerror}; `certbot certificates` lists the certificates"
        ) from error
    if numbered is None:
        raise errors.LineageRefused(f"{link} is no link that certbot made; look at who put it there")
    parts = []
    for kind, at_least in (("cert", 1), ("chain", 0)):
        path = os.path.join(chosen.config_dir, "archive", name, f"{kind}{numbered[1]}.pem")
        parts.append(lineages.certificates(path, at_least, _read(chosen, path, _CERTIFICATE_BYTES)))
    (leaf, *_), chain = parts
    return Lineage(name, chosen.config_dir, chosen.lineages.get(name, chosen.options), leaf, chain, {})


def _read(chosen: Settings, path: str, at_most_bytes: int) -> bytes:
    """Return the bytes of the user's own file at path. Raises errors.FileRefused."""
    names = os.path.relpath(path, chosen.config_dir).split(os.sep)
    owner = pwd.getpwnam(chosen.user).pw_uid
    return files.read_owned(owner, chosen.config_dir, *names, at_most_bytes=at_most_bytes)


def _settle(turn: store.Round, lineage: Lineage, chosen: Settings) -> None:
    folders = [lineage.options.staple_dir, os.path.dirname(lineage.response_path)]
    for folder in folders:
        _refuse_foreign(folder)
    for folder in (*folders, chosen.state_dir, os.path.dirname(records.path(chosen.state_dir, lineage.name))):
        files.sweep(folder)
    outcome = _outcome(turn.context, lineage, chosen)
    if turn.write(lineage, outcome):
        logger.info("%s: %s", lineage.name, outcome)


def _refuse_foreign(folder: str) -> None:
    """Refuse a folder that somebody else could write to. Raises errors.FileRefused."""
    facts = os.lstat(folder) if os.path.lexists(folder) else None
    if facts and (not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022):
        raise errors.FileRefused(
            f"{folder} is not a folder that root alone can write; look at what is in it, then run "
            f"`chown root {folder}` and `chmod 755 {folder}`"
        )


def _outcome(context: Context, lineage: Lineage, chosen: Settings) -> Outcome:
    """Return the staple to serve: the one that was left where it is good, else the stored one where that still is.

    Where nothing was left, none is to be served: so the user withdraws.
    """
    record = records.load(context.state_dir, lineage)
    box = Options(outbox=lineages.outbox_path(chosen.config_dir))
    path = lineages.Paths(lineage.name, chosen.config_dir, box).response_path
    if not os.path.lexists(path):
        return Outcome(None, record, f"{chosen.user} left no staple")
    stored = store.stored_staple(lineage, context.now())
    receive = functools.partial(_read, chosen, path, RESPONSE_BYTES)
    outcome = store.verify_response(context, lineage, store.Due("", b"", stored, record), receive)
    if outcome.staple == stored:
        outcome = replace(outcome, record=record)  # what the user asked the responder is not ours to remember
    if outcome.reason is not None and not outcome.is_revoked:
        logger.warning("%s: what %s left is not stored: %s", lineage.name, chosen.user, outcome.reason)
    return outcome
