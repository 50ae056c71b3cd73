"""How lineages stand: a table for people, JSON, a textfile for Prometheus, a line for Nagios.

The law: facts in, text out; nothing is found out here. What is wrong is in capitals in the table; colour only repeats
that.
"""

from __future__ import annotations

import datetime
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TextIO

from cryptography.hazmat.primitives import hashes

from certbot_seafile.doctor import findings
from certbot_seafile.doctor.findings import moment
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import apply
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import find
from certbot_seafile.usecases.boundary import Failure
from certbot_seafile.usecases.status import LATE_AFTER, Standing

# --- JSON -------------------------------------------------------------------------------------------------------------

JSON_SCHEMA = 1


def as_json(standings: Sequence[Standing], damaged: Sequence[Failure] = ()) -> dict[str, Any]:
    """Return the facts for monitoring; docs/reference.md has each key with its type and meaning.

    The schema's promise: within one "schema" number, keys are added but never renamed, removed or given another type.
    """
    return {
        "schema": JSON_SCHEMA,
        "lineages": [_fields(standing) for standing in standings],
        "damaged": [{"name": failure.name, "failure": failure.reason} for failure in damaged],
    }


def _fields(standing: Standing) -> dict[str, Any]:
    lineage, staple, earlier = standing.lineage, standing.staple, standing.earlier
    return {
        "name": lineage.name,
        "names": list(lineage.names),
        "expires": _time(lineage.not_after),
        "seconds_left": int((lineage.not_after - standing.now).total_seconds()),
        "begins": _time(lineage.not_before),
        "renewal_due": _time(standing.renewal_due),
        "ca_asked_from": standing.ca_asked_from and _time(standing.ca_asked_from),
        "last_run": standing.last_run and _time(standing.last_run),
        "last_failure": standing.record.last_failure,
        "serial": f"{lineage.leaf.serial_number:x}",
        "sha256": lineage.leaf.fingerprint(hashes.SHA256()).hex(),
        "key_type": lineage.key_type,
        "ocsp_url": lineage.responder_url,
        "must_staple": lineage.is_must_staple,
        "stapling": lineage.options.stapling,
        "staple": None if staple is None else {
            "this_update": _time(staple.this_update),
            "next_update": _time(staple.next_update),
            "end": _time(staple.end),
            "due": _time(standing.due),
            "seconds_left": int((staple.end - standing.now).total_seconds()),
        },
        "served": {
            "current": standing.is_current,
            "stapled": standing.is_stapled,
            "stored_staple": standing.is_stored,
            "failure": standing.failure,
        },
        "served_until": standing.served_until and _time(standing.served_until),
        "revoked": standing.record.revocation,
        "pinned": None if earlier is None else {
            "serial": f"{earlier.leaf.serial_number:x}", "expires": _time(earlier.not_after)
        },
        "sealed": standing.served is not None,
        "next_action": standing.next_action,
    }  # fmt: skip


def _time(at: datetime.datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"


# --- the table --------------------------------------------------------------------------------------------------------

_WIDTH = 80
_HEADER = ("CERTIFICATE", "EXPIRES", "RENEWAL", "LAST RENEW", "STAPLE", "SERVED")
_GAP = "  "
_NAME_END = 5  # characters of a long name that stay: certbot's -0001, or the top-level domain
_WRONG = re.compile(r"\b[A-Z]{3,}")
_RED, _PLAIN = "\x1b[31m", "\x1b[0m"


def wants_colour(stream: TextIO, environment: Mapping[str, str]) -> bool:
    """Tell whether colour is wanted: on a terminal that has it, unless NO_COLOR is set (no-color.org)."""
    return stream.isatty() and not environment.get("NO_COLOR") and environment.get("TERM") != "dumb"


def as_table(
    standings: Sequence[Standing],
    damaged: Sequence[Failure] = (),
    *,
    is_detailed: bool = False,
    is_coloured: bool = False,
) -> str:
    """Return the facts as a table for people, one row of at most 80 columns a lineage.

    is_detailed: with what there is to know below each row. Last come the lineages that cannot be read.
    """
    rows = [_row(standing) for standing in standings]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]
    widths[0] = min(widths[0], _WIDTH - sum(len(_GAP) + width for width in widths[1:]))
    lines = [_line(_HEADER, widths, is_coloured=False)]
    for standing, row in zip(standings, rows, strict=True):
        lines += [_line(row, widths, is_coloured), *(_details(standing) if is_detailed else ())]
    return "\n".join([*lines, *map(str, damaged)])


