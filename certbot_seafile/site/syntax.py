"""nginx's configuration syntax: bytes in, statements with byte spans out.

The law of this module: the spans of the tokens tile the source, so printing a tree is the identity by
construction, and a file is refused exactly where nginx's own reader, ngx_conf_read_token() and
ngx_conf_parse() in src/core/ngx_conf_file.c, stops with a syntax error. What a directive means is not known
here; the one exception are blocks whose name ends in "_by_lua_block", because their body is Lua and is handed
over unread. No I/O, no recursion: time and memory grow with the number of bytes, however deep the blocks are
nested.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, NoReturn

from certbot_seafile import errors

# NGX_CONF_BUFFER: nginx cannot look at more bytes of one word or comment than this.
_BUFFER = 4096

# No group below is repeated possessively, because Python before 3.11.5 gets that wrong (CPython issue 106052), and none
# needs to be: an item that is given back begins with a byte that nothing else here can begin with.
_BARE = rb"""(?:[^ \t\r\n;{}#"'\\$]|\\.|\${*+)(?:[^ \t\r\n;{\\$]++|\\.|\${*+)*"""
_QUOTED = rb""""(?:[^"\\]++|\\.)*"|'(?:[^'\\]++|\\.)*'"""
_GAP = rb"(?:[ \t\r\n]++|\#[^\n]*+)*"

# One step of the reader: what separates words, then a bare word (1), a quoted one (2) or a sign (3). After a
# closing quote nginx insists on space, ";", "{" or, for the sake of "if", ")".
_STEP = re.compile(_GAP + rb"(?:(" + _BARE + rb")|(" + _QUOTED + rb")(?=[ \t\r\n;{)]|\Z)|([;{}]))", re.DOTALL)
_IN_QUOTES, _SIGN = 2, 3
_OPEN, _CLOSE = b"{}"
_SKIP = re.compile(_GAP)
_BARE_WORD = re.compile(_BARE, re.DOTALL)
_QUOTED_WORD = re.compile(_QUOTED, re.DOTALL)
_COMMENT = re.compile(rb"\#[^\n]*+")
# Tokens leave a CR that belongs to the line's ending out of the comment, so that text put after a comment
# stays one.
_SPACE_OR_COMMENT = re.compile(rb"[ \t\r\n]++|(\#[^\r\n]*+(?:\r(?!\n)[^\r\n]*+)*)")
_ESCAPE = re.compile(rb"""\\(["'\\trn])""")
_ESCAPED = {b"t": b"\t", b"r": b"\r", b"n": b"\n"}
# What other readers of such files take for syntax, although nginx does not.
_MISREAD = re.compile(rb"""["'#;{}]""")

# The tokens that OpenResty's lexer looks for in Lua (util/gen-lexer-c of lua-nginx-module); all else is
# skipped.
_LUA_HEAD = re.compile(rb"""[{}"']|(?:--)?\[(=*+)\[|--""")
_LUA_STRING = {
    0x22: re.compile(rb""""(?:\\[^\n]|[^"\n\\]++)*("?)"""),
    0x27: re.compile(rb"""'(?:\\[^\n]|[^'\n\\]++)*('?)"""),
}


class Kind(enum.Enum):
    """What a token is."""

    SPACE = "space"
    COMMENT = "comment"
    WORD = "word"
    SEMICOLON = ";"
    OPEN = "{"
    CLOSE = "}"
    LUA = "lua"


@dataclass(frozen=True, slots=True)
class Token:
    """A run of source bytes, from offset start to just before offset end.

    For a word, value is what nginx hands to the directive (without its quotes, escapes translated) and quoted
    says whether it stood in quotes; for every other kind value is empty. A comment ends before its line's
    ending.
    """

    kind: Kind
    start: int
    end: int
    value: bytes = b""
    quoted: bool = False


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Directive:
    """A statement: its words, and its block where it has one; equal only to itself.

    start is the offset of the first word, end the offset just past ";" or "}"; open and close are the offsets
    of "{" and "}". The block of a Lua directive is empty: its body is one LUA token of the tree.
    """

    words: tuple[Token, ...]
    start: int
    end: int
    block: tuple[Directive, ...] | None = None
    open: int | None = None
    close: int | None = None

    @property
    def name(self) -> bytes:
        """Return the first word as nginx reads it."""
        return self.words[0].value

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """Return the words after the name as nginx reads them."""
        return tuple(word.value for word in self.words[1:])

    def walk(self) -> Iterator[Directive]:
        """Yield this directive and everything below it, in the order of the source."""
        return _walk((self,))

    # The generated one would print every block below, one stack frame per level.
    def __repr__(self) -> str:
        return f"Directive({b' '.join(word.value for word in self.words)!r}, {self.start}, {self.end})"


@dataclass(frozen=True)
class Tree:
    """A file as nginx reads it. Trees of equal sources are equal."""

    source: bytes
    directives: tuple[Directive, ...] = field(compare=False, repr=False)
    # Every word and every Lua body as a token, every other ";", "{" and "}" as its offset, in the order of
    # the source.
    _marks: tuple[Token | int, ...] = field(compare=False, repr=False)

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Return every token; their spans tile the source: no gap, no overlap, from 0 to its length."""
        return tuple(_tile(self.source, self._marks))

    def to_bytes(self) -> bytes:
        """Return the concatenation of the tokens' spans, which is the source."""
        return b"".join(self.source[token.start : token.end] for token in self.tokens)

    def walk(self) -> Iterator[Directive]:
        """Yield every directive, blocks before what they hold, in the order of the source."""
        return _walk(self.directives)


def parse(source: bytes) -> Tree:
    """Read a whole configuration file, or the whole of an included one.

    Raises errors.SyntaxRefused, with the reason in nginx's words and the line that nginx names.
    """
    reader, position = _Reader(source), 0
    while step := _STEP.match(source, position):
        group = step.lastindex or _SIGN
        start, end = step.span(group)
        if start - position > _BUFFER:
            _check_comments(source, position, start)
        position = reader.sign(start) if group == _SIGN else reader.word(start, end, group == _IN_QUOTES)
    _check_end(source, position, reader)
    return Tree(source, tuple(reader.siblings), tuple(reader.marks))


def quote(word: bytes) -> bytes:
    """Return how to write a word so that nginx reads exactly these bytes: bare where nobody can misread it.

    Put space before a "{" that follows: nginx takes "${" for part of the word. It cannot read a word longer
    than its buffer (4096 bytes) at all; parse() refuses such a file.
    """
    bare = _BARE_WORD.fullmatch(word) and _ESCAPE.search(word) is None and _MISREAD.search(word) is None
    if bare:
        return word
    return b'"' + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


class _Block(NamedTuple):
    """A block that is still open: the words before it, its "{", and the finished statements around it."""

    words: tuple[Token, ...]
    open: int
    siblings: list[Directive]


class _Reader:
    """What has been read so far: ngx_conf_parse() without its recursion."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.marks: list[Token | int] = []
        self.words: list[Token] = []
        self.siblings: list[Directive] = []
        self.blocks: list[_Block] = []

    def word(self, start: int, end: int, quoted: bool) -> int:
        """Take a word; return where to read on."""
        first, last = (start + 1, end - 1) if quoted else (start, end)
        if end - start >= _BUFFER - 1:
            _check_word(self.source, first, end)
        value = self.source[first:last]
        if b"\\" in value:
            value = _ESCAPE.sub(_unescaped, value)
        token = Token(Kind.WORD, start, end, value, quoted)
        self.words.append(token)
        self.marks.append(token)
        return end

    def sign(self, offset: int) -> int:
        """Take ";", "{" or "}"; return where to read on."""
        sign = self.source[offset]
        self.marks.append(offset)
        if sign == _CLOSE and self.blocks and not self.words:
            return self._close(offset)
        if sign == _CLOSE or not self.words:
            _refuse(self.source, offset, f'unexpected "{chr(sign)}"')
        words = tuple(self.words)
        self.words.clear()
        if sign == _OPEN:
            return self._open(words, offset)
        self.siblings.append(Directive(words, words[0].start, offset + 1))
        return offset + 1

    def _open(self, words: tuple[Token, ...], offset: int) -> int:
        self.blocks.append(_Block(words, offset, self.siblings))
        self.siblings = []
        end = offset + 1
        if words[0].value.endswith(b"_by_lua_block"):
            end = _lua_end(self.source, offset)
            if end > offset + 1:
                self.marks.append(Token(Kind.LUA, offset + 1, end))
        return end

    def _close(self, offset: int) -> int:
        words, start, siblings = self.blocks.pop()
        siblings.append(Directive(words, words[0].start, offset + 1, tuple(self.siblings), start, offset))
        self.siblings = siblings
        return offset + 1


def _unescaped(escape: re.Match[bytes]) -> bytes:
    return _ESCAPED.get(escape[1], escape[1])


def _lua_end(source: bytes, opened: int) -> int:
    """Return the offset of the "}" that ends the Lua code of the block opened at this offset."""
    depth, position = 1, opened + 1
    # Up to where a quote was found to have no partner in its line: to look again would cost square time.
    unpaired = dict.fromkeys(_LUA_STRING, 0)
    while depth and (head := _LUA_HEAD.search(source, position)):
        start, position = head.span()
        sign = source[start]
        if start < unpaired.get(sign, 0):
            continue
        if sign in unpaired:
            end, paired = _lua_string(source, start)
            position, unpaired[sign] = (end, 0) if paired else (position, end)
        elif head[1] is not None:
            position = _after(source, b"]" + head[1] + b"]", position)
        elif head[0] == b"--":
            position = _after(source, b"\n", position)
        else:
            depth += 1 if sign == _OPEN else -1
    if depth:
        _refuse_end(source, '"}"', opened)
    return position - 1


def _lua_string(source: bytes, start: int) -> tuple[int, bool]:
    """Return where the string ends that starts with this quote, and whether it is there that it was closed."""
    string = _LUA_STRING[source[start]].match(source, start)
    return (string.end(), bool(string[1])) if string else (start + 1, False)


def _after(source: bytes, mark: bytes, position: int) -> int:
    """Return the offset just past the next such mark, beyond the source where there is none."""
    found = source.find(mark, position)
    return len(source) + 1 if found < 0 else found + len(mark)


def _check_comments(source: bytes, start: int, end: int) -> None:
    """Refuse a comment between these offsets that does not fit nginx's buffer together with its line feed."""
    for comment in _COMMENT.finditer(source, start, end):
        _check_fit(source, comment.start(), comment.end())


def _check_word(source: bytes, first: int, end: int) -> None:
    """Refuse a word, from its first byte within the quotes, that does not fit nginx's buffer.

    nginx keeps the word there while it looks at the byte that follows, and, where that is space, at the next
    one too.
    """
    spaced = source[end : end + 1] in (b" ", b"\t", b"\r", b"\n")
    _check_fit(source, first, end + spaced)


def _check_fit(source: bytes, first: int, last: int) -> None:
    if min(last, len(source) - 1) - first >= _BUFFER:
        _refuse(source, first, "too long parameter or comment, nginx reads at most 4096 bytes of one")


def _check_end(source: bytes, position: int, reader: _Reader) -> None:
    """Refuse what is left where no further step could be made, unless it is the end of a whole file."""
    skipped = _SKIP.match(source, position)
    end = skipped.end() if skipped else position
    _check_comments(source, position, end)
    if source[end : end + 1] in (b'"', b"'"):
        _refuse_quoted(source, end)
    if end < len(source) or reader.words:
        _refuse_end(source, '";" or "}"', reader.words[0].start if reader.words else end)
    if reader.blocks:
        _refuse_end(source, '"}"', reader.blocks[-1].open)


def _refuse_quoted(source: bytes, start: int) -> NoReturn:
    """Refuse a quoted word without a closing quote, or with something else than a separator after it."""
    word = _QUOTED_WORD.match(source, start)
    end = word.end() if word else len(source)
    _check_word(source, start + 1, end)
    if word:
        _refuse(source, end, f'unexpected "{_shown(source[end])}"')
    _refuse_end(source, "the closing quote", start)


def _refuse_end(source: bytes, expected: str, opened: int) -> NoReturn:
    line, _ = _place(source, opened)
    reason = f"unexpected end of file, expecting {expected} for what starts in line {line}"
    _refuse(source, len(source), reason)


def _refuse(source: bytes, offset: int, reason: str) -> NoReturn:
    raise errors.SyntaxRefused(reason, *_place(source, offset))


def _place(source: bytes, offset: int) -> tuple[int, int]:
    """Return line and column, both from 1, of an offset."""
    return source.count(b"\n", 0, offset) + 1, offset - source.rfind(b"\n", 0, offset)


def _shown(byte: int) -> str:
    return chr(byte) if 0x20 <= byte < 0x7F else f"\\x{byte:02x}"


def _walk(directives: Sequence[Directive]) -> Iterator[Directive]:
    pending = list(reversed(directives))
    while pending:
        directive = pending.pop()
        yield directive
        pending.extend(reversed(directive.block or ()))


def _tile(source: bytes, marks: Sequence[Token | int]) -> Iterator[Token]:
    position = 0
    for mark in marks:
        token = mark if isinstance(mark, Token) else Token(Kind(chr(source[mark])), mark, mark + 1)
        yield from _gap(source, position, token.start)
        yield token
        position = token.end
    yield from _gap(source, position, len(source))


def _gap(source: bytes, start: int, end: int) -> Iterator[Token]:
    for run in _SPACE_OR_COMMENT.finditer(source, start, end):
        yield Token(Kind.COMMENT if run[1] else Kind.SPACE, *run.span())
