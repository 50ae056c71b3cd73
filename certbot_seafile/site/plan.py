"""What to write into the Seafile site's server blocks.

The law: everything that is put into a person's site is put in here, as insertions and commented-out lines; what cannot
be done safely is refused with a reason before anything is planned. Pure: statements in, edits out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

from certbot_seafile import errors
from certbot_seafile.site import edits, find, model, syntax
from certbot_seafile.site.config import Statement, flat, text
from certbot_seafile.site.find import Site
from certbot_seafile.site.model import Server, Socket

CHALLENGE_PATH = "/.well-known/acme-challenge/"
_TOKEN_URI = CHALLENGE_PATH + "certbot-seafile"

_REDIRECTS = (b"return", b"rewrite", b"if")
_HEADER = b"proxy_set_header"
_HSTS = b"strict-transport-security"
# What Seahub and the others need to know behind a proxy, as Seafile's manual says it.
_TOLD = (b"Host $http_host", b"X-Forwarded-For $proxy_add_x_forwarded_for", b"X-Forwarded-Proto $scheme")
_UPSTREAM_HOST = re.compile(rb"://([^/:\[]+)")
_STAPLING = (b"ssl_stapling", b"ssl_stapling_file", b"ssl_stapling_verify", b"ssl_stapling_responder")
_GUARD = rb"rewrite ^(/\.well-known/acme-challenge/.*)$ $1 break;"
# nginx refuses an alias where a break has ended the rewriting (ngx_http_map_uri_to_path).
_GUARD_OF_ALIAS = _GUARD.replace(b"break", b"last")
_NO_LINKS = b"disable_symlinks on from=$document_root;"
# With this header comes what another machine has passed on, which would go round and round where two do so.
_ENDS_LOOPS = b"if ($http_certbot_seafile_forwarded) { return 508; }"
# The path is passed on as it is, since proxy_pass has none, and nothing else: a body that is not passed must not be
# announced either (ngx_http_proxy_create_request takes Content-Length from the request).
_FORWARD = (
    b"limit_except GET { deny all; }",
    _ENDS_LOOPS,
    b"proxy_pass_request_headers off;",
    b"proxy_pass_request_body off;",
    b"proxy_set_header Host $host;",
    b'proxy_set_header Content-Length "";',
    b"proxy_set_header Certbot-Seafile-Forwarded 1;",
    b"proxy_connect_timeout 5s;",
    b"proxy_send_timeout 5s;",
    b"proxy_read_timeout 5s;",
)
_PAIR = (b"ssl_certificate", b"ssl_certificate_key")
_NAMES = (b"server_name", b"listen")
_NEAR = (b"ssl_certificate", *_NAMES)
# What listen lines of several servers may say of a socket; the rest may stand only once (ngx_http_add_addresses).
_REPEATED = (b"ssl", b"http2", b"spdy", b"proxy_protocol", b"quic")


# --- where lines are put ---------------------------------------------------------------------------------------------


def _insert(planned: edits.Edits, server: Server, lines: Sequence[bytes], *anchors: Collection[bytes]) -> None:
    """Insert lines below the last statement of such a name in the server's own file; else at the block's top.

    anchors: names, or further ones where there is none of the first. Without any: above the first location.
    """
    own = server.statement.children
    groups = [[statement for statement in own if statement.name in names] for names in anchors]
    groups += [] if anchors else [[*takewhile(lambda statement: statement.name != b"location", own)]]
    above = next(filter(None, groups), None)
    if above:
        planned.insert_after(above[-1], lines)
    elif own:
        planned.insert_before(own[0], lines)
    else:
        planned.insert_at_end(server.statement, lines)


def _at(level: Statement, statement: Statement) -> Statement:
    """Return the statement in a block's own file through which one of its level comes: itself, or the include of it."""
    includes = (child for child in level.children if child.name == b"include")
    return next((child for child in includes if statement in child.walk()), statement)


def _word(written: str) -> bytes:
    return syntax.quote(written.encode("utf-8", "surrogateescape"))


def _path(statement: Statement) -> str:
    return text(statement.arguments[0])


# --- what others read or are answered by -----------------------------------------------------------------------------


