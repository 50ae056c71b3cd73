"""Seafile's own settings, as far as they say under which scheme it is reached.

The law: a settings file is read as text and never run. What cannot be read, or is made up at run time, is not judged.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.system import files

_SETTINGS_BYTES = 1024 * 1024
_INSTALLED = re.compile(r"(?P<top>/.*)/seafile-server-[^/]+/seahub(?:/|\Z)")
_ADDRESSES = ("SERVICE_URL", "FILE_SERVER_ROOT")
_PYTHON_LINE = re.compile(r"""^(?P<name>[A-Z_]+)\s*=\s*(?P<quote>["'])(?P<value>[^"'\\]*)(?P=quote)""")
_PLAIN_LINE = re.compile(r"""^\s*(?:export\s+)?(?P<name>[A-Z_]+)\s*=\s*["']?(?P<value>[^"'\s#]*)""")


@dataclass(frozen=True)
class Setting:
    """A setting that still says http: its file and line (from 1), its name, and what it is to be."""

    path: str
    line: int
    name: str
    value: str
    wanted: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} has {self.name} = {self.value}"


def top_folder(document_root: str) -> str | None:
    """Return the folder in which Seafile is installed, told from a site's `root` or `alias`; None where it is no such.

    "/opt/seafile/seafile-server-latest/seahub" gives "/opt/seafile": so the Seafile manual lays it out.
    """
    found = _INSTALLED.match(document_root)
    return found["top"] if found else None


def plain_http_settings(top: str) -> list[Setting]:
    """Return the settings below an installation's conf folder that still say http.

    In seahub_settings.py, ccnet.conf (up to Seafile 8) and .env (from Seafile 12 on).
    """
    conf = os.path.join(top, "conf")
    found = [*_python_settings(os.path.join(conf, "seahub_settings.py")), *_ccnet(os.path.join(conf, "ccnet.conf"))]
    for path in (os.path.join(conf, ".env"), os.path.join(top, ".env")):
        found += _environment(path)
    return found


def _python_settings(path: str) -> Iterator[Setting]:
    text = _text(path)
    said: dict[str, tuple[int, object]] = {}
    for line, name, value in _assignments(text):
        said[name] = (line, value)  # the last one counts
    for name in _ADDRESSES:
        line, value = said.get(name, (0, None))
        if isinstance(value, str) and value.lower().startswith("http://"):
            yield Setting(path, line, name, repr(value), repr("https" + value[4:]))
    line, origins = said.get("CSRF_TRUSTED_ORIGINS", (0, None))
    if isinstance(origins, (list, tuple)) and origins and not any(_is_https(origin) for origin in origins):
        wanted = ["https" + one[4:] if str(one).startswith("http:") else f"https://{one}" for one in origins]
        yield Setting(path, line, "CSRF_TRUSTED_ORIGINS", repr(origins), repr(wanted))


def _is_https(origin: object) -> bool:
    return isinstance(origin, str) and origin.lower().startswith("https://")


def _assignments(text: str) -> Iterator[tuple[int, str, object]]:
    """Yield line, name and value of the assignments of plain values; line by line where it is no Python of ours."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        for number, line in enumerate(text.splitlines(), 1):
            if found := _PYTHON_LINE.match(line):
                yield number, found["name"], found["value"]
        return
    for statement in tree.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield statement.lineno, target.id, _literal(statement.value)


def _literal(value: ast.expr) -> object:
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _ccnet(path: str) -> Iterator[Setting]:
    for number, found in _plain_lines(path):
        if found["name"] == "SERVICE_URL" and found["value"].lower().startswith("http://"):
            yield Setting(path, number, "SERVICE_URL", found["value"], "https" + found["value"][4:])


def _environment(path: str) -> Iterator[Setting]:
    for number, found in _plain_lines(path):
        if found["name"] == "SEAFILE_SERVER_PROTOCOL" and found["value"].lower() == "http":
            yield Setting(path, number, found["name"], found["value"], "https")


def _plain_lines(path: str) -> Iterator[tuple[int, re.Match[str]]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        if found := _PLAIN_LINE.match(line):
            yield number, found


def _text(path: str) -> str:
    try:
        content = files.read_if_present(path)
    except errors.FileRefused:
        return ""
    return "" if content is None or len(content) > _SETTINGS_BYTES else content.decode("utf-8", "replace")
