"""At every instant nginx can start from what is on disk, and what a killed run leaves is mended by the next renew."""

from __future__ import annotations

import os
import shutil

import pytest

from e2e import killing, road
from e2e.processes import find_tool
from e2e.test_failures import fill, mounted
from e2e.world import World, snapshot

killed = pytest.mark.skipif(find_tool("strace") is None, reason="strace kills at a system call of one's choice")


def assert_nothing_is_left(world: World) -> None:
    """Assert that no open checkpoint, no temporary file and no mark of an unfinished run is there."""
    assert not (world.work_dir / "IN_PROGRESS").exists()
    temporary = [path for folder in killing.folders(world) for path in folder.rglob(".*.certbot-seafile")]
    assert temporary == []
    assert [record for record in road.records(world) if record["needs_reload"]] == []


@killed
def test_deploy_killed_at_every_change(world: World) -> None:
    """The first deployment, staple and site: nginx starts from each state; renew brings all of it to the same end."""
    before = road.start(world)
    road.certonly(world)
    wanted = snapshot(world.server_root)
    world.seafile("undo")
    kept = killing.Kept(world)
    command = killing.seafile(world, "deploy", "--cert-name", road.NAME)
    points = []
    for point in killing.kills(world, kept.restore, command):
        points.append(point)
        world.run(world.nginx_ctl, "-t")
        world.certbot("renew")
        assert road.served_is_lineage(world), point
        assert road.staples_lineage(world), point
        assert snapshot(world.server_root).keys() == wanted.keys(), point
        assert_nothing_is_left(world)
    assert len(points) > 10
    world.seafile("undo")
    assert road.site_bytes(world) == before


@pytest.mark.long
@killed
def test_withdrawal_killed_at_every_change(world: World) -> None:
    """Snippet, reload, response: nginx starts from each state, and the next renew withdraws what is left."""
    road.start(world)
    road.certonly(world)
    world.stop_responder()
    kept, later = killing.Kept(world), road.clock(world, hours=72)
    points = []
    for point in killing.kills(world, kept.restore, killing.seafile(world, "refresh"), later):
        points.append(point)
        world.run(world.nginx_ctl, "-t")
        world.certbot("renew", env=later)
        assert world.handshake(road.NAME).staple is None, point
        assert not road.response_path(world).exists(), point
        assert_nothing_is_left(world)
    assert {point.call for point in points} >= {"unlink", "rmdir"}


@pytest.mark.long
@killed
def test_refresh_killed_at_every_change(world: World) -> None:
    """A newer response, the record, the reload: nginx starts from each state, and the next renew serves the newer."""
    road.start(world)
    road.certonly(world)
    old, kept, later = road.response_path(world).read_bytes(), killing.Kept(world), road.clock(world, hours=60)
    world.set_responder(this_update_offset_hours=60)
    points = []
    for point in killing.kills(world, kept.restore, killing.seafile(world, "refresh"), later):
        points.append(point)
        world.run(world.nginx_ctl, "-t")
        assert world.handshake(road.NAME).staple in (old, road.response_path(world).read_bytes()), point
        world.certbot("renew", env=later)
        new = road.response_path(world).read_bytes()
        assert world.handshake(road.NAME).staple == new != old, point
        assert_nothing_is_left(world)
    assert [point.call for point in points].count("rename") >= 3  # the record, the response, the record again


