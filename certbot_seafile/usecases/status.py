"""How lineages stand: facts at one moment.

The law: nothing here changes anything, asks a responder, or judges; what is wrong is told by the doctor.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography import x509

from certbot_seafile import errors
from certbot_seafile.doctor.findings import moment
from certbot_seafile.ocsp import pkix, store, verify
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import find
from certbot_seafile.system import records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.handshake import Handshake
from certbot_seafile.system.lineages import Lineage

#: What is later than this was missed: two runs of Debian's timer, which lets at most a day go by between two.
LATE_AFTER = datetime.timedelta(days=2)
_DAY = datetime.timedelta(days=1)
_INTERVAL_DAYS = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30, "year": 365}


@dataclass(frozen=True)
class Standing:
    """One lineage's facts at one moment; times are aware and UTC.

    site: None where it is not found. others: by which lineages some of its names are served; site is that of the rest
    then, where there is one. failure: why clients cannot be asked what they are handed; None where they can.
    What they are handed for all names at all listen addresses: is_current: the lineage's leaf; is_stapled: an OCSP
    response; is_stored: the stored response.
    """

    lineage: Lineage
    site: find.Site | None
    staple: verify.Staple | None
    record: records.Record
    now: datetime.datetime
    failure: str | None
    is_current: bool
    is_stapled: bool
    is_stored: bool
    served: Version | None
    served_until: datetime.datetime | None
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def last_run(self) -> datetime.datetime | None:
        """Return when `certbot renew` last came by; None where it never did, or another user or machine runs it."""
        return None if isinstance(self.lineage, Version) else self.record.last_run

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
    def renewal_due(self) -> datetime.datetime:
        """Return from when on certbot renews: by its setting, else by what the certbot that wrote the file does."""
        known, begin, end = self.lineage.renewal, self.lineage.not_before, self.lineage.not_after
        interval = re.match(r"(\d+)\s*([a-z]*?)s?\Z", known.get("renew_before_expiry", ""))
        release = re.match(r"\d+", known.get("version", ""))
        if interval:
            left = int(interval[1]) * _INTERVAL_DAYS.get(interval[2], 1) * _DAY
        elif release and int(release[0]) < 4:
            left = 30 * _DAY
        else:  # certbot's renewal._default_renewal_time()
            left = (end - begin) / (2 if end - begin < 10 * _DAY else 3)
        return max(end - left, begin)

    @property
    def is_renewal_late(self) -> bool:
        """Tell whether certbot should have renewed the lineage by now.

        Of a short-lived certificate, two days may be all that is left: then the half of that is enough.
        """
        return self.now - self.renewal_due > min(LATE_AFTER, (self.lineage.not_after - self.renewal_due) / 2)

    @property
    def share_left(self) -> float:
        """Return which share of the certificate's lifetime is left: 1 at its begin, 0 at its end, then below 0."""
        lineage = self.lineage
        return (lineage.not_after - self.now) / (lineage.not_after - lineage.not_before)

    @property
    def ca_asked_from(self) -> datetime.datetime | None:
        """Return when certbot asks the CA again (ARI), kept in local time; the CA's window itself it does not keep."""
        try:
            kept = datetime.datetime.fromisoformat(self.lineage.renewal.get("ari_retry_after", ""))
        except ValueError:
            return None
        return kept.astimezone(datetime.UTC)

    @property
    def next_action(self) -> str:
        """Return what the next `certbot renew` will do for the lineage, or what a person should."""
        if self.earlier is not None and not self.failure:
            return "renew: fetch a staple, then serve it"
        if self.failure or not self.is_current:
            return "you: run `certbot-seafile check`"
        if self.record.revocation is not None:
            return "you: get a new certificate with --force-renewal"
        if store.why_unstapled(self.lineage, self.record) is not None:
            return "none until certbot renews it"
        if self.staple is None:
            return "renew: fetch a staple"
        if not self.is_stored:
            return "you: run `certbot-seafile check`"
        start = "" if self.due <= self.now else f" from {moment(self.due)} on"
        return f"renew: refresh the staple{start}"


def standing(context: Context, lineage: Lineage) -> Standing:
    """Gather the facts of one lineage, with a TLS handshake for each name at each listen address of its site."""
    now = context.now()
    served = lineage if isinstance(lineage, Version) else versions.served(lineage)
    current = served or lineage
    staple, record = store.stored_staple(current, now), records.load(context.state_dir, current)
    site, failure = None, None
    others: dict[str, str] = {}
    handshakes: list[Handshake] = []
    try:
        site, others = serving.own_site(context, lineage)
        handshakes = [handed for _, _, handed in serving.handshakes(current, site)]
        failure = None if handshakes or find.front(site) else "no server block of the site speaks TLS"
    except errors.Error as error:
        failure = str(error)
    is_current = failure is None and all(handed.leaf_der == lineage.leaf_der for handed in handshakes)
    is_stapled = failure is None and all(handed.staple is not None for handed in handshakes)
    stored = staple and staple.response
    is_stored = is_stapled and all(handed.staple == stored for handed in handshakes)
    facts = lineage, site, staple, record, now, failure, is_current, is_stapled, is_stored, served
    return Standing(*facts, _first_end(handshakes), others)


def _first_end(handshakes: Sequence[Handshake]) -> datetime.datetime | None:
    """Return when the first of the certificates that were handed out expires; None where none can be read."""
    ends = []
    for leaf_der in {handed.leaf_der for handed in handshakes}:
        with contextlib.suppress(ValueError):
            ends.append(pkix.time_of(x509.load_der_x509_certificate(leaf_der), "not_valid_after"))
    return min(ends, default=None)
