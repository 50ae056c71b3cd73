"""The Seafile site: which server blocks it is made of, and what to write into them.

The law: everything that is put into a person's site is put in here, as insertions and commented-out lines; what cannot
be done safely is refused with a reason before anything is planned. Pure: statements in, edits out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from certbot_seafile import errors
from certbot_seafile.site import edits, model, syntax
from certbot_seafile.site.config import Block, Statement
from certbot_seafile.site.model import Listen, Server, Socket

CHALLENGE_PATH = "/.well-known/acme-challenge/"
_TOKEN_URI = CHALLENGE_PATH + "certbot-seafile"

_SEAFILE_LOCATION = re.compile(rb"/(?:seafhttp|seafmedia|seafdav)\b")
_SEAFILE_UPSTREAM = re.compile(rb":(?:8000|8082)(?:/|$|\s)")
_PASSES = (b"proxy_pass", b"fastcgi_pass")
_REDIRECTS = (b"return", b"rewrite", b"if")
_HEADER = b"proxy_set_header"
_STAPLING = (b"ssl_stapling", b"ssl_stapling_file", b"ssl_stapling_verify", b"ssl_stapling_responder")
_GUARD = rb"rewrite ^(/\.well-known/acme-challenge/.*)$ $1 break;"
_HSTS = b"Strict-Transport-Security"


@dataclass(frozen=True)
class Site:
    """The server blocks that answer for some names.

    tls: those that answer over TLS. plain: those that answer for HTTP-01. nameless: (server, name) pairs where nginx
    would choose another server unless the name is added. siblings: servers to make a missing one from.
    """

    domains: tuple[str, ...]
    tls: tuple[Server, ...]
    plain: tuple[Server, ...]
    nameless: tuple[tuple[Server, str], ...]
    every: tuple[Server, ...] = field(repr=False)
    readers: Callable[[str], Collection[Block]] = field(repr=False)

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files that hold the site."""
        return tuple(dict.fromkeys(server.path for server in (*self.plain, *self.tls)))


def is_seafile(server: Server) -> bool:
    """Tell whether the server proxies Seafile: its paths, Seahub's port or the file server's."""
    for statement in server.statement.walk():
        if statement.name == b"location" and any(_SEAFILE_LOCATION.search(word) for word in statement.arguments):
            return True
        if statement.name in _PASSES and any(_SEAFILE_UPSTREAM.search(word) for word in statement.arguments):
            return True
    return False


