"""Challenges that are passed on to another machine, and a folder of challenges that an unprivileged user writes."""

from __future__ import annotations

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from certbot_seafile.site import edits, find, model, plan
from certbot_seafile.site.plan import Challenge
from certbot_seafile.system.nginx import Nginx
from e2e import shapes
from e2e.processes import tool
from e2e.shapes import NAME
from e2e.world import World

TOKEN = plan.CHALLENGE_PATH + "token"
CONTENT = "what the CA expects"
#: What a site may do with every request, or send along with it.
HOSTILE = """\
    proxy_set_header X-Real-IP $remote_addr;
    proxy_set_header Cookie $http_cookie;
    proxy_intercept_errors on;
    auth_basic "closed";
    auth_basic_user_file /etc/nginx/none;
    deny all;
    if ($host = www.example.com) { return 301 https://example.com$request_uri; }
    rewrite ^ https://$host$request_uri? permanent;
    location ~ /\\. { deny all; }
"""
SITES = {
    "empty": shapes.plain(""),
    "hostile": shapes.plain(HOSTILE),
    "a location of its own": shapes.plain(
        "    location ^~ /.well-known/acme-challenge/ {\n        root /var/www/html;\n    }\n" + HOSTILE
    ),
}


def machine(world: World, name: str, port: int, site: str) -> Path:
    """Write the site of one of two machines, which share an nginx; each has a port and a log of its own."""
    log = f"    access_log {world.path('/var/log/nginx')}/{name}.log;\n"
    lines = site.replace("    server_name", f"{log}    server_name", 1).encode()
    return world.write_site(name, world.adapt(lines.replace(b"listen 80;", b"listen %d;" % port)))


def requests(world: World, name: str) -> list[str]:
    """Return the log of a machine, once nginx has ended."""
    return world.path(f"/var/log/nginx/{name}.log").read_text().splitlines()


def planned(world: World, port: int, challenge: Challenge) -> edits.Edits:
    """Plan the edits with which the machine at a port answers challenges in this way."""
    configuration = Nginx(str(world.nginx_ctl), str(world.server_root)).configuration()
    site = find.site(model.http_servers(configuration.statements([NAME])), [NAME], http_port=port)
    made = edits.Edits()
    for server in site.plain:
        if not plan.has_challenge_location(server, challenge):
            plan.add_challenge_location(made, server, challenge)
    return made


def let_answer(world: World, port: int, challenge: Challenge) -> None:
    """Edit the site of the machine at a port; afterwards nothing is left to edit."""
    made = planned(world, port, challenge)
    assert made
    for path in made.paths:
        Path(path).write_bytes(made.after(path))
        assert edits.take_out(made.before(path), made.after(path), made.after(path)) == (made.before(path), True)
    assert not planned(world, port, challenge)


def forward(world: World, port: int) -> Challenge:
    """Return the way to another machine."""
    return Challenge(str(world.webroot), f"http://127.0.0.1:{port}")


def here(world: World, *, is_users: bool = False) -> Challenge:
    """Return the way to the folder of this machine, in which a validation file lies."""
    folder = world.webroot / plan.CHALLENGE_PATH.strip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(CONTENT)
    return Challenge(str(world.webroot), is_users=is_users)


def ask(world: World, *words: str, path: str = TOKEN) -> str:
    """Send a request to the first machine with curl; return status line, headers and body."""
    return world.run(
        tool("curl"), "--silent", "--show-error", "--include", "--noproxy", "*", "--max-time", "4", *words,
        "--connect-to", f"::127.0.0.1:{world.http_port}", f"http://{NAME}{path}",
    ).stdout  # fmt: skip


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """Run a machine that answers everything with CONTENT: yield its port, and all that it was sent by connection."""
    sent: list[bytes] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            head = b"".join(iter(self.rfile.readline, b"\r\n"))
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + CONTENT.encode())
            self.connection.shutdown(socket.SHUT_WR)
            sent.append(head + self.rfile.read())

    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1], sent
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_the_other_machine_answers_through_this_one(world: World, site: str) -> None:
    """Whatever both sites do with every other request."""
    machine(world, "a", world.http_port, site)
    machine(world, "b", world.other_http_port, SITES["hostile"])
    let_answer(world, world.http_port, forward(world, world.other_http_port))
    let_answer(world, world.other_http_port, here(world))
    world.start_nginx()
    answer = ask(world)
    assert answer.startswith("HTTP/1.1 200")
    assert answer.endswith(CONTENT)
    assert ask(world, path=f"{TOKEN}-of-nobody").startswith("HTTP/1.1 404")


