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
from certbot_seafile.site import edits, proof
from certbot_seafile.system import files, serving
from certbot_seafile.system.context import Context

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def edited(context: Context, planned: edits.Edits, title: str, *, is_lasting: bool = True) -> Iterator[None]:
    """Write the planned edits and test them; keep them when the block ends well, else put everything back.

    is_lasting: False for edits that are taken out again when the block ends well, too (a dry run's).
    Raises errors.SiteRefused where this run is not root's, or somebody would be hurt for whom they are not made,
    errors.NginxRefused, errors.FileRefused.
    """
    if context.renewer is not None:
        raise errors.SiteRefused(
            f"{', '.join(planned.paths)} must be edited, which {context.renewer} may not do; run once "
            f"`sudo certbot-seafile setup --user {context.renewer} -d NAME`"
        )
    verdict = proof.judge(context.nginx.configuration(), planned)
    before = serving.see_neighbours(verdict.neighbours) if is_lasting else {}
    context.checkpoints.close()
    written: list[str] = []
    with contextlib.ExitStack() as undoing:
        undoing.callback(_give_up, context, written)
        for path in planned.paths:
            context.checkpoints.add({path}, f"{title}: {path}\n")
            _write(context, planned, path, title.split()[-1], undoing)
            written.append(path)
        context.nginx.foresee(verdict.after)
        _test(context, planned)
        yield
        if is_lasting:
            serving.verify_neighbours(verdict.neighbours, before)
            undoing.pop_all()
            context.checkpoints.finish(title)


def _test(context: Context, planned: edits.Edits) -> None:
    """Run `nginx -t` on what was written: what it refuses now, it took before. Raises errors.SiteRefused."""
    try:
        context.nginx.test()
    except errors.NginxRefused as refused:
        complaint = str(refused).removesuffix("; fix that line, and run again")
        raise errors.SiteRefused(
            f"the edits for {', '.join(planned.names)} were taken out again, because with them {complaint}; your own "
            "lines are not at fault, so please report this with the site's file"
        ) from refused


def _write(context: Context, planned: edits.Edits, path: str, owner: str, undoing: contextlib.ExitStack) -> None:
    """Write the journal's entry, then the file. undoing: hears how to put both back."""
    before, after = planned.before(path), planned.after(path)
    undoing.callback(context.journal.restore, path, context.journal.entry(path))
    context.journal.record(path, before, after, owner)
    files.replace(path, after, expected=before)
    undoing.callback(_put_back, context, path, before, after)
    context.nginx.changed()
    logger.debug("edited for %s: %s\n%s", owner, path, _diff(path, before, after))


def _put_back(context: Context, path: str, before: bytes, after: bytes) -> None:
    """Take an edit out of a file again; what a person wrote into it since stays."""
    try:
        now = files.read(path)
        without, is_clean = edits.take_out(before, after, now)
        files.replace(path, without, expected=now)
        context.nginx.changed()
    except errors.FileRefused as refused:
        logger.error("%s could not be put back: %s", path, refused)
        return
    if not is_clean:
        logger.error("%s was changed by someone else meanwhile: lines that both changed stay as they are now", path)


def _give_up(context: Context, written: Sequence[str]) -> None:
    """Let nginx read what was put back."""
    context.checkpoints.drop()
    if written:
        with contextlib.suppress(errors.NginxRefused):
            context.nginx.test()
            context.nginx.reload()


def take_out_edits(context: Context, owners: Collection[str] | None = None) -> tuple[bool, bool]:
    """Take our edits out of every file and test the result; nginx is not reloaded.

    owners: only the edits that were made for these; None for all. Return whether a file changed, and whether all
    edits could be taken out. Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    taken, is_clean = _without_edits(context, owners)
    with contextlib.ExitStack() as undoing:
        undoing.callback(context.nginx.changed)
        for path, now, without in taken:
            files.replace(path, without, expected=now)
            undoing.callback(files.replace, path, now, expected=without)
        context.nginx.changed()
        context.nginx.test()
        undoing.pop_all()
    for entry in context.journal.entries():
        context.journal.restore(entry.path, entry.forget(owners))
    return bool(taken), is_clean


def _without_edits(context: Context, owners: Collection[str] | None) -> tuple[list[tuple[str, bytes, bytes]], bool]:
    """Return each file that changes, with its bytes now and without the edits; and whether all go."""
    taken: list[tuple[str, bytes, bytes]] = []
    is_clean = True
    for entry in context.journal.entries():
        if (now := files.read_if_present(entry.path)) is not None:
            without, complete = entry.without(now, owners)
            taken += [(entry.path, now, without)] if without != now else []
            is_clean = is_clean and complete
    return taken, is_clean


def _diff(path: str, before: bytes, after: bytes) -> str:
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    return "".join(difflib.unified_diff(old, new, path, path))


def count_lines(planned: edits.Edits) -> str:
    """Return a phrase that says which files change by how many lines."""
    phrases = []
    for path in planned.paths:
        lines = _diff(path, planned.before(path), planned.after(path)).splitlines()[2:]
        added, commented = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        new = added - commented
        phrases.append(f"{path} ({new} {'line' if new == 1 else 'lines'} added, {commented} commented out)")
    return ", ".join(phrases)
