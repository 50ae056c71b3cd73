"""A person's files, changed safely.

The law: every edit is written down, put into a checkpoint, made in one step and tested; where a later step fails it is
put back, unless someone else has changed the file meanwhile.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Collection, Iterator, Sequence

from certbot_seafile import errors
from certbot_seafile.site import edits
from certbot_seafile.system import files, journal
from certbot_seafile.system.context import Context

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def edited(context: Context, planned: edits.Edits, title: str, *, is_lasting: bool = True) -> Iterator[None]:
    """Write the planned edits and test them; keep them when the block ends well, else put everything back.

    is_lasting: False for edits that are taken out again when the block ends well, too (a dry run's).
    Raises errors.NginxRefused, errors.FileRefused, errors.RootNeeded.
    """
    _refuse_without_root(context, planned.paths)
    context.checkpoints.close()
    writing = _Writing(context, planned, title.split()[-1])
    keep = False
    try:
        for path in planned.paths:
            context.checkpoints.add({path}, f"{title}: {path}\n")
            writing.write(path)
        context.nginx.test()
        yield
        keep = is_lasting
    finally:
        if keep:
            context.checkpoints.finish(title)
        else:
            writing.put_back()
            context.checkpoints.drop()
            if writing.written:
                with contextlib.suppress(errors.NginxRefused):
                    context.nginx.test()
                    context.nginx.reload()


def pin(context: Context, planned: edits.Edits, owner: str) -> None:
    """Write the planned edits, which only pin the owner's site, and test them: no reload, no checkpoint.

    Raises errors.NginxRefused, errors.FileRefused, errors.RootNeeded; then everything was put back.
    """
    _refuse_without_root(context, planned.paths)
    writing = _Writing(context, planned, owner, is_pin=True)
    keep = False
    try:
        for path in planned.paths:
            writing.write(path)
        context.nginx.test()
        keep = True
    finally:
        if not keep:
            writing.put_back()


class _Writing:
    """The files that one run of edits has written so far, and how to put them back."""

    def __init__(self, context: Context, planned: edits.Edits, owner: str, *, is_pin: bool = False) -> None:
        self._context, self._planned, self._owner, self._is_pin = context, planned, owner, is_pin
        self._entries = {path: context.journal.entry(path) for path in planned.paths}
        self.written: list[str] = []

    def write(self, path: str) -> None:
        """Write the journal's entry, then the file."""
        before, after = self._planned.before(path), self._planned.after(path)
        self._context.journal.record(path, before, after, self._owner, is_pin=self._is_pin)
        files.replace(path, after, expected=before)
        self._context.nginx.changed()
        self.written.append(path)
        logger.debug("edited for %s: %s\n%s", self._owner, path, diff(path, before, after))

    def put_back(self) -> None:
        """Take every edit out again, last one first; what a person wrote into a file since stays."""
        for path in reversed(self.written):
            try:
                self._take_out(path)
            except errors.FileRefused as refused:
                logger.error("%s could not be put back: %s", path, refused)
        for path, entry in self._entries.items():
            self._context.journal.restore(path, entry)
        self._context.nginx.changed()

    def _take_out(self, path: str) -> None:
        now = files.read(path)
        without, is_clean = edits.take_out(self._planned.before(path), self._planned.after(path), now)
        files.replace(path, without, expected=now)
        if not is_clean:
            logger.error("%s was changed by someone else meanwhile: lines that both changed stay as they are now", path)


def _refuse_without_root(context: Context, paths: Sequence[str]) -> None:
    if context.renewer is not None:
        raise errors.RootNeeded(
            f"{', '.join(paths)} must be edited, which {context.renewer} may not do; run once "
            f"`sudo certbot-seafile setup --user {context.renewer} --cert-name NAME`, or with -d NAME instead where "
            "there is no certificate yet"
        )


def take_out_edits(context: Context, purposes: Collection[journal.Purpose] | None = None) -> tuple[bool, bool]:
    """Take our edits out of every file and test the result; nginx is not reloaded.

    purposes: only the edits that were made for these; None for all. Return whether a file changed, and whether all
    edits could be taken out. Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    taken, is_clean = _without_edits(context, purposes)
    written: list[tuple[journal.Entry, bytes, bytes]] = []
    keep = False
    try:
        for entry, now, without in taken:
            files.replace(entry.path, without, expected=now)
            written.append((entry, now, without))
        context.nginx.changed()
        context.nginx.test()
        keep = True
    finally:
        if not keep:
            for entry, now, without in reversed(written):
                files.replace(entry.path, now, expected=without)
            context.nginx.changed()
    if purposes is None:
        for entry in context.journal.entries():
            context.journal.forget(entry.path)
    else:
        for entry, _, without in taken:
            context.journal.forget_steps_of(entry, purposes, without)
    return any(now != without for _, now, without in taken), is_clean


def _without_edits(
    context: Context, purposes: Collection[journal.Purpose] | None
) -> tuple[list[tuple[journal.Entry, bytes, bytes]], bool]:
    """Return each entry whose file changes, with the file's bytes now and without the edits; and whether all go."""
    taken, is_clean = [], True
    for entry in context.journal.entries():
        others = [step for step in entry.steps if purposes is not None and step.purpose not in purposes]
        now = files.read_if_present(entry.path)
        if now is None or len(others) == len(entry.steps) > 0:
            continue
        without, complete = entry.without_steps_of(purposes or (), now) if others else entry.without_edits(now)
        taken.append((entry, now, without))
        is_clean = is_clean and complete
    return taken, is_clean


def diff(path: str, before: bytes, after: bytes) -> str:
    """Return the unified diff of an edit, as text."""
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    return "".join(difflib.unified_diff(old, new, path, path))


def count_lines(planned: edits.Edits) -> str:
    """Return a phrase that says which files change by how many lines."""
    phrases = []
    for path in planned.paths:
        lines = diff(path, planned.before(path), planned.after(path)).splitlines()[2:]
        added, commented = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        new = added - commented
        phrases.append(f"{path} ({new} {'line' if new == 1 else 'lines'} added, {commented} commented out)")
    return ", ".join(phrases)