@pytest.mark.parametrize("site", SITES.values(), ids=SITES)
def test_two_machines_that_pass_on_to_each_other_end_it(world: World, site: str) -> None:
    """Each of them sees one request."""
    machine(world, "a", world.http_port, site)
    machine(world, "b", world.other_http_port, SITES["hostile"])
    let_answer(world, world.http_port, forward(world, world.other_http_port))
    let_answer(world, world.other_http_port, forward(world, world.http_port))
    world.start_nginx()
    assert ask(world).startswith("HTTP/1.1 508")
    world.stop_nginx()
    assert (len(requests(world, "a")), len(requests(world, "b"))) == (1, 1)


def test_nothing_but_the_path_is_passed_on(world: World) -> None:
    """No header and no body of the request, and no method but GET."""
    machine(world, "a", world.http_port, SITES["hostile"])
    with listener() as (port, sent):
        let_answer(world, world.http_port, forward(world, port))
        world.start_nginx()
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"):
            assert ask(world, "--request", method, "--data", "a body").startswith("HTTP/1.1 403")
        headers = ["--header", "Cookie: sessionid=1", "--user", "somebody:secret", "--header", "Range: bytes=0-1"]
        body = ["--request", "GET", "--data", "a body"]
        assert ask(world, *headers).endswith(CONTENT)
        assert ask(world, *headers, *body).endswith(CONTENT)
        assert ask(world, *headers, *body, "--header", "Transfer-Encoding: chunked").endswith(CONTENT)
    lines = [set(request.decode().split("\r\n")) - {"Connection: close"} for request in sent]
    (line,) = {line for line in lines[0] if line.startswith(f"GET {TOKEN} HTTP/1.")}
    assert lines == [{line, f"Host: {NAME}", "Certbot-Seafile-Forwarded: 1", ""}] * 3


def test_a_machine_that_is_off_is_told_of(world: World) -> None:
    """The CA gets an answer at once."""
    machine(world, "a", world.http_port, SITES["empty"])
    let_answer(world, world.http_port, forward(world, world.other_http_port))
    world.start_nginx()
    assert ask(world).startswith("HTTP/1.1 502")


def test_another_address_takes_the_place_of_the_first(world: World) -> None:
    """The site passes on to one machine only; nginx takes an IPv6 address too."""
    machine(world, "a", world.http_port, SITES["hostile"])
    machine(world, "b", world.other_http_port, SITES["empty"])
    let_answer(world, world.http_port, Challenge(str(world.webroot), "http://[2001:db8::7]:8080"))
    world.run(world.nginx_ctl, "-t")
    let_answer(world, world.http_port, forward(world, world.other_http_port))
    let_answer(world, world.other_http_port, here(world))
    world.start_nginx()
    assert ask(world).endswith(CONTENT)
    let_answer(world, world.http_port, here(world))
    world.reload_nginx()
    assert ask(world).endswith(CONTENT)
    world.stop_nginx()
    assert len(requests(world, "b")) == 1


@pytest.mark.parametrize("site", [SITES["empty"], SITES["hostile"]], ids=["empty", "hostile"])
def test_no_link_in_a_folder_that_a_user_writes_is_followed(world: World, site: str) -> None:
    """nginx could read what the user cannot; links above the folder's root are root's, and are followed."""
    machine(world, "a", world.http_port, site)
    secret = world.path("/var/secret")
    secret.mkdir()
    (secret / "token").write_text("a secret")
    (world.folder / "www").mkdir()
    world.webroot.parent.mkdir(exist_ok=True)
    world.webroot.symlink_to(world.folder / "www")
    let_answer(world, world.http_port, here(world))
    folder = world.webroot / plan.CHALLENGE_PATH.strip("/")
    (folder / "link").symlink_to(secret / "token")
    (folder / "folder").symlink_to(secret)
    world.start_nginx()
    assert ask(world, path=f"{plan.CHALLENGE_PATH}link").endswith("a secret")
    let_answer(world, world.http_port, here(world, is_users=True))
    world.reload_nginx()
    assert ask(world).endswith(CONTENT)
    for path in ("link", "folder/token"):
        assert ask(world, path=plan.CHALLENGE_PATH + path).startswith(("HTTP/1.1 403", "HTTP/1.1 404"))
