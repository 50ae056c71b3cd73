"""Edits to a file's bytes: text goes in, nothing comes out.

The law: an edit is an insertion at a byte offset, and commenting a directive out is inserting "#" (and, where other
directives share its line, a line end). So every byte that was there stays there, in its order, and taking the
insertions out again gives the old file. Indentation and line ends follow what stands around. Pure.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from certbot_seafile.site.config import Statement

_BLANK = b" \t"

# What stands first where several insertions meet at one offset: the line end behind a directive that was commented
# out, then new text, then the "#" of the directive that follows.
_CLOSING, _TEXT, _HASH = range(3)

_MOST_DIFFERENCES = 500


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
        line_feed = source.find(b"\n", end)
        if line_feed < 0:
            self.insert(statement, len(source), newline + text[: -len(newline)])
        else:
            self.insert(statement, line_feed + 1, text)

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
    line_feed = source.find(b"\n")
    return b"\r\n" if line_feed > 0 and source[line_feed - 1 : line_feed] == b"\r" else b"\n"


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
    line_feed = source.find(b"\n", end)
    rest = source[end : line_feed if line_feed >= 0 else len(source)].strip()
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


class Run(NamedTuple):
    """Lines that two sequences have in common: where they begin in each, and how many they are."""

    a: int
    b: int
    size: int


def take_out(before: bytes, after: bytes, now: bytes) -> tuple[bytes, bool]:
    """Return `now` without the edits that led from before to after, and whether each of them could be taken out.

    Where now is after (or before: nothing was written yet), this is before, byte for byte. Else a person has edited
    meanwhile: their lines stay, ours go
    (a three-way merge by lines, after being the ancestor); a place that both changed stays as the person has it.
    """
    if now in (after, before):
        return before, True
    base, ours, theirs = (content.splitlines(keepends=True) for content in (after, before, now))
    kept = {block.a + line: block.b + line for block in matching_lines(base, theirs) for line in range(block.size)}
    clean, patches = True, []
    low = ours_low = 0
    for block in matching_lines(base, ours):
        if (low, ours_low) != (block.a, block.b):
            span = _span_in_theirs(kept, low, block.a, len(base), len(theirs))
            if span is None:
                clean = False
            else:
                patches.append((*span, ours[ours_low : block.b]))
        low, ours_low = block.a + block.size, block.b + block.size
    for first, end, lines in reversed(patches):
        theirs[first:end] = lines
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


def matching_lines(a: Sequence[bytes], b: Sequence[bytes]) -> list[Run]:
    """Return the runs of lines that both have in common, in order; last an empty run at the end of both.

    As many lines as can be, in time that grows with the number of differences (E. Myers, "An O(ND) Difference Algorithm
    and Its Variations", 1986); with very many differences, what fits between lines that both have once.
    """
    return [*(run for run in _matching(a, b, 0, 0) if run.size), Run(len(a), len(b), 0)]


def _matching(a: Sequence[bytes], b: Sequence[bytes], in_a: int, in_b: int) -> Iterator[Run]:
    """Yield the runs of two parts that begin at these lines of the whole."""
    start, shorter = 0, min(len(a), len(b))
    while start < shorter and a[start] == b[start]:
        start += 1
    same = 0
    while same < shorter - start and a[-1 - same] == b[-1 - same]:
        same += 1
    yield Run(in_a, in_b, start)
    inner_a, inner_b = a[start : len(a) - same], b[start : len(b) - same]
    runs = _shortest_edit(inner_a, inner_b)
    if runs is not None:
        yield from (Run(in_a + start + run.a, in_b + start + run.b, run.size) for run in runs)
    elif anchors := _common_singles(inner_a, inner_b):
        ends = [*anchors, Run(len(inner_a), len(inner_b), 0)]
        for low, high in itertools.pairwise([Run(0, 0, 0), *ends]):
            part_a, part_b = inner_a[low.a : high.a], inner_b[low.b : high.b]
            yield from _matching(part_a, part_b, in_a + start + low.a, in_b + start + low.b)
    yield Run(in_a + len(a) - same, in_b + len(b) - same, same)


def _shortest_edit(a: Sequence[bytes], b: Sequence[bytes]) -> list[Run] | None:
    """Return the runs that a shortest edit leaves; None where it has more than _MOST_DIFFERENCES lines."""
    # rows[d][i]: how far into a an edit of d lines comes on the diagonal 2 * i - d (a's offset minus b's).
    rows: list[list[int]] = []
    for differences in range(_MOST_DIFFERENCES + 1):
        row: list[int] = []
        for i in range(differences + 1):
            x = _step(rows[-1], i)[0] if rows else 0
            y = x - (2 * i - differences)
            while x < len(a) and y < len(b) and a[x] == b[y]:
                x, y = x + 1, y + 1
            row.append(x)
            if x >= len(a) and y >= len(b):
                return _runs([*rows, row], len(a), len(b))
        rows.append(row)
    return None


def _step(row: Sequence[int], i: int) -> tuple[int, int]:
    """Return where in a the diagonal i of the next row begins, and which diagonal of this row it comes from."""
    if i == 0 or (i < len(row) and row[i - 1] < row[i]):
        return row[i], i  # a line of b was inserted
    return row[i - 1] + 1, i - 1  # a line of a was deleted


def _runs(rows: Sequence[Sequence[int]], x: int, y: int) -> list[Run]:
    """Return the runs of the edit that led to the end of both, by going its way back."""
    runs = []
    for differences in range(len(rows) - 1, -1, -1):
        diagonal = x - y
        i = (diagonal + differences) // 2
        begin, origin = _step(rows[differences - 1], i) if differences else (0, 0)
        runs.append(Run(begin, begin - diagonal, x - begin))
        if differences:
            x = rows[differences - 1][origin]
            y = x - (2 * origin - (differences - 1))
    return runs[::-1]


def _common_singles(a: Sequence[bytes], b: Sequence[bytes]) -> list[Run]:
    """Return lines that both have exactly once, as many as stand in the same order in both (as in a patience diff)."""
    in_b = _singles(b)
    pairs = [Run(number, in_b[line], 1) for line, number in _singles(a).items() if line in in_b]
    # The longest run of pairs that rises in b, too: heads[k] ends the best one of k + 1 pairs, before[n] is the pair
    # before pair n in its own.
    ends: list[int] = []
    heads: list[int] = []
    before: list[int] = []
    for number, pair in enumerate(pairs):
        k = bisect.bisect(ends, pair.b)
        ends[k : k + 1], heads[k : k + 1] = [pair.b], [number]
        before.append(heads[k - 1] if k else -1)
    chosen, number = [], heads[-1] if heads else -1
    while number >= 0:
        chosen.append(pairs[number])
        number = before[number]
    return chosen[::-1]


def _singles(lines: Sequence[bytes]) -> dict[bytes, int]:
    """Return the lines that stand there once, with their places, in their order."""
    counts = Counter(lines)
    return {line: number for number, line in enumerate(lines) if counts[line] == 1}
