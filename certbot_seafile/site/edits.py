"""Edits to a file's bytes: text goes in, nothing comes out.

The law: an edit is an insertion at a byte offset, and commenting a directive out is inserting "#" (and, where other
directives share its line, a line end). So every byte that was there stays there, in its order, and taking the
insertions out again gives the old file. Indentation and line ends follow what stands around. Pure.
"""

from __future__ import annotations

import bisect
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from certbot_seafile.site.config import Statement

_BLANK = b" \t"

# What stands first where several insertions meet at one offset: the line end behind a directive that was commented
# out, then new text, then the "#" of the directive that follows.
_CLOSING, _TEXT, _HASH = range(3)

# About how many pairs of equal lines are looked at, where lines are repeated.
_MOST_PAIRS = 400_000

# A line of one file, the same line of the other, and the pairs before.
_Chain = tuple[int, int, "_Chain | None"]


@dataclass
class Edits:
    """The insertions that are planned, by file; texts at one offset keep the order in which they came.

    names: for whom; all others are to be answered as before. earlier: edits that go before, so that these are to what
    those made of the files. verdict: what site/proof.py says of them.
    """

    names: tuple[str, ...] = ()
    earlier: Edits | None = None
    verdict: object = None
    _sources: dict[str, bytes] = field(default_factory=dict)
    _inserted: dict[str, list[tuple[int, int, bytes]]] = field(default_factory=dict)
    _commented: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.paths)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files that would change."""
        return tuple(dict.fromkeys((*(self.earlier.paths if self.earlier else ()), *self._inserted)))

    def before(self, path: str) -> bytes:
        """Return the file's bytes as they were read."""
        if self.earlier and path in self.earlier.paths:
            return self.earlier.before(path)
        return self._sources[path]

    def after(self, path: str) -> bytes:
        """Return the file's bytes with the insertions."""
        if self.earlier and path not in self._inserted:
            return self.earlier.after(path)
        source, parts, at = self._sources[path], [], 0
        for offset, _, text in sorted(self._inserted[path], key=lambda insertion: insertion[:2]):
            parts += [source[at:offset], text]
            at = offset
        return b"".join([*parts, source[at:]])

    def _insert(self, statement: Statement, offset: int, text: bytes, rank: int = _TEXT) -> None:
        """Insert text at the offset in the statement's file; rank orders what meets there."""
        self._sources.setdefault(statement.path, statement.directive.source)
        self._inserted.setdefault(statement.path, []).append((offset, rank, text))

    def insert_before(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines above the statement, at its indentation; beside it where it shares its line."""
        line = _line_of(statement)
        if line.is_begun_by_others:
            self._insert(statement, statement.directive.start, b"".join(text.strip() + b" " for text in lines))
        else:
            self._insert(statement, line.start, _joined(lines, line.indentation, line.ending))

    def insert_after(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines below the statement's last line, indented as it is; beside it where others follow there."""
        line = _line_of(statement)
        text = _joined(lines, line.indentation, line.ending)
        if line.is_ended_by_others:
            self._insert(statement, statement.directive.end, b"".join(b" " + text.strip() for text in lines))
        elif statement.directive.source.find(b"\n", statement.directive.end) < 0:
            self._insert(statement, line.end, line.ending + text.removesuffix(line.ending))
        else:
            self._insert(statement, line.end, text)

    def insert_at_end(self, block: Statement, lines: Sequence[bytes]) -> None:
        """Insert the lines as the last ones of the block, at the indentation of its statements."""
        source, close = block.directive.source, block.directive.end - 1
        start = source.rfind(b"\n", 0, close) + 1
        if source[start:close].strip(_BLANK):
            self._insert(block, close, b"".join(line.strip() + b" " for line in lines))
        else:
            self._insert(block, start, _joined(lines, _inner_indentation(block), _line_of(block).ending))

    def insert_block(self, statement: Statement, text: bytes) -> None:
        """Insert text, of some lines that are indented already, behind the statement and an empty line."""
        ending = _line_of(statement).ending
        self._insert(statement, statement.directive.end, ending + ending + text)

    def comment_out(self, statement: Statement) -> None:
        """Make a comment of the statement's lines, and of nothing else. A second call for the same one does nothing."""
        start, line = statement.directive.start, _line_of(statement)
        if (statement.path, start) in self._commented:
            return
        self._commented.add((statement.path, start))
        if line.is_begun_by_others:
            self._insert(statement, start, line.ending + b"#", _HASH)
        else:
            self._insert(statement, line.start, b"#", _HASH)
        for feed in re.finditer(b"\n", statement.written):
            self._insert(statement, start + feed.end(), b"#", _HASH)
        if line.is_ended_by_others:
            self._insert(statement, statement.directive.end, line.ending, _CLOSING)

    def replace(self, statement: Statement, lines: Sequence[bytes]) -> None:
        """Comment the statement out and let the lines stand in its place; not where that was planned already."""
        if (statement.path, statement.directive.start) in self._commented:
            return
        line = _line_of(statement)
        if line.is_begun_by_others or line.is_ended_by_others:
            self.insert_before(statement, lines)
        else:
            self.insert_after(statement, lines)
        self.comment_out(statement)


def _joined(lines: Iterable[bytes], indentation: bytes, ending: bytes) -> bytes:
    return b"".join((indentation + line if line else b"") + ending for line in lines)


class _Line(NamedTuple):
    """The line, or the lines, on which a statement stands.

    start and end: the offsets of its first byte, and behind its last one; indentation: its blanks; ending: CRLF or LF,
    as the file's first line has it.
    """

    start: int
    end: int
    indentation: bytes
    is_begun_by_others: bool
    is_ended_by_others: bool
    ending: bytes


def _line_of(statement: Statement) -> _Line:
    directive, source = statement.directive, statement.directive.source
    start = source.rfind(b"\n", 0, directive.start) + 1
    end = source.find(b"\n", directive.end) + 1 or len(source)
    before, behind = source[start : directive.start], source[directive.end : end].strip()
    indentation = before[: len(before) - len(before.lstrip(_BLANK))]
    is_ended_by_others = behind[:1] not in (b"", b"#")
    ending = b"\r\n" if source.partition(b"\n")[0].endswith(b"\r") else b"\n"
    return _Line(start, end, indentation, bool(before.strip(_BLANK)), is_ended_by_others, ending)


def _inner_indentation(block: Statement) -> bytes:
    """Return the indentation of the block's statements; four blanks more than the block's own where it has none."""
    lines = (_line_of(child) for child in block.children if child.path == block.path)
    return next(
        (line.indentation for line in lines if not line.is_begun_by_others), _line_of(block).indentation + b"    "
    )


def indentation_step(block: Statement) -> bytes:
    """Return what the block's statements are indented by beyond the block itself."""
    outer, inner = _line_of(block).indentation, _inner_indentation(block)
    return inner.removeprefix(outer) if inner.startswith(outer) and inner != outer else b"    "


def take_out(before: bytes, after: bytes, now: bytes) -> tuple[bytes, bool]:
    """Return `now` without the edits that led from before to after, and whether each of them could be taken out.

    Where now is after (or before: nothing was written yet), this is before, byte for byte. Else a person has edited
    meanwhile: their lines stay, ours go (a three-way merge by lines, after being the ancestor); a place that both
    changed stays as the person has it.
    """
    if now in (after, before):
        return before, True
    base, ours, theirs = (content.splitlines(keepends=True) for content in (after, before, now))
    kept = {len(base): len(theirs)} | matching_lines(base, theirs)
    is_clean, patches = True, []
    low = ours_low = 0
    for high, ours_high in [*matching_lines(base, ours).items(), (len(base), len(ours))]:
        if (low, ours_low) != (high, ours_high):
            # The changed lines must stand in theirs untouched and together; a pure insertion needs its neighbour.
            first = kept.get(low)
            if first is None or any(kept.get(line) != first + line - low for line in range(low, high)):
                is_clean = False
            else:
                patches.append((first, first + high - low, ours[ours_low:ours_high]))
        low, ours_low = high + 1, ours_high + 1
    for first, end, lines in reversed(patches):
        theirs[first:end] = lines
    return b"".join(theirs), is_clean


def left_lines(before: bytes, after: bytes, now: bytes, expected: bytes) -> list[int]:
    """Return which lines of `now`, numbered from 1, are those by which before became after.

    None that is there no more often than in `expected`, the file without us.
    """
    base, old, new = (content.splitlines(keepends=True) for content in (after, before, now))
    kept, not_ours = matching_lines(base, new), matching_lines(base, old)
    more = Counter(new) - Counter(expected.splitlines(keepends=True))
    ours = [line for line in kept if line not in not_ours and base[line] in more and re.search(rb"\w", base[line])]
    return [kept[line] + 1 for line in ours]


def matching_lines(a: Sequence[bytes], b: Sequence[bytes]) -> dict[int, int]:
    """Return which line of a is which line of b, by their numbers; both rise.

    As many lines as can be: the longest chain of pairs that rises in both (J. Hunt and T. Szymanski, "A Fast Algorithm
    for Computing Longest Common Subsequences", 1977). In long files, repeated lines are paired with near ones only.
    """
    start = _common(a, b)
    end = _common(a[start:][::-1], b[start:][::-1])
    near = 1 + _MOST_PAIRS // (2 * len(a) + 1)
    places: dict[bytes, list[int]] = defaultdict(list)
    for place in range(start, len(b) - end):
        places[b[place]].append(place)
    seen: Counter[bytes] = Counter()
    # ends[k] is where in b the best chain of k + 1 pairs ends; chains[k] is that chain.
    ends: list[int] = []
    chains: list[_Chain] = []
    for number in range(start, len(a) - end):
        line, nth = a[number], seen[a[number]]
        seen[line] += 1
        for place in reversed(places.get(line, ())[max(0, nth - near) : nth + near]):
            k = bisect.bisect_left(ends, place)
            ends[k : k + 1] = [place]
            chains[k : k + 1] = [(number, place, chains[k - 1] if k else None)]
    pairs, chain = [], chains[-1] if chains else None
    while chain:
        pairs.append(chain[:2])
        chain = chain[2]
    tail = zip(range(len(a) - end, len(a)), range(len(b) - end, len(b)), strict=True)
    return dict([*zip(range(start), range(start), strict=True), *reversed(pairs), *tail])


def _common(a: Sequence[bytes], b: Sequence[bytes]) -> int:
    """Return how many lines the two have in common at their start."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
