"""How lineages stand: facts at one moment.

The law: nothing here changes anything, asks a responder, or judges; what is wrong is told by the doctor.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import pinning
from certbot_seafile.site import plan
from certbot_seafile.system import records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage


@dataclass(frozen=True)
class Served:
    """What TLS clients are handed now, over all names and listen addresses of a lineage.

    is_current: always the lineage's leaf. is_stapled: always with an OCSP response. is_stored: always with the stored
    one. failure: why no handshake could be made; then the three are False.
    """

    is_current: bool = False
    is_stapled: bool = False
    is_stored: bool = False
    failure: str | None = None


@dataclass(frozen=True)
class Standing:
    """One lineage's facts at one moment; times are aware and UTC.

    site: None where there is no one site for it; then served.failure says why. pinned: the earlier version, where the
    site keeps that until the newest has its staple.
    """

    lineage: Lineage
    site: plan.Site | None
    staple: verify.Staple | None
    record: records.Record
    served: Served
    now: datetime.datetime
    pinned: pinning.Pinned | None = None

    @property
    def due(self) -> datetime.datetime:
        """Return when the staple is due: `certbot renew` replaces it from then on."""
        if self.staple is None or self.record.last_success is None:
            return self.now
        return min(verify.half_way(self.staple), self.record.last_success + verify.REFRESH_AFTER)

    @property
    def next_action(self) -> str:
        """Return what the next `certbot renew` will do for the lineage, or what a person should."""
        if self.pinned is not None:
            return "renew: fetch a staple, then serve it"
        if self.served.failure or not self.served.is_current:
            return "you: run `certbot-seafile check`"
        if self.record.revocation is not None:
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


def standing(context: Context, lineage: Lineage) -> Standing:
    """Gather the facts of one lineage; nothing is changed, and no responder is asked."""
    now = context.now()
    staple, record = store.stored_staple(lineage, now), records.load(context.state_dir, lineage)
    try:
        site = serving.find_site(context, lineage.names)
    except errors.Error as error:
        return Standing(lineage, None, staple, record, Served(failure=str(error)), now)
    served = _served(context, lineage, site, staple)
    pinned = None if served.failure or served.is_current else pinning.pinned(context, lineage)
    return Standing(lineage, site, staple, record, served, now, pinned)


def _served(context: Context, lineage: Lineage, site: plan.Site, staple: verify.Staple | None) -> Served:
    """Make a TLS handshake with every listen address of the lineage's site."""
    try:
        handshakes = [seen for _, _, seen in serving.handshakes(context, lineage, site)]
    except errors.Error as error:
        return Served(failure=str(error))
    if not handshakes:
        return Served(failure="no server block of the site speaks TLS")
    return Served(
        is_current=all(seen.leaf_der == lineage.leaf_der for seen in handshakes),
        is_stapled=all(seen.staple is not None for seen in handshakes),
        is_stored=all(staple is not None and seen.staple == staple.response for seen in handshakes),
    )
