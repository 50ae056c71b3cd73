"""What root goes by where another user renews."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.sealed import settings
from certbot_seafile.sealed.settings import Owned, Settings
from certbot_seafile.system.lineages import Options

CHOSEN = Settings(
    "certbot", "/etc/letsencrypt", "/var/lib/letsencrypt", "/var/log/letsencrypt", socket="/run/step.sock",
    lineages={"a.example.org": Options(staple_dir="/srv/staples", https_port=8443), "b.example.org": Options()},
    options=Options(ctl="/opt/nginx"), made=("the user", "/etc/systemd/system/x"), handed=(Owned("/etc/x", 0, 0),),
)  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    """Every field comes back as it was."""
    path = str(tmp_path / "settings.json")
    settings.write(path, CHOSEN)
    assert settings.read(path) == CHOSEN
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_no_file_means_no_handover(tmp_path: Path) -> None:
    """Without a file there is nothing to go by."""
    assert settings.read(str(tmp_path / "absent")) is None


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_what_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that the group or everybody can write is not root's word."""
    path = tmp_path / "settings.json"
    settings.write(str(path), CHOSEN)
    path.chmod(mode)
    with pytest.raises(errors.FileRefused, match="root alone can write"):
        settings.read(str(path))


def test_a_link_is_refused(tmp_path: Path) -> None:
    """Whoever could plant the link could choose the settings."""
    settings.write(str(tmp_path / "real.json"), CHOSEN)
    link = tmp_path / "settings.json"
    link.symlink_to(tmp_path / "real.json")
    with pytest.raises(errors.FileRefused, match="root alone can write"):
        settings.read(str(link))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"user": 1}', b"\xff", b'{"lineages": {"a": {"no": 1}}}'])
def test_damaged_settings_are_named(tmp_path: Path, content: bytes) -> None:
    """Whatever stands there, it is our own error that names the file."""
    path = tmp_path / "settings.json"
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(errors.FileRefused, match=r"settings\.json is damaged"):
        settings.read(str(path))


@pytest.mark.parametrize("name", ["home.seafile.com", "a", "2001:db8::1", "a_b-c.example.org-0001"])
def test_usual_names_are_taken(name: str) -> None:
    """Names as certbot makes them pass."""
    settings.check_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "-a", "a/b", "a b", "a;b", 'a"b', "a\nb", "a\n", "a'b", "é", "a\0"])
def test_other_names_are_refused(name: str) -> None:
    """What could say more than a name in nginx's files, or lead elsewhere, is refused."""
    with pytest.raises(errors.LineageRefused, match="letters, digits"):
        settings.check_name(name)
