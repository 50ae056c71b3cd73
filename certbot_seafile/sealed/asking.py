"""nginx as an ordinary user has it: root's step is asked to test and to reload.

The law: root hears nothing but that there is something to see. What it does then, root's own files decide, which this
user cannot write.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.system import nginx

logger = logging.getLogger(__name__)

DONE, FAILED = "done", "failed: "
_ANSWER_SECONDS = 180  # nginx's test and reload have their own, shorter limits
_ANSWER_BYTES = 65536


@dataclass(frozen=True)
class Asked(nginx.Nginx):
    """nginx, reloaded by the root step behind a socket (None: by one that a scheduler runs every few minutes).

    As an ordinary user `nginx -t` and `nginx -s reload` fail: both open the pid file for writing (ngx_create_pidfile).
    """

    socket: str | None = None

    @property
    def reads_later(self) -> bool:
        """Tell whether reload() returns before nginx has read anything."""
        return self.socket is None

    def test(self) -> str:
        """Leave the test to root's step, which does nothing without it."""
        return ""

    def reload(self) -> None:
        """Ask root's step, and wait for its answer. Raises errors.NginxRefused."""
        if self.socket is None:
            logger.info("left for root's step: its scheduler runs `certbot-seafile settle`")
            return
        last = _ask(self.socket).rstrip("\n").rpartition("\n")[2]
        if last.startswith(FAILED):
            raise errors.NginxRefused(f"root's step refused: {last.removeprefix(FAILED)}")
        if last != DONE:
            raise errors.NginxRefused(
                "root's step ended without an answer; `journalctl -u 'certbot-seafile@*'` says why, and "
                "`sudo certbot-seafile settle` runs it by hand"
            )
        logger.info("nginx was tested and reloaded by root's step")


def _ask(path: str) -> str:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.settimeout(_ANSWER_SECONDS)
            stream.connect(path)
            stream.shutdown(socket.SHUT_WR)
            with stream.makefile("rb") as answer:
                return answer.read(_ANSWER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise errors.NginxRefused(
            f"root's step cannot be asked at {path}: {error.strerror or 'no answer in time'}; "
            "see `systemctl status certbot-seafile.socket`, or run `sudo certbot-seafile settle`"
        ) from error
