"""Root's one-time preparation for certificates from a folder that root does not trust, and its inverse.

The law: each step is told in words before it is done, and is left out where all is so already: so --dry-run shows what
a run does, and a second run does nothing. Nothing that exists is handed over, but challenge folders; what is to be
written where the user can write, the user writes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import pwd
import re
import shlex
import shutil
import socket
import stat
import subprocess
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from certbot_seafile import errors
from certbot_seafile.sealed import settings, units
from certbot_seafile.sealed.settings import Entry, Owned, Settings
from certbot_seafile.site import model
from certbot_seafile.system import challenge, files, lineages, serving, users, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options

_SYSTEM_UNITS = "/etc/systemd/system"
_ROOTS_CLI_INI = "/etc/letsencrypt/cli.ini"  # certbot reads it for every user (certbot.misc.get_default_folder)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLI_INI = ".config/letsencrypt/cli.ini"  # the user's, below its home
# Options that the user's runs need as well; what nginx is told is root's.
_KEYS = (
    "seafile-site", "seafile-server-root", "seafile-ctl", "seafile-webroot", "seafile-staple-dir", "seafile-stapling",
    "seafile-ocsp-url", "http-01-port", "https-port",
)  # fmt: skip
_KEY = re.compile(r"(?:--)?([^:=;#\[\s-][^:=;#\s]*)")  # of a line, as configargparse reads it
# What `nginx -t` writes to beside its logs and pid file, as distributions and nginx.org build it.
_NGINX_FOLDERS = ("/run", "/var/log/nginx", "/var/lib/nginx", "/var/cache/nginx")


@dataclass
class Setup:
    """What setup works with.

    before: the settings that are there (None: nothing is set up yet). command: the words that run this program
    with these settings. unit_dir: where systemd's units go; None without systemd: the lines for cron are told.
    work_dir: that of root's certbot, with its checkpoints.
    """

    settings_path: str
    before: Settings | None
    context_for: Callable[[Options], Context]
    say: Callable[[str], None]
    command: Sequence[str]
    unit_dir: str | None = None
    is_dry_run: bool = False
    work_dir: str = "/var/lib/letsencrypt"

    def __post_init__(self) -> None:
        self._steps = 0
        self._chosen: Settings = self.before or Settings()
        beside = shutil.which("certbot", path=os.path.dirname(self.command[0]))
        self._certbot: list[str] = [beside or shutil.which("certbot") or "certbot"]
        self._apply = [*self.command, "apply"]

    def for_user(self, user: str, home: str, name: str, names: Sequence[str], options: Options) -> int:
        """Let the user renew the certificate called name for these names, and root serve it; return how many steps.

        home: the user's, with certbot's folders. In a dry run, the number is that of the steps that a run would take.
        Raises errors.Error; what was done until then stays, and a second run goes on.
        """
        lineages.check_name(name)
        context = self.context_for(replace(options, is_users_webroot=True))
        self._refuse_user(context, user, home)
        _webroots(context, names)  # which refuses what is not safe before anything is done
        made = [*_missing(home), *self._make_own_folders(context)]
        self._let_answer(context, name, names)
        webroots = _webroots(context, names)
        made += [path for owned in webroots for path in _missing(owned.path)]
        if users.uid_of(user) is None:
            made.append(settings.USER)
            self._step(f"make the system user {user}, whose home is {home}", _add_user, user, home)
        first = {owned.path: owned for owned in (*webroots, *self._chosen.webroots)}  # later they are the user's
        self._chosen = replace(self._chosen, user=user, home=home, webroots=tuple(first.values()))
        entry = Entry(name, tuple(names), os.path.join(home, "handover"), *_ids(user), context.options)
        self._choose(context, entry, made)
        self._give(home, user, 0o700)
        for owned in webroots:
            self._give(owned.path, user, files.FOLDER_MODE)
        self._fill_home(user, home, options)
        self._prepare_apply(context, entry)
        if not self._steps and not self.is_dry_run:
            _try_certbot(self._certbot, user, home)  # which may be where an earlier run ended
        if self._steps:
            self._step(f"try certbot as {user}", _try_certbot, self._certbot, user, home)
            words = [*self._certbot, "certonly", "-a", "seafile", "--cert-name", name]
            words += [word for each in names for word in ("-d", each)]
            self.say(f"If {user} has no certificate {name} yet, get it: sudo -u {user} {shlex.join(words)}")
        return self._steps

    def for_source(self, folder: str, name: str, names: Sequence[str], options: Options) -> int:
        """Let root serve the certificate called name, for these names, from a folder that another machine writes to.

        options.forward: the URL that challenges are passed on to; None: they are answered as before. Returns and raises
        as for_user().
        """
        lineages.check_name(name)
        folder = os.path.abspath(folder)
        if not os.path.isdir(folder):
            raise errors.FileRefused(f"the folder {folder} is not there; mount or make it, then run setup again")
        if options.forward is not None:
            options = replace(options, forward=check_forward(options.forward))
        context = self.context_for(options)
        serving.find_site(context, names)  # which refuses a name without a site
        made = self._make_own_folders(context)
        if options.forward is not None:
            self._let_answer(context, name, names)
        entry = Entry(name, tuple(names), folder, 0, 0, options)
        facts = os.lstat(entry.path if os.path.lexists(entry.path) else folder)
        entry = replace(entry, uid=facts.st_uid, gid=facts.st_gid)
        self._choose(context, entry, made)
        self._prepare_apply(context, entry)
        return self._steps

    def _step(self, text: str, do: Callable[..., object], *arguments: object) -> None:
        self._steps += 1
        self.say(f"{'would ' if self.is_dry_run else ''}{text}")
        if not self.is_dry_run:
            do(*arguments)

    def _refuse_user(self, context: Context, user: str, home: str) -> None:
        uid = users.uid_of(user)
        if self._chosen.user not in (None, user):
            raise errors.RequestRefused(
                f"{self._chosen.user} renews here already; run `certbot-seafile undo` first, then set up {user}"
            )
        if uid == 0:
            raise errors.RequestRefused(f"{user} is root itself; name an ordinary user, for example --user certbot")
        if user in context.nginx.users:
            raise errors.RequestRefused(
                f"nginx's workers run as {user}, who would own the private keys then; name another user"
            )
        if uid is not None and (present := pwd.getpwuid(uid).pw_dir) != home:
            raise errors.RequestRefused(
                f"the home of {user} is {present}, where certbot would not find what setup writes; name a user that "
                f"does not exist yet, or run `usermod --home {home} {user}`"
            )
        _refuse_unsafe(home)
        if os.path.lexists(home) and os.lstat(home).st_uid != uid:
            raise errors.FileRefused(f"{home} is not the folder of {user}; move it away, then run setup again")
        if os.path.exists(_ROOTS_CLI_INI) and not os.stat(_ROOTS_CLI_INI).st_mode & 0o004:
            raise errors.FileRefused(
                f"{_ROOTS_CLI_INI} stops certbot where {user} cannot read it; run `chmod o+r {_ROOTS_CLI_INI}`"
            )

    def _make_own_folders(self, context: Context) -> list[str]:
        """Make what root's step writes to, because its unit can only write to what is there; return what is made."""
        missing: list[str] = []
        for path in (context.options.staple_dir, context.state_dir, self.work_dir):
            if not os.path.isdir(path):
                missing += _missing(path)
                self._step(f"make the folder {path}", files.make_folder, path)
        return missing

    def _let_answer(self, context: Context, name: str, names: Sequence[str]) -> None:
        if planned := challenge.plan_challenge(context, serving.find_site(context, names), only_missing=True):
            text = f"let the site of {name} answer challenges: {writing.count_lines(planned)}"
            self._step(text, challenge.edit_site, context, planned, name)

    def _choose(self, context: Context, entry: Entry, made: Sequence[str]) -> None:
        """Complete the settings, and write them down before what they name is made."""
        self._chosen = replace(self._chosen, entries={**self._chosen.entries, entry.name: entry})
        self._units = self._unit_files(context)
        self._chosen = replace(self._chosen, made=tuple(dict.fromkeys([*self._chosen.made, *made, *self._units])))
        if self._chosen != self.before:
            self._step(f"write {self.settings_path}", settings.write, self.settings_path, self._chosen)

    def _unit_files(self, context: Context) -> dict[str, bytes]:
        """Return what systemd's units are to hold, by path; {} where there is no systemd."""
        if self.unit_dir is None:
            return {}
        configuration = context.nginx.configuration()
        opened = [
            os.path.dirname(os.fsdecode(statement.arguments[0]))
            for statement in configuration.mentioning(b"/")
            if statement.name in (b"access_log", b"error_log", b"pid") and statement.arguments[0].startswith(b"/")
        ]
        sites = [os.path.dirname(server.path) for server in model.http_servers(configuration.outline())]
        staple_dirs = [entry.options.staple_dir for entry in self._chosen.entries.values()]
        own = [context.state_dir, self.work_dir, os.path.dirname(context.nginx.conf_path), *staple_dirs]
        writable = sorted({*_NGINX_FOLDERS, *opened, *sites, *own})
        wanted = units.contents(self._chosen, self._apply, self._certbot, writable)
        return {os.path.join(self.unit_dir, name): content for name, content in wanted.items()}

    def _give(self, path: str, user: str, mode: int) -> None:
        facts = os.lstat(path) if os.path.lexists(path) else None
        if facts is None or (facts.st_uid, stat.S_IMODE(facts.st_mode)) != (_ids(user)[0], mode):
            self._step(f"make {user} the owner of {path}, with mode {mode:o}", _give, path, user, mode)

    def _fill_home(self, user: str, home: str, options: Options) -> None:
        path, folder = os.path.join(home, _CLI_INI), os.path.join(home, "handover")
        own = users.read_as(*_ids(user), path) if os.path.lexists(home) else None
        wanted = _cli_ini(home, options, files.read_if_present(_ROOTS_CLI_INI) or b"", own or b"")
        if wanted != own or not os.path.lexists(folder):
            text = f"let {user} make {folder} and write {path}"
            self._step(text, users.as_user, user, _fill_home, folder, path, wanted)

    def _prepare_apply(self, context: Context, entry: Entry) -> None:
        changed = {path: content for path, content in self._units.items() if files.read_if_present(path) != content}
        for path, content in changed.items():
            self._step(f"write {path}", _write, path, content)
        names = [os.path.basename(path) for path in self._units if not path.endswith(".service")]
        if self.unit_dir == _SYSTEM_UNITS and (changed or not all(map(_is_enabled, names))):
            self._step(f"start {', '.join(names)}", _start_units, names)
        if self._steps and self.unit_dir is None:
            lines = units.cron_lines(self._chosen, self._apply, self._certbot)
            self.say(f"Without systemd, put these lines into /etc/cron.d/certbot-seafile:\n{lines}")
        for name in lineages.all_names(context.config_dir) if self._steps else ():
            with contextlib.suppress(errors.LineageRefused):
                if set(entry.names) & set(lineages.load(context.config_dir, name).names):
                    self.say(
                        f"The certificate {name} in {context.config_dir} is for these names too, and root renews it as "
                        f"before. When {entry.name} is served, `certbot delete --cert-name {name}` ends that."
                    )


