"""Files replaced in one step, with what must stay kept."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import files


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    """New bytes, old permissions."""
    path = tmp_path / "site"
    path.write_bytes(b"old")
    path.chmod(0o640)
    files.replace(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_new_file_can_be_read_by_all_and_written_by_its_owner(tmp_path: Path) -> None:
    """0644, whatever the umask says."""
    old = os.umask(0o077)
    try:
        files.replace(str(tmp_path / "ocsp.response"), b"x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "ocsp.response").stat().st_mode) == 0o644


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A link at the place is replaced, and what it leads to stays."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    link = tmp_path / "ocsp.response"
    link.symlink_to(target)
    files.replace(str(link), b"new")
    assert target.read_bytes() == b"precious"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


def test_a_planted_temporary_file_is_not_followed(tmp_path: Path) -> None:
    """A link under the temporary name leads nowhere either."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / f".site.{os.getpid()}.certbot-seafile").symlink_to(target)
    files.replace(str(tmp_path / "site"), b"new")
    assert target.read_bytes() == b"precious"
    assert (tmp_path / "site").read_bytes() == b"new"


def test_bytes_that_somebody_else_wrote_are_left(tmp_path: Path) -> None:
    """Where the file is not what was read, it is refused and nothing is left behind."""
    path = tmp_path / "site"
    path.write_bytes(b"theirs")
    with pytest.raises(errors.FileRefused, match="changed by someone else"):
        files.replace(str(path), b"ours", expected=b"as it was read")
    assert path.read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["site"]


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    """Reading does not wait for somebody to write."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.FileRefused, match="not a regular file"):
        files.read(str(tmp_path / "fifo"))


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    """A file above the limit is not read."""
    with (tmp_path / "huge").open("wb") as stream:
        stream.truncate(2**20)
    with pytest.raises(errors.FileRefused, match="larger than 65536 bytes"):
        files.read(str(tmp_path / "huge"), at_most_bytes=65536)


def test_what_cannot_be_read_to_its_end_is_named() -> None:
    """As on a disk with a bad block: nothing is at the first address of a process."""
    with pytest.raises(errors.FileRefused, match="mem cannot be read: Input/output error; see the system's log"):
        files.read("/proc/self/mem")


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    """What was made is told, outermost first; a second call makes nothing."""
    made = files.make_folder(str(tmp_path / "a" / "b"))
    assert made == [str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    assert files.make_folder(str(tmp_path / "a" / "b")) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.FileRefused):
        files.make_folder(str(tmp_path / "file" / "c"))


def test_a_whole_folder_is_there_with_its_files_or_not_at_all(tmp_path: Path) -> None:
    """Only its owner may look into it; one that is there already is left as it is, and nothing else stays behind."""
    files.make_whole_folder(str(tmp_path / "version"), {"key": b"secret", "response": None})
    assert [path.name for path in (tmp_path / "version").iterdir()] == ["key"]
    modes = [path.stat().st_mode & 0o777 for path in (tmp_path / "version", tmp_path / "version" / "key")]
    assert modes == [0o700, 0o600]
    with pytest.raises(errors.FileRefused, match="cannot be made"):
        files.make_whole_folder(str(tmp_path / "version"), {"key": b"other"})
    assert (tmp_path / "version" / "key").read_bytes() == b"secret"
    assert os.listdir(tmp_path) == ["version"]


def test_what_killed_runs_left_is_swept(tmp_path: Path) -> None:
    """Folders too; what a process that still runs is writing stays."""
    (tmp_path / ".version.999999999.certbot-seafile").mkdir()
    (tmp_path / ".version.999999999.certbot-seafile" / "key").write_bytes(b"secret")
    (tmp_path / ".site.999999998.certbot-seafile").write_bytes(b"half")
    (tmp_path / f".site.{os.getpid()}.certbot-seafile").write_bytes(b"being written")
    files.sweep(str(tmp_path))
    assert os.listdir(tmp_path) == [f".site.{os.getpid()}.certbot-seafile"]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    """With what to do; where there is no folder, there are no names."""
    assert files.names_in(str(tmp_path / "absent")) == []
    (tmp_path / "b").write_bytes(b"")
    (tmp_path / "a").write_bytes(b"")
    assert files.names_in(str(tmp_path)) == ["a", "b"]
    (tmp_path / "locked").mkdir(mode=0o000)
    if os.geteuid() != 0:  # root reads everything
        with pytest.raises(errors.FileRefused, match="run this as root"):
            files.names_in(str(tmp_path / "locked"))


def test_an_existing_file_keeps_its_attributes(tmp_path: Path) -> None:
    """An ACL, which lets a user of another group write, is such an attribute; so is SELinux' label."""
    path = tmp_path / "site"
    path.write_bytes(b"old")
    rights = [(0x01, 6, -1), (0x02, 6, 65534), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *right) for right in rights)
    os.setxattr(path, "system.posix_acl_access", acl)
    os.setxattr(path, "user.note", b"mine")
    files.replace(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert os.getxattr(path, "system.posix_acl_access") == acl
    assert os.getxattr(path, "user.note") == b"mine"


def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    """A rename would part them."""
    path = tmp_path / "site"
    path.write_bytes(b"old")
    files.refuse_fixed(str(path))
    os.link(path, tmp_path / "other")
    with pytest.raises(errors.FileRefused, match="hard links"):
        files.refuse_fixed(str(path))


def test_a_name_that_is_no_utf_8_is_refused(tmp_path: Path) -> None:
    """certbot writes names into files of its own; the sentence can be printed."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(path).write_bytes(b"old")
    with pytest.raises(errors.FileRefused, match=r"caf\\udce9 .*rename") as refused:
        files.refuse_fixed(path)
    assert str(refused.value).isprintable()


def test_no_link_is_followed_when_a_folder_s_mode_is_set(tmp_path: Path) -> None:
    """A user may have planted it in the folder's place: what it leads to stays as it is."""
    target, link = tmp_path / "root's", tmp_path / "planted"
    target.mkdir(mode=0o700)
    link.symlink_to(target)
    with pytest.raises(errors.FileRefused, match="planted"):
        files.set_owner(str(link), mode=0o777)
    assert target.stat().st_mode & 0o777 == 0o700
