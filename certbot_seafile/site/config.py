"""nginx's configuration in one of its states: which files nginx reads, who reads them, and what stands in them.

The law: each file's bytes come in once for a state, and a file is parsed, once, only where a question needs all of its
statements. What any question needs of every file (server blocks, their names and sockets, includes) comes from
outlines, which cost a small part of what `nginx -t` costs. A question about some names is answered by look-ups, not by
going through every server block. Pure: the files are handed over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from certbot_seafile import errors
from certbot_seafile.site import syntax

# Paths of Seafile alone, and those that other programs have, too: a server block that proxies Seafile has one.
SEAFILE_PATHS = (b"/seafhttp", b"/seafmedia", b"/seafdav", b"/sdoc-server")
SHARED_PATHS = (b"/notification", b"/onlyofficeds", b"/socket.io")

# Every directive that anyone asks for outside of a site's server blocks has its name here: of other files, only these
# are seen.
_OUTLINED = syntax.wanted(
    (b"server", b"http", b"stream", b"mail", b"listen", b"server_name", b"map", b"user", b"pid", b"error_log", b"root",
     b"error_page", b"resolver", b"add_header", b"client_body_temp_path", b"client_max_body_size",
     b"proxy_http_version", b"proxy_read_timeout", b"proxy_request_buffering", b"proxy_set_header"),
    (b"ssl", b"auth_"),
)  # fmt: skip
_ADDRESS = re.compile(r"[\[\]0-9a-fA-F:.]+")
# What an argument is not written with where it is written as it is.
_ESCAPED = re.compile(rb"""["'\\\t\r\n]""")

# Which blocks inside of which others read what is included: server blocks only in http, where sites are.
_READERS = {b"": (b"http", b"stream", b"mail"), b"http": (b"server",)}

# Blocks and includes within each other, counted together: as many as no site has, and as the stack holds.
_MOST_LEVELS = 100

# The keys of server blocks that may answer for any name, or for any address.
_ANY_NAME, _ANY_ADDRESS = "~", "[]"


class Block(NamedTuple):
    """A block of the configuration: its name (b"" for the main level), its file, the offset of its first byte."""

    name: bytes
    path: str
    start: int


@dataclass(frozen=True, eq=False)
class Statement:
    """A directive where it stands: the real path of its file; children are a block's statements, or an include's."""

    path: str
    directive: syntax.Directive
    children: tuple[Statement, ...] = ()

    @property
    def name(self) -> bytes:
        """Return the directive's name."""
        return self.directive.name

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """Return its arguments as nginx reads them."""
        return self.directive.arguments

    @property
    def written(self) -> bytes:
        """Return its bytes as they stand in the file."""
        return self.directive.source[self.directive.start : self.directive.end]

    @property
    def line(self) -> int:
        """Return its line in the file, from 1."""
        return syntax.place(self.directive.source, self.directive.start)[0]

    @property
    def block(self) -> Block:
        """Return what tells it from every other block."""
        return Block(self.name, self.path, self.directive.start)

    def named(self, *names: bytes) -> list[Statement]:
        """Return a block's statements that have one of these names, included ones among them."""
        return [child for child in flat(self.children) if child.name in names]

    def walk(self) -> Iterator[Statement]:
        """Yield every statement below this one, includes and what they include, in order."""
        for child in self.children:
            yield child
            yield from child.walk()


def flat(statements: Iterable[Statement]) -> Iterator[Statement]:
    """Yield the statements as nginx sees them: an include, and then its own."""
    for statement in statements:
        yield statement
        if statement.name == b"include":
            yield from flat(statement.children)


def text(word: bytes) -> str:
    """Return a word as text, from which its bytes can be had again whatever they are (PEP 383)."""
    return word.decode("utf-8", "surrogateescape")


class File:
    """One state of one file that nginx reads: its real path, its bytes, and its outline.

    outline: server blocks, includes and the few other statements that are asked for everywhere; is_sound: whether it
    goes to the end of the file.
    """

    def __init__(self, path: str, source: bytes) -> None:
        self.path, self.source = path, source
        self.outline, self.is_sound = syntax.skim(source, _OUTLINED)

    @cached_property
    def directives(self) -> tuple[syntax.Directive, ...]:
        """Return all of its statements. Raises errors.SyntaxRefused, with the path."""
        try:
            return syntax.parse(self.source)
        except errors.SyntaxRefused as refused:
            raise errors.SyntaxRefused(refused.reason, refused.line, refused.column, self.path) from refused

    @cached_property
    def blocks(self) -> dict[int, syntax.Directive]:
        """Return its blocks, by their first byte. Raises errors.SyntaxRefused, with the path."""
        every = syntax.walk(self.directives)
        return {directive.start: directive for directive in every if directive.block is not None}


