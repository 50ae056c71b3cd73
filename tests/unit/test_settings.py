"""What root goes by where certificates come from a folder that it does not trust."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from certbot_seafile import errors
from certbot_seafile.sealed import settings
from certbot_seafile.sealed.settings import Entry, Owned, Settings
from certbot_seafile.system.lineages import Options

OPTIONS = Options(staple_dir="/srv/staples", https_port=8443, forward="http://192.0.2.7", is_users_webroot=True)
CHOSEN = Settings(
    {
        "a": Entry("a", ("a.example.org", "b.example.org"), "/var/lib/certbot/handover", 998, 997, OPTIONS),
        "c": Entry("c", ("c.example.org",), "/mnt/certs", 0, 0, Options()),
    },
    "certbot", "/srv/certbot", (Owned("/var/www/challenges", 33, 0),), ("/etc/systemd/system/x", settings.USER),
)  # fmt: skip
FORMER: dict[str, Any] = {
    "user": "certbot",
    "config_dir": "/etc/letsencrypt",
    "work_dir": "/var/lib/letsencrypt",
    "logs_dir": "/var/log/letsencrypt",
    "state_dir": "/var/lib/certbot-seafile",
    "socket": "/run/certbot-seafile.sock",
    "lineages": {"a": {"ctl": "/opt/nginx", "outbox": "/etc/letsencrypt/seafile/staples"}},
    "options": {},
    "made": ["the user"],
    "handed": [{"path": "/etc/letsencrypt", "uid": 0, "gid": 0}],
}


def put(path: Path, content: object) -> str:
    """Write JSON, or bytes as they are, that only its owner can write; return the path."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    path.chmod(0o644)
    return str(path)


@pytest.mark.parametrize("chosen", [CHOSEN, Settings()], ids=["everything", "nothing"])
def test_what_is_written_is_read_again(tmp_path: Path, chosen: Settings) -> None:
    """Every field comes back as it was, and all may read the file."""
    path = str(tmp_path / "settings.json")
    settings.write(path, chosen)
    assert settings.read(path) == chosen
    assert os.stat(path).st_mode & 0o777 == 0o644


def test_the_handover_file_is_named_by_the_entry() -> None:
    """It is NAME.pem in the entry's folder."""
    assert CHOSEN.entries["c"].path == "/mnt/certs/c.pem"


def test_no_file_means_no_settings(tmp_path: Path) -> None:
    """Without a file there is nothing to go by, neither of this version nor of the last."""
    assert settings.read(str(tmp_path / "absent")) is None
    assert settings.read_former(str(tmp_path / "absent")) is None


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_what_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """A file that the group or everybody can write is not root's word."""
    path = tmp_path / "settings.json"
    settings.write(str(path), CHOSEN)
    path.chmod(mode)
    with pytest.raises(errors.FileRefused, match="root alone can write"):
        settings.read(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which can give a file away; sudo make test")
def test_what_another_user_owns_is_refused(tmp_path: Path) -> None:
    """The owner of a file can write it, whatever its mode."""
    path = tmp_path / "settings.json"
    settings.write(str(path), CHOSEN)
    os.chown(path, 4711, 0)
    with pytest.raises(errors.FileRefused, match="root alone can write"):
        settings.read(str(path))


def test_a_link_is_refused(tmp_path: Path) -> None:
    """Whoever could plant the link could choose the settings."""
    settings.write(str(tmp_path / "real.json"), CHOSEN)
    link = tmp_path / "settings.json"
    link.symlink_to(tmp_path / "real.json")
    with pytest.raises(errors.FileRefused, match="root alone can write"):
        settings.read(str(link))


EMPTY = {"version": 2, "entries": {}, "user": None, "home": "/", "webroots": [], "made": []}
DAMAGED = {
    "no bytes": b"",
    "no JSON": b"\xff",
    "a list": [1],
    "an empty object": {},
    "no version": {"user": "certbot"},
    "a later version": EMPTY | {"version": 3},
    "an unknown field": EMPTY | {"more": 1},
    "an entry that is none": EMPTY | {"entries": {"a": 1}},
    "an entry without names": EMPTY | {"entries": {"a": {"options": {}}}},
    "an unknown option": EMPTY | {"entries": {"a": {"names": [], "options": {"no": 1}}}},
    "a name with a path in it": EMPTY
    | {"entries": {"../a": {"names": [], "folder": "/", "uid": 0, "gid": 0, "options": {}}}},
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=list(DAMAGED))
def test_damaged_settings_are_named(tmp_path: Path, content: object) -> None:
    """Whatever stands there, it is our own error that names the file."""
    with pytest.raises(errors.FileRefused, match=r"settings\.json is damaged"):
        settings.read(put(tmp_path / "settings.json", content))


def test_settings_of_the_last_version_name_the_command(tmp_path: Path) -> None:
    """They are refused with the one command that brings the machine over."""
    with pytest.raises(errors.FileRefused, match="run `certbot-seafile setup --user certbot -d NAME` again"):
        settings.read(put(tmp_path / "settings.json", FORMER))


def test_settings_of_the_last_version_can_be_read_for_that(tmp_path: Path) -> None:
    """Its folders and certificates come back; an option that is no more is left out."""
    former = settings.read_former(put(tmp_path / "settings.json", FORMER))
    assert former is not None
    assert (former.user, former.state_dir) == ("certbot", "/var/lib/certbot-seafile")
    assert former.lineages == {"a": Options(ctl="/opt/nginx")}
    assert former.made == (settings.USER,)


def test_settings_of_this_version_are_no_former_ones(tmp_path: Path) -> None:
    """There is nothing to bring over."""
    path = str(tmp_path / "settings.json")
    settings.write(path, CHOSEN)
    assert settings.read_former(path) is None


def test_damaged_settings_of_the_last_version_are_named(tmp_path: Path) -> None:
    """A field that is missing is our own error."""
    content = {key: value for key, value in FORMER.items() if key != "made"}
    with pytest.raises(errors.FileRefused, match=r"settings\.json is damaged"):
        settings.read_former(put(tmp_path / "settings.json", content))
