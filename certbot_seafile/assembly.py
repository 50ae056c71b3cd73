"""What both doors hand to the use cases: nginx, certbot's checkpoints, the hook's command.

The law: certbot's configuration in, a Context out.
"""

from __future__ import annotations

import datetime
import functools
import logging
import os
import pwd
import shlex
import shutil
import sys
from collections.abc import Callable
from typing import Any

import certbot
from certbot import errors as certbot_errors

import certbot_seafile
from certbot_seafile import errors
from certbot_seafile.system import files, renewal
from certbot_seafile.system import nginx as nginx_room
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options
from certbot_seafile.system.nginx import Nginx, Observed

logger = logging.getLogger(__name__)

_FOLDERS = {"config": "/etc/letsencrypt", "work": "/var/lib/letsencrypt", "logs": "/var/log/letsencrypt"}
# One nginx for all lineages that name the same, so that its configuration is read once.
_nginx, _observed = functools.cache(Nginx), functools.cache(Observed)


def _module_words() -> list[str]:
    """Return what runs this program where no console script is, as in a snap: Python, with the folders it needs."""
    packages = (certbot, certbot_seafile)
    folders = dict.fromkeys(os.path.dirname(os.path.dirname(os.path.abspath(str(each.__file__)))) for each in packages)
    words = ["env", f"PYTHONPATH={os.pathsep.join(folders)}", sys.executable, "-m", "certbot_seafile"]
    revision = os.environ.get("SNAP")
    if "CERTBOT_SNAPPED" not in os.environ or revision is None:
        return words
    # $SNAP is a revision, which snapd removes two refreshes later; the link beside it leads to the newest.
    return [word.replace(revision, os.path.join(os.path.dirname(revision), "current")) for word in words]


class Reverter:
    """certbot's checkpoints, for Context; certbot's reverter is loaded when it is first needed."""

    def __init__(self, config: Any) -> None:
        self._config = config

    @property
    def _reverter(self) -> Any:
        from certbot import reverter

        try:
            return reverter.Reverter(self._config)
        except OSError as error:
            raise errors.FileRefused(
                f"certbot's folder of checkpoints {self._config.backup_dir} cannot be made: {error.strerror}; name "
                "another one with --work-dir, or run this as root"
            ) from error

    def close(self) -> None:
        """Close the checkpoint that a killed run left open, or drop it where it cannot be closed.

        Left open, certbot's recovery would one day put its files back over what a person wrote into them since.
        """
        if not os.path.isdir(self._config.in_progress_dir):
            return
        try:
            self._reverter.finalize_checkpoint("certbot-seafile: a run that did not come to its end")
        except certbot_errors.ReverterError as error:
            logger.debug("dropped: %s", error)
            self.drop()

    def add(self, paths: set[str], notes: str) -> None:
        """Keep the files' present bytes for a rollback."""
        self._reverter.add_to_checkpoint(paths, notes)

    def finish(self, title: str) -> None:
        """Close the checkpoint."""
        self._reverter.finalize_checkpoint(title)

    def drop(self) -> None:
        """Forget the open checkpoint: the files were put back already, in one step each."""
        shutil.rmtree(self._config.in_progress_dir, ignore_errors=True)
        files.remove_folder_if_empty(self._config.backup_dir)


def context_for(
    config: Any, options: Options, say: Callable[[str], None], *, reads_again: bool = True, **chosen: Any
) -> Context:
    """Return what the use cases work with, for certbot's configuration and our options; chosen: other fields.

    reads_again: somebody else may have changed nginx's files since this process last read them.
    """
    if "CERTBOT_SNAPPED" in os.environ:
        from certbot import util

        nginx_room.environment = util.env_no_snap_for_external_calls
    is_handing = os.geteuid() != 0 and options.handover is not None
    nginx = (_observed if is_handing else _nginx)(options.ctl, options.server_root, options.reload_cmd)
    if reads_again:
        nginx.changed()
    facts: dict[str, Any] = {
        "renewer": pwd.getpwuid(os.geteuid()).pw_name if is_handing else None,
        "checkpoints": Reverter(config),
        "now": lambda: datetime.datetime.now(datetime.UTC),
        "hook_command": hook_command(config, options),
    }
    return Context(nginx, options, config.config_dir, say=say, **facts | chosen)


def own_words(config: Any) -> list[str]:
    """Return what runs this program with certbot's folders: an absolute path, because schedulers have short PATHs."""
    name = "certbot-seafile"
    beside = os.pathsep.join(os.path.dirname(path) for path in (os.path.abspath(sys.argv[0]), sys.executable))
    script = shutil.which(name, path=beside) or shutil.which(name)
    words = [script] if script else _module_words()
    for name, usual in _FOLDERS.items():
        if (folder := getattr(config, f"{name}_dir")) != usual:
            words += [f"--{name}-dir", folder]
    return words


def hook_command(config: Any, options: Options) -> str:
    """Return the deploy hook for a renewal file: with what certbot itself does not keep."""
    chosen = [] if options.https_port == 443 else ["--https-port", str(options.https_port)]
    chosen += [renewal.NO_REDIRECT] if options.no_redirect else []
    return shlex.join([*own_words(config), *chosen, "deploy"])
