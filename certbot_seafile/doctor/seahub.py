"""Seafile's own settings: where they are, and as far as they say under which scheme it is reached.

The law: a settings file is read as text and never run. What cannot be read, or is made up at run time, is not judged.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.doctor import docker
from certbot_seafile.system import files

_SETTINGS_BYTES = 1024 * 1024
_INSTALLED = re.compile(r"(?P<top>/.*)/seafile-server-[^/]+/seahub(?:/|\Z)")
_PYTHON_LINE = re.compile(r"""^(?P<name>[A-Z_]+)\s*=\s*(?P<quote>["'])(?P<value>[^"'\\]*)(?P=quote)""")
#: The last release that reads SERVICE_URL in ccnet.conf.
_LAST_WITH_CCNET = 8
#: The files that `docker compose` takes where it is told none; the first one that is there.
_COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_PLAIN_LINE = re.compile(r"""^\s*(?:export\s+)?(?P<name>[A-Z_]+)\s*=\s*["']?(?P<value>[^"'\s#]*)""")


@dataclass(frozen=True)
class Setting:
    """A setting that still says http: its file and line (from 1), name and value, and what it is to be."""

    path: str
    line: int
    name: str
    value: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} has {self.name} = {self.value}"


def release(top: str) -> int | None:
    """Return the first number of Seafile's version, 12 for 12.0.5; None where it is not known, as in containers."""
    folder = os.path.basename(os.path.realpath(os.path.join(top, "seafile-server-latest")))
    version = re.match(r"seafile(?:-pro)?-server[-_](\d+)\.", folder)
    return int(version[1]) if version else None


def top_folder(document_root: str) -> str | None:
    """Return Seafile's folder for a site's `root`: /opt/seafile for /opt/seafile/seafile-server-latest/seahub."""
    installed = _INSTALLED.match(document_root)
    return installed["top"] if installed else None


def env_files(root: str = "/", folders: Iterable[str] = ()) -> list[str]:
    """Return the .env files of Seafile's installations on the system below root, as sorted paths.

    Those of running containers, and those that speak of Seafile in /opt, where its manual has them, and in the further
    folders, such as a site's top_folder().
    """
    projects = docker.projects()
    paths = [path for project in projects for path in project.env_files or (os.path.join(project.folder, ".env"),)]
    places = [*_below_opt(root), *(_at(root, folder) for folder in folders)]
    named = [_at(root, path) for path in paths]
    named += [os.path.join(place, name) for place in places for name in (".env", "conf/.env")]
    return sorted({path for path in named if "SEAFILE_" in text(path)})


def compose_files(root: str = "/", folders: Iterable[str] = ()) -> list[str]:
    """Return the compose files of Seafile's installations on the system below root, as sorted paths.

    Those with which running containers were started, and in the folders of env_files() and in /opt those that `docker
    compose up` would take: what COMPOSE_FILE in .env lists, else the first of its own names.
    """
    named = {_at(root, path) for project in docker.projects() for path in project.compose_files}
    listed = {os.path.dirname(path): _listed(path) for path in env_files(root, folders)}
    for folder in [*listed, *_below_opt(root)]:
        own = (os.path.join(folder, name) for name in _COMPOSE_NAMES)
        first = next(filter(os.path.lexists, own), None)
        named.update(listed.get(folder) or ([first] if first else []))
    return sorted(path for path in named if "seafile" in text(path).lower())


def installations(root: str = "/", folders: Iterable[str] = ()) -> list[str]:
    """Return the folders of the system below root whose conf/ has Seahub's settings, sorted: those below /opt, those
    that containers are given as SEAFILE_VOLUME, and those of the further folders that have one.
    """
    volumes = [_at(root, value) for path in env_files(root, folders) if (value := _value(path, "SEAFILE_VOLUME"))]
    tops = [*_below_opt(root), *volumes, *(_at(root, folder) for folder in folders)]
    tops += [os.path.join(top, "seafile") for top in tops]
    return sorted({top for top in tops if os.path.isfile(os.path.join(top, "conf", "seahub_settings.py"))})


def _below_opt(root: str) -> list[str]:
    return glob.glob(os.path.join(glob.escape(root), "opt", "*"))


def _at(root: str, path: str) -> str:
    """Return where a path of the system below root is."""
    return os.path.join(root, path.lstrip("/"))


def _listed(env_path: str) -> list[str]:
    """Return the compose files that an environment file lists, which are relative to its folder."""
    names = _value(env_path, "COMPOSE_FILE").split(_value(env_path, "COMPOSE_PATH_SEPARATOR") or ":")
    return [os.path.join(os.path.dirname(env_path), name) for name in names if name]


def _value(env_path: str, name: str) -> str:
    """Return the value of a line NAME=VALUE of an environment file, the last one; "" where it has none."""
    lines = filter(None, map(_PLAIN_LINE.match, text(env_path).splitlines()))
    return next((line["value"] for line in reversed([*lines]) if line["name"] == name), "")


def plain_http_settings(top: str) -> list[Setting]:
    """Return what still says http in seahub_settings.py and .env (Seafile from 12 on).

    ccnet.conf (Seafile up to 8) counts where seahub_settings.py says nothing of SERVICE_URL, which goes before it.
    """
    known, path = python_settings(top), os.path.join(top, "conf", "ccnet.conf")
    settings = [*_python_settings(settings_path(top), known)]
    if "SERVICE_URL" not in known and (release(top) or 0) <= _LAST_WITH_CCNET:
        settings += _plain_settings(path, "SERVICE_URL", "http://")
    for path in own_env_files(top):
        settings += plain_http_protocol(path)
    return settings


def plain_http_protocol(env_path: str) -> list[Setting]:
    """Return the line of an environment file by which Seafile (from 12 on) takes itself to be reached by http."""
    return [*_plain_settings(env_path, "SEAFILE_SERVER_PROTOCOL", r"http\Z")]


def own_env_files(top: str) -> list[str]:
    """Return the environment files of an installation: Seafile reads the one in conf/."""
    return [path for folder in ("conf", "") if os.path.isfile(path := os.path.join(top, folder, ".env"))]


def settings_path(top: str) -> str:
    """Return the path of Seahub's settings in an installation."""
    return os.path.join(top, "conf", "seahub_settings.py")


def python_settings(top: str) -> dict[str, tuple[int, object]]:
    """Return the line (from 1) and the value of each plain setting of seahub_settings.py; the last one counts."""
    return {name: (line, value) for line, name, value in _assignments(text(settings_path(top)))}


def env_settings(env_path: str) -> dict[str, tuple[int, str]]:
    """Return the line (from 1) and the value of each setting of an environment file; the last one counts."""
    lines = enumerate(map(_PLAIN_LINE.match, text(env_path).splitlines()), 1)
    return {line["name"]: (number, line["value"]) for number, line in lines if line}


def _python_settings(path: str, values: Mapping[str, tuple[int, object]]) -> Iterator[Setting]:
    for name in ("SERVICE_URL", "FILE_SERVER_ROOT"):
        line, value = values.get(name, (0, None))
        if isinstance(value, str) and value.lower().startswith("http://"):
            yield Setting(path, line, name, repr(value), repr("https" + value[4:]))
    line, origins = values.get("CSRF_TRUSTED_ORIGINS", (0, None))
    listed = origins if isinstance(origins, (list, tuple)) else ()
    if listed and not any(str(origin).lower().startswith("https://") for origin in listed):
        wanted = ["https" + origin[4:] if str(origin).startswith("http:") else f"https://{origin}" for origin in listed]
        yield Setting(path, line, "CSRF_TRUSTED_ORIGINS", repr(origins), repr(wanted))


def _assignments(source: str) -> Iterator[tuple[int, str, object]]:
    """Yield line, name and value of the assignments of plain values; line by line where it is no Python of ours."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        for number, line in enumerate(source.splitlines(), 1):
            if assignment := _PYTHON_LINE.match(line):
                yield number, assignment["name"], assignment["value"]
        return
    for statement in [statement for statement in tree.body if isinstance(statement, ast.Assign)]:
        for target in [target for target in statement.targets if isinstance(target, ast.Name)]:
            yield statement.lineno, target.id, _literal(statement.value)


def _literal(value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _plain_settings(path: str, name: str, plain: str) -> Iterator[Setting]:
    """Yield the lines NAME=VALUE whose value begins as the pattern `plain` does."""
    for number, line in enumerate(text(path).splitlines(), 1):
        setting = _PLAIN_LINE.match(line)
        if setting and setting["name"] == name and re.match(plain, setting["value"], re.IGNORECASE):
            yield Setting(path, number, name, setting["value"], "https" + setting["value"][4:])


def text(path: str) -> str:
    """Return a settings file's text; "" where it cannot be read."""
    with contextlib.suppress(errors.FileRefused):
        return files.read(path, at_most_bytes=_SETTINGS_BYTES).decode("utf-8", "replace")
    return ""
