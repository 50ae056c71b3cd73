"""Who listens on which TCP port of this machine.

The law: the kernel's own lists are read (proc(5)), and nobody is called. Whose sockets this user may not see, is not
told.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

_LISTENING = "0A"  # TCP_LISTEN (include/net/tcp_states.h)
_PLAIN = re.compile(r"[\w.+-]+")


@dataclass(frozen=True, order=True)
class Listener:
    """A process that listens: its number, and its program's name as the kernel has it (at most 15 letters)."""

    process: int
    program: str


def by_port() -> dict[int, list[Listener]]:
    """Return the processes that listen, by port, as far as this user sees them."""
    ports = {f"socket:[{inode}]": port for inode, port in _listening_sockets()}
    listeners: dict[int, set[Listener]] = defaultdict(set)
    for path in glob.glob("/proc/[0-9]*/fd/*") if ports else ():
        with contextlib.suppress(OSError):  # another user's, or closed meanwhile
            if (port := ports.get(os.readlink(path))) is not None:
                process = int(path.split("/")[2])
                listeners[port].add(Listener(process, _program(process)))
    return {port: sorted(found) for port, found in listeners.items()}


def _listening_sockets() -> Iterator[tuple[str, int]]:
    """Yield inode and port of each socket that listens."""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(path, encoding="ascii") as stream:
                rows = [line.split() for line in stream.readlines()[1:]]
        except OSError:
            continue  # there is no IPv6
        yield from ((row[9], int(row[1].rpartition(":")[2], 16)) for row in rows if row[3] == _LISTENING)


def _program(process: int) -> str:
    """Return a program's name; "another program" where it has none that could be shown: a process chooses it itself."""
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as stream:
            name = stream.read().strip()
    except OSError:
        name = ""
    return name if _PLAIN.fullmatch(name) else "another program"
