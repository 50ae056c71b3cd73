"""nginx's configuration in one of its states: which files nginx reads, who reads them, and what stands in them.

The law: each file's bytes come in once for a state, and a file is parsed, once, only where a question needs all of its
statements. What any question needs of every file (server blocks, their names and sockets, includes) comes from
outlines, which cost a small part of what `nginx -t` costs. A question about some names is answered by look-ups, not by
going through every server block. Pure: a Disk hands the files over.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

from certbot_seafile import errors
from certbot_seafile.site import syntax

# What of a server block could proxy Seafile: its paths, Seahub's port or the file server's.
_MAY_PROXY_SEAFILE = re.compile(rb"/seafhttp|/seafmedia|/seafdav|:8000\b|:8082\b")

# Every directive that anyone asks for outside of a site's server blocks has its name here: of other files, only these
# are seen.
_OUTLINED = syntax.wanted(
    (b"server", b"http", b"stream", b"mail", b"listen", b"server_name", b"user", b"pid", b"root", b"error_page",
     b"resolver", b"add_header", b"proxy_set_header"),
    (b"ssl", b"auth_"),
)  # fmt: skip
_EVERY, _EVERY_V6 = "*", "[::]"
_ADDRESS = re.compile(r"[\[\]0-9a-fA-F:.]+")
# What an argument is not written with where it is written as it is.
_ESCAPED = re.compile(rb"""["'\\\t\r\n]""")

# Which blocks inside of which others read what is included: server blocks only in http, where sites are.
_READERS = {b"": (b"http", b"stream", b"mail"), b"http": (b"server",)}

# Given a file and whether it is included within a server block, its directives that are wanted.
Pick = Callable[["File", bool], Sequence[syntax.Directive]]


@dataclass(frozen=True, eq=False)
class Statement:
    """A directive where it stands: the real path and bytes of its file; children are a block's or an include's."""

    path: str
    source: bytes
    directive: syntax.Directive
    children: tuple[Statement, ...] | None = None

    @property
    def name(self) -> bytes:
        """Return the directive's name."""
        return self.directive.name

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """Return its arguments as nginx reads them."""
        return self.directive.arguments

    @property
    def line(self) -> int:
        """Return its line in the file, from 1."""
        return self.source.count(b"\n", 0, self.directive.start) + 1

    @property
    def block(self) -> Block:
        """Return what tells it from every other block."""
        return Block(self.name, self.path, self.directive.start)

    def flat(self) -> Iterator[Statement]:
        """Yield a block's statements as nginx sees them: an include's own in its place."""
        for child in self.children or ():
            if child.name == b"include" and child.directive.block is None:
                yield from child.flat()
            else:
                yield child

    def walk(self) -> Iterator[Statement]:
        """Yield every statement below this one, includes expanded, in order."""
        waiting = list(self.flat())[::-1]
        while waiting:
            statement = waiting.pop()
            yield statement
            waiting.extend(list(statement.flat())[::-1])


class Block(NamedTuple):
    """A block of the configuration: its name (b"" for the main level), its file, the offset of its first byte."""

    name: bytes
    path: str
    start: int


@dataclass(frozen=True, eq=False)
class File:
    """One state of one file that nginx reads: its real path, its bytes."""

    path: str
    source: bytes = field(repr=False)

    @cached_property
    def _skimmed(self) -> tuple[tuple[syntax.Directive, ...], bool]:
        return syntax.skim(self.source, _OUTLINED)

    @property
    def outline(self) -> tuple[syntax.Directive, ...]:
        """Return server blocks, includes and the few other statements that are asked for everywhere. Never raises."""
        return self._skimmed[0]

    @property
    def is_sound(self) -> bool:
        """Tell whether its outline goes to the end of the file."""
        return self._skimmed[1]

    @cached_property
    def tree(self) -> syntax.Tree:
        """Return all of its statements. Raises errors.SyntaxRefused, with the path."""
        try:
            return syntax.parse(self.source)
        except errors.SyntaxRefused as refused:
            raise errors.SyntaxRefused(refused.reason, refused.line, refused.column, self.path) from refused


