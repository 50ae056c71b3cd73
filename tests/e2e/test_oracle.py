"""nginx as the judge: who answers, and from which location, as we say it and as nginx does it."""

from __future__ import annotations

import random

import pytest

from certbot_seafile.site import model
from certbot_seafile.site.model import Socket
from certbot_seafile.system import handshake, nginx
from e2e import processes
from e2e.world import World

GROUPS, SERVERS, QUESTIONS = 12, 5, 12
LABELS = ["a", "b", "www", "seafile"]
DOMAINS = ["example.com", "example.org", "x.example.com"]
NAMES = [
    *(f"{label}.{domain}" for label in LABELS for domain in DOMAINS),
    *(f"*.{domain}" for domain in DOMAINS), *(f".{domain}" for domain in DOMAINS), *(f"{label}.*" for label in LABELS),
    '"~^a\\."', '"~^(?<sub>[ab])\\.example\\.(com|org)$"', '"~ORG$"', "_", '""', "Seafile.Example.COM", "192.0.2.7",
]  # fmt: skip
PATHS = ["/", "/.well-known/", "/.well-known/acme-challenge/", "/.well-known/acme-challenge", "/seafhttp"]
PATTERNS = ["/\\.", "\\.well-known", "^/seaf", "token$", "ACME"]
ASKED = [f"{label}.{domain}" for label in [*LABELS, "c"] for domain in [*DOMAINS, "example.net"]] + ["192.0.2.7"]
URIS = ["/.well-known/acme-challenge/token", "/.well-known/x", "/seafhttp/y", "/z", "/.well-known/acme-challenge"]


def some_locations(rng: random.Random, label: str) -> str:
    """Return a few locations of different paths, each of which says its number."""
    written = [f"{rng.choice(['', '^~ ', '= '])}{path}" for path in rng.sample(PATHS, rng.randint(0, 4))]
    written += [f"{rng.choice(['~', '~*'])} {pattern}" for pattern in rng.sample(PATTERNS, rng.randint(0, 2))]
    rng.shuffle(written)
    return "\n".join(f'    location {path} {{ return 200 "{label}/{i}"; }}' for i, path in enumerate(written))


def some_server(rng: random.Random, group: int, number: int, port: int, *, may_be_default: bool) -> str:
    """Return a server block with random names and locations."""
    names = " ".join(rng.sample(NAMES, rng.randint(0, 3)))
    listen = f"127.0.0.1:{port}" + (" default_server" if may_be_default and rng.random() < 0.2 else "")
    said = f"    server_name {names};\n" if names else ""
    body = some_locations(rng, f"{group}.{number}")
    nobody = f'    set $nobody "{group}.{number}/none";\n    error_page 404 = @none;\n'
    none = "    location @none { return 200 $nobody; }\n"
    return f"server {{\n    listen {listen};\n{said}{body}\n{nobody}{none}}}\n"


def label_of(server: model.Server, uri: str) -> str:
    """Return what the chosen location of a server says."""
    locations = model.locations_for(server, uri)
    if not locations:
        return next(statement.arguments[1].decode() for statement in server.level(b"set"))
    return next(statement.arguments[1].decode() for statement in locations[-1].named(b"return"))


@pytest.mark.parametrize("seed", range(3))
def test_nginx_chooses_as_we_say(world: World, seed: int) -> None:
    """For random servers, names and locations, every request is answered by the block that we name."""
    rng = random.Random(seed)
    ports = processes.free_ports(GROUPS)
    blocks = []
    for group, port in enumerate(ports):
        default = False
        for number in range(SERVERS):
            block = some_server(rng, group, number, port, may_be_default=not default)
            default = default or "default_server" in block
            blocks.append(block)
    world.write_site("oracle.conf", "".join(blocks).encode())
    world.start_nginx()
    every = model.http_servers(nginx.Nginx(str(world.nginx_ctl)).configuration().statements())
    wrong = []
    for port in ports:
        for _ in range(QUESTIONS):
            name, uri = rng.choice(ASKED), rng.choice(URIS)
            chosen = model.choose(every, Socket("127.0.0.1", port), name)
            assert chosen is not None
            answer = handshake.get(handshake.Endpoint("127.0.0.1", port), name, uri).body.decode()
            if answer != label_of(chosen, uri):
                wrong.append((name, uri, label_of(chosen, uri), answer, str(chosen)))
    assert wrong == []
