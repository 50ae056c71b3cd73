"""A lineage's folder as certbot names it, and what is refused in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import lineages


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


NAMES = {"home.seafile.com": True, "a-0001": True, "2001:db8::1": True, "X_1": True, "$host": False, "a;b": False,
         "a b": False, "a\nssl_verify_client on;": False, "*": False, "a'b": False, 'a"b': False, "../x": False,
         "x.conf": False, "-x": False, ".x": False, "": False, "a{b": False, "a$b": False}  # fmt: skip


@pytest.mark.parametrize(("name", "is_good"), NAMES.items())
def test_a_name_that_could_write_into_a_file_is_refused(name: str, is_good: bool) -> None:
    """It stands in paths, and in a snippet that nginx reads."""
    if is_good:
        lineages.check_name(name)
    else:
        with pytest.raises(errors.LineageRefused, match="must not be called"):
            lineages.check_name(name)
