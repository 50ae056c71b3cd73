"""certbot as its snap loads plugins: by CERTBOT_PLUGIN_PATH, with no console script of ours on PATH."""

from __future__ import annotations

import shutil
from importlib import metadata
from pathlib import Path

import pytest

import certbot_seafile
from e2e import road
from e2e.world import World

pytestmark = pytest.mark.certbot
CERTBOT = Path("/usr/bin/certbot")  # the distribution's, which knows nothing of this package


@pytest.fixture
def snapped(world: World, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Return the environment of a certbot that finds the plugin in a folder of its own, and nowhere else."""
    if not CERTBOT.exists():
        pytest.skip("the distribution's certbot is not installed")
    folder = world.folder / "snap" / "plugin"
    shutil.copytree(Path(certbot_seafile.__file__).parent, folder / "certbot_seafile")
    information = folder / "certbot_seafile-0.dist-info"
    information.mkdir()
    for name in ("METADATA", "entry_points.txt"):
        text = metadata.distribution("certbot-seafile").read_text(name.replace("METADATA", "PKG-INFO"))
        (information / name).write_text(text or metadata.distribution("certbot-seafile").read_text(name) or "")
    # Any other value than "True": snapd itself, which certbot would ask for the plugins, cannot run in a test.
    return {
        "CERTBOT_PLUGIN_PATH": str(folder), "CERTBOT_SNAPPED": "1", "SNAP": str(world.folder / "snap"),
        "PATH": f"{world.folder}/snap/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": "",
        "LD_LIBRARY_PATH": f"{world.folder}/snap/lib",
    }  # fmt: skip


def certbot(world: World, env: dict[str, str], *words: str | Path) -> str:
    """Run that certbot; return what it prints."""
    command = [str(word) for word in world.certbot_command(*words)]
    run = world.run(CERTBOT, *command[1:], env=env)
    return run.output


def test_certonly_renew_hook_and_undo(world: World, snapped: dict[str, str]) -> None:
    """The hook is Python with the module and its folders; it serves what is renewed, and undo takes all out."""
    site = road.start(world, authz_reuse=100)
    assert "* seafile" in certbot(world, snapped, "plugins")
    certbot(world, snapped, "certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
    assert road.staples_lineage(world)
    hook = road.renewal(world)["renew_hook"].strip('"')
    assert hook.startswith("env PYTHONPATH=")
    assert "-m certbot_seafile" in hook
    first = world.leaf(road.NAME)
    certbot(world, snapped, "renew", "--force-renewal")
    assert world.leaf(road.NAME) != first
    assert road.staples_lineage(world)
    assert road.renewal(world)["renew_hook"].strip('"') == hook
    words = hook.split()[: hook.split().index("certbot_seafile") + 1]
    plain = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    assert road.NAME in world.run(*words, *world.folders, "status", env=plain).stdout
    world.run(*words, *world.folders, "undo", env=plain)
    assert road.site_bytes(world) == site
