"""Files on disk: everything that writes, replaces or removes a file of ours or of a person's lives here.

The law: a reader of the file's name sees the old bytes or the new ones, never a part of either; mode, owner and
extended attributes are kept; nothing is replaced that someone else changed meanwhile; temporary names start with a dot,
because `include sites-enabled/*` would load any other (nginx's glob skips dot files).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping

from certbot_seafile import errors
from certbot_seafile.system import progress

PUBLIC_MODE = 0o644
FOLDER_MODE = 0o755
_TEMPORARY = re.compile(r"\..*\.(\d+)\.certbot-seafile", re.DOTALL)
_ADVICE = {
    errno.EACCES: "run this as root, or give this user access",
    errno.EPERM: "run this as root, or see `lsattr` for what forbids it",
    errno.EROFS: "mount its file system writable",
    errno.EBUSY: "it is mounted as a single file: mount the folder that holds it instead",
    errno.ENOSPC: "free some space on its file system",
    errno.EDQUOT: "free some space of this user's quota",
    errno.ENOENT: "put it there, or name another path",
    errno.ENOTDIR: "name another path",
    errno.ELOOP: "put a file in the place of the link",
}


@contextlib.contextmanager
def _explained(message: str) -> Iterator[None]:
    """Turn an error of the operating system into errors.FileRefused: the message, the reason, what to do about it."""
    try:
        yield
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "see the system's log for the disk's state")
        raise errors.FileRefused(f"{message}{error.strerror}; {advice}") from error


def read(path: str, *, at_most_bytes: int = 64 * 1024 * 1024) -> bytes:
    """Return the bytes of the regular file at path. Raises errors.FileRefused, also for FIFOs and devices."""
    with _explained(f"{path} cannot be read: "):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            facts = os.fstat(descriptor)
            if not stat.S_ISREG(facts.st_mode):
                raise errors.FileRefused(f"{path} is not a regular file; move it away, or name another path")
            if facts.st_size > at_most_bytes:
                raise errors.FileRefused(f"{path} is larger than {at_most_bytes} bytes; name another path")
            return b"".join(iter(lambda: os.read(descriptor, facts.st_size + 1), b""))
        finally:
            os.close(descriptor)


def text(path: str, *, at_most_bytes: int = 1024**2) -> str:
    """Return the text of a regular file that is not too large; "" for anything else, and where it cannot be read."""
    with contextlib.suppress(errors.FileRefused):
        if os.path.isfile(path):  # opening a device would do something already
            return read(path, at_most_bytes=at_most_bytes).decode("utf-8", "replace")
    return ""


def names_in(folder: str) -> list[str]:
    """Return the names in a folder, sorted; none where there is no such folder. Raises errors.FileRefused."""
    with _explained(f"{folder} cannot be read: "), contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return sorted(os.listdir(folder))
    return []


def read_if_present(path: str) -> bytes | None:
    """Return the file's bytes, or None where there is no such file. Raises errors.FileRefused otherwise."""
    return read(path) if os.path.lexists(path) else None


def replace(
    path: str, content: bytes, *, expected: bytes | None = None, mode: int = PUBLIC_MODE, is_synced: bool = True
) -> None:
    """Put content at path in one step, through a synced temporary file in the same folder.

    No link is followed: one that stands at path is replaced itself, since it may have been planted there. An existing
    file keeps its mode, owner and extended attributes; a new one gets `mode`. expected: what the file must still hold
    just before the step. is_synced: False for what may be lost in a power cut. Raises errors.FileRefused; then the file
    is as it was.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.certbot-seafile")
    with _explained(f"{path} cannot be written: "):
        like = path if os.path.isfile(path) and not os.path.islink(path) else None
        try:
            _write_new(temporary, content, like, mode, is_synced)
            if expected is not None and read_if_present(path) != expected:
                raise errors.FileRefused(f"{path} was changed by someone else meanwhile and is left so; run again")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if is_synced:
            _sync_folder(folder)


def refuse_fixed(path: str) -> None:
    """Refuse a file in whose place no new one can be put by a rename. Raises errors.FileRefused.

    It is not written in place instead: nginx, started meanwhile, would read half of it.
    """
    if os.lstat(path).st_nlink > 1:
        raise errors.FileRefused(
            f"{path} has several names (hard links), and an edit would part them; let the other names be links to this "
            "one (`ln -s`), and run again"
        )
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        mounted = {re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), line.split()[4]) for line in stream}
    reason = errno.EBUSY if path in mounted else errno.EROFS if _is_read_only(os.path.dirname(path)) else None
    if reason:
        raise errors.FileRefused(f"{path} cannot be edited: {os.strerror(reason)}; {_ADVICE[reason]}")
    if re.search(r"[\n\ud800-\udfff]", path):
        raise errors.FileRefused(
            f"{path} has a name that certbot cannot write down, as it is not UTF-8; rename the file"
        )


def refuse_read_only(folder: str) -> None:
    """Refuse a folder, which may not be there yet, on a read-only file system. Raises errors.FileRefused."""
    if _is_read_only(existing_folder(folder)):
        raise errors.FileRefused(f"{folder} cannot be written: {os.strerror(errno.EROFS)}; {_ADVICE[errno.EROFS]}")


def _is_read_only(folder: str) -> bool:
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


def existing_folder(path: str) -> str:
    """Return the folder at path, or the nearest one above it that is there."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def put(path: str, content: bytes, *, mode: int = PUBLIC_MODE, is_synced: bool = True) -> None:
    """Replace a file as replace() does; a missing folder is made, for its owner alone where the file is."""
    make_folder(os.path.dirname(path), FOLDER_MODE if mode == PUBLIC_MODE else 0o700)
    replace(path, content, mode=mode, is_synced=is_synced)