class Disk(Protocol):
    """Where the files come from. A real path stands for one object, as long as the file is unchanged."""

    def file(self, path: str) -> File:
        """Return the file that the path leads to. Raises errors.FileRefused."""

    def targets(self, pattern: bytes) -> tuple[File, ...]:
        """Return the files that an include's argument names, in nginx's order. Raises errors.FileRefused."""


class _Server(NamedTuple):
    """A server block of http: where it stands, and the files that are included within it."""

    file: File
    directive: syntax.Directive
    read: set[str]


def _to_blocks() -> dict[str, set[Block]]:
    return defaultdict(set)


@dataclass
class _Index:
    """The server blocks of http, by what may bring them into an answer.

    exact, by_end, by_start: by their names. always: whatever the name is. leading: by address, those that may be the
    default of a socket; proxying: those of them that may proxy Seafile. nameless: by file, those that name nobody.
    by_file: all, by file.
    """

    exact: dict[str, set[Block]] = field(default_factory=_to_blocks)
    by_end: dict[str, set[Block]] = field(default_factory=_to_blocks)
    by_start: dict[str, set[Block]] = field(default_factory=_to_blocks)
    always: set[Block] = field(default_factory=set)
    leading: dict[str, set[Block]] = field(default_factory=_to_blocks)
    proxying: set[Block] = field(default_factory=set)
    nameless: dict[str, set[Block]] = field(default_factory=_to_blocks)
    by_file: dict[str, set[Block]] = field(default_factory=_to_blocks)
    _addresses: dict[Block, set[str]] = field(default_factory=dict)
    _listened: set[bytes] = field(default_factory=set)

    def add(self, block: Block, statements: Collection[Statement], *, may_proxy: bool) -> None:
        """Add a server block, in nginx's order: its statements, and whether it may proxy Seafile."""
        names = [_text(name) for child in statements if child.name == b"server_name" for name in child.arguments]
        is_nameless = all("." not in name or _ADDRESS.fullmatch(name) for name in names)
        if (may_proxy and is_nameless) or any(name.startswith("~") for name in names):
            self.always.add(block)
        if is_nameless:
            self.nameless[block.path].add(block)
        for name in names:
            self._add_name(name, block)
        self.by_file[block.path].add(block)
        listens = [child.arguments for child in statements if child.name == b"listen"] or [(b"80",)]
        self._add_sockets(block, listens, may_proxy=may_proxy)

    def _add_sockets(self, block: Block, listens: Iterable[Sequence[bytes]], *, may_proxy: bool) -> None:
        """Add what the block listens on.

        The first on a socket is its default (ngx_http_add_address); here, the first with each spelling of a socket.
        """
        self._addresses[block] = set()
        for socket, *parameters in filter(None, listens):
            address = _address(_text(socket))
            self._addresses[block].add(address)
            if socket not in self._listened or b"default_server" in parameters or b"default" in parameters:
                self.leading[address].add(block)
                if may_proxy:
                    self.proxying.add(block)
            self._listened.add(socket)

    def _add_name(self, name: str, block: Block) -> None:
        if name.startswith("."):
            self.exact[name[1:]].add(block)
            self.by_end[name].add(block)
        elif name.startswith("*."):
            self.by_end[name[1:]].add(block)
        elif name.endswith(".*"):
            self.by_start[name[:-1]].add(block)
        else:
            self.exact[name].add(block)

    def wanted(self, domains: Iterable[str], chosen: Iterable[Block]) -> set[Block]:
        """Return a superset of the blocks that take part in who answers for the domains, the chosen ones among them."""
        wanted = self.always.union(chosen, *(self._named(domain.lower()) for domain in domains))
        if any(_ADDRESS.fullmatch(domain) for domain in domains):
            wanted |= self.proxying
        wanted = wanted.union(*(self.nameless.get(block.path, ()) for block in wanted))
        addresses = {_EVERY, _EVERY_V6}.union(*(self._addresses[block] for block in wanted))
        return wanted.union(*(self.leading.get(address, ()) for address in addresses))

    def _named(self, name: str) -> Iterator[Block]:
        yield from self.exact.get(name, ())
        for i, letter in enumerate(name):
            if letter == ".":
                yield from self.by_end.get(name[i:], ())
                yield from self.by_start.get(name[: i + 1], ())


