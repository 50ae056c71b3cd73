"""A staple's life against time, clocks and the CA: when it is withdrawn, and what is said."""

from __future__ import annotations

import datetime
import json
import re

import pytest

from e2e import road
from e2e.world import World


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, in which a certificate and its staple are served."""
    return restored


def assert_bare(world: World) -> None:
    """Assert that no staple is served, that none is left on disk, and that nginx would start."""
    assert world.handshake(road.NAME).staple is None
    assert road.served_is_lineage(world)
    assert not road.response_path(world).exists()
    assert not (world.staple_dir / f"{road.NAME}.conf").exists()
    world.run(world.nginx_ctl, "-t")


def test_withdrawn_when_the_end_is_within_25_hours(issued: World) -> None:
    """With the responder down and 24 h left, renew withdraws the staple and says so; no client meets an expired one."""
    issued.stop_responder()
    run = issued.certbot("renew", env=road.clock(issued, hours=72))
    assert "stapling withdrawn" in run.output
    assert_bare(issued)


def test_kept_while_more_than_25_hours_are_left(issued: World) -> None:
    """With the responder down and 26 h left, the staple stays; renew says that no newer one came."""
    kept = road.response_path(issued).read_bytes()
    issued.stop_responder()
    run = issued.certbot("renew", env=road.clock(issued, hours=70))
    assert "gave no answer to use" in run.output
    assert issued.handshake(road.NAME).staple == kept


def test_comes_back_with_the_responder(issued: World) -> None:
    """After a withdrawal, the next renew with a responder serves a staple again."""
    issued.stop_responder()
    issued.certbot("renew", env=road.clock(issued, hours=72))
    issued.start_responder()
    issued.certbot("renew")
    assert road.staples_lineage(issued)


@pytest.mark.long
@pytest.mark.parametrize("hours", [8, 12, 16])
def test_short_windows_are_not_stapled(world: World, hours: int) -> None:
    """A responder whose answers hold for less than a day and an hour is not stapled, and one sentence says why."""
    world.start_pebble()
    world.start_responder(validity_hours=hours)
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    run = road.certonly(world)
    assert f"it holds for {hours} h only" in run.output
    assert "may pass between two runs of `certbot renew`" in run.output
    assert_bare(world)


def test_short_windows_are_stapled_where_the_certificate_demands_it(world: World) -> None:
    """A must-staple certificate is useless without, so a window of 12 h is better than none."""
    world.start_pebble(must_staple=True)
    world.start_responder(validity_hours=12)
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    assert world.gnutls(road.NAME).accepted


@pytest.mark.long
def test_half_of_a_short_window_comes_before_six_hours(world: World) -> None:
    """A must-staple certificate's window of eight hours is refreshed after four, not before."""
    world.start_pebble(must_staple=True)
    world.start_responder(validity_hours=8)
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    old, asked = road.response_path(world).read_bytes(), road.ocsp_requests(world)
    world.certbot("renew", env=road.clock(world, hours=3))
    assert road.ocsp_requests(world) == asked
    world.set_responder(validity_hours=8, this_update_offset_hours=5)
    world.certbot("renew", env=road.clock(world, hours=5))
    new = road.response_path(world).read_bytes()
    assert new != old
    assert world.handshake(road.NAME).staple == new


def test_a_host_that_was_off_for_two_weeks(issued: World) -> None:
    """The first renew replaces the staple, which has expired meanwhile."""
    expired = road.response_path(issued).read_bytes()
    issued.set_responder(this_update_offset_hours=336)
    issued.certbot("renew", env=road.clock(issued, hours=336))
    new = road.response_path(issued).read_bytes()
    assert new != expired
    assert issued.handshake(road.NAME).staple == new


def test_a_host_that_was_off_and_wakes_without_responder(issued: World) -> None:
    """The expired staple is withdrawn at once."""
    issued.stop_responder()
    issued.certbot("renew", env=road.clock(issued, hours=336))
    assert_bare(issued)


@pytest.mark.long
@pytest.mark.parametrize("hours", [-8766, 8766], ids=["behind", "ahead"])
def test_a_clock_that_is_a_year_off_is_named(issued: World, hours: int) -> None:
    """What refuses a good answer is this machine's clock, which the message shows; nothing is stored."""
    run = issued.seafile("refresh", check=False, env=road.clock(issued, hours=hours))
    assert run.exit_code == 1
    year = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=hours)).year
    assert re.search(rf"this machine's clock says {year}-.* is it right\?", run.stderr)
    assert_bare(issued)


def assert_nothing_revoked_is_kept(world: World) -> None:
    """Assert that no file in the folder of staples is an OCSP response."""
    found = [path for path in world.staple_dir.rglob("*") if path.is_file()]
    assert [path for path in found if path.read_bytes().startswith(b"\x30\x82")] == []


