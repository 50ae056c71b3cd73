"""Renewals handed over to an ordinary user, and taken back: `certbot-seafile setup` and its undo.

The law: each step is said in words before it is done, and is left out where all is so already: so --dry-run shows what
a run does, and a second run does nothing. Root trusts nothing again that it has handed over, and writes nothing there:
what is to be written there, the user writes.
"""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import subprocess
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.sealed import settings, settling, units
from certbot_seafile.system import challenge, files, journal, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy

logger = logging.getLogger(__name__)

_USER = "the user"  # in Settings.made, beside paths
_SYSTEM_UNITS = "/etc/systemd/system"


@dataclass
class Handover:
    """A handover to a user, or its update.

    before: the settings that are there (None: nothing was handed over yet). chosen: what is wanted; lineages and
    folders are added to it. is_trusted: whether certbot's folders are root's still, and so are the options in renewal
    files. unit_dir: where systemd's units go (None: nowhere), in which `command` runs this program.
    """

    settings_path: str
    before: settings.Settings | None
    chosen: settings.Settings
    is_trusted: bool
    context_for: Callable[[Options], Context]
    say: Callable[[str], None]
    command: Sequence[str]
    unit_dir: str | None = None
    is_dry_run: bool = False

    def run(self, names: Sequence[str], domains: Sequence[str]) -> int:
        """Hand over, and return how many steps that took, or would take in a dry run.

        names: lineages that root is to serve. domains: names that are to have a certificate: their sites are made to
        answer challenges. Raises errors.Error; what was done until then stays, and a second run goes on.
        """
        self._steps = 0
        self._refuse_user()
        served = [self._load(name) for name in names]
        self._choose(served, domains)
        self._make_user()
        if self.before is None:  # undo goes by it, so it is kept where the user cannot write
            old, new = lineages.state_dir(self.chosen.config_dir), self.chosen.state_dir
            self._step(f"keep the record of the sites' edits in {new}", journal.move, old, new)
        self._edit_sites(served, domains)
        if self.before != self.chosen:
            self._step(f"write {self.settings_path}", settings.write, self.settings_path, self.chosen)
        self._own_staples(served)
        self._give_folders()
        self._leave_for_user(served)
        self._write_units()
        return self._steps

    def _step(self, text: str, do: Callable[..., object], *arguments: object) -> None:
        self._steps += 1
        self.say(f"{'would ' if self.is_dry_run else ''}{text}")
        if not self.is_dry_run:
            do(*arguments)

    def _refuse_user(self) -> None:
        user = self.chosen.user
        if self.before is not None and self.before.user != user:
            raise errors.LineageRefused(
                f"{self.before.user} renews here already; run `certbot-seafile undo` first, then set up {user}"
            )
        if _uid(user) == 0:
            raise errors.LineageRefused(f"{user} is root itself; name an ordinary user, for example --user certbot")
        if user in self.context_for(self.chosen.options).nginx.users:
            raise errors.LineageRefused(
                f"nginx's workers run as {user}, who would own the private keys then; name another user"
            )

    def _load(self, name: str) -> Lineage:
        """Return a lineage; where another user can write its renewal file, with root's options instead."""
        settings.check_name(name)
        lineage = lineages.load(self.chosen.config_dir, name) if self.is_trusted else settling.load(self.chosen, name)
        if lineage.is_must_staple:
            raise errors.LineageRefused(
                f"{name} is a must-staple certificate, whose site is edited at renewals, which only root may do; "
                "leave its renewals to root, or get a new certificate without --must-staple"
            )
        return lineage

    def _choose(self, served: Sequence[Lineage], domains: Sequence[str]) -> None:
        """Complete the settings: the lineages, whose the folders were, what is made; refuse folders that are links."""
        chosen = self.chosen
        made = [*chosen.made, *([_USER] if _uid(chosen.user) is None else []), *self._unit_files()]
        folders = [*chosen.folders, *self._challenge_folders(served, domains)]
        handed = {owned.path: owned for owned in chosen.handed}
        for path in dict.fromkeys([*handed, *folders]):
            facts = os.stat(path) if os.path.isdir(path) else None
            handed.setdefault(path, settings.Owned(path, facts.st_uid if facts else 0, facts.st_gid if facts else 0))
            if os.path.islink(path):
                raise errors.LineageRefused(
                    f"{path} is a link, which cannot be handed over; move the folder itself there, or make an "
                    "empty one and `mount --bind` the other over it, then run setup again"
                )
        by_name = {**chosen.lineages, **{lineage.name: lineage.options for lineage in served}}
        self.chosen = replace(chosen, lineages=by_name, made=tuple(dict.fromkeys(made)), handed=tuple(handed.values()))

    def _challenge_folders(self, served: Sequence[Lineage], domains: Sequence[str]) -> Iterator[str]:
        sites = [(lineage.options, lineage.names) for lineage in served]
        for options, names in sites + [(self.chosen.options, (domain,)) for domain in domains]:
            context = self.context_for(options)
            yield from challenge.folders(context, serving.find_site(context, names))

    def _make_user(self) -> None:
        if _uid(user := self.chosen.user) is None:
            shell = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin") or "/bin/false"
            words = ["--system", "--user-group", "--no-create-home", "--home-dir", self.chosen.work_dir]
            self._step(f"make the system user {user}", _run, "useradd", *words, "--shell", shell, user)

    def _edit_sites(self, served: Sequence[Lineage], domains: Sequence[str]) -> None:
        for lineage in served:
            context = self.context_for(lineage.options)
            site = serving.find_site(context, lineage.names)
            if planned := deploy.plan_for(context, lineage, site):
                text = f"edit the site of {lineage.name}: {writing.count_lines(planned)}"
                self._step(text, deploy.put_into_site, context, lineage, site)
        for domain in domains:
            context = self.context_for(self.chosen.options)
            if planned := challenge.plan_challenge(context, serving.find_site(context, [domain]), only_missing=True):
                text = f"let the site of {domain} answer challenges: {writing.count_lines(planned)}"
                self._step(text, challenge.edit_site, context, planned, domain)

    def _own_staples(self, served: Sequence[Lineage]) -> None:
        """Make the folders of staples, and what is stored there root's, where somebody else kept it until now."""
        for staple_dir in sorted({lineage.options.staple_dir for lineage in served} | {self.chosen.options.staple_dir}):
            if not os.path.isdir(staple_dir):  # the unit of root's step can write only to what is there when it starts
                self._step(f"make the folder {staple_dir}", files.make_folder, staple_dir)
        for lineage in served:
            folder = os.path.dirname(lineage.response_path)
            if os.path.isdir(folder) and (owner := os.stat(folder).st_uid) != os.geteuid():
                self._step(f"make {folder} root's", files.give, folder, owner, os.geteuid(), os.getegid())

    def _give_folders(self) -> None:
        user = self.chosen.user
        for owned in self.chosen.handed:
            whole = owned.path in self.chosen.folders
            if not os.path.isdir(owned.path) or files.has_owned(owned.path, 0, whole=whole):
                text = f"make {user} the owner of {owned.path}" + (" and all that is in it" if whole else "")
                self._step(text, _give, owned.path, user, whole)

    def _leave_for_user(self, served: Sequence[Lineage]) -> None:
        """Let the user write the mark and copies of the staples: root's step withdraws what the user has not left."""
        user, box = self.chosen.user, lineages.outbox_path(self.chosen.config_dir)
        mark = lineages.handover_path(self.chosen.config_dir)
        if not os.path.exists(mark):
            content = os.fsencode(self.settings_path) + b"\n"
            self._step(f"let {user} leave staples in {box}", as_user, user, _write, mark, content)
        for lineage in served:
            path = lineages.Paths(lineage.name, lineage.config_dir, Options(outbox=box)).response_path
            if not os.path.lexists(path) and os.path.exists(lineage.response_path):
                text = f"hand {user} a copy of {lineage.response_path}"
                self._step(text, as_user, user, _write, path, files.read(lineage.response_path))

    def _write_units(self) -> None:
        wanted = self._unit_files()
        missing = {path: content for path, content in wanted.items() if files.read_if_present(path) != content}
        for path, content in missing.items():
            self._step(f"write {path}", _write, path, content)
        if missing and self.unit_dir == _SYSTEM_UNITS:
            self._step(f"start {units.SOCKET}", _start_units)

    def _unit_files(self) -> dict[str, bytes]:
        """Return what systemd's units are to hold, by path; {} where there is no systemd."""
        if self.unit_dir is None:
            return {}
        folder = self.unit_dir
        folders = [folder] if folder != _SYSTEM_UNITS else [folder, "/usr/lib/systemd/system", "/lib/systemd/system"]
        services = [
            name for name in units.CERTBOT_SERVICES if any(os.path.exists(os.path.join(at, name)) for at in folders)
        ]
        wanted = units.contents(self.chosen, self.settings_path, services, self.command)
        return {os.path.join(folder, name): content for name, content in wanted.items()}