def separate(planned: edits.Edits, site: Site, server: Server) -> None:
    """Give those of the site's names for which a server answers a block of their own: a copy; the rest keeps the old.

    Raises errors.SiteRefused.
    """
    block = server.statement
    own = [n for n in site.domains if server in (model.choose(site.every, socket, n) for socket in server.sockets)]
    _refuse_captures(server)
    source, at = block.directive.source, block.directive.start
    pieces, is_named = [], bool(server.level(b"server_name"))
    if not is_named:
        pieces, at = [source[at : block.directive.sign + 1], b" ", _name_line(own)], block.directive.sign + 1
    for statement in server.level(*_NAMES):
        if statement not in block.children:
            raise errors.SiteRefused(
                f"{server} answers for other names than {', '.join(own)} too, and {statement.path}:{statement.line} "
                f"says so: give {', '.join(own)} a server block of its own, with listen and server_name in it"
            )
        start, end = statement.directive.start, statement.directive.end
        pieces.append(source[at:start])
        at = end
        if statement.name == b"listen":
            words = [word for word in statement.arguments[1:] if word in _REPEATED]
            pieces.append(b" ".join([b"listen", *map(syntax.quote, statement.arguments[:1]), *words]) + b";")
        elif is_named:
            pieces.append(_name_line(own))
            is_named = False
    planned.insert_block(block, b"".join([*pieces, source[at : block.directive.end]]))
    _take_names_from(planned, server, own)


def _name_line(names: Iterable[str]) -> bytes:
    return b"server_name " + b" ".join(name.encode("idna") for name in names) + b";"


def _refuse_captures(server: Server) -> None:
    """Refuse a block that uses what a regular expression of its names has found. Raises errors.SiteRefused."""
    for group in re.findall(r"\(\?P?<(\w+)>", " ".join(server.names)):
        if re.search(rb"\$\{?%s\b" % group.encode(), server.statement.written):
            raise errors.SiteRefused(
                f"{server} answers for other names too, and makes ${group} of the name that was asked for: give the "
                "Seafile site a server block of its own"
            )


def _take_names_from(planned: edits.Edits, server: Server, names: Collection[str]) -> None:
    """Take names out of a server's server_name lines, where they stand there as they are."""
    for statement in server.level(b"server_name"):
        words = [text(word) for word in statement.arguments]
        kept = [word for word in words if word.lower().removeprefix(".") not in names]
        kept += [f"*{word}" for word in words if word.startswith(".") and word not in kept]
        if kept != words:
            planned.replace(statement, [b" ".join([b"server_name", *map(_word, kept or ["_"])]) + b";"])


def take_in(planned: edits.Edits, servers: Iterable[Server], paths: Collection[str]) -> None:
    """Let what files say stand in the servers themselves, in place of the includes by which they read them."""
    for server in servers:
        for include in server.statement.walk():
            is_own = include.name == b"include" and include.path == server.path
            if is_own and any(inner.path in paths for inner in include.walk()):
                planned.replace(include, [child.written for child in include.children])


# --- the challenge ---------------------------------------------------------------------------------------------------


def challenge_folder(server: Server) -> str | None:
    """Return the folder from which the server's own location answers challenges; None where it has none of its own."""
    chain = model.locations_for(server, _TOKEN_URI)
    if not chain or not any(b"well-known" in word for word in chain[-1].arguments):
        return None
    if chain[-1].named(b"proxy_pass", b"return", b"rewrite"):
        return None
    for level in reversed([server.http, server.statement, *chain]):
        for statement in level.named(b"root", b"alias"):
            if statement.arguments and b"$" not in statement.arguments[0]:
                return _served_folder(statement, level)
    return None


def _served_folder(statement: Statement, level: Statement) -> str | None:
    folder = _path(statement)
    if statement.name == b"root":
        return folder.rstrip("/") + CHALLENGE_PATH.rstrip("/")
    modifier, prefix = model.location_path(level)
    if modifier in ("~", "~*", "="):
        return None
    # ngx_http_map_uri_to_path: the alias takes the place of the location's prefix, to the byte.
    return (folder + CHALLENGE_PATH[len(prefix) :]).rstrip("/")


@dataclass(frozen=True)
class Challenge:
    """How challenges are answered.

    webroot: from this folder; forward: by the machine at this URL, an address, instead (None: here); is_users: an
    unprivileged user writes the folder, so that nginx must follow no link in it.
    """

    webroot: str
    forward: str | None = None
    is_users: bool = False


