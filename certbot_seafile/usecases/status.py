"""How lineages stand: facts at one moment.

The law: nothing here changes anything, asks a responder, or judges; what is wrong is told by the doctor.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import plan
from certbot_seafile.system import records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage


@dataclass(frozen=True)
class Standing:
    """One lineage's facts at one moment; times are aware and UTC.

    site: None where it is not found. failure: why clients cannot be asked what they are handed; None where they can.
    What they are handed for all names at all listen addresses: is_current: the lineage's leaf; is_stapled: an OCSP
    response; is_stored: the stored response. pinned: the earlier version, where the site keeps that.
    """

    lineage: Lineage
    site: plan.Site | None
    staple: verify.Staple | None
    record: records.Record
    now: datetime.datetime
    failure: str | None
    is_current: bool
    is_stapled: bool
    is_stored: bool
    served: Version | None

    @property
    def earlier(self) -> Version | None:
        """Return the sealed version that is served while the lineage's own certificate is not."""
        return self.served if self.served is not None and self.served.leaf != self.lineage.leaf else None

    @property
    def due(self) -> datetime.datetime:
        """Return from when on `certbot renew` replaces the staple."""
        if self.staple is None or self.record.last_success is None:
            return self.now
        return verify.due_at(self.staple, self.record.last_success)

    @property
    def next_action(self) -> str:
        """Return what the next `certbot renew` will do for the lineage, or what a person should."""
        if self.earlier is not None and not self.failure:
            return "renew: fetch a staple, then serve it"
        if self.failure or not self.is_current:
            return "you: run `certbot-seafile check`"
        if self.record.revocation is not None:
            return "you: get a new certificate with --force-renewal"
        if store.why_unstapled(self.lineage) is not None:
            return "none until certbot renews it"
        if self.staple is None:
            return "renew: fetch a staple"
        if not self.is_stored:
            return "you: run `certbot-seafile check`"
        start = "" if self.due <= self.now else f" from {self.due:%Y-%m-%d %H:%M} UTC on"
        return f"renew: refresh the staple{start}"


def standing(context: Context, lineage: Lineage) -> Standing:
    """Gather the facts of one lineage, with a TLS handshake for each name at each listen address of its site."""
    now = context.now()
    served = lineage if isinstance(lineage, Version) else versions.served(lineage)
    current = served or lineage
    staple, record = store.stored_staple(current, now), records.load(context.state_dir, current)
    site, handshakes, failure = None, [], None
    try:
        site = serving.find_site(context, lineage.names)
        handshakes = [handed for _, _, handed in serving.handshakes(current, site)]
        failure = None if handshakes else "no server block of the site speaks TLS"
    except errors.Error as error:
        failure = str(error)
    is_current = failure is None and all(handed.leaf_der == lineage.leaf_der for handed in handshakes)
    is_stapled = failure is None and all(handed.staple is not None for handed in handshakes)
    stored = staple and staple.response
    is_stored = is_stapled and all(handed.staple == stored for handed in handshakes)
    return Standing(lineage, site, staple, record, now, failure, is_current, is_stapled, is_stored, served)
