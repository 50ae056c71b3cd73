"""The journal of our edits: for each file of a person's, what it was without us and what we made of it.

The law: an edit is written down here before it is made, and forgotten when it is seen to be gone, so that undo can
take it out however the run ended.
Only root (or whoever runs certbot) may read or write the journal.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass

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
    """One file's record: its path, and our edits of it in order, of which at least one is there."""

    path: str
    steps: tuple[Step, ...]

    @property
    def before(self) -> bytes:
        """Return the file's bytes without our edits, as they were at the last of these."""
        return self.without(self.steps, self.after)[0]

    @property
    def after(self) -> bytes:
        """Return the file's bytes with the last of our edits."""
        return self.steps[-1].after

    def steps_of(self, owners: Collection[str] | None) -> tuple[Step, ...]:
        """Return the edits that were made for these owners; None for all."""
        return tuple(step for step in self.steps if owners is None or step.owner in owners)

    def without(self, steps: Collection[Step], now: bytes) -> tuple[bytes, bool]:
        """Return `now` without these edits, and whether all of them could be taken out."""
        # Where the file is what it was before a step, a run was killed there, or somebody went back to that.
        number = next((number for number, step in enumerate(self.steps) if step.before == now), len(self.steps))
        return _take_out([step for step in self.steps[:number] if step in steps], now)

    def owners_upon(self, steps: Collection[Step]) -> list[str]:
        """Return for whom later edits were made that stand on these, so that these cannot be taken out before them."""
        owners = []
        for number, later in enumerate(self.steps):
            earlier = [step for step in self.steps[:number] if step in steps]
            if later not in steps and _take_out(earlier, later.before)[1] and not _take_out(earlier, later.after)[1]:
                owners.append(later.owner.removeprefix(PINNED))
        return owners


def _take_out(steps: Sequence[Step], now: bytes) -> tuple[bytes, bool]:
    is_clean = True
    for step in reversed(steps):
        now, is_whole = edits.take_out(step.before, step.after, now)
        is_clean = is_clean and is_whole
    return now, is_clean


class Journal:
    """The records below one folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def entries(self) -> list[Entry]:
        """Return every record, sorted by path. Raises errors.FileRefused where one is damaged."""
        names = [name for name in files.names_in(self.folder) if name.endswith(".json") and name[0] != "."]
        return sorted((self._read(os.path.join(self.folder, name)) for name in names), key=lambda entry: entry.path)

    def entry(self, path: str) -> Entry | None:
        """Return the record of the file at path, None where there is none."""
        place = self._place(path)
        return self._read(place) if os.path.exists(place) else None

    def record(self, path: str, now: bytes, after: bytes, owner: str) -> None:
        """Write down that the file, whose bytes are `now`, is about to become `after` for the owner's sake."""
        known = self.entry(path)
        self._write(Entry(path, (*(known.steps if known else ()), Step(owner, now, after))))

    def forget(self, path: str, gone: Collection[Step]) -> None:
        """Write down that these edits were taken out of the file at path; without others, forget the file."""
        entry = self.entry(path)
        kept: list[Step] = []
        taken: list[Step] = []
        for step in entry.steps if entry else ():
            if step in gone:
                taken.append(step)
            else:  # as if those before it had never been
                kept.append(Step(step.owner, _take_out(taken, step.before)[0], _take_out(taken, step.after)[0]))
        if kept:
            self._write(Entry(path, tuple(kept)))
        else:
            files.remove(self._place(path))
            files.remove_folder_if_empty(self.folder)

    def _place(self, path: str) -> str:
        return os.path.join(self.folder, hashlib.sha256(os.fsencode(path)).hexdigest()[:24] + ".json")

    def _write(self, entry: Entry) -> None:
        content = {"path": entry.path, "steps": [astuple(step) for step in entry.steps]}
        text = json.dumps(content, indent=1, default=lambda state: base64.b64encode(state).decode())
        files.put(self._place(entry.path), text.encode(), mode=0o600)

    def _read(self, place: str) -> Entry:
        try:
            stored = json.loads(files.read(place))
            return Entry(stored["path"], tuple(_step(*step) for step in stored["steps"]))
        except (ValueError, KeyError, TypeError) as error:
            raise errors.FileRefused(
                f"the journal {place} is damaged ({error}); move it away to go on without undo"
            ) from error


def _step(owner: str, before: str, after: str, is_pin: bool = False) -> Step:
    """Return a stored step; is_pin: how some hosts have stored what PINNED says."""
    return Step(PINNED + owner if is_pin else owner, base64.b64decode(before), base64.b64decode(after))