def take_back(settings_path: str, chosen: settings.Settings, say: Callable[[str], None]) -> None:
    """Take a handover back, when the sites' edits have been taken out. Raises errors.Error; a second run goes on."""
    _remove_units([path for path in chosen.made if path != _USER])
    if (uid := _uid(chosen.user)) is not None:
        as_user(chosen.user, _clear, chosen.config_dir)
        for owned in chosen.handed:
            if os.path.isdir(owned.path):
                files.give(owned.path, uid, owned.uid, owned.gid, whole=owned.path in chosen.folders)
    for name in (*(f"{name}.leaf" for name in chosen.lineages), ".lock", ".reload"):
        files.remove(os.path.join(chosen.state_dir, name))
    files.remove_folder_if_empty(chosen.state_dir)
    if _USER in chosen.made and uid is not None:
        _run("userdel", chosen.user)
    files.remove(settings_path)
    say(
        f"Taken back from {chosen.user}: certbot's folders, {settings_path} and systemd's units. Before root runs "
        f"certbot again, look at the hooks in {chosen.config_dir}/renewal: {chosen.user} could write them"
    )


def become(user: str) -> None:
    """Be the user from now on, for good. Raises errors.FileRefused where there is no such user."""
    try:
        facts = pwd.getpwnam(user)
    except KeyError:
        raise errors.FileRefused(
            f"the user {user}, who renews here, does not exist; run `certbot-seafile setup --user {user}`"
        ) from None
    os.initgroups(user, facts.pw_gid)
    os.setgid(facts.pw_gid)
    os.setuid(facts.pw_uid)


