"""The journal of edits: what is written down is what can be taken out again."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system.journal import Entry, Journal, Step

SITE = "/etc/nginx/sites-enabled/seafile.conf"
BARE = b"one\ntwo\nthree\n"
WITH_A = b"one\nadded for a\ntwo\nthree\n"
WITH_BOTH = b"one\nadded for a\ntwo\nthree\nadded for b\n"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """Return a journal in which two lineages have edited one file."""
    made = Journal(str(tmp_path / "seafile"))
    made.record(SITE, BARE, WITH_A, owner="a")
    made.record(SITE, WITH_A, WITH_BOTH, owner="b")
    return made


def test_everything_taken_out_is_the_file_before_us(journal: Journal) -> None:
    """Byte for byte, where nobody else changed it."""
    (entry,) = journal.entries()
    assert entry.without(entry.steps, WITH_BOTH) == (BARE, True)


@pytest.mark.parametrize(("owner", "left"), [("a", b"one\ntwo\nthree\nadded for b\n"), ("b", WITH_A)])
def test_one_lineages_edits_leave_the_others(journal: Journal, owner: str, left: bytes) -> None:
    """What was put in for the other stays; then the other can be taken out as before."""
    (entry,) = journal.entries()
    assert entry.without(entry.steps_of({owner}), WITH_BOTH) == (left, True)
    journal.forget(SITE, entry.steps_of({owner}))
    (rest,) = journal.entries()
    assert [step.owner for step in rest.steps] == [{"a": "b", "b": "a"}[owner]]
    assert rest.without(rest.steps, left) == (BARE, True)


def test_what_a_person_writes_between_two_undos_stays(journal: Journal) -> None:
    """The record of the second lineage knows nothing of it."""
    (entry,) = journal.entries()
    theirs, _ = entry.without(entry.steps_of({"a"}), b"mine\n" + WITH_BOTH)
    journal.forget(SITE, entry.steps_of({"a"}))
    (rest,) = journal.entries()
    assert rest.without(rest.steps, theirs) == (b"mine\n" + BARE, True)


def test_a_line_that_somebody_changed_stays(journal: Journal) -> None:
    """It is theirs now, and that is told."""
    (entry,) = journal.entries()
    theirs = WITH_BOTH.replace(b"added for a", b"added for a, and me")
    assert entry.without(entry.steps_of({"a"}), theirs) == (theirs, False)


def test_edits_upon_others_are_known() -> None:
    """What was written among a lineage's lines, or made a comment of one, stands on them; what is apart does not."""
    within, apart = WITH_A.replace(b"added for a", b"#added for a\nadded for b"), WITH_A + b"added for b\n"
    first = Step("a", BARE, WITH_A)
    for state, owners in ((within, ["b"]), (apart, [])):
        entry = Entry(SITE, (first, Step("b", WITH_A, state), Step("c", state, state + b"added for c\n")))
        assert entry.owners_upon([first]) == owners
        assert entry.owners_upon(entry.steps[1:]) == []
    assert Entry(SITE, (first, Step("pin:b", WITH_A, within))).owners_upon([first]) == ["b"]


def test_an_entry_without_steps_is_forgotten(journal: Journal) -> None:
    """When nobody's edits are left, nothing is written down any more."""
    (entry,) = journal.entries()
    journal.forget(SITE, entry.steps)
    assert journal.entries() == []


def test_a_damaged_journal_is_named(journal: Journal) -> None:
    """The file that cannot be read is named, and what to do with it."""
    (place,) = Path(journal.folder).glob("*.json")
    place.write_text("{")
    with pytest.raises(errors.FileRefused, match=f"{place}.*move it away"):
        journal.entries()


def test_what_an_earlier_version_wrote_is_read(journal: Journal) -> None:
    """Its steps are lists of three: the owner and the bytes around the edit."""
    (place,) = Path(journal.folder).glob("*.json")
    before, after = (base64.b64encode(state).decode() for state in (BARE, WITH_A))
    steps = [["a", before, after], ["pin:a", after, before]]
    content = {"path": SITE, "before": before, "after": after, "earlier": before, "steps": steps}
    place.write_text(json.dumps(content, indent=1))
    expected = Entry(SITE, (Step("a", BARE, WITH_A), Step("pin:a", WITH_A, BARE)))
    assert journal.entries() == [expected]


def test_a_pin_of_an_earlier_version_is_read_as_one(journal: Journal) -> None:
    """Some hosts have it as a fourth field of the step, others as the beginning of the owner."""
    (place,) = Path(journal.folder).glob("*.json")
    before, after = (base64.b64encode(state).decode() for state in (BARE, WITH_A))
    steps = [["a", before, after, False], ["a", after, before, True]]
    content = {"path": SITE, "before": before, "after": after, "earlier": before, "steps": steps}
    place.write_text(json.dumps(content))
    assert [step.owner for step in journal.entries()[0].steps] == ["a", "pin:a"]