def _line(row: Sequence[str], widths: Sequence[int], is_coloured: bool) -> str:
    name, *cells = row
    if len(name) > widths[0]:
        name = f"{name[: widths[0] - _NAME_END - 2]}..{name[-_NAME_END:]}"
    padded = [cell.ljust(width) for cell, width in zip(cells, widths[1:], strict=True)]
    if is_coloured:
        padded = [f"{_RED}{cell}{_PLAIN}" if _WRONG.search(cell) else cell for cell in padded]
    return _GAP.join([name.ljust(widths[0]), *padded]).rstrip()


def _row(standing: Standing) -> tuple[str, ...]:
    left, share = standing.lineage.not_after - standing.now, standing.share_left
    expiry = f"{_span(left)} {share:.0%}" if share > 0 else "EXPIRED"
    cells = _renewal_cell(standing), _run_cell(standing), _staple_cell(standing), _served_cell(standing)
    return (standing.lineage.name, expiry, *cells)


def _renewal_cell(standing: Standing) -> str:
    if isinstance(standing.lineage, Version) and not standing.lineage.for_names:
        return "NEVER"  # certbot knows it no more
    if standing.is_renewal_late:
        return "LATE"
    return "due" if standing.renewal_due <= standing.now else f"in {_span(standing.renewal_due - standing.now)}"


def _run_cell(standing: Standing) -> str:
    if standing.last_run is None:
        return "FAILED" if standing.record.last_failure else "-"
    age = standing.now - standing.last_run
    if standing.record.last_failure:
        return f"FAILED {_span(age)} ago"
    return f"{'LATE' if age > LATE_AFTER else 'ok'} {_span(age)} ago"


def _staple_cell(standing: Standing) -> str:
    if standing.record.revocation is not None:
        return "REVOKED"
    if standing.staple is None:
        is_wanted = not standing.record.is_undone and store.why_unstapled(standing.lineage) is None
        return "NONE" if is_wanted else "-"
    return _span(standing.staple.end - standing.now)


def _served_cell(standing: Standing) -> str:
    if standing.record.is_undone:
        return "undone"
    if standing.failure:
        return "NOTHING"
    if standing.site is not None and find.front(standing.site):
        return "in front"  # where nobody can look from here
    if standing.earlier is not None:
        return "the one BEFORE"
    if not standing.is_current:
        return "ANOTHER one"
    if standing.is_stored:
        return "yes, stapled"
    if standing.is_stapled:
        return "OTHER staple"
    return "yes" if standing.staple is None else "yes, UNSTAPLED"


