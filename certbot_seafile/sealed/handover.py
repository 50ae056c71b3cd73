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
from certbot_seafile.sealed.settings import Owned, Settings
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

    settings_path: where the settings are. before: those that are there (None: nothing was handed over yet). chosen:
    what is wanted; lineages and folders are added to it. is_trusted: whether certbot's folders are root's still, and so
    are the options in renewal files. context_for: what root works with for a lineage's options.
    unit_dir: where systemd's units go (None: without them). command: the words that run this program, for the units.
    """

    settings_path: str
    before: Settings | None
    chosen: Settings
    is_trusted: bool
    context_for: Callable[[Options], Context]
    say: Callable[[str], None]
    command: Sequence[str]
    unit_dir: str | None = None
    is_dry_run: bool = False

    def run(self, names: Sequence[str], domains: Sequence[str]) -> int:
        """Hand over, and return how many steps that took, or would take in a dry run.

        names: lineages that root is to serve from now on, beside those it does. domains: names that are to have a
        certificate: their sites are made to answer challenges. Raises errors.Error; what was done until then stays,
        and a second run goes on.
        """
        self._steps = 0
        self._refuse_user()
        found = [self._load(name) for name in names]
        self._choose(found, domains)
        self._refuse_links()
        self._make_user()
        self._keep_journal()
        self._edit_sites(found, domains)
        if self.before != self.chosen:
            self._step(f"write {self.settings_path}", settings.write, self.settings_path, self.chosen)
        self._own_staples(found)
        self._give_folders()
        self._mark()
        self._leave_staples(found)
        self._write_units()
        return self._steps

    def _step(self, text: str, do: Callable[..., object], *arguments: object) -> None:
        self._steps += 1
        self.say(f"{'would ' if self.is_dry_run else ''}{text}")
        if not self.is_dry_run:
            do(*arguments)

    # --- what is wanted

    def _refuse_user(self) -> None:
        """Refuse users that would undo the point of it."""
        user = self.chosen.user
        if self.before is not None and self.before.user != user:
            raise errors.LineageRefused(
                f"{self.before.user} renews here already; run `certbot-seafile undo` first, then set up {user}"
            )
        if _is_known(user) and pwd.getpwnam(user).pw_uid == 0:
            raise errors.LineageRefused(f"{user} is root itself; name an ordinary user, for example --user certbot")
        if user in self.context_for(self.chosen.options).nginx.users:
            raise errors.LineageRefused(
                f"nginx's workers run as {user}, who would own the private keys then; name another user"
            )

    def _load(self, name: str) -> Lineage:
        """Return a lineage; where another user can write its renewal file, with root's options instead."""
        settings.check_name(name)
        found = lineages.load(self.chosen.config_dir, name) if self.is_trusted else settling.load(self.chosen, name)
        if found.is_must_staple:
            raise errors.LineageRefused(
                f"{name} is a must-staple certificate, whose site is edited at renewals, which only root may do; "
                "leave its renewals to root, or get it anew without --must-staple"
            )
        return found

    def _choose(self, found: Sequence[Lineage], domains: Sequence[str]) -> None:
        """Complete the settings: the lineages, whose the folders were, and what is made."""
        lineages = {**self.chosen.lineages, **{one.name: one.options for one in found}}
        made = list(self.chosen.made)
        if not _is_known(self.chosen.user):
            made.append(_USER)
        made += [path for path in self._unit_files() if path not in made]
        self.chosen = replace(self.chosen, lineages=lineages, made=tuple(made))
        known = {one.path for one in self.chosen.handed}
        folders = [*self.chosen.folders, *self._challenge_folders(found, domains)]
        handed = [_owned(path) for path in dict.fromkeys(folders) if path not in known]
        self.chosen = replace(self.chosen, handed=(*self.chosen.handed, *handed))

    def _challenge_folders(self, found: Sequence[Lineage], domains: Sequence[str]) -> Iterator[str]:
        asked = [(one.options, one.names) for one in found] + [(self.chosen.options, (one,)) for one in domains]
        for options, names in asked:
            context = self.context_for(options)
            yield from challenge.folders(context, serving.find_site(context, names))

    def _refuse_links(self) -> None:
        """Refuse folders that are links: what is handed over is the folder, and root follows no link there later."""
        for one in self.chosen.handed:
            if os.path.islink(one.path):
                raise errors.LineageRefused(
                    f"{one.path} is a link, which cannot be handed over; move the folder itself there, or make an "
                    "empty one and `mount --bind` the other over it, then run setup again"
                )

    # --- the steps, in their order

    def _make_user(self) -> None:
        user = self.chosen.user
        if _is_known(user):
            return
        shell = shutil.which("nologin", path="/usr/sbin:/sbin:/usr/bin") or "/bin/false"
        words = ["--system", "--user-group", "--no-create-home", "--home-dir", self.chosen.work_dir, "--shell", shell]
        self._step(f"make the system user {user}", _run, ["useradd", *words, user])

    def _keep_journal(self) -> None:
        """Keep the record of the sites' edits where the user cannot write: undo goes by it."""
        old, new = lineages.state_dir(self.chosen.config_dir), self.chosen.state_dir
        if self.before is None:
            self._step(f"keep the record of the sites' edits in {new}", journal.move, old, new)

    def _edit_sites(self, found: Sequence[Lineage], domains: Sequence[str]) -> None:
        """Make the lasting edits, all that the user will not be able to make."""
        for one in found:
            context = self.context_for(one.options)
            site = serving.find_site(context, one.names)
            if planned := deploy.plan_for(context, one, site):
                text = f"edit the site of {one.name}: {writing.count_lines(planned)}"
                self._step(text, deploy.put_into_site, context, one, site)
        for domain in domains:
            context = self.context_for(self.chosen.options)
            if planned := challenge.plan_challenge(context, serving.find_site(context, [domain]), only_missing=True):
                text = f"let the site of {domain} answer challenges: {writing.count_lines(planned)}"
                self._step(text, challenge.edit_site, context, planned, domain)

    def _own_staples(self, found: Sequence[Lineage]) -> None:
        """Make the folders of staples, and what is stored there root's, where somebody else kept it until now.

        The unit of root's step can write to folders only that are there when it starts.
        """
        for staple_dir in sorted({one.options.staple_dir for one in found} | {self.chosen.options.staple_dir}):
            if not os.path.isdir(staple_dir):
                self._step(f"make the folder {staple_dir}", files.make_folder, staple_dir)
        for one in found:
            folder = os.path.dirname(one.response_path)
            if os.path.isdir(folder) and (owner := os.stat(folder).st_uid) != os.geteuid():
                self._step(f"make {folder} root's", files.give, folder, owner, os.geteuid(), os.getegid())

    def _give_folders(self) -> None:
        user = self.chosen.user
        for one in self.chosen.handed:
            whole = one.path in self.chosen.folders
            if not os.path.isdir(one.path) or files.has_owned(one.path, 0, whole=whole):
                text = f"make {user} the owner of {one.path}" + (" and all that is in it" if whole else "")
                self._step(text, _give, one.path, user, whole)

    def _mark(self) -> None:
        """Let the user's runs know: the mark lies in certbot's folder, so the user puts it there."""
        path = lineages.handover_path(self.chosen.config_dir)
        if not os.path.exists(path):
            text = f"let {self.chosen.user} leave staples in {lineages.outbox_path(self.chosen.config_dir)}"
            self._step(text, self._as_user, path, os.fsencode(self.settings_path) + b"\n")

    def _leave_staples(self, found: Sequence[Lineage]) -> None:
        """Put what is stored now where the user would have left it; root's step withdraws what is not there."""
        box = Options(outbox=lineages.outbox_path(self.chosen.config_dir))
        for one in found:
            path = lineages.response_path(box, one.name)
            if not os.path.lexists(path) and os.path.exists(one.response_path):
                text = f"hand {self.chosen.user} a copy of {one.response_path}"
                self._step(text, self._as_user, path, files.read(one.response_path))

    def _as_user(self, path: str, content: bytes) -> None:
        def write() -> None:
            files.make_folder(os.path.dirname(path))
            files.replace(path, content)

        as_user(self.chosen.user, write)

    def _write_units(self) -> None:
        wanted = self._unit_files()
        missing = {path: content for path, content in wanted.items() if files.read_if_present(path) != content}
        for path, content in missing.items():
            self._step(f"write {path}", _write, path, content)
        if missing and self.unit_dir == _SYSTEM_UNITS:
            self._step(f"start {units.SOCKET}", start_units)

    def _unit_files(self) -> dict[str, bytes]:
        """Return what systemd's units are to hold, by path; {} where there is no systemd."""
        if self.unit_dir is None:
            return {}
        folder = self.unit_dir
        services = [name for name in units.CERTBOT_SERVICES if _has_unit(folder, name)]
        wanted = units.contents(self.chosen, self.settings_path, services, self.command)
        return {os.path.join(folder, name): content for name, content in wanted.items()}


