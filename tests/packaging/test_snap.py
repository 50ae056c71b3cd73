"""snap/: what certbot's documentation asks of a plugin's snap.

Neither snapd nor snapcraft runs in a test, and PyPI has no schema of snapcraft's that knows core24. So the structure is
held here, and the part's own build script is run. How certbot loads the result is in tests/e2e/test_plugin_path.py.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

yaml = pytest.importorskip("yaml")

SNAP = Path(__file__).resolve().parents[2] / "snap"
SETUP = (SNAP.parent / "setup.py").read_text(encoding="utf-8")
HOOK = SNAP / "hooks" / "post-refresh"
MODULES = "lib/python3.12/site-packages"


def description() -> dict[str, Any]:
    """Return snapcraft.yaml."""
    parsed: dict[str, Any] = yaml.safe_load((SNAP / "snapcraft.yaml").read_text(encoding="utf-8"))
    return parsed


def needed_certbot() -> Version:
    """Return the oldest certbot that the hook accepts."""
    return Version(re.findall(r"^needed=(\S+)$", HOOK.read_text(encoding="utf-8"), re.MULTILINE)[0])


def run_hook(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the hook in a snap that is mounted there."""
    return subprocess.run([HOOK], env=os.environ | {"SNAP": str(folder)}, capture_output=True, text=True, check=False)


def test_certbot_finds_the_slot_and_the_plug_that_it_looks_for() -> None:
    """certbot loads what is of content certbot-1 and reads Python 3.12's folder; core24 has that Python."""
    snap = description()
    assert snap["name"] == "certbot-seafile"
    assert (snap["base"], snap["confinement"], snap["grade"]) == ("core24", "strict", "stable")
    slot = {"interface": "content", "content": "certbot-1", "read": [f"$SNAP/{MODULES}"]}
    assert snap["slots"] == {"certbot": slot}
    plug = {"interface": "content", "content": "metadata-1", "target": "$SNAP/certbot-shared"}
    assert snap["plugs"] == {"certbot-metadata": plug}
    assert "apps" not in snap


def test_the_text_keeps_to_the_limits_of_the_store() -> None:
    """The store takes 40 characters of a name, 78 of a summary and 32 of a version."""
    snap = description()
    assert re.fullmatch(r"[a-z][a-z0-9-]{0,39}", snap["name"])
    assert len(snap["summary"]) <= 78
    assert len(snap["version"]) <= 32


def test_one_snap_is_for_every_architecture() -> None:
    """core24 has `platforms`, not `architectures`; nothing is compiled, so one platform is for all."""
    snap = description()
    assert snap["platforms"] == {"all": {"build-on": ["amd64", "arm64"], "build-for": ["all"]}}
    assert "architectures" not in snap


def test_certbots_own_requirements_bring_whatever_the_plugin_requires() -> None:
    """The snap bundles nothing: what it requires is among what certbot requires; zope only old certbots need."""
    required, waiting = set(), {"certbot"}
    while waiting:
        name = waiting.pop()
        required.add(name)
        lines = [Requirement(line) for line in metadata.requires(name) or ()]
        here = [line for line in lines if line.marker is None or line.marker.evaluate({"extra": ""})]
        waiting |= {canonicalize_name(line.name) for line in here} - required
    if "acme" not in required:
        pytest.skip("this certbot does not say what it requires")
    ours = [Requirement(line) for line in metadata.requires("certbot-seafile") or ()]
    names = {canonicalize_name(line.name) for line in ours if "extra" not in str(line.marker)}
    assert names - required - {"zope-interface"} == set()


@pytest.mark.long
def test_the_part_holds_the_plugin_and_neither_certbot_nor_commands(sources: Path, tmp_path: Path) -> None:
    """Its build script leaves modules and metadata where the slot reads, and an empty folder for the plug."""
    script = description()["parts"]["certbot-seafile"]["override-build"].replace("python3 -m", f"{sys.executable} -m")
    env = os.environ | {"CRAFT_PART_INSTALL": str(tmp_path)}
    done = subprocess.run(["sh", "-euc", script], cwd=sources, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    modules, shared = tmp_path / MODULES, tmp_path / "certbot-shared"
    version = description()["version"]
    assert {path.name for path in modules.iterdir()} == {"certbot_seafile", f"certbot_seafile-{version}.dist-info"}
    information = modules / f"certbot_seafile-{version}.dist-info"
    assert "seafile = certbot_seafile.plugin:Plugin" in (information / "entry_points.txt").read_text()
    assert list(shared.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"lib", "certbot-shared"}


@pytest.mark.parametrize("installed", ["2.11.0", "2.1.0", "1.32.0"])
def test_a_refresh_beside_an_older_certbot_is_refused(tmp_path: Path, installed: str) -> None:
    """The hook ends with an exit code, so that snapd keeps the revision before, and says what to run."""
    (tmp_path / "certbot-shared").mkdir()
    (tmp_path / "certbot-shared" / "certbot-version.txt").write_text(f"{installed}\n")
    done = run_hook(tmp_path)
    assert done.returncode == 1
    assert installed in done.stderr
    assert str(needed_certbot()) in done.stderr
    assert "snap refresh certbot" in done.stderr


@pytest.mark.parametrize("installed", ["3.0.0", "3.0.1", "5.8.0", "10.0.0"])
def test_a_refresh_beside_a_newer_certbot_goes_through(tmp_path: Path, installed: str) -> None:
    """Versions are compared number by number, so 10 is newer than 5."""
    (tmp_path / "certbot-shared").mkdir()
    (tmp_path / "certbot-shared" / "certbot-version.txt").write_text(f"{installed}\n")
    done = run_hook(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_refresh_without_the_connection_to_certbot_goes_through(tmp_path: Path) -> None:
    """Where certbot's version is not known there is nothing to compare."""
    assert run_hook(tmp_path).returncode == 0


def test_the_hook_asks_for_no_older_certbot_than_the_package() -> None:
    """What setup.py requires of certbot, the hook requires at least."""
    (oldest,) = re.findall(r'"certbot>=([\d.]+)"', SETUP)
    assert needed_certbot() >= Version(oldest)
