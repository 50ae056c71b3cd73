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
from dataclasses import asdict, astuple, dataclass, replace

from certbot_seafile import errors
from certbot_seafile.site import edits
from certbot_seafile.system import files

#: How the owner of an edit begins that let a site name an earlier version of a certificate, as version 0.0 did.
PINNED = "pin:"


@dataclass(frozen=True)
class Step:
    """One edit of a file: the lineage or domain that it was made for, and the bytes around it."""

    owner: str
    before: bytes
    after: bytes


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
        return edits.take_out(self.before, self.earlier if now == self.earlier else self.after, now)

    def without_steps_of(self, owners: Collection[str], now: bytes) -> tuple[bytes, bool]:
        """Return `now` without the edits made for these owners, and whether all of them could be taken out."""
        is_clean = True
        for step in reversed(self.steps):
            if step.owner in owners:
                now, is_whole = edits.take_out(step.before, step.after, now)
                is_clean = is_clean and is_whole
        return now, is_clean


class Journal:
    """The records below one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def entries(self) -> list[Entry]:
        """Return every record, sorted by path. Raises errors.FileRefused where one is damaged."""
        return sorted(map(self._read, _records(self.folder)), key=lambda entry: entry.path)

    def entry(self, path: str) -> Entry | None:
        """Return the record of the file at path, None where there is none."""
        place = self._place(path)
        return self._read(place) if os.path.exists(place) else None

    def record(self, path: str, now: bytes, after: bytes, owner: str) -> None:
        """Write down that the file, whose bytes are `now`, is about to become `after` for the owner's sake."""
        known = self.entry(path) or Entry(path, now, now, now)
        steps = *known.steps, Step(owner, now, after)
        self._write(Entry(path, known.without_edits(now)[0], after, now, steps))

    def forget_steps_of(self, entry: Entry, owners: Collection[str], after: bytes) -> None:
        """Write down that the owners' edits were taken out of the entry's file, which so became `after`."""
        steps = tuple(step for step in entry.steps if step.owner not in owners)
        self.restore(entry.path, replace(entry, after=after, earlier=after, steps=steps) if steps else None)

    def restore(self, path: str, entry: Entry | None) -> None:
        """Put an earlier record back; None forgets the file at path."""
        if entry is None:
            files.remove(self._place(path))
        else:
            self._write(entry)

    def _place(self, path: str) -> str:
        return os.path.join(self.folder, hashlib.sha256(os.fsencode(path)).hexdigest()[:24] + ".json")

    def _write(self, entry: Entry) -> None:
        content = asdict(entry) | {"steps": [astuple(step) for step in entry.steps]}
        text = json.dumps(content, indent=1, default=lambda state: base64.b64encode(state).decode())
        files.put(self._place(entry.path), text.encode(), mode=0o600)

    def _read(self, place: str) -> Entry:
        try:
            stored = json.loads(files.read(place))
            states = {name: base64.b64decode(stored[name]) for name in ("before", "after", "earlier")}
            return Entry(stored["path"], **states, steps=tuple(_step(*step) for step in stored["steps"]))
        except (ValueError, KeyError, TypeError) as error:
            raise errors.FileRefused(
                f"the journal {place} is damaged ({error}); move it away to go on without undo"
            ) from error


def _records(folder: str) -> list[str]:
    """Return the paths of the records in a folder; none where there is no folder."""
    names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.endswith(".json") and not name.startswith(".")]


def _step(owner: str, before: str, after: str, is_pin: bool = False) -> Step:
    """Return a stored step; is_pin: how some hosts have stored what PINNED says."""
    return Step(PINNED + owner if is_pin else owner, base64.b64decode(before), base64.b64decode(after))
