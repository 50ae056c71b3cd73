"""How lineages stand, as a table for people and as JSON for monitoring.

The law: facts in, text out; nothing is found out here.
"""

from __future__ import annotations

import datetime
import urllib.parse
from collections.abc import Sequence
from typing import Any

from certbot_seafile.ocsp import store
from certbot_seafile.usecases.boundary import Failure
from certbot_seafile.usecases.status import Standing

JSON_SCHEMA = 1
_NAMES_IN_TABLE = 2


def as_json(standings: Sequence[Standing], damaged: Sequence[Failure] = ()) -> dict[str, Any]:
    """Return the facts for monitoring.

    The schema's promise: within one "schema" number, keys are added but never renamed, removed or given another type.
    Times are RFC 3339 in UTC ("2026-11-23T12:00:00Z"), spans are whole seconds (negative once over), digests lower-case
    hexadecimal.

    schema (int) 1; lineages (list), of each: name, names (list of str), expires (time), seconds_left, serial (hex),
    sha256 (of the leaf's DER), key_type ("rsa", "ecdsa", "other"), ocsp_url (str or null), must_staple (bool),
    stapling ("auto", "off"), staple (null, where there is none that is good, or this_update, next_update, end, due
    (times) and seconds_left (until end)), served (current, stapled, stored_staple (bools), failure (str or null)),
    revoked (null, or str: when and why the CA revoked the certificate), pinned (null, or serial and expires of the
    certificate before, where the site keeps that), next_action (str, for people); damaged (list) of lineages that
    cannot be read, of each: name, failure.
    """
    return {
        "schema": JSON_SCHEMA,
        "lineages": [_fields(one) for one in standings],
        "damaged": [{"name": one.name, "failure": one.reason} for one in damaged],
    }


def _fields(standing: Standing) -> dict[str, Any]:
    lineage = standing.lineage
    return {
        "name": lineage.name,
        "names": list(lineage.names),
        "expires": _time(lineage.not_after),
        "seconds_left": _seconds(lineage.not_after - standing.now),
        "serial": f"{lineage.leaf.serial_number:x}",
        "sha256": lineage.fingerprint.hex(),
        "key_type": lineage.key_type,
        "ocsp_url": lineage.responder_url,
        "must_staple": lineage.is_must_staple,
        "stapling": lineage.options.stapling,
        "staple": _staple_fields(standing),
        "served": {
            "current": standing.served.is_current,
            "stapled": standing.served.is_stapled,
            "stored_staple": standing.served.is_stored,
            "failure": standing.served.failure,
        },
        "revoked": standing.record.revocation,
        "pinned": _pinned_fields(standing),
        "next_action": standing.next_action,
    }


def _staple_fields(standing: Standing) -> dict[str, Any] | None:
    staple = standing.staple
    if staple is None:
        return None
    return {
        "this_update": _time(staple.this_update),
        "next_update": _time(staple.next_update),
        "end": _time(staple.end),
        "due": _time(standing.due),
        "seconds_left": _seconds(staple.end - standing.now),
    }


def _pinned_fields(standing: Standing) -> dict[str, Any] | None:
    if standing.pinned is None:
        return None
    return {"serial": f"{standing.pinned.leaf.serial_number:x}", "expires": _time(standing.pinned.not_after)}


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(span: datetime.timedelta) -> int:
    return int(span.total_seconds())


def as_table(standings: Sequence[Standing], damaged: Sequence[Failure] = ()) -> str:
    """Return the facts as a table for people, one row a lineage; below it the lineages that cannot be read."""
    rows: list[tuple[str, ...]] = [
        ("LINEAGE", "NAMES", "EXPIRES IN", "RESPONDER", "MUST-STAPLE", "STAPLE LEFT", "SERVED NOW", "NEXT")
    ]
    rows += [_row(one) for one in standings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *map(str, damaged)])


def _row(standing: Standing) -> tuple[str, ...]:
    lineage = standing.lineage
    more = len(lineage.names) - _NAMES_IN_TABLE
    names = ", ".join(lineage.names[:_NAMES_IN_TABLE]) + (f" +{more}" if more > 0 else "")
    url = lineage.responder_url
    return (
        lineage.name,
        names,
        _span(lineage.not_after - standing.now),
        (urllib.parse.urlsplit(url).hostname or url) if url else "none",
        "yes" if lineage.is_must_staple else "no",
        _staple_cell(standing),
        _served_cell(standing),
        standing.next_action,
    )


def _staple_cell(standing: Standing) -> str:
    if standing.record.revocation is not None:
        return "REVOKED"
    if standing.staple is None:
        return "none" if store.why_unstapled(standing.lineage) is None else "-"
    return f"{_span(standing.staple.end - standing.now)} of {_span(standing.staple.end - standing.staple.this_update)}"


def _served_cell(standing: Standing) -> str:
    if standing.served.failure:
        return "nothing"
    if standing.pinned is not None:
        return "the one BEFORE"
    if not standing.served.is_current:
        return "ANOTHER certificate"
    if standing.served.is_stored:
        return "yes, stapled"
    return "yes, ANOTHER staple" if standing.served.is_stapled else "yes, unstapled"


def _span(span: datetime.timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    if hours < 0:
        return "over"
    return f"{hours // 24} d" if hours >= 72 else f"{hours} h"
