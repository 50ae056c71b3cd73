"""How lineages stand: facts at one moment, as a table for people and as JSON for monitoring.

The law: nothing here changes anything, asks a responder, or judges; what is wrong is said in check.py.
"""

from __future__ import annotations

import datetime
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from certbot_seafile import errors
from certbot_seafile.ocsp import staple, store
from certbot_seafile.sealed import pinning
from certbot_seafile.system import handshake, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage

JSON_SCHEMA = 1
_NAMES_IN_TABLE = 2


@dataclass(frozen=True)
class Served:
    """What TLS clients are handed now, over all names and listen addresses of a lineage.

    is_current: always the lineage's leaf. is_stapled: always with an OCSP response. is_stored: always with the stored
    one. failure: why nobody could look; then the three are False.
    """

    is_current: bool = False
    is_stapled: bool = False
    is_stored: bool = False
    failure: str | None = None


@dataclass(frozen=True)
class Standing:
    """One lineage's facts at one moment; times are aware and UTC.

    pinned: the version before, where the site keeps that until the newest has its staple.
    """

    lineage: Lineage
    staple: staple.Staple | None
    last_success: datetime.datetime | None
    served: Served
    now: datetime.datetime
    revocation: str | None = None
    pinned: pinning.Pinned | None = None

    @property
    def due(self) -> datetime.datetime:
        """Return when the staple is due: `certbot renew` replaces it from then on."""
        if self.staple is None or self.last_success is None:
            return self.now
        return min(staple.half_way(self.staple), self.last_success + staple.REFRESH_AFTER)

    @property
    def next_action(self) -> str:
        """Return what the next `certbot renew` will do for the lineage, or what a person should."""
        if self.pinned is not None:
            return "renew: fetch a staple, then serve it"
        if self.served.failure or not self.served.is_current:
            return "you: run `certbot-seafile check`"
        if self.revocation is not None:
            return "you: get a new certificate with --force-renewal"
        if store.why_unstapled(self.lineage) is not None:
            return "none until certbot renews it"
        if self.staple is None:
            return "renew: fetch a staple"
        if not self.served.is_stored:
            return "you: run `certbot-seafile check`"
        if self.due <= self.now:
            return "renew: refresh the staple"
        return f"renew: refresh the staple from {self.due:%Y-%m-%d %H:%M} UTC on"


@dataclass(frozen=True)
class Damaged:
    """A lineage that cannot be read, and why."""

    name: str
    failure: str


def standing(context: Context, lineage: Lineage) -> Standing:
    """Gather the facts of one lineage; nothing is changed, and no responder is asked."""
    now = context.now()
    stored = store.stored_staple(lineage, now)
    seen = served(context, lineage, stored)
    pinned = None if seen.failure or seen.is_current else pinning.pinned(context, lineage)
    return Standing(lineage, stored, store.last_success(lineage), seen, now, store.revocation(lineage), pinned)


def served(context: Context, lineage: Lineage, stored: staple.Staple | None) -> Served:
    """Look at every TLS listen address of the lineage's site."""
    try:
        looks = [look for _, _, look in serving.looks(context, lineage, serving.find_site(context, lineage.names))]
    except errors.Error as error:
        return Served(failure=str(error))
    if not looks:
        return Served(failure="no server block of the site speaks TLS")
    return Served(
        is_current=all(look.leaf_der == lineage.leaf_der for look in looks),
        is_stapled=all(look.staple is not None for look in looks),
        is_stored=all(_is_stored(look, stored) for look in looks),
    )


def _is_stored(look: handshake.Look, stored: staple.Staple | None) -> bool:
    return stored is not None and look.staple == stored.response


def as_json(standings: Sequence[Standing], damaged: Sequence[Damaged] = ()) -> dict[str, Any]:
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
        "damaged": [{"name": one.name, "failure": one.failure} for one in damaged],
    }


def _fields(standing: Standing) -> dict[str, Any]:
    found = standing.lineage
    return {
        "name": found.name,
        "names": list(found.names),
        "expires": _time(found.not_after),
        "seconds_left": _seconds(found.not_after - standing.now),
        "serial": f"{found.leaf.serial_number:x}",
        "sha256": found.fingerprint.hex(),
        "key_type": found.key_type,
        "ocsp_url": found.responder_url,
        "must_staple": found.is_must_staple,
        "stapling": found.options.stapling,
        "staple": _staple_fields(standing),
        "served": {
            "current": standing.served.is_current,
            "stapled": standing.served.is_stapled,
            "stored_staple": standing.served.is_stored,
            "failure": standing.served.failure,
        },
        "revoked": standing.revocation,
        "pinned": _pinned_fields(standing),
        "next_action": standing.next_action,
    }


def _staple_fields(standing: Standing) -> dict[str, Any] | None:
    kept = standing.staple
    if kept is None:
        return None
    return {
        "this_update": _time(kept.this_update),
        "next_update": _time(kept.next_update),
        "end": _time(kept.end),
        "due": _time(standing.due),
        "seconds_left": _seconds(kept.end - standing.now),
    }


def _pinned_fields(standing: Standing) -> dict[str, Any] | None:
    if standing.pinned is None:
        return None
    return {"serial": f"{standing.pinned.leaf.serial_number:x}", "expires": _time(standing.pinned.not_after)}


def _time(moment: datetime.datetime) -> str:
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(span: datetime.timedelta) -> int:
    return int(span.total_seconds())


def as_table(standings: Sequence[Standing], damaged: Sequence[Damaged] = ()) -> str:
    """Return the facts as a table for people, one row a lineage; below it the lineages that cannot be read."""
    rows: list[tuple[str, ...]] = [
        ("LINEAGE", "NAMES", "EXPIRES IN", "RESPONDER", "MUST-STAPLE", "STAPLE LEFT", "SERVED NOW", "NEXT")
    ]
    rows += [_row(one) for one in standings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *(f"{one.name}: {one.failure}" for one in damaged)])


def _row(standing: Standing) -> tuple[str, ...]:
    found = standing.lineage
    more = len(found.names) - _NAMES_IN_TABLE
    names = ", ".join(found.names[:_NAMES_IN_TABLE]) + (f" +{more}" if more > 0 else "")
    url = found.responder_url
    return (
        found.name,
        names,
        _span(found.not_after - standing.now),
        (urllib.parse.urlsplit(url).hostname or url) if url else "none",
        "yes" if found.is_must_staple else "no",
        _staple_cell(standing),
        _served_cell(standing),
        standing.next_action,
    )


def _staple_cell(standing: Standing) -> str:
    if standing.revocation is not None:
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