def is_nameless(server: Server) -> bool:
    """Tell whether the server's names name nobody: none, "_" and the like, or addresses."""
    return all("." not in name or _is_address(name) for name in server.names if not name.startswith("~"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def find(
    every: Sequence[Server],
    domains: Sequence[str],
    readers: Callable[[str], Collection[Block]],
    *,
    site_path: str | None = None,
    http_port: int = 80,
) -> Site:
    """Return the site that answers for the domains.

    every: the server blocks that could take part; readers: which blocks of the whole configuration read a file.
    Raises errors.SiteNotFound, errors.SiteAmbiguous, errors.SiteRefused.
    """
    tls: dict[Server, None] = {}
    plain: dict[Server, None] = {}
    nameless: dict[tuple[Server, str], None] = {}
    for domain in domains:
        members = _members(every, domain, site_path)
        own = set(model.sockets(members))
        for socket in filter(own.__contains__, model.sockets(every)):
            server, is_named = _answering(every, members, socket, domain)
            if server is None:
                continue
            listen = next(li for li in server.listens if li.socket == socket)
            if not server.is_tls(listen) and socket.port != http_port:
                continue
            (tls if server.is_tls(listen) else plain)[server] = None
            if not is_named:
                nameless[server, domain] = None
    if not plain:
        _refuse_other_ports(_members(every, domains[0], site_path), http_port)
    return Site(tuple(domains), tuple(tls), tuple(plain), tuple(nameless), tuple(every), readers)


def _refuse_other_ports(members: Sequence[Server], http_port: int) -> None:
    """Refuse a site that listens in clear, but not where the CA looks: a router may forward, and only people know."""
    clear = [(server, listen) for server in members for listen in server.listens if not server.is_tls(listen)]
    if clear:
        ports = ", ".join(dict.fromkeys(str(listen.socket.port) for _, listen in clear))
        raise errors.SiteRefused(
            f"the site in {clear[0][0]} listens on port {ports}, not on port {http_port}, where the CA looks: add "
            f"`listen {http_port};` to it, or name the port that port 80 is forwarded to with --http-01-port"
        )


def _answering(
    every: Sequence[Server], members: Sequence[Server], socket: Socket, domain: str
) -> tuple[Server | None, bool]:
    """Return the member that answers (or is to answer) on the socket, and whether nginx chooses it already."""
    asked = None if _is_address(domain) and _speaks_tls(every, socket) else domain
    chosen = model.choose(every, socket, asked)
    if chosen in members:
        return chosen, True
    here = [member for member in members if any(listen.socket == socket for listen in member.listens)]
    if not here:
        return None, True
    if _is_address(domain):
        raise errors.SiteRefused(
            f"a client that connects to {domain} is answered by {chosen}, the default server of port {socket.port}, "
            f"not by the Seafile site {here[0]}: add default_server to its listen line"
        )
    return here[0], False


def _speaks_tls(every: Sequence[Server], socket: Socket) -> bool:
    return any(s.is_tls(li) for s in model.on_socket(every, socket) for li in s.listens if li.socket == socket)


def _members(every: Sequence[Server], domain: str, site_path: str | None) -> list[Server]:
    """Return the server blocks that belong to the domain's site, whatever nginx chooses today."""
    if site_path is not None:
        pool = [server for server in every if _is_in(server, site_path)]
        if not pool:
            raise errors.SiteNotFound(
                f"nginx loads no server block from {site_path}: --seafile-site must name a file that it includes"
            )
        return _named(pool, domain) + [s for s in pool if is_nameless(s)] or pool
    if named := _named(every, domain):
        homes = {server.path for server in named}
        return named + [s for s in every if s.path in homes and is_nameless(s) and s not in named]
    return _recognised(every, domain)


def _is_in(server: Server, path: str) -> bool:
    return server.path == path or any(statement.path == path for statement in server.statement.walk())


def _named(every: Sequence[Server], domain: str) -> list[Server]:
    """Return the servers whose names match and that win some socket for the domain."""
    matching = [server for server in every if model.match_rank(server, domain) is not None]
    contested = set(model.sockets(matching))
    winners: dict[Server, None] = {}
    for socket in filter(contested.__contains__, model.sockets(every)):
        chosen = model.choose(every, socket, domain)
        if chosen is not None:
            exact = [server for server in model.on_socket(every, socket) if domain.lower() in server.names]
            rivals = [server for server in exact if server.path != chosen.path]
            if rivals and chosen in exact:
                _refuse_ambiguous(domain, [chosen, *rivals])
            winners[chosen] = None
    return list(winners)


def _recognised(every: Sequence[Server], domain: str) -> list[Server]:
    seafile = [server for server in every if is_seafile(server)]
    fitting = [server for server in seafile if is_nameless(server)]
    if not fitting and _is_address(domain):  # a request for an address names no server: the default one answers
        fitting = [server for server in seafile if _is_default(every, server)]
    if len({server.path for server in fitting}) > 1:
        _refuse_ambiguous(domain, fitting)
    if fitting:
        return fitting + [s for s in every if s.path == fitting[0].path and is_nameless(s) and s not in fitting]
    if seafile:
        others = "; ".join(f"{server} is for {', '.join(server.names)}" for server in seafile)
        raise errors.SiteNotFound(
            f"no Seafile site answers for {domain} ({others}): put the name into its server_name and run again"
        )
    raise errors.SiteNotFound(
        f"no Seafile site found for {domain}: no server_name that nginx loads matches it and no server block proxies "
        "Seafile; name the site's file with --seafile-site"
    )


def _is_default(every: Sequence[Server], server: Server) -> bool:
    return any(model.default_server(every, listen.socket) is server for listen in server.listens)


def _refuse_ambiguous(domain: str, candidates: Sequence[Server]) -> None:
    paths = sorted({server.path for server in candidates})
    raise errors.SiteAmbiguous(
        f"several files could be the Seafile site of {domain}: {', '.join(paths)}; name one with --seafile-site", paths
    )


# --- the challenge ---------------------------------------------------------------------------------------------------


def challenge_folder(server: Server) -> str | None:
    """Return the folder from which the server's own location answers challenges; None where it has none of its own."""
    location = model.location_for(server, _TOKEN_URI)
    if location is None or not any(b"well-known" in word for word in location.arguments):
        return None
    chain = _enclosing(server.statement, location)
    if any(statement.name in (b"proxy_pass", b"return", b"rewrite") for statement in location.flat()):
        return None
    for level in reversed([server.http, server.statement, *chain]):
        for statement in level.flat():
            if statement.name in (b"root", b"alias") and statement.arguments and b"$" not in statement.arguments[0]:
                return _served_folder(statement, level)
    return None


def _served_folder(statement: Statement, level: Statement) -> str | None:
    folder = statement.arguments[0].decode("utf-8", "surrogateescape")
    if statement.name == b"root":
        return folder.rstrip("/") + CHALLENGE_PATH.rstrip("/")
    modifier, prefix = model.location_path(level)
    if modifier in ("~", "~*", "="):
        return None
    # ngx_http_map_uri_to_path: the alias takes the place of the location's prefix, to the byte.
    return (folder + CHALLENGE_PATH[len(prefix) :]).rstrip("/")


def _enclosing(outer: Statement, wanted: Statement) -> list[Statement]:
    for child in outer.flat():
        if child is wanted:
            return [child]
        if child.name == b"location" and (below := _enclosing(child, wanted)):
            return [child, *below]
    return []


def wire_challenge(planned: edits.Edits, server: Server, webroot: str) -> None:
    """Let the server answer challenges from the webroot, whatever else it does with a request.

    A rewrite at server level runs before a location is chosen (ngx_http_core_server phase handlers), so a guard goes
    above the first of them; `^~` keeps regular expressions away from the location.
    """
    first = next((statement for statement in server.level(*_REDIRECTS)), None)
    if first is not None and not _has_guard(server, first):
        edits_before(planned, server, first, [_GUARD])
    if _has_location(server):
        return
    for same in _same_location(server):
        planned.comment_out(same)
    lines = _location_lines(server, webroot)
    if first is not None:
        anchor = _at_server(server, first)
        planned.insert_after(anchor, lines)
    else:
        _insert_statements(planned, server, lines)


def is_wired(server: Server) -> bool:
    """Tell whether the server answers challenges already, as far as its configuration tells."""
    first = next((statement for statement in server.level(*_REDIRECTS)), None)
    return challenge_folder(server) is not None and (first is None or _has_guard(server, first))


def _has_guard(server: Server, first: Statement) -> bool:
    words = first.arguments
    return first.name == b"rewrite" and words[-1:] == (b"break",) and b"acme-challenge" in words[0]


def _has_location(server: Server) -> bool:
    location = model.location_for(server, _TOKEN_URI)
    if location is None or model.location_path(location) != ("^~", CHALLENGE_PATH):
        return False
    return challenge_folder(server) is not None


def _same_location(server: Server) -> list[Statement]:
    # nginx refuses a second location of the same path, with "^~" or without (ngx_http_add_location).
    return [
        statement
        for statement in server.level(b"location")
        if statement.arguments and model.location_path(statement) in (("", CHALLENGE_PATH), ("^~", CHALLENGE_PATH))
    ]


def _location_lines(server: Server, webroot: str) -> list[bytes]:
    step = edits.indentation_step(server.statement)
    inner = [b"root " + syntax.quote(webroot.encode("utf-8", "surrogateescape")) + b";", b"default_type text/plain;"]
    inner += [b"auth_basic off;", b"allow all;"]
    if server.level(b"auth_request"):
        inner.append(b"auth_request off;")
    return [b"location ^~ /.well-known/acme-challenge/ {", *(step + line for line in inner), b"}"]


def _insert_statements(planned: edits.Edits, server: Server, lines: Sequence[bytes]) -> None:
    """Insert lines before the server's first location, behind what stands above it; else at the block's end."""
    own = [child for child in server.statement.children or () if child.path == server.path]
    index = next((i for i, child in enumerate(own) if child.name == b"location"), len(own))
    if index == 0 and own:
        planned.insert_before(own[0], lines)
    elif own:
        planned.insert_after(own[index - 1], lines)
    else:
        planned.insert_at_end(server.statement, lines)


def _at_server(server: Server, statement: Statement) -> Statement:
    """Return the statement of the server's own file through which `statement` comes: itself, or the include of it."""
    if statement.path == server.path and any(child is statement for child in server.statement.children or ()):
        return statement
    for child in server.statement.children or ():
        if child.name == b"include" and any(inner is statement for inner in child.walk()):
            return child
    return statement


def edits_before(planned: edits.Edits, server: Server, statement: Statement, lines: Sequence[bytes]) -> None:
    """Insert lines before the statement, or before the include that brings it."""
    planned.insert_before(_at_server(server, statement), lines)


# --- the certificate -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What the site is to use: two paths, the snippet's path, whether to include it, foreign pairs to keep."""

    fullchain: str
    key: str
    snippet: str
    is_stapled: bool
    kept: frozenset[str] = frozenset()

    @property
    def include(self) -> str:
        """Return the argument of the include line for the snippet."""
        return staple_include(self.snippet)

    @property
    def snippet_folder(self) -> str:
        """Return the start of the paths of all snippets of this package."""
        return self.snippet.rpartition("/")[0] + "/"


def _word(path: str) -> bytes:
    return syntax.quote(path.encode("utf-8", "surrogateescape"))


def install(planned: edits.Edits, site: Site, server: Server, wanted: Certificate) -> None:
    """Let a TLS server use the certificate and the staple's snippet, and comment out what they take the place of."""
    _refuse_variable(server, site)
    gone = [statement for statement in server.level(*_STAPLING) if not statement.path.startswith(wanted.snippet_folder)]
    gone += [statement for statement in _snippet_includes(server, wanted) if _path(statement) != wanted.include]
    for name, path in ((b"ssl_certificate", wanted.fullchain), (b"ssl_certificate_key", wanted.key)):
        replaced = [statement for statement in server.level(name) if _path(statement) not in wanted.kept | {path}]
        if not any(_path(statement) == path for statement in server.level(name)):
            _put_in_place(planned, server, replaced, name + b" " + _word(path) + b";")
        gone += replaced
    _drop(planned, site, server, gone)
    if wanted.is_stapled and wanted.include not in map(_path, _snippet_includes(server, wanted)):
        _insert_below_key(planned, server, b"include " + _word(wanted.include) + b";")


def strangers(server: Server, domains: Sequence[str]) -> list[str]:
    """Return the server's plain names that are none of the domains."""
    asked = {domain.lower() for domain in domains}
    plain = [name.lstrip(".") for name in server.names if not name.startswith("~") and "*" not in name]
    return [name for name in plain if "." in name and name not in asked and not _is_address(name)]


def _refuse_variable(server: Server, site: Site) -> None:
    """Refuse to put one certificate where a variable chooses among several."""
    others = strangers(server, site.domains)
    for statement in server.level(b"ssl_certificate"):
        if b"$" in statement.arguments[0] and others:
            raise errors.SiteRefused(
                f"{statement.path}:{statement.line} chooses a certificate by a variable, and {server} answers for "
                f"{', '.join(others)} too: name them all with -d, or give the Seafile site a server block of its own"
            )


def _path(statement: Statement) -> str:
    return statement.arguments[0].decode("utf-8", "surrogateescape")


def _put_in_place(planned: edits.Edits, server: Server, replaced: Sequence[Statement], line: bytes) -> None:
    if not replaced:
        _insert_near_names(planned, server, [line])
    elif (anchor := _at_server(server, replaced[0])) is replaced[0]:
        planned.replace(anchor, [line])
    else:
        planned.insert_after(anchor, [line])


def _drop(planned: edits.Edits, site: Site, server: Server, gone: Sequence[Statement]) -> None:
    """Comment statements out: where they stand, or, in a file that other servers read too, for this server alone.

    For this server alone means: its include is commented out, and what else the included file says takes its place.
    """
    own = {server.statement.block for server in site.tls}
    foreign: dict[Statement, None] = {}
    for statement in gone:
        anchor = _at_server(server, statement)
        if anchor is statement or own.issuperset(site.readers(statement.path)):
            planned.comment_out(statement)
        else:
            foreign[anchor] = None
    for include in foreign:
        rest = [statement for statement in include.flat() if statement not in gone]
        planned.replace(
            include, [statement.source[statement.directive.start : statement.directive.end] for statement in rest]
        )


def _snippet_includes(server: Server, wanted: Certificate) -> list[Statement]:
    children = server.statement.children or ()
    return [
        statement
        for statement in children
        if statement.name == b"include" and _path(statement).startswith(wanted.snippet_folder)
    ]


def pin(
    planned: edits.Edits,
    named: Sequence[Statement],
    own: Certificate,
    instead: Certificate,
    own_response: str,
    response: str,
) -> None:
    """Let another certificate and its staple stand in the place of our own lines, whoever reads them.

    named: the statements whose one argument is a path of ours. instead.is_stapled: whether the staple is at response.
    """
    staple = [b"ssl_stapling on;", b"ssl_stapling_file " + _word(response) + b";"] if instead.is_stapled else []
    lines = {
        (b"ssl_certificate", own.fullchain): [b"ssl_certificate " + _word(instead.fullchain) + b";"],
        (b"ssl_certificate_key", own.key): [b"ssl_certificate_key " + _word(instead.key) + b";"],
        (b"include", own.include): staple,
        (b"ssl_stapling_file", own_response): staple[1:],
    }
    for statement in named:
        if statement.path == own.snippet:
            continue
        if text := lines.get((statement.name, _path(statement))):
            planned.replace(statement, text)
        elif text is not None:
            planned.comment_out(statement)


_NEAR = (b"ssl_certificate", b"server_name", b"listen")


def _insert_near_names(
    planned: edits.Edits, server: Server, lines: Sequence[bytes], near: Sequence[bytes] = _NEAR
) -> None:
    """Insert lines below the last of such statements of the server's own file, else at its top."""
    own = [child for child in server.statement.children or () if child.path == server.path]
    anchors = [statement for statement in own if statement.name in near]
    if anchors:
        planned.insert_after(anchors[-1], lines)
    elif own:
        planned.insert_before(own[0], lines)
    else:
        planned.insert_at_end(server.statement, lines)


def _insert_below_key(planned: edits.Edits, server: Server, line: bytes) -> None:
    keys = [
        statement for statement in server.level(b"ssl_certificate_key") if _at_server(server, statement) is statement
    ]
    if keys:
        planned.insert_after(keys[-1], [line])
    else:
        _insert_near_names(planned, server, [line])


def add_name(planned: edits.Edits, server: Server, domain: str) -> None:
    """Let nginx choose the server for the domain: further server_name lines add up (ngx_http_core_server_name)."""
    line = b"server_name " + domain.encode("idna") + b";"
    _insert_near_names(planned, server, [line], near=(b"server_name", b"listen"))


# --- missing halves --------------------------------------------------------------------------------------------------


def add_plain_server(planned: edits.Edits, site: Site, server: Server, webroot: str, http_port: int) -> None:
    """Make the port-80 server of an HTTPS-only site: it answers challenges and redirects everything else."""
    step = edits.indentation_step(server.statement)
    taken = set(model.sockets(site.every))
    listens = [_mirrored(listen, http_port, taken, b"") for listen in server.listens if server.is_tls(listen)]
    names = b" ".join(name.encode("idna") for name in site.domains)
    _keep_default(planned, site, server, [_moved(li, http_port) for li in server.listens if server.is_tls(li)])
    body = [*dict.fromkeys(listens), b"server_name " + names + b";", *_location_lines(server, webroot)]
    ports = [listen.socket.port for listen in server.listens if server.is_tls(listen)]
    body += [b"location / {", step + _redirect_line(ports[0]), b"}"]
    planned.insert_after(server.statement, [b"", b"server {", *(step + line for line in body), b"}"])


def _keep_default(planned: edits.Edits, site: Site, newcomer: Server, sockets: Sequence[Socket]) -> None:
    """Let the default server of each socket stay it, where the newcomer would stand before it.

    The first server on a socket is its default unless one is marked (ngx_http_add_address), and nameless sites live by
    that: a site that begins to listen must not take their clients.
    """
    for socket in sockets:
        current = model.default_server(site.every, socket)
        if current is None or site.every.index(current) < site.every.index(newcomer):
            continue
        for listen in current.listens:
            if listen.socket == socket and not listen.is_default and listen.statement is not None:
                directive = listen.statement.directive
                text = listen.statement.source[directive.start : directive.end].rstrip(b"; \t\r\n")
                planned.replace(listen.statement, [text + b" default_server;"])


def _moved(listen: Listen, port: int) -> Socket:
    return Socket(listen.socket.address, port)


def _mirrored(listen: Listen, port: int, taken: set[Socket], extra: bytes) -> bytes:
    socket = _moved(listen, port)
    if socket.is_v6:
        address = f"[{socket.address}]:{port}"
    else:
        address = str(port) if socket.address == "*" else f"{socket.address}:{port}"
    words = [b"listen", address.encode(), *([extra] if extra else [])]
    if listen.has_proxy_protocol:
        words.append(b"proxy_protocol")
    if socket not in taken:
        # These describe the socket itself and may stand only once for it (ngx_http_core_listen).
        words += [word for word in listen.parameters if word.startswith(b"ipv6only=")]
    return b" ".join(words) + b";"


def add_tls(planned: edits.Edits, site: Site, server: Server, wanted: Certificate, https_port: int) -> None:
    """Let an HTTP-only server speak TLS too: it redirects to it, and Seahub learns that the client came by https."""
    taken = set(model.sockets(site.every))
    plain = [
        listen
        for listen in server.listens
        if not server.is_tls(listen) and not listen.socket.address.startswith("unix:")
    ]
    lines = [*dict.fromkeys(_mirrored(listen, https_port, taken, b"ssl") for listen in plain)]
    _keep_default(planned, site, server, [_moved(listen, https_port) for listen in plain])
    if not server.level(b"listen"):
        lines.insert(0, b"listen 80;")
    lines += [b"ssl_certificate " + _word(wanted.fullchain) + b";", b"ssl_certificate_key " + _word(wanted.key) + b";"]
    if wanted.is_stapled:
        lines.append(b"include " + _word(wanted.include) + b";")
    _insert_near_names(planned, server, lines)
    redirect(planned, server, https_port, is_shared=True)
    _tell_seahub(planned, server)


def _redirect_line(https_port: int) -> bytes:
    port = b"" if https_port == 443 else b":%d" % https_port
    return b"return 301 https://$host" + port + b"$request_uri;"


def redirects_all(server: Server) -> bool:
    """Tell whether the server redirects every plain request at its own level."""
    for statement in server.level(b"return", b"rewrite"):
        if any(b"https://" in word for word in statement.arguments):
            return True
    return any(
        b"https://" in word
        for block in server.level(b"if")
        for statement in block.flat()
        for word in statement.arguments
    ) or any(
        b"https://" in word
        for location in server.level(b"location")
        if model.location_path(location) in (("", "/"), ("^~", "/"))
        for statement in location.flat()
        if statement.name in (b"return", b"rewrite")
        for word in statement.arguments
    )


def redirect(planned: edits.Edits, server: Server, https_port: int, *, is_shared: bool) -> None:
    """Redirect what comes in clear to https, the challenge excepted.

    is_shared: the server speaks TLS too, so that only what came in clear may be redirected.
    """
    lines = [_redirect_line(https_port)]
    if is_shared:
        lines = [b"if ($scheme = http) {", edits.indentation_step(server.statement) + lines[0], b"}"]
    first = next(iter(server.level(*_REDIRECTS)), None)
    if first is not None:
        edits_before(planned, server, first, lines)
    else:
        _insert_statements(planned, server, [_GUARD, *lines])


def _tell_seahub(planned: edits.Edits, server: Server) -> None:
    """Let every proxied request say https; own headers of a level hide outer ones (ngx_http_proxy_merge_loc_conf)."""
    line = b"proxy_set_header X-Forwarded-Proto https;"
    locations = [inner for inner in server.statement.walk() if inner.name == b"location"]
    for level in (server.statement, *locations):
        headers = [child for child in level.children or () if child.name == _HEADER]
        if headers and not _says_proto(headers):
            planned.insert_after(headers[-1], [line])
    if not server.level(_HEADER) and any(_passes_outer_headers(location) for location in locations):
        outer = [statement for statement in server.http.flat() if statement.name == _HEADER]
        copies = [statement.source[statement.directive.start : statement.directive.end] for statement in outer]
        _insert_near_names(planned, server, copies if _says_proto(outer) else [*copies, line])


def _says_proto(headers: Sequence[Statement]) -> bool:
    return any(
        statement.arguments[:1] and statement.arguments[0].lower() == b"x-forwarded-proto" for statement in headers
    )


def _passes_outer_headers(location: Statement) -> bool:
    own = {child.name for child in location.flat()}
    return b"proxy_pass" in own and _HEADER not in own


def has_hsts(server: Server) -> bool:
    """Tell whether the server sends Strict-Transport-Security at its own level (RFC 6797)."""
    return any(
        statement.arguments[:1] and statement.arguments[0].lower() == _HSTS.lower()
        for statement in server.level(b"add_header")
    )


def add_hsts(planned: edits.Edits, server: Server) -> None:
    """Send Strict-Transport-Security for a year with every answer of the server (RFC 6797 6.1)."""
    _insert_near_names(planned, server, [b'add_header Strict-Transport-Security "max-age=31536000" always;'])


def staple_include(snippet_path: str) -> str:
    """Return the include pattern for the snippet: a pattern, because nginx accepts one that matches nothing."""
    stem = snippet_path.removesuffix(".conf")
    return "".join(f"[{char}]" if char in "*?[" else char for char in stem) + "[.]conf"
