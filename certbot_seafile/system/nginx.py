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
import ssl
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.site import model, syntax
from certbot_seafile.system import files

logger = logging.getLogger(__name__)

DEFAULT_SERVER_ROOT = "/etc/nginx"
SETTLE_SECONDS = 10.0
_RUN_SECONDS = 120
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_POLL_SECONDS = 0.02

# A superset of nginx's include directives, found without parsing: enough to see which files a file may reach.
_MAY_INCLUDE = re.compile(rb"""(?:^|[;{}\s])["']?include["']?\s+([^;]+);""")


@dataclass(frozen=True)
class Nginx:
    """One nginx: the binary, the folder of nginx.conf (None: the binary's own), the reload command (None: its own)."""

    ctl: str = "nginx"
    server_root: str | None = None
    reload_command: str | None = None

    @property
    def reads_later(self) -> bool:
        """Tell whether reload() returns before nginx has read anything; see asking.Asked."""
        return False

    def test(self) -> str:
        """Run `nginx -t`; return what it said (warnings included). Raises errors.NginxMissing, errors.NginxRefused."""
        done = self._run("-t")
        if done.returncode:
            raise errors.NginxRefused(
                f"nginx refuses its configuration: {complaint(done.stderr)}; mend that line, and run again"
            )
        return done.stderr

    def reload(self) -> None:
        """Make the running nginx read its configuration again, and wait until nobody answers by the old one.

        The master lets old and new workers accept side by side for a while (ngx_master_process_cycle), so a look just
        after the command may see either. Raises errors.NginxRefused.
        """
        old = self.workers()
        if self.reload_command:
            command = self.reload_command
            done = _run(["/bin/sh", "-c", command])
        else:
            command = shlex.join([self.ctl, "-s", "reload"])
            done = self._run("-s", "reload")
        if done.returncode:
            said = complaint(done.stderr or done.stdout)
            raise errors.NginxRefused(
                f"nginx could not be reloaded by `{command}`: {said}; "
                "start nginx if it is not running, then run `certbot renew` or `certbot-seafile deploy`"
            )
        deadline = time.monotonic() + SETTLE_SECONDS
        while old & self.workers() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        logger.info("nginx reloaded by `%s`", command)

    def workers(self) -> frozenset[int]:
        """Return the process numbers of the workers that accept connections; none where they cannot be seen."""
        try:
            with open(self._pid_path, encoding="ascii") as stream:
                master = int(stream.read())
            return frozenset(int(entry) for entry in os.listdir("/proc") if entry.isdigit() and _accepts(entry, master))
        except (OSError, ValueError):
            return frozenset()

    @functools.cached_property
    def _pid_path(self) -> str:
        said = [one for one in self.statements(lambda source: b"pid" in source) if one.name == b"pid" and one.arguments]
        built_in = re.search(r"--pid-path=(\S+)", self.facts)
        written = os.fsdecode(said[-1].arguments[0]) if said else built_in.group(1) if built_in else "logs/nginx.pid"
        prefix = re.search(r"--prefix=(\S+)", self.facts)
        return os.path.join(prefix.group(1) if prefix else "/", written)

    @functools.cached_property
    def facts(self) -> str:
        """Return the text of `nginx -V`. Raises errors.NginxMissing."""
        done = _run([self.ctl, "-V"])
        return done.stderr + done.stdout

    @property
    def users(self) -> frozenset[str]:
        """Return the users as whom nginx's workers run: what `user` says, else the one that nginx was built with."""
        said = [one for one in self.statements(lambda source: b"user" in source) if one.name == b"user"]
        built_in = re.search(r"--user=(\S+)", self.facts)
        named = {os.fsdecode(one.arguments[0]) for one in said if one.arguments}
        return frozenset(named or {built_in.group(1) if built_in else "nobody"})

    @property
    def version(self) -> tuple[int, ...]:
        """Return nginx's version, (1, 22, 1) for 1.22.1; () where it does not say."""
        found = re.search(r"nginx/(\d+(?:\.\d+)*)", self.facts)
        return tuple(int(part) for part in found.group(1).split(".")) if found else ()

    @property
    def conf_path(self) -> str:
        """Return the path of nginx.conf: the given server root's, else the one nginx was built with."""
        if self.server_root:
            return os.path.join(os.path.abspath(self.server_root), "nginx.conf")
        found = re.search(r"--conf-path=(\S+)", self.facts)
        return found.group(1) if found else os.path.join(DEFAULT_SERVER_ROOT, "nginx.conf")

    @property
    def default_protocols(self) -> frozenset[str]:
        """Return ssl_protocols where no directive says them: TLSv1.3 is among them since nginx 1.23.4."""
        older = {"TLSv1", "TLSv1.1", "TLSv1.2"}
        return frozenset(older | {"TLSv1.3"} if self.version >= (1, 23, 4) else older)

    def statements(self, matters: Callable[[bytes], bool] | None = None) -> tuple[model.Statement, ...]:
        """Read nginx.conf and all that it includes, in nginx's order; includes stand replaced by what they name.

        matters: with it, a file that has server blocks is parsed only where its bytes, or those of a file it may reach,
        make it true.
        Raises errors.SyntaxRefused, errors.FileRefused.
        """
        return Reader(os.path.dirname(os.path.realpath(self.conf_path)), matters).read(self.conf_path)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        chosen = ["-c", self.conf_path] if self.server_root else []
        return _run([self.ctl, *chosen, *arguments])