@pytest.mark.long
@killed
def test_must_staple_killed_at_every_change(world: World) -> None:
    """From the pin on, a reload after any kill serves a certificate with its own staple; renew brings the new one."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    site, kept = road.site_bytes(world), killing.Kept(world)
    world.certbot("renew", "--force-renewal")
    renewed = world.folder / "renewed"
    shutil.copytree(world.config_dir, renewed, symlinks=True)

    def renewed_only() -> None:
        """The new certificate is in live/, its hook has not run, and nginx serves the old one."""
        kept.restore()
        for name in ("archive", "live"):
            shutil.rmtree(world.config_dir / name)
            shutil.copytree(renewed / name, world.config_dir / name, symlinks=True)

    is_safe = False
    for point in killing.kills(world, renewed_only, killing.seafile(world, "deploy", "--cert-name", road.NAME)):
        world.run(world.nginx_ctl, "-t")
        is_safe = is_safe or road.site_bytes(world) != site
        if is_safe:
            world.reload_nginx()
            assert world.gnutls(road.NAME).accepted, point
        world.certbot("renew")
        assert road.served_is_lineage(world), point
        assert world.gnutls(road.NAME).accepted, point
        assert road.site_bytes(world) == site, point
        assert_nothing_is_left(world)
    assert is_safe


@pytest.mark.long
@killed
def test_must_staple_renewal_killed_at_every_change(world: World) -> None:
    """certbot itself is killed, from the hold on to the end: each reload is safe; a renew with nothing due mends."""
    world.start_pebble(must_staple=True, authz_reuse=100)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    site, kept, first = road.site_bytes(world), killing.Kept(world), world.leaf(road.NAME)
    points, renewed = [], 0
    for point in killing.kills(world, kept.restore, world.certbot_command("renew", "--force-renewal")):
        points.append(point)
        world.run(world.nginx_ctl, "-t")
        world.reload_nginx()
        assert world.gnutls(road.NAME).accepted, point
        world.certbot("renew")
        assert road.served_is_lineage(world), point
        assert world.gnutls(road.NAME).accepted, point
        assert road.site_bytes(world) == site, point
        assert [path.name for path in (world.staple_dir / road.NAME).iterdir()] == ["ocsp.response"], point
        assert_nothing_is_left(world)
        renewed += world.leaf(road.NAME) != first
    assert 0 < renewed < len(points)


@pytest.mark.long
@killed
def test_a_renewal_that_the_ca_fails_killed_at_every_change(world: World) -> None:
    """The hold, and its end: each reload serves the same certificate and staple; the next renew ends the hold."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    site, kept, served = road.site_bytes(world), killing.Kept(world), world.handshake(road.NAME)
    world.stop_pebble()
    held = 0
    for point in killing.kills(world, kept.restore, world.certbot_command("renew", "--force-renewal")):
        held += road.site_bytes(world) != site
        world.run(world.nginx_ctl, "-t")
        world.reload_nginx()
        assert world.handshake(road.NAME) == served, point
        world.certbot("renew")
        assert road.site_bytes(world) == site, point
        assert [path.name for path in (world.staple_dir / road.NAME).iterdir()] == ["ocsp.response"], point
        assert world.handshake(road.NAME) == served, point
        assert_nothing_is_left(world)
    assert held > 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_the_journals_folder_full_or_read_only(world: World, trouble: str) -> None:
    """What cannot be written down is not edited: the site stays, and the system's reason is said."""
    site = road.start(world)
    road.certonly(world)
    world.seafile("undo")
    served = world.handshake(road.NAME)
    folder = world.config_dir / "seafile"
    with mounted(folder, "ro" if trouble == "read-only" else "rw"):
        if trouble == "full":
            fill(folder / ".filler")
        run = world.seafile("deploy", "--cert-name", road.NAME, check=False)
        assert run.exit_code == 1
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.stderr
        assert road.site_bytes(world) == site
        world.reload_nginx()
        assert world.handshake(road.NAME) == served
    world.certbot("renew")
    assert road.staples_lineage(world)
    assert_nothing_is_left(world)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_the_sites_folder_full_or_read_only_for_a_must_staple_site(world: World, trouble: str) -> None:
    """A site that cannot be held is not renewed: the certificate in live/ stays, with its staple, and exit is 1."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    served = world.handshake(road.NAME)
    with mounted(world.sites, "ro" if trouble == "read-only" else "rw"):
        if trouble == "full":
            fill(world.sites / ".filler")
        before = snapshot(world.server_root)
        run = world.certbot("renew", "--force-renewal", check=False)
        assert run.exit_code == 1
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.output
        assert snapshot(world.server_root) == before
        world.reload_nginx()
        assert world.handshake(road.NAME) == served
        assert road.served_is_lineage(world)
    world.certbot("renew", "--force-renewal")
    assert road.served_is_lineage(world)
    assert world.gnutls(road.NAME).accepted


@killed
def test_recovery_never_overwrites_what_a_person_wrote(world: World) -> None:
    """A checkpoint that a killed run left open is closed; no later run of certbot puts its files back."""
    road.start(world)
    road.certonly(world)
    world.seafile("undo")
    command = killing.seafile(world, "deploy", "--cert-name", road.NAME)
    kept = killing.Kept(world)
    rename = [point for point in killing.trace(world, command) if point.call == "rename"]
    kept.restore()
    killing.kill_at(world, command, rename[-3])
    assert (world.work_dir / "IN_PROGRESS").exists()
    site = world.sites / road.SITE_NAME
    site.write_bytes(site.read_bytes() + b"# mine\n")
    world.certbot("install", "-i", "seafile", "--cert-name", road.NAME, *world.plugin_options)
    assert site.read_bytes().endswith(b"# mine\n")
    assert_nothing_is_left(world)


@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("command", ["refresh", "deploy"])
def test_the_folder_of_staples_full_or_read_only(world: World, command: str, trouble: str) -> None:
    """A staple that cannot be stored leaves the old one stored and served; the system's reason is said, exit 1."""
    road.start(world)
    road.certonly(world)
    world.set_responder(this_update_offset_hours=60)
    folder = world.staple_dir / road.NAME
    with mounted(folder, "ro" if trouble == "read-only" else "rw"):
        if trouble == "full":
            fill(folder / ".filler")
        before, site = snapshot(folder), road.site_bytes(world)
        later = road.clock(world, hours=60)
        run = world.seafile(command, "--cert-name", road.NAME, check=False, env=later)
        assert run.exit_code == 1
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.stderr
        assert (snapshot(folder), road.site_bytes(world)) == (before, site)
        world.run(world.nginx_ctl, "-t")
        assert road.staples_lineage(world)
    world.certbot("renew", env=later)
    assert world.handshake(road.NAME).staple == road.response_path(world).read_bytes()
    assert_nothing_is_left(world)