def _span(span: datetime.timedelta) -> str:
    hours = max(0, int(span.total_seconds() // 3600))
    days = hours // 24
    return f"{days // 365} y" if days >= 730 else f"{days} d" if days >= 3 else f"{hours} h"


def _details(standing: Standing) -> Iterator[str]:
    """Yield the lines below a row: a label and a text each, which is wrapped, but for paths and options."""
    lineage, record, staple, asked = standing.lineage, standing.record, standing.staple, standing.ca_asked_from
    sooner = f"; the CA may name another time (ARI), and is asked again from {moment(asked)} on" if asked else ""
    run = f"{moment(standing.last_run)}, " if standing.last_run else ""
    texts = {
        "names": ", ".join(lineage.names),
        "key": f"{lineage.key_type}, serial number {lineage.leaf.serial_number:x}",
        "expires": moment(lineage.not_after),
        "renewal": f"from {moment(standing.renewal_due)} on{sooner}",
        "last renew": run + (record.last_failure or ("well" if run else "-")),
        "responder": lineage.responder_url or "none",
        "must-staple": "yes" if lineage.is_must_staple else "no",
        "staple": record.revocation or (f"until {moment(staple.end)}" if staple else _staple_cell(standing)),
        "served": standing.failure or _served_cell(standing),
        "next": standing.next_action,
    }
    wrapper = textwrap.TextWrapper(_WIDTH, break_long_words=False, break_on_hyphens=False)
    for label, text in texts.items():
        wrapper.initial_indent = f"    {label:<12}"
        wrapper.subsequent_indent = " " * len(wrapper.initial_indent)
        yield wrapper.fill(apply.escaped(text))


# --- Prometheus -------------------------------------------------------------------------------------------------------

_Value = datetime.datetime | int | None


def _metrics(standing: Standing) -> Iterator[tuple[str, str, _Value]]:
    """Yield each metric: its name behind certbot_seafile_, what it says, and its value (None: no sample)."""
    lineage, record = standing.lineage, standing.record
    yield "certificate_not_before_timestamp_seconds", "When the stored certificate began to hold.", lineage.not_before
    yield "certificate_not_after_timestamp_seconds", "When the stored certificate expires.", lineage.not_after
    meaning = "When the first of the certificates that TLS clients are handed expires."
    yield "served_not_after_timestamp_seconds", meaning, None if record.is_undone else standing.served_until
    meaning = "1 where TLS clients are handed the stored certificate, with the stored staple where there is one."
    is_as_stored = standing.is_current and (standing.staple is None or standing.is_stored)
    yield "served_matches", meaning, None if record.is_undone else is_as_stored
    meaning = "When the CA promises a newer OCSP response than the stored staple."
    yield "staple_next_update_timestamp_seconds", meaning, standing.staple.next_update if standing.staple else None
    yield "renewal_due_timestamp_seconds", "From when on certbot renews the certificate.", standing.renewal_due
    yield "last_run_timestamp_seconds", "When certbot renew last came by.", standing.last_run
    meaning = "1 where the last certbot renew, or certbot-seafile apply, ended well for the certificate."
    yield "last_run_success", meaning, None if record.last_run is None else record.last_failure is None


def as_prometheus(standings: Sequence[Standing], results: Sequence[findings.Finding]) -> str:
    """Return the facts in Prometheus' text format, version 0.0.4, without times of the samples.

    results: what is wrong on the whole machine; it is counted by severity.
    """
    families: dict[tuple[str, str], dict[str, _Value]] = {}
    for standing in standings:
        for metric, meaning, value in _metrics(standing):
            families.setdefault((metric, meaning), {})[standing.lineage.name] = value
    lines = [line for family, samples in families.items() for line in _family(*family, "name", samples)]
    lines += _family("findings", "How many things certbot-seafile check tells.", "severity", _counts(results))
    return "\n".join([*lines, ""])


def _family(metric: str, meaning: str, label: str, samples: Mapping[str, _Value]) -> Iterator[str]:
    known = {name: value for name, value in samples.items() if value is not None}
    if known:
        yield f"# HELP certbot_seafile_{metric} {meaning}"
        yield f"# TYPE certbot_seafile_{metric} gauge"
    for name, value in known.items():
        quoted = name.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        number = value.timestamp() if isinstance(value, datetime.datetime) else value
        yield f'certbot_seafile_{metric}{{{label}="{quoted}"}} {int(number)}'


def _counts(results: Sequence[findings.Finding]) -> dict[str, int]:
    severities = [finding.severity for finding in results]
    return {each: severities.count(each) for each in (findings.FAULT, findings.WARNING, findings.NOTE)}


# --- Nagios -----------------------------------------------------------------------------------------------------------

#: By exit code.
_STATES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


def as_nagios(results: Sequence[findings.Finding], standings: Sequence[Standing]) -> tuple[int, str]:
    """Return exit code and line of a monitoring plugin, with performance data (Nagios' plugin guidelines).

    0: there are notes at most; 1: something may hurt, or will with time; 2: clients are hurt now; 3: there is nothing
    to look at.
    """
    told = [finding.text for finding in results if finding.severity != findings.NOTE]
    state = "WARNING" if told else "OK" if standings else "UNKNOWN"
    state = "CRITICAL" if any(map(_is_hurting, standings)) else state
    nothing = "all is well" if standings else "no certificate uses the seafile plugin"
    told = told or [finding.text for finding in results] or [nothing]
    more = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    line = apply.escaped(f"{told[0]}{more}".replace("|", "/"))
    data = " ".join(_performance(results, standings))
    return _STATES.index(state), f"SEAFILE HTTPS {state} - {line} | {data}"


def _is_hurting(standing: Standing) -> bool:
    """Tell whether clients are refused, or handed what they were not to be handed, right now."""
    is_bare = standing.lineage.is_must_staple and not standing.is_stapled
    is_over = standing.served_until is not None and standing.served_until <= standing.now
    is_wrong = not standing.is_current and standing.earlier is None
    return not standing.record.is_undone and (bool(standing.failure) or is_wrong or is_over or is_bare)


def _performance(results: Sequence[findings.Finding], standings: Sequence[Standing]) -> Iterator[str]:
    for standing in standings:
        yield f"'{standing.lineage.name}_expiry'={int((standing.lineage.not_after - standing.now).total_seconds())}s"
        if standing.staple is not None:
            yield f"'{standing.lineage.name}_staple'={int((standing.staple.end - standing.now).total_seconds())}s"
    yield from (f"{severity}s={count}" for severity, count in _counts(results).items())
