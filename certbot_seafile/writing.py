"""A person's files, changed safely.

The law: every edit is written down, put into a checkpoint, made in one step and tested; where a later step fails it is
put back, unless someone else has changed the file meanwhile.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
from collections.abc import Iterator, Sequence

from certbot_seafile import edits, errors, files, journal
from certbot_seafile.host import Host

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def edited(host: Host, planned: edits.Edits, title: str, *, is_lasting: bool = True) -> Iterator[None]:
    """Write the planned edits and test them; keep them when the block ends well, else put everything back.

    is_lasting: False for edits that are taken out again when the block ends well, too (a dry run's).
    Raises errors.NginxRefused, errors.FileRefused.
    """
    records = {path: host.journal.entry(path) for path in planned.paths}
    written: list[str] = []
    keep = False
    try:
        for path in planned.paths:
            _write_edit(host, planned, path, title)
            written.append(path)
        host.nginx.test()
        yield
        keep = is_lasting
    finally:
        if keep:
            host.checkpoints.finish(title)
        else:
            _put_back(host, planned, written, records)
            host.checkpoints.drop()


def _write_edit(host: Host, planned: edits.Edits, path: str, title: str) -> None:
    before, after = planned.before(path), planned.after(path)
    host.checkpoints.add({path}, f"{title}: {path}\n")
    host.journal.record(path, before, after)
    files.replace(path, after, expected=before)
    logger.debug("%s: %s\n%s", title, path, diff(path, before, after))


def _put_back(
    host: Host, planned: edits.Edits, written: Sequence[str], records: dict[str, journal.Entry | None]
) -> None:
    for path in reversed(written):
        try:
            files.replace(path, planned.before(path), expected=planned.after(path))
        except errors.FileRefused as refused:
            logger.error("%s could not be put back: %s", path, refused)
    for path, entry in records.items():
        host.journal.restore(path, entry)
    if written:
        with contextlib.suppress(errors.NginxRefused):
            host.nginx.test()
            host.nginx.reload()


def take_out_edits(host: Host) -> bool:
    clean, written = True, []
    done = False
    try:
        for entry in host.journal.entries():
            now = files.read_if_present(entry.path)
            if now is None:
                continue
            without, complete = entry.without_edits(now)
            clean = clean and complete
            files.replace(entry.path, without, expected=now)
            written.append((entry.path, now, without))
        host.nginx.test()
        if written:
            host.nginx.reload()
        done = True
    finally:
        if not done:
            for path, now, without in reversed(written):
                files.replace(path, now, expected=without)
    for entry in host.journal.entries():
        host.journal.forget(entry.path)
    return clean


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
        phrases.append(f"{path} ({added - gone} lines added, {gone} commented out)")
    return ", ".join(phrases)
