"""Other sites are answered as before, whatever is written into the Seafile site: real nginx, asked before and after."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from certbot_seafile import errors
from certbot_seafile.site import model
from certbot_seafile.site.config import Configuration, File
from certbot_seafile.site.model import Socket
from certbot_seafile.system import handshake, nginx, serving
from certbot_seafile.system.handshake import Endpoint
from certbot_seafile.usecases import deploy, enhance, status
from e2e import looks, minted, processes, test_oracle
from e2e.shapes import NAME
from e2e.world import World, snapshot

BLOG = "blog.example.org"
HERE = "127.0.0.1"
URIS = ("/", "/.well-known/acme-challenge/token-of-the-blog")
SEAFILE = '    location / { return 200 "seafile"; }\n    location /seafhttp { proxy_pass http://127.0.0.1:8082; }\n'
PAIR = "    ssl_certificate /etc/ssl/cacert.pem;\n    ssl_certificate_key /etc/ssl/privkey.pem;\n"
REDIRECT = "    return 301 https://$host$request_uri;\n"


def server(listen: str, name: str = "", lines: str = "") -> str:
    """Return a server block. listen: listen lines with ", " between them; HTTP and HTTPS stand for the ports."""
    listens = "".join(f"    listen {each};\n" for each in listen.split(", "))
    return f"server {{\n{listens}{f'    server_name {name};' if name else ''}\n{lines}}}\n"


def blog(listen: str, lines: str = "") -> str:
    """Return the blog's server block."""
    return server(listen, BLOG, f'    location / {{ return 200 "blog"; }}\n{lines}')


@dataclass(frozen=True)
class Neighbourhood:
    """Sites by file name. asked: by port, as whom it is looked; snippets: what sites include."""

    sites: dict[str, str]
    asked: dict[str, str]
    snippets: dict[str, str] = field(default_factory=dict)


SHARED = "    include /etc/nginx/snippets/shared.conf;\n"
IN_CLEAR, BY_TLS = {"HTTP": BLOG}, {"HTTPS": BLOG}
NEIGHBOURHOODS = {
    "the blog's wildcard for port 80": Neighbourhood(
        {"a": server("127.0.0.2:HTTPS ssl", NAME, PAIR + SEAFILE), "b": blog("HTTP")}, IN_CLEAR
    ),
    "the blog's wildcard for TLS": Neighbourhood(
        {"a": server("127.0.0.2:HTTP", NAME, SEAFILE), "b": blog("HTTPS ssl", PAIR)}, BY_TLS
    ),
    "TLS that another block speaks": Neighbourhood(
        {
            "a": server("HTTP", NAME, REDIRECT) + server("HTTPS", NAME, PAIR + SEAFILE),
            "b": blog("HTTPS ssl", PAIR),
        },
        BY_TLS,
    ),
    "a shared ACME location": Neighbourhood(
        {
            "a": server("HTTP", NAME, SHARED + REDIRECT) + server("HTTPS ssl", NAME, PAIR + SEAFILE),
            "b": blog("HTTP", SHARED),
        },
        IN_CLEAR,
        {"shared.conf": 'location ^~ /.well-known/acme-challenge/ { return 200 "of the blog"; }\n'},
    ),
    "a shared certificate": Neighbourhood(
        {
            "a": server("HTTP", NAME, REDIRECT) + server("HTTPS ssl", NAME, SHARED + SEAFILE),
            "b": blog("HTTPS ssl", SHARED),
        },
        BY_TLS,
        {"shared.conf": PAIR},
    ),
    "two names of one block in clear": Neighbourhood({"a": server("HTTP", f"{NAME} {BLOG}", SEAFILE)}, IN_CLEAR),
    "two names of one block with TLS": Neighbourhood(
        {"a": server("HTTP", f"{BLOG} {NAME}", REDIRECT) + server("HTTPS ssl", f"{BLOG} {NAME}", PAIR + SEAFILE)},
        IN_CLEAR | BY_TLS,
    ),
    "a wildcard name": Neighbourhood(
        {"a": server("HTTP", "*.example.com", REDIRECT) + server("HTTPS ssl", "*.example.com", PAIR + SEAFILE)},
        {"HTTP": "wiki.example.com", "HTTPS": "wiki.example.com"},
    ),
    "a redirect for all": Neighbourhood(
        {
            "a": server("HTTP", NAME, REDIRECT) + server("HTTPS ssl", NAME, PAIR + SEAFILE),
            "b": blog("HTTPS ssl", PAIR),
        },
        IN_CLEAR | BY_TLS,
    ),
    "a catch-all for TLS": Neighbourhood(
        {"a": server("HTTPS ssl default_server", "_", PAIR + "    return 404;\n") + server("HTTP", NAME, SEAFILE)},
        {"HTTPS": ""},
    ),
    "a catch-all that rejects TLS": Neighbourhood(
        {
            "a": server("HTTPS ssl default_server", "_", "    ssl_reject_handshake on;\n")
            + server("HTTP", NAME, SEAFILE)
        },
        {"HTTPS": ""},
    ),
    "a redirect to the nameless site": Neighbourhood(
        {"a": server("HTTP", NAME, REDIRECT), "b": server("HTTPS ssl", "", PAIR + SEAFILE), "c": blog("HTTP")},
        IN_CLEAR,
    ),
}


