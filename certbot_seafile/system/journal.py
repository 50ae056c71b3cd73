"""The journal of our edits: for each file of a person's, what it was without us and what we made of it.

The law: an edit is written down here before it is made, so that undo can take it out again however the run ended.
Only root (or whoever runs certbot) may read or write the journal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Collection
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.site import edits
from certbot_seafile.system import files

#: For whom edits are made: a lineage or a domain, and whether they only pin it.
Purpose = tuple[str, bool]

_RECORD_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Step:
    """One edit of a file: the lineage or domain that it was made for, the bytes around it, and what it was for.

    is_pin: it lets the site name an earlier version of the lineage's certificate for a while (sealed/pinning.py).
    """

    owner: str
    before: bytes
    after: bytes
    is_pin: bool = False

    @property
    def purpose(self) -> tuple[str, bool]:
        """Return for whom and what the edit was made: (owner, is_pin)."""
        return self.owner, self.is_pin


@dataclass(frozen=True)
class Entry:
    """One file's record: its path, its bytes without our edits, and the two last states that we gave it.

    steps: how it came to `after`, in order, so that one lineage's edits can be taken out of a file that others share.
    """

    path: str
    before: bytes
    after: bytes
    earlier: bytes
    steps: tuple[Step, ...] = ()

    def without_edits(self, now: bytes) -> tuple[bytes, bool]:
        """Return `now` without our edits, and whether all of them could be taken out."""
        known = self.earlier if now == self.earlier else self.after
        return edits.take_out(self.before, known, now)

    def without_steps_of(self, purposes: Collection[Purpose], now: bytes) -> tuple[bytes, bool]:
        """Return `now` without the edits made for these purposes, and whether all of them could be taken out."""
        clean = True
        for step in reversed(self.steps):
            if step.purpose in purposes:
                now, complete = edits.take_out(step.before, step.after, now)
                clean = clean and complete
        return now, clean


class Journal:
    """The records below one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def entries(self) -> list[Entry]:
        """Return every record, sorted by path. Raises errors.FileRefused where one is damaged."""
        if not os.path.isdir(self.folder):
            return []
        names = sorted(name for name in os.listdir(self.folder) if name.endswith(".json") and not name.startswith("."))
        return sorted((self._read(os.path.join(self.folder, name)) for name in names), key=lambda entry: entry.path)

    def entry(self, path: str) -> Entry | None:
        """Return the record of the file at path, None where there is none."""
        place = self._place(path)
        return self._read(place) if os.path.exists(place) else None

    def record(self, path: str, now: bytes, after: bytes, owner: str, *, is_pin: bool = False) -> None:
        """Write down that the file, whose bytes are `now`, is about to become `after` for the owner's sake."""
        known = self.entry(path)
        before = known.without_edits(now)[0] if known is not None else now
        steps = known.steps if known is not None else ()
        self._write(Entry(path, before, after, now, (*steps, Step(owner, now, after, is_pin))))

    def forget_steps_of(self, entry: Entry, purposes: Collection[Purpose], after: bytes) -> None:
        """Write down that the edits for the purposes were taken out of the entry's file, which so became `after`."""
        steps = tuple(step for step in entry.steps if step.purpose not in purposes)
        if steps:
            self._write(replace(entry, after=after, earlier=after, steps=steps))
        else:
            self.forget(entry.path)

    def restore(self, path: str, entry: Entry | None) -> None:
        """Put an earlier record back (None: there was none)."""
        if entry is None:
            files.remove(self._place(path))
        else:
            self._write(entry)

    def forget(self, path: str) -> None:
        """Drop the record of the file at path."""
        files.remove(self._place(path))

    def _place(self, path: str) -> str:
        return os.path.join(self.folder, hashlib.sha256(os.fsencode(path)).hexdigest()[:24] + ".json")

    def _write(self, entry: Entry) -> None:
        files.make_folder(self.folder, 0o700)
        states = {name: _packed(getattr(entry, name)) for name in ("before", "after", "earlier")}
        steps = [[step.owner, _packed(step.before), _packed(step.after), step.is_pin] for step in entry.steps]
        content = json.dumps({"path": entry.path, **states, "steps": steps}, indent=1).encode()
        files.replace(self._place(entry.path), content, mode=0o600)

    def _read(self, place: str) -> Entry:
        try:
            stored = json.loads(files.read(place))
            before, after, earlier = (_unpacked(stored[name]) for name in ("before", "after", "earlier"))
            steps = tuple(_step(*step) for step in stored["steps"])
            return Entry(stored["path"], before, after, earlier, steps)
        except (ValueError, KeyError, TypeError) as error:
            raise errors.FileRefused(
                f"the journal {place} is damaged ({error}); move it away to go on without undo"
            ) from error


def move(old: str, new: str) -> None:
    """Move every record from one folder to another, which is made where it is missing. Raises errors.FileRefused.

    The old folder may lie in one that another user can write, who could have put another in its place: what is not this
    user's own is refused, since undo writes what a record says.
    """
    files.make_folder(new, 0o700)
    above, folder = os.path.split(old)
    for name in sorted(os.listdir(old)) if os.path.isdir(old) else ():
        if name.endswith(".json") and not name.startswith("."):
            content = files.read_owned(os.geteuid(), above, folder, name, at_most_bytes=_RECORD_BYTES)
            files.replace(os.path.join(new, name), content, mode=0o600)
            files.remove(os.path.join(old, name))


def _step(owner: str, before: str, after: str, is_pin: bool = False) -> Step:
    """Return a stored step; an earlier version wrote a pin's as that of the owner "pin:NAME"."""
    if owner.startswith("pin:"):
        owner, is_pin = owner.removeprefix("pin:"), True
    return Step(owner, _unpacked(before), _unpacked(after), is_pin)


def _packed(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _unpacked(written: str) -> bytes:
    return base64.b64decode(written)