class Reader:
    """Follow includes as nginx does: relative to nginx.conf's folder, patterns sorted (ngx_conf_include)."""

    def __init__(self, folder: str, matters: Callable[[bytes], bool] | None) -> None:
        self.folder, self._matters = folder, matters
        self._sources: dict[str, bytes] = {}
        self._trees: dict[str, syntax.Tree] = {}
        self._reach: dict[str, bool] = {}

    def read(self, path: str) -> tuple[model.Statement, ...]:
        """Return the file's statements, includes expanded. Raises errors.SyntaxRefused, errors.FileRefused."""
        return self._expand_file(os.path.realpath(path), ())

    def _expand_file(self, path: str, above: tuple[str, ...], is_server: bool = False) -> tuple[model.Statement, ...]:
        if path in above:
            raise errors.SyntaxRefused("it includes itself", 1, 1, path)
        if path not in self._trees:
            try:
                self._trees[path] = syntax.parse(self._source(path))
            except errors.SyntaxRefused as refused:
                raise errors.SyntaxRefused(refused.reason, refused.line, refused.column, path) from refused
        tree = self._trees[path]
        return self._expand(tree.directives, path, tree.source, (*above, path), is_server)

    def _expand(
        self,
        directives: Sequence[syntax.Directive],
        path: str,
        source: bytes,
        above: tuple[str, ...],
        is_server: bool = False,
    ) -> tuple[model.Statement, ...]:
        statements: list[model.Statement] = []
        for directive in directives:
            children: tuple[model.Statement, ...] | None = None
            if directive.block is not None:
                children = self._expand(directive.block, path, source, above, is_server or directive.name == b"server")
            elif directive.name == b"include" and len(directive.arguments) == 1:
                children = ()
                for target in self._targets(directive.arguments[0]):
                    if is_server or self._is_wanted(target):
                        children += self._expand_file(target, above, is_server)
            statements.append(model.Statement(path, source, directive, children))
        return tuple(statements)

    def _targets(self, pattern: bytes) -> list[str]:
        name = os.path.join(self.folder, os.fsdecode(pattern))
        if not re.search(r"[*?\[]", name):
            return [os.path.realpath(name)]
        return [os.path.realpath(found) for found in sorted(glob.glob(name), key=os.fsencode)]

    def _source(self, path: str) -> bytes:
        if path not in self._sources:
            self._sources[path] = files.read(path)
        return self._sources[path]

    def _is_wanted(self, path: str) -> bool:
        # A file without a server block is small, and may hold what every server inherits.
        return self._reaches(path, ()) or not model.MAY_HOLD_SERVER.search(self._source(path))

    def _reaches(self, path: str, above: tuple[str, ...]) -> bool:
        if self._matters is None or path in above:
            return self._matters is None
        if path not in self._reach:
            source = self._source(path)
            self._reach[path] = self._matters(source) or any(
                self._reaches(target, (*above, path))
                for written in _MAY_INCLUDE.findall(source)
                for target in self._may_target(written)
            )
        return self._reach[path]

    def _may_target(self, written: bytes) -> list[str]:
        return [target for target in self._targets(written.strip(b" \t\r\n\"'")) if os.path.isfile(target)]


def _accepts(process: str, master: int) -> bool:
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


def complaint(said: str) -> str:
    """Return the lines in which nginx says what is wrong, as one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    wrong = [line for line in lines if re.search(r"\[(emerg|alert|crit|error)\]", line)] or lines
    return " / ".join(wrong) or "it gave no reason"


def _environment() -> dict[str, str]:
    """Return the environment with the folders of system programs on its PATH: cron leaves them out."""
    return os.environ | {"PATH": os.pathsep.join([os.environ.get("PATH", os.defpath), *_SYSTEM_FOLDERS])}


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="backslashreplace",
            timeout=_RUN_SECONDS,
            check=False,
        )
    except FileNotFoundError as error:
        raise errors.NginxMissing(f"no {command[0]} is installed here; name nginx with --seafile-ctl") from error
    except OSError as error:
        raise errors.NginxMissing(
            f"{command[0]} cannot be run: {error.strerror}; name nginx with --seafile-ctl"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise errors.NginxRefused(
            f"`{shlex.join(command)}` did not end within {_RUN_SECONDS} s; run it by hand to see why"
        ) from error
