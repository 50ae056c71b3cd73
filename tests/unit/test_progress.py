"""Long waits are told on a terminal, on one line, and nowhere else."""

from __future__ import annotations

import io
import os
import pty
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from certbot_seafile.system import progress


class Screen:
    """A terminal of which all that was written is kept."""

    def __init__(self) -> None:
        self._reader, writer = pty.openpty()
        self.stream: TextIO = open(writer, "w", encoding="utf-8")  # noqa: SIM115  # closed by read()
        self._text = ""
        self._has_text = threading.Condition()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _keep(self) -> None:
        while True:
            try:
                data = os.read(self._reader, 4096)
            except OSError:  # the other end was closed
                return
            with self._has_text:
                self._text += data.decode()
                self._has_text.notify_all()

    def wait_for(self, text: str) -> None:
        """Wait until the text was written."""
        with self._has_text:
            assert self._has_text.wait_for(lambda: text in self._text, timeout=30), self._text

    def read(self) -> str:
        """Close the terminal, and return all that was written."""
        self.stream.close()
        self._thread.join()
        os.close(self._reader)
        return self._text


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Return a terminal on which waits are told at once."""
    monkeypatch.setattr(progress, "AFTER_SECONDS", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    progress.show_on(screen.stream)
    yield screen
    progress.show_on(io.StringIO())


def test_a_long_wait_is_one_line_that_goes_away(screen: Screen) -> None:
    """It says what is waited for and how long already, and is erased at the end."""
    with progress.waiting("nginx to reload"):
        screen.wait_for("waiting for nginx to reload: 0 s")
    text = screen.read()
    assert text.endswith("\r\x1b[K")
    assert "\n" not in text


def test_a_count_is_shown_as_a_bar(screen: Screen) -> None:
    """Counts of many stand behind the line."""
    with progress.waiting("responders") as wait:
        wait.count(25, 100)
        screen.wait_for("[#####...............] 25 of 100")
    screen.read()


def test_of_waits_in_each_other_the_inner_one_is_shown(screen: Screen) -> None:
    """One line is written by one wait at a time."""
    with progress.waiting("the outer"):
        with progress.waiting("the inner"):
            screen.wait_for("the inner")
        erased = screen
    assert "\n" not in erased.read()


def test_nothing_is_written_for_a_short_wait(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is over soon is not told."""
    monkeypatch.setattr(progress, "AFTER_SECONDS", 600.0)
    with progress.waiting("a moment"):
        pass
    assert screen.read() == ""


@pytest.mark.parametrize("terminal", ["pipe", "dumb"])
def test_nothing_is_written_where_there_is_no_terminal(
    terminal: str, screen: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pipes, files and terminals that cannot take a line back get nothing, and no thread is started."""
    pipe = io.StringIO()
    monkeypatch.setenv("TERM", terminal)
    progress.show_on(pipe if terminal == "pipe" else screen.stream)
    threads = threading.active_count()
    with progress.waiting("nginx to reload"):
        assert threading.active_count() == threads
    assert (pipe.getvalue(), screen.read()) == ("", "")


def test_a_terminal_that_was_closed_stops_no_work(screen: Screen) -> None:
    """Closed in the middle of a wait, it is written to no more."""
    with progress.waiting("nginx to reload"):
        screen.wait_for("nginx")
        os.close(screen.stream.fileno())
    with pytest.raises(OSError, match="Bad file descriptor"):
        screen.read()