def _write_new(path: str, content: bytes, like: str | None, mode: int, is_synced: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        if like is None:
            os.fchmod(descriptor, mode)
        else:
            _copy_facts(like, descriptor)
        if is_synced:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_facts(path: str, descriptor: int) -> None:
    """Give an open file the owner, the mode and the extended attributes (ACLs, SELinux' label) of the one at path."""
    facts = os.lstat(path)
    if (facts.st_uid, facts.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(descriptor, facts.st_uid, facts.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(facts.st_mode))
    for name in _attributes(path):
        value = os.getxattr(path, name, follow_symlinks=False)
        if name not in _attributes(descriptor) or os.getxattr(descriptor, name) != value:
            os.setxattr(descriptor, name, value)


def _attributes(file: str | int) -> list[str]:
    try:
        return os.listxattr(file, follow_symlinks=False) if isinstance(file, str) else os.listxattr(file)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return []


def make_whole_folder(path: str, contents: Mapping[str, bytes | None]) -> None:
    """Make a folder that is there whole or not at all: mode 0700, with files of mode 0600 by name (None: no file).

    Raises errors.FileRefused, also where there is such a folder already; then nothing is left.
    """
    parent, name = os.path.split(path)
    temporary = os.path.join(parent, f".{name}.{os.getpid()}.certbot-seafile")
    with _explained(f"the folder {path} cannot be made: "):
        try:
            os.mkdir(temporary, 0o700)
            for name, content in contents.items():
                if content is not None:
                    _write_new(os.path.join(temporary, name), content, None, 0o600, True)
            _sync_folder(temporary)
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        _sync_folder(parent)


def sweep(folder: str) -> None:
    """Remove temporary files and folders that killed runs left; a process that still runs keeps its own."""
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        left = _TEMPORARY.fullmatch(entry)
        if left and not os.path.exists(f"/proc/{left[1]}"):
            path = os.path.join(folder, entry)
            shutil.rmtree(path, ignore_errors=True)
            remove(path)


def _sync_folder(folder: str) -> None:
    """Make a rename or removal in the folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> bool:
    """Remove the file at path; return whether there was one. Raises errors.FileRefused."""
    with _explained(f"{path} cannot be removed: "), contextlib.suppress(FileNotFoundError):
        os.unlink(path)
        _sync_folder(os.path.dirname(path))
        return True
    return False


def remove_folder_if_empty(path: str) -> None:
    """Remove the folder where it exists and is empty; leave it otherwise."""
    with contextlib.suppress(OSError):
        os.rmdir(path)


def missing_folders(path: str) -> list[str]:
    """Return the folders that have to be made for there to be one at path, outermost first."""
    missing: list[str] = []
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    return missing


def make_folder(path: str, mode: int = FOLDER_MODE) -> list[str]:
    """Make the folder and its missing parents; return what was made, outermost first. Raises errors.FileRefused."""
    missing = missing_folders(path)
    for folder in missing:
        with _explained(f"the folder {folder} cannot be made: "):
            try:
                os.mkdir(folder, 0o700)
                set_owner(folder, mode=mode)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise errors.FileRefused(f"{folder} is not a folder; move it away, or name another path") from None
    return missing


def set_owner(path: str, uid: int = -1, gid: int = -1, mode: int | None = None) -> None:
    """Give the folder at path, and none that a link names, this owner and mode: by name, a link would be followed.

    -1 and None for what is to stay. Raises errors.FileRefused.
    """
    with _explained(f"the owner or mode of {path} cannot be set: "):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if mode is not None:
                os.fchmod(descriptor, mode)
            os.fchown(descriptor, uid, gid)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def held(path: str) -> Iterator[bool]:
    """Hold the file at path while the block runs, unless another process does; yield whether it is ours.

    Raises errors.FileRefused.
    """
    with _explained(f"{path} cannot be opened: "):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(descriptor, "rb"):
        is_ours = False
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = True
        yield is_ours


@contextlib.contextmanager
def lock(path: str) -> Iterator[None]:
    """Hold an exclusive lock on the file at path (made where missing) while the block runs; wait for it."""
    with progress.waiting("another run of certbot-seafile"), _explained(f"the lock {path} cannot be opened: "):
        while True:
            make_folder(os.path.dirname(path), 0o700)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    break
            os.close(descriptor)  # whoever held it has removed it
    try:
        yield
    finally:
        os.close(descriptor)
