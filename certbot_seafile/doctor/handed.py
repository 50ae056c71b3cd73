"""What is wrong with sealed certificates that this machine's certbot does not renew.

The law: root's own copies and records are read, and nothing that it was handed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from certbot_seafile.doctor import certificate
from certbot_seafile.doctor.findings import Finding, moment
from certbot_seafile.doctor.staple import UNSTAPLED
from certbot_seafile.doctor.subject import Machine
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import records
from certbot_seafile.usecases import status


def deleted(machine: Machine) -> Iterator[Finding]:
    """Yield the sealed certificates that certbot knows no more."""
    for version in machine.sealed:
        name = version.name
        if name not in machine.certbots and name not in machine.entries:
            fact = "nginx serves a sealed copy of this certificate, but certbot knows it no more"
            fix = (
                f"get a new one with `certbot certonly -a seafile --cert-name {name}`, or take it out with "
                f"`certbot-seafile undo --cert-name {name}`"
            )
            effect = f"it is never renewed and ends on {moment(version.not_after)}"
            yield Finding("CERT-DELETED", fact, effect, fix, name=name)


def refused(machine: Machine) -> Iterator[Finding]:
    """Yield why root's step does not serve what it was handed."""
    for version in machine.sealed:
        failure = records.load(machine.context.state_dir, version).last_failure
        if version.name in machine.entries and failure is not None:
            path, effect = machine.entries[version.name].path, "nginx goes on with what it served before"
            yield Finding("HANDOVER-REFUSED", failure, effect, name=version.name, place=path)


def late(machine: Machine) -> Iterator[Finding]:
    """Yield what was not handed over in time: certificates and staples."""
    for version in machine.sealed:
        if version.name in machine.entries:
            where = machine.entries[version.name].path
            fix = f"see why no newer one came in {where}, and look at the machine or user that renews"
            yield from (replace(finding, name=version.name) for finding in _late(machine, version, fix))


def _late(machine: Machine, version: Version, fix: str) -> Iterator[Finding]:
    now = machine.context.now()
    yield from certificate.expiry(version, status.renewal_due(version, {}), now, fix)
    if records.load(machine.context.state_dir, version).revocation is not None:
        return  # which is told already
    staple = store.stored_staple(version, now)
    if staple is None and store.why_unstapled(version) is None:
        yield Finding("STAPLE-MISSING", "there is no good staple", UNSTAPLED, fix)
    elif staple is not None and verify.must_withdraw(staple, now) and staple.end - staple.this_update > verify.MARGIN:
        fact = f"the staple ends on {moment(staple.end)} and no newer one came"
        yield Finding("STAPLE-STALE", fact, "clients refuse it from then on", fix)
