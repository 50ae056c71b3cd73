"""Whatever fails on the way, the site is put back, nginx serves what it served, and the run says what happened."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e import road
from e2e.world import Run, World, snapshot

LIVE = b"ssl_certificate /"


@pytest.fixture
def prepared(world: World) -> World:
    """Return a world with a lineage of this plugin whose site was undone: the next deploy edits it again."""
    road.start(world, ocsp=False)
    road.certonly(world)
    world.seafile("undo")
    return world


def failing_nginx(world: World, script: str) -> Path:
    """Replace the nginx binary of the world by a script around it; `$real` is the binary, `$n` counts its calls."""
    real, count = world.nginx_ctl.with_name("nginx.real"), world.folder / "bin" / "count"
    world.nginx_ctl.rename(real)
    world.nginx_ctl.write_text(
        f"#!/bin/sh\nreal={shlex.quote(str(real))}\nsite={shlex.quote(str(world.sites / road.SITE_NAME))}\n"
        f'n=$(($(cat {count} 2>/dev/null) + 1))\necho $n > {count}\n{script}\nexec "$real" "$@"\n'
    )
    world.nginx_ctl.chmod(0o755)
    return count


def deploy(world: World) -> Run:
    """Run the deploy hook and expect exit code 1, one line on stderr, no traceback."""
    run = world.seafile("deploy", "--cert-name", road.NAME, check=False)
    assert run.exit_code == 1, run
    assert "Traceback" not in run.output
    assert run.stderr.splitlines()[-1].startswith("certbot-seafile: ")
    return run


REFUSE_THE_EDIT = (
    'case "$*" in -t) grep -q "live/home" "$site" && { echo "nginx: [emerg] pretended" >&2; exit 1; };; esac'
)
REFUSE_TO_RELOAD = 'case "$*" in "-s reload") echo "nginx: [alert] pretended" >&2; exit 1;; esac'
FORGET_TO_RELOAD = 'case "$*" in "-s reload") exit 0;; esac'


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (REFUSE_THE_EDIT, "pretended"),
        (REFUSE_TO_RELOAD, "pretended"),
        pytest.param(FORGET_TO_RELOAD, "still answers by the old configuration", marks=pytest.mark.long),
    ],
    ids=["nginx -t fails after the edit", "the reload fails", "the reload does nothing"],
)
def test_the_site_is_put_back(prepared: World, script: str, said: str) -> None:
    """Site and journal are as before, the old certificate is served, and the reason is said."""
    site, served = road.site_bytes(prepared), prepared.handshake(road.NAME).certificate
    failing_nginx(prepared, script)
    run = deploy(prepared)
    assert said in run.stderr
    assert road.site_bytes(prepared) == site
    assert prepared.handshake(road.NAME).certificate == served
    assert list((prepared.config_dir / "seafile").glob("*.json")) == []
    assert not (prepared.work_dir / "IN_PROGRESS").exists()


@pytest.mark.long
@pytest.mark.parametrize("place", ["renewal file", "folder of hooks", "nowhere"])
def test_a_reload_says_which_pre_hook_stopped_nginx(prepared: World, place: str) -> None:
    """certbot ran it before the renewal; without one, only that nginx does not run is known."""
    renewal, script = prepared.config_dir / "renewal" / f"{road.NAME}.conf", prepared.config_dir / "renewal-hooks/pre/x"
    if place == "renewal file":
        text = renewal.read_text()
        renewal.write_text(text.replace("[renewalparams]", "[renewalparams]\npre_hook = systemctl stop nginx"))
    elif place == "folder of hooks":
        script.write_text("#!/bin/sh\nservice nginx stop\n")
        script.chmod(0o755)
    prepared.stop_nginx()
    run = deploy(prepared)
    named = {"renewal file": f"pre_hook in {renewal}", "folder of hooks": str(script)}.get(place)
    assert ("stopped by a pre-hook" in run.stderr) == (named is not None)
    assert (named or "start nginx if it is not running") in run.stderr


def test_the_next_run_after_a_failure_succeeds(prepared: World) -> None:
    """A failure leaves nothing behind that would hinder the next run."""
    failing_nginx(prepared, REFUSE_TO_RELOAD)
    deploy(prepared)
    prepared.nginx_ctl.with_name("nginx.real").rename(prepared.nginx_ctl)
    prepared.seafile("deploy", "--cert-name", road.NAME)
    assert road.served_is_lineage(prepared)


def test_a_person_who_edits_meanwhile_loses_nothing(prepared: World) -> None:
    """A line written between the edit and its failure stays, and our lines go."""
    site = road.site_bytes(prepared)
    failing_nginx(prepared, 'case "$*" in "-s reload") echo "# mine" >> "$site"; exit 1;; esac')
    deploy(prepared)
    assert road.site_bytes(prepared) == site + b"# mine\n" * road.site_bytes(prepared).count(b"# mine\n")
    assert b"# mine\n" in road.site_bytes(prepared)


def test_two_runs_at_once_do_not_interleave(prepared: World) -> None:
    """Four deployments at the same time all succeed, and the site is as after one."""
    command = [
        str(Path(sys.executable).parent / "certbot-seafile"),
        *prepared.folders,
        "deploy",
        "--cert-name",
        road.NAME,
    ]
    runs = [subprocess.Popen(command, env=prepared.environment(), stderr=subprocess.PIPE) for _ in range(4)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 4, said
    after = road.site_bytes(prepared)
    prepared.seafile("deploy", "--cert-name", road.NAME)
    assert road.site_bytes(prepared) == after
    assert after.count(LIVE) == 2
    assert road.served_is_lineage(prepared)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Lay a small file system of memory over a folder, with all that is in it; skip where nobody may."""
    with tempfile.TemporaryDirectory() as aside:
        shutil.copytree(folder, aside, symlinks=True, dirs_exist_ok=True)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("only root may mount a file system, and not everywhere")
        shutil.copytree(aside, folder, symlinks=True, dirs_exist_ok=True)
    try:
        subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Write into a file until the file system is full."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    with pytest.raises(OSError, match="No space left"):
        list(iter(lambda: os.write(descriptor, b"x" * 1024), 0))
    os.close(descriptor)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_disk_full_and_read_only(prepared: World, trouble: str) -> None:
    """Where the site's folder is full or read-only, nothing changes and the system's reason is said."""
    with mounted(prepared.sites, "ro" if trouble == "read-only" else "rw"):
        if trouble == "full":
            fill(prepared.sites / ".filler")
        before = snapshot(prepared.sites)
        run = deploy(prepared)
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.stderr
        assert snapshot(prepared.sites) == before


