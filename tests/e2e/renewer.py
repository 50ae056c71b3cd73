"""A world in which an ordinary user renews: that user's real uid, and what systemd does for root's step.

The law of this module: the user's commands run under its uid without any capability, and root's step runs as the
written unit says, each time that the handover folder changes, never twice at once.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import pwd
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.x509 import ocsp

import certbot_seafile
from e2e import road
from e2e.processes import DEADLINE_SECONDS, tool
from e2e.world import CommandFailed, Run, World

APPLY, RENEW = "certbot-seafile-apply", "certbot-seafile-renew"
UNITS = (f"{APPLY}.path", f"{APPLY}.service", f"{APPLY}.timer", f"{RENEW}.service", f"{RENEW}.timer")

_POLL_SECONDS = 0.02
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
    """One world's ordinary user, whom setup makes; a context manager that ends root's step and removes the user."""

    def __init__(self, world: World) -> None:
        self.world, self.user = world, world.folder.name
        self.home = world.path("/var/lib/certbot")
        self.handover = self.home / "handover"
        self.challenges = world.webroot / ".well-known" / "acme-challenge"
        self.settings = world.path("/etc/certbot-seafile.json")
        self.unit_dir = world.path("/etc/systemd/system")
        self.journal = world.path("/var/log/apply.log")  # root's step's output, as `journalctl` would show it
        self._path_unit: _PathUnit | None = None
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
        self.stop_path_unit()
        subprocess.run([tool("userdel"), self.user], check=False, capture_output=True)

    # Who runs what

    def as_user(self, *command: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run a command as the user, who can gain nothing by it."""
        # libfaketime, where it is asked for, must not begin as root.
        given = [f"{name}={value}" for name, value in {"HOME": str(self.home), **(env or {})}.items()]
        run = self.world.run(*self.become_user, tool("env"), *given, *command, check=False)
        log = self.home / "logs" / "letsencrypt.log"
        run = replace(run, log=log.read_text() if log.is_file() else "")
        if check and run.exit_code != 0:
            raise CommandFailed(run)
        return run

    @property
    def become_user(self) -> list[str]:
        """Return the words before a command that is to run as the user."""
        entry = pwd.getpwnam(self.user)
        return [tool("setpriv"), f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups",
                "--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"]  # fmt: skip

    def certbot(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run plain certbot as the user: what it needs beyond the CA stands in the user's cli.ini."""
        answers = ["--non-interactive", "--agree-tos", "--register-unsafely-without-email",
                   "--no-random-sleep-on-renew", "--server", self.world.acme_url]  # fmt: skip
        run = self.as_user(self._scripts / "certbot", *words, *answers, env=env, check=check)
        if self._path_unit is not None:
            self._path_unit.wait_until_idle()
        return run

    def certonly(self, *words: str | Path, check: bool = True) -> Run:
        """Get the certificate as the page says."""
        return self.certbot("certonly", "-a", "seafile", "-d", road.NAME, *words, check=check)

    def seafile_of_user(self, *words: str | Path, check: bool = True) -> Run:
        """Run the console script as the user, with its certbot's folders."""
        folders = [word for name in ("config", "work", "logs") for word in (f"--{name}-dir", self.home / name)]
        return self.as_user(self._scripts / "certbot-seafile", *folders, *words, check=check)

    def certbot_of_root(self, *words: str | Path, check: bool = True) -> Run:
        """Run certbot as root, with root's own folders."""
        return self.world.run(self._scripts / "certbot", *self.world.certbot_command(*words)[1:], check=check)

    def seafile(self, *words: str | Path, env: Mapping[str, str] | None = None, check: bool = True) -> Run:
        """Run the console script as root."""
        return self.world.run(*self.command(*words), env=env, check=check)

    def command(self, *words: str | Path) -> list[str]:
        """Return the command line with which `seafile` runs it."""
        folders = ["--settings", str(self.settings), *self.world.folders]
        return [str(self._scripts / "certbot-seafile"), *folders, *map(str, words)]

    def setup(self, *words: str | Path, check: bool = True, has_systemd: bool = True, name: str = road.NAME) -> Run:
        """Run `setup` as root, with this world's folders; then root's step runs as systemd would run it."""
        command = self.setup_command(*words, has_systemd=has_systemd, name=name)
        run = self.world.run(*command, check=check)
        if (self.unit_dir / f"{APPLY}.path").exists() and self._path_unit is None:
            self.start_path_unit()
        return run

    def setup_command(self, *words: str | Path, has_systemd: bool = True, name: str = road.NAME) -> list[str]:
        """Return the command line with which `setup` is run."""
        world = self.world
        ports = ["--http-01-port", str(world.http_port), "--https-port", str(world.https_port)]
        folders = ["--seafile-ctl", str(world.nginx_ctl), "--seafile-staple-dir", str(world.staple_dir)]
        to: list[str | Path] = ["--user", self.user, "--home", self.home, "--seafile-webroot", world.webroot,
              "--systemd-dir", self.unit_dir if has_systemd else ""]  # fmt: skip
        return self.command(*ports, *folders, "setup", *to, "-d", name, *words)

    def apply(self, *, check: bool = True) -> Run:
        """Run root's step by hand, and let it wait for no earlier reload."""
        self.forget_reload()
        return self.seafile("apply", check=check)

    def forget_reload(self, name: str = road.NAME) -> None:
        """Let the last reload be so long ago that root's step waits for none."""
        if (self.world.config_dir / "seafile" / "lineages" / f"{name}.json").exists():
            road.change_record(self.world, name, last_reload=None)

    # systemd's part

    def unit(self, name: str) -> configparser.ConfigParser:
        """Return a unit that was written."""
        parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(self.unit_dir / name)
        return parser

    def renew_by_unit(self, check: bool = True) -> Run:
        """Run what the renewal service runs, as its user."""
        service = self.unit(f"{RENEW}.service")["Service"]
        assert service["User"] == self.user
        run = self.as_user(*shlex.split(service["ExecStart"]), check=check)
        if self._path_unit is not None:
            self._path_unit.wait_until_idle()
        return run

    def start_path_unit(self) -> None:
        """Watch what the path unit watches, and run what the service unit runs."""
        watched = self.unit(f"{APPLY}.path")["Path"]["PathChanged"]
        command = shlex.split(self.unit(f"{APPLY}.service")["Service"]["ExecStart"])
        self._path_unit = _PathUnit(Path(watched), command, self.journal)

    def stop_path_unit(self) -> None:
        """Watch no more."""
        if self._path_unit is not None:
            self._path_unit.close()
            self._path_unit = None

    # What is so

    def leaf(self, name: str = road.NAME) -> x509.Certificate:
        """Return the certificate that the user's certbot has now."""
        return x509.load_pem_x509_certificate((self.home / "config" / "live" / name / "cert.pem").read_bytes())

    def is_served(self, name: str = road.NAME) -> bool:
        """Tell whether a TLS client is handed the certificate that the user's certbot has, with a good staple."""
        staple = road.served_staple(self.world, name)
        return (
            self.world.handshake(name).certificate == self.leaf(name)
            and staple is not None
            and staple.certificate_status == ocsp.OCSPCertStatus.GOOD
            and staple.serial_number == self.leaf(name).serial_number
        )

    def writable(self, *paths: Path) -> list[Path]:
        """Return what of these paths, and of the folders above them, the user could write to or replace."""
        uid, open_to_user = pwd.getpwnam(self.user).pw_uid, []
        for each in dict.fromkeys(step for path in paths for step in (path, *path.parents)):
            info = each.lstat()
            is_open = not stat.S_ISLNK(info.st_mode) and info.st_mode & 0o022 and not info.st_mode & stat.S_ISVTX
            if info.st_uid == uid or is_open:
                open_to_user.append(each)
        return open_to_user


def facts(folder: Path, *, without: Sequence[Path] = ()) -> dict[str, tuple[int, int, int, bytes]]:
    """Return mode, owner, group and bytes of all below a folder, but what is `without` or below that, by path."""
    entries = {}
    for path in sorted(folder.rglob("*")):
        if not any(path.is_relative_to(each) for each in without):
            info = path.lstat()
            content = os.fsencode(path.readlink()) if path.is_symlink() else b""
            content = path.read_bytes() if stat.S_ISREG(info.st_mode) else content
            entries[str(path)] = info.st_mode, info.st_uid, info.st_gid, content
    return entries


class _PathUnit:
    """A path unit with PathChanged=: one run of the command for each change, in systemd's clean environment.

    What changes while the command runs is not seen, as systemd does not see it (systemd.path(5)).
    """

    def __init__(self, watched: Path, command: list[str], journal: Path) -> None:
        self._watched, self._command, self._journal = watched, command, journal
        self._is_over, self._is_idle = threading.Event(), threading.Event()
        self._is_idle.set()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        seen = self._state()
        while not self._is_over.wait(_POLL_SECONDS):
            if self._state() != seen:
                self._is_idle.clear()
                with self._journal.open("ab") as journal:
                    subprocess.run(
                        self._command, stdin=subprocess.DEVNULL, stdout=journal, stderr=journal, cwd="/", check=False,
                        env={"PATH": os.defpath, "LANG": "C.UTF-8"}, timeout=120,
                    )  # fmt: skip
                seen = self._state()
                self._is_idle.set()

    def wait_until_idle(self) -> None:
        """Wait until the run that goes on is over: the user sees its certificate before root's step has ended."""
        assert self._is_idle.wait(DEADLINE_SECONDS + 60)

    def _state(self) -> int:
        with contextlib.suppress(OSError):
            return self._watched.stat().st_mtime_ns
        return 0

    def close(self) -> None:
        """Stop watching, and wait for the last run."""
        self._is_over.set()
        self._thread.join(DEADLINE_SECONDS + 60)
        assert not self._thread.is_alive()


def _importable(folder: Path) -> list[str]:
    """Return where everybody can import certbot and this package from: what is out of reach is copied into folder."""
    importable = []
    for number, path in enumerate((Path(certbot_seafile.__file__).parent.parent, Path(sysconfig.get_path("purelib")))):
        if all(each.stat().st_mode & 0o001 for each in (path, *path.parents)):
            importable.append(str(path))
            continue
        target = folder / "python" / str(number)
        source = path if number else path / "certbot_seafile"
        shutil.copytree(source, target if number else target / "certbot_seafile", symlinks=True)
        importable.append(str(target))
    return importable
