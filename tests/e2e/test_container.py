"""nginx in a container, and certbot beside it on the machine: what docs/nginx-in-container.md says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certbot_seafile.system import nginx, serving
from e2e import minted, road, shapes
from e2e.container import ContainerWorld, inside, skip_without_namespaces
from e2e.processes import tool
from e2e.road import NAME
from e2e.test_docs import blocks
from e2e.world import Run, World


@pytest.fixture
def world(tools: None) -> Iterator[ContainerWorld]:
    """Give a machine whose nginx runs in a container; afterwards everything in it is ended and removed."""
    with ContainerWorld() as made:
        yield made


def start(
    world: ContainerWorld, site: bytes = road.TUTORIAL_SITE, *, must_staple: bool = False, ocsp: bool = True
) -> bytes:
    """Start CA, responder and the container with the site, which listens on all addresses of the container."""
    world.start_pebble(must_staple=must_staple, ocsp=ocsp)
    world.start_responder()
    world.start_seafile()
    adapted = world.adapt(site).replace(b" 127.0.0.1:", b" ")
    world.write_site(road.SITE_NAME, adapted)
    world.start_nginx()
    return adapted


def assert_checked(world: ContainerWorld) -> None:
    """Assert that `check` finds nothing, with Seafile in the container's network, and `status` has the certificate."""
    road.give_scheduler(world)
    assert world.seafile("check", "--root", world.folder).output == "All is well.\n"
    assert NAME in world.seafile("status").stdout


@pytest.mark.long
def test_certbot_on_the_machine_renews_for_nginx_in_a_container(world: ContainerWorld) -> None:
    """The first certificate, a renewal, a new staple, check, status and undo, with the mounts of the page."""
    (compose,) = (text for kind, text in blocks("nginx-in-container.md") if kind == "yaml")
    mounts = re.findall(r"^ +- (/\S+):(/\S+):ro$", compose, re.MULTILINE)
    assert [outside for outside, inside in mounts if outside == inside] == [outside for outside, _ in mounts]
    world.read_only = [world.path(outside) for outside, _ in mounts]
    assert world.mounts[: len(mounts)] == world.read_only
    before = start(world)
    assert not world.path("/run/nginx.pid").exists()
    road.certonly(world)
    assert road.staples_lineage(world)
    assert_checked(world)
    world.certbot("renew", "--dry-run")
    world.certbot("renew", "--force-renewal")
    assert road.staples_lineage(world)
    reloads = world.reloads()
    world.certbot("renew")
    assert world.reloads() == reloads
    first = road.served_staple(world)
    world.seafile("refresh", "--force")
    assert road.served_staple(world) != first
    world.seafile("undo")
    assert road.site_bytes(world) == before
    assert not road.served_is_lineage(world)


@pytest.mark.long
def test_a_certificate_that_must_be_stapled_is_served_by_a_container(world: ContainerWorld) -> None:
    """Each version is tried in the container by a private file, also where it may write to none of the mounts."""
    world.read_only = [world.server_root, world.config_dir, world.webroot]
    before = start(world, must_staple=True)
    road.certonly(world, "--must-staple")
    assert road.staples_lineage(world)
    world.certbot("renew", "--force-renewal")
    assert road.staples_lineage(world)
    assert len(road.versions(world)) == 2
    assert_checked(world)
    world.seafile("undo")
    assert road.site_bytes(world) == before


@pytest.mark.long
def test_another_way_to_reload_is_kept(world: ContainerWorld) -> None:
    """--seafile-reload-cmd may be a signal to the container's first process, as `docker kill -s HUP NAME` sends it."""
    start(world)
    road.certonly(world, "--seafile-reload-cmd", f"kill -s HUP {world.master}")
    assert road.staples_lineage(world)
    world.certbot("renew", "--force-renewal")
    assert road.staples_lineage(world)
    assert world.reloads() == 0


@pytest.mark.long
def test_the_sites_folder_may_be_mounted_alone(world: ContainerWorld) -> None:
    """The container has nginx.conf of its own, and of the machine the folders of site, staples, and certificates."""
    world.mounts[0:1] = [world.sites, world.staple_dir]
    before = start(world)
    road.certonly(world)
    assert road.staples_lineage(world)
    assert_checked(world)
    world.seafile("undo")
    assert road.site_bytes(world) == before


@pytest.mark.long
def test_a_site_in_clear_gets_tls_on_a_published_port(world: ContainerWorld) -> None:
    """What holds port 443 on the machine is what publishes it for the container, where it is free."""
    start(world, shapes.plain(shapes.PROXY, names=NAME).encode())
    road.certonly(world)
    assert road.staples_lineage(world)
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 301")