class Configuration:
    """One state of nginx's configuration.

    files: the files that nginx reads, by real path, in nginx's order.
    """

    def __init__(self, root: File, targets: Callable[[bytes], tuple[File, ...]]) -> None:
        """Take nginx.conf, and what gives the files that an include's argument names, in nginx's order.

        Of a file that is unchanged, targets gives the same object again. Raises errors.FileRefused where one cannot be
        read, errors.SyntaxRefused where one includes itself.
        """
        self._root, self._find_targets = root, targets
        self.files: dict[str, File] = {}
        self._targets: dict[bytes, tuple[File, ...]] = {}
        self._faulty: list[File] = []
        self._readers: dict[str, set[Block]] = defaultdict(set)
        self._read: dict[Block, set[str]] = defaultdict(set)
        self._main = Block(b"", root.path, 0)
        self._outline = tuple(self._include(root, self._main, (), is_whole=False))

    def is_same(self, other: Configuration) -> bool:
        """Tell whether nginx reads the same from both: the same files, unchanged, by the same includes."""
        return (self._root, self._targets) == (other._root, other._targets)

    def changed(self, contents: Mapping[str, bytes]) -> Configuration:
        """Return the configuration as it would be with these bytes in its files, by real path.

        What stays as it is, is the same object there. Raises errors.FileRefused, errors.SyntaxRefused.
        """
        now = {path: file.source for path, file in self.files.items() if path in contents}
        files = {path: File(path, contents[path]) for path in now if now[path] != contents[path]}

        def targets(pattern: bytes) -> tuple[File, ...]:
            now = self._targets[pattern] if pattern in self._targets else self._find_targets(pattern)
            return tuple(files.get(file.path, file) for file in now)

        return Configuration(files.get(self._root.path, self._root), targets)

    def statements(
        self, domains: Collection[str] | None = None, *, site_path: str | None = None
    ) -> tuple[Statement, ...]:
        """Return the statements of nginx.conf, those of an include below it.

        With domains: the http block alone, with its own statements as far as anyone asks for them, and of its server
        blocks those that could take part in who answers for one of the domains, and those in the file at the real path
        site_path or that read it, each with all that is included in it. Raises errors.SyntaxRefused.
        """
        if domains is None:
            return tuple(self._include(self._root, self._main, (), is_whole=True))
        for file in self._faulty:
            _ = file.directives  # which says why
        wanted = self._servers.wanted(domains)
        if site_path:
            wanted |= self._reading({site_path})
        return self._http(map(self.whole, self._servers.chosen(wanted)))

    def servers_reading(self, paths: Collection[str]) -> list[Statement]:
        """Return the outlines of the server blocks of http that stand in one of the files, or read one."""
        return self._servers.chosen(self._reading(paths))

    def _reading(self, paths: Collection[str]) -> set[int]:
        readers = {block for path in paths for block in self.readers(path)}
        blocks = enumerate(self._servers.blocks)
        return {number for number, each in blocks if each.path in paths or each.block in readers}

    def _http(self, servers: Iterable[Statement]) -> tuple[Statement, ...]:
        http = self._servers.http
        return (replace(http, children=(*self._servers.inherited, *servers)),) if http else ()

    def outline(self, names: Collection[str] | None = None) -> tuple[Statement, ...]:
        """Return every server block with its names and sockets, and little else; parses nothing.

        names: the http block alone, with those that could take part in who answers for one of them; each listen line
        that nginx reads is among theirs.
        """
        return self._outline if names is None else self._http(self._servers.chosen(self._servers.wanted(names)))

    def mentioning(self, text: bytes) -> list[Statement]:
        """Return every statement, at any depth and wherever nginx reads it, one of whose arguments contains the text.

        Each stands for itself (no children), once, in the order of the files. Raises errors.SyntaxRefused.
        """
        bare = max(_ESCAPED.split(text), key=len)
        return [
            Statement(file.path, directive)
            for file in self.files.values()
            if bare in file.source
            for directive in syntax.walk(file.directives)
            if any(text in argument for argument in directive.arguments)
        ]

    def main(self, name: bytes) -> Statement | None:
        """Return the last statement of this name at the main level (`pid`, `user`); None where none has it."""
        return next((one for one in reversed([*flat(self._outline)]) if one.name == name), None)

    def readers(self, path: str) -> Collection[Block]:
        """Return the blocks by which nginx reads the file at the real path.

        Where it is included within server blocks of http, these; else the `http`, `stream` or `mail` block, or the main
        level (named b"").
        """
        return self._readers.get(path, ())

    # --- following includes

    def _include(self, file: File, reader: Block, above: tuple[str, ...], *, is_whole: bool) -> Iterator[Statement]:
        """Yield the file's statements, of its outline or all; above: the file of each level around it."""
        if file.path in above:
            raise errors.SyntaxRefused("it includes itself", 1, 1, file.path)
        self.files[file.path] = file
        self._readers[file.path].add(reader)
        self._read[reader].add(file.path)
        if not file.is_sound and reader.name != b"server" and all(inner.name != b"server" for inner in file.outline):
            self._faulty.append(file)  # a fault in the file of another site is left to nginx -t
        directives = file.directives if is_whole else file.outline
        return self._expand(directives, reader, (*above, file.path), is_whole=is_whole)

    def _expand(
        self, directives: Iterable[syntax.Directive], reader: Block, above: tuple[str, ...], *, is_whole: bool
    ) -> Iterator[Statement]:
        """Yield the directives of a file as statements, with what they include."""
        path = above[-1]
        for directive in directives:
            children: tuple[Statement, ...] = ()
            if len(above) > _MOST_LEVELS:
                reason = f"blocks and includes stand more than {_MOST_LEVELS} deep in each other"
                raise errors.SyntaxRefused(reason, *syntax.place(directive.source, directive.start), path)
            if directive.block is not None:
                is_reader = directive.name in _READERS.get(reader.name, ())
                inner = Block(directive.name, path, directive.start) if is_reader else reader
                children = tuple(self._expand(directive.block, inner, (*above, path), is_whole=is_whole))
            elif directive.name == b"include" and len(directive.arguments) == 1:
                (pattern,) = directive.arguments
                if pattern not in self._targets:
                    self._targets[pattern] = self._find_targets(pattern)
                children = tuple(
                    statement
                    for target in self._targets[pattern]
                    for statement in self._include(target, reader, above, is_whole=is_whole)
                )
            yield Statement(path, directive, children)

    # --- who could answer

    @cached_property
    def _servers(self) -> _Servers:
        servers = _Servers()
        for http in flat(self._outline):
            if http.name == b"http" and http.directive.block is not None:
                servers.http = http
                for child in flat(http.children):
                    if child.name == b"server" and child.directive.block is not None:
                        read = (self.files[path].source for path in self._read.get(child.block, ()))
                        servers.add(child, [child.written, *read])
                    elif child.name != b"include":
                        servers.inherited.append(child)
        return servers

    def whole(self, outlined: Statement) -> Statement:
        """Return a server block with all of its statements. Raises errors.SyntaxRefused."""
        file, block = self.files[outlined.path], outlined.block
        directive = file.blocks[block.start]
        children = self._expand(directive.block or (), block, (file.path,), is_whole=True)
        return Statement(file.path, directive, tuple(children))


