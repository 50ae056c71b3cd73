"""How lineages stand, as people, Prometheus and Nagios read it."""

from __future__ import annotations

import datetime
import io
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import authority
from certbot_seafile.doctor import findings, formats
from certbot_seafile.doctor.findings import Finding
from certbot_seafile.ocsp import verify
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.system.records import Record
from certbot_seafile.usecases.boundary import Failure
from certbot_seafile.usecases.status import Standing

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAME = "home.seafile.com"
NOW = datetime.datetime(2026, 11, 26, 12, 0, 0, tzinfo=datetime.UTC)
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
ISSUER = authority.make_ca()
STAPLE = verify.Staple(b"response", 1, NOW - DAY, NOW + 3 * DAY, NOW + 3 * DAY)
FAULT = Finding("PORT-CLOSED", "port 80 | 443 is shut", "nobody comes in", "open it", name=NAME)
WARNING = Finding("NAME-ELSEWHERE", "the name leads elsewhere", "people may miss it", "look", severity=findings.WARNING)
NOTE = Finding("CRON-SPARE", "a crontab can go", "it hurts nobody", "remove it", severity=findings.NOTE)


def lineage_of(name: str = NAME, *, must_staple: bool = False, has_responder: bool = True) -> Lineage:
    """Mint a certificate of 90 days, of which 64 days are left."""
    urls, features = ["http://ocsp.example.com/"] * has_responder, [x509.TLSFeatureType.status_request] * must_staple
    leaf = authority.make_leaf(ISSUER, [NAME], ocsp_urls=urls, features=features, now=NOW + 4 * DAY)
    return Lineage(name, "/etc/letsencrypt", Options(), leaf.certificate, (ISSUER.certificate,), {})


PLAIN, UNSTAPLED, DEMANDING = lineage_of(), lineage_of(has_responder=False), lineage_of(must_staple=True)
DUE = replace(PLAIN, renewal={"renew_before_expiry": "64 days"})
OLDER = Version(*(getattr(lineage_of(), key) for key in ("name", "config_dir", "options", "leaf", "chain", "renewal")))
HANDED = replace(OLDER, for_names=(NAME,))


def standing_of(lineage: Lineage = PLAIN, *, record: Mapping[str, Any] | None = None, **facts: Any) -> Standing:
    """Return a lineage's facts where all is well, but for the given ones."""
    known: dict[str, Any] = {"last_success": NOW - HOUR, "last_run": NOW - 3 * HOUR, **(record or {})}
    well: dict[str, Any] = {
        "lineage": lineage, "site": None, "staple": STAPLE, "record": Record("1", **known), "now": NOW, "failure": None,
        "is_current": True, "is_stapled": True, "is_stored": True, "served": None, "served_until": lineage.not_after,
    }  # fmt: skip
    return Standing(**well | facts)


UNSERVED: Mapping[str, Any] = {"is_current": False, "is_stapled": False, "is_stored": False}
BARE: Mapping[str, Any] = {"staple": None, "is_stapled": False, "is_stored": False}

# --- the table --------------------------------------------------------------------------------------------------------

#: What differs from a lineage with which all is well, and what its row says behind the name.
ROWS: Mapping[str, tuple[Standing, Sequence[str]]] = {
    "well": (standing_of(), ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "yes, stapled"]),
    "without a responder": (standing_of(UNSTAPLED, **BARE), ["64 d 71%", "in 34 d", "ok 3 h ago", "-", "yes"]),
    "staple missing": (standing_of(**BARE), ["64 d 71%", "in 34 d", "ok 3 h ago", "NONE", "yes"]),
    "staple not served": (
        standing_of(is_stapled=False, is_stored=False),
        ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "yes, UNSTAPLED"],
    ),
    "another staple": (
        standing_of(is_stored=False), ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "OTHER staple"]
    ),
    "revoked": (
        standing_of(record={"revocation": "revoked"}, **BARE), ["64 d 71%", "in 34 d", "ok 3 h ago", "REVOKED", "yes"]
    ),
    "expired": (
        standing_of(now=NOW + 65 * DAY, **BARE),
        ["EXPIRED", "LATE", "LATE 65 d ago", "NONE", "yes"],
    ),
    "due": (standing_of(DUE), ["64 d 71%", "due", "ok 3 h ago", "3 d", "yes, stapled"]),
    "never run": (standing_of(record={"last_run": None}), ["64 d 71%", "in 34 d", "-", "3 d", "yes, stapled"]),
    "run failed": (
        standing_of(record={"last_failure": "the CA was down"}),
        ["64 d 71%", "in 34 d", "FAILED 3 h ago", "3 d", "yes, stapled"],
    ),
    "no run for days": (
        standing_of(record={"last_run": NOW - 5 * DAY}),
        ["64 d 71%", "in 34 d", "LATE 5 d ago", "3 d", "yes, stapled"],
    ),
    "nothing served": (
        standing_of(failure="nothing listens there", **UNSERVED),
        ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "NOTHING"],
    ),
    "another served": (
        standing_of(**UNSERVED), ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "ANOTHER one"]
    ),
    "waits for its staple": (
        standing_of(DEMANDING, served=OLDER, **UNSERVED),
        ["64 d 71%", "in 34 d", "ok 3 h ago", "3 d", "the one BEFORE"],
    ),
    "undone": (
        standing_of(record={"is_undone": True}, **BARE), ["64 d 71%", "in 34 d", "ok 3 h ago", "-", "undone"]
    ),
    "handed over": (standing_of(HANDED, served=HANDED), ["64 d 71%", "in 34 d", "-", "3 d", "yes, stapled"]),
    "forgotten by certbot": (standing_of(OLDER, served=OLDER), ["64 d 71%", "NEVER", "-", "3 d", "yes, stapled"]),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_how_a_lineage_stands(name: str) -> None:
    """The cells are the same whatever else is in the table; a gap of two spaces parts them."""
    standing, cells = ROWS[name]
    header, row = formats.as_table([standing]).splitlines()
    assert re.split(" {2,}", header) == [*formats._HEADER]
    assert re.split(" {2,}", row) == [NAME, *cells]