def check_forward(url: str) -> str:
    """Return the URL of the machine that answers challenges, as nginx takes it: http, an address, perhaps a port.

    Raises errors.RequestRefused for a name, and for this machine's own address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port
    except ValueError:
        raise errors.RequestRefused(
            f"challenges cannot be passed on to {url!a}: give http:// and an address, for example http://192.0.2.7, "
            "because nginx does not start while it cannot look up a name"
        ) from None
    host = f"[{address}]" if address.version == 6 else str(address)
    wanted = f"http://{host}" + (f":{port}" if port else "")
    if url.rstrip("/") != wanted:
        raise errors.RequestRefused(f"challenges cannot be passed on to {url!a}; give it as {wanted}")
    if address.is_loopback or address.is_unspecified or _is_own(address):
        raise errors.RequestRefused(
            f"{address} is this machine's own address; name the machine that renews with --forward-challenges"
        )
    return wanted


def _is_own(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Tell whether the kernel would reach an address from itself. Nothing is sent.

    A bind tells less: net.ipv4.ip_nonlocal_bind lets every address be bound, as machines with a floating one need it.
    """
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect((str(address), 9))
        return bool(ipaddress.ip_address(probe.getsockname()[0]) == address)
    return False


def take_back(settings_path: str, chosen: Settings, say: Callable[[str], None]) -> None:
    """Undo a setup, when the sites' edits and the versions are out. Raises errors.Error; a second run goes on."""
    remove_units([path for path in chosen.made if path.endswith((".service", ".timer", ".path"))])
    for owned in chosen.webroots:
        if os.path.isdir(owned.path):
            files.set_owner(owned.path, owned.uid, owned.gid)
    user = chosen.user or ""
    if users.uid_of(user) is not None:
        users.as_user(user, _clear, chosen.home)
    for path in reversed(chosen.made):
        files.remove_folder_if_empty(path)
    if user and os.path.lexists(chosen.home):
        say(f"{chosen.home} stays with what {user} has there; when the certificates are not needed, remove both")
    elif settings.USER in chosen.made and users.uid_of(user) is not None:
        run("userdel", user)
    files.remove(settings_path)