@pytest.mark.long
def test_without_staples_their_folder_need_not_be_mounted(world: ContainerWorld) -> None:
    """A CA without OCSP: the folders of the site and of the certificates are enough."""
    world.mounts[0:1] = [world.sites]
    start(world, ocsp=False)
    road.certonly(world)
    assert road.served_is_lineage(world)
    assert_checked(world)


@pytest.mark.parametrize("missing", ["the site's folder", "staples", "certificates"])
def test_what_the_container_does_not_see_is_named_before_the_ca_is_asked(world: ContainerWorld, missing: str) -> None:
    """The site's file mounted alone, or a folder that is not mounted: the line of compose.yaml is said."""
    lost = {"the site's folder": world.sites, "staples": world.staple_dir, "certificates": world.config_dir}[missing]
    site = world.sites / road.SITE_NAME
    world.mounts[0:1] = [world.sites if lost != world.sites else site, world.staple_dir]
    world.mounts = [path for path in world.mounts if path != lost]
    lost.mkdir(exist_ok=True)
    before = start(world)
    run = road.certonly(world, check=False)
    assert (run.exit_code, road.site_bytes(world)) == (1, before)
    assert f"`- {lost}:{lost}`" in run.output
    assert "Requesting a certificate" not in run.output
    assert not list(world.server_root.rglob(".*")) + list(world.config_dir.glob(".probe*"))


@pytest.mark.long
def test_a_container_that_is_stopped_is_no_fault_of_the_site(world: ContainerWorld) -> None:
    """A renewal fails and says what the script says; the next one goes on."""
    start(world)
    road.certonly(world)
    world.stop_nginx()
    run = world.certbot("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert "failed before nginx had a say: nsenter" in run.output
    world.start_nginx()
    world.certbot("renew", "--force-renewal")
    assert road.staples_lineage(world)


@pytest.mark.long
def test_a_busy_nginx_in_a_container_is_waited_for(world: ContainerWorld) -> None:
    """Its master is seen from outside, and a reload is over when its old workers are gone."""
    start(world)
    road.certonly(world)
    master = world.master
    os.kill(master, signal.SIGSTOP)
    timer = threading.Timer(7, os.kill, (master, signal.SIGCONT))
    timer.start()
    world.certbot("renew", "--force-renewal")
    timer.join()
    assert road.staples_lineage(world)


@pytest.mark.long
def test_old_workers_that_nobody_sees_are_waited_for(tools: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An nginx that this machine cannot see answers by the new configuration alone when it is looked at."""
    monkeypatch.setattr(nginx, "_UNSEEN_SECONDS", 3.0)  # which is enough where five tests share two processors
    with World() as world:
        site = world.write_site(road.SITE_NAME, world.adapt(b"server { listen 80; return 200 0; }\n"))
        world.start_nginx()
        pid = world.path("/run/nginx.pid")
        working = minted.context(world, minted.options(world, reload_cmd=f"kill -s HUP {pid.read_text().strip()}"))
        pid.rename(pid.with_name("elsewhere.pid"))
        for number in range(1, 6):
            site.write_bytes(world.adapt(b"server { listen 80; return 200 %d; }\n" % number))
            working.nginx.reload()
            serving.wait_for(working, lambda: None)
            assert {world.fetch(NAME, "/").stdout[-1] for _ in range(5)} == {str(number)}


# --- the other way round ---------------------------------------------------------------------------------------------


@pytest.mark.long
def test_certbot_in_a_container_serves_by_nginx_on_the_machine() -> None:
    """With the machine's folders and network, and a script that runs the machine's nginx, everything works."""
    skip_without_namespaces()
    with World() as world:
        before = road.start(world)
        pid = world.path("/run/nginx.pid").read_text().strip()
        ctl = world.folder / "image" / "nginx-on-the-machine"
        enter = [tool("nsenter"), "--target", pid, "--mount", "--", str(world.nginx_ctl)]
        ctl.parent.mkdir()
        ctl.write_text(f'#!/bin/sh\nexec {shlex.join(enter)} "$@"\n')
        ctl.chmod(0o755)
        image = [world.root.parent, ctl.parent, world.nginx_ctl.parent]
        mounts = [*image, world.server_root, world.config_dir, world.work_dir, world.logs_dir, world.webroot]
        for path in mounts:
            path.mkdir(parents=True, exist_ok=True)

        def contained(*command: str | Path) -> Run:
            script = inside(world, [(path, path) for path in mounts], "true", *command)
            return world.run(tool("unshare"), "--mount", "/bin/sh", "-euc", script)

        words: list[str | Path] = [*world.plugin_options, "--seafile-ctl", ctl]
        contained(*world.certbot_command("certonly", "-a", "seafile", "-d", NAME, *words))
        assert road.staples_lineage(world)
        contained(*world.certbot_command("renew", "--force-renewal"))
        assert road.staples_lineage(world)
        contained(Path(sys.executable).parent / "certbot-seafile", *world.folders, "undo")
        assert road.site_bytes(world) == before
