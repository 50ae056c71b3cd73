"""Files on disk: everything that writes, replaces or removes a file of ours or of a person's lives here.

The law: a reader of the file's name sees the old bytes or the new ones, never a part of either; mode and owner are
kept; nothing is replaced that someone else changed meanwhile; temporary names start with a dot, because
`include sites-enabled/*` would load any other (nginx's glob skips dot files).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Iterator

from certbot_seafile import errors

PUBLIC_MODE = 0o644
FOLDER_MODE = 0o755
_TEMPORARY = re.compile(r"\..*\.(\d+)\.certbot-seafile", re.DOTALL)
_ADVICE = {
    errno.EACCES: "run this as root, or give this user access",
    errno.EPERM: "run this as root, or see `lsattr` for what forbids it",
    errno.EROFS: "mount its file system writable",
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
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):  # before open(), which raises at a folder
        os.close(descriptor)
        raise errors.FileRefused(f"{path} is not a regular file; move it away, or name another path")
    with open(descriptor, "rb") as stream:
        if facts.st_size > at_most_bytes:
            raise errors.FileRefused(f"{path} is larger than {at_most_bytes} bytes; name another path")
        return stream.read(at_most_bytes + 1)


def read_owned(owner: int, base: str, *names: str, at_most_bytes: int) -> bytes:
    """Return the bytes of the file base/NAME/NAME..., below a folder that the user with the uid `owner` can write.

    For root: each folder and the file must be that user's own, no link is followed, and nothing but a regular file is
    opened for reading (opening a device or a FIFO does something already). Raises errors.FileRefused.
    """
    path = os.path.join(base, *names)
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.ExitStack() as opened, _explained(f"{path} cannot be read: "):
        inside = os.open(base, flags | os.O_DIRECTORY)
        opened.callback(os.close, inside)
        for name in names:
            inside = os.open(name, flags, dir_fd=inside)
            opened.callback(os.close, inside)
            facts = os.fstat(inside)
            is_kind = stat.S_ISREG if name is names[-1] else stat.S_ISDIR
            if not is_kind(facts.st_mode) or facts.st_uid != owner:
                raise errors.FileRefused(
                    f"{path}: {name} is a link, of another kind than expected, or not of the user who renews; "
                    "look at who put it there, and move it away"
                )
        if facts.st_size > at_most_bytes:
            raise errors.FileRefused(f"{path} is larger than {at_most_bytes} bytes; move it away")
        return read(f"/proc/self/fd/{inside}", at_most_bytes=at_most_bytes)


def give(path: str, whose: int, uid: int, gid: int, *, whole: bool = True) -> None:
    """Give a folder, and what is below it, to another user, as far as it belongs to the user with the uid `whose`.

    For root, in folders that another user can write: no link is followed, and nothing is given that has a second name,
    which may be anywhere. What is the new owner's already, but of root's group, gets the new group: certbot gives a new
    key the group of the one before. whole: False for the folder alone. Raises errors.FileRefused.
    """
    with _explained(f"{path} cannot be handed over: "):
        _give_one(path, None, whose, uid, gid)
        for _, folders, names, inside in os.fwalk(path) if whole else ():
            for name in (*folders, *names):
                _give_one(name, inside, whose, uid, gid)


def _give_one(name: str, inside: int | None, whose: int, uid: int, gid: int) -> None:
    descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=inside)
    try:
        facts = os.fstat(descriptor)
        is_single = (stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode)) and facts.st_nlink == 1
        is_theirs = facts.st_uid == whose or (facts.st_uid, facts.st_gid) == (uid, 0)
        if is_theirs and (is_single or stat.S_ISDIR(facts.st_mode)):
            os.chown(f"/proc/self/fd/{descriptor}", uid, gid)  # of what was opened, and of a link itself: proc(5)
    finally:
        os.close(descriptor)


def has_owned(path: str, whose: int, *, whole: bool = True) -> bool:
    """Tell whether the folder, or anything below it, is of the user with the uid `whose`, or of that group.

    What vanishes meanwhile or cannot be looked into does not count. whole: False for the folder alone.
    """
    paths = [path]
    for folder, folders, names in os.walk(path) if whole else ():
        paths += [os.path.join(folder, name) for name in (*folders, *names)]
    for each in paths:
        with contextlib.suppress(OSError):
            facts = os.lstat(each)
            if whose in (facts.st_uid, facts.st_gid):
                return True
    return False


def read_if_present(path: str) -> bytes | None:
    """Return the file's bytes, or None where there is no such file. Raises errors.FileRefused otherwise."""
    return read(path) if os.path.lexists(path) else None


def replace(
    path: str, content: bytes, *, expected: bytes | None = None, mode: int = PUBLIC_MODE, is_synced: bool = True
) -> None:
    """Put content at path in one step, through a synced temporary file in the same folder.

    No link is followed: one that stands at path is replaced itself, since it may have been planted there. An existing
    file keeps its mode and owner; a new one gets `mode`. expected: what the file must still hold just before the step.
    is_synced: False for what may be lost in a power cut. Raises errors.FileRefused; then the file is as it was.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.certbot-seafile")
    with _explained(f"{path} cannot be written: "):
        like = os.lstat(path) if os.path.lexists(path) else None
        try:
            _write_new(temporary, content, like if like and stat.S_ISREG(like.st_mode) else None, mode, is_synced)
            if expected is not None and read_if_present(path) != expected:
                raise errors.FileRefused(f"{path} was changed by someone else meanwhile and is left so; run again")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        if is_synced:
            _sync_folder(folder)


def _write_new(path: str, content: bytes, like: os.stat_result | None, mode: int, is_synced: bool) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as stream:
        stream.write(content)
        stream.flush()
        if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(descriptor, like.st_uid, like.st_gid)
        os.fchmod(descriptor, mode if like is None else stat.S_IMODE(like.st_mode))
        if is_synced:
            os.fsync(descriptor)


def sweep(folder: str) -> None:
    """Remove temporary files that killed runs left in the folder; a process that still runs keeps its own."""
    for entry in os.listdir(folder) if os.path.isdir(folder) else ():
        left = _TEMPORARY.fullmatch(entry)
        if left and not os.path.exists(f"/proc/{left[1]}"):
            remove(os.path.join(folder, entry))


def changed_at(path: str) -> int:
    """Return when the file or folder last changed, in nanoseconds; 0 where there is none."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


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


def make_folder(path: str, mode: int = FOLDER_MODE) -> list[str]:
    """Make the folder and its missing parents; return what was made, outermost first. Raises errors.FileRefused."""
    missing: list[str] = []
    folder = os.path.abspath(path)
    while not os.path.isdir(folder):
        missing.insert(0, folder)
        folder = os.path.dirname(folder)
    for folder in missing:
        with _explained(f"the folder {folder} cannot be made: "):
            try:
                os.mkdir(folder)
                os.chmod(folder, mode)
            except FileExistsError:
                if not os.path.isdir(folder):
                    raise errors.FileRefused(f"{folder} is not a folder; move it away, or name another path") from None
    return missing


@contextlib.contextmanager
def lock(path: str) -> Iterator[None]:
    """Hold an exclusive lock on the file at path (made where missing) while the block runs; wait for it."""
    make_folder(os.path.dirname(path), 0o700)
    with _explained(f"the lock {path} cannot be opened: "):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