LOOKED_AT = {
    "a wildcard": ("80", ["127.0.0.1:80"]),
    "a wildcard beside a block of others on loopback": ("81", ["127.0.0.2:81"]),
    "an address that is not here": ("80, 192.0.2.1:80", ["127.0.0.1:80"]),
    "only an address that is not here": ("192.0.2.1:80", ["192.0.2.1:80"]),
    "a socket for HTTP/2": ("80, 127.0.0.9:80 http2", ["127.0.0.1:80"]),
    "a unix socket": ("80, unix:/run/x", ["127.0.0.1:80"]),
    "other ports": ("80, 8080", ["127.0.0.1:80"]),
}


@pytest.mark.parametrize(("listens", "places"), LOOKED_AT.values(), ids=LOOKED_AT)
def test_it_is_looked_where_the_site_itself_answers(listens: str, places: list[str]) -> None:
    """Not where another block would, or another machine, or nobody who speaks HTTP/1."""
    text = f"http {{ {server(listens, NAME)} {server('127.0.0.1:81')} }}"
    every = model.http_servers(Configuration(File("nginx.conf", text.encode()), lambda pattern: ()).statements())
    port = int(places[0].rpartition(":")[2])
    assert [str(endpoint) for endpoint in serving.endpoints(every[:1], port)] == places


@pytest.mark.parametrize("is_only", [False, True])
def test_an_address_of_another_machine_is_not_looked_at(world: World, is_only: bool) -> None:
    """As on a standby, which is said; the addresses that are this machine's now decide."""
    build(world, Neighbourhood({"a": server("HTTP", NAME, REDIRECT) + server("HTTPS ssl", NAME, PAIR + SEAFILE)}, {}))
    context, told = minted.issue(world, NAME, minted.options(world)), list[str]()
    site, near = world.sites / "a", f"listen {world.https_port} ssl;"
    far = near.replace("listen ", "listen 192.0.2.1:")
    site.write_text(site.read_text().replace(near, far if is_only else f"{near} {far}"))
    context.nginx.changed()
    context.say = told.append
    serving.verify_served(context, minted.load(world, NAME))
    assert [sentence.partition(",")[0] for sentence in told] == [f"Not looked at: 192.0.2.1:{world.https_port}"]


HSTS = "ensure-http-header", "Strict-Transport-Security"


def test_an_enhancement_edits_only_what_answers_for_its_name(world: World) -> None:
    """Not the other blocks of the certificate."""
    blocks = {"a": server("HTTP, HTTPS ssl", NAME, PAIR + SEAFILE), "b": server("HTTP, HTTPS ssl", BLOG, PAIR)}
    build(world, Neighbourhood(blocks, {}))
    chosen, before = minted.options(world), (world.sites / "a").read_bytes()
    minted.mint(world, NAME, chosen, names=[NAME, BLOG])
    for enhancement in (HSTS, ("redirect",)):
        enhance.enhance(minted.context(world, chosen), BLOG, *enhancement)
    assert (world.sites / "a").read_bytes() == before
    assert "Strict" in (world.sites / "b").read_text()


def test_an_enhancement_is_of_the_certificate_that_certbot_names(world: World) -> None:
    """A block that has all its names is edited as it is, though another certificate has some of them."""
    build(world, Neighbourhood({"b": server("HTTP, HTTPS ssl", f"{BLOG} wiki.example.org", PAIR)}, {}))
    chosen = minted.options(world)
    minted.mint(world, BLOG, chosen, names=[BLOG])
    minted.mint(world, "second", chosen, names=[BLOG, "wiki.example.org"])
    enhance.enhance(minted.context(world, chosen), BLOG, *HSTS, cert_name="second")
    assert (world.sites / "b").read_text().count("server {") == 1


def look(world: World, endpoint: Endpoint, name: str) -> object:
    """Return what a client of name is answered: status, redirect and body of some URIs, or the certificate."""
    if endpoint.port == world.http_port:
        return [handshake.get(endpoint, name, uri) for uri in URIS]
    try:
        return looks.handshake(name, endpoint.port).certificate.serial_number
    except SSL.Error as refused:
        return str(refused)