def add_challenge_location(planned: edits.Edits, server: Server, challenge: Challenge) -> None:
    """Let the server answer challenges in this way, whatever else it does with a request.

    A rewrite at server level runs before a location is chosen (ngx_http_core_server phase handlers), so a guard goes
    above the first of them; `^~` keeps regular expressions away from the location.
    """
    first = _first_redirect(server)
    if first is not None and not _is_guarded(server):
        put = planned.replace if _is_guard(first) else planned.insert_before
        put(_at(server.statement, first), [_guard(server)])
    chosen = model.locations_for(server, _TOKEN_URI)[-1:]
    if ("^~", CHALLENGE_PATH) in map(model.location_path, chosen) and _answers(server, challenge):
        if challenge.is_users and _follows_links(chosen[0]):
            for statement in chosen[0].named(b"disable_symlinks"):
                planned.comment_out(statement)
            planned.insert_at_end(chosen[0], [_NO_LINKS])
        return
    # nginx refuses a second location of the same path, with "^~" or without (ngx_http_add_location).
    for location in server.level(b"location"):
        if location.arguments and model.location_path(location) in (("", CHALLENGE_PATH), ("^~", CHALLENGE_PATH)):
            planned.comment_out(location)
    lines = _location_lines(server, challenge)
    if first is not None:
        planned.insert_after(_at(server.statement, first), lines)
    else:
        _insert(planned, server, lines)


def has_challenge_location(server: Server, challenge: Challenge) -> bool:
    """Tell whether the server answers challenges in this way already, as far as its configuration tells."""
    chosen = model.locations_for(server, _TOKEN_URI)[-1:]
    is_led_away = challenge.is_users and any(map(_follows_links, chosen))
    return _answers(server, challenge) and _is_guarded(server) and not is_led_away


def _answers(server: Server, challenge: Challenge) -> bool:
    """Tell whether the server's own location answers challenges here, or forwards them to where they are to go."""
    if challenge.forward is None:
        return challenge_folder(server) is not None
    chosen = model.locations_for(server, _TOKEN_URI)[-1:]
    lines = {child.written for level in chosen for child in flat(level.children)}
    return {b"proxy_pass " + _word(challenge.forward) + b";", _ENDS_LOOPS} <= lines


def _follows_links(location: Statement) -> bool:
    return [statement.written for statement in location.named(b"disable_symlinks")] != [_NO_LINKS]


def _first_redirect(server: Server) -> Statement | None:
    return next(iter(server.level(*_REDIRECTS)), None)


def _is_guard(statement: Statement) -> bool:
    words = statement.arguments
    return statement.name == b"rewrite" and words[-1:] in ((b"break",), (b"last",)) and b"acme-challenge" in words[0]


def _guard(server: Server) -> bytes:
    """Return the line that lets challenges pass by the server's redirects to its own location for them."""
    chosen = model.locations_for(server, _TOKEN_URI)[-1:]
    is_alias = challenge_folder(server) is not None and any(location.named(b"alias") for location in chosen)
    return _GUARD_OF_ALIAS if is_alias else _GUARD


def _is_guarded(server: Server) -> bool:
    """Tell whether no redirect of the server takes challenges away."""
    first = _first_redirect(server)
    if first is None or (_is_guard(first) and _guard(server) == _GUARD):
        return True
    return _is_guard(first) and first.arguments[-1] == b"last"


def _location_lines(server: Server, challenge: Challenge) -> list[bytes]:
    lines = [b"root " + _word(challenge.webroot) + b";", b"default_type text/plain;"]
    if challenge.forward is not None:
        lines = [b"proxy_pass " + _word(challenge.forward) + b";", *_FORWARD]
    lines += [b"auth_basic off;", b"allow all;"]
    lines += [b"auth_request off;"] if server.effective(b"auth_request") else []
    lines += [_NO_LINKS] if challenge.is_users else []
    step = edits.indentation_step(server.statement)
    return [b"location ^~ /.well-known/acme-challenge/ {", *(step + line for line in lines), b"}"]


