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
    assert not (world.config_dir / "seafile" / "reload.json").exists()


@pytest.mark.long
@killed
def test_deploy_killed_at_every_change(world: World) -> None:
    """The first deployment, staple and site: nginx starts from each state; renew brings all of it to the same end."""
    before = road.start(world)
    road.certonly(world)
    wanted = snapshot(world.server_root)
    road.take_out(world)
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
    road.take_out(world)
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
    # The mark, the record and the response; the state before the last rename is that after the response was written.
    assert {"rename", "unlink"} <= {point.call for point in points}
    assert [point.call for point in points].count("rename") >= 2


@pytest.fixture
def must_staple(world: World) -> World:
    """Return a world with a CA that issues must-staple certificates and reuses authorizations, and no certificate."""
    world.start_pebble(must_staple=True, authz_reuse=100)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    return world


def assert_safe(world: World, point: killing.Point) -> None:
    """Assert that nginx starts from what is on disk, and that a client which insists on a staple accepts it."""
    world.run(world.nginx_ctl, "-t")
    world.reload_nginx()
    assert world.gnutls(road.NAME).accepted, point


def assert_whole(world: World, point: killing.Point) -> None:
    """Assert that all is as after a run that nobody killed: the new leaf served, at most two versions, nothing else."""
    assert road.served_is_lineage(world), point
    assert world.gnutls(road.NAME).accepted, point
    assert len(road.versions(world)) <= 2, point
    assert [path.name for path in world.staple_dir.iterdir() if path.name.startswith(".")] == [], point
    assert not road.record(world)["needs_reload"], point
    assert_nothing_is_left(world)


@pytest.mark.long
@killed
def test_a_first_must_staple_deployment_killed_at_every_change(must_staple: World) -> None:
    """Until the site includes the snippet, the old certificate is served; then nothing is without its staple."""
    world = must_staple
    old = world.handshake(road.NAME).certificate
    for folder in killing.folders(world):
        folder.mkdir(parents=True, exist_ok=True)
    kept = killing.Kept(world)
    road.certonly(world, "--must-staple")
    issued = world.folder / "issued"
    shutil.copytree(world.config_dir, issued, symlinks=True)

    def issued_only() -> None:
        """The certificate is in live/, and its hook has not run."""
        kept.restore()
        shutil.rmtree(world.config_dir)
        shutil.copytree(issued, world.config_dir, symlinks=True)
        shutil.rmtree(world.config_dir / "seafile")

    points = []
    for point in killing.kills(world, issued_only, killing.seafile(world, "deploy", "--cert-name", road.NAME)):
        points.append(point)
        world.run(world.nginx_ctl, "-t")
        world.reload_nginx()
        assert world.handshake(road.NAME).certificate == old or world.gnutls(road.NAME).accepted, point
        world.certbot("renew")
        assert_whole(world, point)
    assert {point.call for point in points} >= {"mkdir", "rename"}


@pytest.mark.long
@killed
def test_a_must_staple_renewal_killed_at_every_change(must_staple: World) -> None:
    """certbot itself is killed, and its hook: each reload is safe; a renew with nothing due goes on from there."""
    world = must_staple
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

    points = []
    for point in killing.kills(world, renewed_only, killing.seafile(world, "deploy", "--cert-name", road.NAME)):
        points.append(point)
        assert_safe(world, point)
        world.certbot("renew")
        assert_whole(world, point)
        assert road.site_bytes(world) == site, point
    assert {point.call for point in points} >= {"mkdir", "rename"}


@pytest.mark.long
@killed
@pytest.mark.parametrize("command", ["renew", "certonly"])
def test_certbot_killed_at_every_change(must_staple: World, command: str) -> None:
    """Also where a plain certificate is sealed first, because a must-staple one is asked for in its place."""
    world = must_staple
    if command == "renew":
        road.certonly(world, "--must-staple")
        words: list[str] = ["renew", "--force-renewal"]
    else:
        road.certonly(world)
        words = ["certonly", "-a", "seafile", "-d", road.NAME, "--force-renewal", "--must-staple"]
        words += map(str, world.plugin_options)
    kept = killing.Kept(world)
    for point in killing.kills(world, kept.restore, world.certbot_command(*words)):
        assert_safe(world, point)
        world.certbot("renew")
        if command == "certonly" and not road.served_is_lineage(world):  # certbot has not written the installer yet
            assert_safe(world, point)
            assert f"run `certbot-seafile deploy --cert-name {road.NAME}`" in world.seafile("check", check=False).stdout
            world.seafile("deploy", "--cert-name", road.NAME)
        assert_whole(world, point)


@pytest.mark.long
@killed
def test_a_must_staple_refresh_killed_at_every_change(must_staple: World) -> None:
    """The newer response goes into the version by one rename: each state is served with the one or the other."""
    world = must_staple
    road.certonly(world, "--must-staple")
    kept, later = killing.Kept(world), road.clock(world, hours=60)
    world.set_responder(this_update_offset_hours=60)
    for point in killing.kills(world, kept.restore, killing.seafile(world, "refresh"), later):
        assert_safe(world, point)
        world.certbot("renew", env=later)
        assert world.handshake(road.NAME).staple == road.response_path(world).read_bytes(), point
        assert_whole(world, point)


@pytest.mark.long
@killed
def test_a_must_staple_undo_killed_at_every_change(must_staple: World) -> None:
    """The site comes first, then snippet and keys: nginx starts from each state, and a second undo ends it."""
    world = must_staple
    site = road.site_bytes(world)
    road.certonly(world, "--must-staple")
    kept = killing.Kept(world)
    for point in killing.kills(world, kept.restore, killing.seafile(world, "undo", "--cert-name", road.NAME)):
        world.run(world.nginx_ctl, "-t")
        world.reload_nginx()
        world.seafile("undo", "--cert-name", road.NAME, check=False)
        assert road.site_bytes(world) == site, point
        assert list(world.staple_dir.iterdir()) == [], point


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_the_journals_folder_full_or_read_only(world: World, trouble: str) -> None:
    """What cannot be written down is not edited: the site stays, and the system's reason is said."""
    site = road.start(world)
    road.certonly(world)
    road.take_out(world)
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
def test_the_versions_folder_full_or_read_only(must_staple: World, trouble: str) -> None:
    """A renewed must-staple certificate that cannot be sealed leaves the old one served, stapled; the next run does."""
    world = must_staple
    road.certonly(world, "--must-staple")
    served, folder = world.handshake(road.NAME), world.staple_dir / road.NAME
    with mounted(folder, "ro" if trouble == "read-only" else "rw"):
        if trouble == "full":
            fill(folder / ".filler")
        before = snapshot(folder)
        run = world.certbot("renew", "--force-renewal", check=False)
        assert run.exit_code == 1
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.output
        assert snapshot(folder) == before
        world.reload_nginx()
        assert world.handshake(road.NAME) == served
        assert world.gnutls(road.NAME).accepted
    world.certbot("renew")
    assert road.served_is_lineage(world)
    assert world.gnutls(road.NAME).accepted


@pytest.mark.long
@killed
def test_recovery_never_overwrites_what_a_person_wrote(world: World) -> None:
    """A checkpoint that a killed run left open is closed; no later run of certbot puts its files back."""
    road.start(world)
    road.certonly(world)
    road.take_out(world)
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


@pytest.mark.long
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
