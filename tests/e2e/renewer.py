"""A world in which an ordinary user renews: that user's real uid, and what systemd does for root's step.

The law of this module: the user's commands run under its uid without any capability, and root's step runs as the
written unit says, for each connection to the socket that the written unit names.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import certbot_seafile
from e2e.processes import tool
from e2e.world import Run, World

USER = "daemon"  # on every system, without a file of its own, and not one that systemd warns of
SOCKET_UNIT, SERVICE_UNIT = "certbot-seafile.socket", "certbot-seafile@.service"

_SCRIPT = """\
#!{python}
import site, sys
for folder in {folders}:
    site.addsitedir(folder)
    sys.path.insert(0, folder)
sys.argv[0] = {path!r}
from {module} import main
sys.exit(main())
"""


class Renewer:
    """One world's ordinary user; a context manager that ends root's step behind its socket."""

    def __init__(self, world: World, user: str = USER) -> None:
        self.world, self.user = world, user
        self.settings = world.path("/etc/certbot-seafile.json")
        self.state_dir = world.path("/var/lib/certbot-seafile")
        self.unit_dir = world.path("/etc/systemd/system")
        self.socket = world.path("/run/certbot-seafile.sock")
        self.outbox = world.config_dir / "seafile" / "staples"
        self._listening: _Socket | None = None
        world.folder.chmod(0o755)
        world.nginx_calls_log.touch()
        world.nginx_calls_log.chmod(0o666)
        self._scripts = world.folder / "bin"
        folders = _importable(world.folder)
        for name, module in (("certbot", "certbot.main"), ("certbot-seafile", "certbot_seafile.cli")):
            script = self._scripts / name
            script.write_text(_SCRIPT.format(
                python=Path(sys.executable).resolve(), folders=folders, module=module, path=str(script)))  # fmt: skip
            script.chmod(0o755)

    def __enter__(self) -> Renewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_step()

    # Who runs what

    def as_user(self, *command: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run a command as the user, who can gain nothing by it."""
        facts = pwd.getpwnam(self.user)
        words = [tool("setpriv"), f"--reuid={facts.pw_uid}", f"--regid={facts.pw_gid}", "--clear-groups",
                 "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]  # fmt: skip
        # libfaketime, where it is asked for, must not begin as root.
        given = [f"{name}={value}" for name, value in (env or {}).items()]
        return self.world.run(*words, tool("env"), *given, *command, check=check)

    def certbot(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run certbot as the user."""
        return self.as_user(*self._certbot(*words), env=env, check=check)

    def certbot_of_root(self, *words: str | Path, check: bool = True) -> Run:
        """Run certbot as root."""
        return self.world.run(*self._certbot(*words), check=check)

    def seafile(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run the console script as the user."""
        return self.as_user(self._scripts / "certbot-seafile", *self.world.folders, *words, env=env, check=check)

    def seafile_of_root(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run the console script as root, with this world's settings."""
        options: list[str | Path] = ["--settings", self.settings, *self.world.folders]
        return self.world.run(self._scripts / "certbot-seafile", *options, *words, env=env, check=check)

    def _certbot(self, *words: str | Path) -> list[str | Path]:
        world = self.world
        return [
            self._scripts / "certbot", *words, *world.folders, "--server", world.acme_url, "--non-interactive",
            "--agree-tos", "--register-unsafely-without-email", "--no-random-sleep-on-renew",
            "--http-01-port", str(world.http_port), "--https-port", str(world.https_port),
        ]  # fmt: skip

    def setup(self, *words: str | Path, check: bool = True, has_systemd: bool = True) -> Run:
        """Run `setup` as root, with this world's folders; and, as systemd would, listen on the socket."""
        given: list[str | Path] = ["--state-dir", self.state_dir]
        if has_systemd:
            given += ["--systemd-dir", self.unit_dir, "--socket", self.socket]
        else:
            given += ["--systemd-dir", "", "--socket", ""]
        ports = ["--http-01-port", str(self.world.http_port), "--https-port", str(self.world.https_port)]
        options = ["--seafile-ctl", str(self.world.nginx_ctl), "--seafile-staple-dir", str(self.world.staple_dir)]
        run = self.seafile_of_root(*ports, *options, "setup", "--user", self.user, *given, *words, check=check)
        if (self.unit_dir / SOCKET_UNIT).exists() and self._listening is None:
            self.start_step()
        return run

    def settle(self, *, check: bool = True, env: Mapping[str, str] | None = None) -> Run:
        """Run root's step by hand."""
        return self.world.run(*self.step_command, check=check, env=env)

    @property
    def step_command(self) -> list[Path | str]:
        """Return the words that run root's step."""
        return [self._scripts / "certbot-seafile", "--settings", self.settings, "settle"]

    # systemd's part

    def unit(self, name: str) -> configparser.ConfigParser:
        """Return a unit that was written."""
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(self.unit_dir / name)
        return parser

    def start_step(self) -> None:
        """Listen as the socket unit says, and run what the service unit says for each connection."""
        listens, service = self.unit(SOCKET_UNIT)["Socket"], self.unit(SERVICE_UNIT)["Service"]
        self._listening = _Socket(
            Path(listens["ListenStream"]), listens["SocketUser"], int(listens["SocketMode"], 8),
            shlex.split(service["ExecStart"]),
        )  # fmt: skip

    def stop_step(self) -> None:
        """Listen no more."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    # What the user can write

    def writable(self, *folders: Path) -> list[Path]:
        """Return the files and folders below these, and on the way to them, that the user could write to or replace."""
        uid, found = pwd.getpwnam(self.user).pw_uid, []
        for folder in folders:
            for path in (*folder.parents, folder, *folder.rglob("*")):
                facts = path.lstat()
                is_open = not stat.S_ISLNK(facts.st_mode) and facts.st_mode & 0o022 and not facts.st_mode & stat.S_ISVTX
                if facts.st_uid == uid or is_open:
                    found.append(path)
        return found


class _Socket:
    """A listening socket like systemd's with Accept=yes: one process for each connection, stdout being the socket."""

    def __init__(self, path: Path, owner: str, mode: int, command: list[str]) -> None:
        self._path, self._command = path, command
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._server.bind(str(path))
        shutil.chown(path, owner)
        path.chmod(mode)
        self._server.listen()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                asked, _ = self._server.accept()
            except OSError:  # closed
                return
            with asked:
                # systemd's services get a clean environment (systemd.exec(5)).
                subprocess.run(
                    self._command, stdin=subprocess.DEVNULL, stdout=asked.fileno(), stderr=subprocess.DEVNULL,
                    env={"PATH": os.defpath, "LANG": "C.UTF-8"}, check=False, timeout=120,
                )  # fmt: skip

    def close(self) -> None:
        """Stop listening, and wait for the last answer."""
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        self._path.unlink()


def _importable(folder: Path) -> list[str]:
    """Return where everybody can import certbot and this package from: what is out of reach is copied into folder."""
    wanted = [Path(certbot_seafile.__file__).parent.parent, Path(sysconfig.get_path("purelib"))]
    found = []
    for number, path in enumerate(wanted):
        if not all(one.stat().st_mode & 0o001 for one in (path, *path.parents)):
            target = folder / "python" / str(number)
            source = path if number else path / "certbot_seafile"
            shutil.copytree(source, target if number else target / "certbot_seafile", symlinks=True)
            path = target
        found.append(str(path))
    return found