# --- the certificate -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What the site is to use: two paths, and the snippet's path.

    is_stapled: whether a plain certificate's snippet is included. is_sealed: the snippet has certificate and key too,
    and its one include stands in place of their lines. kept: foreign pairs that stay beside a plain one.
    """

    fullchain: str
    key: str
    snippet: str
    is_stapled: bool
    kept: frozenset[str] = frozenset()
    is_sealed: bool = False

    @property
    def include(self) -> str:
        """Return the argument of the include line for the snippet."""
        return staple_include(self.snippet)

    @property
    def lines(self) -> list[bytes]:
        """Return the lines of a server block that has none of them yet."""
        include = b"include " + _word(self.include) + b";"
        if self.is_sealed:
            return [include]
        lines = [b"ssl_certificate " + _word(self.fullchain) + b";", b"ssl_certificate_key " + _word(self.key) + b";"]
        return [*lines, include] if self.is_stapled else lines


def staple_include(snippet_path: str) -> str:
    """Return the include pattern for the snippet: a pattern, because nginx accepts one that matches nothing."""
    stem = snippet_path.removesuffix(".conf")
    return "".join(f"[{char}]" if char in "*?[" else char for char in stem) + "[.]conf"


def includes_elsewhere(server: Server, include: str) -> list[Statement]:
    """Return the server's includes of this snippet in other folders: it was there before the person chose this one."""
    name = include.rpartition("/")[2]
    paths = {line: _path(line) for line in server.level(b"include")}
    return [line for line, path in paths.items() if path.endswith(f"/{name}") and path != include]


def install(planned: edits.Edits, server: Server, wanted: Certificate, https_port: int = 443) -> None:
    """Let a TLS server use the certificate and the staple's snippet, and comment out what they take the place of."""
    _let_speak_tls(planned, server, https_port)
    ours = wanted.snippet.rpartition("/")[0] + "/"  # the folder of all snippets of this package
    snippets = [include for include in server.level(b"include") if _path(include).startswith(ours)]
    snippets += includes_elsewhere(server, wanted.include)
    inner = {statement for snippet in snippets for statement in flat(snippet.children)}
    is_included = wanted.include in map(_path, snippets)
    gone = [statement for statement in server.level(*_STAPLING) if statement not in inner]
    gone += [snippet for snippet in snippets if _path(snippet) != wanted.include]
    pairs = [statement for statement in server.level(*_PAIR) if statement not in inner]
    if wanted.is_sealed:
        gone += pairs
        if not is_included:
            _stand_in(planned, server, pairs, wanted.lines)
    else:
        for name, path, line in zip(_PAIR, (wanted.fullchain, wanted.key), wanted.lines, strict=False):
            named = [statement for statement in pairs if statement.name == name]
            replaced = [statement for statement in named if _path(statement) not in wanted.kept | {path}]
            if path not in map(_path, named):
                _stand_in(planned, server, replaced, [line])
            gone += replaced
        if wanted.is_stapled and not is_included:
            _insert(planned, server, wanted.lines[2:], (b"ssl_certificate_key",), _NEAR)
    for statement in gone:
        planned.comment_out(statement)


def _let_speak_tls(planned: edits.Edits, server: Server, https_port: int) -> None:
    """Let a server's listen lines for the port of TLS say so."""
    for socket, listen in server.sockets.items():
        if socket.port == https_port and listen.statement and not server.is_tls(socket):
            planned.replace(listen.statement, [_with_word(listen.statement, b"ssl")])


def try_stapling(planned: edits.Edits, server: Server) -> None:
    """Let a TLS server staple, to see whether nginx takes that there; one that says so already is left as it is."""
    present = server.level(b"ssl_stapling")
    if not any(statement.arguments[:1] == (b"on",) for statement in present):
        for statement in present:
            planned.comment_out(statement)
        _insert(planned, server, [b"ssl_stapling on;"], _NEAR)


def _stand_in(planned: edits.Edits, server: Server, replaced: Sequence[Statement], lines: Sequence[bytes]) -> None:
    """Put lines where the first of the statements stands, or below the include of it; else near the server's names."""
    anchor = _at(server.statement, replaced[0]) if replaced else None
    if anchor is None:
        _insert(planned, server, lines, _NEAR)
    elif anchor is replaced[0]:
        planned.replace(anchor, lines)
    else:
        planned.insert_after(anchor, lines)


def used(server: Server) -> set[str]:
    """Return the paths of a server's certificates, and the arguments of its includes."""
    return {_path(line) for line in server.level(b"ssl_certificate", b"include")}


def add_name(planned: edits.Edits, server: Server, domain: str) -> None:
    """Let nginx choose the server for the domain: further server_name lines add up (ngx_http_core_server_name)."""
    _insert(planned, server, [_name_line([domain])], _NAMES)


