"""What is done as another user, in a process of its own.

The law: root touches nothing in a folder that another user can write; a child that has become that user does. The child
has a session of its own, so that it cannot type into root's terminal, and nothing comes back but bytes.
"""

from __future__ import annotations

import errno
import functools
import multiprocessing
import os
import pwd
import stat
from collections.abc import Callable, Sequence

from certbot_seafile import errors

_BYTES, _NOTHING, _REFUSED = b"=", b"-", b"!"  # how a child's answer begins
_MOST_BYTES = 65536
_READ_SECONDS, _HOUR_SECONDS = 10.0, 3600.0


def find(user: str) -> pwd.struct_passwd | None:
    """Return what the system knows of the user; None where there is no such user."""
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def as_user(user: str, do: Callable[..., object], *arguments: object) -> bytes | None:
    """Do something as the user, with the user's groups; return the bytes that it returns, None where it returns none.

    Raises errors.FileRefused where it fails or takes an hour.
    """
    if (facts := find(user)) is None:
        raise errors.FileRefused(f"there is no user {user}; make it with `certbot-seafile setup --user {user}`")
    ids = facts.pw_uid, facts.pw_gid, os.getgrouplist(user, facts.pw_gid)  # as initgroups(3) takes them
    return _ask(f"what {user} was to do", ids, functools.partial(do, *arguments), _HOUR_SECONDS)


def read_as(uid: int, gid: int, path: str) -> bytes | None:
    """Return the bytes of the user's own regular file at path, read as that user; None where there is no such file.

    Raises errors.FileRefused for a link, another kind, another owner, over 64 KiB, and where none come in 10 s.
    """
    return _ask(f"reading {path}", (uid, gid, ()), functools.partial(_read, path, uid), _READ_SECONDS)


def _read(path: str, uid: int) -> bytes | None:
    fault = f"it is larger than {_MOST_BYTES} bytes"
    try:
        # Without O_NONBLOCK, a FIFO keeps open() waiting, and so does a lease on the file (fcntl(2)).
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            fault = "it is no regular file"
        elif facts.st_uid != uid:
            fault = f"it belongs to the uid {facts.st_uid}"
        else:
            with open(descriptor, "rb") as stream:
                content = stream.read(_MOST_BYTES + 1)
            if len(content) <= _MOST_BYTES:
                return content
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    raise errors.FileRefused(f"{path} is not read: {fault}; put a file of the uid {uid} itself there, or remove it")


def _ask(what: str, ids: tuple[int, int, Sequence[int]], do: Callable[[], object], seconds: float) -> bytes | None:
    """Return the bytes that do() returns in a child with the ids (user, group, further groups); None where it does not.

    Raises errors.FileRefused for what do() raises, and where no answer comes in time.
    """
    # In memory, since a pipe would keep root waiting where the user stops the child within its answer.
    with open(os.memfd_create("answer"), "w+b", buffering=0) as answer:
        child = multiprocessing.get_context("fork").Process(target=lambda: answer.write(_outcome(what, ids, do)))
        child.start()
        try:
            child.join(seconds)
            has_ended = child.exitcode is not None
        finally:
            child.kill()
            child.join()
        answer.seek(0)
        kind, content = answer.read(1), answer.read()
    if not has_ended:
        raise errors.FileRefused(f"{what} took over {seconds:g} s; see whether the file system answers, then run again")
    if child.exitcode != 0 or not kind:
        raise errors.FileRefused(f"{what} broke off; see above, and who ends processes of the uid {ids[0]}")
    if kind == _REFUSED:
        raise errors.FileRefused(os.fsdecode(content))
    return content if kind == _BYTES else None


def _outcome(what: str, ids: tuple[int, int, Sequence[int]], do: Callable[[], object]) -> bytes:
    """Become the user for good, do it, and return how that ended: a letter, then the bytes or the reason."""
    uid, gid, groups = ids
    try:
        os.setsid()
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        outcome = do()
    except errors.CertbotError as error:
        return _REFUSED + os.fsencode(str(error))
    except OSError as error:
        return _REFUSED + os.fsencode(f"{what} failed: {error}; fix that, then run again")
    return _BYTES + outcome if isinstance(outcome, bytes) else _NOTHING
