"""Which server blocks are the Seafile site of a name.

The law: what nginx would choose decides, and what a block proxies; where several could be meant, none is guessed. Pure:
server blocks in, a Site or a refusal out.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from certbot_seafile import errors
from certbot_seafile.site import model
from certbot_seafile.site.config import SEAFILE_PATHS, SHARED_PATHS, Statement, text
from certbot_seafile.site.model import Server, Socket

_SEAFILE_PATH = re.compile(rb"(?:%s)\b" % b"|".join(map(re.escape, SEAFILE_PATHS)))
_SHARED_PATH = re.compile(rb"(?:%s)\b" % b"|".join(map(re.escape, SHARED_PATHS)))
# The ports that Seafile's manual gives its programs.
_SEAFILE_PORT = re.compile(rb":(?:8000|8082|8083|8888|6233)(?:/|$|\s)")
_HEADER = b"proxy_set_header"
# The conditions under which all that comes in clear for the site is redirected.
_IN_CLEAR = re.compile(rb"if\s*\(\s*\$(?:scheme|https|server_port)\b")
_FOR_ONE_NAME = re.compile(rb"if\s*\(\s*\$(?:host|http_host|server_name)\s*=\s*[\"']?([\w.-]+)[\"']?\s*\)")
_HOST = re.compile(r"https://([^/:?$]*)")
_VARIABLE = re.compile(rb"\$\{?(\w+)")
# What proxies in front tell of how the client came: Apache's and nginx's ways, Synology's, Cloudflare's, Microsoft's.
_FRONTS = frozenset(
    b"http_" + name
    for name in (b"x_forwarded_proto", b"x_forwarded_protocol", b"x_forwarded_scheme", b"x_forwarded_ssl", b"x_scheme",
                 b"x_url_scheme", b"cf_visitor", b"front_end_https")
)  # fmt: skip
_OFFICE = b"/onlyofficeds"
_SOME_URIS = ("/", "/certbot-seafile", "/certbot-seafile/x.y")


@dataclass(frozen=True)
class Site:
    """The server blocks that answer for some names.

    tls: those that answer over TLS. plain: those that answer for HTTP-01. answers: (server, name) pairs, of both;
    nameless: those where nginx would choose another server unless the name is added. every: all server blocks that
    could take part. wildcards: what was asked for, where the names of server blocks that it covers are among the
    domains instead.
    """

    domains: tuple[str, ...]
    tls: tuple[Server, ...]
    plain: tuple[Server, ...]
    answers: tuple[tuple[Server, str], ...]
    nameless: tuple[tuple[Server, str], ...]
    every: tuple[Server, ...] = field(repr=False)
    wildcards: tuple[str, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the files that hold the site."""
        return tuple(dict.fromkeys(server.path for server in (*self.plain, *self.tls)))

    @cached_property
    def secured(self) -> tuple[str, ...]:
        """Return those of the domains for which one of its servers answers over TLS."""
        tls = set(self.tls)
        names = {name for server, name in self.answers if server in tls}
        return tuple(domain for domain in self.domains if domain in names)

    def names_of(self, server: Server) -> list[str]:
        """Return those of the domains for which a server answers, in clear or over TLS."""
        return [name for each, name in self.answers if each is server]


def _is_seafile(server: Server) -> bool:
    """Tell whether the server proxies Seafile: by a path of Seafile alone, or a shared one with one of its ports.

    OnlyOffice's path with SeaDoc's is Seafile as well. A port alone is not: 8000 is that of many an application.
    """
    words: dict[bytes, list[bytes]] = {b"location": [], b"proxy_pass": [], b"fastcgi_pass": []}
    for statement in server.statement.walk():
        words.get(statement.name, []).extend(statement.arguments)
    if any(map(_SEAFILE_PATH.search, words[b"location"])):
        return True
    shared = {path[0] for path in map(_SHARED_PATH.search, words[b"location"]) if path}
    has_port = any(map(_SEAFILE_PORT.search, words[b"proxy_pass"] + words[b"fastcgi_pass"]))
    return (bool(shared) and has_port) or shared >= {b"/onlyofficeds", b"/socket.io"}


def _is_nameless(server: Server) -> bool:
    """Tell whether the server's names name nobody: none, "_" and the like, or addresses."""
    return all("." not in name or model.is_address(name) for name in server.names if not name.startswith("~"))


