"""Which server block nginx would choose."""

from __future__ import annotations

import pytest

from certbot_seafile.site import config, model, syntax
from certbot_seafile.site.model import Socket


def read(text: str) -> tuple[model.Server, ...]:
    """Return the servers of an http block's text."""
    source = f"http {{\n{text}\n}}\n".encode()

    def expand(directives: tuple[syntax.Directive, ...]) -> tuple[config.Statement, ...]:
        return tuple(config.Statement("nginx.conf", one, expand(one.block or ())) for one in directives)

    return model.http_servers(expand(syntax.parse(source)))


def server(names: str, listen: str = "80") -> str:
    """Return a server block's text."""
    return f"server {{ listen {listen}; {f'server_name {names};' if names else ''} }}\n"


CHOSEN = {
    "an exact name": (["a.example.com", "*.example.com"], "a.example.com", 0),
    "an exact name, though later": (["*.example.com", "a.example.com"], "a.example.com", 1),
    "case does not count": (["x.org", "A.Example.COM"], "a.example.com", 1),
    "the longest leading wildcard": (["*.com", "*.example.com"], "a.example.com", 1),
    "a leading wildcard before a trailing one": (["a.*", "*.example.com"], "a.example.com", 1),
    "a trailing wildcard before a regular expression": (["~.", "a.*"], "a.example.com", 1),
    "the first regular expression": (["x.org", "~^a", "~^a\\.example"], "a.example.com", 1),
    "a leading dot is the name itself": (["x.org", ".example.com"], "example.com", 1),
    "a leading dot is a wildcard too": (["x.org", ".example.com"], "a.b.example.com", 1),
    "a wildcard is not the name itself": (["x.org", "*.example.com"], "example.com", 0),
    "a capital letter in a regular expression": (["x.org", "~ORG$", "~COM$"], "a.example.com", 2),
    "named groups in PCRE's spelling": (["x.org", "~^(?<sub>a)\\.example"], "a.example.com", 1),
    "nobody: the first": (["x.org", "y.org"], "a.example.com", 0),
}


@pytest.mark.parametrize(("names", "asked", "chosen"), CHOSEN.values(), ids=CHOSEN)
def test_names_are_matched_in_nginx_order(names: list[str], asked: str, chosen: int) -> None:
    """Exact, longest leading wildcard, longest trailing wildcard, first regular expression, default."""
    every = read("".join(server(f'"{name}"') for name in names))
    assert model.choose(every, Socket("*", 80), asked) is every[chosen]


def test_the_marked_default_answers_for_strangers() -> None:
    """default_server counts more than being first."""
    every = read(server("x.org") + server("y.org", "80 default_server"))
    assert model.choose(every, Socket("*", 80), "a.example.com") is every[1]
    assert model.choose(every, Socket("*", 80), None) is every[1]


LISTENS = {
    "80": Socket("*", 80),
    "*:8080": Socket("*", 8080),
    "0.0.0.0:81": Socket("*", 81),
    "192.0.2.1": Socket("192.0.2.1", 80),
    "localhost:8000": Socket("127.0.0.1", 8000),
    "[::]:443 ssl": Socket("::", 443),
    "[2001:0db8::0001]": Socket("2001:db8::1", 80),
    "unix:/run/x.sock": Socket("unix:/run/x.sock", 0),
}


@pytest.mark.parametrize(("written", "socket"), LISTENS.items(), ids=list(LISTENS))
def test_listen_is_read_as_nginx_reads_it(written: str, socket: Socket) -> None:
    """An address, a port, or both; other spellings of one socket are one socket."""
    (one,) = read(server("x.org", written))
    assert list(one.sockets) == [socket]


def test_no_listen_is_port_80() -> None:
    """A server block that says nothing listens on *:80."""
    (one,) = read("server { server_name x.org; }")
    assert list(one.sockets) == [Socket("*", 80)]


@pytest.mark.parametrize(("listens", "port"), [(["443 quic reuseport"], None), (["443 quic", "443 ssl"], 443)])
def test_quic_opens_no_socket_for_tcp(listens: list[str], port: int | None) -> None:
    """It has datagrams of its own, and says nothing of what a TCP socket of the same port speaks."""
    lines = "".join(f"listen {each}; " for each in listens)
    (block,) = read(f"server {{ {lines} server_name x.org; }}")
    assert [socket.port for socket in block.sockets] == ([] if port is None else [port])
    assert model.socket_at([block], Socket("*", 443)) == (None if port is None else Socket("*", 443))


LOCATIONS = {
    "the longest prefix": (["/ {}", "/.well-known/ {}"], 1),
    "an exact one first": (["/.well-known/acme-challenge/ {}", "= /.well-known/acme-challenge/token {}"], 1),
    "a regular expression over a prefix": (["/.well-known/ {}", "~ /\\. {}"], 1),
    "^~ over a regular expression": (["^~ /.well-known/ {}", "~ /\\. {}"], 0),
    "a longer plain prefix lifts ^~": (["^~ /.well-known/ {}", "/.well-known/acme-challenge/ {}", "~ /\\. {}"], 2),
    "a modifier written together": (["/ {}", "^~/.well-known/ {}", "~ /\\. {}"], 1),
    "case counts": (["/ {}", "~ WELL {}"], 0),
    "case does not count with ~*": (["/ {}", "~* WELL {}"], 1),
}


@pytest.mark.parametrize(("locations", "chosen"), LOCATIONS.values(), ids=LOCATIONS)
def test_locations_are_chosen_in_nginx_order(locations: list[str], chosen: int) -> None:
    """Exact, ^~ prefix, first regular expression, longest prefix."""
    (one,) = read("server { listen 80; " + " ".join(f"location {written}" for written in locations) + " }")
    found = model.locations_for(one, "/.well-known/acme-challenge/token")
    assert found == [one.level(b"location")[chosen]]
