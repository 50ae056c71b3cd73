"""Validation files: what is written, what is left behind, and what is not followed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import webroot


def below(tmp_path: Path) -> str:
    """Return a webroot's folder that does not exist yet."""
    return str(tmp_path / "www" / ".well-known" / "acme-challenge")


def test_a_file_can_be_read_by_nginx_and_is_gone_afterwards(tmp_path: Path) -> None:
    """0644 in folders of 0755; what was made is taken away, folders too."""
    path = Path(below(tmp_path)) / "token"
    with webroot.published(below(tmp_path), {"token": b"validation", "other": b"x"}):
        assert path.read_bytes() == b"validation"
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    """A person's folders and files are left alone."""
    folder = Path(below(tmp_path))
    folder.mkdir(parents=True)
    (folder / "theirs").write_bytes(b"x")
    with webroot.published(str(folder), {"token": b"validation"}):
        assert (folder / "token").exists()
    assert [path.name for path in folder.iterdir()] == ["theirs"]


@pytest.mark.parametrize("token", ["../escape", "a/b", "", ".hidden", "a b", "x\n"])
def test_a_token_that_is_none_is_refused(tmp_path: Path, token: str) -> None:
    """Nothing but base64url is a token (RFC 8555 8.1)."""
    with pytest.raises(errors.FileRefused), webroot.published(below(tmp_path), {"good": b"x", token: b"x"}):
        pass
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize("planted", [".well-known", "acme-challenge"])
def test_a_link_in_a_folder_that_others_write_to_is_not_followed(tmp_path: Path, planted: str) -> None:
    """Where somebody else may plant links, none of them leads us elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "acme-challenge").mkdir(parents=True)
    root = tmp_path / "www"
    parent = root if planted == ".well-known" else root / ".well-known"
    parent.mkdir(parents=True)
    (parent / planted).symlink_to(elsewhere)
    parent.chmod(0o777)
    with (
        pytest.raises(errors.FileRefused, match="--seafile-webroot"),
        webroot.published(below(tmp_path), {"token": b"x"}),
    ):
        pass
    assert list((elsewhere / "acme-challenge").iterdir()) == []


def test_the_administrators_own_link_is_followed(tmp_path: Path) -> None:
    """A link that only root or we could have made is meant."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "www" / ".well-known").mkdir(parents=True, mode=0o755)
    (tmp_path / "www" / ".well-known").chmod(0o755)
    (tmp_path / "www" / ".well-known" / "acme-challenge").symlink_to(elsewhere)
    with webroot.published(below(tmp_path), {"token": b"x"}):
        assert (elsewhere / "token").read_bytes() == b"x"
    assert list(elsewhere.iterdir()) == []


def test_a_file_left_by_an_interrupted_run_is_replaced(tmp_path: Path) -> None:
    """The same token may be written again."""
    path = Path(below(tmp_path)) / "token"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"old")
    with webroot.published(below(tmp_path), {"token": b"new"}):
        assert path.read_bytes() == b"new"
