"""Which of Seafile's settings still say http, read as text."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbot_seafile.doctor import docker, seahub

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
    found = [*seahub.settings(str(folder)), *seahub.line_settings(str(folder / "conf" / ".env")).values()]
    plain = [(one, one.over_https) for one in found]
    assert {one.path for one, wanted in plain if wanted} <= {str(path)}
    return [(one.name, one.line, wanted) for one, wanted in plain if wanted]


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
    assert seahub.settings(str(tmp_path)) == []
    assert seahub.line_settings(str(tmp_path / "conf" / ".env")) == {}


MANUALS_ENV = "COMPOSE_FILE='seafile-server.yml,caddy.yml'\nCOMPOSE_PATH_SEPARATOR=','\nSEAFILE_SERVER_PROTOCOL=http\n"
SERVICE = "services:\n  seafile:\n    image: seafileltd/seafile-mc:13.0-latest\n"


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    """Let docker be asked again."""
    docker.projects.cache_clear()


def system(root: Path, tree: dict[str, str]) -> Path:
    """Write a system's files below a folder."""
    for name, text in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def below(root: Path, paths: list[str]) -> list[str]:
    """Return paths as they are on the system."""
    assert all(path.startswith(f"{root}/") for path in paths)
    return [path.removeprefix(f"{root}/") for path in paths]


def stand_in(bin_folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program `docker` on PATH, alone."""
    bin_folder.mkdir()
    (bin_folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (bin_folder / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")


def test_what_the_manual_puts_in_opt_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without docker, .env and what it lists are found by their places and words; another program's files are not."""
    monkeypatch.setenv("PATH", "/nowhere")
    tree = {"opt/seafile/.env": MANUALS_ENV, "opt/seafile/seafile-server.yml": SERVICE}
    tree |= {"opt/seafile/caddy.yml": SERVICE.replace("seafile:", "caddy:"), "opt/seafile/compose.yml": SERVICE}
    tree |= {"opt/other/.env": "PORT=80\n", "opt/other/compose.yaml": "services: {}\n"}
    tree |= {"opt/old/docker-compose.yml": SERVICE, "opt/binary/conf/.env": "SEAFILE_SERVER_PROTOCOL=http\n"}
    root = system(tmp_path, tree)
    assert below(root, seahub.Places(str(root)).env_files) == ["opt/binary/conf/.env", "opt/seafile/.env"]
    listed = ["opt/old/docker-compose.yml", "opt/seafile/caddy.yml", "opt/seafile/seafile-server.yml"]
    assert below(root, seahub.Places(str(root)).compose_files) == listed


def test_a_containers_settings_are_found_through_its_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEAFILE_VOLUME leads to the conf folder; /opt/seafile-data, its default, is found without being named."""
    monkeypatch.setenv("PATH", "/nowhere")
    tree = {"opt/seafile/.env": MANUALS_ENV + "SEAFILE_VOLUME=/srv/data\n"}
    tree |= {f"{top}/seafile/conf/seahub_settings.py": "" for top in ("srv/data", "opt/seafile-data")}
    root = system(tmp_path, tree)
    assert below(root, seahub.Places(str(root)).installations) == ["opt/seafile-data/seafile", "srv/data/seafile"]


def test_running_containers_tell_where_their_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels lead to compose and .env files anywhere; those of other images do not.

    A script stands in for docker: it prints what `docker ps` prints for the format that it is given.
    """
    seafile = '["seafileltd/seafile-mc:13.0-latest","/srv/s","/srv/s/a.yml,/srv/s/caddy.yml",""]'
    other = '["nginx:1.27","/srv/n","/srv/n/compose.yaml",""]'
    named = '["docker.seadrive.org/seafileltd/seafile-pro-mc","/srv/p","/srv/p/compose.yaml","prod.env"]'
    bare = '["seafileltd/seafile-mc","","",""]'
    printed = "\n".join([seafile, other, named, bare, "WARNING: not JSON", "[1]", "[1,2,3,4]"])
    stand_in(tmp_path / "bin", monkeypatch, f"cat <<'END'\n{printed}\nEND")
    tree = {f"srv/{name}": SERVICE for name in ("s/a.yml", "s/caddy.yml", "n/compose.yaml", "p/compose.yaml")}
    tree |= {f"srv/{name}": MANUALS_ENV for name in ("s/.env", "n/.env", "p/prod.env", "p/.env")}
    root = system(tmp_path / "root", tree)
    assert below(root, seahub.Places(str(root)).env_files) == ["srv/p/prod.env", "srv/s/.env"]
    assert below(root, seahub.Places(str(root)).compose_files) == [
        "srv/p/compose.yaml",
        "srv/s/a.yml",
        "srv/s/caddy.yml",
    ]


@pytest.mark.parametrize("script", ["echo 'permission denied' >&2; exit 1", "exec sleep 60"])
def test_docker_that_does_not_answer_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A docker that fails, or a daemon that hangs, leaves what is found without it."""
    stand_in(tmp_path / "bin", monkeypatch, script)
    monkeypatch.setattr(docker, "ASK_SECONDS", 0.2)
    root = system(tmp_path / "root", {"opt/seafile/.env": MANUALS_ENV})
    assert below(root, seahub.Places(str(root)).env_files) == ["opt/seafile/.env"]
