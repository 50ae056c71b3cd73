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

from certbot_seafile.site.config import Statement


@dataclass(frozen=True)
class Socket:
    """What a listen directive opens: address ("*", an IP address, or "unix:…") and port (0 for unix)."""

    address: str
    port: int

    @property
    def is_wildcard(self) -> bool:
        """Tell whether it takes connections to every address of its family."""
        return self.address in ("*", "::")

    @property
    def is_v6(self) -> bool:
        """Tell whether the address is one of IPv6."""
        return ":" in self.address and not self.address.startswith("unix:")


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

    @property
    def is_ssl(self) -> bool:
        """Tell whether the socket speaks TLS over TCP by this directive."""
        return b"ssl" in self.parameters

    @property
    def has_proxy_protocol(self) -> bool:
        """Tell whether a connection must open with the PROXY protocol's line."""
        return b"proxy_protocol" in self.parameters


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
        return [child for child in self.statement.flat() if child.name in names]

    def effective(self, name: bytes) -> Statement | None:
        """Return the statement of this name that applies to the server: its own, else http's (the last of them)."""
        statements = self.level(name) or [child for child in self.http.flat() if child.name == name]
        return statements[-1] if statements else None

    @cached_property
    def listens(self) -> tuple[Listen, ...]:
        """Return what it listens on; nginx implies *:80 where it says nothing (ngx_http_core_server)."""
        listens = [listen for statement in self.level(b"listen") if (listen := read_listen(statement)) is not None]
        return tuple(listens) if self.level(b"listen") else (Listen(Socket("*", 80)),)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return its server_name arguments, lower case; ("",) where there are none (ngx_http_core_server_name)."""
        names = [name for statement in self.level(b"server_name") for name in statement.arguments]
        return tuple(_text(name) if name.startswith(b"~") else _text(name).lower() for name in names) or ("",)

    @cached_property
    def is_ssl_on(self) -> bool:
        """Tell whether the old `ssl on` makes every socket of it speak TLS (gone since nginx 1.25)."""
        statement = self.effective(b"ssl")
        return statement is not None and statement.arguments == (b"on",)

    def is_tls(self, listen: Listen) -> bool:
        """Tell whether this listen of it speaks TLS."""
        return listen.is_ssl or (self.is_ssl_on and b"quic" not in listen.parameters)


def _text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


def read_listen(statement: Statement) -> Listen | None:
    """Read a listen directive; None where it is no single socket (a port range) or speaks QUIC."""
    words = statement.arguments
    if not words or b"quic" in words[1:]:
        return None
    address, port = _split_address(_text(words[0]))
    if port is None:
        return None
    return Listen(Socket(address, port), words[1:], statement)


def _split_address(written: str) -> tuple[str, int | None]:
    if written.startswith("unix:"):
        return written, 0
    if bracketed := re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", written):
        return str(_address(bracketed.group(1))), int(bracketed.group(2) or 80)
    if written.isdigit():
        return "*", int(written)
    host, _, port = written.partition(":")
    if port and not port.isdigit():
        return host, None
    return ("*" if host in ("*", "0.0.0.0") else str(_address(host))), int(port or 80)


def _address(written: str) -> str:
    if written == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        return written.lower()


def http_servers(statements: Iterable[Statement]) -> tuple[Server, ...]:
    """Return the server blocks of every http block, in nginx's order."""
    top = [inner for outer in statements for inner in (outer.flat() if outer.name == b"include" else [outer])]
    return tuple(
        Server(child, block)
        for block in top
        if block.name == b"http" and block.directive.block is not None
        for child in block.flat()
        if child.name == b"server" and child.directive.block is not None
    )


def sockets(servers: Iterable[Server]) -> tuple[Socket, ...]:
    """Return every socket once, in order of appearance."""
    return tuple(dict.fromkeys(listen.socket for server in servers for listen in server.listens))