def _webroots(context: Context, names: Sequence[str]) -> list[Owned]:
    """Return the challenge folders, and whose they are now. Raises errors.FileRefused where one cannot be given."""
    webroots = []
    for path in challenge.folders(context, serving.find_site(context, names)):
        _refuse_unsafe(path)
        facts = os.lstat(path) if os.path.lexists(path) else None
        webroots.append(Owned(path, facts.st_uid, facts.st_gid) if facts else Owned(path, 0, 0))
    return webroots


def _refuse_unsafe(path: str) -> None:
    """Refuse to give away a link, and a folder that somebody else than root could swap. Raises errors.FileRefused."""
    if os.path.lexists(path) and not stat.S_ISDIR(os.lstat(path).st_mode):
        raise errors.FileRefused(f"{path} is a link, or no folder, and cannot be given to the user; move it away")
    below, parent = path, os.path.realpath(os.path.dirname(path))
    while below != parent:
        if os.path.isdir(parent):
            facts = os.stat(parent)
            is_sticky = facts.st_mode & stat.S_ISVTX and os.path.lexists(below)  # nobody can swap what is there
            if facts.st_uid not in (0, os.geteuid()) or (facts.st_mode & 0o022 and not is_sticky):
                raise errors.FileRefused(
                    f"root alone must be able to write in {parent}, because {path} is to be given to the user; run "
                    f"`chown root {parent}` and `chmod go-w {parent}`, or name another folder"
                )
        below, parent = parent, os.path.dirname(parent)


