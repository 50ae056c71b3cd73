"""`certbot-seafile refresh`: many lineages at a time, each for itself, nginx reloaded once."""

from __future__ import annotations

import re

import pytest

from e2e import many, road
from e2e.world import World


@pytest.fixture
def fleet(world: World) -> World:
    """Return a world with 24 lineages of this plugin, a responder for them, and nginx with any site."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    many.make_lineages(world, 24)
    return world


def stored(world: World) -> list[str]:
    """Return the names of the lineages whose staple is stored."""
    return sorted(path.parent.name for path in world.staple_dir.rglob("ocsp.response"))


def test_all_are_refreshed_with_one_reload(fleet: World) -> None:
    """Every lineage gets its staple, and nginx is tested and reloaded once for all of them."""
    fleet.seafile("refresh")
    assert stored(fleet) == many.names(24)
    assert fleet.reloads() == 1
    fleet.run(fleet.nginx_ctl, "-t")


def test_a_second_run_has_nothing_to_do(fleet: World) -> None:
    """Fresh staples are left alone: no request, no reload, no word."""
    fleet.seafile("refresh")
    asked = road.ocsp_requests(fleet)
    run = fleet.seafile("refresh")
    assert (run.output, road.ocsp_requests(fleet), fleet.reloads()) == ("", asked, 1)


def test_one_bad_lineage_does_not_stop_the_others(fleet: World) -> None:
    """A damaged certificate, a dead responder and a folder that is a file fail by name; the rest is refreshed."""
    bad = many.names(24)[3:6]
    (fleet.lineage(bad[0]) / "cert.pem").write_text("nothing\n")
    renewal = fleet.config_dir / "renewal" / f"{bad[1]}.conf"
    renewal.write_text(renewal.read_text() + "seafile_ocsp_url = http://127.0.0.1:1/\n")
    fleet.staple_dir.mkdir()
    (fleet.staple_dir / bad[2]).write_text("in the way\n")
    run = fleet.seafile("refresh", check=False)
    assert run.exit_code == 1
    assert [name for name in many.names(24) if name in run.stderr] == bad
    assert stored(fleet) == [name for name in many.names(24) if name not in bad]
    assert fleet.reloads() == 1


def test_lineages_of_other_plugins_are_left_alone(fleet: World) -> None:
    """A lineage that names another authenticator is neither asked for nor named, damaged or not."""
    for name in many.names(24)[:2]:
        renewal = fleet.config_dir / "renewal" / f"{name}.conf"
        renewal.write_text(renewal.read_text().replace("= seafile", "= webroot"))
    (fleet.lineage(many.names(24)[0]) / "cert.pem").write_text("nothing\n")
    fleet.seafile("refresh")
    assert stored(fleet) == many.names(24)[2:]


def test_nginx_broken_by_someone_else_is_named_and_mended_later(fleet: World) -> None:
    """The staples are stored but not served, each is named, and the next run reloads although nothing is due."""
    broken = fleet.sites / "broken"
    broken.write_text("server { listen; }\n")
    run = fleet.seafile("refresh", check=False)
    assert run.exit_code == 1
    assert run.stderr.count("stored, but not served") == 24
    assert fleet.reloads() == 0
    broken.unlink()
    fleet.seafile("refresh")
    assert fleet.reloads() == 1


def test_quiet_is_silent(fleet: World) -> None:
    """With -q nothing is said as long as nothing fails."""
    assert fleet.seafile("-q", "refresh").output == ""


@pytest.mark.long
def test_progress_on_a_terminal_only(fleet: World) -> None:
    """On a terminal a bar counts the lineages while one responder is slow; with -q, and in a pipe, nothing does."""
    slow = fleet.leaf(many.names(24)[5]).serial_number
    fleet.set_responder(fault="silent", fault_serial=format(slow, "x"))
    _, shown = road.on_terminal(fleet, "refresh")
    assert re.search(r"waiting for staples: \d s \[#+\.+\] \d+ of 24\r\x1b\[K", shown)
    fleet.set_responder()
    assert road.on_terminal(fleet, "-q", "refresh", "--force") == (0, "")
    assert "of 24" not in fleet.seafile("refresh", "--force").output