def build(world: World, near: Neighbourhood) -> None:
    """Write the sites and start nginx."""
    for name, text in near.snippets.items():
        (world.server_root / "snippets" / name).write_bytes(world.adapt(text.encode()))
    for name, text in near.sites.items():
        ported = text.replace("HTTPS", str(world.https_port)).replace("HTTP", str(world.http_port))
        adapted = world.adapt(ported.encode())
        # A wildcard stays one.
        for port in (world.http_port, world.https_port):
            adapted = adapted.replace(b"listen 127.0.0.1:%d" % port, b"listen %d" % port)
        world.write_site(name, adapted)
    world.start_nginx()


@pytest.mark.parametrize("near", NEIGHBOURHOODS.values(), ids=NEIGHBOURHOODS)
def test_neighbours_are_answered_as_before(world: World, near: Neighbourhood) -> None:
    """The blog's clients get what they got; the Seafile site has its certificate."""
    build(world, near)
    ports = {"HTTP": world.http_port, "HTTPS": world.https_port}
    asked = [(Endpoint(HERE, ports[word]), name) for word, name in near.asked.items()]
    before = [look(world, endpoint, name) for endpoint, name in asked]
    address = "127.0.0.2" if "127.0.0.2" in near.sites["a"] else HERE
    minted.issue(world, NAME, minted.options(world))
    assert [look(world, endpoint, name) for endpoint, name in asked] == before
    assert handshake.perform(Endpoint(address, world.https_port), NAME).leaf_der == world.leaf(NAME).public_bytes(
        Encoding.DER
    )


ADDRESSES = ["", "127.0.0.1:", "127.0.0.2:", "127.0.0.3:"]
GROUPS = 10


def some_listens(rng: random.Random, port: int, defaults: set[str]) -> str:
    """Return random listen lines on a port; defaults: the sockets that have a default server, and get others."""
    lines = []
    for address in rng.sample(ADDRESSES, rng.randint(1, 3)):
        words = [f"listen {address}{port}", *(["ssl"] if rng.random() < 0.2 else [])]
        if address not in defaults and rng.random() < 0.2:
            defaults.add(address)
            words.append("default_server")
        lines.append(" ".join(words) + ";")
    return " ".join(lines)


def ask(endpoint: Endpoint, name: str, *, tls: bool) -> str:
    """Return what the server block that answers says of itself."""
    try:
        return handshake.get(endpoint, name, "/", tls=tls).body.decode()
    except errors.NotServed as unreachable:
        return str(unreachable)


@pytest.mark.parametrize("seed", range(5))
def test_the_model_answers_as_nginx_does(world: World, seed: int) -> None:
    """For random sockets, defaults and names: the same block, over TLS or in clear, at each of four addresses."""
    rng = random.Random(seed)
    text = "ssl_certificate /etc/ssl/cacert.pem;\nssl_certificate_key /etc/ssl/privkey.pem;\n"
    ports = processes.free_ports(GROUPS)
    for port in ports:
        defaults: set[str] = set()
        for number in range(5):
            names = " ".join(rng.sample(test_oracle.NAMES, rng.randint(0, 3)))
            said = f"server_name {names};" if names else ""
            text += f'server {{ {some_listens(rng, port, defaults)} {said} return 200 "{port}/{number}"; }}\n'
    # What is adapted to this world are the paths alone.
    world.write_site(
        "oracle.conf", world.adapt(text.replace("listen", "LISTEN").encode()).replace(b"LISTEN", b"listen")
    )
    world.start_nginx()
    every = model.http_servers(nginx.Nginx(str(world.nginx_ctl)).configuration().statements())
    wrong = []
    for port, last in itertools.product(ports, range(1, 5)):
        socket = model.socket_at(every, Socket(f"127.0.0.{last}", port))
        if socket is None:
            continue
        for name in rng.sample(test_oracle.ASKED, 10):
            chosen = model.choose(every, socket, name)
            assert chosen is not None
            is_tls = chosen.is_tls(socket)
            said = chosen.level(b"return")[0].arguments[1].decode()
            answer = ask(Endpoint(f"127.0.0.{last}", port), name, tls=is_tls)
            if answer != said:
                wrong.append((port, last, name, is_tls, said, answer))
    assert wrong == []


OTHERS = [BLOG, "wiki.example.org", "*.example.org", ".example.com", '"~^(wiki|seafile)\\.example\\."', "_"]
CLIENTS = [BLOG, "wiki.example.org", "x.example.org", "wiki.example.com", "example.com"]
PLACES = ["", "127.0.0.2:"]


def some_block(rng: random.Random, number: int, names: list[str]) -> str:
    """Return a random server block in clear or over TLS, which says its number, or redirects."""
    kinds = rng.choice([["HTTP"], ["HTTPS ssl"], ["HTTP", "HTTPS ssl"]])
    place = rng.choice(PLACES)
    bodies = [f'location / {{ return 200 "{number}"; }}', f'location / {{ return 200 "{number}"; }}',
              "if ($scheme = http) { return 301 https://$host$request_uri; }"]  # fmt: skip
    lines = f"    {rng.choice(bodies)}\n" + rng.choice(["", SHARED] if kinds == ["HTTP"] else [PAIR, SHARED])
    signs = "    location /seafhttp { proxy_pass http://127.0.0.1:8082; }\n" if NAME in names else ""
    return server(", ".join(place + kind for kind in kinds), " ".join(names), lines + signs)


