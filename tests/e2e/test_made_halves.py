"""What is made of half a site: a port-80 server for HTTPS only, TLS for HTTP only."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from OpenSSL import SSL

from certbot_seafile import errors
from certbot_seafile.system import handshake
from certbot_seafile.system.handshake import Endpoint
from certbot_seafile.usecases import deploy, enhance
from e2e import minted, road, shapes
from e2e.shapes import NAME
from e2e.test_shapes import certonly, changed
from e2e.world import World, snapshot


@contextmanager
def seahub() -> Iterator[tuple[int, list[dict[str, str]]]]:
    """Run what stands for Seahub on loopback: yield its port and the headers of the requests it gets."""
    seen: list[dict[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append({name.lower(): value for name, value in self.headers.items()})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"seahub")

        def log_message(self, format: str, *arguments: object) -> None:
            """Be silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_port, seen
        finally:
            server.shutdown()
            thread.join()


def start(world: World, site: str) -> None:
    """Start CA and nginx with the site."""
    world.write_site(road.SITE_NAME, world.adapt(site.encode()))
    world.start_pebble(ocsp=False)
    world.start_nginx()


def over_tls(world: World, path: str) -> str:
    """Fetch a path over TLS with curl, which trusts the world's CA alone."""
    return world.run(
        "curl", "-sS", "--include", "--noproxy", "*", "--cacert", world.root,
        "--connect-to", f"::127.0.0.1:{world.https_port}", f"https://{NAME}{path}",
    ).stdout  # fmt: skip


