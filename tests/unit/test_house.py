"""The house's own rules: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "certbot_seafile"

FLOORS: dict[str, int] = {
    "errors": 0,
    "syntax": 1, "der": 1,
    "servers": 2, "staple": 2, "files": 2,
    "edits": 3, "site": 4,
    "webroot": 5, "responder": 5, "nginx": 5, "lineage": 5, "probe": 5, "journal": 5,
    "schedule": 5, "seahub": 5,
    "host": 6, "settings": 6, "asking": 6,
    "writing": 7, "serving": 7, "stapling": 7, "units": 7,
    "challenge": 8, "pinning": 8, "refreshing": 8, "settling": 8,
    "deploy": 9, "undo": 9, "enhance": 10, "report": 10, "handover": 10, "check": 11,
    "plugin": 12, "cli": 13,
}  # fmt: skip
PURE = {"syntax", "der", "staple", "servers", "edits", "site"}
IMPURE_MODULES = {"os", "subprocess", "requests", "time", "socket", "shutil", "tempfile", "pathlib", "glob"}
MAY_KNOW_CERTBOT = {"errors", "plugin", "cli"}


def imports(module: str) -> Iterator[tuple[str, str]]:
    """Yield (package, name) for every import of a module of ours, late ones too."""
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def own(module: str) -> set[str]:
    """Return the modules of this package that a module imports."""
    found = {name for package, name in imports(module) if package == "certbot_seafile" and name in FLOORS}
    return found | {package.split(".")[1] for package, _ in imports(module) if package.startswith("certbot_seafile.")}


def foreign(module: str) -> set[str]:
    """Return the top-level packages that a module imports."""
    return {package.split(".")[0] for package, _ in imports(module)}


def test_every_room_has_a_floor() -> None:
    """A new module is given its floor here."""
    assert {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"} == set(FLOORS)


@pytest.mark.parametrize("module", FLOORS)
def test_imports_go_down_only(module: str) -> None:
    """No module imports one of its own floor or above."""
    assert [name for name in own(module) if FLOORS[name] >= FLOORS[module]] == []


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_rooms_touch_nothing(module: str) -> None:
    """Pure modules do no input or output and read no clock."""
    assert foreign(module) & IMPURE_MODULES == set()


@pytest.mark.parametrize("module", FLOORS)
def test_only_the_doors_know_certbot(module: str) -> None:
    """certbot is known to plugin, cli and errors; its private parts to nobody."""
    if module not in MAY_KNOW_CERTBOT:
        assert foreign(module) & {"certbot", "acme"} == set()
    assert [package for package, _ in imports(module) if package.startswith(("certbot._", "certbot.ocsp"))] == []
