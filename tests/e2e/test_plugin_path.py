"""certbot as its snap loads plugins: a certbot with nothing of ours beside it, and CERTBOT_PLUGIN_PATH.

snapd cannot run in a test. What it would lay out is laid out here: /snap/SNAP/REVISION with the link `current`, the
environment of the certbot snap, and no console script of ours on PATH.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import certbot
import pytest
from packaging.version import Version

import certbot_seafile
from e2e import road
from e2e.world import Run, World

pytestmark = pytest.mark.certbot
INSTALL_PAGE = Path(__file__).resolve().parents[2] / "docs" / "install.md"
MODULES = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
MAIN = "import sys\nfrom certbot.main import main\nsys.exit(main())\n"
#: The PATH of a scheduler, on which nothing of a snap is.
PLAIN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": ""}


@dataclass(frozen=True)
class Snaps:
    """The folder /snap of a world, with the snaps certbot and certbot-seafile in it."""

    world: World

    @property
    def folder(self) -> Path:
        """Return /snap."""
        return self.world.path("/snap")

    @property
    def _certbot(self) -> Path:
        """Return the certbot snap's revision that is current, as $SNAP names it."""
        return (self.folder / "certbot" / "current").resolve()

    @property
    def environment(self) -> dict[str, str]:
        """Return what the certbot snap's commands run with.

        CERTBOT_SNAPPED is "True" there, and makes certbot ask snapd for the plugins; any other value leaves that out.
        """
        return {
            "CERTBOT_PLUGIN_PATH": f"{self.folder}/certbot-seafile/current/{MODULES}/",
            "CERTBOT_SNAPPED": "1",
            "SNAP": str(self._certbot),
            "PATH": f"{self._certbot}/bin:{self._certbot}/usr/bin:{PLAIN['PATH']}",
            "LD_LIBRARY_PATH": f"{self._certbot}/lib",
            "PYTHONPATH": "",
        }

    def certbot(self, *words: str | Path) -> Run:
        """Run the certbot snap's command; it is expected to exit 0."""
        options = self.world.certbot_command(*words)[1:]
        command = [str(self._certbot / "bin" / "python3"), "-s", str(self._certbot / "bin" / "certbot")]
        return self.world.run(*command, *options, env=self.environment)

    def install(self, snap: str, revision: str) -> Path:
        """Return the folder of a snap's new revision; `current` leads to it, and the older ones are gone."""
        folder = self.folder / snap / revision
        link = folder.parent / "current"
        if link.exists():
            old = link.resolve()
            old.rename(folder)
            link.unlink()
        else:
            folder.mkdir(parents=True)
        link.symlink_to(revision)
        return folder


def is_ours(name: str) -> bool:
    """Tell whether a file beside certbot came with this package: itself, and zope, where certbot does without."""
    if name.startswith("zope"):
        return Version(certbot.__version__) >= Version("2.7")
    return name.startswith(("certbot_seafile", "__editable__"))


@pytest.fixture
def snaps(world: World) -> Snaps:
    """Return both snaps, of this environment's certbot and of the package as it stands here."""
    made = Snaps(world)
    folder = made.install("certbot", "41")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    for path in Path(str(certbot.__file__)).parents[1].iterdir():
        if path.suffix != ".pth" and not is_ours(path.name):
            (folder / MODULES / path.name).symlink_to(path)
    (folder / "bin" / "certbot").write_text(MAIN)
    modules = made.install("certbot-seafile", "7") / MODULES
    shutil.copytree(Path(certbot_seafile.__file__).parent, modules / "certbot_seafile")
    distribution = metadata.distribution("certbot-seafile")
    information = modules / f"certbot_seafile-{distribution.version}.dist-info"
    information.mkdir()
    described = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    (information / "METADATA").write_text(described)
    (information / "entry_points.txt").write_text(distribution.read_text("entry_points.txt") or "")
    return made


def hook(world: World) -> list[str]:
    """Return the words of the deploy hook in the renewal file."""
    return road.renewal(world)["renew_hook"].strip('"').split()


def program(world: World) -> list[str]:
    """Return the words of the hook that start this program, without options and command."""
    words = hook(world)
    return words[: words.index("certbot_seafile") + 1]


def test_certonly_renew_hook_status_and_undo(snaps: Snaps) -> None:
    """The hook is Python with the module and its folders; it serves what is renewed, and undo takes all out."""
    world = snaps.world
    site = road.start(world, authz_reuse=100)
    assert "* seafile" in snaps.certbot("plugins").output
    snaps.certbot("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
    assert road.staples_lineage(world)
    assert hook(world)[0] == "env"
    assert hook(world)[1].startswith("PYTHONPATH=")
    first, words = world.leaf(road.NAME), hook(world)
    snaps.certbot("renew", "--force-renewal")
    assert world.leaf(road.NAME) != first
    assert road.staples_lineage(world)
    assert hook(world) == words
    status = world.run(*program(world), *world.folders, "status", env=PLAIN)
    assert road.NAME in status.stdout
    world.run(*program(world), *world.folders, "undo", env=PLAIN)
    assert road.site_bytes(world) == site


@pytest.mark.long
def test_a_refresh_of_either_snap_leaves_the_hook_working(snaps: Snaps) -> None:
    """snapd removes the revision that certbot ran from; the hook in the renewal file still runs, and serves."""
    world = snaps.world
    road.start(world, authz_reuse=100)
    snaps.certbot("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
    words = hook(world)
    snaps.install("certbot", "42")
    snaps.install("certbot-seafile", "8")
    assert "certbot-seafile" in world.run(*program(world), "--version", env=PLAIN).stdout
    snaps.certbot("renew", "--force-renewal")
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)
    assert hook(world) == words


@pytest.mark.long
def test_the_command_of_the_install_page_runs_beside_the_snaps(snaps: Snaps) -> None:
    """What the page writes to /usr/local/bin runs the snaps' modules, and becomes the deploy hook."""
    world = snaps.world
    road.start(world, authz_reuse=100)
    command = world.path("/usr/local/bin/certbot-seafile")
    command.parent.mkdir(parents=True)
    section = INSTALL_PAGE.read_text(encoding="utf-8").partition("\n## snap\n")[2].partition("\n## ")[0]
    script = re.search(r"^( *#!/bin/sh\n(?: +.*\n)+)", section, re.MULTILINE)
    assert script is not None
    text = re.sub("^    ", "", script[1], flags=re.MULTILINE)
    text = text.replace("/snap/", f"{snaps.folder}/").replace("lib/python3.12/site-packages", MODULES)
    command.write_text(text)
    command.chmod(0o755)
    path = {"PATH": f"{command.parent}{os.pathsep}{PLAIN['PATH']}"}
    options = world.certbot_command("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)[1:]
    certbot_words = [f"{snaps.folder}/certbot/current/bin/python3", f"{snaps.folder}/certbot/current/bin/certbot"]
    world.run(*certbot_words, *options, env=snaps.environment | path)
    assert road.staples_lineage(world)
    assert hook(world)[0] == str(command)
    assert road.NAME in world.run(command, *world.folders, "status", env=path).stdout
    check = world.run(command, *world.folders, "check", "--root", world.folder, env=path, check=False)
    assert "Traceback" not in check.output
