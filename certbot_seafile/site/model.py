"""nginx's server blocks, and which of them nginx itself would choose.

The law: whatever nginx decides from its configuration alone (sockets, what they speak, names, locations) is decided
here in the same way, with nginx's source named; nothing here knows what we want. Pure: statements in, facts out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import chain

from certbot_seafile.site.config import Statement, flat, text


@dataclass(frozen=True)
class Socket:
    """What a listen directive opens: address ("*", an IP address, or "unix:…") and port (0 for unix)."""

    address: str
    port: int

    def __str__(self) -> str:
        if self.address.startswith("unix:"):
            return self.address
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def wildcard(self) -> Socket:
        """Return the socket for all addresses of its family, on its port; of a unix socket, itself."""
        if self.address.startswith("unix:"):
            return self
        return Socket("::" if ":" in self.address else "*", self.port)

    @property
    def is_named(self) -> bool:
        """Tell whether it is written with a host's name, so that it may be any address."""
        return self.address != "*" and not self.address.startswith("unix:") and not is_address(self.address)

    @property
    def is_internal(self) -> bool:
        """Tell whether nobody reaches it but this machine itself."""
        return self.address.startswith(("unix:", "127.")) or self.address == "::1"


@dataclass(frozen=True)
class Listen:
    """What a listen directive says of a socket; statement is None for nginx's implied `listen 80`."""

    parameters: tuple[bytes, ...] = ()
    statement: Statement | None = None

    @property
    def is_default(self) -> bool:
        """Tell whether it makes its server the default of the socket."""
        return b"default_server" in self.parameters or b"default" in self.parameters


@dataclass(frozen=True, eq=False)
class Server:
    """One server block of http, with the http-level statements it inherits from.

    spoken: by socket, all that any server block says about it: `ssl`, `proxy_protocol` and the like are the socket's.
    """

    statement: Statement
    http: Statement
    spoken: dict[Socket, set[bytes]] = field(repr=False)

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
    def sockets(self) -> dict[Socket, Listen]:
        """Return what it listens on; nginx implies *:80 where it says nothing (ngx_http_core_server)."""
        statements = self.level(b"listen")
        return dict(chain.from_iterable(map(_read_listen, statements))) if statements else {Socket("*", 80): Listen()}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return its server_name arguments, lower case; ("",) where there are none (ngx_http_core_server_name)."""
        names = [text(name) for statement in self.level(b"server_name") for name in statement.arguments]
        return tuple(name if name.startswith("~") else name.lower() for name in names) or ("",)

    def is_tls(self, socket: Socket) -> bool:
        """Tell whether it speaks TLS on a socket of its own."""
        return b"ssl" in self.spoken[socket]


def _read_listen(statement: Statement) -> list[tuple[Socket, Listen]]:
    """Read a listen directive (ngx_http_core_listen): the sockets of its ports; none where it speaks QUIC."""
    words = statement.arguments
    sockets = _sockets(text(words[0])) if words and b"quic" not in words[1:] else ()
    return [(socket, Listen(words[1:], statement)) for socket in sockets]


@lru_cache(maxsize=4096)  # many servers listen on the same sockets
def _sockets(written: str) -> tuple[Socket, ...]:
    if written.startswith("unix:"):
        return (Socket(written, 0),)
    parts = re.fullmatch(r"(?:(\[[^]]+\]|[^:]*[^:\d-][^:]*)(?::|\Z))?(?:(\d+)(?:-(\d+))?)?", written)
    if parts is None:
        return ()
    host = (parts[1] or "*").strip("[]")
    first = int(parts[2] or 80)
    address = "*" if host == "0.0.0.0" else _address(host)
    return tuple(Socket(address, port) for port in range(first, int(parts[3] or first) + 1))


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


def covers(names: Iterable[str], name: str) -> bool:
    """Tell whether names, in lower case, hold this one, or a wildcard for its left-most label (RFC 6125 6.4.3)."""
    return not {name, name.lower(), f"*.{name.lower().partition('.')[2]}"}.isdisjoint(names)


def http_servers(statements: Iterable[Statement]) -> tuple[Server, ...]:
    """Return the server blocks of every http block, in nginx's order."""
    spoken: dict[Socket, set[bytes]] = {}
    servers = tuple(
        Server(child, block, spoken)
        for block in flat(statements)
        if block.name == b"http" and block.directive.block is not None
        for child in block.named(b"server")
        if child.directive.block is not None
    )
    for server in servers:
        for socket, listen in server.sockets.items():
            spoken.setdefault(socket, set()).update(listen.parameters)
    _hear_ssl_on(servers, spoken)
    for words in spoken.values():
        words -= {b"default_server", b"default"}
    return servers


