"""How lineages stand, as a table and as JSON.

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
        "serial": f"{lineage.leaf.serial_number:x}",
        "sha256": lineage.fingerprint.hex(),
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
        "revoked": standing.record.revocation,
        "pinned": None if earlier is None else {
            "serial": f"{earlier.leaf.serial_number:x}", "expires": _time(earlier.not_after)
        },
        "sealed": standing.served is not None,
        "next_action": standing.next_action,
    }  # fmt: skip


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def as_table(standings: Sequence[Standing], damaged: Sequence[Failure] = ()) -> str:
    """Return the facts as a table for people, one row a lineage; below it the lineages that cannot be read."""
    rows: list[tuple[str, ...]] = [
        ("LINEAGE", "NAMES", "EXPIRES IN", "RESPONDER", "MUST-STAPLE", "STAPLE LEFT", "SERVED NOW", "NEXT")
    ]
    rows += [_row(standing) for standing in standings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *map(str, damaged)])


def _row(standing: Standing) -> tuple[str, ...]:
    lineage = standing.lineage
    more = len(lineage.names) - _NAMES_IN_TABLE
    names = ", ".join(lineage.names[:_NAMES_IN_TABLE]) + (f" +{more}" if more > 0 else "")
    url = lineage.responder_url
    responder = _host(url) if url else "none"
    must_staple = "yes" if lineage.is_must_staple else "no"
    cells = _staple_cell(standing), _served_cell(standing), standing.next_action
    return (lineage.name, names, _span(lineage.not_after - standing.now), responder, must_staple, *cells)


def _host(url: str) -> str:
    """Return a URL's host; the URL itself where it has none, or is none."""
    try:
        return urllib.parse.urlsplit(url).hostname or url
    except ValueError:
        return url


def _staple_cell(standing: Standing) -> str:
    if standing.record.revocation is not None:
        return "REVOKED"
    if standing.staple is None:
        return "none" if store.why_unstapled(standing.lineage) is None else "-"
    return f"{_span(standing.staple.end - standing.now)} of {_span(standing.staple.end - standing.staple.this_update)}"


def _served_cell(standing: Standing) -> str:
    if standing.failure:
        return "nothing"
    if standing.earlier is not None:
        return "the one BEFORE"
    if not standing.is_current:
        return "ANOTHER certificate"
    if standing.is_stored:
        return "yes, stapled"
    return "yes, ANOTHER staple" if standing.is_stapled else "yes, unstapled"


def _span(span: datetime.timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    if hours < 0:
        return "over"
    return f"{hours // 24} d" if hours >= 72 else f"{hours} h"