def clients_of(world: World) -> list[tuple[str, int, str, bool]]:
    """Return who has a block for it: address, port, name, and whether by TLS."""
    every = model.http_servers(nginx.Nginx(str(world.nginx_ctl)).configuration().statements())
    found = []
    for address, port, name in itertools.product((HERE, "127.0.0.2"), (world.http_port, world.https_port), CLIENTS):
        socket = model.socket_at(every, Socket(address, port))
        chosen = model.choose(every, socket, name) if socket else None
        if socket and chosen and model.match_rank(chosen, name) is not None:
            found.append((address, port, name, chosen.is_tls(socket)))
    return found


def hear(address: str, port: int, name: str, tls: bool) -> object:
    """Return what a client is answered, and is handed over TLS."""
    endpoint = Endpoint(address, port)
    answered = [str(handshake.get(endpoint, name, uri, tls=tls)) for uri in URIS]
    return answered, handshake.perform(endpoint, name).leaf_der if tls else None


@pytest.mark.parametrize("seed", range(int(os.environ.get("SEAFILE_FUZZ", "4"))))
def test_random_neighbours_are_answered_as_before(world: World, seed: int) -> None:
    """Whatever shares sockets, names, defaults and files with the site; else it is refused, and nothing changed.

    So it is after each of deployment, redirect, HSTS and undo; after the last, all files are as they were.
    """
    rng = random.Random(seed)
    own = [[NAME], *([[NAME, *rng.sample(OTHERS, rng.randint(0, 1))]] if rng.random() < 0.7 else [])]
    others = [rng.sample(OTHERS, 2) for _ in range(3)]
    blocks = [some_block(rng, number, names) for number, names in enumerate([*own, *others])]
    texts = ["".join(blocks[: len(own)]), *blocks[len(own) :]]
    sites = dict(zip(rng.sample("abcdef", len(texts)), texts, strict=True))
    near = Neighbourhood(sites, {}, {"shared.conf": PAIR + "add_header X-Shared yes;\n"})
    build(world, near)
    clients = clients_of(world)
    before = [hear(*client) for client in clients]
    files, chosen = snapshot(world.sites), minted.options(world)

    def step(change: Callable[[], object]) -> None:
        with contextlib.suppress(errors.SiteRefused, errors.EnhancementPresent):
            change()
        assert [hear(*client) for client in clients] == before

    def enhanced(*words: str) -> Callable[[], object]:
        return lambda: enhance.enhance(minted.context(world, chosen), NAME, *words)

    step(lambda: minted.issue(world, NAME, chosen))
    if os.path.exists(world.lineage(NAME)):
        step(enhanced("redirect"))
        step(enhanced("ensure-http-header", "Strict-Transport-Security"))
        step(lambda: minted.take_back(world, chosen))
    assert files == snapshot(world.sites)


def test_two_certificates_share_a_name_and_do_not_take_turns(world: World) -> None:
    """With nothing due, each keeps what it has: nothing is written or reloaded; check names the overlap.

    A wildcard leaves a name alone that has a certificate of its own.
    """
    first, second, third = (f"{letter}.example.com" for letter in "abc")
    names = (first, second, third)
    sites = {name: server("HTTP", name, REDIRECT) + server("HTTPS ssl", name, PAIR + SEAFILE) for name in names}
    build(world, Neighbourhood(sites, {}))
    chosen = minted.options(world)
    for lineage, own in {"w": ["*.example.com"], first: [first, second], third: [second, third]}.items():
        deploy.deploy(minted.context(world, chosen), minted.mint(world, lineage, chosen, names=own, ocsp_urls=()))
    before, reloads = snapshot(world.server_root), world.reloads()
    for lineage in (first, third, "w", first, third):
        deploy.keep(minted.context(world, chosen), minted.load(world, lineage))
    assert (snapshot(world.server_root), world.reloads()) == (before, reloads)
    serving.verify_served(minted.context(world, chosen), minted.load(world, first))
    standing = status.standing(minted.context(world, chosen), minted.load(world, first))
    assert (standing.is_current, standing.others) == (True, {second: third})
    told = world.seafile("check", "--root", world.folder, "--cert-name", first, check=False).stdout
    assert "CERT-NOT-SERVED" not in told
    assert f"has the certificate {third} for {second}, and {first} is for that, too" in told
    assert f"certbot certonly -a seafile --cert-name {first} -d {first}`" in told
