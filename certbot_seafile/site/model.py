"""nginx's server blocks, and which of them nginx itself would choose.

The law: whatever nginx decides from its configuration alone (listen sockets, names, locations) is decided here in the
same way, with nginx's source named; nothing here knows what we want. Pure: statements in, facts out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from certbot_seafile.site.config import Statement, flat, text


@dataclass(frozen=True)
class Socket:
    """What a listen directive opens: address ("*", an IP address, or "unix:…") and port (0 for unix)."""

    address: str
    port: int


@dataclass(frozen=True)
class Listen:
    """One listen directive, read (ngx_http_core_listen); statement is None for nginx's implied `listen 80`."""

    socket: Socket
    parameters: tuple[bytes, ...] = ()
    statement: Statement | None = None

    @property
    def is_default(self) -> bool:
        """Tell whether it makes its server the default of the socket."""
        return b"default_server" in self.parameters or b"default" in self.parameters


@dataclass(frozen=True, eq=False)
class Server:
    """One server block of http, with the http-level statements it inherits from."""

    statement: Statement
    http: Statement

    @property
    def path(self) -> str:
        """Return the file that holds the block."""
        return self.statement.path

    def __str__(self) -> str:
        return f"{self.path}:{self.statement.line}"

    def level(self, *names: bytes) -> list[Statement]:
        """Return the statements with one of these names that stand at the server's own level."""
        return self.statement.named(*names)

    def effective(self, name: bytes) -> Statement | None:
        """Return the statement of this name that applies to the server: its own, else http's (the last of them)."""
        statements = self.level(name) or self.http.named(name)
        return statements[-1] if statements else None

    @cached_property
    def listens(self) -> tuple[Listen, ...]:
        """Return what it listens on; nginx implies *:80 where it says nothing (ngx_http_core_server)."""
        statements = self.level(b"listen")
        return tuple(filter(None, map(_read_listen, statements))) if statements else (Listen(Socket("*", 80)),)

    @cached_property
    def sockets(self) -> dict[Socket, Listen]:
        """Return what it listens on by socket."""
        return {listen.socket: listen for listen in self.listens}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return its server_name arguments, lower case; ("",) where there are none (ngx_http_core_server_name)."""
        names = [text(name) for statement in self.level(b"server_name") for name in statement.arguments]
        return tuple(name if name.startswith("~") else name.lower() for name in names) or ("",)

    @cached_property
    def _is_ssl_on(self) -> bool:
        # Gone since nginx 1.25.
        statement = self.effective(b"ssl")
        return statement is not None and statement.arguments == (b"on",)

    def is_tls(self, listen: Listen) -> bool:
        """Tell whether this listen of it speaks TLS."""
        return b"ssl" in listen.parameters or self._is_ssl_on


def _read_listen(statement: Statement) -> Listen | None:
    """Read a listen directive; None where it is no single socket (a port range) or speaks QUIC."""
    words = statement.arguments
    socket = _socket(text(words[0])) if words and b"quic" not in words[1:] else None
    return Listen(socket, words[1:], statement) if socket else None


def _socket(written: str) -> Socket | None:
    if written.startswith("unix:"):
        return Socket(written, 0)
    parts = re.fullmatch(r"(\[[^]]+\]|[^:]+)(?::(\d+))?", written)
    if parts is None:
        return None
    host, port = ("*", parts[1]) if parts[1].isdigit() else (parts[1].strip("[]"), parts[2] or "80")
    return Socket("*" if host == "0.0.0.0" else _address(host), int(port))


def _address(written: str) -> str:
    if written == "localhost":
        return "127.0.0.1"
    return str(ipaddress.ip_address(written)) if is_address(written) else written.lower()


def is_address(name: str) -> bool:
    """Tell whether a name is an IP address, with brackets around it or without."""
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def http_servers(statements: Iterable[Statement]) -> tuple[Server, ...]:
    """Return the server blocks of every http block, in nginx's order."""
    return tuple(
        Server(child, block)
        for block in flat(statements)
        if block.name == b"http" and block.directive.block is not None
        for child in block.named(b"server")
        if child.directive.block is not None
    )


def sockets(servers: Iterable[Server]) -> tuple[Socket, ...]:
    """Return every socket once, in order of appearance."""
    return tuple(dict.fromkeys(socket for server in servers for socket in server.sockets))