# --- missing halves --------------------------------------------------------------------------------------------------


def add_plain_server(planned: edits.Edits, site: Site, server: Server, challenge: Challenge, http_port: int) -> None:
    """Make the port-80 server of an HTTPS-only site: it answers challenges and redirects everything else."""
    step = edits.indentation_step(server.statement)
    sockets = [socket for socket in server.sockets if server.is_tls(socket)]
    body = _twins(planned, site, server, sockets, http_port)
    body += [_name_line(site.domains), *_location_lines(server, challenge)]
    body += [b"location / {", step + _redirect_line(sockets[0].port), b"}"]
    planned.insert_after(server.statement, [b"", b"server {", *(step + line for line in body), b"}"])


def add_tls(
    planned: edits.Edits, site: Site, server: Server, wanted: Certificate, ports: tuple[int, int], is_redirected: bool
) -> None:
    """Let an HTTP-only server speak TLS too: Seahub learns that the client came by https.

    ports: of HTTP and of HTTPS. is_redirected: whether to redirect what comes in clear. Raises errors.SiteRefused.
    """
    names = site.names_of(server)
    if find.leads_to_itself(server, names):  # over TLS too, without end
        raise errors.SiteRefused(
            f"{server} answers for {', '.join(names)} and only redirects to https, where no server block answers for "
            f"it: put {', '.join(names)} into the server_name of the one that serves Seafile, instead of this one's"
        )
    clear = [socket for socket in server.sockets if socket.port == ports[0] and not server.is_tls(socket)]
    _let_speak_tls(planned, server, ports[1])
    lines = _twins(planned, site, server, clear, ports[1], b"ssl")
    is_shared = any(socket.port == ports[1] for socket in server.spoken)
    for name in names if is_shared else ():
        if (server, name) not in site.nameless and model.match_rank(server, name) is None:
            add_name(planned, server, name)
    if not server.level(b"listen"):
        lines.insert(0, b"listen 80;")
    _insert(planned, server, [*lines, *wanted.lines], _NEAR)
    if is_redirected and not find.redirects_all(server, names):
        redirect(planned, server, ports, is_alone=False)
    _tell_seahub(planned, server)


def _twins(
    planned: edits.Edits, site: Site, server: Server, sockets: Sequence[Socket], port: int, *extra: bytes
) -> list[bytes]:
    """Return the lines for listening on another port where the server is reached; default servers stay what they are.

    There is no line for where the server listens already. An address that only this machine reaches is left out where
    there are others. Raises errors.SiteRefused.
    """
    like = {Socket(socket.address, port): server.sockets[socket].parameters for socket in sockets}
    reached = [socket for socket in like if not socket.is_internal]
    lines: dict[Socket, bytes] = {}
    for wish in reached or like:
        if not (chosen := model.places(site.every, wish)):
            raise errors.SiteRefused(
                f"the site needs `listen {port};`, which a running nginx cannot open beside the sockets on port {port} "
                f"that it has on this machine's own addresses: add that line to {server} and restart nginx"
            )
        for socket in (each for each in chosen if each not in server.sockets):
            is_new = not model.on_socket(site.every, socket)
            others = [each for each in model.sockets(site.every) if each.port == port]
            if is_new and others and any(each.is_named for each in (socket, *others)):
                raise errors.SiteRefused(
                    f"the site needs `listen {socket};`, and a `listen` line for port {port} names a host, which may "
                    "be the same address or another: write the address there, and run again"
                )
            told = like[wish] if is_new else server.spoken[socket]
            words = [*extra, *(word for word in told if word == b"proxy_protocol")]
            # These describe the socket itself and may stand only once for it (ngx_http_core_listen).
            words += [word for word in told if is_new and word.startswith(b"ipv6only=")]
            lines[socket] = b" ".join([b"listen", str(socket).removeprefix("*:").encode(), *words]) + b";"
    for socket in lines:
        _keep_default(planned, site, server, socket)
    return list(lines.values())


def _keep_default(planned: edits.Edits, site: Site, newcomer: Server, socket: Socket) -> None:
    """Let the default server of a socket stay it, where the newcomer would stand before it.

    The first server on a socket is its default unless one is marked (ngx_http_add_address), and nameless sites live by
    that: a site that begins to listen must not take their clients.
    """
    current = model.default_server(site.every, socket)
    if current is None or site.every.index(current) < site.every.index(newcomer):
        return
    listen = current.sockets[socket]
    if not listen.is_default and listen.statement is not None:
        planned.replace(listen.statement, [_with_word(listen.statement, b"default_server")])


