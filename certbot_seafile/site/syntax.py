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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, NoReturn

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

# One step of the reader: a whole statement as a rule, with its first word (1) and the sign that ends it (2); where many
# words or comments follow each other, some of them, so that the memory for a step has a bound.
_MORE = _GAP + rb"(?:" + _WORD + _GAP + rb"){0,63}"
_WORDS = _WORD + _MORE
_STEP = re.compile(_GAP + rb"(?:(" + _WORD + rb")" + _MORE + rb")?([;{}])?", re.DOTALL)
_NAME = 1
_OPEN, _CLOSE = b"{}"
_QUOTES = b"\"'"
_LUA_BLOCK = rb"[^ \t\r\n;{]*_by_lua_block"
_SKIP = re.compile(_GAP)
# One word or one comment, behind blanks.
_PIECE = re.compile(rb"[ \t\r\n]*+(?:(" + _WORD + rb")|(\#[^\n]*+))", re.DOTALL)
_BARE_WORD = re.compile(_BARE, re.DOTALL)
_QUOTED_WORD = re.compile(_QUOTED, re.DOTALL)
# Tokens leave a CR that belongs to the line's ending out of the comment, so that text put after a comment
# stays one.
_TOKEN = re.compile(rb"[ \t\r\n]++|\#[^\r\n]*+(?:\r(?!\n)[^\r\n]*+)*|(?P<word>" + _WORD + rb")|[;{}]", re.DOTALL)
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


_KINDS = {ord(kind.value): kind for kind in (Kind.SEMICOLON, Kind.OPEN, Kind.CLOSE)} | {ord("#"): Kind.COMMENT}


class Token(NamedTuple):
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


class Directive:
    """A statement: its words, and its block where it has one; equal only to itself, and never changed.

    start is the offset of the first word, end the offset just past ";" or "}"; open and close are the offsets
    of "{" and "}". The block of a Lua directive is empty: its body is one LUA token of the tree. Words are taken apart
    when they are asked for: most statements of a large file nobody asks about.
    """

    __slots__ = ("_arguments", "_sign", "_source", "block", "end", "name", "start")

    def __init__(
        self, source: bytes, name: bytes, start: int, sign: int, end: int, block: tuple[Directive, ...] | None = None
    ) -> None:
        self._source, self.name, self.start, self._sign, self.end, self.block = source, name, start, sign, end, block

    @property
    def open(self) -> int | None:
        """Return the offset of its "{", None where it has no block."""
        return None if self.block is None else self._sign

    @property
    def close(self) -> int | None:
        """Return the offset of its "}", None where it has no block."""
        return None if self.block is None else self.end - 1

    @property
    def words(self) -> tuple[Token, ...]:
        """Return its words, the name first."""
        return tuple(_words(self._source, self.start, self._sign))

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """Return the words after the name as nginx reads them."""
        try:
            return self._arguments
        except AttributeError:
            self._arguments: tuple[bytes, ...] = tuple(word.value for word in self.words[1:])
            return self._arguments

    def walk(self) -> Iterator[Directive]:
        """Yield this directive and everything below it, in the order of the source."""
        return _walk((self,))

    def __repr__(self) -> str:
        return f"Directive({b' '.join((self.name, *self.arguments))!r}, {self.start}, {self.end})"


@dataclass(frozen=True)
class Tree:
    """A file as nginx reads it. Trees of equal sources are equal."""

    source: bytes
    directives: tuple[Directive, ...] = field(compare=False, repr=False)
    # Every Lua body that is not empty: the offset of its first byte, and the offset just past its last one.
    _lua: dict[int, int] = field(compare=False, repr=False)

    @cached_property
    def tokens(self) -> tuple[Token, ...]:
        """Return every token; their spans tile the source: no gap, no overlap, from 0 to its length."""
        return tuple(_tile(self.source, self._lua))

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
    while (step := _STEP.match(source, position)) and step.end() > position:
        if step.end() - position > _BUFFER:
            _check_sizes(source, position, step.end())
        position = reader.take(step)
    _check_end(source, position, reader)
    return Tree(source, tuple(reader.siblings), reader.lua)


class Wanted(NamedTuple):
    """What skim() looks for: with what the names of the statements begin, and how to come to the next of them."""

    beginnings: tuple[bytes, ...]
    step: re.Pattern[bytes]


def wanted(names: Sequence[bytes], beginnings: Sequence[bytes] = ()) -> Wanted:
    """Return what skim() looks for: includes, statements with one of these names, or whose name begins so."""
    names = (b"include", *names)
    shapes = [*map(re.escape, names), *(re.escape(beginning) + rb"\w*" for beginning in beginnings), _LUA_BLOCK]
    other = rb"(?![\"']?(?:" + b"|".join(shapes) + rb")[\"' \t\r\n;{])"
    no_include = rb"(?![\"']?(?:include|" + _LUA_BLOCK + rb")[\"' \t\r\n;{])"
    flat = rb"\{(?:" + _GAP + no_include + _WORDS + rb";){0,63}" + _GAP + rb"\}"
    passed = rb"(?:" + _GAP + other + _WORDS + rb"(?:;|" + flat + rb")){0,63}"
    return Wanted((*names, *beginnings), re.compile(passed + _STEP.pattern, re.DOTALL))