def as_user(user: str, do: Callable[..., object], *arguments: object) -> None:
    """Do something as the user, in a process of its own. Raises errors.FileRefused where it fails."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            become(user)
            do(*arguments)
            code = 0
        except errors.CertbotError as error:
            logger.error("%s", error)
            code = 1
        finally:  # the child of a fork must not go on as its parent
            if code == 2:
                traceback.print_exc()
            os._exit(code)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise errors.FileRefused(f"{user} could not write its own files; see above, then run again")


def _uid(user: str) -> int | None:
    return next((entry.pw_uid for entry in pwd.getpwall() if entry.pw_name == user), None)


def _give(path: str, user: str, whole: bool) -> None:
    facts = pwd.getpwnam(user)
    files.make_folder(path)
    files.give(path, 0, facts.pw_uid, facts.pw_gid, whole=whole)


def _write(path: str, content: bytes) -> None:
    files.make_folder(os.path.dirname(path))
    files.replace(path, content)


def _clear(config_dir: str) -> None:
    shutil.rmtree(lineages.outbox_path(config_dir), ignore_errors=True)
    for name in ("without-root", ".lock", ".reload"):
        files.remove(os.path.join(lineages.state_dir(config_dir), name))
    files.remove_folder_if_empty(lineages.state_dir(config_dir))


def _start_units() -> None:
    _run("systemctl", "daemon-reload")
    _run("systemctl", "enable", "--now", units.SOCKET)


def _remove_units(paths: Sequence[str]) -> None:
    is_systems = any(path.startswith(_SYSTEM_UNITS + "/") for path in paths)
    if is_systems and os.path.exists(os.path.join(_SYSTEM_UNITS, units.SOCKET)):
        _run("systemctl", "disable", "--now", units.SOCKET)
    for path in paths:
        files.remove(path)
        if os.path.dirname(path).endswith(".service.d"):
            files.remove_folder_if_empty(os.path.dirname(path))
    if is_systems:
        _run("systemctl", "daemon-reload")


def _run(*words: str) -> None:
    """Run a program of the system's own. Raises errors.FileRefused, which quotes it."""
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        complaint = (getattr(error, "stderr", None) or str(error)).strip()
        raise errors.FileRefused(f"`{' '.join(words)}` failed: {complaint}; fix that, then run again") from error
