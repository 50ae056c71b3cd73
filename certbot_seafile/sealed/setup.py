"""Root's one-time preparation for certificates from a folder that root does not trust, and its inverse.

The law: each step is told in words before it is done, and is left out where all is so already: so --dry-run shows what
a run does, and a second run does nothing. Nothing that exists is handed over, but challenge folders; what is to be
written where the user can write, the user writes.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shlex
import shutil
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
from certbot_seafile.system import challenge, files, handshake, lineages, serving, users, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options

_SYSTEM_UNITS = "/etc/systemd/system"
_ROOTS_CLI_INI = "/etc/letsencrypt/cli.ini"  # certbot reads it for every user (certbot.misc.get_default_folder)
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CLI_INI = ".config/letsencrypt/cli.ini"  # the user's, below its home
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
        self._certbot = [beside or shutil.which("certbot") or "certbot"]
        self._apply = [*self.command, "apply"]

    def for_user(self, user: str, home: str, name: str, names: Sequence[str], options: Options) -> int:
        """Let the user renew the certificate called name for these names, and root serve it; return how many steps.

        home: the user's, with certbot's folders. options: with is_users_webroot. In a dry run, the number is that of
        the steps that a run would take. Raises errors.Error; what was done until then stays, and a second run goes on.
        """
        lineages.check_name(name)
        context, home = self.context_for(options), os.path.abspath(home)
        self._refuse_user(context, user, home)
        _webroots(context, names)  # which refuses what is not safe before anything is done
        made = [*files.missing_folders(home), *self._prepare_site(context, name, names)]
        webroots = _webroots(context, names)
        made += [path for owned in webroots for path in files.missing_folders(owned.path)]
        if users.find(user) is None:
            made.append(settings.USER)
            shell = shutil.which("nologin", path=_PATH) or "/bin/false"
            words = "useradd", "--system", "--user-group", "--no-create-home", "--home-dir", home, "--shell", shell
            self._step(f"make the system user {user}, whose home is {home}", run, *words, user)
        account = users.find(user)
        ids = (account.pw_uid, account.pw_gid) if account else (-1, -1)  # in a dry run
        first = {owned.path: owned for owned in (*webroots, *self._chosen.webroots)}  # later they are the user's
        self._chosen = replace(self._chosen, user=user, home=home, webroots=tuple(first.values()))
        entry = Entry(name, tuple(names), os.path.join(home, "handover"), *ids, options)
        self._choose(context, entry, made)
        for path, mode in ((home, 0o700), *((owned.path, files.FOLDER_MODE) for owned in webroots)):
            facts = _facts(path)
            if facts is None or (facts.st_uid, stat.S_IMODE(facts.st_mode)) != (entry.uid, mode):
                self._step(f"make {user} the owner of {path}, with mode {mode:o}", _give, path, entry, mode)
        self._fill_home(user, home, entry)
        self._prepare_apply(context, entry)
        if self._steps:
            self._step(f"try certbot as {user}", _try_certbot, self._certbot, user, home, *ids)
            asking = [*self._certbot, "certonly", "-a", "seafile", "--cert-name", name, "-d", ",".join(names)]
            self.say(f"If {user} has no certificate {name} yet, get it: sudo -u {user} {shlex.join(asking)}")
        elif not self.is_dry_run:
            _try_certbot(self._certbot, user, home, *ids)  # which may be where an earlier run ended
        return self._steps

    def for_source(self, folder: str, name: str, names: Sequence[str], options: Options) -> int:
        """Let root serve the certificate called name, for these names, from a folder that another machine writes to.

        options.forward: the URL that challenges are passed on to; None: they are answered as before. Returns and raises
        as for_user().
        """
        lineages.check_name(name)
        if not os.path.isdir(folder):
            raise errors.FileRefused(f"the folder {folder} is not there; mount or make it, then run setup again")
        if options.forward is not None:
            options = replace(options, forward=check_forward(options.forward))
        context = self.context_for(options)
        made = self._prepare_site(context, name, names)
        path = os.path.join(folder, f"{name}.pem")
        facts = os.lstat(path if os.path.lexists(path) else folder)
        entry = Entry(name, tuple(names), folder, facts.st_uid, facts.st_gid, options)
        self._choose(context, entry, made)
        self._prepare_apply(context, entry)
        return self._steps

    def _step(self, text: str, do: Callable[..., object], *arguments: object) -> None:
        self._steps += 1
        self.say(f"{'would ' if self.is_dry_run else ''}{text}")
        if not self.is_dry_run:
            do(*arguments)

    def _refuse_user(self, context: Context, user: str, home: str) -> None:
        account = users.find(user)
        if self._chosen.user not in (None, user):
            raise errors.Error(
                f"{self._chosen.user} renews here already; run `certbot-seafile undo` first, then set up {user}"
            )
        if account is not None and account.pw_uid == 0:
            raise errors.Error(f"{user} is root itself; name an ordinary user, for example --user certbot")
        if user == context.nginx.user:
            raise errors.Error(f"nginx's workers run as {user}, who would own the private keys then; name another user")
        if account is not None and account.pw_dir != home:
            raise errors.Error(
                f"the home of {user} is {account.pw_dir}, where certbot would not find what setup writes; name a user "
                f"that does not exist yet, or run `usermod --home {home} {user}`"
            )
        _refuse_unsafe(home)
        if (present := _facts(home)) is not None and present.st_uid != (account and account.pw_uid):
            raise errors.FileRefused(f"{home} is not the folder of {user}; move it away, then run setup again")
        if os.path.exists(_ROOTS_CLI_INI) and not os.stat(_ROOTS_CLI_INI).st_mode & 0o004:
            raise errors.FileRefused(
                f"{_ROOTS_CLI_INI} stops certbot where {user} cannot read it; run `chmod o+r {_ROOTS_CLI_INI}`"
            )

    def _prepare_site(self, context: Context, name: str, names: Sequence[str]) -> list[str]:
        """Make what root's step writes to, because its unit can only write to what is there; return what is made.

        Challenges of this machine's own user, or of another, are answered from now on. Raises errors.Error.
        """
        site, options = serving.find_site(context, names), context.options
        missing: list[str] = []
        for path in (options.staple_dir, context.state_dir, self.work_dir):
            if not os.path.isdir(path):
                missing += files.missing_folders(path)
                self._step(f"make the folder {path}", files.make_folder, path)
        is_answering = options.is_users_webroot or options.forward is not None
        if is_answering and (planned := challenge.plan_challenge(context, site, only_missing=True)):
            text = f"let the site of {name} answer challenges: {writing.count_lines(planned)}"
            self._step(text, challenge.edit_site, context, planned, name)
        return missing

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

    def _fill_home(self, user: str, home: str, entry: Entry) -> None:
        path = os.path.join(home, _CLI_INI)
        own = users.read_as(entry.uid, entry.gid, path) if os.path.lexists(home) else None
        wanted = _cli_ini(home, entry.options, files.read_if_present(_ROOTS_CLI_INI) or b"", own or b"")
        if wanted != own or not os.path.lexists(entry.folder):
            text = f"let {user} make {entry.folder} and write {path}"
            self._step(text, users.as_user, user, _fill_home, entry.folder, path, wanted)

    def _prepare_apply(self, context: Context, entry: Entry) -> None:
        changed = {path: content for path, content in self._units.items() if files.read_if_present(path) != content}
        for path, content in changed.items():
            self._step(f"write {path}", files.put, path, content)
        names = [os.path.basename(path) for path in self._units if not path.endswith(".service")]
        wants = [f"{_SYSTEM_UNITS}/{name.rpartition('.')[2]}s.target.wants/{name}" for name in names]
        if self.unit_dir == _SYSTEM_UNITS and (changed or not all(map(os.path.lexists, wants))):
            self._step(f"start {', '.join(names)}", _start_units, names)
        if self._steps and self.unit_dir is None:
            lines = units.cron_lines(self._chosen, self._apply, self._certbot)
            self.say(f"Without systemd, put these lines into /etc/cron.d/certbot-seafile:\n{lines}")
        for other in lineages.sharing(context.config_dir, entry.names) if self._steps else ():
            self.say(
                f"The certificate {other.name} in {context.config_dir} is for these names too, and root renews it as "
                f"before. When {entry.name} is served, `certbot delete --cert-name {other.name}` ends that."
            )


def check_forward(url: str) -> str:
    """Return the URL of the machine that answers challenges, as nginx takes it: http, an address, perhaps a port.

    Raises errors.Error for a name, and for this machine's own address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        address, port = ipaddress.ip_address(parts.hostname or ""), parts.port
    except ValueError:
        raise errors.Error(
            f"challenges cannot be passed on to {url!a}: give http:// and an address, for example http://192.0.2.7, "
            "because nginx does not start while it cannot look up a name"
        ) from None
    host = f"[{address}]" if address.version == 6 else str(address)
    wanted = f"http://{host}" + (f":{port}" if port else "")
    if url.rstrip("/") != wanted:
        raise errors.Error(f"challenges cannot be passed on to {url!a}; give it as {wanted}")
    if address.is_loopback or address.is_unspecified or handshake.is_here(str(address)):
        raise errors.Error(
            f"{address} is this machine's own address; name the machine that renews with --forward-challenges"
        )
    return wanted


