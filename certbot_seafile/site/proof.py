"""Who would be answered otherwise, if files were edited.

The law: an edit may change what is answered to the names that it is made for, and to nobody else. That is judged here
for every edit, from what nginx reads before and after it; no kind of edit has a rule of its own. Pure: two states in,
facts out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.site import find, model, plan, syntax
from certbot_seafile.site.config import Block, Configuration, Statement, flat, text
from certbot_seafile.site.edits import Edits
from certbot_seafile.site.model import Server, Socket

# Who answers is told from these; what is answered, from all others.
_CHOOSING = (b"listen", b"server_name")

# How often other edits are tried: a server block of its own, then lines in place of files that stand in each other.
_MOST_ROUNDS = 8

# After an edit, so many neighbours are looked at; where a block is only the default, by a name that nobody has.
_MOST_LOOKS = 8
_NOBODY = "nobody.invalid"
# What can be sent as a name.
_PLAIN = re.compile(r"[*\w.-]+\Z", re.ASCII)

# Statements as nginx reads them: name, arguments, and what stands in the block.
_Content = tuple[tuple[object, ...], ...]


@dataclass(frozen=True)
class Hurt:
    """Somebody whom an edit would hurt.

    who: a phrase. paths: the changed files that are read for them: those that their server block includes, else its
    own. block: the server block that answers today, or the block that reads the file.
    """

    who: str
    paths: tuple[str, ...]
    block: Block


#: A server block of others, a socket of it, and a name for which it answers there.
Neighbour = tuple[Server, Socket, str]


@dataclass(frozen=True)
class Verdict:
    """What edits mean for others, in a configuration as it was read, and as it is when they are written (after).

    neighbours: whose clients are to be looked at before and after.
    """

    read: Configuration
    after: Configuration
    hurt: list[Hurt]
    neighbours: tuple[Neighbour, ...]


def plan_harmless(
    configuration: Configuration,
    find_site: Callable[[Configuration], find.Site],
    add_edits: Callable[[Edits, find.Site], None],
    own: Collection[str] = (),
) -> Edits:
    """Return edits for a site by which nobody else is hurt.

    own: paths of certificates, and arguments of includes: all names of a block that has one already are the site's.
    Where the plain ones would hurt, others go before them: the site's names get a server block of their own, or lines
    of their own in place of a file that others read. Raises errors.SiteRefused where that does not help either.
    """
    read, earlier = configuration, None
    for _ in range(_MOST_ROUNDS):
        try:
            site = find_site(configuration)
        except errors.SiteRefused:
            if earlier is None:
                raise
            break  # a block of its own does not answer for an address, whose clients name nobody
        partners = [server for server in site.tls if not plan.used(server).isdisjoint(own)]
        names = (*site.domains, *site.wildcards, *(name for server in partners for name in _names(server.statement)))
        planned = Edits(names, earlier)
        add_edits(planned, site)
        verdict = _judge(configuration, planned)
        if not verdict.hurt:
            planned.verdict = replace(verdict, read=read)
            return planned
        prepared = Edits(names, earlier)
        _set_apart(prepared, site, verdict.hurt)
        before = _judge(configuration, prepared)
        if before.hurt or before.after.is_same(configuration):
            break
        configuration, earlier = before.after, prepared
    raise _refusal(names, verdict.hurt)


def judge(configuration: Configuration, planned: Edits) -> Verdict:
    """Return what edits mean for others, none of whom they hurt. Raises errors.SiteRefused where they do."""
    if isinstance(planned.verdict, Verdict) and planned.verdict.read is configuration:
        return planned.verdict
    verdict = _judge(configuration, planned)
    if verdict.hurt:
        raise _refusal(planned.names, verdict.hurt)
    return verdict


def _judge(configuration: Configuration, planned: Edits) -> Verdict:
    if not planned:  # as at each renewal
        return Verdict(configuration, configuration, [], ())
    contents = {path: planned.after(path) for path in planned.paths}
    return compare(configuration, configuration.changed(contents), planned.names)


def _set_apart(prepared: Edits, site: find.Site, hurt: Collection[Hurt]) -> None:
    """Plan server blocks of their own for the site's names where others share theirs; else, lines of their own."""
    servers = dict.fromkeys((*site.plain, *site.tls))
    blocks = {each.block for each in hurt}
    shared = [server for server in servers if server.statement.block in blocks]
    for server in shared:
        plan.separate(prepared, site, server)
    if not shared:
        plan.take_in(prepared, servers, {path for each in hurt for path in each.paths})