def on_socket(servers: Iterable[Server], socket: Socket) -> list[Server]:
    """Return the servers that listen on exactly this socket, in order."""
    return [server for server in servers if socket in server.sockets]


def default_server(servers: Iterable[Server], socket: Socket) -> Server | None:
    """Return the socket's default server: the one marked so, else the first (ngx_http_add_address)."""
    here = on_socket(servers, socket)
    return next((server for server in here if server.sockets[socket].is_default), here[0] if here else None)


def match_rank(server: Server, name: str) -> tuple[int, int] | None:
    """Return how well the server's names match, smaller is better; None where none does.

    nginx's order (ngx_http_find_virtual_server, ngx_hash_find_combined): exact, longest leading wildcard, longest
    trailing wildcard, first regular expression.
    """
    ranks = [rank for written in server.names if (rank := _name_rank(written, name.lower())) is not None]
    return min(ranks, default=None)


def _name_rank(written: str, name: str) -> tuple[int, int] | None:
    if written.startswith("~"):
        # The name is in lower case already (ngx_http_validate_host), and a pattern with a capital letter in it is
        # matched without regard to case (ngx_http_core_server_name): so none is a matter of case.
        return (3, 0) if _matches(written[1:], name, ignore_case=True) else None
    if written == f".{name}":  # which is both "example.com" and "*.example.com" (ngx_hash_add_key)
        return (0, 0)
    end = written.removeprefix("*")
    if end.startswith("."):
        return (1, -len(end)) if name.endswith(end) and name != end else None
    if written.endswith(".*"):
        return (2, -len(written)) if name.startswith(written[:-1]) and len(name) >= len(written) else None
    return (0, 0) if written == name and name else None


def _matches(pattern: str, subject: str, *, ignore_case: bool) -> bool:
    """Tell whether a PCRE pattern matches, as far as Python reads it; one that it cannot read matches nothing."""
    try:
        compiled = re.compile(re.sub(r"\(\?P?<(\w)", r"(?P<\1", pattern), re.IGNORECASE if ignore_case else 0)
    except re.error:
        return False
    return compiled.search(subject) is not None


def choose(servers: Sequence[Server], socket: Socket, name: str | None) -> Server | None:
    """Return the server that nginx would hand a request for name on this socket (name None: no SNI)."""
    here = on_socket(servers, socket)
    if name is not None:
        ranked = [(rank, i) for i, server in enumerate(here) if (rank := match_rank(server, name)) is not None]
        if ranked:
            return here[min(ranked)[1]]
    return default_server(servers, socket)


def locations_for(server: Server, uri: str) -> list[Statement]:
    """Return the location that nginx would choose for uri (ngx_http_core_find_location), behind those around it."""
    chain: list[Statement] = []
    chosen = _location_at(server.statement, uri)
    while chosen is not None:
        chain.append(chosen)
        chosen = None if chosen.arguments[0] in (b"~", b"~*") else _location_at(chosen, uri)
    return chain


def _location_at(level: Statement, uri: str) -> Statement | None:
    locations = [(*location_path(child), child) for child in level.named(b"location") if child.arguments]
    exact = [child for modifier, written, child in locations if (modifier, written) == ("=", uri)]
    if exact:
        return exact[0]
    prefixes = [row for row in locations if row[0] in ("", "^~") and uri.startswith(row[1])]
    modifier, _, best = max(prefixes, key=lambda row: len(row[1]), default=("", "", None))
    if best is not None:
        inner = _location_at(best, uri)
        if modifier == "^~" or (inner is not None and location_path(inner)[0] in ("~", "~*")):
            return best
    for modifier, written, child in locations:
        if modifier in ("~", "~*") and _matches(written, uri, ignore_case=modifier == "~*"):
            return child
    return best


def location_path(statement: Statement) -> tuple[str, str]:
    """Return a location's modifier ("", "=", "^~", "~", "~*", "@") and path; nginx also takes `=/x` as one word."""
    words = [text(word) for word in statement.arguments]
    if len(words) >= 2:
        return words[0], words[1]
    for modifier in ("^~", "~*", "~", "=", "@"):
        if words[0].startswith(modifier):
            return modifier, words[0][len(modifier) :]
    return "", words[0]