def take_back(settings_path: str, chosen: Settings, say: Callable[[str], None]) -> None:
    """Undo a setup, when the sites' edits and the versions are out. Raises errors.Error; a second run goes on."""
    remove_units(chosen.made)
    for owned in chosen.webroots:
        if os.path.isdir(owned.path):
            files.set_owner(owned.path, owned.uid, owned.gid)
    user = chosen.user or ""
    if is_there := users.find(user) is not None:
        users.as_user(user, _clear, chosen.home)
    for path in reversed(chosen.made):
        files.remove_folder_if_empty(path)
    if user and os.path.lexists(chosen.home):
        say(f"{chosen.home} stays with what {user} has there; when the certificates are not needed, remove both")
    elif is_there and settings.USER in chosen.made:
        run("userdel", user)
    files.remove(settings_path)


def _webroots(context: Context, names: Sequence[str]) -> list[Owned]:
    """Return the challenge folders, and whose they are now. Raises errors.FileRefused where one cannot be given."""
    webroots = []
    for path in challenge.folders(context, serving.find_site(context, names)):
        _refuse_unsafe(path)
        facts = _facts(path)
        webroots.append(Owned(path, facts.st_uid, facts.st_gid) if facts else Owned(path, 0, 0))
    return webroots


def _refuse_unsafe(path: str) -> None:
    """Refuse to give away a link, and a folder that somebody else than root could swap. Raises errors.FileRefused."""
    if (present := _facts(path)) is not None and not stat.S_ISDIR(present.st_mode):
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


