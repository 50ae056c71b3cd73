"""nginx's rules for words, comments, statements and blocks, one case table per rule."""

from __future__ import annotations

import pytest

from certbot_seafile import errors
from certbot_seafile.site import syntax


def words(source: bytes) -> list[list[bytes]]:
    """Return the words of every statement, in the order of the source."""
    return [[directive.name, *directive.arguments] for directive in syntax.walk(syntax.parse(source))]


def refusal(source: bytes) -> errors.SyntaxRefused:
    """Return the error that this source is refused with."""
    with pytest.raises(errors.SyntaxRefused) as caught:
        syntax.parse(source)
    return caught.value


READ_AS = {
    b"a": b"a",
    b"a}": b"a}",
    b"a#b": b"a#b",
    b"a\"b'c": b"a\"b'c",
    b")a": b")a",
    b"$a": b"$a",
    b"${a}": b"${a}",
    b"x${a}y": b"x${a}y",
    b"$${{a}": b"$${{a}",
    b"~^/(a|b)\\.php$": b"~^/(a|b)\\.php$",
    b"\xef\xbb\xbfa": b"\xef\xbb\xbfa",
    b"a\x00\x0b\x0cb": b"a\x00\x0b\x0cb",
    b"a\\ b": b"a\\ b",
    b"a\\;b": b"a\\;b",
    b"\\#a": b"\\#a",
    b"\\{a\\}": b"\\{a\\}",
    b"a\\\nb": b"a\\\nb",
    b"a\\tb\\rc\\nd": b"a\tb\rc\nd",
    b"a\\\\tb": b"a\\tb",
    b"\\\"a\\'": b"\"a'",
    b"\\d\\q": b"\\d\\q",
    b'""': b"",
    b"''": b"",
    b'"a b;{}#c"': b"a b;{}#c",
    b"'a \"b\"'": b'a "b"',
    b'"it\'s"': b"it's",
    b'"a\\"b"': b'a"b',
    b'"a\\\\"': b"a\\",
    b'"a\\ b\\d"': b"a\\ b\\d",
    b'"a\nb"': b"a\nb",
    b'"$"': b"$",
    b'"${"': b"${",
}


@pytest.mark.parametrize(("written", "read"), READ_AS.items())
@pytest.mark.parametrize("after", [b";", b" ;", b"\t\r\n;", b"\n{}", b" #c\n;"])
def test_word_is_read_as_nginx_reads_it(written: bytes, read: bytes, after: bytes) -> None:
    """Quotes go, six escapes are translated, every other byte stays, whatever ends the word."""
    source = b"name " + written + after
    (directive,) = syntax.parse(source)
    assert directive.arguments == (read,)
    assert source[directive.start : directive.sign].startswith(b"name " + written)


@pytest.mark.parametrize("quote", [b"", b'"', b"'"])
def test_six_escapes_are_translated_and_no_other(quote: bytes) -> None:
    """A backslash before any other byte stays, and so does that byte."""
    translated = {b'"': b'"', b"'": b"'", b"\\": b"\\", b"t": b"\t", b"r": b"\r", b"n": b"\n"}
    for byte in map(bytes, zip(range(256))):
        (directive,) = syntax.parse(b"a " + quote + b"x\\" + byte + b"y" + quote + b";")
        assert directive.arguments == (b"x" + translated.get(byte, b"\\" + byte) + b"y",)