def site(
    every: Sequence[Server],
    domains: Sequence[str],
    *,
    site_path: str | None = None,
    http_port: int = 80,
    https_port: int = 443,
) -> Site:
    """Return the site that answers for the domains.

    every: the server blocks that could take part. http_port, https_port: where the CA and TLS clients come.
    Raises errors.SiteNotFound, errors.SiteRefused.
    """
    tls: dict[Server, None] = {}
    plain: dict[Server, None] = {}
    answers: dict[tuple[Server, str], None] = {}
    nameless: dict[tuple[Server, str], None] = {}
    elsewhere: dict[Socket, Server] = {}
    for domain in domains:
        members = _members(every, domain, site_path)
        for socket in model.sockets(members):
            server, is_chosen = _answering(every, members, socket, domain)
            # A certificate is for a socket that speaks TLS once a listen line says ssl.
            is_meant = socket.port == https_port and server.effective(b"ssl_certificate") is not None
            is_tls = server.is_tls(socket) or is_meant
            if not is_tls and socket.port != http_port:
                elsewhere[socket] = server
                continue
            (tls if is_tls else plain)[server] = None
            answers[server, domain] = None
            if not is_chosen:
                nameless[server, domain] = None
    # A router may forward to a block in clear, and only people know; not to what a block with TLS has beside that.
    clear = {each: server for each, server in elsewhere.items() if not tls or (each.port and not speaks_tls(server))}
    if clear and not plain:
        ports = ", ".join(dict.fromkeys(str(socket.port) for socket in clear))
        raise errors.SiteRefused(
            f"the site in {next(iter(clear.values()))} listens on port {ports}, not on port {http_port}, where the "
            f"CA looks: add `listen {http_port};` to it, or name the port that port 80 is forwarded to with "
            "--http-01-port"
        )
    for domain in domains:
        for server, is_chosen in _joined(every, tls, answers, domain):
            answers[server, domain] = None
            if not is_chosen:
                nameless[server, domain] = None
    return Site(tuple(domains), tuple(tls), tuple(plain), tuple(answers), tuple(nameless), tuple(every))


def _joined(
    every: Sequence[Server], tls: Collection[Server], answers: Collection[tuple[Server, str]], domain: str
) -> list[tuple[Server, bool]]:
    """Return the servers that are to answer over TLS for a domain which only blocks in clear have.

    Those for the names that such a block has besides, or to which it redirects; where it redirects to the domain
    itself, those that nginx chooses. With each, whether it needs no further name; none where it could not have one.
    """
    own = [server for server, name in answers if name == domain]
    if any(server in tls for server in own):
        return []
    meant = [
        server for server in own if domain.lower() in server.names or (_is_nameless(server) and _is_seafile(server))
    ]
    hosts = {host or domain for server in meant for host in _hosts_for(server, domain)}
    names = {name for server, name in answers if server in meant or {name} == hosts} - {domain}
    partners = dict.fromkeys(server for server, name in answers if server in tls and name in names)
    is_address, joined = model.is_address(domain), []
    for server in partners or (tls if is_address or domain in hosts else ()):
        sockets = [socket for socket in server.sockets if server.is_tls(socket)]
        here = [model.choose(every, socket, None if is_address else domain) is server for socket in sockets]
        others = model.sockets(each for each in (*own, *partners) if each is not server)
        can_have = bool(partners) and not is_address and server.sockets.keys().isdisjoint(others)
        if any(here) or can_have:
            joined.append((server, all(here) or not can_have))
    return joined


def _hosts_for(server: Server, domain: str) -> list[str]:
    """Return the hosts to which a server redirects all that is asked for a domain; see _redirects()."""
    redirects = _redirects(server) if redirects_all(server, [domain]) else []
    return [host for name, host in redirects if name in (None, domain.lower())]


def _answering(every: Sequence[Server], members: Sequence[Server], socket: Socket, domain: str) -> tuple[Server, bool]:
    """Return the member that answers (or is to) on one of their sockets, and whether nginx chooses it already."""
    is_address, member = model.is_address(domain), model.on_socket(members, socket)[0]
    chosen = model.choose(every, socket, None if is_address and member.is_tls(socket) else domain)
    if chosen is not None and chosen in members:
        return chosen, True
    if is_address:
        raise errors.SiteRefused(
            f"a client that connects to {domain} is answered by {chosen}, the default server of port {socket.port}, "
            f"not by the Seafile site {member}: add default_server to its listen line"
        )
    return member, False


