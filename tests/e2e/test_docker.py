"""Seafile in Docker behind the machine's nginx: what docs/docker.md says, with stand-ins at the containers' ports."""

from __future__ import annotations

import contextlib
import http.server
import re
import shlex
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest

from e2e import road
from e2e.cluster import Machine
from e2e.road import NAME
from e2e.test_docs import blocks

PAGE = "docker.md"
#: The services of the page, by the port that each is published at.
SERVICES = {8000: "seafile", 8888: "seadoc", 8083: "notification-server", 6233: "onlyoffice"}
#: What a client asks for, and who is asked for what.
WAYS = {
    "/library/a?b=c": ("seafile", "/library/a?b=c"),
    "/seafhttp/protocol-version": ("seafile", "/seafhttp/protocol-version"),
    "/sdoc-server/api/v1": ("seadoc", "/api/v1"),
    "/socket.io/?EIO=4": ("seadoc", "/socket.io/?EIO=4"),
    "/notification": ("notification-server", "/"),
    "/notification/ping": ("notification-server", "/ping"),
    "/onlyofficeds/web-apps/": ("onlyoffice", "/web-apps/"),
}
_SENT = ("host", "x-forwarded-for", "x-forwarded-proto")


class Containers:
    """What stands for Seafile's containers on a machine: each notes the request, and says who it is."""

    def __init__(self, ports: dict[int, str]) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        handlers = {("127.0.0.1", port): self._handler(service) for port, service in ports.items()}
        self._servers = [http.server.ThreadingHTTPServer(*address) for address in handlers.items()]
        self._threads = [threading.Thread(target=each.serve_forever, args=(0.05,)) for each in self._servers]
        for thread in self._threads:
            thread.start()

    def _handler(self, service: str) -> type[http.server.BaseHTTPRequestHandler]:
        seen = self.seen

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                seen.append((service, self.path, {name.lower(): value for name, value in self.headers.items()}))
                is_socket = self.headers.get("Upgrade") == "websocket"
                self.send_response(101 if is_socket else 200)
                if is_socket:
                    self.send_header("Upgrade", "websocket")
                    self.send_header("Connection", "Upgrade")
                    self.close_connection = True
                else:
                    self.send_header("Content-Length", str(len(service)))
                self.end_headers()
                self.wfile.write(service.encode())

            def do_PUT(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.do_GET()

            def log_message(self, format: str, *arguments: object) -> None:
                """Be silent."""

        return Handler

    def close(self) -> None:
        """End them."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def machine(tools: None) -> Iterator[Machine]:
    """Give a machine with the ports 80 and 443 for nginx, and a CA."""
    made = Machine(7)
    with contextlib.closing(made), made.inside():
        made.world.start_pebble()
        made.world.start_responder()
        yield made


@contextlib.contextmanager
def serving(machine: Machine, site: bytes, ports: dict[int, str]) -> Iterator[Containers]:
    """Let nginx run with a site, and containers at their ports."""
    machine.world.write_site(road.SITE_NAME, machine.world.adapt(site))
    machine.world.start_nginx()
    with contextlib.closing(Containers(ports)) as containers:
        yield containers


def fetch(machine: Machine, path: str, *words: str) -> str:
    """Fetch a path over TLS with curl, which trusts the CA alone; return the answer's headers and body."""
    return machine.world.run(
        "curl", "-sS", "--include", "--http1.1", "--noproxy", "*", "--max-time", "10", "--cacert", machine.world.root,
        "--connect-to", "::127.0.0.1:443", f"https://{NAME}{path}", *words,
    ).stdout  # fmt: skip


def page_block(kind: str) -> str:
    """Return the page's one block of this kind."""
    (text,) = (text for language, text in blocks(PAGE) if language == kind)
    return text


def test_the_page_leads_from_compose_to_https(machine: Machine) -> None:
    """Its site, .env and commands, in order: each part is reached over https, and told who came for what and how."""
    world = machine.world
    env = world.path("/opt/seafile/.env")
    env.parent.mkdir(parents=True, exist_ok=True)
    env.write_text(page_block("ini"))
    road.give_scheduler(world)
    with serving(machine, page_block("nginx").encode(), SERVICES) as containers:
        before = road.site_bytes(world)
        commands = [line for kind, text in blocks(PAGE) if kind == "console" for line in text.splitlines()]
        for program, *words in [shlex.split(line.removeprefix("$ sudo ")) for line in commands]:
            if program == "certbot":
                world.certbot(*words, *world.plugin_options)
                assert road.staples_lineage(world)
                reaches_all(machine, containers)
            elif program == "certbot-seafile":
                run = world.seafile(*words, *(["--root", str(world.folder)] if words == ["check"] else []))
                assert words != ["check"] or run.output == "All is well.\n"
        assert road.site_bytes(world) == before


def reaches_all(machine: Machine, containers: Containers) -> None:
    """Assert what clients get over https by the page's site."""
    for path, (service, inner) in WAYS.items():
        assert fetch(machine, path).endswith(service)
        asked, received, headers = containers.seen[-1]
        assert (asked, received) == (service, inner)
        assert [headers[name] for name in _SENT] == [NAME, "127.0.0.1", "https"]
    for path in ("/socket.io/?transport=websocket", "/notification"):
        assert upgraded(machine, path).startswith("HTTP/1.1 101")
    big = machine.world.folder / "big"
    big.write_bytes(bytes(3 * 1024 * 1024))
    assert fetch(machine, "/seafhttp/upload-api/x", "--upload-file", str(big)).endswith("seafile")
    assert machine.world.fetch(NAME, "/library/").stdout.startswith("HTTP/1.1 301")


def upgraded(machine: Machine, path: str) -> str:
    """Return what a client is answered that asks for a websocket."""
    context = ssl.create_default_context(cafile=str(machine.world.root))
    request = f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    plain = socket.create_connection(("127.0.0.1", 443), timeout=10)
    with context.wrap_socket(plain, server_hostname=NAME) as stream:
        stream.sendall(request.encode())
        return stream.recv(4096).decode()


def test_the_page_publishes_what_its_site_asks_for() -> None:
    """Every port is on loopback alone, and is that of a location; every compose file but Caddy's is listed."""
    published = re.findall(r"^ {2}([a-z-]+):\n {4}ports:\n {6}- \"(.*?):(\d+):\d+\"$", page_block("yaml"), re.MULTILINE)
    assert {int(port): service for service, address, port in published if address == "127.0.0.1"} == SERVICES
    asked = {int(port) for port in re.findall(r"proxy_pass http://127\.0\.0\.1:(\d+)", page_block("nginx"))}
    assert asked == set(SERVICES)
    assert "caddy" not in page_block("ini")


#: The manual publishes Seafile at port 80, where nginx listens on this machine.
MANUALS = {8000: "seafile", 8888: "seadoc", 8083: "notification-server", 6233: "onlyoffice", 8084: "thumbnail"}


def manuals_blocks() -> tuple[bytes, bytes]:
    """Return the maps and the location blocks of the manual's site, with Seafile at port 8000."""
    site = road.real_site("manual14-otherproxy-all.conf").replace(b"127.0.0.1:80;", b"127.0.0.1:8000;")
    maps, _, _ = site.partition(b"server {")
    return maps, site[site.index(b"    location / {") :]


@pytest.mark.parametrize("name", [NAME, "_"])
def test_the_manuals_blocks_get_tls_and_the_headers_that_they_lack(machine: Machine, name: str) -> None:
    """In a site without TLS, with a name or without: each block sets headers of its own, so each is completed."""
    maps, locations = manuals_blocks()
    site = maps + b"server {\n    listen 80;\n    server_name %s;\n\n" % name.encode() + locations
    with serving(machine, site, MANUALS) as containers:
        road.certonly(machine.world)
        for path in ("/", "/sdoc-server/x", "/socket.io/x", "/notification/x", "/onlyofficeds/x", "/thumbnail/x"):
            assert fetch(machine, path).startswith("HTTP/1.1 200")
            headers = containers.seen[-1][2]
            assert [headers[name] for name in _SENT] == [NAME, "127.0.0.1", "https"], path
        machine.world.seafile("undo")


def test_the_manuals_own_site_gets_the_certificate(machine: Machine) -> None:
    """It has TLS with a certificate of its own, and redirects everything: nothing but the certificate changes."""
    site = road.real_site("manual14-otherproxy-all.conf").replace(b"127.0.0.1:80;", b"127.0.0.1:8000;")
    with serving(machine, site.replace(b"seafile.example.com", NAME.encode()), MANUALS):
        before = road.site_bytes(machine.world)
        road.certonly(machine.world)
        assert road.staples_lineage(machine.world)
        assert fetch(machine, "/").endswith("seafile")
        assert road.site_bytes(machine.world).count(b"proxy_set_header") == before.count(b"proxy_set_header")
        machine.world.seafile("undo")
        assert road.site_bytes(machine.world) == before