def _with_word(statement: Statement, word: bytes) -> bytes:
    return statement.written.rstrip(b"; \t\r\n") + b" " + word + b";"


def _redirect_line(https_port: int) -> bytes:
    port = b"" if https_port == 443 else b":%d" % https_port
    return b"return 301 https://$host" + port + b"$request_uri;"


def redirect(planned: edits.Edits, server: Server, ports: tuple[int, int], *, is_alone: bool = True) -> None:
    """Redirect what comes in clear to the port of HTTP, the challenge excepted.

    ports: of HTTP and of HTTPS. is_alone: no TLS is being added to the server.
    """
    lines, step = [_redirect_line(ports[1])], edits.indentation_step(server.statement)
    if {socket.port for socket in server.sockets if not server.is_tls(socket)} != {ports[0]}:
        lines = [b"if ($server_port = %d) {" % ports[0], step + lines[0], b"}"]
    elif find.speaks_tls(server) or not is_alone:
        lines = [b"if ($scheme = http) {", step + lines[0], b"}"]
    first = _first_redirect(server)
    if first is None:
        _insert(planned, server, [_guard(server), *lines])
    else:
        put = planned.insert_after if _is_guard(first) else planned.insert_before
        put(_at(server.statement, first), lines)


def _tell_seahub(planned: edits.Edits, server: Server) -> None:
    """Let every proxied request say who came, for what name and how, as Seafile's manual has it.

    A level's headers hide outer ones (ngx_http_proxy_merge_loc_conf).
    """
    locations = [inner for inner in server.statement.walk() if inner.name == b"location"]
    bare = [location for location in locations if location.named(b"proxy_pass") and not location.named(_HEADER)]
    for level in (server.statement, *locations):
        headers = level.named(_HEADER)
        reached = bare if level is server.statement else [level]
        if headers and (lines := _untold(headers, reached)):
            planned.insert_after(_at(level, headers[-1]), lines)
    outer = server.http.named(_HEADER)
    if bare and not server.level(_HEADER) and (lines := _untold(outer, bare)):
        _insert(planned, server, [*(statement.written for statement in outer), *lines], _NEAR)


def _untold(headers: Sequence[Statement], locations: Iterable[Statement]) -> list[bytes]:
    """Return the lines that are missing among headers which apply to the locations.

    Host stays as it is where one of them passes to another host by its name, which may be what is expected there.
    """
    urls = [line.arguments[0] for location in locations for line in location.named(b"proxy_pass") if line.arguments]
    hosts = [text(host) for url in urls for host in _UPSTREAM_HOST.findall(url)]
    is_elsewhere = any("." in host and not model.is_address(host) for host in hosts)
    told = [header for header in _TOLD if not (is_elsewhere and header.startswith(b"Host "))]
    return [b"%s %s;" % (_HEADER, header) for header in told if not _has_header(headers, header.split()[0].lower())]


def _has_header(statements: Sequence[Statement], name: bytes) -> bool:
    return any(statement.arguments[:1] and statement.arguments[0].lower() == name for statement in statements)


def add_hsts(planned: edits.Edits, server: Server) -> None:
    """Send Strict-Transport-Security for a year with every answer of the server (RFC 6797 6.1), unless it is sent.

    A level's own headers hide those of all above (ngx_http_headers_merge): what the server's hide is repeated, and each
    level inside that has some gets the line as well.
    """
    own = server.level(b"add_header")
    hidden = [] if own else server.http.named(b"add_header")
    sent = [header.written for header in own + hidden if _has_header([header], _HSTS)]
    lines = sent[:1] or [b'add_header Strict-Transport-Security "max-age=31536000" always;']
    if not sent:
        _insert(planned, server, [*(statement.written for statement in hidden), *lines], _NEAR)
    inner = (statement for statement in server.statement.walk() if statement.name in (b"location", b"if"))
    for level in {(each.path, each.directive.start): each for each in inner}.values():  # a file may stand in several
        headers = level.named(b"add_header")
        if headers and not _has_header(headers, _HSTS):
            planned.insert_after(_at(level, headers[-1]), lines)