SPLIT = {
    b"a'b'{}": [[b"a'b'"]],
    b"a$ {}": [[b"a$"]],
    b"a${};": [[b"a${}"]],
    b"a$\\{};": [[b"a$\\{}"]],
    b"a b c;": [[b"a", b"b", b"c"]],
    b"a;b;": [[b"a"], [b"b"]],
    b"a\tb\rc\nd;": [[b"a", b"b", b"c", b"d"]],
    b'if ($a = "b") {}': [[b"if", b"($a", b"=", b"b", b")"]],
    b'"a")b;': [[b"a", b")b"]],
    b"a #b;\n c;": [[b"a", b"c"]],
    b"a # one\r\n # two\n{ # three }\n}": [[b"a"]],
    b"a\n{\nb;\n}\n": [[b"a"], [b"b"]],
    b"a{b{c;}d;}e;": [[b"a"], [b"b"], [b"c"], [b"d"], [b"e"]],
    b"${a}{b}c;}": [[b"${a}"], [b"b}c"]],
    b"a};": [[b"a}"]],
    b"": [],
    b" \n#only a comment": [],
    b"server{listen 80;location /{return 301 https://$host$request_uri;}}": [
        [b"server"],
        [b"listen", b"80"],
        [b"location", b"/"],
        [b"return", b"301", b"https://$host$request_uri"],
    ],
}


@pytest.mark.parametrize(("source", "expected"), SPLIT.items())
def test_statements_are_split_where_nginx_splits_them(source: bytes, expected: list[list[bytes]]) -> None:
    """Space, ";" and "{" end a word; "}" and "#" count at the start of one only."""
    assert words(source) == expected


REFUSED = {
    b";": ('unexpected ";"', 1, 1),
    b"a;;": ('unexpected ";"', 1, 3),
    b"{}": ('unexpected "{"', 1, 1),
    b"a { { } }": ('unexpected "{"', 1, 5),
    b"a { ; }": ('unexpected ";"', 1, 5),
    b"}": ('unexpected "}"', 1, 1),
    b"a;\n }": ('unexpected "}"', 2, 2),
    b"a { b }": ('unexpected "}"', 1, 7),
    b"a {}}": ('unexpected "}"', 1, 5),
    b"a ${b}{c};": ('unexpected end of file, expecting "}"', 1, 11),
    b'"a"b;': ('unexpected "b"', 1, 4),
    b"a 'b''c';": ('unexpected "\'"', 1, 6),
    b'a "b"}': ('unexpected "}"', 1, 6),
    b'a "b"#c\n;': ('unexpected "#"', 1, 6),
    b'a "b"\xe9;': ('unexpected "\\xe9"', 1, 6),
    b"a": ('unexpected end of file, expecting ";"', 1, 2),
    b"a;\nb\n": ('unexpected end of file, expecting ";"', 3, 1),
    b"a # ;": ('unexpected end of file, expecting ";"', 1, 6),
    b"a \\": ('unexpected end of file, expecting ";"', 1, 4),
    b"\\": ('unexpected end of file, expecting ";"', 1, 2),
    b"a\\;": ('unexpected end of file, expecting ";"', 1, 4),
    b'a "b;\n': ("unexpected end of file, expecting the closing quote", 2, 1),
    b'"a"': ('unexpected end of file, expecting ";"', 1, 4),
    b"a 'b\\';": ("unexpected end of file, expecting the closing quote", 1, 8),
    b"a {": ('unexpected end of file, expecting "}"', 1, 4),
    b"a {\n b;\n": ('unexpected end of file, expecting "}"', 3, 1),
    b"a {b}": ('unexpected end of file, expecting ";"', 1, 6),
}


@pytest.mark.parametrize(("source", "expected"), REFUSED.items())
def test_refusal_has_the_reason_and_place_of_nginx(source: bytes, expected: tuple[str, int, int]) -> None:
    """The reason is nginx's, the place is where nginx stops."""
    refused = refusal(source)
    assert refused.reason.startswith(expected[0])
    assert (refused.line, refused.column, refused.path) == (*expected[1:], None)


def test_refusal_names_the_line_of_the_block_that_is_still_open() -> None:
    """At the end of the file a person needs to know which block it was."""
    assert refusal(b"a;\nb {\n c {\n }\n").reason.endswith("starts in line 2")