LONG = "files.a-company-with-a-long-name.example.com-0001"


def test_the_table_fits_80_columns() -> None:
    """With the widest cell in each column, and a long name: only the name gives way, and keeps its end."""
    worst = standing_of(lineage_of(LONG), record={"last_failure": "x", "last_run": NOW - 99 * DAY}, **UNSERVED)
    lines = formats.as_table([worst, *(standing for standing, _ in ROWS.values())]).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) == len(ROWS) + 2
    assert lines[1].split()[0].endswith("..-0001")
    assert lines[1].index("FAILED 99 d ago") == lines[0].index("LAST RENEW")


def test_details_stand_below_their_row() -> None:
    """Full name, times, reasons: wrapped at 80 columns, and what could steer a terminal is shown, not done."""
    failure = f"the responder said \x1b[2J and {'then nothing more ' * 8}"
    asked = replace(PLAIN, renewal={"ari_retry_after": (NOW + 6 * HOUR).isoformat()})
    standing = standing_of(asked, record={"last_failure": failure})
    _, row, *details = formats.as_table([standing, standing_of()], is_detailed=True).splitlines()
    assert row.startswith(NAME)
    assert all(line.startswith("    ") for line in details[:14])
    assert max(map(len, details)) <= 80
    text = re.sub(r"\s+", " ", "\n".join(details))
    assert "\x1b" not in text
    assert r"2026-11-26 09:00 UTC, the responder said \x1b[2J and then nothing more" in text
    assert "expires 2027-01-29 12:00 UTC" in text
    assert "renewal from 2026-12-30 12:00 UTC on; the CA may name another time (ARI)" in text
    assert "asked again from 2026-11-26 18:00 UTC on" in text
    assert "staple until 2026-11-29 12:00 UTC" in text
    assert "last renew 2026-11-26 09:00 UTC, well" in text


@pytest.mark.parametrize("name", ROWS)
def test_colour_only_repeats_what_capitals_say(name: str) -> None:
    """Without the colour's sequences the text is the same, and each coloured cell has a word in capitals."""
    plain, coloured = (formats.as_table([ROWS[name][0]], is_coloured=is_coloured) for is_coloured in (False, True))
    cells = re.findall(r"\x1b\[31m(.*?)\x1b\[0m", coloured)
    assert [line.rstrip() for line in re.sub(r"\x1b\[\d+m", "", coloured).splitlines()] == plain.splitlines()
    wrong = [cell for cell in ROWS[name][1] if re.search("[A-Z]{3}", cell)]
    assert [cell.rstrip() for cell in cells] == wrong