def take_back(settings_path: str, chosen: Settings, say: Callable[[str], None]) -> None:
    """Take a handover back: units, mark, folders, root's own folder, the settings, and the user that was made.

    The sites' edits are to be taken out before. Raises errors.Error; a second run goes on.
    """
    _remove_units([path for path in chosen.made if path != _USER])
    if _is_known(chosen.user):
        as_user(chosen.user, lambda: _clear(chosen.config_dir))
        uid = pwd.getpwnam(chosen.user).pw_uid
        for one in chosen.handed:
            if os.path.isdir(one.path):
                files.give(one.path, uid, one.uid, one.gid, whole=one.path in chosen.folders)
    for name in chosen.lineages:
        files.remove(os.path.join(chosen.state_dir, f"{name}.leaf"))
    files.remove(os.path.join(chosen.state_dir, ".lock"))
    files.remove(os.path.join(chosen.state_dir, ".reload"))
    files.remove_folder_if_empty(chosen.state_dir)
    if _USER in chosen.made and _is_known(chosen.user):
        _run(["userdel", chosen.user])
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


def as_user(user: str, do: Callable[[], object]) -> None:
    """Do something as the user, in a process of its own. Raises errors.FileRefused where it fails."""
    child = os.fork()
    if child == 0:
        code = 2
        try:
            become(user)
            do()
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


