"""A reload has happened when nobody answers by the old configuration any more, and not when a command ended well."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import lineages
from certbot_seafile.usecases import deploy, enhance
from e2e import minted
from e2e.shapes import NAME, SITE
from e2e.world import World, snapshot

SITE_FILE = "seafile.conf"


def deployed(world: World) -> None:
    """Give the world a site with its certificate."""
    world.write_site(SITE_FILE, world.adapt(SITE.encode()))
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))


@contextlib.contextmanager
def taken_port(world: World) -> Iterator[None]:
    """Let another file ask for a port that another program holds, which `nginx -t` does not see."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        path = world.server_root / "conf.d" / "other.conf"
        path.write_text(f"server {{ listen 127.0.0.1:{other.getsockname()[1]}; }}\n")
        yield
    path.unlink()


def enhance_site(world: World) -> None:
    """Add HSTS."""
    working = minted.context(world, minted.options(world))
    enhance.enhance(working, NAME, "ensure-http-header", "Strict-Transport-Security")


def test_a_reload_that_nginx_refuses_fails(world: World) -> None:
    """The run says which port, the site's file is as it was, and the next run succeeds once the port is free."""
    deployed(world)
    before = snapshot(world.sites)
    with taken_port(world), pytest.raises(errors.NginxRefused, match=r"by the old configuration.*bind\(\) to 127"):
        enhance_site(world)
    assert snapshot(world.sites) == before
    enhance_site(world)
    assert b"Strict-Transport-Security" in (world.sites / SITE_FILE).read_bytes()


def test_a_worker_that_hangs_makes_no_reload_fail(world: World) -> None:
    """Once new workers are there, nginx has loaded the new configuration."""
    deployed(world)
    master = world.path("/run/nginx.pid").read_text().strip()
    (worker,) = map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())
    os.kill(worker, signal.SIGSTOP)
    try:
        minted.context(world, minted.options(world)).nginx.reload(2.0)
    finally:
        os.kill(worker, signal.SIGCONT)
    assert world.handshake(NAME).certificate == world.leaf(NAME)


@pytest.mark.long
def test_an_undo_that_nginx_does_not_load_is_not_done(world: World) -> None:
    """It fails until nginx runs with the site as it was."""
    world.write_site(SITE_FILE, world.adapt(SITE.encode()))
    before = snapshot(world.sites)
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    with taken_port(world):
        for _ in range(2):
            with pytest.raises(errors.NginxRefused, match=r"bind\(\) to 127"):
                minted.take_back(world, minted.options(world))
        assert world.handshake(NAME).certificate == world.leaf(NAME)
    assert minted.take_back(world, minted.options(world))
    assert snapshot(world.sites) == before
    assert world.handshake(NAME).certificate != world.leaf(NAME)


def test_an_undo_needs_no_nginx_that_runs(world: World) -> None:
    """With nginx stopped, one run takes everything out, for the next start."""
    world.write_site(SITE_FILE, world.adapt(SITE.encode()))
    before = snapshot(world.sites)
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    world.stop_nginx()
    assert minted.take_back(world, minted.options(world))
    assert snapshot(world.sites) == before
    assert list((world.config_dir / "seafile").glob("*.json")) == []


def busy(world: World, seconds: float) -> threading.Timer:
    """Let nginx's master do nothing for a while, as one that has much to load."""
    master = int(world.path("/run/nginx.pid").read_text())
    os.kill(master, signal.SIGSTOP)
    timer = threading.Timer(seconds, os.kill, (master, signal.SIGCONT))
    timer.start()
    return timer


@pytest.mark.long
@pytest.mark.parametrize(("is_seen", "seconds"), [(True, 14.0), (False, 6.0)], ids=["busy", "workers unseen"])
def test_a_reload_takes_as_long_as_it_takes(world: World, is_seen: bool, seconds: float) -> None:
    """A busy master, or workers in another pid namespace: the edits stay, and the certificate is served."""
    world.write_site(SITE_FILE, world.adapt(SITE.encode()))
    world.start_nginx()
    chosen, pid = minted.options(world), world.path("/run/nginx.pid")
    minted.issue(world, NAME, chosen)
    assert minted.take_back(world, chosen)
    timer = busy(world, seconds)
    if not is_seen:
        chosen = minted.options(world, reload_cmd=f"kill -HUP {pid.read_text().strip()}")
        pid.rename(pid.with_name("elsewhere.pid"))
    deploy.deploy(minted.context(world, chosen), lineages.load(str(world.config_dir), NAME, options=chosen))
    timer.join()
    while world.handshake(NAME).certificate != world.leaf(NAME):  # by an old worker, once more
        assert not is_seen
    if not is_seen:
        pid.with_name("elsewhere.pid").rename(pid)
