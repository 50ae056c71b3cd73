"""What people read: one line for each thing done, and what to do where something failed."""

from __future__ import annotations

import re

import pytest

from e2e import road
from e2e.world import World


@pytest.mark.long
def test_a_long_wait_is_told_on_a_terminal_and_nowhere_else(world: World) -> None:
    """One line, written over each second and gone before the result; pipes and the log have the result only."""
    road.start(world)
    road.certonly(world)
    world.set_responder(fault="silent")
    code, shown = road.on_terminal(world, "refresh", "--force")
    assert code == 1
    assert "\r\x1b[Kwaiting for staples: 2 s\r\x1b[Kwaiting for staples: 3 s" in shown
    result = shown.rpartition("\x1b[K")[2]
    assert result.startswith(f"{road.NAME}: ")
    assert result.count("\n") == 1
    assert "waiting" not in world.seafile("refresh", "--force", check=False).output
    assert "waiting" not in (world.logs_dir / "certbot-seafile.log").read_text()


def test_one_line_for_each_thing_done(world: World) -> None:
    """The site's file and its lines, and how long the staple holds; the log has the diff."""
    road.start(world)
    run = road.certonly(world)
    edited = f"Site edited: {world.sites / road.SITE_NAME} (9 lines added, 2 commented out)"
    assert run.stdout.count(edited) == 1
    assert run.stdout.count(f"Served: the certificate of {road.NAME}, with an OCSP staple that holds until ") == 1
    assert "Traceback" not in run.output
    log = (world.logs_dir / "certbot-seafile.log").read_text()
    assert "\n+    location ^~ /.well-known/acme-challenge/ {\n" in log
    again = world.seafile("-q", "deploy", "--cert-name", road.NAME)
    assert again.output == ""
    world.set_responder(validity_hours=97)  # else a response of the same second is the same response
    verbose = world.seafile("-v", "refresh", "--force")
    assert "nginx reloaded by" in verbose.stderr


def test_the_log_holds_no_secret_of_the_sites(world: World) -> None:
    """Neither headers and URLs beside an edit, nor a site on one line, nor what nginx complains about."""
    secrets = ["geheim-one", "geheim-two", "geheim-three", "geheim-four"]
    lines = b"""    proxy_set_header Authorization "Basic geheim-one";
    set $upstream "http://user:geheim-two@127.0.0.1:8000"; # geheim-three
"""
    site = road.TUTORIAL_SITE.replace(b"    ssl_protocols", lines + b"    ssl_protocols")
    site = site.replace(b"    server_tokens off;\n", lines + b"    server_tokens off;\n", 1)
    road.start(world, site, ocsp=False)
    road.certonly(world, "-v", "-v", "-v")
    world.seafile("undo")
    (world.sites / road.SITE_NAME).write_bytes(b" ".join(re.sub(rb"#.*", b"", world.adapt(site)).split()) + b"\n")
    world.reload_nginx()
    world.seafile("-v", "deploy", "--cert-name", road.NAME)
    world.write_site("broken.conf", b"server { location / { proxy_pass http://user:geheim-four@127.0.0.1; } }\n")
    refused = world.seafile("-v", "deploy", "--cert-name", road.NAME, check=False)
    assert "invalid port in upstream" in refused.stderr
    for path in world.logs_dir.iterdir():
        assert [secret for secret in secrets if secret in path.read_text()] == [], path


def test_the_hint_where_the_ca_could_not_reach_the_challenge(world: World) -> None:
    """Where the name leads elsewhere, certbot's hint names DNS and the port; the site is as it was."""
    before = road.start(world, ocsp=False)
    world.set_address(road.NAME, "127.0.0.2")
    run = road.certonly(world, check=False)
    assert run.exit_code == 1
    hint = " ".join(run.output.split())
    assert f"nginx answered the challenge for {road.NAME} when asked from this machine" in hint
    assert f"Check that the DNS records (A and AAAA) of {road.NAME} lead to this machine" in hint
    assert f"port {world.http_port} is open" in hint
    assert road.site_bytes(world) == before