def _members(every: Sequence[Server], domain: str, site_path: str | None) -> list[Server]:
    """Return the server blocks that belong to the domain's site, whatever nginx chooses today."""
    if site_path is None:
        members = _named(every, domain) or _recognised(every, domain)
        return _with_target(every, domain, _with_parts(every, members, {server.path for server in members}))
    pool = [s for s in every if site_path in (s.path, *(inner.path for inner in s.statement.walk()))]
    if not pool:
        raise errors.SiteNotFound(
            f"nginx loads no server block from {site_path}: --seafile-site must name a file that it includes"
        )
    if members := _with_parts(pool, _named(pool, domain), {server.path for server in pool}):
        return members
    if len({server.names for server in pool}) > 1:
        raise errors.SiteRefused(
            f"{site_path} has several sites, and none for {domain}: put {domain} into the server_name of the one that "
            "serves Seafile"
        )
    return pool


def _with_parts(every: Sequence[Server], members: list[Server], paths: Collection[str]) -> list[Server]:
    """Return members with the blocks in the files that name nobody; a catch-all for TLS is no part of the site."""
    nameless = (server for server in every if server.path in paths and _is_nameless(server))
    parts = [server for server in nameless if _is_seafile(server) or not speaks_tls(server)]
    return list(dict.fromkeys(members + parts))


def speaks_tls(server: Server) -> bool:
    return any(map(server.is_tls, server.sockets))


def _with_target(every: Sequence[Server], domain: str, members: list[Server]) -> list[Server]:
    """Return members with the nameless Seafile site to which they redirect: with TLS, they would do so without end."""
    if any(_is_seafile(server) or speaks_tls(server) or not redirects_all(server, [domain]) for server in members):
        return members
    targets = [server for server in every if _is_nameless(server) and _is_seafile(server) and speaks_tls(server)]
    _refuse_several(domain, targets)
    return members + targets


def _named(every: Sequence[Server], domain: str) -> list[Server]:
    """Return the servers whose names match and that win some socket for the domain."""
    matching = [server for server in every if model.match_rank(server, domain) is not None]
    exact = [server for server in matching if domain.lower() in server.names]
    sockets = model.sockets(matching)
    for socket in sockets:
        _refuse_several(domain, model.on_socket(exact, socket))
    winners = list(dict.fromkeys(filter(None, (model.choose(matching, socket, domain) for socket in sockets))))
    if any(server in exact and _is_seafile(server) for server in winners):
        # A wildcard that happens to win elsewhere is somebody else's.
        return [server for server in winners if server in exact or _is_seafile(server)]
    return winners


def _recognised(every: Sequence[Server], domain: str) -> list[Server]:
    seafile = [server for server in every if _is_seafile(server)]
    fitting = [server for server in seafile if _is_nameless(server)]
    if not fitting and model.is_address(domain):  # a request for an address names no server: the default one answers
        fitting = [s for s in seafile if any(model.default_server(every, socket) is s for socket in s.sockets)]
    # Where an address has a socket of its own, its clients come to no other one.
    fitting = [s for s in fitting if any(socket.address == domain for socket in s.sockets)] or fitting
    _refuse_several(domain, fitting)
    if fitting:
        return fitting
    if seafile:
        others = "; ".join(f"{server} is for {', '.join(server.names)}" for server in seafile)
        raise errors.SiteNotFound(
            f"no Seafile site answers for {domain} ({others}): put the name into its server_name and run again"
        )
    raise errors.SiteNotFound(
        f"no Seafile site found for {domain}: no server_name that nginx loads matches it and no server block proxies "
        "Seafile; name the site's file with --seafile-site"
    )


def _refuse_several(domain: str, candidates: Sequence[Server]) -> None:
    paths = sorted({server.path for server in candidates})
    if len(paths) > 1:
        raise errors.SiteRefused(
            f"several files could be the Seafile site of {domain}: {', '.join(paths)}; name one with --seafile-site"
        )


# --- what a site is like ---------------------------------------------------------------------------------------------


