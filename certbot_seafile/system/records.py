"""What is remembered of a lineage between runs: one small JSON file a lineage, which a person can read too.

The law: what neither certbot's files nor nginx's say is a field of the record, and only this module writes records. A
record that is missing or damaged is no fault: all that it says can be found out again.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import os
from dataclasses import dataclass, fields, replace

from certbot_seafile import errors
from certbot_seafile.system import files
from certbot_seafile.system.lineages import Lineage

logger = logging.getLogger(__name__)

VERSION = 1


@dataclass(frozen=True)
class Record:
    """What is remembered of one lineage; times are aware and UTC, None stands for never.

    serial: of the leaf that last_success, newest_update and revocation are about (lower-case hexadecimal).
    last_success: when the responder last gave a response that was accepted. newest_update: the newest thisUpdate that
    was ever accepted for the leaf. revocation: when and why, in words, where the CA says that the leaf is revoked.
    needs_reload: the snippet names a version that nginx has not read yet. last_reload: when nginx last read a new
    version of a sealed lineage. last_run: when `certbot renew` or root's step last came by. last_failure: how that run
    ended (None: well).
    is_undone: `undo` took the certificate out of the site, and renewals leave that alone until the next deployment.
    refused_lines: why, in words, nginx refuses the lines that staple (None: it does not), which the next deployment
    tries again.
    """

    serial: str
    last_success: datetime.datetime | None = None
    newest_update: datetime.datetime | None = None
    revocation: str | None = None
    needs_reload: bool = False
    last_reload: datetime.datetime | None = None
    last_run: datetime.datetime | None = None
    last_failure: str | None = None
    is_undone: bool = False
    refused_lines: str | None = None


_TIMES = ("last_success", "newest_update", "last_reload", "last_run")


def path(state_dir: str, name: str) -> str:
    """Return the path of the record of the lineage called name."""
    return os.path.join(state_dir, "lineages", f"{name}.json")


def load(state_dir: str, lineage: Lineage) -> Record:
    """Return what is remembered of the lineage as it is now; what was about an earlier leaf is left out."""
    serial = f"{lineage.leaf.serial_number:x}"
    record = _read(path(state_dir, lineage.name)) or _carried_over(lineage)
    if record.serial != serial:
        return replace(record, serial=serial, last_success=None, newest_update=None, revocation=None)
    return record


def write(state_dir: str, name: str, record: Record, *, is_synced: bool = False) -> None:
    """Write the record of the lineage called name. Raises errors.FileRefused.

    A revocation is always synced to the disk; most other facts are found out again after a power cut.
    """
    content = {"version": VERSION, "lineage": name, **vars(record)}
    text = json.dumps(content, indent=1, default=datetime.datetime.isoformat)
    is_synced = is_synced or record.revocation is not None
    files.put(path(state_dir, name), text.encode() + b"\n", mode=0o600, is_synced=is_synced)


@dataclass(frozen=True)
class Mark:
    """Whether a nginx must reload: files that it reads were changed on disk, of whichever lineage. ctl: see Options."""

    state_dir: str
    ctl: str
    server_root: str | None

    @property
    def is_set(self) -> bool:
        """Tell whether it must; an earlier version's mark was for any."""
        return self._key in self._keys() or os.path.exists(_former_mark(self.state_dir))

    def set(self) -> None:
        """Write down that it must. Raises errors.FileRefused."""
        if self._key not in (keys := self._keys()):
            self._write([*keys, self._key])

    def clear(self) -> None:
        """Write down that it has reloaded. Raises errors.FileRefused."""
        if self._key in (keys := self._keys()):
            self._write([key for key in keys if key != self._key])
        files.remove(_former_mark(self.state_dir))

    @property
    def _key(self) -> list[str | None]:
        return [self.ctl, self.server_root]

    @property
    def _path(self) -> str:
        return os.path.join(self.state_dir, "reload.json")

    def _keys(self) -> list[list[str | None]]:
        with contextlib.suppress(errors.FileRefused, ValueError, TypeError, KeyError):
            return list(json.loads(files.read(self._path))["must_reload"])
        return []

    def _write(self, keys: list[list[str | None]]) -> None:
        if keys:
            text = json.dumps({"version": VERSION, "must_reload": keys})
            files.put(self._path, text.encode() + b"\n", mode=0o600, is_synced=False)
        else:
            files.remove(self._path)


def last_reload(state_dir: str) -> datetime.datetime | None:
    """Return when nginx last read a new version of any sealed lineage; None where it never did."""
    folder = os.path.join(state_dir, "lineages")
    read = (_read(os.path.join(folder, name)) for name in files.names_in(folder) if name.endswith(".json"))
    return max((record.last_reload for record in read if record and record.last_reload), default=None)


def is_undone(state_dir: str, name: str) -> bool:
    """Tell whether `undo` took the certificate of the lineage called name out of its site."""
    record = _read(path(state_dir, name))
    return record is not None and record.is_undone


def forget(state_dir: str, name: str) -> None:
    """Remove the record of the lineage called name. Raises errors.FileRefused."""
    files.remove(path(state_dir, name))
    files.remove_folder_if_empty(os.path.join(state_dir, "lineages"))


def _read(place: str) -> Record | None:
    try:
        content = files.read_if_present(place)
        if content is None:
            return None
        stored = json.loads(content)
        known = {field.name: stored[field.name] for field in fields(Record) if field.name in stored}
        for key in _TIMES:
            known[key] = datetime.datetime.fromisoformat(known[key]) if known.get(key) else None
            if known[key] and known[key].tzinfo is None:
                raise ValueError(f"{key} has no time zone")
        return Record(**known)
    except (errors.FileRefused, ValueError, TypeError, KeyError) as error:
        logger.debug("the record %s is passed over: %s", place, error)
        return None


# --- hosts of version 0.0: the facts were an mtime, a note beside the staple, and an empty file -----------------------


def former_revocation_path(lineage: Lineage) -> str:
    """Return where an earlier version kept what the CA said when it had revoked the leaf."""
    return os.path.join(os.path.dirname(lineage.response_path), "revoked")


def _former_mark(state_dir: str) -> str:
    return os.path.join(state_dir, ".reload")


def _carried_over(lineage: Lineage) -> Record:
    record = Record(f"{lineage.leaf.serial_number:x}")
    with contextlib.suppress(OSError):
        stored_at = datetime.datetime.fromtimestamp(os.stat(lineage.response_path).st_mtime, datetime.UTC)
        record = replace(record, last_success=stored_at)
    with contextlib.suppress(errors.FileRefused):
        note = (files.read_if_present(former_revocation_path(lineage)) or b"").decode("utf-8", "replace")
        if note.startswith(f"{record.serial} "):
            record = replace(record, revocation=note.partition(" ")[2].strip())
    return record
