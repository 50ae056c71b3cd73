"""Merely installed is not chosen: certbot's menu prepares every plugin, and saves what any of them sets."""

from __future__ import annotations

import argparse
import copy
import os
import pty
import re
import subprocess
import time
from typing import Any

import pytest
from certbot.configuration import NamespaceConfig

from certbot_seafile.plugin import Plugin
from e2e import road
from e2e.world import World, snapshot

pytestmark = pytest.mark.certbot


def configuration(world: World, **chosen: Any) -> NamespaceConfig:
    """Return certbot's configuration as far as prepare() reads it."""
    words = {
        "site": None, "server_root": None, "ctl": str(world.nginx_ctl), "reload_cmd": None,
        "webroot": str(world.webroot), "staple_dir": str(world.staple_dir), "stapling": "auto", "ocsp_url": None,
        "handover": None,
    }  # fmt: skip
    facts = {
        "verb": "certonly", "authenticator": None, "installer": None, "configurator": None, "certname": None,
        "domains": [road.NAME], "dry_run": False, "key_type": "ecdsa", "must_staple": False, "reinstall": False,
        "renew_by_default": False, "deploy_hook": None, "renew_hook": None, "http01_port": world.http_port,
        "https_port": world.https_port, "config_dir": str(world.config_dir), "work_dir": str(world.work_dir),
        "logs_dir": str(world.logs_dir), "config_files": [], "strict_permissions": False, "server": "",
        "redirect": None, "allow_subset_of_names": False, "quiet": True,
    }  # fmt: skip
    words = {f"seafile_{key}": value for key, value in words.items()}
    return NamespaceConfig(argparse.Namespace(**words | facts | chosen))


@pytest.mark.parametrize("authenticator", [None, "webroot", "nginx"])
def test_prepare_touches_nothing_where_another_plugin_is_asked_for(world: World, authenticator: str | None) -> None:
    """Neither certbot's configuration nor a file is changed, though the site cannot serve ECDSA."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    config = configuration(world, authenticator=authenticator)
    plugin = Plugin(config, "seafile")
    before, files = copy.deepcopy(vars(config.namespace)), snapshot(world.folder)
    plugin.prepare()
    assert vars(config.namespace) == before
    changed = {path for path, fact in snapshot(world.folder).items() if files.get(path) != fact}
    assert changed <= {"bin/nginx.calls"}
    assert world.nginx_calls() == ["-V"]


def test_another_plugin_chosen_in_the_menu_keeps_its_renewal_file(world: World) -> None:
    """In a terminal, without -a: standalone is chosen, and nothing of this plugin's is saved for it."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_pebble(ocsp=False)
    command = [word for word in world.certbot_command("certonly", "-d", road.NAME, *world.plugin_options)
               if word != "--non-interactive"]  # fmt: skip
    listed, chosen = choose(world, command, "standalone")
    assert "seafile" in listed.lower()
    assert chosen == 0
    parameters = road.renewal(world)
    assert parameters["authenticator"] == "standalone"
    assert not {"installer", "renew_hook", "deploy_hook"} & parameters.keys()
    assert not (world.config_dir / "seafile").exists()


def choose(world: World, command: list[str], entry: str) -> tuple[str, int]:
    """Run the command in a terminal, choose the menu's entry that has this word; return what was shown, and exit."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=world.environment(), close_fds=True
    )
    os.close(slave)
    shown, answered = "", False
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            shown += os.read(master, 4096).decode("utf-8", "replace")
        except OSError:  # the other side is closed
            break
        number = re.search(rf"(?m)^(\d+): [^:]*\({entry}\)", shown)
        if not answered and number and "[enter]" in shown:
            os.write(master, number[1].encode() + b"\n")
            answered = True
    os.close(master)
    return shown, process.wait(timeout=60)
