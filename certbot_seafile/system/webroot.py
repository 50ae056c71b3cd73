"""Validation files: written where nginx serves them, removed afterwards.

The law: what this module made it takes away again, and nothing else; no link below the webroot is followed, because an
unprivileged user may own that folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.system import files

# RFC 8555 8.1: a token is base64url, so it can never name another folder.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\Z")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Webroot:
    """The folder that nginx serves as /.well-known/acme-challenge/; remembers what it made."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._written: list[str] = []
        self._made: list[str] = []

    def write(self, token: str, content: bytes) -> str:
        """Write one validation file, mode 0644, and return its path. Raises errors.FileRefused."""
        if not _TOKEN.match(token):
            raise errors.FileRefused(f"the CA sent a token that is no base64url: {token!r}")
        path = os.path.join(self.folder, token)
        try:
            with self._opened(make=True) as folder:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(token, dir_fd=folder)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                with open(os.open(token, flags, files.PUBLIC_MODE, dir_fd=folder), "wb") as stream:
                    os.fchmod(stream.fileno(), files.PUBLIC_MODE)
                    stream.write(content)
        except OSError as error:
            raise errors.FileRefused(
                f"the validation file {path} cannot be written: {error.strerror}; "
                f"let the user that runs certbot write to {self.folder}, or name another folder with --seafile-webroot"
            ) from error
        self._written.append(token)
        return path

    def clear(self) -> None:
        """Remove every validation file that write() made, then the folders it made, where they are empty."""
        if self._written:
            with contextlib.suppress(OSError), self._opened() as folder:  # whoever replaced it took ours along
                for token in self._written:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(token, dir_fd=folder)
        self._written.clear()
        for made in reversed(self._made):
            files.remove_folder_if_empty(made)
        self._made.clear()

    @contextlib.contextmanager
    def _opened(self, *, make: bool = False) -> Iterator[int]:
        """Open the folder, step by step through its last two names, which an unprivileged user may have planted."""
        path, *names = self.folder.rsplit("/", 2)
        if make:
            self._made += files.make_folder(path or "/")
        with contextlib.ExitStack() as opened:
            descriptor = os.open(path or "/", _FOLDER)
            opened.callback(os.close, descriptor)
            for name in names:
                path = f"{path}/{name}"
                with contextlib.suppress(FileExistsError):
                    if make:
                        os.mkdir(name, files.FOLDER_MODE, dir_fd=descriptor)
                        os.chmod(name, files.FOLDER_MODE, dir_fd=descriptor)
                        self._made.append(path)
                descriptor = _enter(name, descriptor)
                opened.callback(os.close, descriptor)
            yield descriptor


def _enter(name: str, parent: int) -> int:
    """Open a folder below an open one; follow a link only where nobody but root or we could have put it there."""
    facts = os.fstat(parent)
    is_ours = facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o022
    return os.open(name, _FOLDER if is_ours else _FOLDER | os.O_NOFOLLOW, dir_fd=parent)
