"""The house's own rules: who may import whom."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "certbot_seafile"

#: From the ground up; a room may import from the floors below its own only.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "system.progress"),
    ("site.syntax", "ocsp.pkix", "system.files"),
    ("site.config", "ocsp.fetch", "ocsp.verify", "system.webroot", "system.renewal", "system.users", "doctor.docker"),
    ("system.lineages",),
    ("doctor.schedule", "doctor.seahub", "site.model", "system.records", "system.nginx", "sealed.settings"),
    ("site.routes", "site.find", "doctor.listeners", "system.handshake", "site.edits", "sealed.units", "sealed.bundle"),
    ("site.plan", "system.journal", "sealed.handover", "sealed.versions"),
    ("system.context", "site.proof"),
    ("system.serving",),
    ("system.writing", "system.answers", "ocsp.store"),
    ("system.challenge", "usecases.boundary"),
    ("usecases.refresh", "usecases.install", "sealed.setup", "doctor.findings"),
    ("sealed.seal", "sealed.former", "usecases.undo", "doctor.proxying"),
    ("sealed.apply", "doctor.outcome"),
    ("usecases.deploy",),
    ("usecases.preflight", "usecases.enhance", "usecases.status"),
    ("doctor.subject",),
    (
        "doctor.formats",
        "doctor.certificate",
        "doctor.staple",
        "doctor.renewing",
        "doctor.seafile",
        "doctor.left",
        "doctor.network",
    ),
    ("doctor.answering",),
    ("doctor.rules",),
    ("assembly",),
    ("plugin", "commands"),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ROOMS = sorted(FLOOR)
PURE = [room for room in ROOMS if room.startswith("site.")] + ["ocsp.pkix", "ocsp.verify", "sealed.bundle"]
IMPURE_MODULES = {"os", "subprocess", "requests", "urllib3", "time", "socket", "shutil", "tempfile", "pathlib", "glob"}
MAY_KNOW_CERTBOT = {"errors", "plugin", "assembly"}


def path_of(room: str) -> Path:
    """Return the file of a room."""
    return PACKAGE.joinpath(*room.split(".")).with_suffix(".py")


def imports(room: str) -> Iterator[tuple[str, str]]:
    """Yield (package, name) for every import of a room, late ones too."""
    for node in ast.walk(ast.parse(path_of(room).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, alias.name) for alias in node.names)


def own(room: str) -> set[str]:
    """Return the rooms of this package that a room imports."""
    full = {f"{package}.{name}" for package, name in imports(room)} | {package for package, _ in imports(room)}
    return {name.removeprefix("certbot_seafile.") for name in full} & set(FLOOR)


def foreign(room: str) -> set[str]:
    """Return the top-level packages that a room imports."""
    return {package.split(".")[0] for package, _ in imports(room)}


def test_every_room_has_a_floor() -> None:
    """A new room is given its floor here, and a room that went is taken off the list."""
    stems = {path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".") for path in PACKAGE.rglob("*.py")}
    assert {stem for stem in stems if stem.split(".")[-1] != "__init__"} == set(FLOOR)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_down_only(room: str) -> None:
    """No room imports one of its own floor or above."""
    assert [name for name in own(room) if FLOOR[name] >= FLOOR[room]] == []


@pytest.mark.parametrize("room", PURE)
def test_pure_rooms_touch_nothing(room: str) -> None:
    """Pure rooms do no input or output and read no clock."""
    assert foreign(room) & IMPURE_MODULES == set()


@pytest.mark.parametrize("room", ROOMS)
def test_only_the_doors_know_certbot(room: str) -> None:
    """certbot is known to its door, to what both doors share, and to errors; its private parts to nobody."""
    if room not in MAY_KNOW_CERTBOT:
        assert foreign(room) & {"certbot", "acme"} == set()
    assert [package for package, _ in imports(room) if package.startswith(("certbot._", "certbot.ocsp"))] == []


def distance(left: str, right: str) -> int:
    """Return how many letters must be changed, added or left out to make one word of the other (Levenshtein)."""
    row = list(range(len(right) + 1))
    for i, letter in enumerate(left, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(right, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (letter != other))
    return row[-1]


def test_no_two_rooms_differ_in_one_letter() -> None:
    """Names that differ in one letter are taken for each other."""
    names = sorted({room.split(".")[-1] for room in ROOMS})
    assert len(names) == len(ROOMS)
    assert [(a, b) for a in names for b in names if a < b and distance(a, b) < 2] == []