def _facts(path: str) -> os.stat_result | None:
    return os.lstat(path) if os.path.lexists(path) else None


def _give(path: str, entry: Entry, mode: int) -> None:
    files.make_folder(path)
    files.set_owner(path, entry.uid, entry.gid, mode)


def _fill_home(folder: str, path: str, content: bytes) -> None:
    files.make_folder(folder, 0o700)
    files.put(path, content)


def _cli_ini(home: str, options: Options, roots: bytes, own: bytes) -> bytes:
    """Return what the user's cli.ini is to hold: what setup decides, all else that it held (own), and root's lines.

    certbot reads root's cli.ini (roots) as well, and takes from it each key that the user's does not set.
    """
    of_root, before = _lines(roots), _lines(own)
    chosen = {f"{name}-dir": os.path.join(home, name) for name in ("config", "work", "logs")}
    chosen["seafile-handover"] = os.path.join(home, "handover")
    for name, key in lineages.KEYS.items():
        key = key.replace("01", "-01").replace("_", "-")
        value, usual = getattr(options, name), getattr(Options(), name)
        # The user's runs need the options as well, but for what nginx is told, which is root's.
        if name != "reload_cmd" and value is not None and (value != usual or key in of_root):
            chosen[key] = str(value)
    lines = {**of_root, "max-log-backups": "max-log-backups = 50", **before}  # logrotate does not know these logs
    lines |= {key: f"{key} = {value}" for key, value in chosen.items()}
    return own if lines == before else os.fsencode("\n".join([*lines.values(), ""]))


def _lines(content: bytes) -> dict[str, str]:
    """Return the lines of a cli.ini by key."""
    lines = (line.strip() for line in os.fsdecode(content).splitlines())
    return {key[1]: line for line in lines if (key := _KEY.match(line))}


def _try_certbot(certbot: Sequence[str], user: str, home: str, uid: int, gid: int) -> None:
    """See that certbot runs as the user, with this plugin. Raises errors.FileRefused."""
    environment = {"HOME": home, "USER": user, "LOGNAME": user, "PATH": _PATH, "LC_ALL": "C.UTF-8"}
    how = {"user": uid, "group": gid, "extra_groups": [], "cwd": "/", "start_new_session": True}
    if f"* {lineages.PLUGIN_NAME}\n" not in run(*certbot, "plugins", timeout_seconds=30, env=environment, **how):
        raise errors.FileRefused(
            f"certbot, run by {user}, does not have the seafile plugin; install it where {user} can read it"
        )


def _start_units(names: Sequence[str]) -> None:
    for words in (["daemon-reload"], ["enable", *names], ["restart", *names]):
        run("systemctl", *words)


def remove_units(made: Sequence[str]) -> None:
    """Stop systemd's units among the paths, where systemd runs, and remove them. Raises errors.FileRefused."""
    paths = [path for path in made if path.endswith((".service", ".timer", ".path", ".socket"))]
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


def run(*words: str, timeout_seconds: float = 120, **how: Any) -> str:
    """Run a program and return what it prints. Raises errors.FileRefused, which quotes it."""
    how |= {"capture_output": True, "encoding": "utf-8", "errors": "backslashreplace", "stdin": subprocess.DEVNULL}
    try:
        return str(subprocess.run(words, check=True, timeout=timeout_seconds, **how).stdout)
    except (OSError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or str(error)).strip()
        raise errors.FileRefused(f"`{shlex.join(words)}` failed: {complaint!a}; fix that, then run again") from error