def _hear_ssl_on(servers: Sequence[Server], spoken: dict[Socket, set[bytes]]) -> None:
    """Note the sockets whose default server says `ssl on`, gone since nginx 1.25 (ngx_http_init_connection)."""
    of_http = {block: block.named(b"ssl") for block in dict.fromkeys(server.http for server in servers)}
    for server in servers:
        statements = server.level(b"ssl") or of_http[server.http]
        if statements and statements[-1].arguments == (b"on",):
            for socket in server.sockets:
                if default_server(servers, socket) is server:
                    spoken[socket].add(b"ssl")


def sockets(servers: Iterable[Server]) -> tuple[Socket, ...]:
    """Return every socket once, in order of appearance."""
    return tuple(dict.fromkeys(socket for server in servers for socket in server.sockets))


def on_socket(servers: Iterable[Server], socket: Socket) -> list[Server]:
    """Return the servers that listen on exactly this socket, in order."""
    return [server for server in servers if socket in server.sockets]


def socket_at(servers: Iterable[Server], socket: Socket) -> Socket | None:
    """Return the socket that takes what arrives at an address and port: of this address, else of all of its family.

    Else, for IPv4, the one that is for both families (ipv6(7): IPV6_V6ONLY). None where nginx does not listen there.
    """
    known = {each: server.spoken for server in servers for each in server.sockets}
    both = Socket("::", socket.port)
    if b"ipv6only=off" not in known.get(both, {}).get(both, ()):
        both = socket
    return next((one for one in (socket, socket.wildcard, both) if one in known), None)


def places(servers: Iterable[Server], socket: Socket) -> list[Socket]:
    """Return where a server block must listen to be reached at an address and port, and nobody loses a client by it.

    A socket on an address takes that address's clients from the wildcard; and a running nginx cannot open the wildcard
    where it holds sockets on addresses of the same port (bind(2): EADDRINUSE). Empty where that is so, and only this
    machine reaches those.
    """
    known = sockets(servers)
    if (present := socket_at(servers, socket)) is not None:
        return [present]
    held = [one for one in known if one.wildcard == socket]
    return [one for one in held if not one.is_internal] if held else [socket]


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
        return (3, 0) if matches(written[1:], name, ignore_case=True) else None
    if written == f".{name}":  # which is both "example.com" and "*.example.com" (ngx_hash_add_key)
        return (0, 0)
    end = written.removeprefix("*")
    if end.startswith("."):
        return (1, -len(end)) if name.endswith(end) and name != end else None
    if written.endswith(".*"):
        return (2, -len(written)) if name.startswith(written[:-1]) and len(name) >= len(written) else None
    return (0, 0) if written == name and name else None


def matches(pattern: str, subject: str, *, ignore_case: bool = False) -> bool:
    """Tell whether a PCRE pattern matches, as far as Python reads it; one that it cannot read matches nothing."""
    try:
        compiled = re.compile(re.sub(r"\(\?P?<(\w)", r"(?P<\1", pattern), re.IGNORECASE if ignore_case else 0)
    except re.error:
        return False
    return compiled.search(subject) is not None


def owner(servers: Sequence[Server], socket: Socket, name: str) -> Server | None:
    """Return the server that answers on this socket for a name as it is written in server_name.

    For a wildcard, that is the one which answers for a name below it that no block has; for a regular expression, the
    first that has the expression, else the default server.
    """
    if name.startswith("~"):
        having = [server for server in on_socket(servers, socket) if name in server.names]
        return having[0] if having else default_server(servers, socket)
    return choose(servers, socket, name.lstrip(".").replace("*", "certbot-seafile"))


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
    path: list[Statement] = []
    chosen = _location_at(server.statement, uri)
    while chosen is not None:
        path.append(chosen)
        chosen = None if chosen.arguments[0] in (b"~", b"~*") else _location_at(chosen, uri)
    return path


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
        if modifier in ("~", "~*") and matches(written, uri, ignore_case=modifier == "~*"):
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
