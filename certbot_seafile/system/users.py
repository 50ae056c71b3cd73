"""What is done as another user, in a process of its own.

The law: root touches nothing in a folder that another user can write; a child that has become that user does. The child
has a session of its own, so that it cannot type into root's terminal, and nothing comes back but bytes.
"""

from __future__ import annotations

import errno
import functools
import os
import pwd
import select
import signal
import stat
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from certbot_seafile import errors

_BYTES, _NOTHING, _REFUSED = b"=", b"-", b"!"  # how a child's answer begins
_MOST_BYTES = 65536
_MOST_TEXT_BYTES = 4096  # of a refusal
_HOUR_SECONDS = 3600.0


def uid_of(user: str) -> int | None:
    """Return the user's uid; None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def as_user(user: str, do: Callable[..., object], *arguments: object) -> bytes | None:
    """Do something as the user, with the user's groups; return the bytes that it returns, None where it returns none.

    Raises errors.FileRefused where it fails or takes an hour.
    """
    try:
        facts = pwd.getpwnam(user)
    except KeyError:
        raise errors.FileRefused(
            f"there is no user {user}; make it with `certbot-seafile setup --user {user}`"
        ) from None
    ids = facts.pw_uid, facts.pw_gid, os.getgrouplist(user, facts.pw_gid)  # as initgroups(3) takes them
    return _ask(f"what {user} was to do", ids, functools.partial(do, *arguments))


def read_as(uid: int, gid: int, path: str, *, at_most_bytes: int = _MOST_BYTES, seconds: float = 10.0) -> bytes | None:
    """Return the bytes of the user's own regular file at path, read as that user; None where there is no such file.

    Raises errors.FileRefused for a link, another kind, another owner, more bytes, and where no answer comes in time.
    """
    read = functools.partial(_read, path, uid, at_most_bytes)
    return _ask(f"reading {path}", (uid, gid, ()), read, at_most_bytes, seconds)


def _read(path: str, uid: int, at_most_bytes: int) -> bytes | None:
    fault = f"it is larger than {at_most_bytes} bytes"
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
                content = stream.read(at_most_bytes + 1) or b""
            if len(content) <= at_most_bytes:
                return content
    except FileNotFoundError:
        return None
    except OSError as error:
        fault = "it is a link" if error.errno == errno.ELOOP else str(error.strerror)
    raise errors.FileRefused(f"{path} is not read: {fault}; put a file of the uid {uid} itself there, or remove it")


def _ask(
    what: str,
    ids: tuple[int, int, Sequence[int]],
    do: Callable[[], object],
    at_most_bytes: int = _MOST_BYTES,
    seconds: float = _HOUR_SECONDS,
) -> bytes | None:
    """Return the bytes that do() returns in a child with the ids (user, group, further groups); None where it does not.

    Raises errors.FileRefused for what do() raises, and where no answer comes in time.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _answer(writing, what, ids, do)
    os.close(writing)
    try:
        answer = _receive(reading, at_most_bytes + _MOST_TEXT_BYTES, seconds)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    if answer is None:
        raise errors.FileRefused(f"{what} took over {seconds:g} s; see whether the file system answers, then run again")
    if not answer:
        raise errors.FileRefused(f"{what} broke off; see above, and who ends processes of the uid {ids[0]}")
    if answer.startswith(_REFUSED):
        raise errors.FileRefused(os.fsdecode(answer[1:]))
    return answer[1:] if answer.startswith(_BYTES) else None


def _receive(reading: int, at_most_bytes: int, seconds: float) -> bytes | None:
    """Return what comes out of a pipe until its end; None where that takes longer, or is more."""
    end, content = time.monotonic() + seconds, b""
    while len(content) <= at_most_bytes and (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            chunk = os.read(reading, _MOST_BYTES)
            if not chunk:
                return content
            content += chunk
    return None


def _answer(writing: int, what: str, ids: tuple[int, int, Sequence[int]], do: Callable[[], object]) -> NoReturn:
    """Be the child of a fork, which must not go on as its parent, whatever is raised."""
    try:
        os.setsid()
        outcome = _outcome(what, ids, do)
        with open(writing, "wb") as pipe:
            pipe.write(outcome)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(0)


def _outcome(what: str, ids: tuple[int, int, Sequence[int]], do: Callable[[], object]) -> bytes:
    """Become the user for good, do it, and return how that ended: a letter, then the bytes or the reason."""
    uid, gid, groups = ids
    try:
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        outcome = do()
    except errors.CertbotError as error:
        return _REFUSED + os.fsencode(str(error))
    except OSError as error:
        return _REFUSED + os.fsencode(f"{what} failed: {error}; fix that, then run again")
    return _BYTES + outcome if isinstance(outcome, bytes) else _NOTHING
