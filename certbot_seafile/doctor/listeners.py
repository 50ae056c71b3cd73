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

from certbot_seafile.system import files

_LISTENING = "0A"  # TCP_LISTEN (include/net/tcp_states.h)
_MOST_BYTES = 64 * 1024**2  # a row for each connection is among them
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
        rows = [line.split() for line in files.text(path, at_most_bytes=_MOST_BYTES).splitlines()[1:]]
        yield from ((row[9], int(row[1].rpartition(":")[2], 16)) for row in rows if row[3] == _LISTENING)


def _program(process: int) -> str:
    """Return a program's name; "another program" where it has none that could be shown: a process chooses it itself."""
    name = files.text(f"/proc/{process}/comm").strip()
    return name if _PLAIN.fullmatch(name) else "another program"
