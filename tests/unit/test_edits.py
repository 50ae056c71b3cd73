"""Insertions and commented-out lines, byte by byte."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certbot_seafile.site import config, edits, syntax


def statements(source: bytes, path: str = "site.conf") -> tuple[config.Statement, ...]:
    """Return the statements of one file without includes."""

    def expand(directives: tuple[syntax.Directive, ...]) -> tuple[config.Statement, ...]:
        return tuple(config.Statement(path, found, expand(found.block or ())) for found in directives)

    return expand(syntax.parse(source))


COMMENTED = {
    "a line of its own": (b"  a 1;\n  b 2;\n", b"#  a 1;\n  b 2;\n"),
    "with a comment behind": (b"\ta 1;   # why\nb 2;\n", b"#\ta 1;   # why\nb 2;\n"),
    "several lines": (b"  a\n    1\n    2; # x\nb;\n", b"#  a\n#    1\n#    2; # x\nb;\n"),
    "first of two on a line": (b"  a 1; b 2;\n", b"#  a 1;\n b 2;\n"),
    "CRLF": (b"  a 1;\r\n  b 2;\r\n", b"#  a 1;\r\n  b 2;\r\n"),
    "CRLF, first of two": (b"a 1; b 2;\r\n", b"#a 1;\r\n b 2;\r\n"),
    "no final newline": (b"a 1;", b"#a 1;"),
    "a string over two lines": (b'a "x\ny";\nb;\n', b'#a "x\n#y";\nb;\n'),
}


@pytest.mark.parametrize(("source", "expected"), COMMENTED.values(), ids=COMMENTED)
def test_commenting_out_touches_the_directive_only(source: bytes, expected: bytes) -> None:
    """A commented-out directive leaves every other statement as nginx read it before."""
    planned = edits.Edits()
    planned.comment_out(statements(source)[0])
    assert planned.after("site.conf") == expected
    assert [one.name for one in statements(expected)] == [one.name for one in statements(source)[1:]]


def test_the_second_of_two_on_a_line_is_commented_out_alone() -> None:
    """What stands before and behind it on the line stays in force."""
    source = b"s { a 1; b 2; c 3; }\n"
    planned = edits.Edits()
    planned.comment_out(statements(source)[0].children[1])
    after = planned.after("site.conf")
    assert after == b"s { a 1; \n#b 2;\n c 3; }\n"
    assert [one.name for one in statements(after)[0].children] == [b"a", b"c"]


def test_text_beside_a_commented_line_stays_in_force() -> None:
    """A line that is inserted just above a commented-out one does not become part of the comment."""
    source = b"s {\n  a 1;\n  b 2;\n}\n"
    children = statements(source)[0].children
    planned = edits.Edits()
    planned.comment_out(children[1])
    planned.insert_after(children[0], [b"n 3;"])
    assert planned.after("site.conf") == b"s {\n  a 1;\n  n 3;\n#  b 2;\n}\n"


REPLACED = {
    "lines": (b"s {\n\ta 1;\n\tb 2;\n}\n", b"s {\n#\ta 1;\n\tn 3;\n\tb 2;\n}\n"),
    "one line": (b"s { a 1; b 2; }", b"s { n 3; \n#a 1;\n b 2; }"),
    "CRLF": (b"s {\r\n  a 1;\r\n}\r\n", b"s {\r\n#  a 1;\r\n  n 3;\r\n}\r\n"),
    "first of two": (b"s {\n  a 1; b 2;\n}\n", b"s {\n  n 3;\n#  a 1;\n b 2;\n}\n"),
}


@pytest.mark.parametrize(("source", "expected"), REPLACED.values(), ids=REPLACED)
def test_a_replacement_stands_where_the_old_directive_stood(source: bytes, expected: bytes) -> None:
    """The new line has the old one's indentation and line end."""
    planned = edits.Edits()
    planned.replace(statements(source)[0].children[0], [b"n 3;"])
    assert planned.after("site.conf") == expected


def test_lines_after_the_last_directive_without_newline() -> None:
    """A file without a final newline still has none afterwards."""
    planned = edits.Edits()
    planned.insert_after(statements(b"a 1;")[0], [b"n 3;"])
    assert planned.after("site.conf") == b"a 1;\nn 3;"


def test_a_block_on_one_line_takes_insertions_at_its_end() -> None:
    """Where a block has one line, what is inserted stays on it."""
    planned = edits.Edits()
    planned.insert_at_end(statements(b"s { a 1; }")[0], [b"n {", b"  x;", b"}"])
    assert planned.after("site.conf") == b"s { a 1; n { x; } }"


BEFORE = b"server {\n    a 1;\n    b 2;\n    c 3;\n}\n"
AFTER = b"server {\n    a 1;\n#    b 2;\n    n 9;\n    c 3;\n}\n"


def test_taking_out_from_an_untouched_file_gives_the_old_bytes() -> None:
    """Where nobody else edited, the file is byte for byte what it was."""
    assert edits.take_out(BEFORE, AFTER, AFTER) == (BEFORE, True)


def test_taking_out_keeps_what_a_person_wrote_since() -> None:
    """A person's own lines stay; ours go, and what we commented out is back."""
    theirs = AFTER.replace(b"    c 3;\n", b"    c 4;\n    d 5;\n")
    expected = BEFORE.replace(b"    c 3;\n", b"    c 4;\n    d 5;\n")
    assert edits.take_out(BEFORE, AFTER, theirs) == (expected, True)