def _refusal(names: Collection[str], hurt: Collection[Hurt]) -> errors.SiteRefused:
    others = "; ".join(dict.fromkeys(each.who for each in hurt))
    return errors.SiteRefused(
        f"nothing was changed, because the edits for {', '.join(names)} would also change what others get: {others}. "
        "Give the Seafile site files and server blocks of its own"
    )


class _State:
    """One of two states of the configuration, as far as they may differ.

    touched: the outlines of the server blocks that read a file in which they do, by block. servers: these, and those
    that take part in who answers for the names.
    """

    def __init__(self, configuration: Configuration, changed: Collection[str]) -> None:
        self.configuration = configuration
        self.touched = {statement.block: statement for statement in configuration.servers_reading(changed)}
        self.names = {name for statement in self.touched.values() for name in _names(statement)}
        self.servers: tuple[Server, ...] = ()
        self._answers: dict[Block, _Content] = {}

    def look_up(self, names: Collection[str] | None) -> None:
        """Look for who answers for the names; None for all of them."""
        self.servers = model.http_servers(self.configuration.outline(names))

    def answer(self, server: Server | None) -> object:
        """Return what two servers have in common that answer alike: their place, or, of a touched one, what it says."""
        block = server.statement.block if server else None
        if block is None or block not in self.touched:
            return block
        if block not in self._answers:
            self._answers[block] = _content(self.configuration.whole(self.touched[block]).children, _CHOOSING)
        return self._answers[block]


def compare(before: Configuration, after: Configuration, names: Collection[str]) -> Verdict:
    """Return what edits mean for others that lead from one state to the other and are made for these names.

    Of a file that is unchanged, both states have the same object. Raises errors.SyntaxRefused.
    """
    paths = before.files.keys() | after.files
    changed = {path for path in paths if before.files.get(path) is not after.files.get(path)}
    old, new = _State(before, changed), _State(after, changed)
    for state in (old, new):
        state.look_up({*names, *old.names, *new.names})
    own = [server for state in (old, new) for server in state.servers if server.statement.block in state.touched]
    sockets = model.sockets(own)
    hurt = [*_find_readers(before, after, changed)]
    for socket in sockets:
        for who, server in _find_clients(old, new, socket, names):
            block = server.statement.block
            included = tuple(path for path in changed if block in before.readers(path))
            hurt.append(Hurt(f"{who} at {socket} ({server})", included or (server.path,), block))
    return Verdict(before, after, hurt, _find_neighbours(old, sockets, names))


def _find_neighbours(old: _State, wished: Iterable[Socket], names: Collection[str]) -> tuple[Neighbour, ...]:
    """Return clients of others whose server block reads a changed file, or is the default of a socket of the site's."""
    neighbours = []
    for socket in dict.fromkeys(filter(None, (model.socket_at(old.servers, each) for each in wished))):
        own = {model.owner(old.servers, socket, name) for name in names}
        for server in model.on_socket(old.servers, socket):
            others = (n for n in _names(server.statement) if not model.covers(names, n) and _PLAIN.match(n))
            name = next((name for name in others if model.owner(old.servers, socket, name) is server), None)
            if name is None and server not in own and server is model.default_server(old.servers, socket):
                name = _NOBODY
            if name and (server.statement.block in old.touched or name == _NOBODY):
                neighbours.append((server, socket, name.replace("*", "certbot-seafile")))
    return tuple(neighbours[:_MOST_LOOKS])


def _find_clients(old: _State, new: _State, socket: Socket, asked: Collection[str]) -> Iterator[tuple[str, Server]]:
    """Yield who is answered otherwise at an address and port, and who answers them today."""
    there, then = model.socket_at(old.servers, socket), model.socket_at(new.servers, socket)
    if there is None or then is None:
        return
    spoken = old.servers[0].spoken[there] == new.servers[0].spoken[then]
    default, successor = model.default_server(old.servers, there), model.default_server(new.servers, then)
    if default and successor and not (spoken and old.answer(default) == new.answer(successor)):
        is_asked = any(model.owner(old.servers, there, name) is default for name in asked)
        if not (is_asked and _is_same(default, successor)):
            yield "clients that name no server", default
        yield from ((f"clients of {name}", default) for name in _find_relying(old, default, there, asked))
    touched = old.names | new.names
    if there != then or not spoken:
        for state in (old, new):
            state.look_up(None)
        touched = {name for server in model.on_socket(old.servers, there) for name in _names(server.statement)}
    for name in sorted(name for name in touched if not model.covers(asked, name)):
        server = model.owner(old.servers, there, name)
        if server and (server is not default or name in set(_names(server.statement))):
            successor = model.owner(new.servers, then, name)
            if not (spoken and old.answer(server) == new.answer(successor)):
                yield f"clients of {name}", server


