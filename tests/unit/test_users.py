"""What a child that has become another user reads and does, and that nothing but bytes comes back."""

from __future__ import annotations

import json
import os
import pwd
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import users

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which becomes another user; sudo make test")

UID, GID = 47_113, 47_114  # nobody's, so that what is done to its processes hurts no one

#: What the user runs in its own folder while root reads.
SWAP = """
import os
while True:
    os.symlink("elsewhere", "link")
    os.replace("link", "set.pem")
    with open("file", "w") as stream:
        stream.write("honest")
    os.replace("file", "set.pem")
"""
LEASE = """
import fcntl
stream = open("set.pem", "r+")
fcntl.fcntl(stream, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print(flush=True)
input()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Return a folder of the user's, 0700, below one that everybody may pass."""
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        inner = Path(outer, "handover")
        inner.mkdir(0o700)
        os.chown(inner, UID, GID)
        yield inner


def write(path: Path, content: bytes = b"honest", uid: int = UID, mode: int = 0o600) -> None:
    """Write a file of a user."""
    path.write_bytes(content)
    path.chmod(mode)
    os.chown(path, uid, GID)


def attacker(folder: Path, program: str) -> subprocess.Popen[bytes]:
    """Start a program as the user, in the user's folder."""
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, user=UID, group=GID, extra_groups=[], stdin=pipe, stdout=pipe
    )


def read(folder: Path) -> bytes | None:
    """Read the user's file."""
    return users.read_as(UID, GID, str(folder / "set.pem"))


def test_a_file_of_the_user_is_read_in_the_users_own_folder(folder: Path) -> None:
    """Mode 0600 in a folder of mode 0700 is enough, up to the last byte that is allowed."""
    write(folder / "set.pem", bytes(65536))
    assert read(folder) == bytes(65536)


def test_a_missing_file_is_no_failure(folder: Path) -> None:
    """None comes back, as it does from a folder that is not there."""
    assert read(folder) is None
    assert read(folder / "missing") is None


def test_root_reads_its_own_file_in_the_same_way(folder: Path) -> None:
    """A folder that rsync fills as root is read by a child too."""
    write(folder / "set.pem", uid=0)
    assert users.read_as(0, 0, str(folder / "set.pem")) == b"honest"


def fifo(path: Path) -> None:
    """Make a FIFO, at which an open() may wait for ever."""
    os.mkfifo(path)
    os.chown(path, UID, GID)


def device(path: Path) -> None:
    """Make a copy of /dev/zero, which never ends."""
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.chown(path, UID, GID)


def directory(path: Path) -> None:
    """Make a folder."""
    path.mkdir()
    os.chown(path, UID, GID)


def unix_socket(path: Path) -> None:
    """Make a socket, which cannot be opened."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def link(path: Path) -> None:
    """Make a link to a file that the user may read."""
    write(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def dangling_link(path: Path) -> None:
    """Make a link to nothing."""
    path.symlink_to("nothing")


def link_to_itself(path: Path) -> None:
    """Make a link that never ends."""
    path.symlink_to(path.name)


def sparse_file(path: Path) -> None:
    """Make a file of 1 GiB that takes no space."""
    write(path)
    os.truncate(path, 1 << 30)


def one_byte_more(path: Path) -> None:
    """Make a file that is a byte too large."""
    write(path, bytes(65537))


def endless_proc_file(path: Path) -> None:
    """Make a link to a file that claims to be empty, and is not."""
    path.symlink_to("/proc/self/environ")


def file_of_another(path: Path) -> None:
    """Make a file of root's that everybody may read."""
    write(path, uid=0, mode=0o644)


def hard_link_to_another(path: Path) -> None:
    """Make a second name of root's file."""
    write(path.parent.parent / "roots", uid=0, mode=0o644)
    os.link(path.parent.parent / "roots", path)


def unreadable(path: Path) -> None:
    """Make a file that the user may not read."""
    write(path, uid=0)


def file_as_folder(path: Path) -> None:
    """Put a file in the place of the folder."""
    path.parent.rmdir()
    write(path.parent)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (fifo, "no regular file"),
        (device, "no regular file|Permission denied"),  # a file system that is mounted with nodev
        (directory, "no regular file"),
        (unix_socket, "No such device or address"),
        (link, "a link"),
        (dangling_link, "a link"),
        (link_to_itself, "a link"),
        (endless_proc_file, "a link"),
        (sparse_file, "larger than 65536 bytes"),
        (one_byte_more, "larger than 65536 bytes"),
        (file_of_another, "the uid 0"),
        (hard_link_to_another, "the uid 0"),
        (unreadable, "Permission denied"),
        (file_as_folder, "Not a directory"),
    ],
)
def test_anything_else_is_refused(folder: Path, make: Callable[[Path], None], reason: str) -> None:
    """The sentence says what stands there and what to do."""
    make(folder / "set.pem")
    with pytest.raises(errors.FileRefused, match=f"set.pem is not read: .*({reason}).*; put a file of the uid {UID}"):
        read(folder)


