"""Certificates that demand a staple (RFC 7633): no client that holds them to it is ever refused.

The client is gnutls-cli, which refuses a must-staple certificate without a good staple for it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e import road
from e2e.world import World


@pytest.fixture
def issued(world: World) -> World:
    """Return a world in which a must-staple certificate is served, with its staple."""
    start(world)
    road.certonly(world, "--must-staple")
    assert world.gnutls(road.NAME).accepted
    return world


def start(world: World) -> bytes:
    """Start CA, responder and nginx; return the site's bytes."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    site = world.adapt(road.TUTORIAL_SITE)
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    return site


def assert_accepted(world: World) -> None:
    """Assert that gnutls-cli accepts the site now."""
    verdict = world.gnutls(road.NAME)
    assert verdict.accepted, verdict.text


def test_it_goes_live_with_its_staple(issued: World) -> None:
    """The leaf demands a staple, and the first connection has it."""
    assert issued.handshake(road.NAME).certificate == issued.leaf(road.NAME)
    assert road.staples_lineage(issued)


def test_first_issue_without_responder_edits_nothing(world: World) -> None:
    """The site stays as it is and the hook says why; the next renew brings certificate and staple live by itself."""
    site = start(world)
    world.stop_responder()
    old = world.handshake(road.NAME).certificate
    run = road.certonly(world, "--must-staple", check=False)
    assert "must be stapled but cannot be" in run.output + run.log
    assert road.site_bytes(world) == site
    assert world.handshake(road.NAME).certificate == old
    world.start_responder()
    world.certbot("renew")
    assert_accepted(world)
    assert road.served_is_lineage(world)


def test_renewal_without_responder_keeps_the_old_certificate_through_everything(issued: World) -> None:
    """Reloads and restarts of nginx bring back the old certificate with its staple, until the new one has its own."""
    site, old = road.site_bytes(issued), issued.handshake(road.NAME)
    issued.stop_responder()
    run = issued.certbot("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert "must be stapled but cannot be" in run.output
    for again in ([], [issued.reload_nginx], [issued.stop_nginx, issued.start_nginx]):
        for step in again:
            step()
        assert issued.handshake(road.NAME) == old
        assert_accepted(issued)
    assert b"/archive/" in road.site_bytes(issued)
    issued.start_responder()
    issued.certbot("renew")
    assert road.served_is_lineage(issued)
    assert_accepted(issued)
    assert road.site_bytes(issued) == site
    assert sorted(path.name for path in (issued.staple_dir / road.NAME).iterdir()) == ["ocsp.response"]


def test_undo_while_pinned_restores_the_original_site(world: World) -> None:
    """Taking everything out takes the pin out too, and leaves no file of ours."""
    site = start(world)
    road.certonly(world, "--must-staple")
    world.stop_responder()
    world.certbot("renew", "--force-renewal", check=False)
    assert b"/archive/" in road.site_bytes(world)
    world.seafile("undo", "--cert-name", road.NAME)
    assert road.site_bytes(world) == site
    assert list(world.staple_dir.iterdir()) == []


def test_a_second_renewal_without_responder_keeps_the_pin(issued: World) -> None:
    """The site goes on naming the version that has a staple, not the one in between."""
    site, old = road.site_bytes(issued), issued.handshake(road.NAME)
    issued.stop_responder()
    issued.certbot("renew", "--force-renewal", check=False)
    pinned = road.site_bytes(issued)
    issued.certbot("renew", "--force-renewal", check=False)
    assert road.site_bytes(issued) == pinned
    issued.reload_nginx()
    assert issued.handshake(road.NAME) == old
    issued.start_responder()
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert road.site_bytes(issued) == site
    assert_accepted(issued)


def test_the_last_staple_is_kept_to_its_end(issued: World) -> None:
    """Where the end is near and the responder down, renew fails loudly and withdraws nothing."""
    kept = road.response_path(issued).read_bytes()
    issued.stop_responder()
    run = issued.certbot("renew", check=False, env=road.clock(issued, hours=80))
    assert run.exit_code == 1
    assert "the OCSP responder" in run.output
    run = issued.certbot("renew", check=False, env=road.clock(issued, hours=200))
    assert run.exit_code == 1
    assert road.response_path(issued).read_bytes() == kept
    assert issued.handshake(road.NAME).staple == kept


def test_the_responder_down_for_an_hour_is_no_failure(issued: World) -> None:
    """While the staple holds for long, renew says that no newer one came, and exits 0."""
    issued.stop_responder()
    run = issued.certbot("renew", env=road.clock(issued, hours=20))
    assert "the OCSP responder" in run.output
    assert_accepted(issued)


@contextmanager
def client_in_a_loop(world: World) -> Iterator[list[str]]:
    """Connect with gnutls-cli without a pause; give what it said where it refused."""
    refused: list[str] = []
    connections, ending = [0], threading.Event()

    def connect() -> None:
        while not ending.is_set():
            verdict = world.gnutls(road.NAME)
            connections[0] += 1
            if not verdict.accepted:
                refused.append(verdict.text)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield refused
    finally:
        ending.set()
        thread.join()
    assert connections[0] > 10


def test_no_client_is_refused_over_a_whole_life(issued: World) -> None:
    """Refresh, renewal, renewal without responder, reloads and what mends it: not one connection is refused."""
    with client_in_a_loop(issued) as refused:
        for _ in range(3):
            time.sleep(1)  # so that the responder's next answer is another one
            issued.seafile("refresh", "--force")
        issued.certbot("renew", "--force-renewal")
        issued.reload_nginx()
        issued.stop_responder()
        issued.certbot("renew", "--force-renewal", check=False)
        issued.reload_nginx()
        issued.start_responder()
        issued.certbot("renew")
        issued.seafile("deploy", "--cert-name", road.NAME)
    assert refused == []
    assert road.served_is_lineage(issued)
