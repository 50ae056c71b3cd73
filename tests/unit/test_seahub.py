"""Which of Seafile's settings still say http, read as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbot_seafile.doctor import seahub

ROOTS = {
    "/opt/seafile/seafile-server-latest/seahub": "/opt/seafile",
    "/opt/seafile/seafile-server-latest/seahub/": "/opt/seafile",
    "/srv/a b/seafile-server-11.0.9/seahub/media": "/srv/a b",
    "/var/www/html": None,
    "/opt/seafile/seafile-server-latest/seahubx": None,
}


@pytest.mark.parametrize("root", ROOTS)
def test_the_installation_is_told_from_the_sites_root(root: str) -> None:
    """The folder above seafile-server-* is the installation's."""
    assert seahub.top_folder(root) == ROOTS[root]


def names(folder: Path, file_name: str, text: str) -> list[tuple[str, int, str]]:
    """Write a settings file and return (name, line, wanted) of what still says http."""
    path = folder / "conf" / file_name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    found = seahub.plain_http_settings(str(folder))
    assert {one.path for one in found} <= {str(path)}
    return [(one.name, one.line, one.wanted) for one in found]


PYTHON = {
    "SERVICE_URL = 'http://a.example'\n": [("SERVICE_URL", 1, "'https://a.example'")],
    '\n\nFILE_SERVER_ROOT = "http://a/seafhttp"\n': [("FILE_SERVER_ROOT", 3, "'https://a/seafhttp'")],
    "SERVICE_URL = 'http://a'\nSERVICE_URL = 'https://a'\n": [],
    "# SERVICE_URL = 'http://a'\n": [],
    "X = '''\nSERVICE_URL = 'http://a'\n'''\n": [],
    "import os\nSERVICE_URL = os.environ['X']\n": [],
    "CSRF_TRUSTED_ORIGINS = ['http://a']": [("CSRF_TRUSTED_ORIGINS", 1, "['https://a']")],
    "CSRF_TRUSTED_ORIGINS = ['a']": [("CSRF_TRUSTED_ORIGINS", 1, "['https://a']")],
    "CSRF_TRUSTED_ORIGINS = ['http://a', 'https://a']": [],
    "CSRF_TRUSTED_ORIGINS = []": [],
    "SERVICE_URL = 'http://a'\nif broken(:\n": [("SERVICE_URL", 1, "'https://a'")],
    "SERVICE_URL = 'http://a'\n\0": [("SERVICE_URL", 1, "'https://a'")],
}


@pytest.mark.parametrize("text", PYTHON)
def test_seahub_settings(tmp_path: Path, text: str) -> None:
    """The last plain value of each setting counts; damaged files are read line by line."""
    assert names(tmp_path, "seahub_settings.py", text) == PYTHON[text]


def test_settings_are_never_run(tmp_path: Path) -> None:
    """A settings file that writes a file writes none."""
    mark = tmp_path / "mark"
    names(tmp_path, "seahub_settings.py", f"open({str(mark)!r}, 'w')\nSERVICE_URL = open({str(mark)!r}, 'w').name\n")
    assert not mark.exists()


def test_ccnet_conf(tmp_path: Path) -> None:
    """The old place of SERVICE_URL counts, commented out it does not."""
    text = "[General]\n#SERVICE_URL = http://b\nSERVICE_URL = http://a:8000\n"
    assert names(tmp_path, "ccnet.conf", text) == [("SERVICE_URL", 3, "https://a:8000")]


@pytest.mark.parametrize("value", ["'https://a'", "os.environ['X']"])
def test_ccnet_conf_does_not_count_where_seahub_settings_speak(tmp_path: Path, value: str) -> None:
    """What seahub_settings.py says of SERVICE_URL goes before it, also what is made up at run time."""
    names(tmp_path, "seahub_settings.py", f"import os\nSERVICE_URL = {value}\n")
    assert names(tmp_path, "ccnet.conf", "[General]\nSERVICE_URL = http://a:8000\n") == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("SEAFILE_SERVER_PROTOCOL=http\n", [("SEAFILE_SERVER_PROTOCOL", 1, "https")]),
        ("export SEAFILE_SERVER_PROTOCOL='http'\n", [("SEAFILE_SERVER_PROTOCOL", 1, "https")]),
        ("SEAFILE_SERVER_PROTOCOL=https\n", []),
        ("#SEAFILE_SERVER_PROTOCOL=http\n", []),
    ],
)
def test_environment_file(tmp_path: Path, text: str, wanted: list[tuple[str, int, str]]) -> None:
    """Seafile 12's protocol counts."""
    assert names(tmp_path, ".env", text) == wanted


def test_no_settings_say_nothing(tmp_path: Path) -> None:
    """Where there is no conf folder, or a folder in a file's place, nothing is said."""
    (tmp_path / "conf" / ".env").mkdir(parents=True)
    assert seahub.plain_http_settings(str(tmp_path)) == []