TOO_LONG = [
    (b"a ", b"b" * 4095, b";"),
    (b"a ", b"b" * 4094, b" ;"),
    (b'a "', b"b" * 4094, b'";'),
    (b'a "', b"b" * 4093, b'" ;'),
    (b"a '", b"b" * 4094, b"'{}"),
    (b"a '", b"b" * 4094, b"')c;"),
    (b"", b"#" * 4095, b"\n"),
    (b"a ", b"#" * 4095, b"\n;"),
    (b"a;", b"#" * 4095, b"\nb;"),
    (b"", b"#" * 4096, b""),
    (b"a ", b"\\." * 2047 + b"c", b";"),
]


@pytest.mark.parametrize(("before", "longest", "after"), TOO_LONG)
def test_word_that_outgrows_the_buffer_is_refused(before: bytes, longest: bytes, after: bytes) -> None:
    """nginx holds a word or comment and what ends it in 4096 bytes (NGX_CONF_BUFFER)."""
    assert len(syntax.parse(before + longest + after)) == (before + after).count(b";") + after.count(b"{")
    refused = refusal(before + longest + b"c" + after)
    assert refused.reason.startswith("too long parameter")
    assert (refused.line, refused.column) == (1, len(before) + 1)


def test_quote_that_never_closes_is_too_long_once_the_buffer_is_full() -> None:
    """nginx gives up 4096 bytes after the quote, long before the end of the file."""
    assert "expecting the closing quote" in refusal(b"a '" + b"b" * 4096).reason
    assert refusal(b"a '" + b"b" * 4097).reason.startswith("too long parameter")


def test_space_may_be_longer_than_the_buffer() -> None:
    """nginx keeps nothing of the space between words."""
    space = b" \n" * 5000
    assert words(space + b"a" + space + b"b" + space + b";" + space) == [[b"a", b"b"]]


def test_latin_1_bytes_pass_through() -> None:
    """Comments and words need not be UTF-8."""
    source = b"# gr\xfc\xdfe\nserver_name m\xfcnchen.example;"
    assert words(source) == [[b"server_name", b"m\xfcnchen.example"]]


def test_byte_order_mark_is_part_of_the_first_word() -> None:
    """nginx refuses it as an unknown directive, which is not a question of syntax."""
    assert words(b"\xef\xbb\xbfserver {}") == [[b"\xef\xbb\xbfserver"]]


def test_spans_of_statements_reach_from_the_name_to_the_sign_that_ends_them() -> None:
    """An editor cuts and comments out by these offsets."""
    source = b" a # c\n { b\n 'x' ; } d;"
    outer, last = syntax.parse(source)
    assert source[outer.start : outer.end] == b"a # c\n { b\n 'x' ; }"
    assert (outer.sign, outer.end - 1) == (source.index(b"{"), source.index(b"}"))
    assert outer.block is not None
    (inner,) = outer.block
    assert source[inner.start : inner.end] == b"b\n 'x' ;"
    assert (inner.block, inner.sign, source[inner.sign]) == (None, inner.end - 1, ord(";"))
    assert (source[last.start : last.end], last.name, last.arguments) == (b"d;", b"d", ())


def test_walk_yields_blocks_before_what_they_hold() -> None:
    """The order is that of the source, for a whole file and for one directive."""
    directives = syntax.parse(b"a{b{c;}d{}}e;")
    assert [directive.name for directive in syntax.walk(directives)] == [b"a", b"b", b"c", b"d", b"e"]
    assert [directive.name for directive in syntax.walk(directives[:1])] == [b"a", b"b", b"c", b"d"]
    assert directives[0].block is not None
    assert directives[0].block[1].block == ()


LUA_BODIES = [
    b"",
    b" ",
    b"a = {b = {}}",
    b"local a = '}'",
    b'local a = "}{"',
    b"a = '\\'}'",
    b'a = "\\\\" b = {}',
    b"-- }\n",
    b"-- it's\n a = {}",
    b"--[[ } \n } ]] a()",
    b"--[==[ ]] } ]==] a()",
    b"a = [[ } ]]",
    b"a = [=[ ]] } ]=]",
    b"a = b[c[1]]",
    b"--[ }\n",
    b"a = '#'; # b\n",
    b"say('a;b{')",
    b"local a = 'one\n{}",
    b"a = '--' .. {}",
    b'a = "\'" .. {} .. "\'"',
]


