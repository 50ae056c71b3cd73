"""A person's files, changed safely.

The law: every edit is written down, put into a checkpoint, made in one step and tested; where a later step fails it is
put back, unless someone else has changed the file meanwhile.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.site import edits, proof, syntax
from certbot_seafile.site.config import Statement
from certbot_seafile.system import files, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.journal import Entry, Step

logger = logging.getLogger(__name__)

#: A diff's own lines, and those of a site that hold no secret.
_OPEN = re.compile(
    r"(?:---|\+\+\+|@@) .*|[+-][#\s]*(?:"
    r"(?:ssl_\w+|include|listen|server_name|root|default_type|allow|rewrite)\s[^;{}]*;|"
    r"location [^;{}]*/\.well-known/.*\{|server \{|\}|auth_\w+ off;|"
    r"return 301 https://\$host(?::\d+)?\$request_uri;)?\s*"
)

_PUT_BACK_SECONDS = 5.0  # within which nginx is seen to read what was put back; if not, it never read what failed


@contextlib.contextmanager
def edited(
    context: Context, planned: edits.Edits, purpose: str, owner: str, *, is_lasting: bool = True
) -> Iterator[None]:
    """Write the planned edits and test them; keep them when the block ends well, else put everything back.

    purpose: a word; owner: for whom, as the journal keeps it. is_lasting: False for edits that are taken out again when
    the block ends well, too (a dry run's).
    Raises errors.SiteRefused where somebody would be hurt for whom they are not made, errors.NginxRefused,
    errors.FileRefused.
    """
    refuse_fixed(context, planned)
    context.nginx.refuse_unseen(planned.paths)
    title = f"certbot-seafile {purpose} {owner}"
    verdict = proof.judge(context.nginx.configuration(), planned)
    before = serving.see_neighbours(verdict.neighbours) if is_lasting else {}
    context.checkpoints.close()
    written: list[str] = []

    def blame(complaint: str) -> errors.SiteRefused:
        return errors.SiteRefused(
            f"the edits for {', '.join(planned.names)} were taken out again, because with them nginx refuses its "
            f"configuration: {complaint}; your own lines are not at fault, so please report this with the site's file"
        )

    with _blamed(context, blame), contextlib.ExitStack() as undoing:
        undoing.callback(_give_up, context, written)
        for path in planned.paths:
            context.checkpoints.add({path}, f"{title}: {path}\n")
            _write(context, planned, path, owner, undoing)
            written.append(path)
        context.nginx.foresee(verdict.after)
        context.nginx.test()
        yield
        if is_lasting:
            serving.verify_neighbours(context, verdict.neighbours, before)
            undoing.pop_all()
            context.checkpoints.finish(title)


@contextlib.contextmanager
def _blamed(context: Context, blame: Callable[[str], errors.SiteRefused]) -> Iterator[None]:
    """Tell whether it is by the change that nginx refuses its configuration, when that has been taken back again.

    blame: says so, given nginx's words. Raises that, or errors.ConfigurationRefused where nginx would not have started
    before either.
    """
    try:
        yield
    except errors.ConfigurationRefused as refused:
        context.nginx.test()
        raise blame(refused.complaint) from refused


def _write(context: Context, planned: edits.Edits, path: str, owner: str, undoing: contextlib.ExitStack) -> None:
    """Write the journal's entry, then the file. undoing: gets what puts both back."""
    before, after = planned.before(path), planned.after(path)
    undoing.callback(_put_back, context, path, Step(owner, before, after))
    context.journal.record(path, before, after, owner)
    files.replace(path, after, expected=before)
    context.nginx.changed()
    lines = map(_without_secrets, _diff(path, before, after).splitlines())
    logger.debug("edited for %s: %s\n%s", owner, path, "\n".join(lines))


def _put_back(context: Context, path: str, step: Step) -> None:
    """Take an edit out of a file again, and then out of the journal; what others wrote into the file since stays."""
    try:
        now = files.read(path)
        without, is_clean = edits.take_out(step.before, step.after, now)
        if without != now:
            files.replace(path, without, expected=now)
            context.nginx.changed()
    except errors.FileRefused as refused:
        logger.error("%s could not be put back: %s; then run `certbot-seafile undo`", path, refused)
        return
    if is_clean:
        context.journal.forget(path, {step})
    else:
        logger.error("%s was changed by someone else meanwhile: lines that both changed stay as they are now", path)


def _give_up(context: Context, written: Sequence[str]) -> None:
    """Let nginx read what was put back."""
    context.checkpoints.drop()
    if written:
        with contextlib.suppress(errors.NginxRefused):
            context.nginx.test()
            context.nginx.reload(_PUT_BACK_SECONDS)


def refuse_fixed(context: Context, planned: edits.Edits) -> None:
    """Refuse edits of files that cannot be replaced, or not by this user. Raises errors.FileRefused, SiteRefused."""
    for path in planned.paths:
        files.refuse_fixed(path)
    if context.renewer is not None:
        raise errors.SiteRefused(
            f"{', '.join(planned.paths)} must be edited, which {context.renewer} may not do; run once "
            f"`sudo certbot-seafile setup --user {context.renewer} -d NAME`"
        )


@dataclass(frozen=True)
class Taken:
    """Edits that were taken out of a file: the record and its steps, the file's path now, its bytes with and without.

    is_clean: whether each of them could be taken out. left: the lines of ours, "FILE:LINE", that nginx reads still, as
    somebody has changed, moved or copied them or what is around them.
    """

    entry: Entry
    steps: tuple[Step, ...]
    path: str
    now: bytes
    without: bytes
    is_clean: bool
    left: tuple[str, ...] = ()


def owners_upon(context: Context, owners: Collection[str]) -> list[str]:
    """Return for whom edits were made that stand on those for these owners, so that theirs go first; sorted."""
    taken = [each for each in _without_edits(context, owners) if not each.is_clean]
    return sorted({owner for each in taken for owner in each.entry.owners_upon(each.steps)})


def take_out_edits(context: Context, owners: Collection[str] | None = None) -> list[Taken]:
    """Take our edits out of every file and test the result; nginx is not reloaded, and the journal keeps its records.

    owners: only the edits that were made for these; None for all. Raises errors.SiteRefused where nginx would refuse
    the result; then nothing was changed.
    """
    taken = list(_without_edits(context, owners))
    if not taken:
        return []
    before = {entry.path: entry.before for entry in context.journal.entries()}
    before |= {each.path: each.entry.before for each in taken}

    def blame(complaint: str) -> errors.SiteRefused:
        return errors.SiteRefused(
            f"nothing was taken out of {', '.join(each.path for each in taken if each.now != each.without)}, because "
            f"without the edits nginx refuses its configuration: {complaint}; lines of yours that are comments now "
            "would be read again: bring back the file that such a line names, or change that line, then run "
            "`certbot-seafile undo` again"
        )

    with _blamed(context, blame), contextlib.ExitStack() as undoing:
        undoing.callback(context.nginx.changed)
        for each in taken:
            if each.now != each.without:
                files.refuse_fixed(each.path)
                files.replace(each.path, each.without, expected=each.now)
                undoing.callback(files.replace, each.path, each.now, expected=each.without)
        context.nginx.changed()
        context.nginx.test()
        undoing.pop_all()
    return [replace(each, left=_left_lines(context, each, before)) for each in taken]


def forget_edits(context: Context, taken: Sequence[Taken]) -> None:
    """Forget the edits that are gone, now that nginx runs without them; of what is left, the record stays."""
    left = {each.entry.path for each in taken if each.left}
    for each in taken:
        if each.entry.path not in left:
            context.journal.forget(each.entry.path, each.steps)


def _without_edits(context: Context, owners: Collection[str] | None) -> Iterator[Taken]:
    entries = context.journal.entries()
    recorded = {entry.path for entry in entries}
    for entry in entries:
        steps = entry.steps_of(owners)
        if len(steps) == 0 < len(entry.steps):
            continue
        places = _places(context, entry, recorded)
        for path in places:
            now = files.read(path)
            without, is_clean = entry.without(steps, now)
            yield Taken(entry, steps, path, now, without, is_clean)
        if not places:
            yield Taken(entry, steps, entry.path, b"", b"", is_clean=True)


def _places(context: Context, entry: Entry, recorded: Collection[str]) -> list[str]:
    """Return the files that hold what a record is about: at its path, or behind a link there that nginx reads, too.

    Where somebody has renamed the file, or copied it, it is what nginx reads instead.
    """
    read, path = context.nginx.configuration().files, os.path.realpath(entry.path)
    here = [path] if os.path.isfile(path) and (path == entry.path or path in read) else []
    mark = max(set(entry.after.splitlines()) - set(entry.before.splitlines()), key=len, default=b"")
    others = [file for file in read.values() if mark and mark in file.source and file.path not in {path, *recorded}]
    return here + [
        each.path for each in others if not here or edits.take_out(entry.before, entry.after, each.source)[1]
    ]


def _left_lines(context: Context, taken: Taken, before: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the lines of ours that stand in the file as we wrote them, or name a certificate that we had put in.

    The latter in whatever file: without certificate and key, nginx would not start. before: the files without us.
    """
    expected, lines = taken.entry.without(taken.steps, taken.entry.after)[0], set()
    for step in () if taken.is_clean else taken.steps:
        numbers = edits.left_lines(step.before, step.after, taken.without, expected)
        lines |= {(taken.path, number) for number in numbers}
    for step in taken.steps:
        folder = os.fsencode(os.path.join(context.config_dir, "live", step.owner, ""))
        if step.after.count(folder) > step.before.count(folder):  # else the site had named it before us
            naming = context.nginx.configuration().mentioning(folder)
            lines |= {(each.path, each.line) for each in naming if not _has(before.get(each.path, b""), each)}
    return tuple(f"{path}:{number}" for path, number in sorted(lines))


def _has(source: bytes, statement: Statement) -> bool:
    """Tell whether a statement of these words stands in a file's bytes."""
    words = statement.name, statement.arguments
    is_possible = all(argument in source for argument in statement.arguments)
    return is_possible and any((each.name, each.arguments) == words for each in syntax.walk(syntax.parse(source)))


def _diff(path: str, before: bytes, after: bytes) -> str:
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    return "".join(difflib.unified_diff(old, new, path, path, n=0))


def _without_secrets(line: str) -> str:
    """Return a line of a diff as it may stand in the log: any line of a site may hold a password."""
    return line if _OPEN.fullmatch(line) else f"{line[:1]}..."


def count_lines(planned: edits.Edits) -> str:
    """Return a phrase that says which files change by how many lines."""
    phrases = []
    for path in planned.paths:
        lines = _diff(path, planned.before(path), planned.after(path)).splitlines()[2:]
        added, commented = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        new = added - commented
        phrases.append(f"{path} ({new} {'line' if new == 1 else 'lines'} added, {commented} commented out)")
    return ", ".join(phrases)