def test_http_only_seahub_learns_that_the_client_came_by_https(world: World) -> None:
    """The TLS half proxies as the plain one did, with X-Forwarded-Proto; plain requests are redirected."""
    with seahub() as (port, seen):
        start(world, shapes.plain(shapes.PROXY).replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
        assert certonly(world, NAME).exit_code == 0
        assert over_tls(world, "/library/").endswith("seahub")
        assert seen[-1]["x-forwarded-proto"] == "https"
        assert seen[-1]["host"] == NAME
    redirected = world.fetch(NAME, "/library/?p=1").stdout
    assert redirected.startswith("HTTP/1.1 301")
    assert f"Location: https://{NAME}:{world.https_port}/library/?p=1" in redirected
    assert world.fetch(NAME, "/.well-known/acme-challenge/x").stdout.startswith("HTTP/1.1 404")


def test_http_only_headers_of_an_outer_level_still_apply(world: World) -> None:
    """Where a location has no proxy_set_header of its own, the server's ones reach Seahub as before."""
    body = shapes.PROXY.replace("        proxy_set_header Host $http_host;\n", "")
    with seahub() as (port, seen):
        site = shapes.plain("    proxy_set_header X-Real-IP $remote_addr;\n" + body)
        start(world, site.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
        assert certonly(world, NAME).exit_code == 0
        over_tls(world, "/")
        assert (seen[-1]["x-forwarded-proto"], seen[-1]["x-real-ip"]) == ("https", "127.0.0.1")


def test_http_only_without_any_header(world: World) -> None:
    """A site that sets no header at all gets those that Seahub needs, and http's own headers are not lost."""
    body = shapes.PROXY.replace("        proxy_set_header Host $http_host;\n", "")
    with seahub() as (port, seen):
        site = "proxy_set_header X-Everywhere yes;\n" + shapes.plain(body)
        start(world, site.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
        assert certonly(world, NAME).exit_code == 0
        over_tls(world, "/")
        assert (seen[-1]["x-forwarded-proto"], seen[-1]["x-everywhere"]) == ("https", "yes")
        assert (seen[-1]["host"], seen[-1]["x-forwarded-for"]) == (NAME, "127.0.0.1")


def test_https_only_gets_a_port_80_server(world: World) -> None:
    """The new server redirects everything but the challenge, for the certificate's name."""
    start(world, shapes.tls())
    assert certonly(world, NAME).exit_code == 0
    redirected = world.fetch(NAME, "/library/").stdout
    assert redirected.startswith("HTTP/1.1 301")
    assert f"Location: https://{NAME}" in redirected
    assert world.fetch(NAME, "/.well-known/acme-challenge/x").stdout.startswith("HTTP/1.1 404")


def test_a_pair_is_replaced_as_a_pair(world: World) -> None:
    """Where a site had an RSA and an ECDSA certificate, no client is handed one of the old ones."""
    start(world, str(shapes.SHAPES["an RSA and ECDSA pair"].site))
    assert certonly(world, NAME, "--key-type", "ecdsa").exit_code == 0
    assert world.handshake(NAME, only="ecdsa").certificate == world.leaf(NAME)
    with pytest.raises(SSL.Error):
        world.handshake(NAME, only="rsa")


NEIGHBOURS = {
    "HTTP only": (shapes.plain(shapes.PROXY), shapes.tls("    root /var/www/html;\n", names="_")),
    "HTTPS only": (shapes.tls(), shapes.plain("    return 403;\n", names="_")),
}


@pytest.mark.long
@pytest.mark.parametrize(("site", "neighbour"), NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_a_nameless_neighbour_keeps_its_clients(world: World, site: str, neighbour: str) -> None:
    """A site that begins to listen on a port does not become the default server of another's clients."""
    world.write_site("zz-neighbour.conf", world.adapt(neighbour.encode()))
    before = (world.sites / "zz-neighbour.conf").read_bytes()
    start(world, site)
    assert certonly(world, NAME).exit_code == 0
    assert world.handshake(NAME).certificate == world.leaf(NAME)
    if "403" in neighbour:
        assert world.fetch("other.example.net", "/").stdout.startswith("HTTP/1.1 403")
    else:
        assert world.handshake("other.example.net").certificate != world.leaf(NAME)
    world.seafile("undo")
    assert (world.sites / "zz-neighbour.conf").read_bytes() == before


SEAFILE = '    location / { return 200 "seafile"; }\n    location /seafhttp { proxy_pass http://127.0.0.1:8082; }\n'


def begin(world: World, site: str) -> None:
    """Write the site and start nginx; there is no CA."""
    world.write_site(road.SITE_NAME, world.adapt(site.encode(), {8080: world.other_http_port}))
    world.start_nginx()


SECOND = "second.example.com"


def begin_two(world: World, first: str) -> None:
    """Start nginx with a site, and a second one in a file of its own that has no TLS."""
    second = shapes.plain(SEAFILE.replace('"seafile"', '"second"')).replace(NAME, SECOND)
    world.write_site("second", world.adapt(second.encode()))
    begin(world, first)


def answer(world: World, name: str, *, tls: bool) -> str:
    """Return the body of what is answered to a name."""
    place = Endpoint("127.0.0.1", world.https_port if tls else world.http_port)
    return handshake.get(place, name, "/", tls=tls).body.decode()


def test_each_name_of_a_certificate_is_served_by_its_own_block(world: World) -> None:
    """TLS for the one does not stand in for the other, whose redirect leads to its own site."""
    begin_two(world, shapes.plain() + shapes.tls(SEAFILE))
    chosen = minted.options(world)
    deploy.deploy(minted.context(world, chosen), minted.mint(world, NAME, chosen, names=[NAME, SECOND]))
    assert [answer(world, name, tls=True) for name in (NAME, SECOND)] == ["seafile", "second"]
    assert world.handshake(SECOND).certificate == world.leaf(NAME)
    assert world.fetch(SECOND, "/").stdout.startswith("HTTP/1.1 301")
    assert b"second" not in (world.sites / road.SITE_NAME).read_bytes()


def test_a_block_whose_name_has_no_tls_is_not_redirected(world: World) -> None:
    """Another site would answer there."""
    begin_two(world, shapes.plain(SEAFILE) + shapes.tls(SEAFILE))
    chosen = minted.options(world)
    minted.mint(world, NAME, chosen, names=[NAME, SECOND])
    enhance.enhance(minted.context(world, chosen), NAME, "redirect")
    with pytest.raises(errors.Error, match=f"no TLS for {SECOND}"):
        enhance.enhance(minted.context(world, chosen), SECOND, "redirect")
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 301")
    assert answer(world, SECOND, tls=False) == "second"


def test_challenges_answered_by_an_alias_stay_so(world: World) -> None:
    """The site's own way to answer them works beside the redirect, and a renewal edits nothing."""
    folder = world.path("/srv/acme")
    folder.mkdir(parents=True)
    (folder / "token").write_text("of another client")
    alias = "    location ^~ /.well-known/acme-challenge/ { alias /srv/acme/; }\n"
    begin(world, shapes.plain(alias + SEAFILE))
    minted.issue(world, NAME, minted.options(world))
    assert "of another client" in world.fetch(NAME, "/.well-known/acme-challenge/token").stdout
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 301")
    before = snapshot(world.server_root)
    minted.issue(world, NAME, minted.options(world))
    assert changed(before, snapshot(world.server_root)) == {}


def test_nothing_is_redirected_where_that_was_not_asked_for(world: World) -> None:
    """With --no-redirect, what comes in clear is answered as before."""
    begin(world, shapes.plain(SEAFILE))
    minted.issue(world, NAME, minted.options(world, no_redirect=True))
    assert world.handshake(NAME).certificate == world.leaf(NAME)
    assert world.fetch(NAME, "/").stdout.endswith("seafile")


def test_where_tls_ends_in_front_no_tls_is_added(world: World) -> None:
    """The site answers challenges, and else as before."""
    front = "    proxy_set_header X-Forwarded-Proto https;\n"
    begin(world, shapes.plain(front + SEAFILE))
    minted.issue(world, NAME, minted.options(world))
    assert b"ssl" not in (world.sites / road.SITE_NAME).read_bytes()
    assert world.fetch(NAME, "/").stdout.endswith("seafile")


def test_a_site_that_would_lead_in_circles_is_put_back(world: World) -> None:
    """Seahub redirects to https and is not told that the client came by it: every handshake is right, and no page."""
    application = "server { listen 8080; return 301 https://$host/; }\n"
    site = shapes.plain("    location / { proxy_pass http://127.0.0.1:8080; proxy_set_header Host $host; }\n")
    begin(world, application + site.replace("127.0.0.1:8080", f"127.0.0.1:{world.other_http_port}"))
    before = snapshot(world.server_root)
    with pytest.raises(errors.NotServed, match="a redirect to"):
        minted.issue(world, NAME, minted.options(world))
    assert changed(before, snapshot(world.server_root)) == {}


def test_what_answers_on_loopback_is_not_taken_for_the_site(world: World) -> None:
    """A block for monitoring on an address of its own, beside the site's wildcard."""
    status = f"server {{ listen 127.0.0.1:{world.http_port}; return 403; }}\n"
    site = (shapes.plain() + shapes.tls()).encode()
    world.write_site(
        road.SITE_NAME,
        world.adapt(site).replace(b"listen 127.0.0.1:%d" % world.http_port, b"listen %d" % world.http_port),
    )
    world.write_site("status", status.encode())
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    assert world.fetch("other.example.org", "/").stdout.startswith("HTTP/1.1 403")
    assert world.handshake(NAME).certificate == world.leaf(NAME)