def skim(source: bytes, wanted: Wanted) -> tuple[tuple[Directive, ...], bool]:
    """Read of a file only what is wanted, fast, and tell whether that went to the end of a sound file.

    What is left out: other statements, and other blocks in which stands neither a block nor an include; never all of
    them. In a file that is not sound, what stands before the fault is read, and open blocks end with the file.
    """
    if not any(_begins_statement(source, beginning) for beginning in wanted.beginnings):
        return (), True
    reader, position = _Reader(source), 0
    try:
        while (step := wanted.step.match(source, position)) and step.end() > position:
            position = reader.take(step)
    except errors.SyntaxRefused:
        return reader.rest(), False
    is_sound = position == len(source) and reader.start is None and not reader.blocks
    return reader.rest(), is_sound


def quote(word: bytes) -> bytes:
    """Return how to write a word so that nginx reads exactly these bytes: bare where nobody can misread it.

    Put space before a "{" that follows: nginx takes "${" for part of the word. It cannot read a word longer
    than its buffer (4096 bytes) at all; parse() refuses such a file.
    """
    bare = _BARE_WORD.fullmatch(word) and _ESCAPE.search(word) is None and _MISREAD.search(word) is None
    if bare:
        return word
    return b'"' + word.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def _begins_statement(source: bytes, beginning: bytes) -> bool:
    """Tell whether these bytes stand where a statement could begin, which in comments and in quotes may seem so."""
    at = source.find(beginning)
    while at >= 0:
        before = at - 1
        if before >= 0 and source[before] in _QUOTES:
            before -= 1
        while before >= 0 and source[before] in b" \t\r":
            before -= 1
        if before < 0 or source[before] in b"\n;{}":
            return True
        at = source.find(beginning, at + 1)
    return False


class _Block(NamedTuple):
    """A block that is still open: its name, its first byte, its "{", and the finished statements around it."""

    name: bytes
    start: int
    open: int
    siblings: list[Directive]


class _Reader:
    """What has been read so far: ngx_conf_parse() without its recursion. start: of the words without a sign yet."""

    def __init__(self, source: bytes) -> None:
        self.source = source
        self.name = b""
        self.start: int | None = None
        self.siblings: list[Directive] = []
        self.blocks: list[_Block] = []
        self.lua: dict[int, int] = {}

    def take(self, step: re.Match[bytes]) -> int:
        """Take words, a sign, or both; return where to read on."""
        word, sign = step.groups()
        if word is not None and self.start is None:
            self.name, self.start = _value(word), step.start(_NAME)
        end = step.end()
        if sign == b";" and self.start is not None:
            self.siblings.append(Directive(self.source, self.name, self.start, end - 1, end))
            self.start = None
        elif sign is not None:
            return self._brace(end - 1)
        return end

    def _brace(self, offset: int) -> int:
        if self.start is None and self.blocks and self.source[offset] == _CLOSE:
            self._close(offset + 1)
        elif self.start is not None and self.source[offset] == _OPEN:
            self.blocks.append(_Block(self.name, self.start, offset, self.siblings))
            self.start, self.siblings = None, []
            if self.name.endswith(b"_by_lua_block"):
                return self._lua(offset)
        else:
            _refuse(self.source, offset, f'unexpected "{chr(self.source[offset])}"')
        return offset + 1

    def rest(self) -> tuple[Directive, ...]:
        """Return what was read, blocks that are still open as if they ended with the file."""
        self.start = None
        while self.blocks:
            self._close(len(self.source))
        return tuple(self.siblings)

    def _close(self, end: int) -> None:
        name, start, opened, siblings = self.blocks.pop()
        siblings.append(Directive(self.source, name, start, opened, end, tuple(self.siblings)))
        self.siblings = siblings

    def _lua(self, opened: int) -> int:
        end = _lua_end(self.source, opened)
        if end > opened + 1:
            self.lua[opened + 1] = end
        return end


def _value(word: bytes) -> bytes:
    """Return what nginx makes of a word: without its quotes, escapes translated."""
    if word[0] in _QUOTES:
        word = word[1:-1]
    return _ESCAPE.sub(_unescaped, word) if b"\\" in word else word


def _words(source: bytes, start: int, end: int) -> Iterator[Token]:
    """Yield the words between these offsets."""
    for piece in _PIECE.finditer(source, start, end):
        if word := piece[_NAME]:
            yield Token(Kind.WORD, *piece.span(_NAME), _value(word), word[0] in _QUOTES)


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
    at = source.find(mark, position)
    return len(source) + 1 if at < 0 else at + len(mark)


def _check_sizes(source: bytes, start: int, end: int) -> None:
    """Refuse a word or a comment between these offsets that does not fit nginx's buffer with what ends it."""
    for piece in _PIECE.finditer(source, start, end):
        if word := piece[_NAME]:
            _check_word(source, piece.start(_NAME) + (word[0] in _QUOTES), piece.end())
        else:
            _check_fit(source, piece.start(_NAME + 1), piece.end())


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
    _check_sizes(source, position, end)
    if source[end : end + 1] in (b'"', b"'"):
        _refuse_quoted(source, end)
    if end < len(source) or reader.start is not None:
        _refuse_end(source, '";" or "}"', end if reader.start is None else reader.start)
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


def _tile(source: bytes, lua: Mapping[int, int]) -> Iterator[Token]:
    position = 0
    while token := _TOKEN.match(source, position):
        start, position = token.span()
        if word := token["word"]:
            yield Token(Kind.WORD, start, position, _value(word), word[0] in _QUOTES)
        else:
            yield Token(_KINDS.get(source[start], Kind.SPACE), start, position)
        if position in lua:
            yield Token(Kind.LUA, position, lua[position])
            position = lua[position]
