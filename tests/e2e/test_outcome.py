"""Whether Seafile itself answers over https is asked at its own addresses; each test is named by the finding's id."""

from __future__ import annotations

import json
import os
import re
from threading import Event
from typing import Any

import pytest

from e2e import backends, road
from e2e.world import World


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, in which a certificate and its staple are served."""
    return restored


def findings(world: World, exit_code: int) -> list[dict[str, Any]]:
    """Return what check tells, and that it exits so."""
    run = world.seafile("check", "--json", "--root", world.folder, check=False)
    assert run.exit_code == exit_code, run
    found: list[dict[str, Any]] = json.loads(run.stdout)["findings"]
    return found


def rewrite(world: World, old: bytes, new: bytes) -> None:
    """Replace bytes of the site, which nginx is content with."""
    site = road.site_bytes(world)
    assert old in site
    (world.sites / road.SITE_NAME).write_bytes(site.replace(old, new, 1))
    world.reload_nginx()


def line_of(world: World, part: bytes) -> int:
    """Return the number of the last line of the site that has this part."""
    lines = enumerate(road.site_bytes(world).splitlines(), 1)
    return max(number for number, line in lines if part in line)


def test_seafhttp_rewrite_of_the_manual_passes_nginx_and_is_a_fault(issued: World) -> None:
    """SEAFHTTP-REWRITE names the line, though nothing but uploads and downloads fails."""
    rewrite(issued, b"(.*)$ $1 break", b"(.*)$1 break")
    (fault,) = findings(issued, 1)
    assert (fault["id"], fault["line"]) == ("SEAFHTTP-REWRITE", line_of(issued, b"rewrite ^/seafhttp"))
    assert fault["text"].endswith("make it `rewrite ^/seafhttp(.*)$ $1 break;`, then reload nginx.")


def test_seafhttp_astray_where_the_file_server_gets_another_path(issued: World) -> None:
    """SEAFHTTP-ASTRAY is told by what the file server answers, where no line tells it."""
    rewrite(issued, b"rewrite ^/seafhttp(.*)$ $1 break;", b"")
    (fault,) = findings(issued, 1)
    assert (fault["id"], fault["line"]) == ("SEAFHTTP-ASTRAY", line_of(issued, b"location /seafhttp"))


LOOPS = {
    "to itself": b"return 301 https://$host$request_uri;",
    "to http": b"return 302 http://$host/;",
    "to its own path": b"return 302 /seafile/;",
}


@pytest.mark.parametrize("name", LOOPS)
def test_site_redirect_loop_is_a_fault(issued: World, name: str) -> None:
    """SITE-REDIRECT-LOOP names where an address of Seafile leads to itself, or to http."""
    rewrite(
        issued, b"    location /seafile {\n        proxy", b"    location /seafile {\n%s\n        proxy" % LOOPS[name]
    )
    (first, *_) = found = findings(issued, 1)
    assert {each["id"] for each in found} == {"SITE-REDIRECT-LOOP"}
    assert f"https://{road.NAME}/seafile/ redirects to " in first["text"]
    assert first["line"] == line_of(issued, b"location /seafile {")


def test_a_redirect_elsewhere_is_well(issued: World) -> None:
    """As to the form to log in, or to another name."""
    elsewhere = b"    location = /seafile/ { return 302 /seafile/accounts/login/?next=/; }\n"
    rewrite(issued, b"    location /seafile {\n", elsewhere + b"    location /seafile {\n")
    assert findings(issued, 0) == []


def test_seafile_no_answer_is_a_warning(issued: World) -> None:
    """SEAFILE-NO-ANSWER is told once for all addresses, while certificate and nginx are well: exit 0."""
    issued.stop_seafile()
    (warning,) = findings(issued, 0)
    issued.start_seafile()
    assert (warning["id"], warning["severity"]) == ("SEAFILE-NO-ANSWER", "warning")
    urls = [f"https://{road.NAME}{path}" for path in ("/seafile/", "/seafile/api2/ping/", "/seafhttp/protocol-version")]
    assert f"does not answer at {', '.join(urls)}: HTTP status 502" in warning["text"]


def test_seafile_no_answer_where_it_hangs(issued: World) -> None:
    """SEAFILE-NO-ANSWER is told after 5 s for all addresses together; nothing that answers later is waited for."""
    is_over = Event()

    def hang(path: str) -> tuple[int, bytes]:
        is_over.wait(60)
        return 503, b""

    issued.stop_seafile()
    issued.start_seafile(hang, hang)
    (warning,) = findings(issued, 0)
    is_over.set()
    issued.stop_seafile()
    issued.start_seafile()
    assert f"no HTTP answer from 127.0.0.1:{issued.https_port}: no answer in time" in warning["text"]


COMPONENTS = b"""
    location /notification {
        proxy_pass http://127.0.0.1:1;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
    location /seafdav { proxy_pass http://127.0.0.1:1; }
    location /seafile {
        proxy_pass"""


def test_seafile_no_answer_of_its_other_parts(issued: World) -> None:
    """SEAFILE-NO-ANSWER names WebDAV and the notification server where the site has them."""
    rewrite(issued, b"    location /seafile {\n        proxy_pass", COMPONENTS)
    (warning,) = findings(issued, 0)
    assert f"https://{road.NAME}/notification/ping, https://{road.NAME}/seafdav/: HTTP status 502" in warning["text"]


def test_port_taken_where_another_server_has_both_ports(issued: World) -> None:
    """PORT-TAKEN is told of the port of people and of the port of the CA, before what follows from it."""
    issued.stop_nginx()
    servers = [backends.Backend("127.0.0.1", port, backends.seahub) for port in (issued.http_port, issued.https_port)]
    run = issued.seafile("check", "--root", issued.folder, check=False)
    for server in servers:
        server.close()
    issued.start_nginx()
    assert run.exit_code == 1
    assert re.findall(rf"\(process {os.getpid()}\) listens on port (\d+), which", run.stdout) == [
        str(issued.https_port), str(issued.http_port)
    ]  # fmt: skip
    assert "CHALLENGE" not in run.stdout