def test_a_revoked_certificate_loses_its_staple(issued: World) -> None:
    """refresh withdraws it, exits 1 and names the time and the reason."""
    issued.set_responder(fault="revoked")
    run = issued.seafile("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert re.search(r"the CA revoked the certificate on \d{4}-\d\d-\d\d \d\d:\d\d.*keyCompromise", run.stderr)
    assert_bare(issued)
    assert_nothing_revoked_is_kept(issued)


@pytest.mark.long
def test_status_and_check_show_a_revocation(issued: World) -> None:
    """CERT-REVOKED: Without asking the responder: when and why, and the command that gets a new certificate."""
    issued.set_responder(fault="revoked")
    issued.seafile("refresh", "--force", check=False)
    issued.stop_responder()
    (one,) = json.loads(issued.seafile("status", "--json").stdout)["lineages"]
    assert "the CA revoked the certificate on" in one["revoked"]
    assert "keyCompromise" in one["revoked"]
    assert "REVOKED" in issued.seafile("status").stdout
    run = issued.seafile("check", check=False)
    assert run.exit_code == 1
    assert "the CA revoked the certificate on" in run.stdout
    assert "certbot renew --force-renewal --cert-name home.seafile.com" in run.stdout


@pytest.mark.long
def test_renew_fails_loudly_while_the_ca_says_revoked(issued: World) -> None:
    """certbot renews a revoked certificate; where the CA calls the new one revoked too, renew exits 1 and says so."""
    issued.set_responder(fault="revoked")
    run = issued.certbot("renew", check=False)
    assert run.exit_code == 1
    assert "the CA revoked the certificate on" in run.output
    assert_bare(issued)
    assert_nothing_revoked_is_kept(issued)


@pytest.mark.long
def test_deploy_of_a_revoked_certificate_fails_loudly(issued: World) -> None:
    """The hook exits 1 and names the command that gets a new certificate; the note goes with the next good answer."""
    issued.set_responder(fault="revoked")
    issued.seafile("refresh", "--force", check=False)
    run = issued.seafile("deploy", "--cert-name", road.NAME, check=False)
    assert run.exit_code == 1
    assert "certbot renew --force-renewal --cert-name home.seafile.com" in run.stderr
    assert "the CA revoked the certificate" in road.record(issued)["revocation"]
    issued.set_responder()
    issued.certbot("renew", "--force-renewal")
    assert road.staples_lineage(issued)
    assert road.record(issued)["revocation"] is None


@pytest.fixture
def unstapled(world: World) -> World:
    """Return a world in which the certificate names a responder, and stapling is off; its last look is old."""
    road.start(world)
    road.certonly(world, "--seafile-stapling", "off")
    assert world.handshake(road.NAME).staple is None
    road.give_scheduler(world)
    road.change_record(world, last_success="2026-01-01T00:00:00+00:00")
    return world


def test_a_revocation_is_found_with_stapling_off(unstapled: World) -> None:
    """check finds it by asking, refresh and deploy exit 1 too, and nothing is stapled; it goes with a good answer."""
    unstapled.set_responder(fault="revoked")
    for words in (["check", "--root", str(unstapled.folder)], ["refresh"], ["deploy", "--cert-name", road.NAME]):
        run = unstapled.seafile(*words, check=False)
        assert run.exit_code == 1
        assert "the CA revoked the certificate on" in run.output
    assert "the CA revoked the certificate on" in road.record(unstapled)["revocation"]
    assert_bare(unstapled)
    unstapled.set_responder()
    unstapled.seafile("refresh")
    assert road.record(unstapled)["revocation"] is None
    assert_bare(unstapled)


def test_with_stapling_off_a_good_answer_is_news_for_six_hours(unstapled: World) -> None:
    """The responder is asked once, and one that is down is nobody's concern."""
    asked = road.ocsp_requests(unstapled)
    unstapled.seafile("refresh")
    unstapled.seafile("refresh")
    assert road.ocsp_requests(unstapled) == asked + 1
    unstapled.stop_responder()
    run = unstapled.seafile("refresh", "--force")
    assert run.output == ""
    assert "STAPLE-" not in unstapled.seafile("check", "--root", str(unstapled.folder), check=False).stdout


def test_an_idle_renew_finds_a_revocation_with_stapling_off(unstapled: World) -> None:
    """certbot's own question is answered well, as by another server of the CA; ours is not, and renew exits 1."""
    serial = f"{unstapled.leaf(road.NAME).serial_number:x}"
    road.change_record(unstapled, revocation="the CA revoked the certificate on 2026-01-01", serial=serial)
    unstapled.stop_responder()
    run = unstapled.certbot("renew", check=False)
    assert run.exit_code == 1
    assert "the CA revoked the certificate on" in run.output
