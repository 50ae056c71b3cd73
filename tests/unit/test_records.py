"""What is remembered between runs, and what is carried over from hosts of an earlier version."""

from __future__ import annotations

import datetime
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

import authority
import lineages as lineages_on_disk
from certbot_seafile import assembly
from certbot_seafile.ocsp import store
from certbot_seafile.system import lineages, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.system.nginx import Nginx

NAME = "seafile.example.com"
NOW = datetime.datetime(2026, 11, 26, 12, 0, 0, tzinfo=datetime.UTC)
ISSUER = authority.make_ca()


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    """Give a lineage on disk, with its staples beside it."""
    return mint(tmp_path)


def mint(folder: Path, number: int = 1) -> Lineage:
    """Write a version of the lineage, and load it."""
    options = {"seafile_staple_dir": folder / "OCSP"}
    lineages_on_disk.make(folder / "config", NAME, authority.make_leaf(ISSUER, [NAME]), ISSUER, options, number=number)
    return lineages.load(str(folder / "config"), NAME)


def state_dir(folder: Path) -> str:
    """Return where the records are."""
    return lineages.state_dir(str(folder / "config"))


def test_nothing_is_known_of_a_new_lineage(tmp_path: Path, lineage: Lineage) -> None:
    """Without a record and without old files, every field but the serial is empty."""
    assert records.load(state_dir(tmp_path), lineage) == records.Record(f"{lineage.leaf.serial_number:x}")


def test_what_is_written_is_loaded_again(tmp_path: Path, lineage: Lineage) -> None:
    """A record with every field comes back as it was."""
    record = records.Record(f"{lineage.leaf.serial_number:x}", NOW, NOW, "revoked", True, NOW, NOW, "the CA was down")
    records.write(state_dir(tmp_path), NAME, record)
    assert records.load(state_dir(tmp_path), lineage) == record


def test_the_file_is_json_with_a_version_and_for_its_owner_only(tmp_path: Path, lineage: Lineage) -> None:
    """A person can read it: indented JSON, the version in it; nobody else can."""
    record = records.Record(f"{lineage.leaf.serial_number:x}", last_success=NOW)
    records.write(state_dir(tmp_path), NAME, record)
    path = Path(records.path(state_dir(tmp_path), NAME))
    content = json.loads(path.read_text())
    assert (content["version"], content["lineage"]) == (records.VERSION, NAME)
    assert content["last_success"] == "2026-11-26T12:00:00+00:00"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_new_leaf_leaves_behind_what_was_about_the_old_one(tmp_path: Path, lineage: Lineage) -> None:
    """Success, newest thisUpdate and revocation are the leaf's; the rest is the lineage's."""
    record = records.Record(f"{lineage.leaf.serial_number:x}", NOW, NOW, "revoked", True, NOW, NOW, "failed")
    records.write(state_dir(tmp_path), NAME, record)
    renewed = mint(tmp_path, number=2)
    assert records.load(state_dir(tmp_path), renewed) == records.Record(
        f"{renewed.leaf.serial_number:x}", needs_reload=True, last_reload=NOW, last_run=NOW, last_failure="failed"
    )


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"serial": 1, "last_success": 5}', b"\xff", b'{"version": 1}'])
def test_a_damaged_record_is_as_good_as_none(tmp_path: Path, lineage: Lineage, content: bytes) -> None:
    """What cannot be read is found out again."""
    path = Path(records.path(state_dir(tmp_path), NAME))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert records.load(state_dir(tmp_path), lineage) == records.Record(f"{lineage.leaf.serial_number:x}")


def test_a_later_version_may_add_fields(tmp_path: Path, lineage: Lineage) -> None:
    """Fields that are not known are passed over."""
    record = records.Record(f"{lineage.leaf.serial_number:x}", last_success=NOW)
    records.write(state_dir(tmp_path), NAME, record)
    path = Path(records.path(state_dir(tmp_path), NAME))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2, "colour": "green"}))
    assert records.load(state_dir(tmp_path), lineage) == record


