"""What people can get wrong: a clear line, exit code 1, and nothing changed."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest

from e2e import road
from e2e.world import Run, World, snapshot


def refused(world: World, *words: str | Path, site: bool = True) -> Run:
    """Run the one line, expect exit code 1, no traceback, no class name, and nginx's folder as it was; return it."""
    before = snapshot(world.server_root)
    run = road.certonly(world, *words, check=False)
    assert run.exit_code == 1, run
    assert "Traceback" not in run.output
    assert snapshot(world.server_root) == before
    assert not world.lineage(road.NAME).exists()
    assert re.search(r"Error\(|[a-z]Refused|[a-z]NotFound|SiteAmbiguous|[a-z]Unreachable", run.output) is None
    return run


def test_no_seafile_site(world: World) -> None:
    """Without any Seafile site the run says so and names the option."""
    road.start(world, b"server { listen 80; server_name blog.example.org; root /var/www/html; }\n", ocsp=False)
    assert "--seafile-site" in refused(world).output


def test_a_seafile_site_of_another_name(world: World) -> None:
    """A Seafile site for another name is not taken; the line says whose it is."""
    road.start(world, road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name   files.example.org;"), ocsp=False)
    output = refused(world).output
    assert "files.example.org" in output
    assert "server_name" in output


def test_two_candidates(world: World) -> None:
    """Two Seafile sites without names: both are listed."""
    road.start(world, ocsp=False)
    world.write_site("other.conf", world.adapt(road.TUTORIAL_SITE.replace(b"_;", b'"";')))
    output = refused(world).output
    assert "seafile.conf" in output
    assert "other.conf" in output
    assert "--seafile-site" in output


def test_configuration_that_nginx_refuses_already(world: World) -> None:
    """A broken configuration is refused with nginx's own words."""
    road.start(world, ocsp=False)
    world.write_site("broken.conf", b"server { listen 80; no_such_directive on; }\n")
    assert 'unknown directive "no_such_directive"' in refused(world).output


def test_nginx_not_running(world: World) -> None:
    """Nobody is asked for a certificate while nothing listens."""
    road.start(world, ocsp=False)
    world.stop_nginx()
    assert "nginx" in refused(world).output
    assert "running" in refused(world).output


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_webroot_not_writable(world: World) -> None:
    """A webroot that certbot's user may not write to is named."""
    road.start(world, ocsp=False)
    world.webroot.mkdir(parents=True)
    world.webroot.chmod(0o555)
    assert str(world.webroot) in refused(world).output


def test_webroot_is_a_file(world: World) -> None:
    """A webroot that cannot be a folder is named."""
    road.start(world, ocsp=False)
    world.webroot.parent.mkdir(parents=True, exist_ok=True)
    world.webroot.write_text("not a folder")
    assert str(world.webroot) in refused(world).output


def test_challenge_that_does_not_come_back(world: World) -> None:
    """Where nginx will not hand the file out, the line says what came instead, and the CA is not asked."""
    road.start(
        world, road.TUTORIAL_SITE.replace(b"    server_tokens off;\n", b"    disable_symlinks on;\n", 1), ocsp=False
    )
    real = world.path("/srv/webroot")
    real.mkdir(parents=True)
    world.webroot.parent.mkdir(parents=True, exist_ok=True)
    world.webroot.symlink_to(real)
    run = refused(world)
    assert "HTTP status 404 came instead" in run.output
    assert "the CA was not asked" in run.output
    assert list(real.iterdir()) == []


@pytest.mark.long
def test_port_80_held_by_something_else(world: World) -> None:
    """An HTTPS-only site gets a port-80 server; where another program holds the port, the run says so and undoes it."""
    site = road.TUTORIAL_SITE[road.TUTORIAL_SITE.index(b"server {", 10) :]
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", world.http_port))
        other.listen(0)
        road.start(world, site, ocsp=False)
        assert f"127.0.0.1:{world.http_port}" in refused(world).output


def test_wildcard_names_need_a_dns_plugin(world: World) -> None:
    """A wildcard is refused at once, and the way is named."""
    road.start(world, ocsp=False)
    before = snapshot(world.server_root)
    run = world.certbot("certonly", "-a", "seafile", "-d", "*.seafile.com", *world.plugin_options, check=False)
    assert run.exit_code == 1
    assert "DNS" in run.output
    assert snapshot(world.server_root) == before


def test_site_on_another_port_than_80(world: World) -> None:
    """A site that listens in clear, but not where the CA looks, is refused with the option that helps."""
    road.start(world, road.TUTORIAL_SITE.replace(b"listen        80;", b"listen        8080;"), ocsp=False)
    assert "--http-01-port" in refused(world).output


def test_renewed_lineage_missing(world: World) -> None:
    """`certbot-seafile deploy` without a lineage says how to name one."""
    run = world.seafile("deploy", check=False)
    assert run.exit_code == 1
    assert "--cert-name" in run.stderr
    assert len(run.stderr.splitlines()) == 1


@pytest.mark.parametrize("outside", ["/tmp", "/etc/letsencrypt/live/../archive", "live/x"])
def test_renewed_lineage_outside_the_live_folder(world: World, outside: str) -> None:
    """A RENEWED_LINEAGE that certbot did not set is refused."""
    run = world.seafile("deploy", env={"RENEWED_LINEAGE": outside}, check=False)
    assert run.exit_code == 1
    assert "RENEWED_LINEAGE" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_wrong_usage_is_exit_code_2(world: World) -> None:
    """An unknown command is wrong usage."""
    assert world.seafile("refersh", check=False).exit_code == 2
