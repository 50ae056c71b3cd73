"""`certbot-seafile refresh`: many lineages at a time, each for itself, nginx reloaded once."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from e2e import killing, many, road
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


def test_progress_on_a_terminal_only(fleet: World) -> None:
    """On a terminal one line counts the lineages; with -q it does not."""
    assert b"24 of 24" in on_terminal(fleet, "refresh")
    assert on_terminal(fleet, "-q", "refresh", "--force") == b""
    assert "of 24" not in fleet.seafile("refresh", "--force").output


def on_terminal(world: World, *words: str) -> bytes:
    """Run the console script with a terminal for its output; return what came."""
    try:
        ours, theirs = pty.openpty()
    except OSError as error:
        pytest.skip(f"this machine gives no terminal: {error}")
    with subprocess.Popen(
        killing.seafile(world, *words), stdin=theirs, stdout=theirs, stderr=theirs, env=world.environment()
    ) as process:
        os.close(theirs)
        said = b""
        while block := _read(ours):
            said += block
    os.close(ours)
    assert process.returncode == 0, said
    return said


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # the other side is closed
        return b""


def test_two_nginx_servers_are_each_reloaded(fleet: World) -> None:
    """Lineages that name another nginx binary make that one reload, too."""
    calls = fleet.folder / "bin" / "other.calls"
    other = Path(f"{fleet.nginx_ctl}.other")
    other.write_text(f'#!/bin/sh\necho "$*" >> {calls}\nexec {fleet.nginx_ctl} "$@"\n')
    other.chmod(0o755)
    for name in many.names(24)[:3]:
        renewal = fleet.config_dir / "renewal" / f"{name}.conf"
        renewal.write_text(renewal.read_text().replace(f"seafile_ctl = {fleet.nginx_ctl}", f"seafile_ctl = {other}"))
    fleet.seafile("refresh")
    assert calls.read_text().splitlines().count("-s reload") == 1
    assert fleet.reloads() == 2


def test_status_shows_the_staples(fleet: World) -> None:
    """After a refresh, status has a window for each lineage."""
    fleet.seafile("refresh")
    said = json.loads(fleet.seafile("status", "--json", check=False).stdout)
    assert [one["name"] for one in said["lineages"] if one["staple"]] == many.names(24)
