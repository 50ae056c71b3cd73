"""Edits to a file's bytes: text goes in, nothing comes out.

The law: an edit is an insertion at a byte offset, and commenting a directive out is inserting "#" (and, where other
directives share its line, a line end). So every byte that was there stays there, in its order, and taking the
insertions out again gives the old file. Indentation and line ends follow what stands around. Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from certbot_seafile.site.model import Statement

_BLANK = b" \t"

# What stands first where several insertions meet at one offset: the line end behind a directive that was commented
# out, then new text, then the "#" of the directive that follows.
_CLOSING, _TEXT, _HASH = range(3)


@dataclass
class Edits:
    """The insertions that are planned, by file; texts at one offset keep the order in which they came."""

    _sources: dict[str, bytes] = field(default_factory=dict)
    _inserted: dict[str, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    _commented: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._inserted)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files that would change."""
        return tuple(self._inserted)

    def before(self, path: str) -> bytes:
        """Return the file's bytes as they were read."""
        return self._sources[path]

    def after(self, path: str) -> bytes:
        """Return the file's bytes with the insertions."""
        source, parts, at = self._sources[path], [], 0
        for offset, _, text in sorted(self._inserted[path], key=lambda insertion: insertion[:2]):
            parts += [source[at:offset], text]
            at = offset
        return b"".join([*parts, source[at:]])

    def insert(self, statement: Statement, offset: int, text: bytes, rank: int = _TEXT) -> None:
        """Insert text at the offset in the statement's file; rank orders what meets there."""
        self._sources.setdefault(statement.path, statement.source)
        self._inserted.setdefault(statement.path, []).append((offset, rank, text))

    def insert_before(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines above the statement, at its indentation; beside it where it shares its line."""
        source, start = statement.source, statement.directive.start
        if starts_its_line(statement):
            text = _joined(lines, indentation(statement), line_end(source))
            self.insert(statement, line_start(source, start), text)
        else:
            self.insert(statement, start, b"".join(line.strip() + b" " for line in lines))

    def insert_after(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines below the statement's last line, indented as it is; beside it where others follow there."""
        source, end = statement.source, statement.directive.end
        if not ends_its_line(statement):
            self.insert(statement, end, b"".join(b" " + line.strip() for line in lines))
            return
        newline = line_end(source)
        text = _joined(lines, indentation(statement), newline)
        found = source.find(b"\n", end)
        if found < 0:
            self.insert(statement, len(source), newline + text[: -len(newline)])
        else:
            self.insert(statement, found + 1, text)

    def insert_at_end(self, block: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines as the last ones of the block, at the indentation of its statements."""
        source, close = block.source, block.directive.close
        if close is None:
            raise ValueError("not a block")
        start = line_start(source, close)
        if source[start:close].strip(_BLANK):
            self.insert(block, close, b"".join(line.strip() + b" " for line in lines))
        else:
            self.insert(block, start, _joined(lines, inner_indentation(block), line_end(source)))

    def comment_out(self, statement: Statement) -> None:
        """Make a comment of the statement's lines, and of nothing else. A second call for the same one does nothing."""
        source, start, end = statement.source, statement.directive.start, statement.directive.end
        if (statement.path, start) in self._commented:
            return
        self._commented.add((statement.path, start))
        if starts_its_line(statement):
            self.insert(statement, line_start(source, start), b"#", _HASH)
        else:
            self.insert(statement, start, line_end(source) + b"#", _HASH)
        at = source.find(b"\n", start, end)
        while at >= 0:
            self.insert(statement, at + 1, b"#", _HASH)
            at = source.find(b"\n", at + 1, end)
        if not ends_its_line(statement):
            self.insert(statement, end, line_end(source), _CLOSING)

    def replace(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Comment the statement out and let the lines stand in its place."""
        if ends_its_line(statement) and starts_its_line(statement):
            self.comment_out(statement)
            self.insert_after(statement, lines)
        else:
            self.insert_before(statement, lines)
            self.comment_out(statement)


def _joined(lines: Iterable[bytes], indent: bytes, newline: bytes) -> bytes:
    return b"".join((indent + line if line else b"") + newline for line in lines)


def line_end(source: bytes) -> bytes:
    """Return the file's line end, as its first line has it: CRLF or LF."""
    found = source.find(b"\n")
    return b"\r\n" if found > 0 and source[found - 1 : found] == b"\r" else b"\n"


def line_start(source: bytes, offset: int) -> int:
    """Return the offset at which the line that holds offset starts."""
    return source.rfind(b"\n", 0, offset) + 1


def starts_its_line(statement: Statement) -> bool:
    """Tell whether only blanks stand before the statement on its line."""
    start = statement.directive.start
    return not statement.source[line_start(statement.source, start) : start].strip(_BLANK)


def ends_its_line(statement: Statement) -> bool:
    """Tell whether only blanks or a comment stand behind the statement on its last line."""
    source, end = statement.source, statement.directive.end
    found = source.find(b"\n", end)
    rest = source[end : found if found >= 0 else len(source)].strip()
    return not rest or rest.startswith(b"#")


def indentation(statement: Statement) -> bytes:
    """Return the blanks before the first word of the statement's line."""
    start = line_start(statement.source, statement.directive.start)
    line = statement.source[start : statement.directive.start]
    return line[: len(line) - len(line.lstrip(_BLANK))]


def inner_indentation(block: Statement) -> bytes:
    """Return the indentation of the block's statements; four blanks more than the block's own where it has none."""
    for child in block.children or ():
        if child.path == block.path and starts_its_line(child):
            return indentation(child)
    return indentation(block) + b"    "


def indentation_step(block: Statement) -> bytes:
    """Return what the block's statements are indented by beyond the block itself."""
    outer, inner = indentation(block), inner_indentation(block)
    return inner[len(outer) :] if inner.startswith(outer) and inner != outer else b"    "


def take_out(before: bytes, after: bytes, now: bytes) -> tuple[bytes, bool]:
    """Return `now` without the edits that led from before to after, and whether each of them could be taken out.

    Where now is after (or before: nothing was written yet), this is before, byte for byte. Else a person has edited
    meanwhile: their lines stay, ours go
    (a three-way merge by lines, after being the ancestor); a place that both changed stays as the person has it.
    """
    if now in (after, before):
        return before, True
    base, ours, theirs = (content.splitlines(keepends=True) for content in (after, before, now))
    kept = {
        line: matched.b + line - matched.a
        for matched in difflib.SequenceMatcher(None, base, theirs, autojunk=False).get_matching_blocks()
        for line in range(matched.a, matched.a + matched.size)
    }
    clean, patches = True, []
    for tag, low, high, ours_low, ours_high in difflib.SequenceMatcher(None, base, ours, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        span = _span_in_theirs(kept, low, high, len(base), len(theirs))
        if span is None:
            clean = False
        else:
            patches.append((*span, ours[ours_low:ours_high]))
    for low, high, lines in reversed(patches):
        theirs[low:high] = lines
    return b"".join(theirs), clean


def _span_in_theirs(kept: dict[int, int], low: int, high: int, end: int, their_end: int) -> tuple[int, int] | None:
    # The changed lines must stand in theirs untouched and together; a pure insertion needs its neighbour.
    if low == high:
        return (kept[low], kept[low]) if low in kept else ((their_end, their_end) if low == end else None)
    places = [kept.get(line) for line in range(low, high)]
    first = places[0]
    if first is None or places != list(range(first, first + high - low)):
        return None
    return first, first + high - low
