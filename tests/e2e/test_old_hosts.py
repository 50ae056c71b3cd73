"""Machines that version 0.0 has set up: check names one command, and that command brings them to the new state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from certbot_seafile.system.journal import Journal
from certbot_seafile.system.lineages import Options
from e2e import killing, road
from e2e.processes import tool
from e2e.renewer import Renewer
from e2e.world import World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a user")


@pytest.fixture
def pinned(world: World) -> World:
    """Return a world whose site was pinned: it names the first version of a must-staple lineage and its staple."""
    world.start_pebble(must_staple=True, authz_reuse=100)
    world.start_responder()
    site = world.adapt(road.TUTORIAL_SITE)
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    road.certonly(world, "--must-staple")
    road.take_out(world)
    folder = world.staple_dir / road.NAME
    folder.mkdir()
    (folder / "pinned.response").write_bytes(road.ask_responder(world))
    archive = world.config_dir / "archive" / road.NAME
    lines = [f"ssl_certificate {archive}/fullchain1.pem;", f"ssl_certificate_key {archive}/privkey1.pem;",
             "ssl_stapling on;", f"ssl_stapling_file {folder}/pinned.response;"]  # fmt: skip
    text = site.decode()
    for name, line in (("ssl_certificate_key ", ""), ("ssl_certificate ", "\n    ".join(lines))):
        text = text.replace(f"    {name}", f"    {line}\n#   {name}")
    journal = Journal(str(world.config_dir / "seafile"))
    journal.record(str(world.sites / road.SITE_NAME), site, text.encode(), road.NAME)
    journal.record(str(world.sites / road.SITE_NAME), text.encode(), text.encode(), f"pin:{road.NAME}")
    (world.sites / road.SITE_NAME).write_text(text)
    world.reload_nginx()
    assert world.gnutls(road.NAME).accepted
    return world


@pytest.mark.long
@pytest.mark.parametrize("command", ["deploy", "renew"])
def test_a_pinned_site_is_sealed_by_the_next_deployment(pinned: World, command: str) -> None:
    """check says which command; afterwards the site has one include, and undo brings back what was before us.

    HOST-PINNED.
    """
    run = pinned.seafile("check", check=False)
    assert run.exit_code == 1
    assert f"run `certbot-seafile deploy --cert-name {road.NAME}`" in run.stdout
    if command == "deploy":
        pinned.seafile("deploy", "--cert-name", road.NAME)
    else:
        pinned.certbot("renew", "--force-renewal")
    assert pinned.gnutls(road.NAME).accepted
    assert road.served_is_lineage(pinned)
    assert b"/archive/" not in b"\n".join(
        line for line in road.site_bytes(pinned).splitlines() if not line.lstrip().startswith(b"#")
    )
    assert not (pinned.staple_dir / road.NAME / "pinned.response").exists()
    pinned.seafile("undo", "--cert-name", road.NAME)
    assert road.site_bytes(pinned) == pinned.adapt(road.TUTORIAL_SITE)
    assert list(pinned.staple_dir.iterdir()) == []


def give(world: World, user: str) -> Path:
    """Make of this world what version 0.0's setup made: certbot's folders are the user's; return the settings."""
    options = {key: getattr(options_of(world), key) for key in options_of(world).chosen()}
    old_state = world.path("/var/lib/certbot-seafile")
    old_state.mkdir(mode=0o700)
    for record in (world.config_dir / "seafile").glob("*.json"):
        record.rename(old_state / record.name)
    shutil.rmtree(world.config_dir / "seafile")
    outbox = world.config_dir / "seafile" / "staples" / road.NAME
    outbox.mkdir(parents=True)
    shutil.copy(road.response_path(world), outbox / "ocsp.response")
    settings = world.path("/etc/certbot-seafile.json")
    (world.config_dir / "seafile" / "without-root").write_text(f"{settings}\n")
    unit = world.path("/etc/systemd/system/certbot-seafile.socket")
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text("[Socket]\n")
    folders = [str(folder) for folder in (world.config_dir, world.work_dir, world.logs_dir)]
    subprocess.run([tool("chown"), "-R", f"{user}:", *folders], check=True)
    settings.write_text(json.dumps({
        "user": user, "config_dir": folders[0], "work_dir": folders[1], "logs_dir": folders[2],
        "state_dir": str(old_state), "socket": "/run/x.sock", "lineages": {road.NAME: options},
        "options": options, "made": [str(unit)],
        "handed": [{"path": folder, "uid": 0, "gid": 0} for folder in folders],
    }))  # fmt: skip
    return settings


def options_of(world: World) -> Options:
    """Return the options of this world's lineage."""
    return Options(ctl=str(world.nginx_ctl), webroot=str(world.webroot), staple_dir=str(world.staple_dir),
                   http_port=world.http_port, https_port=world.https_port)  # fmt: skip


@pytest.mark.long
def test_a_handed_over_host_is_brought_over_by_setup(world: World) -> None:
    """What is served is sealed, certbot's folders move to the user, root has its own again, and renewals go on.

    HOST-HANDED-OVER.
    """
    site = road.start(world, authz_reuse=100)
    road.certonly(world)
    with Renewer(world) as renewer:
        words = ["--system", "--user-group", "--no-create-home", "--home-dir", str(world.work_dir)]
        subprocess.run([tool("useradd"), *words, renewer.user], check=True, capture_output=True)
        give(world, renewer.user)
        served = world.handshake(road.NAME)
        run = renewer.seafile("check", check=False)
        assert run.exit_code == 1
        assert f"certbot-seafile setup --user {renewer.user}" in run.output
        assert "would bring this machine over" in renewer.setup("--dry-run").stdout
        renewer.setup()
        assert world.handshake(road.NAME) == served
        world.run(world.nginx_ctl, "-t")
        assert str(world.config_dir) not in snippet(world)
        owners = {path.lstat().st_uid for path in (world.config_dir, *world.config_dir.rglob("*"))}
        assert owners == {0}
        assert not (world.config_dir / "live").exists()
        assert not world.path("/etc/systemd/system/certbot-seafile.socket").exists()
        renewer.certbot("renew", "--force-renewal")
        assert renewer.is_served()
        assert renewer.seafile("check", "--root", "/nonexistent", check=False).stdout.count("\n") <= 1
        renewer.seafile("undo")
        assert road.site_bytes(world) == site


def snippet(world: World) -> str:
    """Return the text of the lineage's snippet."""
    return (world.staple_dir / f"{road.NAME}.conf").read_text()


@pytest.mark.long
def test_killed_on_the_way_setup_goes_on(world: World) -> None:
    """A machine that was brought over by half is brought over whole by the same command, and served all the time."""
    road.start(world, authz_reuse=100)
    road.certonly(world)
    with Renewer(world) as renewer:
        words = ["--system", "--user-group", "--no-create-home", "--home-dir", str(world.work_dir)]
        subprocess.run([tool("useradd"), *words, renewer.user], check=True, capture_output=True)
        settings, served = give(world, renewer.user), world.handshake(road.NAME)
        for number in (3, 8, 14, 18, 19, 20, 21, 22):  # the last ones move the folders
            killing.kill_at(world, renewer.setup_command(), killing.Point("rename", number))
            world.run(world.nginx_ctl, "-t")
            world.reload_nginx()
            assert world.handshake(road.NAME) == served
        renewer.setup()
        assert renewer.is_served()
        assert not Path(f"{settings}.former").exists()
        assert asdict(options_of(world))["staple_dir"] in settings.read_text()