def test_taking_out_leaves_a_line_that_both_changed() -> None:
    """A line of ours that a person changed stays as they have it, and that is told."""
    theirs = AFTER.replace(b"n 9;", b"n 8;")
    now, clean = edits.take_out(BEFORE, AFTER, theirs)
    assert not clean
    assert b"n 8;" in now


def test_no_line_is_ours_that_stood_there_before() -> None:
    """Where a person's lines are among those that we inserted, too, none of those is named."""
    before = b"server {\n    listen 80;\n    a 1;\n}\n"
    after = before + b"server {\n    listen 80;\n    ours 1;\n    a 1;\n}\n"
    assert edits.left_lines(before, after, before, before) == []
    theirs = before.replace(b"a 1;", b"ours 1;\n    a 1;")
    assert edits.left_lines(before, after, theirs, before) == [3]


LARGE = [b"server {\n", *(b"    deny 10.0.%d.%d;\n" % divmod(number, 256) for number in range(20_000)), b"}\n"]
REPEATED = [b"server {\n", *[b"    allow 10.0.0.1;\n"] * 20_000, b"}\n"]


@pytest.mark.parametrize("lines", [LARGE, REPEATED], ids=["all different", "all the same"])
def test_taking_out_of_a_large_site_that_its_owner_edited(lines: list[bytes]) -> None:
    """Twenty thousand lines, edits of ours at both ends, changes of the owner between them."""
    ours = [*lines[:50], b"    n 1;\n", *lines[50:-50], b"#" + lines[-50], b"    n 2;\n", *lines[-49:]]
    theirs = [
        *ours[:9_000],
        b"    mine 1;\n",
        *ours[9_001:12_000],
        *ours[12_001:15_000],
        b"    mine 2;\n",
        *ours[15_000:],
    ]
    expected = [
        *lines[:8_999], b"    mine 1;\n", *lines[9_000:11_999], *lines[12_000:14_999], b"    mine 2;\n", *lines[14_999:]
    ]  # fmt: skip
    taken_out, clean = edits.take_out(*(b"".join(part) for part in (lines, ours, theirs)))
    assert clean
    assert taken_out == b"".join(expected)


def test_taking_out_where_most_lines_were_changed() -> None:
    """More changes than are looked for one by one: the owner's lines stay, and ours go."""
    ours = [*LARGE[:50], b"    n 1;\n", *LARGE[50:]]
    theirs = [b"    mine;\n" if number % 3 == 0 else line for number, line in enumerate(ours)]
    taken_out, clean = edits.take_out(*(b"".join(part) for part in (LARGE, ours, theirs)))
    assert clean
    assert b"n 1;" not in taken_out
    assert taken_out.count(b"mine;") == theirs.count(b"    mine;\n")


def longest_common(a: list[bytes], b: list[bytes]) -> int:
    """Return how many lines a longest common subsequence has, by the table of the textbooks."""
    row = [0] * (len(b) + 1)
    for line in a:
        above, row = row, [0]
        for j, other in enumerate(b):
            row.append(above[j] + 1 if line == other else max(row[-1], above[j + 1]))
    return row[-1]


FEW_LINES = st.lists(st.sampled_from([b"a\n", b"b\n", b"c\n"]), max_size=12)


@given(FEW_LINES, FEW_LINES)
@settings(deadline=None)
def test_as_many_lines_match_as_can(a: list[bytes], b: list[bytes]) -> None:
    """The pairs are in order, the same on both sides, and no more are possible."""
    pairs = edits.matching_lines(a, b)
    assert all(a[number] == b[place] for number, place in pairs.items())
    for numbers in (list(pairs), list(pairs.values())):
        assert all(x < y for x, y in itertools.pairwise(numbers))
    assert len(pairs) == longest_common(a, b)


@given(st.integers(min_value=0))
@settings(deadline=None)
def test_taking_out_keeps_every_line_of_the_owner_and_none_of_ours(seed: int) -> None:
    """Whatever lines an owner adds, changes or removes: theirs stay in order; where nothing clashes, ours are gone.

    None of theirs is named as left.
    """
    rng = random.Random(seed)
    before = [b"    %s;\n" % rng.choice([b"a", b"b", b"c"]) for _ in range(rng.randint(1, 30))]
    after: list[bytes] = []
    for line in before:
        how = rng.random()
        after += [b"    ours %d;\n" % rng.randrange(9), line] if how < 0.1 else [b"#" + line if how > 0.9 else line]
    now: list[bytes] = []
    for number, line in enumerate(after):
        how = rng.random()
        now += [b"    mine %d;\n" % number, line] if how < 0.1 else [] if how > 0.95 else [line]
    old, ours = b"".join(before), b"".join(after)
    taken_out, clean = edits.take_out(old, ours, b"".join(now))
    mine, lines = [line for line in now if b"mine" in line], taken_out.splitlines(keepends=True)
    assert [line for line in lines if b"mine" in line] == mine
    named = [lines[number - 1] for number in edits.left_lines(old, ours, taken_out, old)]
    assert all(b"ours" in line or b"#" in line for line in named)
    if clean:
        assert b"ours" not in taken_out
        assert b"#" not in taken_out