@pytest.mark.parametrize(
    ("environment", "is_wanted"),
    [({}, True), ({"NO_COLOR": ""}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_colour_is_for_terminals_that_have_it(environment: Mapping[str, str], is_wanted: bool) -> None:
    """A pipe gets none; NO_COLOR and a dumb terminal turn it off."""
    ends = os.openpty()
    with open(ends[0], "rb"), open(ends[1], "w") as terminal:
        assert formats.wants_colour(terminal, environment) == is_wanted
    assert not formats.wants_colour(io.StringIO(), environment)


def test_damaged_lineages_come_last() -> None:
    """One sentence each."""
    assert formats.as_table([standing_of()], [Failure("office", "it is cut off")]).endswith("\noffice: it is cut off")


# --- JSON -------------------------------------------------------------------------------------------------------------


def test_json_says_when_renewals_are_due_and_came() -> None:
    """Times in UTC, and null for what never was."""
    (well,) = formats.as_json([standing_of()])["lineages"]
    assert well["begins"] == "2026-10-31T12:00:00Z"
    assert well["renewal_due"] == "2026-12-30T12:00:00Z"
    assert well["last_run"] == "2026-11-26T09:00:00Z"
    assert well["served_until"] == "2027-01-29T12:00:00Z"
    assert (well["last_failure"], well["ca_asked_from"]) == (None, None)
    asked = replace(PLAIN, renewal={"ari_retry_after": NOW.isoformat()})
    failed = standing_of(asked, record={"last_run": None, "last_failure": "why"}, served_until=None)
    (failed,) = formats.as_json([failed])["lineages"]
    keys = ("last_run", "last_failure", "ca_asked_from", "served_until")
    assert [failed[key] for key in keys] == [None, "why", "2026-11-26T12:00:00Z", None]


# --- Prometheus -------------------------------------------------------------------------------------------------------

_SAMPLE = re.compile(r'(certbot_seafile_\w+)\{(name|severity)="((?:[^"\\\n]|\\["\\n])*)"\} (-?\d+)')


def samples(text: str) -> dict[tuple[str, str], int]:
    """Return the samples of a text by metric and label value; each family is one group below its HELP and TYPE."""
    values: dict[tuple[str, str], int] = {}
    families: list[str] = []
    for line in text.removesuffix("\n").split("\n"):
        if header := re.fullmatch(r"# HELP (\w+) [^\\]+", line):
            families.append(header[1])
        elif line.startswith("#"):
            assert line == f"# TYPE {families[-1]} gauge"
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, line
            assert sample[1] == families[-1]
            assert (sample[1], sample[3]) not in values
            values[sample[1], sample[3]] = int(sample[4])
    assert len(set(families)) == len(families)
    return {(metric.removeprefix("certbot_seafile_"), label): value for (metric, label), value in values.items()}


def seconds(moment: datetime.datetime) -> int:
    """Return a time as Prometheus has it."""
    return int(moment.timestamp())


def test_every_metric_is_there_where_all_is_well() -> None:
    """Times in seconds since 1970, yes and no as 1 and 0, and the findings counted by severity."""
    assert samples(formats.as_prometheus([standing_of()], [FAULT, FAULT, WARNING, NOTE])) == {
        ("certificate_not_before_timestamp_seconds", NAME): seconds(PLAIN.not_before),
        ("certificate_not_after_timestamp_seconds", NAME): seconds(PLAIN.not_after),
        ("served_not_after_timestamp_seconds", NAME): seconds(PLAIN.not_after),
        ("served_matches", NAME): 1,
        ("staple_next_update_timestamp_seconds", NAME): seconds(NOW + 3 * DAY),
        ("renewal_due_timestamp_seconds", NAME): seconds(PLAIN.not_before + 60 * DAY),
        ("last_run_timestamp_seconds", NAME): seconds(NOW - 3 * HOUR),
        ("last_run_success", NAME): 1,
        ("findings", "fault"): 2,
        ("findings", "warning"): 1,
        ("findings", "note"): 1,
    }


#: What differs, and the samples that say so (None: there is none).
SAMPLES: Mapping[str, tuple[Standing, Mapping[str, int | None]]] = {
    "no staple": (standing_of(**BARE), {"staple_next_update_timestamp_seconds": None, "served_matches": 1}),
    "staple not served": (standing_of(is_stored=False), {"served_matches": 0}),
    "nothing served": (
        standing_of(failure="closed", served_until=None, **UNSERVED),
        {"served_matches": 0, "served_not_after_timestamp_seconds": None},
    ),
    "run failed": (standing_of(record={"last_failure": "why"}), {"last_run_success": 0}),
    "never run": (
        standing_of(record={"last_run": None}), {"last_run_success": None, "last_run_timestamp_seconds": None}
    ),
    "handed over": (standing_of(HANDED, served=HANDED), {"last_run_success": 1, "last_run_timestamp_seconds": None}),
    "undone": (
        standing_of(record={"is_undone": True}, **UNSERVED),
        {"served_matches": None, "served_not_after_timestamp_seconds": None},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_what_is_wrong_or_not_known_is_a_sample_or_none(name: str) -> None:
    """What is not known has no sample, so that no alert goes by a made-up value."""
    standing, wanted = SAMPLES[name]
    values = samples(formats.as_prometheus([standing], []))
    assert {metric: values.get((metric, NAME)) for metric in wanted} == wanted


def test_label_values_are_escaped() -> None:
    """Backslash, quote and line end, as the text format demands; a name cannot write a sample of its own."""
    text = formats.as_prometheus([standing_of(replace(PLAIN, name='a"b\\c\nd'))], [])
    assert ("served_matches", r"a\"b\\c\nd") in samples(text)


def test_a_machine_without_certificates_counts_its_findings() -> None:
    """No family without a sample."""
    severities = ("fault", "warning", "note")
    assert samples(formats.as_prometheus([], [])) == {("findings", severity): 0 for severity in severities}


@pytest.mark.parametrize("name", ["monitoring.md", "monitoring/alerts.yml", "monitoring/grafana.json"])
def test_pages_name_metrics_that_there_are(name: str) -> None:
    """The page names all of them; alerts and dashboard name no other, and the dashboard is JSON."""
    text = (DOCS / name).read_text(encoding="utf-8")
    known = {metric for metric, _ in samples(formats.as_prometheus([standing_of()], []))}
    named = set(re.findall(r"certbot_seafile_(\w+)", text))
    assert named == known if name == "monitoring.md" else named <= known
    assert not name.endswith(".json") or json.loads(text)["panels"]


# --- Nagios -----------------------------------------------------------------------------------------------------------

#: Exit code, what is found, how the lineages stand, and how the line begins.
STATES: Mapping[str, tuple[int, Iterable[Finding], Iterable[Standing], str]] = {
    "well": (0, [], [standing_of()], "SEAFILE HTTPS OK - all is well |"),
    "a note": (0, [NOTE], [standing_of()], "SEAFILE HTTPS OK - a crontab can go, so it hurts nobody; remove it. |"),
    "a fault": (1, [NOTE, FAULT], [standing_of()], "SEAFILE HTTPS WARNING - home.seafile.com: port 80 / 443 is shut"),
    "a warning": (1, [NOTE, WARNING], [standing_of()], "SEAFILE HTTPS WARNING - the name leads elsewhere"),
    "two faults": (
        1,
        [FAULT, FAULT],
        [standing_of()],
        "SEAFILE HTTPS WARNING - home.seafile.com: port 80 / 443 is shut",
    ),
    "not served": (2, [FAULT], [standing_of(failure="closed", **UNSERVED)], "SEAFILE HTTPS CRITICAL - "),
    "another served": (2, [FAULT], [standing_of(), standing_of(**UNSERVED)], "SEAFILE HTTPS CRITICAL - "),
    "served is expired": (2, [FAULT], [standing_of(served_until=NOW)], "SEAFILE HTTPS CRITICAL - "),
    "must-staple, unstapled": (2, [FAULT], [standing_of(DEMANDING, **BARE)], "SEAFILE HTTPS CRITICAL - "),
    "waits": (1, [FAULT], [standing_of(served=OLDER, **{**UNSERVED, "is_stapled": True})], "SEAFILE HTTPS WARNING - "),
    "undone": (0, [], [standing_of(record={"is_undone": True}, **UNSERVED)], "SEAFILE HTTPS OK - all is well |"),
    "nothing there": (3, [], [], "SEAFILE HTTPS UNKNOWN - no certificate uses the seafile plugin |"),
    "all damaged": (1, [FAULT], [], "SEAFILE HTTPS WARNING - "),
}


@pytest.mark.parametrize("name", STATES)
def test_nagios_is_told_in_one_line(name: str) -> None:
    """Clients are hurt now: 2; they will be: 1; else 0; nothing to look at: 3. One bar parts text and data."""
    wanted, told, standings, beginning = STATES[name]
    code, line = formats.as_nagios([*told], [*standings])
    assert code == wanted
    assert line.startswith(beginning)
    text, data = line.split("|")
    assert "\n" not in line
    assert all(re.fullmatch(r"'[^'=]+'=-?\d+s|(?:fault|warning|note)s=\d+", word) for word in data.split())
    assert text.rstrip().endswith("(and 1 more)") == (name == "two faults")


def test_performance_data_are_seconds_left_and_counts() -> None:
    """Of the certificate and its staple, by the certificate's name."""
    _, line = formats.as_nagios([FAULT, NOTE], [standing_of()])
    assert line.endswith(f"| '{NAME}_expiry'={64 * 86400}s '{NAME}_staple'={3 * 86400}s faults=1 warnings=0 notes=1")
