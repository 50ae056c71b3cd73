"""Validation files: written where nginx serves them, removed afterwards.

The law: what this module made it takes away again, and nothing else; no link below the webroot is followed, because an
unprivileged user may own that folder.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping

from certbot_seafile import errors
from certbot_seafile.system import files

# RFC 8555 8.1: a token is base64url, so it can never name another folder.
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\Z")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextlib.contextmanager
def published(folder: str, contents: Mapping[str, bytes]) -> Iterator[None]:
    """Keep validation files in the folder while the block runs: by token, mode 0644, in folders of mode 0755.

    folder: what nginx serves as /.well-known/acme-challenge/; made where it is missing, and then removed, too.
    Raises errors.FileRefused; then nothing is left behind.
    """
    made: list[str] = []
    try:
        for token, content in contents.items():
            _write(folder, token, content, made)
        yield
    finally:
        remove(folder, contents)
        for path in reversed(made):
            files.remove_folder_if_empty(path)


def remove(folder: str, tokens: Iterable[str]) -> None:
    """Remove validation files from the folder, as far as they are there."""
    with contextlib.suppress(OSError), _opened(folder) as descriptor:  # whoever replaced it took ours along
        for token in filter(_TOKEN.match, tokens):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(token, dir_fd=descriptor)


def _write(folder: str, token: str, content: bytes, made: list[str]) -> None:
    if not _TOKEN.match(token):
        raise errors.FileRefused(f"the CA sent a token that is no base64url: {token!r}")
    try:
        with _opened(folder, made) as descriptor:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(token, dir_fd=descriptor)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(token, flags, files.PUBLIC_MODE, dir_fd=descriptor), "wb") as stream:
                os.fchmod(stream.fileno(), files.PUBLIC_MODE)
                stream.write(content)
    except OSError as error:
        raise errors.FileRefused(
            f"the validation file {os.path.join(folder, token)} cannot be written: {error.strerror}; "
            f"let the user that runs certbot write to {folder}, or name another folder with --seafile-webroot"
        ) from error


@contextlib.contextmanager
def _opened(folder: str, made: list[str] | None = None) -> Iterator[int]:
    """Open the folder, step by step through its last two names, which an unprivileged user may have planted.

    A link is followed only where nobody but root or we could have put it there, and not in place of what was just made.
    made: gets the paths of the folders that are made where they are missing; None: none is made.
    """
    path, *names = folder.rsplit("/", 2)
    if made is not None:
        made += files.make_folder(path or "/")
    with contextlib.ExitStack() as opened:
        descriptor = os.open(path or "/", _FOLDER)
        opened.callback(os.close, descriptor)
        for name in names:
            path = f"{path}/{name}"
            is_new = False
            with contextlib.suppress(FileExistsError):
                if made is not None:
                    os.mkdir(name, 0o700, dir_fd=descriptor)
                    made.append(path)
                    is_new = True
            facts = os.fstat(descriptor)
            is_ours = not is_new and facts.st_uid in (0, os.geteuid()) and not facts.st_mode & 0o022
            descriptor = os.open(name, _FOLDER if is_ours else _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            opened.callback(os.close, descriptor)
            if is_new:  # by what was opened: its name may name something else by now
                os.fchmod(descriptor, files.FOLDER_MODE)
        yield descriptor