@pytest.mark.parametrize("body", LUA_BODIES)
def test_lua_is_handed_over_unread(body: bytes) -> None:
    """Braces in Lua's strings, long brackets and comments do not count."""
    source = b"location / { content_by_lua_block {" + body + b"} a; }"
    location, lua, after = syntax.walk(syntax.parse(source))
    assert (location.name, lua.name, lua.block, after.name) == (b"location", b"content_by_lua_block", (), b"a")
    assert source[lua.sign : lua.end] == b"{" + body + b"}"


@pytest.mark.parametrize("body", [b"", b"{}", b"'}'", b'"}"', b"--}", b"[[}", b"--[[}", b"[=[ ]] }", b"a {"])
def test_lua_that_does_not_end_is_refused(body: bytes) -> None:
    """The end of the file comes before the brace that would end the block."""
    assert refusal(b"\ninit_by_lua_block {" + body).reason.startswith('unexpected end of file, expecting "}"')


def test_lua_block_may_have_arguments() -> None:
    """set_by_lua_block names a variable before its block."""
    assert words(b"set_by_lua_block $a { return '}' } b;") == [[b"set_by_lua_block", b"$a"], [b"b"]]


def test_unpaired_quotes_in_lua_cost_linear_time() -> None:
    """A million quotes without a partner are looked at once; if every one were, this test would not end."""
    source = b"a_by_lua_block {" + b'"\\' * 1_000_000
    assert refusal(source).column == len(source) + 1


def test_nesting_may_be_deeper_than_the_stack() -> None:
    """Neither parsing, walking, repr() nor freeing recurses."""
    directives = syntax.parse(b"a{" * 10_000 + b"}" * 10_000)
    assert sum(1 for _ in syntax.walk(directives)) == 10_000
    assert (directives[0].start, directives[0].end) == (0, 30_000)
    assert len(repr(directives)) < 100


def test_work_grows_with_the_input_alone() -> None:
    """Twice the bytes give twice the words, ten megabytes ten times the statements of one."""
    site = b"server {\n    # " + b"how the site is reached " * 12 + b"\n    listen 80;\n    server_name 'a' b;\n}\n"
    once, megabyte = sum(map(len, words(site))), 1_000_000 // len(site)
    assert sum(map(len, words(site * 1000))) == 1000 * once
    assert sum(map(len, words(site * 2000))) == 2000 * once
    assert len(syntax.parse(site * megabyte * 10)) == 10 * megabyte


QUOTED = {
    b"a": b"a",
    b"/etc/ssl/cacert.pem": b"/etc/ssl/cacert.pem",
    b"^(/\\.well-known/acme-challenge/.*)$": b"^(/\\.well-known/acme-challenge/.*)$",
    b"https://$host$request_uri": b"https://$host$request_uri",
    b"": b'""',
    b"a b": b'"a b"',
    b"a;": b'"a;"',
    b"#a": b'"#a"',
    b"a#": b'"a#"',
    b"a}": b'"a}"',
    b"${a}": b'"${a}"',
    b'a"b': b'"a\\"b"',
    b"it's": b'"it\'s"',
    b"\\.txt": b"\\.txt",
    b"\\txt": b'"\\\\txt"',
    b"\\": b'"\\\\"',
    b"a\n": b'"a\n"',
    b"m\xfcnchen": b"m\xfcnchen",
}


@pytest.mark.parametrize(("word", "written"), QUOTED.items())
def test_word_is_quoted_only_where_it_must_be(word: bytes, written: bytes) -> None:
    """A word stands bare where neither nginx nor a person nor another tool can misread it."""
    assert syntax.quote(word) == written
    assert words(b"a " + written + b";") == [[b"a", word]]
