"""A machine on which version 0.0 had made an ordinary user the owner of certbot's own folders, brought over.

The law: what nginx reads is sealed before a folder moves, and each folder moves whole, by one rename to where the user
has its own: nothing in it is followed, judged or given back file by file. Root's folders are new and empty then.
"""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace

from certbot_seafile import errors
from certbot_seafile.sealed import handover, settings, setup
from certbot_seafile.sealed.settings import FormerSettings
from certbot_seafile.system import files, lineages, users

_FOLDERS = {"config": "config_dir", "work": "work_dir", "logs": "logs_dir"}


def new_config_dir(former: FormerSettings) -> str:
    """Return where root's new configuration folder is, until the user's has moved away."""
    return former.config_dir.rstrip("/") + ".certbot-seafile"


def is_moved(former: FormerSettings, home: str) -> bool:
    """Tell whether a run before this one has moved certbot's configuration folder to the user's home already."""
    place = os.path.join(home, "config", "live")
    return users.as_user(former.user, lambda: b"moved" if os.path.isdir(place) else None) is not None


def names(former: FormerSettings, domains: Sequence[str], home: str) -> dict[str, list[str]]:
    """Return which of the domains each certificate is for. Raises errors.Error where one has none of them.

    The certificates are read as the user, but root decides: what is not among the domains is not served.
    """
    chosen, config_dir = {}, os.path.join(home, "config") if is_moved(former, home) else former.config_dir
    for name in former.lineages:
        own = (users.as_user(former.user, _names, config_dir, name) or b"").split()
        chosen[name] = [domain for domain in domains if os.fsencode(domain) in own]
        if not chosen[name]:
            raise errors.Error(f"the certificate {name} is served too: give the names that it is for with -d")
    return chosen


def _names(config_dir: str, name: str) -> bytes:
    return " ".join(lineages.load(config_dir, name).names).encode()


def keep(former: FormerSettings, settings_path: str, home: str) -> None:
    """Keep the settings and the record of the sites' edits, for a run after a killed one. Raises errors.FileRefused."""
    if os.path.exists(settings_path) and settings.read_former(settings_path) == former:
        os.rename(settings_path, settings.kept_path(settings_path))
    state_dir = lineages.state_dir(new_config_dir(former))
    for path in glob.glob(os.path.join(glob.escape(former.state_dir), "*.json")):
        files.put(os.path.join(state_dir, os.path.basename(path)), files.read(path), mode=0o600)
    setup.run("usermod", "--home", home, former.user)


def hand_over(former: FormerSettings, home: str) -> None:
    """Let the user leave what is served now in its handover folder. Raises errors.FileRefused."""

    def write(name: str) -> None:
        options = replace(former.lineages[name], handover=os.path.join(home, "handover"))
        path = os.path.join(lineages.state_dir(former.config_dir), "staples", name, "ocsp.response")
        handover.write(lineages.load(former.config_dir, name, options=options), files.read_if_present(path))

    for name in former.lineages:
        users.as_user(former.user, write, name)


def move(former: FormerSettings, home: str, hook_command: str) -> None:
    """Move certbot's folders to the user's home, and let root have new ones. Raises errors.FileRefused.

    hook_command: what is to run there when a certificate was renewed.
    """
    users.as_user(former.user, _make_room, home)
    pairs = [(getattr(former, key), os.path.join(home, name)) for name, key in _FOLDERS.items()]
    if is_moved(former, home):
        pairs = [(source, target) for source, target in pairs if not os.path.lexists(target)]
    for source, target in [*pairs, (new_config_dir(former), former.config_dir)]:
        try:
            os.rename(source, target)
        except FileNotFoundError:  # a run before this one was killed here
            continue
        except OSError as error:
            raise errors.FileRefused(
                f"{source} cannot be moved to {target}: {error.strerror}; move it there by hand, then run setup again"
            ) from error
    users.as_user(former.user, _rewrite, former, home, hook_command)


def _make_room(home: str) -> None:
    """Remove what a first run of certbot has made, and nothing that holds a certificate."""
    for name in _FOLDERS:
        if not os.path.isdir(os.path.join(home, "config", "live")):
            shutil.rmtree(os.path.join(home, name), ignore_errors=True)


def _rewrite(former: FormerSettings, home: str, hook_command: str) -> None:
    """Let renewal files name the folders where they are now, and leave what version 0.0 needed behind."""
    config_dir = os.path.join(home, "config")
    for path in glob.glob(os.path.join(glob.escape(config_dir), "renewal", "*.conf")):
        content = files.read(path)
        new = content.replace(os.fsencode(f"{former.config_dir}/"), os.fsencode(f"{config_dir}/"))
        files.replace(path, new, expected=content)
    for name, options in former.lineages.items():
        options = replace(options, handover=os.path.join(home, "handover"))
        lineages.complete_renewal(lineages.load(config_dir, name, options=options), hook_command)
    shutil.rmtree(lineages.state_dir(config_dir), ignore_errors=True)


def forget(former: FormerSettings, settings_path: str) -> None:
    """Remove the units of version 0.0 and its settings. Raises errors.FileRefused."""
    setup.remove_units(former.made)
    for path in glob.glob(os.path.join(glob.escape(former.state_dir), "*")):
        files.remove(path)
    files.remove_folder_if_empty(former.state_dir)
    files.remove(settings.kept_path(settings_path))