def on_socket(servers: Iterable[Server], socket: Socket) -> list[Server]:
    """Return the servers that listen on exactly this socket, in order."""
    return [server for server in servers if any(listen.socket == socket for listen in server.listens)]


def default_server(servers: Sequence[Server], socket: Socket) -> Server | None:
    """Return the socket's default server: the one marked so, else the first (ngx_http_add_address)."""
    here = on_socket(servers, socket)
    marked = [s for s in here if any(li.is_default and li.socket == socket for li in s.listens)]
    return next(iter(marked or here), None)


def match_rank(server: Server, name: str) -> tuple[int, int] | None:
    """Return how well the server's names match, smaller is better; None where none does.

    nginx's order (ngx_http_find_virtual_server, ngx_hash_find_combined): exact, longest leading wildcard, longest
    trailing wildcard, first regular expression.
    """
    ranks = [rank for written in server.names if (rank := _name_rank(written, name.lower())) is not None]
    return min(ranks, default=None)


def _name_rank(written: str, name: str) -> tuple[int, int] | None:
    if written.startswith("~"):
        return (3, 0) if _regex_matches(written[1:], name) else None
    if written.startswith("."):
        return _dotted_rank(written, name)
    if written.startswith("*."):
        return (1, -len(written)) if name.endswith(written[1:]) and len(name) >= len(written) else None
    if written.endswith(".*"):
        return (2, -len(written)) if name.startswith(written[:-1]) and len(name) >= len(written) else None
    return (0, 0) if written == name and name else None


def _dotted_rank(written: str, name: str) -> tuple[int, int] | None:
    # ".example.com" is both "example.com" and "*.example.com" (ngx_hash_add_key).
    if name == written[1:]:
        return (0, 0)
    return (1, -len(written) - 1) if name.endswith(written) else None


def _regex_matches(pattern: str, name: str) -> bool:
    # The name is in lower case already (ngx_http_validate_host), and a pattern with a capital letter in it is matched
    # without regard to case (ngx_http_core_server_name): so none is a matter of case.
    return _matches(pattern, name, ignore_case=True)


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


def location_for(server: Server, uri: str) -> Statement | None:
    """Return the location block that nginx would choose for uri (ngx_http_core_find_location), nested ones included."""
    chosen: Statement | None = None
    level: Statement | None = server.statement
    while level is not None:
        level = _location_at(level, uri)
        if level is not None:
            chosen = level
            if level.arguments[:1] in ((b"~",), (b"~*",)):
                break
    return chosen


def _location_at(level: Statement, uri: str) -> Statement | None:
    prefixes: list[tuple[int, Statement]] = []
    regexes: list[Statement] = []
    for statement in level.flat():
        if statement.name != b"location" or not statement.arguments:
            continue
        modifier, written = location_path(statement)
        if modifier == "=" and written == uri:
            return statement
        if modifier in ("", "^~") and uri.startswith(written):
            prefixes.append((len(written), statement))
        elif modifier in ("~", "~*"):
            regexes.append(statement)
    best = max(prefixes, key=lambda prefix: prefix[0], default=(0, None))[1]
    if best is not None and location_path(best)[0] == "^~":
        return best
    inner = _location_at(best, uri) if best is not None else None
    if inner is not None and location_path(inner)[0] in ("~", "~*"):
        return best
    for statement in regexes:
        modifier, written = location_path(statement)
        if _matches(written, uri, ignore_case=modifier == "~*"):
            return statement
    return best


def location_path(statement: Statement) -> tuple[str, str]:
    """Return a location's modifier ("", "=", "^~", "~", "~*", "@") and path; nginx also takes `=/x` as one word."""
    words = [_text(word) for word in statement.arguments]
    if len(words) >= 2:
        return words[0], words[1]
    for modifier in ("^~", "~*", "~", "=", "@"):
        if words[0].startswith(modifier):
            return modifier, words[0][len(modifier) :]
    return "", words[0]
