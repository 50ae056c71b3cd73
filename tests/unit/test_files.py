"""Files replaced in one step, with what must stay kept."""

from __future__ import annotations

import os
import stat
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


def test_folders_are_made_with_their_parents(tmp_path: Path) -> None:
    """What was made is told, outermost first; a second call makes nothing."""
    made = files.make_folder(str(tmp_path / "a" / "b"))
    assert made == [str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    assert files.make_folder(str(tmp_path / "a" / "b")) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(errors.FileRefused):
        files.make_folder(str(tmp_path / "file" / "c"))


# --- folders that another user can write


def test_owned_bytes_are_read_through_plain_folders(tmp_path: Path) -> None:
    """A regular file of the user's, below folders of the user's."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "response").write_bytes(b"DER")
    assert files.read_owned(os.geteuid(), str(tmp_path), "a", "b", "response", at_most_bytes=3) == b"DER"


@pytest.mark.parametrize("what", ["link", "link above", "fifo", "folder", "large", "absent", "another's"])
def test_anything_else_is_refused(tmp_path: Path, what: str) -> None:
    """Links at any step, other kinds, too many bytes, and files of others: not opened, and named."""
    place, owner = tmp_path / "a" / "response", os.geteuid()
    place.parent.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "response").write_bytes(b"DER")
    if what == "link":
        place.symlink_to(tmp_path / "elsewhere" / "response")
    elif what == "link above":
        place.parent.rmdir()
        place.parent.symlink_to(tmp_path / "elsewhere")
    elif what == "fifo":
        os.mkfifo(place)
    elif what == "folder":
        place.mkdir()
    elif what == "large":
        place.write_bytes(b"DERx")
    elif what == "another's":
        place.write_bytes(b"DER")
        owner += 1
    with pytest.raises(errors.FileRefused, match="response"):
        files.read_owned(owner, str(tmp_path), "a", "response", at_most_bytes=3)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_only_what_is_plain_and_the_givers_is_given(tmp_path: Path) -> None:
    """What links point to, files with a second name and files of others stay whose they are."""
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    outside.write_bytes(b"precious")
    (folder / "inner" / "plain").write_bytes(b"x")
    (folder / "link").symlink_to(outside)
    os.link(outside, folder / "hard")
    (folder / "other").write_bytes(b"x")
    os.chown(folder / "other", 2, 2)
    files.give(str(folder), 0, 1, 1)
    owners = {path.name: path.lstat().st_uid for path in (folder, *folder.rglob("*"), outside)}
    assert owners == {"folder": 1, "inner": 1, "plain": 1, "link": 1, "hard": 0, "other": 2, "outside": 0}
    assert files.has_owned(str(folder), 0)
    assert not files.has_owned(str(folder), 0, whole=False)
