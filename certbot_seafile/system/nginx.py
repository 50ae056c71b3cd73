"""nginx as it is installed here: what it reads, whether it would start, and how to make it read again.

The law: this is the one module that runs nginx. nginx is never started by us: a server started here would run outside
the service manager. No shell sees anything but the administrator's own reload command.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass, field

from certbot_seafile import errors
from certbot_seafile.site import config
from certbot_seafile.system import files, lineages, progress

logger = logging.getLogger(__name__)

#: What nginx runs with; the door says else where certbot's own environment is not for other programs.
environment: Callable[[], dict[str, str]] = os.environ.copy

# Within which a reload must have happened; a busy master takes 15 s and more.
_RELOAD_SECONDS = 60.0
_SAID_AFTER_SECONDS = 5.0
# How long a look after a reload that was seen to happen may find otherwise.
_WAIT_SECONDS = 2.0
# The master lets old workers go 0.1 s after it has started new ones; unseen ones are given so long.
_UNSEEN_SECONDS = 1.0
_RUN_SECONDS = 120
# cron leaves the folders of system programs out of PATH.
_SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_POLL_SECONDS = 0.02

# Looking up every link of every path would cost as much as reading the files.
_real_folder = functools.cache(os.path.realpath)

# The name of a file that is nowhere.
_NO_FILE = "certbot-seafile-asks"

# The character classes of glob(3), as far as they are ranges.
_ONE_CHARACTER = re.compile(r"(?<=[^/])\[([^]!^\\/[])\]")  # at a name's start it would not match a dot
_SETS = {"alnum": "0-9A-Za-z", "alpha": "A-Za-z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "xdigit": "0-9A-Fa-f"}


@dataclass(unsafe_hash=True)
class Nginx:
    """One nginx: the binary, the folder of nginx.conf (None: the binary's own), the reload command (None: its own).

    Of the last reload: wait_seconds: how long nginx may answer by the old configuration after it: long, where no worker
    can be seen. settles_at: from when on a look tells anything (of time.monotonic()).
    """

    ctl: str = "nginx"
    server_root: str | None = None
    reload_command: str | None = None
    wait_seconds: float = field(default=_WAIT_SECONDS, init=False, compare=False)
    settles_at: float = field(default=0.0, init=False, compare=False)
    _last: config.Configuration | None = field(default=None, init=False, compare=False, repr=False)
    _may_have_changed: bool = field(default=False, init=False, compare=False, repr=False)
    _log_start: int | None = field(default=None, init=False, compare=False, repr=False)
    _files: dict[object, config.File] = field(default_factory=dict, init=False, compare=False, repr=False)

    def test(self) -> None:
        """Run `nginx -t`. Raises errors.NginxMissing, errors.NginxRefused, errors.ConfigurationRefused."""
        done = self._run("-t")
        if done.returncode and "[emerg]" not in done.stderr:
            raise errors.NginxRefused(
                f"`{self.ctl} -t` failed before nginx had a say: {_complaint(done.stderr or done.stdout)}; start "
                "nginx's container if it has one, and run again"
            )
        if done.returncode:
            raise errors.ConfigurationRefused(_complaint(done.stderr))

    def test_alone(self, lines: Iterable[str], folder: str) -> None:
        """Run `nginx -t` of a TLS server that has these lines and nothing else, in a private folder below this one.

        nginx itself writes nothing there, because a container may have the folder read-only: a socket whose path is
        taken is no fault in a test (ngx_open_listening_sockets).
        Raises errors.NginxMissing, errors.NginxRefused, errors.FileRefused.
        """
        place = os.path.join(folder, f".trial.{os.getpid()}.certbot-seafile")
        path = os.path.join(place, "nginx.conf")
        server = [f"listen {lineages.quoted(f'unix:{path}')} ssl;", *lines]
        main = ["pid /dev/null;", "error_log stderr;", "events {}"]
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

    def refuse_unseen(self, paths: Iterable[str]) -> None:
        """Refuse files in folders that nginx does not see: it is in a container where those are not mounted.

        So it is with a file that is mounted alone: after a rename, the container goes on reading the old one. Where no
        worker can be seen from here, nginx is asked to read an empty file in each folder.
        Raises errors.SiteRefused, errors.NginxMissing, errors.FileRefused.
        """
        if self._master is not None and not self._is_in_container(self._master):
            return
        folders = {files.existing_folder(os.path.dirname(path)): path for path in paths}
        for folder, path in folders.items():
            probe = os.path.join(folder, f".probe.{os.getpid()}.certbot-seafile")
            files.replace(probe, b"", is_synced=False)
            try:
                done = _run([self.ctl, "-c", probe, "-t"])
            finally:
                files.remove(probe)
            if f'"{probe}" failed (2:' in done.stderr:
                raise errors.SiteRefused(
                    f"nginx runs in a container that does not have the folder {folder} of {path}, so nothing was "
                    f"changed; put `- {folder}:{folder}` under volumes in its compose.yaml (the folder, because a file "
                    "that is mounted alone keeps its old content there), then `docker compose up -d`, and run again"
                )

    @progress.waiting("nginx to reload")
    def reload(self, seconds: float = _RELOAD_SECONDS) -> None:
        """Make the running nginx read its configuration again, and wait until nobody answers by the old one.

        The master lets old and new workers accept side by side for a while (ngx_master_process_cycle), so a look just
        after the command may see either. Raises errors.NginxRefused, also where that has not happened after so many
        seconds, or the error log says that nginx went back to the old one.
        """
        self._log_start = os.path.getsize(self._log_path) if os.path.isfile(self._log_path) else 0
        master = self._master
        old = _accepting(_processes(), master)
        self.wait_seconds = _WAIT_SECONDS if old else seconds
        command = self.reload_command or shlex.join([self.ctl, "-s", "reload"])
        done = _run(["/bin/sh", "-c", command]) if self.reload_command else self._run("-s", "reload")
        if done.returncode:
            raise errors.NginxRefused(
                f"nginx could not be reloaded by `{command}`: {_complaint(done.stderr or done.stdout)}; "
                "start nginx if it is not running, then run `certbot renew` or `certbot-seafile deploy`"
            )
        start, has_said = time.monotonic(), False
        while _accepting(old, master):
            passed = time.monotonic() - start
            if self._has_failed or passed > seconds:
                if _accepting(_processes(), master) - old:  # new ones are there; an old one is stuck in something
                    break
                self.refuse_unloaded(passed)
            if passed > _SAID_AFTER_SECONDS and not has_said:
                has_said = True
                logger.warning("nginx still answers by the old configuration; waiting for up to a minute")
            time.sleep(_POLL_SECONDS)
        self.settles_at = time.monotonic() + (_UNSEEN_SECONDS if master is None else 0.0)
        logger.info("nginx reloaded by `%s`", command)

    def refuse_unloaded(self, passed: float | None = None) -> None:
        """Raise errors.NginxRefused where the error log says that the last reload failed.

        passed: since how many seconds nginx has been seen to answer by the old configuration, so that it failed anyhow.
        """
        complaints = [line for line in self._emergencies if "still could not bind" not in line]
        if self._has_failed or (passed is not None and complaints):
            raise errors.NginxRefused(
                "nginx still answers by the old configuration, because it could not load the new one: "
                f"{_masked(complaints[-1] if complaints else '')}; fix that, and run this again"
            )
        if passed is not None:
            raise errors.NginxRefused(
                f"nginx still answers by the old configuration, {passed:.0f} s after it was told to reload; see its "
                "error log, and run this again"
            )

    @property
    def _has_failed(self) -> bool:
        """Tell whether the last reload failed for good; to bind to a port, nginx tries five times, and then says so."""
        lines = self._emergencies
        return bool(lines) and "bind() to" not in lines[-1]

    @property
    def _emergencies(self) -> list[str]:
        """Return why nginx could not go on since the last reload, as its error log says, where that is a file here."""
        if self._log_start is None or not os.path.isfile(self._log_path):
            return []
        with open(self._log_path, encoding="utf-8", errors="replace") as stream:
            stream.seek(self._log_start)
            return [line.strip() for line in stream if "[emerg]" in line]

    @property
    def is_stopped(self) -> bool:
        """Tell whether no nginx runs, neither here nor in a container. An empty pid file was made by `nginx -t`."""
        try:
            written = (files.read_if_present(self._pid_path) or b"").strip()
            return not (written and os.path.exists(f"/proc/{int(written)}")) and self._master is None
        except (errors.FileRefused, ValueError):
            return False

    @property
    def _master(self) -> int | None:
        """Return the process id of the running nginx; None where it cannot be seen.

        In a container it has a pid file and process ids of its own.
        """
        with contextlib.suppress(errors.FileRefused, ValueError):
            if _is_master(process := int(files.read(self._pid_path))):
                return process
        return next(filter(self._is_in_container, _processes()), None)

    @property
    def has_our_ports(self) -> bool | None:
        """Tell whether nginx listens on this machine's ports, not on those of a container; None where none is seen."""
        with contextlib.suppress(OSError):
            return os.path.samefile(f"/proc/{self._master}/ns/net", "/proc/self/ns/net")
        return None

    def _is_in_container(self, process: int) -> bool:
        """Tell whether a process is an nginx with another root than ours, into which one of our files is mounted."""
        root = f"/proc/{process}/root"
        try:
            if not _is_master(process) or os.path.samefile(root, "/"):
                return False
            paths = (self._last or self.configuration()).files
            return any(os.path.exists(root + path) and os.path.samefile(root + path, path) for path in paths)
        except OSError:  # it has ended meanwhile, or is not ours to see
            return False

    @functools.cached_property
    def _pid_path(self) -> str:
        return self.place(self._main(b"pid") or self._built_in("pid-path", "logs/nginx.pid"))

    @functools.cached_property
    def _log_path(self) -> str:
        return self.place(self._main(b"error_log") or self._built_in("error-log-path", "logs/error.log"))

    def _main(self, name: bytes) -> str | None:
        """Return what the last statement of this name at the main level says."""
        statement = (self._last or self.configuration()).main(name)
        return os.fsdecode(statement.arguments[0]) if statement is not None and statement.arguments else None

    def place(self, path: str) -> str:
        """Return a path as nginx takes it: relative ones start at its prefix (ngx_conf_full_name)."""
        return path if os.path.isabs(path) else os.path.join(self.prefix, path)

    @functools.cached_property
    def prefix(self) -> str:
        """Return the folder from which relative paths start: what the binary, or a script around it, has said with -p.

        nginx names a file that it does not find by its whole path (ngx_process_options).
        """
        told = re.search(rf'"(/.*)/{_NO_FILE}"', _run([self.ctl, "-t", "-c", _NO_FILE]).stderr)
        return told[1] if told else self._built_in("prefix", "/usr/local/nginx")

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
        return self.place(self._built_in("http-client-body-temp-path", "client_body_temp"))

    @property
    def user(self) -> str:
        """Return the user as whom nginx's workers run: what `user` says, else the one that nginx was built with."""
        return self._main(b"user") or self._built_in("user", "nobody")

    @property
    def version(self) -> tuple[int, ...]:
        """Return nginx's version, (1, 22, 1) for 1.22.1; () where it does not say."""
        version = re.search(r"(?:nginx|openresty)/(\d+(?:\.\d+)*)", self.facts)
        return tuple(map(int, version[1].split("."))) if version else ()

    @functools.cached_property
    def conf_path(self) -> str:
        """Return the path of nginx.conf: the given server root's, else the one nginx was built with."""
        if self.server_root:
            root = os.path.abspath(self.server_root)
            usual = os.path.join(root, "nginx.conf")
            if os.path.exists(usual):
                return usual
            name = os.path.basename(self._built_in("conf-path", "nginx.conf"))  # angie.conf, of a fork
            return os.path.join(root, name)
        return os.path.abspath(self.place(self._built_in("conf-path", "conf/nginx.conf")))

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
        if self._last is None or self._may_have_changed:
            now = config.Configuration(self._file(self.conf_path), self._targets)
            self._may_have_changed = False
            if self._last is None or not self._last.is_same(now):
                self._last = now
        return self._last

    def changed(self) -> None:
        """Hear that a file may have changed: the next configuration() looks at all of them."""
        self._may_have_changed = True

    def foresee(self, configuration: config.Configuration) -> None:
        """Take a configuration that was written just now for the one on disk: what was judged is not read again."""
        self._last, self._may_have_changed = configuration, False

    def _file(self, path: str) -> config.File:
        """Return the file at the path, however large it is. Raises errors.FileRefused."""
        try:
            facts = os.stat(path)
        except OSError:
            return config.File(path, files.read(path))  # which says why not
        key = (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        if key not in self._files:
            folder, name = os.path.split(path)
            real = os.path.realpath(path) if os.path.islink(path) else os.path.join(_real_folder(folder), name)
            if real == path:
                self._files[key] = config.File(path, files.read(path, at_most_bytes=facts.st_size))
            else:
                self._files[key] = self._file(real)
        return self._files[key]

    def _targets(self, pattern: bytes) -> tuple[config.File, ...]:
        """Return what an include names, as nginx does: relative to nginx.conf's folder, sorted (ngx_conf_include).

        Raises errors.FileRefused.
        """
        name = os.path.join(os.path.dirname(self.conf_path), os.fsdecode(pattern))
        if not re.search(r"[*?\[]", name):
            return (self._file(name),)
        plain = _ONE_CHARACTER.sub(r"\1", name)
        if not re.search(r"[*?\[\\]", plain):  # such as NAME[.]conf: its folder, which has one a lineage, is not read
            return (self._file(plain),) if os.path.lexists(plain) else ()
        return tuple(self._file(path) for path in sorted(glob.glob(_for_python(name)), key=os.fsencode))

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return _run([self.ctl, *(["-c", self.conf_path] if self.server_root else []), *arguments])


class Observed(Nginx):
    """nginx as an ordinary user sees it, whose `nginx -t` and `nginx -s reload` fail (ngx_create_pidfile)."""

    def test(self) -> None:
        """Leave the test to root's step."""

    def refuse_unseen(self, paths: Iterable[str]) -> None:
        """Leave that to root's step."""

    def reload(self, seconds: float = 0.0) -> None:
        """Leave the reload to root's step."""


def _for_python(pattern: str) -> str:
    """Return a pattern of glob(3) as Python's glob reads it: negation by "!", classes as ranges, escapes as sets."""
    for name, characters in _SETS.items():
        pattern = pattern.replace(f"[:{name}:]", characters)
    return re.sub(r"\\(.)", lambda escape: glob.escape(escape[1]), pattern.replace("[^", "[!"), flags=re.DOTALL)


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _is_master(process: int) -> bool:
    """Tell whether a process is root's or this user's, and calls itself nginx's master."""
    try:
        is_trusted = os.stat(f"/proc/{process}").st_uid in (0, os.geteuid())
        return is_trusted and _title(process).startswith(b"nginx: master process")
    except OSError:
        return False


def _accepting(processes: Iterable[int], master: int | None) -> frozenset[int]:
    """Return those of the processes that are workers and accept connections; none where they cannot be seen."""
    return frozenset(process for process in processes if master is not None and _accepts(process, master))


def _accepts(process: int, master: int) -> bool:
    """Tell whether a process is a worker of the master that has not been told to go (ngx_setproctitle's words)."""
    try:
        title = _title(process)
        with open(f"/proc/{process}/stat", "rb") as stream:
            parent = int(stream.read().rpartition(b")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return False
    return parent == master and re.match(rb"\w+: worker process", title) is not None and b"shutting down" not in title


def _title(process: int) -> bytes:
    with open(f"/proc/{process}/cmdline", "rb") as stream:
        return stream.read(64)


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
    return _masked(" / ".join(wrong)) or "it gave no reason"


def _masked(complaint: str) -> str:
    """Return what nginx says without the user and the password of a URL that it quotes: it goes into logs."""
    return re.sub(r"[^\s\"'/@]+@(?=[\w.\[])", "...@", complaint)


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