class _Servers:
    """The server blocks of http in nginx's order, and, by what may bring one into an answer, their numbers in it.

    inherited: what else stands in http. by_key: by their names, by what else they answer for, and by their file where
    they name nobody.
    """

    def __init__(self) -> None:
        self.http: Statement | None = None
        self.inherited: list[Statement] = []
        self.blocks: list[Statement] = []
        self.by_key: dict[str, set[int]] = defaultdict(set)
        self._listens: set[tuple[bytes, ...]] = set()

    def add(self, block: Statement, sources: Sequence[bytes]) -> None:
        """Add a server block, in nginx's order: its outline, and the bytes that nginx reads of it and for it."""
        may_proxy = any(path in source for source in sources for path in SEAFILE_PATHS + SHARED_PATHS)
        names = [text(name).lower() for child in block.named(b"server_name") for name in child.arguments]
        is_nameless = all("." not in name or _ADDRESS.fullmatch(name) for name in names)
        # A socket's default is the one that is marked so, else the first, and the socket is what all its listen lines
        # say (ngx_http_add_addresses); here, the first with each such line.
        listens = [child.arguments for child in block.named(b"listen")] or [(b"80",)]
        new = set(listens) - self._listens
        self._listens |= new
        is_leading = bool(new) or any({b"default_server", b"default"}.intersection(words[1:]) for words in listens)
        keys = {key for name in names for key in _keys(name)}
        keys |= {_ANY_NAME} if is_leading or (is_nameless and may_proxy) else set()
        keys |= {_ANY_ADDRESS} if may_proxy else set()
        for key in keys | {block.path} if is_nameless else keys:
            self.by_key[key].add(len(self.blocks))
        self.blocks.append(block)

    def wanted(self, domains: Collection[str]) -> set[int]:
        """Return the numbers of all blocks that take part in who answers for the domains, and of some more."""
        keys = {_ANY_NAME}.union(*(_asked(domain.lower()) for domain in domains))
        wanted = set().union(*(self.by_key.get(key, ()) for key in keys))
        return wanted.union(*(self.by_key.get(self.blocks[number].path, ()) for number in wanted))

    def chosen(self, numbers: Iterable[int]) -> list[Statement]:
        """Return the outlines of the blocks with these numbers, in nginx's order."""
        return [self.blocks[number] for number in sorted(numbers)]


def _keys(written: str) -> tuple[str, ...]:
    """Return under what a name of a server block is kept."""
    if written.startswith("~"):
        return (_ANY_NAME,)
    return (written, written[1:]) if written.startswith(".") else (written.strip("*"),)


def _asked(name: str) -> set[str]:
    """Return under what the server blocks that answer for a name are kept: itself, its ends, its beginnings."""
    dots = [number for number, letter in enumerate(name) if letter == "."]
    any_address = [_ANY_ADDRESS] if _ADDRESS.fullmatch(name) else []
    return {name, *any_address, *(name[dot:] for dot in dots), *(name[: dot + 1] for dot in dots)}
