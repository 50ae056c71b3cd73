"""Who renews on this machine, where that is not root: what `certbot-seafile setup` decided.

The law: root takes paths, commands and names from this file, which only root can write, and from nothing else.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from certbot_seafile import errors
from certbot_seafile.system import files, lineages
from certbot_seafile.system.lineages import Options

DEFAULT_STATE_DIR = "/var/lib/certbot-seafile"

#: What root writes into nginx's files as a lineage's name; certbot itself would allow any file name.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]*")


@dataclass(frozen=True)
class Owned:
    """A folder, and whose it was before it was handed over."""

    path: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Settings:
    """What root knows of the renewals that another user runs.

    user: who runs certbot, and owns config_dir, work_dir, logs_dir. state_dir: root's own folder, with the journal of
    the site's edits. socket: where root's step is asked (None: a scheduler runs it). lineages: those that root serves.
    options: those of a lineage that is new. made: what `undo` removes: paths, and "the user".
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
            f"the certificate {name!r} cannot be served without root: its name may have letters, digits and . _ : - "
            "only; get a new certificate with --cert-name NAME"
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
        stored = json.loads(files.read(path))
        return Settings(**stored | {
            "lineages": {name: Options(**options) for name, options in stored["lineages"].items()},
            "options": Options(**stored["options"]),
            "handed": tuple(Owned(**owned) for owned in stored["handed"]),
            "made": tuple(stored["made"]),
        })  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise errors.FileRefused(f"{path} is damaged ({error}); run `certbot-seafile setup` again") from error


def write(path: str, chosen: Settings) -> None:
    """Write the settings to the file at path, for root to write and all to read. Raises errors.FileRefused."""
    content = asdict(chosen)
    content["lineages"] = {name: options.chosen() for name, options in sorted(chosen.lineages.items())}
    content["options"] = chosen.options.chosen()
    files.make_folder(os.path.dirname(path))
    files.replace(path, json.dumps(content, indent=2).encode() + b"\n")


def of_user(config_dir: str) -> Settings | None:
    """Return what this user's runs with certbot's folder go by; None: as root's do. Raises errors.FileRefused."""
    if lineages.outbox(config_dir) is None:
        return None
    return read(os.fsdecode(files.read(lineages.handover_path(config_dir))).strip())
