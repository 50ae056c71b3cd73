"""The plugin's options, each seen to do what its line in the help says, and remembered in the renewal file."""

from __future__ import annotations

import pytest

from e2e import road
from e2e.world import World


@pytest.mark.long
def test_stapling_off_removes_stapling_again(world: World) -> None:
    """With --seafile-stapling off the next certificate is served without a staple, and renewals keep it so."""
    road.start(world)
    road.certonly(world)
    assert road.staples_lineage(world)
    road.certonly(world, "--force-renewal", "--seafile-stapling", "off")
    assert road.served_is_lineage(world)
    assert world.handshake(road.NAME).staple is None
    assert not road.response_path(world).exists()
    assert road.renewal(world)["seafile_stapling"] == "off"
    world.certbot("renew")
    assert world.handshake(road.NAME).staple is None
    road.certonly(world, "--force-renewal", "--seafile-stapling", "auto")
    assert road.staples_lineage(world)


def test_another_responder(world: World) -> None:
    """--seafile-ocsp-url asks another responder than the certificate names, also for a certificate that names none."""
    world.start_pebble(ocsp=False)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--seafile-ocsp-url", world.ocsp_url)
    assert road.staples_lineage(world)
    assert road.renewal(world)["seafile_ocsp_url"] == world.ocsp_url


def test_reload_command_is_the_administrators(world: World) -> None:
    """--seafile-reload-cmd takes the place of nginx's own, and may be a shell's line."""
    road.start(world, ocsp=False)
    mark = world.folder / "reloaded"
    command = f"echo $(date) >> {mark} && kill -HUP $(cat {world.path('/run/nginx.pid')})"
    reloads = world.reloads()
    road.certonly(world, "--seafile-reload-cmd", command)
    assert mark.exists()
    assert world.reloads() == reloads
    assert road.served_is_lineage(world)


def test_server_root_names_the_folder_of_nginx_conf(world: World) -> None:
    """--seafile-server-root is used where nginx was built for another folder."""
    road.start(world, ocsp=False)
    other = world.folder / "elsewhere"
    world.server_root.rename(other)
    world.server_root.symlink_to(other)
    road.certonly(world, "--seafile-server-root", str(other))
    assert road.served_is_lineage(world)
    assert road.renewal(world)["seafile_server_root"] == str(other)


def test_an_unused_option_is_not_written(world: World) -> None:
    """Defaults are not saved, so that a later release may change them."""
    road.start(world, ocsp=False)
    road.certonly(world)
    saved = {key for key in road.renewal(world) if key.startswith("seafile_")}
    assert saved == {"seafile_ctl", "seafile_webroot", "seafile_staple_dir"}
