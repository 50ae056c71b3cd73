"""Insertions and commented-out lines, byte by byte."""

from __future__ import annotations

import pytest

from certbot_seafile.site import edits, model, syntax


def statements(source: bytes, path: str = "site.conf") -> tuple[model.Statement, ...]:
    """Return the statements of one file without includes."""

    def expand(directives: tuple[syntax.Directive, ...]) -> tuple[model.Statement, ...]:
        return tuple(
            model.Statement(path, source, found, None if found.block is None else expand(found.block))
            for found in directives
        )

    return expand(syntax.parse(source).directives)


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
    planned.comment_out((statements(source)[0].children or ())[1])
    after = planned.after("site.conf")
    assert after == b"s { a 1; \n#b 2;\n c 3; }\n"
    assert [one.name for one in statements(after)[0].children or ()] == [b"a", b"c"]


def test_text_beside_a_commented_line_stays_in_force() -> None:
    """A line that is inserted just above a commented-out one does not become part of the comment."""
    source = b"s {\n  a 1;\n  b 2;\n}\n"
    children = statements(source)[0].children or ()
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
    planned.replace((statements(source)[0].children or ())[0], [b"n 3;"])
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
