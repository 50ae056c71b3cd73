"""How things stand: facts about a lineage, as a table, as JSON, and as sentences about what is wrong.

The law: nothing here changes anything.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from certbot_seafile import errors, lineage, probe, serving, staple, stapling
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage

JSON_SCHEMA = 1


@dataclass(frozen=True)
class Standing:
    """One lineage's facts at one moment; times are aware and UTC."""

    lineage: Lineage
    expires: datetime.datetime
    staple: staple.Staple | None
    served: Served
    now: datetime.datetime

    @property
    def next_action(self) -> str:
        """Return what the next `certbot renew` will do for the lineage, or what a person should."""
        if not self.served.is_current:
            return "deploy: the certificate on disk is not the one served"
        if stapling.why_unstapled(self.lineage) is None and self.staple is None:
            return "fetch a staple"
        if self.staple is not None:
            return f"refresh the staple after {staple.half_way(self.staple):%Y-%m-%d %H:%M} UTC"
        return "nothing until renewal"


@dataclass(frozen=True)
class Served:
    """What TLS clients are handed: whether it is the lineage's leaf, whether stapled, and why nothing came."""

    is_current: bool
    is_stapled: bool
    failure: str | None = None


def standing(host: Host, found: Lineage) -> Standing:
    """Gather the facts of one lineage; nothing is changed, and no responder is asked."""
    now = host.now()
    return Standing(found, not_after(found.leaf), stapling.stored_staple(found, now), served(host, found), now)


def served(host: Host, found: Lineage) -> Served:
    """Look at every TLS listen address of the lineage's site."""
    try:
        where = serving.find_site(host, found.names)
        looks = [
            probe.handshake(endpoint, name)
            for name in found.names
            for endpoint in serving.endpoints(where.tls, tls=True)
        ]
    except errors.Error as error:
        return Served(False, False, str(error))
    if not looks:
        return Served(False, False, "no server block of the site speaks TLS")
    return Served(
        all(look.leaf_der == found.leaf_der for look in looks), all(look.staple is not None for look in looks)
    )


def not_after(certificate: x509.Certificate) -> datetime.datetime:
    """Return when the certificate expires, aware, UTC (cryptography below 42 has only the naive attribute)."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_after_utc
    return certificate.not_valid_after.replace(tzinfo=datetime.UTC)


def as_json(standings: Sequence[Standing]) -> dict[str, Any]:
    """Return the facts for monitoring; docs/reference describes the schema."""
    return {"schema": JSON_SCHEMA, "lineages": [_fields(one) for one in standings]}


def _fields(one: Standing) -> dict[str, Any]:
    found, kept = one.lineage, one.staple
    return {
        "name": found.name,
        "names": list(found.names),
        "expires": _time(one.expires),
        "serial": f"{found.leaf.serial_number:x}",
        "sha256": found.leaf.fingerprint(hashes.SHA256()).hex(),
        "ocsp_url": found.responder_url,
        "must_staple": found.is_must_staple,
        "staple": None
        if kept is None
        else {
            "this_update": _time(kept.this_update),
            "next_update": _time(kept.next_update),
            "end": _time(kept.end),
            "seconds_left": int((kept.end - one.now).total_seconds()),
        },
        "served": {
            "current": one.served.is_current,
            "stapled": one.served.is_stapled,
            "failure": one.served.failure,
        },
        "next_action": one.next_action,
    }


def _time(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def as_table(standings: Sequence[Standing]) -> str:
    """Return the facts as a table for people, one row a lineage."""
    rows: list[tuple[str, ...]] = [
        ("LINEAGE", "NAMES", "EXPIRES IN", "OCSP RESPONDER", "MUST-STAPLE", "STAPLE LEFT", "SERVED", "NEXT")
    ]
    rows += [_row(one) for one in standings]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(one: Standing) -> tuple[str, ...]:
    served_now = "no" if not one.served.is_current else "yes, stapled" if one.served.is_stapled else "yes, unstapled"
    return (
        one.lineage.name,
        ",".join(one.lineage.names),
        _span(one.expires - one.now),
        one.lineage.responder_url or "none",
        "yes" if one.lineage.is_must_staple else "no",
        _span(one.staple.end - one.now) if one.staple else "-",
        served_now,
        one.next_action,
    )


def _span(span: datetime.timedelta) -> str:
    hours = int(span.total_seconds() // 3600)
    if hours < 0:
        return "expired"
    return f"{hours // 24} d" if hours >= 72 else f"{hours} h"


def faults(host: Host, found: Lineage) -> list[str]:
    """Return what is wrong with a lineage, each a sentence that says what to do; [] where nothing is."""
    wrong: list[str] = []
    one = standing(host, found)
    if one.served.failure:
        wrong.append(f"{found.name}: {one.served.failure}.")
    elif not one.served.is_current:
        wrong.append(
            f"{found.name}: the certificate on disk is not the one served; "
            f"run `certbot-seafile deploy --cert-name {found.name}`."
        )
    wrong += _staple_faults(one)
    wrong += _renewal_faults(found)
    return wrong


def _staple_faults(one: Standing) -> list[str]:
    found = one.lineage
    if stapling.why_unstapled(found) is not None:
        return []
    if one.staple is None:
        return [f"{found.name}: there is no valid staple; run `certbot-seafile refresh --cert-name {found.name}`."]
    if one.served.is_current and not one.served.is_stapled:
        return [
            f"{found.name}: a staple is stored but not served: no line of the site includes {found.snippet_path}; "
            f"run `certbot-seafile deploy --cert-name {found.name}`."
        ]
    return []


def _renewal_faults(found: Lineage) -> list[str]:
    wrong = []
    if found.renewal.get("installer") != lineage.PLUGIN_NAME:
        wrong.append(
            f"{found.name}: {found.renewal_path} names no installer, so `certbot renew` will not refresh the staple; "
            f"run `certbot-seafile deploy --cert-name {found.name}`."
        )
    hooks = (found.renewal.get("renew_hook") or "") + (found.renewal.get("deploy_hook") or "")
    if f"{lineage.PLUGIN_COMMAND}" not in hooks:
        wrong.append(
            f"{found.name}: {found.renewal_path} has no deploy hook of ours; "
            f"run `certbot-seafile deploy --cert-name {found.name}`."
        )
    if not os.path.exists(found.key_path):
        wrong.append(f"{found.name}: the key {found.key_path} is missing; run `certbot renew --force-renewal`.")
    return wrong
