"""What the doctor looks at: one certificate with its site, or the machine as a whole.

The law: what several rules ask about is found out here, once. Nothing here is a finding.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from certbot_seafile import errors
from certbot_seafile.doctor import listeners, schedule, seahub
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed.settings import Entry
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import find, model
from certbot_seafile.site.config import Configuration, Statement
from certbot_seafile.system import records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases.status import Standing

#: How long the names of all certificates are looked up and called, in all.
CALL_SECONDS = 10.0


_Uses = dict[str, list[tuple[model.Server, Statement]]]


def certificate_lines(context: Context) -> _Uses:
    """Return the server blocks with the lines by which they use a certificate, by the folder that it lies in.

    None where nginx's configuration cannot be read, which nginx itself says better.
    """
    try:
        return _certificate_lines(context.nginx.configuration())
    except errors.Error:
        return {}


@functools.lru_cache(maxsize=1)
def _certificate_lines(configuration: Configuration) -> _Uses:
    used: _Uses = {}
    for server in model.http_servers(configuration.outline()):
        for line in server.level(b"ssl_certificate") or server.http.named(b"ssl_certificate"):
            if line.arguments:
                used.setdefault(os.path.dirname(os.fsdecode(line.arguments[0])), []).append((server, line))
    return used


@dataclass(frozen=True)
class Machine:
    """The machine as a whole.

    readable: the certificates that are meant and can be read. entries: what root is handed, by name. root: the folder
    of the system whose timers, crontabs and cli.ini count.
    """

    context: Context
    readable: Sequence[Lineage]
    entries: Mapping[str, Entry]
    root: str = "/"

    @cached_property
    def renewed(self) -> list[Lineage]:
        """Return the lineages that this machine's certbot is to renew and serve."""
        own = [lineage for lineage in self.readable if not isinstance(lineage, Version)]
        return [lineage for lineage in own if not records.is_undone(self.context.state_dir, lineage.name)]

    @cached_property
    def seafile(self) -> seahub.Places:
        """Return where the files of Seafile's installations are."""
        return seahub.Places(self.root)

    @cached_property
    def listeners(self) -> dict[int, list[listeners.Listener]]:
        """Return who listens on which port."""
        return listeners.by_port()

    @cached_property
    def deadline(self) -> float:
        """Return until when names are looked up and called, of all certificates together (of time.monotonic())."""
        return time.monotonic() + CALL_SECONDS

    @cached_property
    def jobs(self) -> list[schedule.Job]:
        """Return what runs by the clock, where that is to renew anything."""
        return schedule.jobs(self.root, self.context.config_dir) if self.renewed else []


@dataclass(frozen=True)
class Subject:
    """One certificate: the facts of it at one moment, what to ask for more with, and the machine that it is on."""

    context: Context
    standing: Standing
    machine: Machine

    @property
    def lineage(self) -> Lineage:
        """Return the lineage."""
        return self.standing.lineage

    @property
    def site(self) -> find.Site:
        """Return the lineage's site. Raises errors.SiteNotFound."""
        if self.standing.site is None:
            raise errors.SiteNotFound(self.standing.failure or "")
        return self.standing.site

    def fix(self, command: str) -> str:
        """Return the advice to run a command of this program for the lineage."""
        return f"run `certbot-seafile {command} --cert-name {self.lineage.name}`"

    @property
    def is_renewed_here(self) -> bool:
        """Tell whether this machine's certbot renews it; else another user or machine does, or nobody."""
        return not isinstance(self.lineage, Version)

    @property
    def entry(self) -> Entry | None:
        """Return by what root is handed it by another user or machine; None where it is not."""
        return self.machine.entries.get(self.lineage.name)

    @property
    def handing(self) -> str:
        """Return the advice where root is not handed a newer one in time; "" where it is not handed."""
        path = self.entry.path if self.entry else ""
        return path and f"see why no newer one came in {path}, and look at the machine or user that renews"

    @property
    def is_replaced(self) -> bool:
        """Tell whether the site has other lineages' certificates for all names, in the place of this one's."""
        return self.standing.others.keys() >= set(self.site.domains)

    @cached_property
    def is_stapled(self) -> bool:
        """Tell whether its stored staple is to be served: its CA makes some, and it was not revoked."""
        lineage, site = self.lineage, self.site
        reason = store.why_unstapled(lineage, self.standing.record)
        is_wanted = reason is None and serving.why_paired(lineage, site) is None
        return is_wanted and self.standing.record.revocation is None and self.standing.earlier is None

    @cached_property
    def short_life(self) -> timedelta | None:
        """Return how long the CA's staples hold, where that is too short for two runs of `certbot renew`; None else.

        The responder is asked where no staple is stored, unless that is another machine's or user's matter.
        """
        current, staple = self.standing.served or self.lineage, self.standing.staple
        if staple is None:
            due = store.find_due(self.context, current)
            if due.ask is None or not self.is_renewed_here:
                return None
            try:
                response = due.ask()
                staple = verify.verify(response, current.leaf, current.chain, self.standing.now, must_staple=True)
            except (errors.ResponderFailed, errors.ResponseRefused):
                return None
        life = staple.end - staple.this_update
        return life if life <= verify.MARGIN else None
