"""A lineage's files, as far as no CA is needed: hooks that are joined, folders that are refused."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import lineages

OURS = "/usr/bin/certbot-seafile --https-port 8443 deploy"

JOINED = {
    "none": (None, OURS),
    "none, as certbot writes it": ("None", OURS),
    "ours": (OURS, OURS),
    "ours of an earlier place": ("/opt/venv/bin/certbot-seafile deploy", OURS),
    "ours of a place with a space": ("'/opt/my venv/bin/certbot-seafile' --config-dir '/a b' deploy", OURS),
    "theirs": ("systemctl reload postfix", f"{OURS} || trap 'exit 1' EXIT; systemctl reload postfix"),
    "both already": (f"{OURS} || trap 'exit 1' EXIT; x", f"{OURS} || trap 'exit 1' EXIT; x"),
    "both, ours of an earlier place": (
        "certbot-seafile deploy || trap 'exit 1' EXIT; x", f"{OURS} || trap 'exit 1' EXIT; x"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "joined"), JOINED.values(), ids=JOINED)
def test_hooks_are_joined_once(theirs: str | None, joined: str) -> None:
    """A person's hook stays, ours stands before it once, and an old spelling of ours is brought up to date."""
    assert lineages.join_hooks(OURS, theirs) == joined
    assert lineages.join_hooks(OURS, joined) == joined


@pytest.mark.parametrize("ours", [0, 1])
@pytest.mark.parametrize("theirs", ["true", "false", "exit 3", "echo done # a comment"])
def test_both_hooks_run_and_either_failure_counts(tmp_path: Path, ours: int, theirs: str) -> None:
    """The shell runs the person's hook whatever became of ours, and fails where one of them failed."""
    script = tmp_path / "certbot-seafile"
    script.write_text(f"#!/bin/sh\nexit {ours}\n")
    script.chmod(0o755)
    mark = tmp_path / "mark"
    joined = lineages.join_hooks(f"{shlex.quote(str(script))} deploy", f"echo ran > {mark}; {theirs}")
    done = subprocess.run(["/bin/sh", "-c", joined], check=False)
    assert mark.read_text() == "ran\n"
    assert (done.returncode != 0) == (ours != 0 or theirs in ("false", "exit 3"))


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    """Return a configuration folder with one lineage folder, and one more that is a link."""
    (tmp_path / "letsencrypt" / "live" / "good").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "letsencrypt" / "live" / "planted").symlink_to(tmp_path / "elsewhere")
    return tmp_path / "letsencrypt"


def test_a_lineage_below_live_is_named(config_dir: Path) -> None:
    """RENEWED_LINEAGE is a folder of the live folder; a slash at its end does not count."""
    assert lineages.from_environment(str(config_dir), f"{config_dir}/live/good/") == "good"


OUTSIDE = ["live/absent", "live/planted", "live", "archive/good", "live/good/../../../elsewhere", ""]


@pytest.mark.parametrize("path", OUTSIDE)
def test_anything_else_is_refused(config_dir: Path, path: str) -> None:
    """Missing, planted, outside, or too high up."""
    with pytest.raises(errors.LineageRefused, match="RENEWED_LINEAGE"):
        lineages.from_environment(str(config_dir), str(config_dir / path) if path else "")
