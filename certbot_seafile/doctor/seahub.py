"""Seafile's own settings: where they are, and as far as they say under which scheme it is reached.

The law: a settings file is read as text and never run. What cannot be read, or is made up at run time, is not judged.
"""

from __future__ import annotations

import ast
import contextlib
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from certbot_seafile.doctor import docker
from certbot_seafile.system import files

_INSTALLED = re.compile(r"(?P<top>/.*)/seafile-server-[^/]+/seahub(?:/|\Z)")
#: The last release that reads SERVICE_URL in ccnet.conf.
_LAST_WITH_CCNET = 8
#: The files that `docker compose` takes where it is told none; the first one that is there.
_COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_LINE = re.compile(r"""^\s*(?:export\s+)?(?P<name>[A-Z_]+)\s*=\s*["']?(?P<value>[^"'\s#]*)""")
#: The addresses by which Seafile takes itself to be reached, and the files in which it reads them.
URLS = ("SERVICE_URL", "FILE_SERVER_ROOT")
_URL_FILES = ("seahub_settings.py", "ccnet.conf")


@dataclass(frozen=True)
class Setting:
    """A setting: its file and line (from 1), its name, and its value; None where that is made up at run time."""

    path: str
    line: int
    name: str
    value: object

    @property
    def place(self) -> str:
        """Return file and line."""
        return f"{self.path}:{self.line}"

    @property
    def text(self) -> str:
        """Return the value where it is a text; "" where it is another one."""
        return self.value if isinstance(self.value, str) else ""

    @property
    def is_of_seahub(self) -> bool:
        """Tell whether it stands in seahub_settings.py."""
        return self.path.endswith(".py")

    def written(self, value: object) -> str:
        """Return a value as it would stand in the setting's file."""
        return repr(value) if self.is_of_seahub else str(value)

    @property
    def over_https(self) -> str | None:
        """Return what it is to be where it still says http, as it would stand there; None where it does not."""
        text, value = self.text.lower(), self.value
        if self.name == "CSRF_TRUSTED_ORIGINS" and isinstance(value, (list, tuple)) and value:
            names = [str(origin) for origin in value]
            wanted = ["https" + name[4:] if name.startswith("http:") else f"https://{name}" for name in names]
            return None if any(name.lower().startswith("https://") for name in names) else self.written(wanted)
        is_plain_url = self.name in URLS and self.path.endswith(_URL_FILES) and text.startswith("http://")
        if is_plain_url or (self.name == "SEAFILE_SERVER_PROTOCOL" and text == "http"):
            return self.written("https" + self.text[4:])
        return None


def release(top: str) -> int:
    """Return the first number of Seafile's version, 12 for 12.0.5; 0 where it is not known, as in containers."""
    folder = os.path.basename(os.path.realpath(os.path.join(top, "seafile-server-latest")))
    version = re.match(r"seafile(?:-pro)?-server[-_](\d+)\.", folder)
    return int(version[1]) if version else 0


def top_folder(document_root: str) -> str | None:
    """Return Seafile's folder for a site's `root`: /opt/seafile for /opt/seafile/seafile-server-latest/seahub."""
    installed = _INSTALLED.match(document_root)
    return installed["top"] if installed else None


@dataclass(frozen=True)
class Places:
    """Where the files of Seafile's installations are on the system below root, as sorted paths."""

    root: str = "/"

    @cached_property
    def env_files(self) -> list[str]:
        """Return the .env files: of running containers, and in /opt, where Seafile's manual has them."""
        named = [self._at(path) for project in docker.projects() for path in project.env_files]
        named += [os.path.join(folder, name) for folder in self._below_opt for name in (".env", "conf/.env")]
        return sorted({path for path in named if "SEAFILE_" in files.text(path)})

    @cached_property
    def compose_files(self) -> list[str]:
        """Return the compose files with which running containers were started, and those that would be taken.

        By `docker compose up` in the folders of env_files and in /opt: what COMPOSE_FILE in .env lists, else the first
        of its own names.
        """
        named = {self._at(path) for project in docker.projects() for path in project.compose_files}
        listed = {os.path.dirname(path): _listed(path) for path in self.env_files}
        for folder in [*listed, *self._below_opt]:
            own = (os.path.join(folder, name) for name in _COMPOSE_NAMES)
            first = next(filter(os.path.lexists, own), None)
            named.update(listed.get(folder) or ([first] if first else []))
        return sorted(path for path in named if "seafile" in files.text(path).lower())

    @cached_property
    def installations(self) -> list[str]:
        """Return the folders whose conf/ has Seahub's settings: below /opt, and SEAFILE_VOLUME of containers."""
        volumes = [self._at(value) for path in self.env_files if (value := value_in(path, "SEAFILE_VOLUME"))]
        tops = [*self._below_opt, *volumes]
        tops += [os.path.join(top, "seafile") for top in tops]
        return sorted({top for top in tops if os.path.isfile(os.path.join(top, "conf", "seahub_settings.py"))})

    @property
    def _below_opt(self) -> list[str]:
        return glob.glob(os.path.join(glob.escape(self.root), "opt", "*"))

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path.lstrip("/"))


def _listed(env_path: str) -> list[str]:
    """Return the compose files that an environment file lists, which are relative to its folder."""
    names = value_in(env_path, "COMPOSE_FILE").split(value_in(env_path, "COMPOSE_PATH_SEPARATOR") or ":")
    return [os.path.join(os.path.dirname(env_path), name) for name in names if name]


def own_env_files(top: str) -> list[str]:
    """Return the environment files of an installation: Seafile reads the one in conf/."""
    return [path for folder in ("conf", "") if os.path.isfile(path := os.path.join(top, folder, ".env"))]


def settings(top: str) -> list[Setting]:
    """Return the settings in an installation's seahub_settings.py, of each name the last one.

    SERVICE_URL in ccnet.conf (Seafile up to 8) counts where seahub_settings.py says nothing of it, which goes before.
    """
    path = os.path.join(top, "conf", "seahub_settings.py")
    try:
        tree = ast.parse(files.text(path))
    except (SyntaxError, ValueError):
        known = line_settings(path)
    else:
        known = {setting.name: setting for setting in _assignments(path, tree)}
    if release(top) <= _LAST_WITH_CCNET:
        former = line_settings(os.path.join(top, "conf", "ccnet.conf"))
        known = {name: former[name] for name in ("SERVICE_URL",) if name in former} | known
    return list(known.values())


def _assignments(path: str, tree: ast.Module) -> Iterator[Setting]:
    for statement in [statement for statement in tree.body if isinstance(statement, ast.Assign)]:
        value: object = None
        with contextlib.suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            value = ast.literal_eval(statement.value)
        names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
        yield from (Setting(path, statement.lineno, name, value) for name in names)


def line_settings(path: str) -> dict[str, Setting]:
    """Return the settings in a file of lines NAME=VALUE by name; the last one counts."""
    lines = enumerate(map(_LINE.match, files.text(path).splitlines()), 1)
    return {line["name"]: Setting(path, number, line["name"], line["value"]) for number, line in lines if line}


def value_in(path: str, name: str) -> str:
    """Return the value of the setting of that name in a file of lines NAME=VALUE; "" where it has none."""
    setting = line_settings(path).get(name)
    return setting.text if setting else ""
