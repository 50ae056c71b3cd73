"""certbot and our console script as forks of one process that has imported them already.

The law of this module: a fork sees what a new process would (its own arguments, environment, folder and streams) and
differs in two things only: imports are shared, and sleeping is shortened, since its clock is a faked one anyway. So a
simulated year of commands takes minutes. `serve` is that one process; `write_program` makes programs that hand
themselves over to it, for tests and for certbot's hooks alike.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import importlib.metadata
import io
import json
import os
import pkgutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn, SupportsIndex

SLEEP_DIVISOR = 50

#: Its first line starts Python without site-packages, which is all the difference to a command's usual start.
_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    request = {{"words": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(request).encode() + b"\\0"], [0, 1, 2])
    code = server.recv(1)
sys.exit(code[0] if code else 70)
"""


def write_program(path: Path, server: Path) -> None:
    """Write a program that is run as a fork of the server at that socket: `certbot`, or else our console script."""
    path.write_text(_PROGRAM.format(python=sys.executable, path=str(server)))
    path.chmod(0o755)


def serve(path: str) -> None:
    """Import what commands need, then fork for each that comes, until SIGTERM."""
    from certbot.main import main as certbot_main

    import certbot_seafile
    from certbot_seafile import cli

    # certbot lists all installed packages again for each lineage, which took a third of a run.
    setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))  # noqa: B010
    for module in pkgutil.walk_packages(certbot_seafile.__path__, "certbot_seafile."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        certbot_main(["--version"])  # loads certbot's plugins
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks: each tells its exit code itself
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                if os.fork() == 0:
                    listener.close()
                    for number in (signal.SIGCHLD, signal.SIGTERM):
                        signal.signal(number, signal.SIG_DFL)
                    _become(connection, {"certbot": certbot_main, "certbot-seafile": cli.main})


def _become(connection: socket.socket, programs: Mapping[str, Callable[[], object]]) -> NoReturn:
    """Run what the connection asks for, tell its exit code, and end."""
    parts, streams, _, _ = socket.recv_fds(connection, 2**16, 3)
    while not parts.endswith(b"\0"):
        parts += connection.recv(2**16)
    request = json.loads(parts[:-1])
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(request["folder"])
    faked = {name: value for name, value in os.environ.items() if name == "LD_PRELOAD" or "FAKE" in name}
    os.environ.clear()
    os.environ.update(request["environment"] | faked)
    sys.argv[:] = request["words"]
    _shorten_sleep()
    code: object = 1
    try:
        code = programs[Path(sys.argv[0]).name]()
    except SystemExit as ending:
        code = ending.code
    finally:
        if sys.exc_info()[0] is not None:
            traceback.print_exc()
        _end(connection, code)


def _shorten_sleep() -> None:
    sleep = time.sleep

    def shorter(seconds: float | SupportsIndex) -> None:
        sleep(float(seconds) / SLEEP_DIVISOR)

    time.sleep = shorter


def _end(connection: socket.socket, code: object) -> NoReturn:
    """End as Python does, and tell the exit code: a text is an error message (sys.exit)."""
    if isinstance(code, str):
        print(code, file=sys.stderr)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(bytes([code if isinstance(code, int) else int(code is not None)]))
    os._exit(0)


if __name__ == "__main__":
    serve(sys.argv[1])
