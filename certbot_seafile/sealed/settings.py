"""What root goes by where certificates come from a folder that root does not trust: `certbot-seafile setup` decided it.

The law: root takes names, paths and options from this file, which only root can write, and from nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from certbot_seafile import errors
from certbot_seafile.system import files, lineages
from certbot_seafile.system.lineages import Options

VERSION = 2
USER = "the user"  # in Settings.made, beside paths


@dataclass(frozen=True)
class Owned:
    """A folder, and whose it was before setup gave it to the user."""

    path: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Entry:
    """A certificate that root is handed.

    name: of its handover file NAME.pem. names: those that its leaf must cover. folder: where the file is. uid, gid: who
    must own the file, and reads it for root. options: where and how it is to be served.
    """

    name: str
    names: tuple[str, ...]
    folder: str
    uid: int
    gid: int
    options: Options

    @property
    def path(self) -> str:
        """Return the path of the handover file."""
        return os.path.join(self.folder, f"{self.name}.pem")


@dataclass(frozen=True)
class Settings:
    """What root goes by on this machine.

    entries: certificates, by name. user: who renews here (None: another machine does), in the folder `home` with
    certbot's own folders. webroots: the challenge folders that the user was given. made: what undo removes: paths, and
    USER.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    user: str | None = None
    home: str = "/var/lib/certbot"
    webroots: tuple[Owned, ...] = ()
    made: tuple[str, ...] = ()


@dataclass(frozen=True)
class FormerSettings:
    """What the last version's setup decided: certbot's folders, and root's own (state_dir)."""

    user: str
    config_dir: str
    work_dir: str
    logs_dir: str
    state_dir: str
    lineages: Mapping[str, Options]
    made: tuple[str, ...]


def read(path: str) -> Settings | None:
    """Return the settings in the file at path; None where there is no such file.

    Raises errors.FileRefused where it is damaged, of the last version, or where somebody else than root (or whoever
    asks) could have written it.
    """
    with _boundary(path):
        stored = _read(path)
        if stored is None:
            return None
        if "state_dir" in stored:
            raise errors.FileRefused(
                f"{path} is of an earlier version of certbot-seafile; run `certbot-seafile setup --user "
                f"{stored.get('user')} -d NAME` again, which brings this machine over"
            )
        if stored.pop("version") != VERSION:
            raise ValueError("its version is unknown")
        entries = {}
        for name, facts in stored.pop("entries").items():
            lineages.check_name(name)
            facts |= {"names": tuple(facts["names"]), "options": Options(**facts["options"])}
            entries[name] = Entry(name, **facts)
        webroots = tuple(Owned(**owned) for owned in stored.pop("webroots"))
        return Settings(entries, webroots=webroots, made=tuple(stored.pop("made")), **stored)


def read_former(path: str) -> FormerSettings | None:
    """Return the last version's settings in the file at path, or beside it where a machine was not brought over whole.

    None where there are none. Raises errors.FileRefused.
    """
    with _boundary(path):
        stored = _read(path)
        if stored is None or "state_dir" not in stored:
            stored = _read(kept_path(path))
        if stored is None:
            return None
        for saved in stored["lineages"].values():
            saved.pop("outbox", None)  # which is an option no more
        options = {name: Options(**saved) for name, saved in stored["lineages"].items()}
        facts = {key: stored[key] for key in ("user", "config_dir", "work_dir", "logs_dir", "state_dir")}
        return FormerSettings(lineages=options, made=tuple(stored["made"]), **facts)


def kept_path(path: str) -> str:
    """Return where the last version's settings are kept until the machine is brought over."""
    return f"{path}.former"


@contextlib.contextmanager
def _boundary(path: str) -> Iterator[None]:
    """Turn what a damaged file leads to into errors.FileRefused."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, errors.LineageRefused) as error:
        raise errors.FileRefused(
            f"{path} is damaged ({error}); move it away, then run `certbot-seafile setup` again"
        ) from error


def _read(path: str) -> dict[str, Any] | None:
    if not os.path.lexists(path):
        return None
    facts = os.lstat(path)
    if not stat.S_ISREG(facts.st_mode) or facts.st_uid not in (0, os.geteuid()) or facts.st_mode & 0o022:
        raise errors.FileRefused(
            f"{path} is not a file that root alone can write; look at who changed it, then run `certbot-seafile setup`"
        )
    return dict(json.loads(files.read(path)))


def write(path: str, settings: Settings) -> None:
    """Write the settings to the file at path, for root to write and all to read. Raises errors.FileRefused."""
    content = {"version": VERSION, **asdict(settings)}
    for name, entry in content["entries"].items():
        del entry["name"]
        entry["options"] = settings.entries[name].options.chosen()
    files.put(path, json.dumps(content, indent=2).encode() + b"\n")