def serving(site: Site) -> list[Server]:
    """Return the servers in clear that are to speak TLS: not a catch-all beside them, where it answers challenges."""
    bare = _bare(site)
    return [server for server in bare if not _is_nameless(server) or _is_seafile(server)] or bare


def _bare(site: Site) -> list[Server]:
    """Return the servers in clear for none of whose names another answers over TLS.

    Where some have TLS, others that only a wildcard covers are left as they are, unless they are Seafile's.
    """
    secured = set(site.secured)
    helped = {server for server, name in site.answers if name in secured}
    bare = [server for server in site.plain if server not in helped]
    if bare and site.tls and site.wildcards:
        asked = {name for name in site.domains if not model.covers(site.wildcards, name)}
        bare = [server for server in bare if _is_seafile(server) or not asked.isdisjoint(site.names_of(server))]
    return bare


def front(site: Site) -> Statement | None:
    """Return the line by which it shows that TLS ends in front of nginx; None where none does.

    A site in clear that reads what a proxy has told it of the client, or tells Seahub of https itself.
    """
    for server in _bare(site):
        mapped = _told_by_front(server.http)
        # Seafile's manual has such a map for OnlyOffice, with a front or without.
        offices = [location for location in server.level(b"location") if _OFFICE in b" ".join(location.arguments)]
        of_office = {line for location in offices for line in location.walk()}
        for line in (*server.statement.walk(), *server.http.named(_HEADER)):
            words = tuple(word.lower() for word in line.arguments)
            is_told = line.name == _HEADER and words == (b"x-forwarded-proto", b"https")
            if is_told or _variables(*words) & (_FRONTS if line in of_office else mapped):
                return line
    return None


def _told_by_front(http: Statement) -> set[bytes]:
    """Return the variables, without "$", that hold a front's word, by way of maps too (ngx_http_map_module)."""
    told = set(_FRONTS)
    maps = [(_variables(line.written), _variables(line.arguments[-1])) for line in http.named(b"map") if line.arguments]
    while more := {name for read, made in maps if read & told for name in made - told}:
        told |= more
    return told


def _variables(*words: bytes) -> set[bytes]:
    return {name.lower() for word in words for name in _VARIABLE.findall(word)}


def strangers(server: Server, domains: Sequence[str]) -> list[str]:
    """Return the server's plain names that are none of the domains."""
    asked = {domain.lower() for domain in domains}
    plain = [name.lstrip(".") for name in server.names if not name.startswith("~") and "*" not in name]
    return [name for name in plain if "." in name and name not in asked and not model.is_address(name)]


def redirects_all(server: Server, names: Collection[str] = ()) -> bool:
    """Tell whether the server redirects every plain request to https. names: those that count; without, all it has."""
    redirected = {name for name, _ in _redirects(server)}
    return None in redirected or redirected >= {name.lower() for name in names or server.names}


def leads_to_itself(server: Server, names: Collection[str]) -> bool:
    """Tell whether the server redirects to https what is asked for one of the names, and to that same name."""
    asked = {name.lower() for name in names}
    return any(
        host in ("", name) or (name is None and (host in asked or model.match_rank(server, host) is not None))
        for name, host in _redirects(server)
    )


def _redirects(server: Server) -> list[tuple[str | None, str]]:
    """Return for which names (None: all) the server redirects to https, and to which host ("": one of a variable)."""
    levels: list[tuple[str | None, Statement]] = [(None, server.statement)]
    for block in server.level(b"if"):
        if one := _FOR_ONE_NAME.match(block.written):
            levels.append((text(one[1]).lower(), block))
        elif _IN_CLEAR.match(block.written):
            levels.append((None, block))
    slash = (("", "/"), ("^~", "/"))
    levels += [(None, each) for each in server.level(b"location") if model.location_path(each) in slash]
    lines = ((name, line) for name, level in levels for line in level.named(b"return", b"rewrite"))
    return [(name, host) for name, line in lines for host in _https_hosts(line)]


def _https_hosts(statement: Statement) -> list[str]:
    """Return the host to which a return or rewrite of every request leads by https; none where it does not."""
    words = [text(word) for word in statement.arguments]
    if statement.name == b"rewrite" and not all(model.matches(words[0], uri) for uri in _SOME_URIS):
        return []
    return [host[1].lower() for host in map(_HOST.match, words) if host]
