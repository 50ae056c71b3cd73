"""Where nginx refuses the lines that staple, and nothing else, the certificate is served without a staple.

From 1.29.1 on, `ssl_certificate_compression on` beside `ssl_stapling on` is such a case. The world's nginx is made to
refuse the two, the first of which stands in a comment.
"""

from __future__ import annotations

import pytest

from e2e import road
from e2e.test_failures import failing_nginx
from e2e.world import World

COMPRESSION = b"    # ssl_certificate_compression on;\n"
EMERGENCY = "ssl_stapling is incompatible with ssl_certificate_compression"
REFUSE = f"""\
if [ "$*" = -t ] && "$real" -T >"$0.read" 2>&1; then
    grep -q "# ssl_certificate_compression on;" "$0.read" && grep -Eq "^ *ssl_stapling on;" "$0.read" && {{
        echo 'nginx: [emerg] {EMERGENCY} in /etc/nginx/nginx.conf:7' >&2
        exit 1
    }}
fi
"""
SITE = road.TUTORIAL_SITE.replace(b"    ssl_protocols", COMPRESSION + b"    ssl_protocols")


def started(world: World, site: bytes) -> World:
    """Start CA, responder and an nginx that knows the conflict."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(site))
    world.start_nginx()
    failing_nginx(world, REFUSE)
    road.give_scheduler(world)
    return world


def set_compression(world: World, *, is_on: bool) -> None:
    """Let the site's owner turn the compression on or off."""
    path, own = world.sites / road.SITE_NAME, b"    ssl_protocols"
    text = path.read_bytes().replace(COMPRESSION, b"")
    path.write_bytes(text.replace(own, COMPRESSION + own) if is_on else text)


def test_a_certificate_is_served_without_the_refused_lines(world: World) -> None:
    """The reason is nginx's own; refresh, renew and check are content; without the conflict, deploy staples it."""
    started(world, SITE)
    run = road.certonly(world)
    assert f"without a staple: nginx refuses the lines that staple: nginx: [emerg] {EMERGENCY}" in run.output
    assert road.served_is_lineage(world)
    assert world.handshake(road.NAME).staple is None
    asked = road.ocsp_requests(world)
    assert world.seafile("refresh").output == ""
    world.certbot("renew")
    assert road.ocsp_requests(world) == asked
    assert "STAPLE-" not in world.seafile("check", "--root", str(world.folder), check=False).stdout
    assert "none until certbot renews it" in world.seafile("status", "--cert-name", road.NAME).stdout
    set_compression(world, is_on=False)
    world.seafile("deploy", "--cert-name", road.NAME)
    assert road.staples_lineage(world)


@pytest.mark.long
def test_a_conflict_that_comes_later_is_ended_by_the_next_deployment(world: World) -> None:
    """As after nginx was upgraded: it starts again, and serves the certificate without a staple."""
    started(world, road.TUTORIAL_SITE)
    road.certonly(world)
    assert road.staples_lineage(world)
    set_compression(world, is_on=True)
    assert world.run(world.nginx_ctl, "-t", check=False).exit_code == 1
    run = world.seafile("deploy", "--cert-name", road.NAME)
    assert EMERGENCY in run.output
    world.run(world.nginx_ctl, "-t")
    assert road.served_is_lineage(world)
    assert world.handshake(road.NAME).staple is None


def test_a_must_staple_certificate_is_refused_before_the_ca(world: World) -> None:
    """nginx's own words are quoted, no certificate is asked for, and the site is as before."""
    started(world, SITE)
    site = road.site_bytes(world)
    run = road.certonly(world, "--must-staple", check=False)
    assert run.exit_code == 1
    assert EMERGENCY in run.output
    assert not world.lineage(road.NAME).exists()
    assert road.site_bytes(world) == site


@pytest.mark.long
def test_a_refusal_of_something_else_is_told_as_before(world: World) -> None:
    """Where nginx refuses the rest of the edit too, the site is put back, with the first complaint."""
    started(world, road.TUTORIAL_SITE)
    world.nginx_ctl.with_name("nginx.real").rename(world.nginx_ctl)
    failing_nginx(world, 'case "$*" in -t) ! grep -q "live/home" "$site" || { echo "[emerg] no" >&2; exit 1; };; esac')
    site = road.site_bytes(world)
    run = road.certonly(world, check=False)
    assert "[emerg] no" in run.output
    assert road.site_bytes(world) == site
