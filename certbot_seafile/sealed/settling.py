"""Root's step, where another user renews: what that user left is verified and stored, and nginx reads it.

The law: no network; nothing from the user decides what is written where: root hears only that there is something to
see. What the user left is data: certificates and one response for each lineage that the settings name. nginx is handed
a copy that only root can write, so that it can start from what is on disk whatever the user does.
"""

from __future__ import annotations

import functools
import logging
import os
import pwd
import re
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import settings
from certbot_seafile.system import files, lineages, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.system.nginx import Nginx

logger = logging.getLogger(__name__)

DONE, FAILED = "done", "failed: "
_ANSWER_SECONDS = 180  # nginx's test and reload have their own, shorter limits
_RESPONSE_BYTES = _ANSWER_BYTES = 65536
_CERTIFICATE_BYTES = 1_000_000
_LINK = r"\.\./\.\./archive/{}/cert([1-9][0-9]*)\.pem"


def settle(chosen: settings.Settings, context_for: Callable[[Options], Context]) -> list[str]:
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


def load(chosen: settings.Settings, name: str) -> Lineage:
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


def _read(chosen: settings.Settings, path: str, at_most_bytes: int) -> bytes:
    names = os.path.relpath(path, chosen.config_dir).split(os.sep)
    owner = pwd.getpwnam(chosen.user).pw_uid
    return files.read_owned(owner, chosen.config_dir, *names, at_most_bytes=at_most_bytes)


def _settle(turn: store.Round, lineage: Lineage, chosen: settings.Settings) -> None:
    folders = [lineage.options.staple_dir, os.path.dirname(lineage.response_path)]
    for folder in folders:
        _refuse_foreign(folder)
    for folder in (*folders, chosen.state_dir, os.path.dirname(records.path(chosen.state_dir, lineage.name))):
        files.sweep(folder)
    outcome = _outcome(turn.context, lineage, chosen)
    if turn.write(lineage, outcome):
        logger.info("%s: %s", lineage.name, outcome)


def _refuse_foreign(folder: str) -> None:
    facts = os.lstat(folder) if os.path.lexists(folder) else None
    if facts and (not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022):
        raise errors.FileRefused(
            f"{folder} is not a folder that root alone can write; look at what is in it, then run "
            f"`chown root {folder}` and `chmod 755 {folder}`"
        )


def _outcome(context: Context, lineage: Lineage, chosen: settings.Settings) -> store.Outcome:
    """Return the staple to serve: what was left where it is good, else the stored one; none where none was left."""
    record = records.load(context.state_dir, lineage)
    box = Options(outbox=lineages.outbox_path(chosen.config_dir))
    path = lineages.Paths(lineage.name, chosen.config_dir, box).response_path
    if not os.path.lexists(path):
        return store.Outcome(None, record, f"{chosen.user} left no staple")
    stored = store.stored_staple(lineage, context.now())
    receive = functools.partial(_read, chosen, path, _RESPONSE_BYTES)
    outcome = store.verify_response(context, lineage, store.Due("", b"", stored, record), receive)
    if outcome.staple == stored:
        outcome = replace(outcome, record=record)  # what the user asked the responder is not ours to remember
    if outcome.reason is not None and not outcome.is_revoked:
        logger.warning("%s: what %s left is not stored: %s", lineage.name, chosen.user, outcome.reason)
    return outcome


@dataclass(frozen=True)
class Asked(Nginx):
    """nginx, reloaded by the root step behind a socket (None: by one that a scheduler runs every few minutes).

    As an ordinary user `nginx -t` and `nginx -s reload` fail: both open the pid file for writing (ngx_create_pidfile).
    """

    socket: str | None = None

    @property
    def reads_later(self) -> bool:
        """Tell whether reload() returns before nginx has read anything."""
        return self.socket is None

    def test(self) -> str:
        """Leave the test to root's step, which does nothing without it."""
        return ""

    def reload(self) -> None:
        """Ask root's step, and wait for its answer. Raises errors.NginxRefused."""
        if self.socket is None:
            logger.info("left for root's step: its scheduler runs `certbot-seafile settle`")
            return
        last = _ask(self.socket).rstrip("\n").rpartition("\n")[2]
        if last.startswith(FAILED):
            raise errors.NginxRefused(f"root's step refused: {last.removeprefix(FAILED)}")
        if last != DONE:
            raise errors.NginxRefused(
                "root's step ended without an answer; `journalctl -u 'certbot-seafile@*'` says why, and "
                "`sudo certbot-seafile settle` runs it by hand"
            )
        logger.info("nginx was tested and reloaded by root's step")


def _ask(path: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_ANSWER_SECONDS)
            stream.connect(path)
            stream.shutdown(socket.SHUT_WR)
            with stream.makefile("rb") as answer:
                return answer.read(_ANSWER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise errors.NginxRefused(
            f"root's step cannot be asked at {path}: {error.strerror or 'no answer in time'}; "
            "see `systemctl status certbot-seafile.socket`, or run `sudo certbot-seafile settle`"
        ) from error