def _missing(path: str) -> list[str]:
    """Return the folders that have to be made for path, outermost first."""
    missing: list[str] = []
    while not os.path.lexists(path):
        missing.insert(0, path)
        path = os.path.dirname(path)
    return missing


def _ids(user: str) -> tuple[int, int]:
    """Return the user's uid and group; (-1, -1) where there is no such user, as in a dry run."""
    try:
        facts = pwd.getpwnam(user)
    except KeyError:
        return -1, -1
    return facts.pw_uid, facts.pw_gid


def _add_user(user: str, home: str) -> None:
    shell = shutil.which("nologin", path=_PATH) or "/bin/false"
    run("useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell, user)


def _give(path: str, user: str, mode: int) -> None:
    files.make_folder(os.path.dirname(path))
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    files.set_owner(path, *_ids(user), mode)


def _fill_home(folder: str, path: str, content: bytes) -> None:
    files.make_folder(folder, 0o700)
    _write(path, content)


def _write(path: str, content: bytes) -> None:
    files.make_folder(os.path.dirname(path))
    files.replace(path, content)


def _cli_ini(home: str, options: Options, roots: bytes, own: bytes) -> bytes:
    """Return what the user's cli.ini is to hold: what setup decides, all else that it held (own), and root's lines.

    certbot reads root's cli.ini (roots) as well, and takes from it each key that the user's does not set.
    """
    of_root, before = _lines(roots), _lines(own)
    chosen = {f"{name}-dir": os.path.join(home, name) for name in ("config", "work", "logs")}
    chosen["seafile-handover"] = os.path.join(home, "handover")
    for key in _KEYS:
        field = key.removeprefix("seafile-").replace("-01", "").replace("-", "_")
        value, usual = getattr(options, field), getattr(Options(), field)
        if value is not None and (value != usual or key in of_root):
            chosen[key] = str(value)
    lines = {**of_root, "max-log-backups": "max-log-backups = 50", **before}  # logrotate does not know these logs
    lines |= {key: f"{key} = {value}" for key, value in chosen.items()}
    return own if lines == before else os.fsencode("\n".join([*lines.values(), ""]))


def _lines(content: bytes) -> dict[str, str]:
    """Return the lines of a cli.ini by key."""
    lines = (line.strip() for line in os.fsdecode(content).splitlines())
    return {key[1]: line for line in lines if (key := _KEY.match(line))}


def _try_certbot(certbot: Sequence[str], user: str, home: str) -> None:
    """See that certbot runs as the user, with this plugin. Raises errors.FileRefused."""
    uid, gid = _ids(user)
    known = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": _PATH, "LC_ALL": "C.UTF-8"}
    how = {"user": uid, "group": gid, "extra_groups": [], "env": known, "cwd": "/", "start_new_session": True}
    if f"* {lineages.PLUGIN_NAME}\n" not in run(*certbot, "plugins", **how):
        raise errors.FileRefused(
            f"certbot, run by {user}, does not have the seafile plugin; install it where {user} can read it"
        )


def _is_enabled(name: str) -> bool:
    wants = f"{name.rpartition('.')[2]}s.target.wants"  # as the units' [Install] says
    return os.path.lexists(os.path.join(_SYSTEM_UNITS, wants, name))


def _start_units(names: Sequence[str]) -> None:
    for words in (["daemon-reload"], ["enable", *names], ["restart", *names]):
        run("systemctl", *words)


def remove_units(paths: Sequence[str]) -> None:
    """Stop systemd's units, where systemd runs, and remove their files. Raises errors.FileRefused."""
    names = [os.path.basename(path) for path in paths if path.startswith(_SYSTEM_UNITS + "/") and os.path.exists(path)]
    if names:
        run("systemctl", "disable", "--now", *names)
    for path in paths:
        files.remove(path)
    if names:
        run("systemctl", "daemon-reload")


def _clear(home: str) -> None:
    """Remove what setup wrote and what was handed over, and all the rest where there are no certificates.

    rm goes on where the user has made something that cannot be removed, and however deep that is.
    """
    with contextlib.suppress(OSError):
        archive = os.path.join(home, "config/archive")
        has_certificates = os.path.isdir(archive) and os.listdir(archive)
        names = ["handover", _CLI_INI] if has_certificates else os.listdir(home)
        subprocess.run(["rm", "-rf", "--", *names], cwd=home, check=False, capture_output=True)


def run(*words: str, **how: Any) -> str:
    """Run a program and return what it prints. Raises errors.FileRefused, which quotes it."""
    how |= {"capture_output": True, "encoding": "utf-8", "errors": "backslashreplace", "stdin": subprocess.DEVNULL}
    try:
        return str(subprocess.run(words, check=True, timeout=120, **how).stdout)
    except (OSError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or str(error)).strip()
        raise errors.FileRefused(f"`{shlex.join(words)}` failed: {complaint!a}; fix that, then run again") from error
