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
    context.checkpoints.settle()
    records = {path: context.journal.entry(path) for path in planned.paths}
    written: list[str] = []
    keep = False
    try:
        for path in planned.paths:
            context.checkpoints.add({path}, f"{title}: {path}\n")
            _write_edit(context, planned, path, title.split()[-1])
            written.append(path)
        context.nginx.test()
        yield
        keep = is_lasting
    finally:
        if keep:
            context.checkpoints.finish(title)
        else:
            _put_back(context, planned, written, records)
            context.checkpoints.drop()
            if written:
                with contextlib.suppress(errors.NginxRefused):
                    context.nginx.test()
                    context.nginx.reload()


def write_unloaded(context: Context, planned: edits.Edits, owner: str) -> None:
    """Write the planned edits for the owner and test them; nginx is not reloaded, and no checkpoint is made.

    For what is to change nothing but the next start or reload. Raises errors.NginxRefused, errors.FileRefused,
    errors.RootNeeded; then everything was put back.
    """
    _refuse_without_root(context, planned.paths)
    records = {path: context.journal.entry(path) for path in planned.paths}
    written: list[str] = []
    done = False
    try:
        for path in planned.paths:
            _write_edit(context, planned, path, owner)
            written.append(path)
        context.nginx.test()
        done = True
    finally:
        if not done:
            _put_back(context, planned, written, records)


def _refuse_without_root(context: Context, paths: Sequence[str]) -> None:
    if context.renewer is not None:
        raise errors.RootNeeded(
            f"{', '.join(paths)} must be edited, which {context.renewer} may not do; run once "
            f"`sudo certbot-seafile setup --user {context.renewer} --cert-name NAME`, or with -d NAME instead where "
            "there is no certificate yet"
        )


def _write_edit(context: Context, planned: edits.Edits, path: str, owner: str) -> None:
    before, after = planned.before(path), planned.after(path)
    context.journal.record(path, before, after, owner=owner)
    files.replace(path, after, expected=before)
    logger.debug("edited for %s: %s\n%s", owner, path, diff(path, before, after))


def _put_back(
    context: Context, planned: edits.Edits, written: Sequence[str], records: dict[str, journal.Entry | None]
) -> None:
    for path in reversed(written):
        try:
            _take_out(path, planned)
        except errors.FileRefused as refused:
            logger.error("%s could not be put back: %s", path, refused)
    for path, entry in records.items():
        context.journal.restore(path, entry)


def _take_out(path: str, planned: edits.Edits) -> None:
    """Take one file's edits out again; what a person wrote into it since stays."""
    now = files.read(path)
    without, is_clean = edits.take_out(planned.before(path), planned.after(path), now)
    files.replace(path, without, expected=now)
    if not is_clean:
        logger.error("%s was changed by someone else meanwhile: lines that both changed stay as they are now", path)


def take_out_edits(context: Context, owners: Collection[str] | None = None) -> bool:
    """Take our edits out of every file (owners: only those made for them); return whether all could be taken out.

    Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    changed, clean = take_out_unloaded(context, owners)
    if changed:
        context.nginx.reload()
    return clean


def take_out_unloaded(context: Context, owners: Collection[str] | None = None) -> tuple[bool, bool]:
    """Do as take_out_edits does, without the reload; return whether a file changed, and whether all was taken out."""
    taken, clean = _without_edits(context, owners)
    written: list[tuple[journal.Entry, bytes, bytes]] = []
    done = False
    try:
        for entry, now, without in taken:
            files.replace(entry.path, without, expected=now)
            written.append((entry, now, without))
        context.nginx.test()
        done = True
    finally:
        if not done:
            for entry, now, without in reversed(written):
                files.replace(entry.path, now, expected=without)
    if owners is None:
        for entry in context.journal.entries():
            context.journal.forget(entry.path)
    else:
        for entry, _, without in taken:
            context.journal.forget_steps_of(entry, owners, without)
    return any(now != without for _, now, without in taken), clean


def _without_edits(
    context: Context, owners: Collection[str] | None
) -> tuple[list[tuple[journal.Entry, bytes, bytes]], bool]:
    taken, clean = [], True
    for entry in context.journal.entries():
        others = [step for step in entry.steps if owners is not None and step.owner not in owners]
        now = files.read_if_present(entry.path)
        if now is None or len(others) == len(entry.steps) > 0:
            continue
        without, complete = entry.without_steps_of(owners or (), now) if others else entry.without_edits(now)
        taken.append((entry, now, without))
        clean = clean and complete
    return taken, clean


def diff(path: str, before: bytes, after: bytes) -> str:
    """Return the unified diff of an edit, as text."""
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    return "".join(difflib.unified_diff(old, new, path, path))


def count_lines(planned: edits.Edits) -> str:
    """Return a phrase that says which files change by how many lines."""
    phrases = []
    for path in planned.paths:
        lines = diff(path, planned.before(path), planned.after(path)).splitlines()[2:]
        added, gone = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        new = added - gone
        phrases.append(f"{path} ({new} {'line' if new == 1 else 'lines'} added, {gone} commented out)")
    return ", ".join(phrases)
