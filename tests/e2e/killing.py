"""Commands that are killed at a system call of the test's choice, by strace's fault injection.

The law of this module: a world is brought into the same state before each kill, and what the kill left is told by its
bytes alone.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from e2e.processes import tool
from e2e.world import Run, World, snapshot

#: System calls that change what is in a folder; openat only where it makes a file.
_CHANGES = "rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,symlink,utimensat,fchmod,openat"
_CALL = re.compile(r"^(?:\d+ +)?(\w+)\((.*)$")
_PROCESS = re.compile(r"\.\d+\.certbot-seafile\Z|\d{10}\.\d+")


@dataclass(frozen=True)
class Point:
    """The number-th call (from 1) of a system call."""

    call: str
    number: int


class Kept:
    """A copy of a world's files, to go back to."""

    def __init__(self, world: World) -> None:
        self._world = world
        kept = world.folder / "kept"
        self._copies = {folder: kept / folder.relative_to(world.folder) for folder in folders(world)}
        for folder, copy in self._copies.items():
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(folder, copy, symlinks=True)

    def restore(self) -> None:
        """Put everything back, times of modification too, and let nginx read it."""
        for folder, copy in self._copies.items():
            shutil.rmtree(folder)
            shutil.copytree(copy, folder, symlinks=True)
        self._world.reload_nginx()


def folders(world: World) -> list[Path]:
    """Return the folders in which the package's commands change files."""
    return [world.server_root, world.config_dir, world.work_dir]


def state(world: World) -> tuple[object, ...]:
    """Return what is on disk, to tell whether two kills left the same; process numbers and times do not count."""
    found: list[object] = []
    for folder in folders(world):
        found += [(_PROCESS.sub("", name), content) for name, content in snapshot(folder).items()]
    return tuple(found)


def trace(
    world: World, command: list[str], env: Mapping[str, str] | None = None, within: Sequence[Path] = ()
) -> list[Point]:
    """Run the command to its end; return its calls that change files in these folders (the world's), in order."""
    log = world.folder / "strace.log"
    world.run(tool("strace"), "-o", log, "-e", f"trace={_CHANGES}", *command, env=_plain(env), check=False)
    points, counts = [], Counter[str]()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        if found := _CALL.match(line):
            call, rest = found.groups()
            counts[call] += 1
            if _is_change(call, rest, [str(folder) for folder in within or folders(world)]):
                points.append(Point(call, counts[call]))
    return points


def _is_change(call: str, rest: str, within: list[str]) -> bool:
    if " = -1 " in rest:
        return False
    return call == "fchmod" or (any(folder in rest for folder in within) and (call != "openat" or "O_CREAT" in rest))


def kill_at(world: World, command: list[str], point: Point, env: Mapping[str, str] | None = None) -> Run:
    """Run the command until it makes the call, which it does not live to make."""
    how = f"inject={point.call}:signal=KILL:when={point.number}"
    log = world.folder / "strace.log"
    return world.run(
        tool("strace"), "-o", log, "-e", f"trace={point.call}", "-e", how, *command, env=_plain(env), check=False
    )


def seafile(world: World, *words: str) -> list[str]:
    """Return the console script's command line in this world."""
    return [str(Path(sys.executable).parent / "certbot-seafile"), *world.folders, *words]


def kills(
    world: World, prepare: Callable[[], None], command: list[str], env: Mapping[str, str] | None = None
) -> Iterator[Point]:
    """Kill the command at each change, each time from the state that prepare makes; yield where a new one was left.

    openat comes last: other threads open files too, so that its number can hit a neighbour, whose state is then known.
    """
    prepare()
    seen: set[tuple[object, ...]] = set()
    for point in sorted(trace(world, command, env), key=lambda point: point.call == "openat"):
        prepare()
        kill_at(world, command, point, env)
        left = state(world)
        if left not in seen:
            seen.add(left)
            yield point


def _plain(env: Mapping[str, str] | None) -> dict[str, str]:
    """Return the environment in which Python's own files stay as they are, so that calls have the same numbers."""
    return {"PYTHONDONTWRITEBYTECODE": "1", **(env or {})}