def test_rollback_restores_the_site(world: World) -> None:
    """`certbot rollback` goes back through certbot's own checkpoints, and nginx serves the old certificate again."""
    before = road.start(world, ocsp=False)
    old = world.handshake(road.NAME).certificate
    road.certonly(world)
    world.certbot("rollback", *world.plugin_options, "-i", "seafile")
    assert road.site_bytes(world) == before
    assert world.handshake(road.NAME).certificate == old


def test_undo_keeps_what_a_person_wrote_since(world: World) -> None:
    """Only our own lines go, and only what we commented out comes back."""
    before = road.start(world, ocsp=False)
    road.certonly(world)
    edited = road.site_bytes(world).replace(b"ssl_prefer_server_ciphers on;", b"ssl_prefer_server_ciphers off;")
    (world.sites / road.SITE_NAME).write_bytes(edited + b"# a person's last line\n")
    world.seafile("undo")
    expected = before.replace(b"ssl_prefer_server_ciphers on;", b"ssl_prefer_server_ciphers off;")
    assert road.site_bytes(world) == expected + b"# a person's last line\n"


def test_mode_and_link_of_the_site_stay(world: World) -> None:
    """The site behind a link in sites-enabled is edited where it lies; its mode stays, and so does the link."""
    road.start(world, ocsp=False)
    real = world.server_root / "sites-available" / "seafile.conf"
    real.parent.mkdir()
    (world.sites / road.SITE_NAME).rename(real)
    (world.sites / road.SITE_NAME).symlink_to(real)
    real.chmod(0o640)
    road.certonly(world)
    assert (world.sites / road.SITE_NAME).is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert b"live/home.seafile.com" in real.read_bytes()
    assert sorted(path.name for path in real.parent.iterdir()) == ["seafile.conf"]
