"""nginx as it is installed here: what it reads, whether it would start, and how to make it read again.

The law: this is the one module that runs nginx. nginx is never started by us: a server started here would run outside
the service manager. No shell sees anything but the administrator's own reload command.
"""

from __future__ import annotations

import functools
import glob
import logging
import os
import re
import shlex
import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.site import config
from certbot_seafile.system import files, lineages

logger = logging.getLogger(__name__)

#: What nginx runs with; the door says else where certbot's own environment is not for other programs.
environment: Callable[[], dict[str, str]] = os.environ.copy

SETTLE_SECONDS = 10.0
_RUN_SECONDS = 120
# cron leaves the folders of system programs out of PATH.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_POLL_SECONDS = 0.02

# The character classes of glob(3), as far as they are ranges.
_SETS = {"alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "xdigit": "0-9A-Fa-f"}


@dataclass(frozen=True)
class Nginx:
    """One nginx: the binary, the folder of nginx.conf (None: the binary's own), the reload command (None: its own)."""

    ctl: str = "nginx"
    server_root: str | None = None
    reload_command: str | None = None

    def test(self) -> str:
        """Run `nginx -t`; return its output, warnings included. Raises errors.NginxMissing, errors.NginxRefused."""
        done = self._run("-t")
        if done.returncode:
            raise errors.NginxRefused(
                f"nginx refuses its configuration: {_complaint(done.stderr)}; fix that line, and run again"
            )
        return done.stderr

    def test_alone(self, lines: Iterable[str], folder: str) -> None:
        """Run `nginx -t` of a TLS server that has these lines and nothing else, in a private folder below this one.

        Raises errors.NginxMissing, errors.NginxRefused, errors.FileRefused.
        """
        place = os.path.join(folder, f".trial.{os.getpid()}.certbot-seafile")
        path = os.path.join(place, "nginx.conf")
        server = [f"listen {lineages.quoted(f'unix:{place}/socket')} ssl;", *lines]
        main = [f"pid {lineages.quoted(f'{place}/pid')};", "error_log stderr;", "events {}"]
        text = "\n".join([*main, "http {", "access_log off;", "server {", *server, "}", "}", ""])
        files.make_whole_folder(place, {"nginx.conf": text.encode()})
        try:
            done = _run([self.ctl, "-c", path, "-t"])
            if done.returncode:
                raise errors.NginxRefused(
                    f"nginx refuses the certificate with its key: {_complaint(done.stderr)}; get a new certificate "
                    "with `certbot renew --force-renewal`"
                )
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def reload(self) -> None:
        """Make the running nginx read its configuration again, and wait until nobody answers by the old one.

        The master lets old and new workers accept side by side for a while (ngx_master_process_cycle), so a look just
        after the command may see either. Raises errors.NginxRefused.
        """
        old = self._accepting(int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        command = self.reload_command or shlex.join([self.ctl, "-s", "reload"])
        done = _run(["/bin/sh", "-c", command]) if self.reload_command else self._run("-s", "reload")
        if done.returncode:
            raise errors.NginxRefused(
                f"nginx could not be reloaded by `{command}`: {_complaint(done.stderr or done.stdout)}; "
                "start nginx if it is not running, then run `certbot renew` or `certbot-seafile deploy`"
            )
        deadline = time.monotonic() + SETTLE_SECONDS
        while self._accepting(old) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        logger.info("nginx reloaded by `%s`", command)

    def _accepting(self, processes: Iterable[int]) -> frozenset[int]:
        """Return those of the processes that are workers and accept connections; none where they cannot be seen."""
        try:
            with open(self._pid_path, encoding="ascii") as stream:
                master = int(stream.read())
            return frozenset(process for process in processes if _accepts(process, master))
        except (OSError, ValueError):
            return frozenset()

    @functools.cached_property
    def _pid_path(self) -> str:
        written = _argument((self._disk.last or self.configuration()).main(b"pid"))
        return os.path.join(self._built_in("prefix", "/"), written or self._built_in("pid-path", "logs/nginx.pid"))

    def _built_in(self, option: str, default: str) -> str:
        """Return what nginx was built with."""
        value = re.search(rf"--{option}=(\S+)", self.facts)
        return value[1] if value else default

    @functools.cached_property
    def facts(self) -> str:
        """Return the text of `nginx -V`. Raises errors.NginxMissing."""
        done = _run([self.ctl, "-V"])
        return done.stderr + done.stdout

    @property
    def body_path(self) -> str:
        """Return the folder in which nginx keeps bodies of requests, where no directive says one."""
        return os.path.join(
            self._built_in("prefix", "/"), self._built_in("http-client-body-temp-path", "client_body_temp")
        )

    @property
    def users(self) -> frozenset[str]:
        """Return the users as whom nginx's workers run: what `user` says, else the one that nginx was built with."""
        return frozenset({_argument(self.configuration().main(b"user")) or self._built_in("user", "nobody")})

    @property
    def version(self) -> tuple[int, ...]:
        """Return nginx's version, (1, 22, 1) for 1.22.1; () where it does not say."""
        version = re.search(r"nginx/(\d+(?:\.\d+)*)", self.facts)
        return tuple(map(int, version[1].split("."))) if version else ()

    @property
    def conf_path(self) -> str:
        """Return the path of nginx.conf: the given server root's, else the one nginx was built with."""
        if self.server_root:
            return os.path.join(os.path.abspath(self.server_root), "nginx.conf")
        return self._built_in("conf-path", "/etc/nginx/nginx.conf")

    @property
    def default_protocols(self) -> frozenset[str]:
        """Return ssl_protocols where no directive says them: TLSv1.3 is among them since nginx 1.23.4."""
        newer = {"TLSv1.3"} if self.version >= (1, 23, 4) else set()
        return frozenset({"TLSv1", "TLSv1.1", "TLSv1.2"} | newer)

    def configuration(self) -> config.Configuration:
        """Return the configuration that nginx would read: as it was last read, unless changed() was called since.

        Of files that are unchanged since then, bytes and statements are kept; where nothing changed at all, it is the
        same object. Raises errors.FileRefused, errors.SyntaxRefused where a file includes itself.
        """
        disk = self._disk
        if disk.last is None or disk.may_have_changed:
            now = config.Configuration(disk.file(os.path.abspath(self.conf_path)), disk.targets)
            disk.may_have_changed = False
            if disk.last is None or not disk.last.is_same(now):
                disk.last = now
        return disk.last

    def changed(self) -> None:
        """Hear that a file may have changed: the next configuration() looks at all of them."""
        self._disk.may_have_changed = True

    def foresee(self, configuration: config.Configuration) -> None:
        """Take a configuration that was written just now for the one on disk: what was judged is not read again."""
        self._disk.last, self._disk.may_have_changed = configuration, False

    @functools.cached_property
    def _disk(self) -> _Disk:
        """Return what this object remembers between calls: the files, and the last configuration."""
        return _Disk(os.path.dirname(os.path.abspath(self.conf_path)))

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run([self.ctl, *(["-c", self.conf_path] if self.server_root else []), *arguments])


class Observed(Nginx):
    """nginx as an ordinary user sees it, whose `nginx -t` and `nginx -s reload` fail (ngx_create_pidfile)."""

    def test(self) -> str:
        """Leave the test to root's step."""
        return ""

    def reload(self) -> None:
        """Leave the reload to root's step."""


class _Disk:
    """The files that nginx reads; what is unchanged since it was last asked for is the same object again."""

    def __init__(self, folder: str) -> None:
        self.last: config.Configuration | None = None
        self.may_have_changed = False
        self._folder = folder
        self._real_folder = functools.cache(os.path.realpath)
        self._known: dict[tuple[str | int, ...], config.File] = {}

    def file(self, path: str) -> config.File:
        """Return the file at the path, however large it is. Raises errors.FileRefused."""
        try:
            facts = os.stat(path)
        except OSError:
            return config.File(path, files.read(path))  # which says why not
        key = (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if key not in self._known:
            # Looking up every link of every path would cost as much as reading the files.
            folder, name = os.path.split(path)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(self._real_folder(folder), name)
            file = config.File(path, files.read(path, at_most_bytes=facts.st_size)) if real == path else self.file(real)
            self._known[key] = file
        return self._known[key]

    def targets(self, pattern: bytes) -> tuple[config.File, ...]:
        """Return what an include names, as nginx does: relative to nginx.conf's folder, sorted (ngx_conf_include).

        Raises errors.FileRefused.
        """
        name = os.path.join(self._folder, os.fsdecode(pattern))
        if not re.search(r"[*?\[]", name):
            return (self.file(name),)
        return tuple(self.file(path) for path in sorted(glob.glob(_for_python(name)), key=os.fsencode))


def _for_python(pattern: str) -> str:
    """Return a pattern of glob(3) as Python's glob reads it: negation by "!", classes as ranges, escapes as sets."""
    for name, characters in _SETS.items():
        pattern = pattern.replace(f"[:{name}:]", characters)
    return re.sub(r"\\(.)", lambda escape: glob.escape(escape[1]), pattern.replace("[^", "[!"), flags=re.DOTALL)


def _argument(statement: config.Statement | None) -> str | None:
    return os.fsdecode(statement.arguments[0]) if statement is not None and statement.arguments else None


def _accepts(process: int, master: int) -> bool:
    """Tell whether a process is a worker of the master that has not been told to go (ngx_setproctitle's words)."""
    try:
        with open(f"/proc/{process}/cmdline", "rb") as stream:
            title = stream.read(64)
        with open(f"/proc/{process}/stat", "rb") as stream:
            parent = int(stream.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return parent == master and title.startswith(b"nginx: worker process") and b"shutting down" not in title


def ciphers_allow_ecdsa(ciphers: str) -> bool:
    """Tell whether an OpenSSL cipher string leaves a TLS 1.2 cipher that an ECDSA certificate can be used with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        return True  # nginx reads it with its own OpenSSL; the look after the reload has the last word
    return any(cipher.get("auth") == "auth-ecdsa" for cipher in context.get_ciphers())


def _complaint(output: str) -> str:
    """Return the lines in which nginx says what is wrong, as one line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"\[(emerg|alert|crit|error)\]", line)] or lines
    return " / ".join(wrong) or "it gave no reason"


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    ctl, known = command[0], environment()
    path = os.pathsep.join([known.get("PATH", os.defpath), *_SYSTEM_FOLDERS])
    try:
        return subprocess.run(
            command,
            env=known | {"PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=_RUN_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise errors.NginxMissing(f"no {ctl} is installed here; name nginx with --seafile-ctl") from error
    except OSError as error:
        raise errors.NginxMissing(f"{ctl} cannot be run: {error.strerror}; name nginx with --seafile-ctl") from error
    except subprocess.TimeoutExpired as error:
        raise errors.NginxRefused(
            f"`{shlex.join(command)}` did not end within {_RUN_SECONDS} s; run it by hand to see why"
        ) from error