def _find_relying(state: _State, default: Server, socket: Socket, asked: Collection[str]) -> list[str]:
    """Return the names that no block has on a socket like this, but that are sent there: by redirects to https.

    In clear, by the default server to the blocks that have them; over TLS, by the blocks that have them to the default.
    """

    def is_redirecting(server: Server) -> bool:
        written = server.statement.written
        if b"https://" not in written and b"include" not in written:
            return False  # without looking at all that it says
        return find.redirects_all(replace(server, statement=state.configuration.whole(server.statement)))

    is_tls = b"ssl" in default.spoken[socket]
    if not is_tls and not is_redirecting(default):
        return []
    every = model.http_servers(state.configuration.outline())
    alike = [server for server in every if is_tls in map(server.is_tls, server.sockets)]
    others = [server for server in every if (not is_tls) in map(server.is_tls, server.sockets)]
    known = {name for server in alike for name in _names(server.statement)}
    sent = {
        name
        for server in others
        for name in {*_names(server.statement)} - known
        if not model.covers(asked, name) and (not is_tls or is_redirecting(server))
    }
    return [name for name in sorted(sent) if model.owner(state.servers, socket, name) is default]


def _is_same(server: Server, successor: Server) -> bool:
    """Tell whether a block is still there, with more names perhaps."""
    return server.path == successor.path and {*server.names} - {""} <= {*successor.names}


def _names(server: Statement) -> Iterator[str]:
    """Yield the names of a server block that name somebody, as find.site() has it; with a leading dot, one is two."""
    for statement in server.named(b"server_name"):
        for argument in statement.arguments:
            name = text(argument)
            if name.startswith("~"):
                yield _only_name(name) or name
            elif name.startswith("."):
                yield from (name[1:].lower(), f"*{name.lower()}")
            elif "." in name and not model.is_address(name):
                yield name.lower()


def _only_name(pattern: str) -> str | None:
    """Return the one name that a regular expression matches; None where there may be more."""
    plain = re.sub(r"\(\?P?<\w+>|\((?!\?)|\)", "", pattern)
    literal = re.fullmatch(r"~\^((?:[\w-]|\\\.)+)\$", plain)
    return literal[1].replace("\\.", ".").lower() if literal else None


def _find_readers(before: Configuration, after: Configuration, changed: Collection[str]) -> Iterator[Hurt]:
    """Yield who reads a changed file and is no server block of http: http itself, stream, mail, the main level."""
    for path in sorted(before.files.keys() & changed):
        for block in before.readers(path):
            files = (before.files[path], after.files[path]) if path in after.files else ()
            states = {_outside_servers(file.directives, block.name) for file in files}
            if block.name != b"server" and len(states) != 1:
                yield Hurt(f"what the {text(block.name) or 'main'} level reads of {path}", (path,), block)


def _outside_servers(directives: Iterable[syntax.Directive], level: bytes) -> _Content:
    """Return what a file says at a level outside of http's server blocks; level: http, stream, mail, b"" for main."""
    return tuple(
        (b"http", (), _outside_servers(directive.block, b"http"))
        if (level, directive.name) == (b"", b"http") and directive.block is not None
        else _written(directive)
        for directive in directives
        if (level, directive.name) != (b"http", b"server")
    )


def _written(directive: syntax.Directive) -> tuple[object, ...]:
    inner = tuple(_written(child) for child in directive.block or ())
    body = directive.source[directive.sign : directive.end] if directive.block is not None and not inner else inner
    return directive.name, directive.arguments, body


def _content(statements: Iterable[Statement], left_out: Collection[bytes] = ()) -> _Content:
    return tuple(
        (each.name, each.arguments, _content(each.children) if each.children else _written(each.directive))
        for each in flat(statements)
        if each.name not in (b"include", *left_out)
    )
