"""What answers behind nginx in the place of Seafile, which no package brings.

The law of this module: it answers what Seafile answers at the addresses that are asked without logging in, and nothing
else. Real are nginx in front of it and, where logging in is the matter, Django (see test_login.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

#: A path as it arrives to status and body.
Answering = Callable[[str], tuple[int, bytes]]


def seahub(path: str) -> tuple[int, bytes]:
    """Answer as Seahub does: every page, and its ping."""
    return 200, b'"pong"' if path.endswith("/api2/ping/") else b"<html>Seafile</html>"


def file_server(path: str) -> tuple[int, bytes]:
    """Answer as Seafile's file server does, which knows no path that begins with /seafhttp."""
    return (200, b'{"version": 2}') if path == "/protocol-version" else (404, b"")


class Backend:
    """A server in this process that answers by a function until it is closed."""

    def __init__(self, address: str, port: int, answer: Answering) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = answer(self.path)
                with contextlib.suppress(OSError):  # who asked may be gone
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address, port), Handler)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End it, and free its port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
