"""nginx's configuration syntax: bytes in, statements with byte spans out.

The law: statements, and space and comments between them, make up the source, byte for byte, and a file is refused
exactly where nginx's own reader, ngx_conf_read_token() and ngx_conf_parse() in src/core/ngx_conf_file.c, stops with a
syntax error. What a directive means is not known here, except that a block whose name ends in "_by_lua_block"
holds Lua. No I/O, no recursion: time and memory grow with the number of bytes, however deep the blocks are nested.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from certbot_seafile import errors

# NGX_CONF_BUFFER: nginx cannot look at more bytes of one word or comment than this.
_BUFFER = 4096

# No group below is repeated possessively, because Python before 3.11.5 gets that wrong (CPython issue 106052), and none
# needs to be: whatever is given back, the rest cannot be read in a second way, so nothing is tried twice. After a
# closing quote nginx insists on space, ";", "{" or, for the sake of "if", ")".
_BARE = rb"""(?:[^ \t\r\n;{}#"'\\$]|\\.|\${*+)(?:[^ \t\r\n;{\\$]++|\\.|\${*+)*"""
_QUOTED = rb""""(?:[^"\\]++|\\.)*"|'(?:[^'\\]++|\\.)*'"""
_WORD = rb"(?:" + _BARE + rb"(?=[ \t\r\n;{]|\Z)|(?:" + _QUOTED + rb")(?=[ \t\r\n;{)]|\Z))"
_GAP = rb"(?:[ \t\r\n]++|\#[^\n]*+){0,63}"
_MORE = _GAP + rb"(?:" + _WORD + _GAP + rb"){0,63}"
# One step of the reader: a whole statement as a rule, with its first word (1) and the sign that ends it (2); where many
# words or comments follow each other, some of them, so that the memory for a step has a bound.
_STEP = re.compile(_GAP + rb"(?:(" + _WORD + rb")" + _MORE + rb")?([;{}])?", re.DOTALL)
_BARE_WORD = re.compile(_BARE, re.DOTALL)
_QUOTED_WORD = re.compile(_QUOTED, re.DOTALL)
# A comment, or a word (1): in what is known to be sound, nothing between them begins as either.
_TOKEN = re.compile(rb"\#[^\n]*+|(" + _WORD + rb")", re.DOTALL)
# Where a statement has none of these, its words are what bytes.split() gives.
_NOT_PLAIN = re.compile(rb"""["'#\\\v\f]""")
_ESCAPE = re.compile(rb"""\\(["'\\trn])""")
_ESCAPED = {b"t": b"\t", b"r": b"\r", b"n": b"\n"}
# What other readers of such files take for syntax, although nginx does not.
_MISREAD = re.compile(rb"""["'#;{}]""")

_LUA_BLOCK = b"_by_lua_block"
# The tokens that OpenResty's lexer looks for in Lua (util/gen-lexer-c of lua-nginx-module); all else is skipped.
_LUA_TOKEN = re.compile(rb"""[{}"']|(?:--)?\[(=*+)\[|--[^\n]*+""")
_LUA_STRING = re.compile(rb"""(["'])(?:\\[^\n]|(?!\1)[^\n\\])*(\1?)""")


@dataclass(eq=False, repr=False, slots=True)
class Directive:
    """A statement: its name, and its block where it has one; equal only to itself, and never changed.

    start is the offset of the first word, sign that of the ";" or "{" that ends its words, end the offset just past ";"
    or "}". The block of a Lua directive is empty. Words are taken apart when they are asked for: most statements of a
    large file nobody asks about.
    """

    source: bytes
    name: bytes
    start: int
    sign: int
    end: int
    block: tuple[Directive, ...] | None = None
    _arguments: tuple[bytes, ...] | None = None

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """Return the words after the name as nginx reads them."""
        if self._arguments is None:
            written = self.source[self.start : self.sign]
            is_plain = _NOT_PLAIN.search(written) is None
            tokens = _TOKEN.finditer(self.source, self.start, self.sign)
            words = written.split() if is_plain else (_value(token[1]) for token in tokens if token[1])
            self._arguments = tuple(words)[1:]
        return self._arguments


def parse(source: bytes) -> tuple[Directive, ...]:
    """Return the statements of a whole configuration file, or of the whole of an included one.

    Raises errors.SyntaxRefused, with the reason in nginx's words and the line that nginx names.
    """
    reader = _Reader(source)
    _refuse_rest(reader, reader.read(_STEP))
    return tuple(reader.siblings)


# What skim() looks for: where such a statement may begin, and how to come to the next of them.
Wanted = tuple[re.Pattern[bytes], re.Pattern[bytes]]


def wanted(names: Sequence[bytes], beginnings: Sequence[bytes] = ()) -> Wanted:
    """Return what skim() looks for: includes, statements with one of these names, or whose name begins so."""
    named = rb"[\"']?(?:%s)[\"' \t\r\n;{]"
    shapes = [b"include", *map(re.escape, names), *(re.escape(beginning) + rb"\w*" for beginning in beginnings)]
    lua = rb"|[^ \t\r\n;{\"']*+(?<=%s)" % _LUA_BLOCK
    other = rb"(?!" + named % (b"|".join(shapes) + lua) + rb")" + _WORD + _MORE
    no_include = rb"(?!" + named % (b"include" + lua) + rb")" + _WORD + _MORE
    flat = rb"\{(?:" + _GAP + no_include + rb";){0,63}" + _GAP + rb"\}"
    passed = rb"(?:" + _GAP + other + rb"(?:;|" + flat + rb")){0,63}"
    beginning = rb"(?:\A|[\n;{}])[ \t\r]*+" + named % b"|".join(shapes)
    return re.compile(beginning), re.compile(passed + _STEP.pattern, re.DOTALL)


def skim(source: bytes, wanted: Wanted) -> tuple[tuple[Directive, ...], bool]:
    """Read of a file only what is wanted, fast, and tell whether that went to the end of a sound file.

    What is left out: other statements, and other blocks in which stands neither a block nor an include; never all of
    them. In a file that is not sound, what stands before the fault is read, and open blocks end with the file.
    """
    beginning, step = wanted
    if not beginning.search(source):
        return (), True
    reader = _Reader(source)
    try:
        is_sound = reader.read(step) == len(source) and reader.begun is None and not reader.blocks
    except errors.SyntaxRefused:
        is_sound = False
    while reader.blocks:
        reader.close(len(source))
    return tuple(reader.siblings), is_sound


def quote(word: bytes) -> bytes:
    """Return how to write a word so that nginx reads exactly these bytes: bare where nobody can misread it.

    Put space before a "{" that follows: nginx takes "${" for part of the word. It cannot read a word longer
    than its buffer (4096 bytes) at all; parse() refuses such a file.
    """
    if _BARE_WORD.fullmatch(word) and _ESCAPE.search(word) is None and _MISREAD.search(word) is None:
        return word
    return b'"' + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def place(source: bytes, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of an offset."""
    return source.count(b"\n", 0, offset) + 1, offset - source.rfind(b"\n", 0, offset)


class _Reader:
    """What has been read so far: ngx_conf_parse() without its recursion.

    begun: the offset of words without a sign at the end. siblings: the finished statements of the innermost block.
    blocks: each open one, with the finished statements around it.
    """

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.begun: int | None = None
        self.siblings: list[Directive] = []
        self.blocks: list[tuple[Directive, list[Directive]]] = []

    def read(self, pattern: re.Pattern[bytes]) -> int:
        """Read step by step as far as that goes; return the offset of what is left."""
        source, position, name, start, match = self.source, 0, None, 0, pattern.match
        while (step := match(source, position)) and (end := step.end()) > position:
            if end - position > _BUFFER and pattern is _STEP:
                _check_sizes(source, position, end)
            position = end
            word, sign = step.groups()
            if word is not None and name is None:
                name, start = _value(word), step.start(1)
            if sign == b";" and name is not None:
                self.siblings.append(Directive(source, name, start, end - 1, end))
                name = None
            elif sign == b"{" and name is not None:
                position = self._open(Directive(source, name, start, end - 1, end))
                name = None
            elif sign == b"}" and name is None and self.blocks:
                self.close(end)
            elif sign is not None:
                _refuse(source, end - 1, f'unexpected "{chr(source[end - 1])}"')
        self.begun = None if name is None else start
        return position

    def _open(self, directive: Directive) -> int:
        self.blocks.append((directive, self.siblings))
        self.siblings = []
        return _lua_end(self.source, directive.sign) if directive.name.endswith(_LUA_BLOCK) else directive.end

    def close(self, end: int) -> None:
        """Finish the innermost block, which ends before this offset."""
        directive, siblings = self.blocks.pop()
        directive.block, directive.end = tuple(self.siblings), end
        siblings.append(directive)
        self.siblings = siblings


def _value(word: bytes) -> bytes:
    """Return what nginx makes of a word: without its quotes, escapes translated."""
    if word[0] in b"\"'":
        word = word[1:-1]
    return _ESCAPE.sub(lambda escape: _ESCAPED.get(escape[1], escape[1]), word) if b"\\" in word else word


def walk(directives: Iterable[Directive]) -> Iterator[Directive]:
    """Yield the directives and everything below them, blocks before what they hold, in the order of the source."""
    pending = [*directives][::-1]
    while pending:
        directive = pending.pop()
        yield directive
        pending.extend(reversed(directive.block or ()))


def _lua_end(source: bytes, opened: int) -> int:
    """Return the offset of the "}" that ends the Lua code of the block opened at this offset."""
    depth, position = 1, opened + 1
    # By quote, up to where none has a partner in its line: to look again would cost square time.
    unpaired: dict[bytes, int] = {}
    while depth and (token := _LUA_TOKEN.search(source, position)):
        start, position = token.span()
        if token[1] is not None:
            position = source.find(b"]" + token[1] + b"]", position)
            if position < 0:
                break
        elif token[0] in (b"{", b"}"):
            depth += 1 if token[0] == b"{" else -1
        elif start >= unpaired.get(token[0], 0) and (string := _LUA_STRING.match(source, start)):
            if string[2]:
                position = string.end()
            else:
                unpaired[token[0]] = string.end()
    if depth:
        _refuse_end(source, '"}"', opened)
    return position - 1


def _check_sizes(source: bytes, start: int, end: int) -> None:
    """Refuse a word or a comment between these offsets that does not fit nginx's buffer with what ends it.

    nginx keeps a word there while it looks at the byte that follows, and, where that is space, at the next one too.
    """
    for token in _TOKEN.finditer(source, start, end):
        first, last = token.span()
        is_word = token[1] is not None
        is_quoted, has_space = source[first] in b"\"'", source[last : last + 1] in b" \t\r\n"
        _check_fit(source, first + is_quoted, last + (is_word and has_space))


def _check_fit(source: bytes, first: int, last: int) -> None:
    if min(last, len(source) - 1) - first >= _BUFFER:
        _refuse(source, first, "too long parameter or comment, nginx reads at most 4096 bytes of one")


def _refuse_rest(reader: _Reader, end: int) -> None:
    """Refuse what is left from this offset on, unless a whole file ends there."""
    source = reader.source
    if source[end : end + 1] in (b'"', b"'"):
        word = _QUOTED_WORD.match(source, end)
        _check_fit(source, end + 1, word.end() if word else len(source))
        if word:
            _refuse(source, word.end(), f'unexpected "{ascii(chr(source[word.end()]))[1:-1]}"')
        _refuse_end(source, "the closing quote", end)
    if end < len(source) or reader.begun is not None:
        _refuse_end(source, '";" or "}"', end if reader.begun is None else reader.begun)
    if reader.blocks:
        _refuse_end(source, '"}"', reader.blocks[-1][0].sign)


def _refuse_end(source: bytes, expected: str, opened: int) -> NoReturn:
    line, _ = place(source, opened)
    _refuse(source, len(source), f"unexpected end of file, expecting {expected} for what starts in line {line}")


def _refuse(source: bytes, offset: int, reason: str) -> NoReturn:
    raise errors.SyntaxRefused(reason, *place(source, offset))
