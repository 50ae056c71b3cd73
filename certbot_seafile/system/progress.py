"""What a person at a terminal is told while something takes long.

The law: one line, written over and gone when the wait is over, and nothing where there is no terminal: logs and pipes
hold results only. A door calls show_on(); the rooms below say what they wait for.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import TextIO

#: What takes no longer is over before a person asks.
AFTER_SECONDS = 2.0
_EACH_SECONDS = 1.0
_ERASE = "\r\x1b[K"
_BAR = 20


def show_on(stream: TextIO) -> None:
    """Tell on this stream what is waited for, if it is a terminal that can take a line back."""
    _terminal.stream = stream if stream.isatty() and os.environ.get("TERM") != "dumb" else None


@contextlib.contextmanager
def waiting(what: str) -> Iterator[Wait]:
    """Say on the terminal that `what` is waited for, a noun phrase, once that has taken a while."""
    wait = Wait(what)
    if _terminal.stream is None:
        yield wait
        return
    _terminal.waits.append(wait)
    thread = threading.Thread(target=_show, args=[wait], name="progress", daemon=True)
    thread.start()
    try:
        yield wait
    finally:
        wait.is_over.set()
        thread.join()
        _terminal.waits.remove(wait)
        erase()


def erase() -> None:
    """Take the line away, so that something else can be printed in its place."""
    if _terminal.has_line:
        _terminal.write("")


def give_up(stream: TextIO) -> None:
    """Let a stream that cannot be written to lead nowhere from now on: what waits in it fails at each later flush."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Wait:
    """One wait: what for, and how much of it is done, where that is known."""

    def __init__(self, what: str) -> None:
        self.is_over = threading.Event()
        self._what = what
        self._begun = time.monotonic()
        self._counts = (0, 0)

    def count(self, done: int, total: int) -> None:
        """Hear how many of how many are done."""
        self._counts = done, total

    def __str__(self) -> str:
        text = f"waiting for {self._what}: {time.monotonic() - self._begun:.0f} s"
        done, total = self._counts
        if total < 2:
            return text
        filled = _BAR * done // total
        return f"{text} [{'#' * filled}{'.' * (_BAR - filled)}] {done} of {total}"


class _Terminal:
    """Where the line is written; None until a door has shown a terminal. The last of the waits has the line."""

    def __init__(self) -> None:
        self.stream: TextIO | None = None
        self.waits: list[Wait] = []
        self.has_line = False
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            if self.stream is None:
                return
            try:
                self.stream.write(_ERASE + text)
                self.stream.flush()
                self.has_line = bool(text)
            except OSError:  # a terminal that was closed stops no work
                give_up(self.stream)
                self.stream = None


_terminal = _Terminal()


def _show(wait: Wait) -> None:
    pause = AFTER_SECONDS
    while not wait.is_over.wait(pause):
        pause = _EACH_SECONDS
        if _terminal.waits[-1] is wait:
            _terminal.write(str(wait))