# --- single things ---------------------------------------------------------------------------------------------------


def _is_known(user: str) -> bool:
    return any(one.pw_name == user for one in pwd.getpwall())


def _owned(path: str) -> Owned:
    if not os.path.isdir(path):
        return Owned(path, 0, 0)
    facts = os.stat(path)
    return Owned(path, facts.st_uid, facts.st_gid)


def _give(path: str, user: str, whole: bool) -> None:
    facts = pwd.getpwnam(user)
    files.make_folder(path)
    files.give(path, 0, facts.pw_uid, facts.pw_gid, whole=whole)


def _write(path: str, content: bytes) -> None:
    files.make_folder(os.path.dirname(path))
    files.replace(path, content)


def _clear(config_dir: str) -> None:
    """Remove the mark and the responses that were left, as the user."""
    shutil.rmtree(lineages.outbox_path(config_dir), ignore_errors=True)
    for name in ("without-root", ".lock", ".reload"):
        files.remove(os.path.join(lineages.state_dir(config_dir), name))
    files.remove_folder_if_empty(lineages.state_dir(config_dir))


def _has_unit(folder: str, name: str) -> bool:
    places = [folder] if folder != _SYSTEM_UNITS else [folder, "/usr/lib/systemd/system", "/lib/systemd/system"]
    return any(os.path.exists(os.path.join(place, name)) for place in places)


def start_units() -> None:
    """Let systemd read its units again, and start the socket. Raises errors.FileRefused."""
    _run(["systemctl", "daemon-reload"])
    _run(["systemctl", "enable", "--now", units.SOCKET])


def _remove_units(paths: Sequence[str]) -> None:
    is_systems = any(path.startswith(_SYSTEM_UNITS + "/") for path in paths)
    if is_systems and os.path.exists(os.path.join(_SYSTEM_UNITS, units.SOCKET)):
        _run(["systemctl", "disable", "--now", units.SOCKET])
    for path in paths:
        files.remove(path)
        if os.path.dirname(path).endswith(".service.d"):
            files.remove_folder_if_empty(os.path.dirname(path))
    if is_systems:
        _run(["systemctl", "daemon-reload"])


def _run(words: Sequence[str]) -> None:
    """Run one of the system's own tools. Raises errors.FileRefused, with what it said."""
    try:
        subprocess.run(words, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise errors.FileRefused(f"`{' '.join(words)}` failed: {said}; mend that, then run again") from error