def test_a_folder_of_others_is_not_entered_with_roots_rights(folder: Path) -> None:
    """What the user cannot reach, the child cannot either."""
    write(folder / "set.pem")
    folder.chmod(0o700)
    os.chown(folder, 0, 0)
    with pytest.raises(errors.FileRefused, match="Permission denied"):
        read(folder)


def test_a_link_that_is_swapped_in_is_never_followed(folder: Path) -> None:
    """However often file and link change places, what comes back is the file or a refusal."""
    write(folder / "elsewhere", b"a secret")
    write(folder / "set.pem")
    outcomes = set()
    with attacker(folder, SWAP) as swapping:
        try:
            for _ in range(300):
                try:
                    outcomes.add(read(folder))
                except errors.FileRefused as error:
                    outcomes.add(str(error).encode())
            assert swapping.poll() is None
        finally:
            swapping.kill()
    assert {
        outcome for outcome in outcomes if outcome != b"honest" and b": it is a link;" not in (outcome or b"")
    } == set()


def test_a_lease_on_the_file_keeps_nobody_waiting(folder: Path) -> None:
    """The user's own lock on its file is a refusal, and not a wait of 45 seconds."""
    write(folder / "set.pem")
    with attacker(folder, LEASE) as holding:
        assert holding.stdout is not None
        holding.stdout.readline()
        try:
            with pytest.raises(errors.FileRefused, match="temporarily unavailable"):
                read(folder)
        finally:
            holding.kill()


def stop_itself() -> None:
    """Do what the user can do to its own child: stop it for good."""
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("do", [signal.pause, stop_itself])
def test_no_answer_in_time_is_refused_and_the_child_is_gone(do: Callable[[], None]) -> None:
    """Nothing waits for a child that hangs or was stopped; it is ended."""
    with pytest.raises(errors.FileRefused, match=r"waiting took over 0\.1 s; see whether the file system"):
        users._ask("waiting", (UID, GID, ()), do, 0.1)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_child_is_gone_where_root_is_interrupted() -> None:
    """Ctrl-C does not reach the child, which has a session of its own."""
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            users._ask("waiting", (UID, GID, ()), signal.pause, 30)
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


# --- as_user ---------------------------------------------------------------------------------------------------------


def report(path: str) -> None:
    """Write down who this process is."""
    facts = os.getresuid(), os.getresgid(), os.getgroups(), os.getsid(0) == os.getpid()
    Path(path).write_text(json.dumps(facts), encoding="utf-8")


def test_a_step_is_done_as_the_user_alone(folder: Path) -> None:
    """All ids are the user's, no group of root's is left, and root's terminal is not the child's."""
    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    users.as_user("nobody", report, str(folder / "report"))
    uids, gids, groups, is_apart = json.loads((folder / "report").read_text(encoding="utf-8"))
    assert (uids, gids) == ([nobody.pw_uid] * 3, [nobody.pw_gid] * 3)
    assert (set(groups), is_apart) == (set(os.getgrouplist("nobody", nobody.pw_gid)), True)


def refuse() -> None:
    """Fail as our own code does."""
    raise errors.FileRefused("the disk is full; free some space")


def fail() -> None:
    """Fail as the operating system does."""
    os.mkdir("/root/mine")


def leave() -> None:
    """Try to end as a program does, with what was registered for that."""
    sys.exit(0)


def be_killed() -> None:
    """End in the middle."""
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("do", "text"),
    [
        (refuse, "the disk is full; free some space"),
        (fail, "what nobody was to do failed: .*Permission denied.*; fix that, then run again"),
        (leave, "what nobody was to do broke off; see above"),
        (be_killed, "what nobody was to do broke off; see above"),
    ],
)
def test_a_step_that_fails_is_named_in_the_parent(do: Callable[[], None], text: str) -> None:
    """The reason comes through the pipe; however the child ends, the parent goes on."""
    with pytest.raises(errors.FileRefused) as caught:
        users.as_user("nobody", do)
    assert re.fullmatch(text + ".*", str(caught.value))


def test_a_user_that_does_not_exist_is_named() -> None:
    """Nothing is done, and the sentence says how the user is made."""
    assert users.find("no-such-user") is None
    assert users.find("nobody") == pwd.getpwnam("nobody")
    with pytest.raises(errors.FileRefused, match="no user no-such-user; make it with"):
        users.as_user("no-such-user", refuse)