def test_facts_of_an_earlier_version_are_carried_over(tmp_path: Path, lineage: Lineage) -> None:
    """The response's mtime and the note on a revocation become fields; the mark for a reload counts, and goes."""
    response = Path(lineage.response_path)
    response.parent.mkdir(parents=True)
    response.write_bytes(b"a response")
    os.utime(response, (NOW.timestamp(), NOW.timestamp()))
    serial = f"{lineage.leaf.serial_number:x}"
    (response.parent / "revoked").write_text(f"{serial} the CA revoked the certificate\n")
    mark = Path(state_dir(tmp_path)) / ".reload"
    mark.parent.mkdir(parents=True)
    mark.write_bytes(b"")
    record = records.load(state_dir(tmp_path), lineage)
    assert record == records.Record(serial, NOW, None, "the CA revoked the certificate")
    records.write(state_dir(tmp_path), NAME, record)
    must_reload = records.Mark(state_dir(tmp_path), "nginx", None)
    assert must_reload.is_set
    must_reload.clear()
    assert not mark.exists()
    assert not must_reload.is_set
    assert records.load(state_dir(tmp_path), lineage) == record


def test_an_old_note_goes_once_the_record_says_the_same(tmp_path: Path, lineage: Lineage) -> None:
    """Also where nothing is new, because no responder answers: the leaf stays revoked."""
    note = Path(lineage.response_path).parent / "revoked"
    note.parent.mkdir(parents=True)
    note.write_text(f"{lineage.leaf.serial_number:x} the CA revoked the certificate\n")
    record = records.load(state_dir(tmp_path), lineage)
    nginx, checkpoints = Nginx(), assembly.Reverter(None)
    context = Context(nginx, lineage.options, lineage.config_dir, checkpoints, print, now=lambda: NOW)
    store.Round(context).write(lineage, store.Outcome(None, record, record.revocation, is_revoked=True))
    assert not note.exists()
    assert records.load(state_dir(tmp_path), lineage) == record


def test_an_old_note_about_another_leaf_is_not_carried_over(tmp_path: Path, lineage: Lineage) -> None:
    """A note names the serial that it is about."""
    folder = Path(lineage.response_path).parent
    folder.mkdir(parents=True)
    (folder / "revoked").write_text("1234 the CA revoked the certificate\n")
    assert records.load(state_dir(tmp_path), lineage).revocation is None


def test_a_forgotten_record_is_gone_with_its_folder(tmp_path: Path, lineage: Lineage) -> None:
    """Nothing is left behind by forget()."""
    records.write(state_dir(tmp_path), NAME, replace(records.load(state_dir(tmp_path), lineage), last_run=NOW))
    records.forget(state_dir(tmp_path), NAME)
    assert list(Path(state_dir(tmp_path)).iterdir()) == []


def test_each_nginx_has_a_mark_of_its_own(tmp_path: Path) -> None:
    """One that has reloaded says nothing about another; what is damaged is as if there was none."""
    one, other = (records.Mark(str(tmp_path), "nginx", folder) for folder in (None, "/opt/nginx"))
    one.set()
    one.set()
    other.set()
    one.clear()
    assert (one.is_set, other.is_set) == (False, True)
    other.clear()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "reload.json").write_text('{"must_reload": 5}')
    assert not one.is_set
    one.set()
    assert one.is_set


def test_a_time_without_a_zone_is_no_time(tmp_path: Path, lineage: Lineage) -> None:
    """A record that a person has changed so is passed over, as any damaged one."""
    records.write(state_dir(tmp_path), NAME, replace(records.load(state_dir(tmp_path), lineage), last_success=NOW))
    place = Path(records.path(state_dir(tmp_path), NAME))
    place.write_text(place.read_text().replace("+00:00", ""))
    assert records.load(state_dir(tmp_path), lineage).last_success is None
