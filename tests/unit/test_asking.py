"""Root's step asked over a socket, whatever answers there."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.sealed.settling import Asked


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Answer one connection with these bytes, after the other side has ended its own."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            asked, _ = server.accept()
            with asked:
                assert asked.recv(1) == b""
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has read enough
                    asked.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_done_is_done(tmp_path: Path) -> None:
    """The last line decides, and nothing was said to root before it."""
    path = tmp_path / "step.sock"
    with answering(path, b"a word before\ndone\n"):
        Asked(socket=str(path)).reload()


@pytest.mark.parametrize(
    ("answer", "said"),
    [(b"failed: nginx refuses x\n", "root's step refused: nginx refuses x"), (b"", "without an answer"),
     (b"done?\n", "without an answer"), (b"\xff\xfe", "without an answer"), (b"done\nx" * 20000, "without an answer")],
    ids=["failed", "nothing", "another word", "garbage", "too much"],
)  # fmt: skip
def test_all_else_is_a_failure_of_ours(tmp_path: Path, answer: bytes, said: str) -> None:
    """What root's step says wrong, or not at all, ends in one sentence."""
    path = tmp_path / "step.sock"
    with pytest.raises(errors.NginxRefused, match=said), answering(path, answer):
        Asked(socket=str(path)).reload()


def test_nobody_there_names_the_unit(tmp_path: Path) -> None:
    """The sentence says where it looked, and what to look at."""
    with pytest.raises(errors.NginxRefused, match=r"absent\.sock.*systemctl status certbot-seafile\.socket"):
        Asked(socket=str(tmp_path / "absent.sock")).reload()


def test_without_a_socket_nobody_is_asked() -> None:
    """Where a scheduler runs the step, reload returns at once and says that nginx reads later."""
    here = Asked(ctl="/does/not/exist", socket=None)
    here.reload()
    assert here.reads_later
    assert here.test() == ""