class Configuration:
    """One state of nginx's configuration.

    files: the files that nginx reads, by real path, in nginx's order.
    """

    def __init__(self, path: str, disk: Disk) -> None:
        """Read the file that the path leads to, and all that is included from it.

        Raises errors.FileRefused where one cannot be read, errors.SyntaxRefused where one includes itself.
        """
        self._root, self._disk = disk.file(path), disk
        self.files: dict[str, File] = {}
        self._targets: dict[bytes, tuple[File, ...]] = {}
        self._readers: dict[str, set[Block]] = {}
        self._servers: list[_Server] = []
        self._follow(self._root, (), Block(b"", self._root.path, 0), set())

    def is_same(self, other: Configuration) -> bool:
        """Tell whether nginx reads the same from both: the same files, unchanged, by the same includes."""
        return (self._root, self._targets) == (other._root, other._targets)

    def statements(
        self, domains: Collection[str] | None = None, *, site_path: str | None = None
    ) -> tuple[Statement, ...]:
        """Return the statements of nginx.conf, those of an include below it.

        With domains: of the server blocks, those that could take part in who answers for one of them, and those in the
        file at the real path site_path or that read it, each with all that is included in it; the others are left out.
        Outside of server blocks, statements that nobody asks for may be missing.
        Raises errors.SyntaxRefused.
        """
        if domains is None:
            return self._statements(_whole)
        chosen = self._index.by_file.get(site_path or "", set()) | self.readers(site_path or "")
        wanted = self._index.wanted(domains, (block for block in chosen if block.name == b"server"))
        files = {block.path for block in wanted}

        def pick(file: File, is_in_server: bool) -> Sequence[syntax.Directive]:
            if is_in_server or file.path in files:
                return file.tree.directives
            # A fault in a file of others is left to nginx -t.
            is_of_others = file.path in self._index.by_file and file is not self._root
            return file.outline if file.is_sound or is_of_others else file.tree.directives

        return self._statements(pick, wanted)

    def outline(self) -> tuple[Statement, ...]:
        """Return every server block with its names and sockets, and little else; parses nothing."""
        return self._statements(_outline)

    def mentioning(self, text: bytes) -> list[Statement]:
        """Return every statement, at any depth and wherever nginx reads it, one of whose arguments contains the text.

        Each stands for itself (no children), once, in the order of the files. Raises errors.SyntaxRefused.
        """
        bare = max(_ESCAPED.split(text), key=len)
        return [
            Statement(file.path, file.source, directive)
            for file in self.files.values()
            if bare in file.source
            for directive in file.tree.walk()
            if any(text in argument for argument in directive.arguments)
        ]

    def main(self, name: bytes) -> Statement | None:
        """Return the last statement of this name at the main level (`pid`, `user`); None where none has it."""
        return next(iter(list(self._main_level(self._root, name))[::-1]), None)

    def readers(self, path: str) -> frozenset[Block]:
        """Return the blocks by which nginx reads the file at the real path: server blocks of http, where it is included
        within one; else the `http`, `stream` or `mail` block, or the main level (named b"").
        """
        return frozenset(self._readers.get(path, ()))

    # --- following includes

    def _follow(self, file: File, above: tuple[str, ...], reader: Block, read: set[str]) -> None:
        """Note the file and what it includes. read: collects the files that the reader reads."""
        path = file.path
        if path in above:
            raise errors.SyntaxRefused("it includes itself", 1, 1, path)
        self.files[path] = file
        self._readers.setdefault(path, set()).add(reader)
        read.add(path)
        self._follow_all(file, file.outline, (*above, path), reader, read)

    def _follow_all(
        self,
        file: File,
        directives: Iterable[syntax.Directive],
        above: tuple[str, ...],
        reader: Block,
        read: set[str],
    ) -> None:
        for directive in directives:
            if directive.block is None:
                for target in self._included(directive):
                    self._follow(target, above, reader, read)
            elif directive.name not in _READERS.get(reader.name, ()):
                self._follow_all(file, directive.block, above, reader, read)
            else:
                inside: set[str] = set()
                if directive.name == b"server":
                    self._servers.append(_Server(file, directive, inside))
                self._follow_all(file, directive.block, above, _block(file, directive), inside)

    def _included(self, directive: syntax.Directive) -> tuple[File, ...]:
        """Return the files that a directive includes: none, unless it is an include."""
        if directive.name != b"include" or len(directive.arguments) != 1:
            return ()
        (pattern,) = directive.arguments
        if pattern not in self._targets:
            self._targets[pattern] = self._disk.targets(pattern)
        return self._targets[pattern]

    # --- statements with their includes

    def _statements(self, pick: Pick, wanted: Collection[Block] | None = None) -> tuple[Statement, ...]:
        return tuple(self._expand(self._root, pick(self._root, False), pick, wanted))

    def _expand(
        self,
        file: File,
        directives: Iterable[syntax.Directive],
        pick: Pick,
        wanted: Collection[Block] | None = None,
        *,
        is_in_server: bool = False,
    ) -> Iterator[Statement]:
        """Yield the file's directives as statements, and of included files the directives that `pick` picks.

        wanted: the server blocks that stay; None for all.
        """
        for directive in directives:
            children: tuple[Statement, ...] | None = None
            if directive.block is not None:
                is_server = directive.name == b"server" and not is_in_server
                if is_server and wanted is not None and _block(file, directive) not in wanted:
                    continue
                inside = is_in_server or is_server
                children = tuple(self._expand(file, directive.block, pick, wanted, is_in_server=inside))
            elif directive.name == b"include" and len(directive.arguments) == 1:
                children = tuple(
                    statement
                    for target in self._included(directive)
                    for statement in self._expand(
                        target, pick(target, is_in_server), pick, wanted, is_in_server=is_in_server
                    )
                )
            yield Statement(file.path, file.source, directive, children)

    def _main_level(self, file: File, name: bytes) -> Iterator[Statement]:
        for directive in file.outline:
            if directive.name == name and directive.block is None:
                yield Statement(file.path, file.source, directive)
            for target in self._included(directive):
                yield from self._main_level(target, name)

    # --- who could answer

    @cached_property
    def _index(self) -> _Index:
        index = _Index()
        for server in self._servers:
            file, directive = server.file, server.directive
            children = tuple(self._expand(file, directive.block or (), _outline))
            block = Statement(file.path, file.source, directive, children)
            may_proxy = bool(_MAY_PROXY_SEAFILE.search(file.source, directive.start, directive.end)) or any(
                _MAY_PROXY_SEAFILE.search(self.files[path].source) for path in server.read
            )
            index.add(block.block, tuple(block.flat()), may_proxy=may_proxy)
        return index


def _whole(file: File, is_in_server: bool) -> Sequence[syntax.Directive]:
    return file.tree.directives


def _outline(file: File, is_in_server: bool) -> Sequence[syntax.Directive]:
    return file.outline


def _block(file: File, directive: syntax.Directive) -> Block:
    return Block(directive.name, file.path, directive.start)


def _address(socket: str) -> str:
    """Return the address of a listen directive's first word, all of IPv6 (which has many spellings) as one."""
    if socket.startswith("unix:"):
        return socket
    if socket.startswith("["):
        return _EVERY_V6
    host = socket.partition(":")[0]
    if host.isdigit() or host in ("*", "0.0.0.0"):
        return _EVERY
    return "127.0.0.1" if host == "localhost" else host


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape").lower()
