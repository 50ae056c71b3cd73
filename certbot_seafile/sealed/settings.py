"""Who renews on this machine, where that is not root: what `certbot-seafile setup` decided.

The law: root takes paths, commands and names from this file, which only root can write, and from nothing that the
renewing user can write: not from renewal files, not from the environment.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from certbot_seafile import errors
from certbot_seafile.system import files, lineages
from certbot_seafile.system.lineages import Options

DEFAULT_PATH = "/etc/certbot-seafile.json"
DEFAULT_STATE_DIR = "/var/lib/certbot-seafile"
DEFAULT_SOCKET = "/run/certbot-seafile.sock"

#: Names of lineages that root writes into nginx's files; certbot itself would allow any file name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


@dataclass(frozen=True)
class Owned:
    """A folder that was handed over, and whose it was."""

    path: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Settings:
    """What root knows of the renewals that another user runs.

    user: who runs certbot. config_dir, work_dir, logs_dir: certbot's folders, which are that user's. state_dir: root's
    own folder, with the journal of the site's edits. socket: where the root step is asked (None: a scheduler runs it).
    lineages: those that root serves, by name, with their options. options: those of a lineage that is new.
    made: what `setup` made and `undo` removes: files, and "user" for the user. handed: folders and whose they were.
    """

    user: str
    config_dir: str
    work_dir: str
    logs_dir: str
    state_dir: str = DEFAULT_STATE_DIR
    socket: str | None = None
    lineages: Mapping[str, Options] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    made: tuple[str, ...] = ()
    handed: tuple[Owned, ...] = ()

    @property
    def folders(self) -> tuple[str, ...]:
        """Return certbot's three folders."""
        return self.config_dir, self.work_dir, self.logs_dir


def check_name(name: str) -> None:
    """Refuse a lineage's name that root will not write into nginx's files. Raises errors.LineageRefused."""
    if not _NAME.fullmatch(name):
        raise errors.LineageRefused(
            f"the lineage {name!r} cannot be served without root: its name may have letters, digits and . _ : - only; "
            "get it anew with --cert-name NAME"
        )


def read(path: str) -> Settings | None:
    """Return the settings in the file at path; None where there is no such file.

    Raises errors.FileRefused where it is damaged, or somebody else than root (or whoever asks) could have written it.
    """
    if not os.path.lexists(path):
        return None
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
        raise errors.FileRefused(
            f"{path} is not a file that root alone can write; look at who changed it, then run `certbot-seafile setup`"
        )
    try:
        said = json.loads(files.read(path))
        said["lineages"] = {name: Options(**options) for name, options in said["lineages"].items()}
        said["options"] = Options(**said["options"])
        said["handed"] = tuple(Owned(**one) for one in said["handed"])
        said["made"] = tuple(said["made"])
        return Settings(**said)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.FileRefused(f"{path} is damaged ({error}); run `certbot-seafile setup` again") from error


def write(path: str, chosen: Settings) -> None:
    """Write the settings to the file at path, for root to write and all to read. Raises errors.FileRefused."""
    said = asdict(chosen)
    said["lineages"] = {name: _chosen(options) for name, options in sorted(chosen.lineages.items())}
    said["options"] = _chosen(chosen.options)
    files.make_folder(os.path.dirname(path))
    files.replace(path, json.dumps(said, indent=2).encode() + b"\n")


def of_user(config_dir: str) -> Settings | None:
    """Return the settings that this user's runs with certbot's folder go by; None where they work as root's do.

    Raises errors.FileRefused.
    """
    if lineages.outbox(config_dir) is None:
        return None
    return read(os.fsdecode(files.read(lineages.handover_path(config_dir))).strip())


def _chosen(options: Options) -> dict[str, object]:
    said = {one.name: getattr(options, one.name) for one in fields(Options) if one.name != "outbox"}
    return {name: value for name, value in said.items() if value != getattr(Options(), name)}
