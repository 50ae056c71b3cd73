"""Child processes and ports of the end-to-end tests.

The law of this module: a test's processes are its own children, are ended by pid, and end with it even when the test
run is killed; their output goes to a file that a failing test can show. Waiting means polling for a fact until a
deadline, and stops at once when the process that should bring it about has ended.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

DEADLINE_SECONDS = 20.0
LOOPBACK = "127.0.0.1"

#: Below Linux' range for outgoing connections (32768 and up), so that no client's port collides with a server's.
_ALL_PORTS = range(18_000, 32_000)
#: Where tests run side by side, each worker process has ports of its own (pytest-xdist names it gw0 to gw9).
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 10
PORTS = _ALL_PORTS[_WORKER * 1_400 : (_WORKER + 1) * 1_400]


class ProcessFailed(AssertionError):
    """A server of the test did not start or did not answer; the text ends with the tail of its log."""


def find_tool(name: str) -> str | None:
    """Return the path of a program, also from beside Python, and from the sbin folders, which are for root."""
    beside = os.path.dirname(sys.executable)
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/local/sbin:/usr/sbin:/sbin:{beside}")


def tool(name: str) -> str:
    """Return the path of a program that must be there. Raises FileNotFoundError."""
    path = find_tool(name)
    if path is None:
        raise FileNotFoundError(f"{name} is not installed; tests/setup-environment packages installs it")
    return path


def free_ports(count: int) -> list[int]:
    """Return `count` different ports of 127.0.0.1 that are free for TCP and UDP at this moment."""
    chosen: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        if len(chosen) == count:
            return chosen
        if _is_free(port):
            chosen.append(port)
    raise ProcessFailed(f"{LOOPBACK} has no {count} free ports left")


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                return False
    return True


def ipv6_works() -> bool:
    """Return whether this machine can listen on ::1."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def answers(port: int, address: str = LOOPBACK) -> bool:
    """Return whether something accepts TCP connections on a port of this machine."""
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True


@dataclass
class Child:
    """One running server: its name, process and log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def text(self) -> str:
        """Return what the process has written so far (stdout and stderr)."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def wait_until(self, is_true: Callable[[], bool], what: str) -> None:
        """Poll until `is_true()`. Raises ProcessFailed when the process ends first, or the deadline passes."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not is_true():
            if self.process.poll() is not None:
                raise ProcessFailed(f"{self.name} ended with {self.process.returncode}:\n{self.text()[-4000:]}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name}: not {what} in {DEADLINE_SECONDS} s:\n{self.text()[-4000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the process: SIGTERM, and SIGKILL where that is not obeyed. Does nothing when it has ended."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


def start(name: str, command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> Child:
    """Start a server as a child of this process, without a terminal, with its output appended to `log`.

    setpriv(1) asks the kernel to end the server when this process dies; it then becomes the server, so the pid is
    the server's.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            [tool("setpriv"), "--pdeathsig", "TERM", "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=log.parent,
        )
    return Child(name, process, log)


def processes_in(folder: Path) -> dict[int, str]:
    """Return pid and command line of every other process that works in `folder` or was called with a path in it."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            line = _command_line(entry)
            if str(folder) in line or _working_folder(entry).is_relative_to(folder):
                found[int(entry.name)] = line
    return found


def _command_line(entry: Path) -> str:
    try:
        return (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:  # It has ended meanwhile.
        return ""


def _working_folder(entry: Path) -> Path:
    try:
        return (entry / "cwd").readlink()
    except OSError:  # It has ended meanwhile, or belongs to someone else.
        return Path("/")


def end_all(pids: Iterable[int]) -> None:
    """End processes that are not children of this one: SIGTERM, and SIGKILL for what is left after five seconds."""
    waiting = set(pids)
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in waiting:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + 5
        while waiting and time.monotonic() < deadline:
            waiting = {pid for pid in waiting if _command_line(Path(f"/proc/{pid}"))}
            time.sleep(0.01)
