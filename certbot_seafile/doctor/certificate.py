"""What is wrong with a certificate: its time, who is handed it, who else uses it.

The law: what clients are handed is judged by handshakes, never by the configuration alone.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime

from certbot_seafile import errors
from certbot_seafile.doctor.findings import WARNING, Finding, moment
from certbot_seafile.doctor.subject import Machine, Subject, certificate_lines
from certbot_seafile.ocsp import store, verify
from certbot_seafile.site import find, model
from certbot_seafile.system import lineages
from certbot_seafile.system.lineages import Lineage


def clock_wrong(subject: Subject) -> Iterator[Finding]:
    """Yield that the machine's clock is behind: something that was made already lies in its future."""
    lineage, now = subject.lineage, subject.standing.now
    moments = {f"the certificate holds only from {moment(lineage.not_before)} on": lineage.not_before}
    for path in (os.path.join(lineage.folder, "cert.pem"), lineage.response_path):
        if os.path.exists(path):
            written = datetime.fromtimestamp(os.stat(path).st_mtime, UTC)
            moments[f"{path} was written at {moment(written)}"] = written
    ahead = [fact for fact, at in moments.items() if at - now > verify.MAX_SKEW]
    if ahead:
        fact = f"the clock of this machine is wrong: it says {moment(now)}, but {ahead[0]}"
        fix = "set it, for example with `timedatectl set-ntp true`"
        yield Finding("CLOCK-WRONG", fact, "certificates and staples are judged wrongly", fix)


def not_renewed(subject: Subject) -> Iterator[Finding]:
    """Yield that the certificate expired, or was to be renewed long ago: here, or where it is handed over."""
    lineage, standing, end = subject.lineage, subject.standing, moment(subject.lineage.not_after)
    fix = subject.handing or f"run `certbot renew --cert-name {lineage.name}` and read what it says"
    if lineage.not_after <= standing.now:
        yield Finding("CERT-EXPIRED", f"the certificate expired on {end}", "clients refuse it", fix)
    elif standing.is_renewal_late:
        share = standing.share_left
        fact = f"the certificate expires on {end} ({share:.0%} of its lifetime is left) and was not renewed"
        yield Finding("CERT-NOT-RENEWED", fact, "clients will refuse it from then on", fix)


def deleted(subject: Subject) -> Iterator[Finding]:
    """Yield that certbot knows a sealed certificate no more."""
    name, end = subject.lineage.name, moment(subject.lineage.not_after)
    fact = "nginx serves a sealed copy of this certificate, but certbot knows it no more"
    get = f"get a new one with `certbot certonly -a seafile --cert-name {name}`"
    fix = f"{get}, or take it out with `certbot-seafile undo --cert-name {name}`"
    yield Finding("CERT-DELETED", fact, f"it is never renewed and ends on {end}", fix)


def refused(subject: Subject) -> Iterator[Finding]:
    """Yield why root's step does not serve what it was handed."""
    failure = subject.standing.record.last_failure
    if subject.entry and failure:
        effect = "nginx goes on with what it served before"
        yield Finding("HANDOVER-REFUSED", failure, effect, place=subject.entry.path)


def site_not_found(subject: Subject) -> Iterator[Finding]:
    """Yield why there is no site that the certificate could be kept served by."""
    fact = subject.standing.failure or ""
    yield Finding("SITE-NOT-FOUND", fact, "nothing keeps the certificate served")


def shared(subject: Subject) -> Iterator[Finding]:
    """Yield the certificates that the site has in the place of this one, for all of its names or for some."""
    lineage, others, name = subject.lineage, subject.standing.others, subject.lineage.name
    for other in dict.fromkeys(others.values()):
        if subject.is_replaced:
            fact = f"the site has the certificate {other}, which is for the names of {name} too"
            fix = f"`certbot delete --cert-name {name}` removes it, or {subject.fix('deploy')} to serve it instead"
            yield Finding("CERT-SHARED", fact, f"{name} is renewed but not served", fix, WARNING)
        else:
            taken = ", ".join(each for each in others if others[each] == other)
            fact = f"the site has the certificate {other} for {taken}, and {name} is for that, too"
            chosen = ["-a", lineage.renewal.get("authenticator", ""), "--cert-name", name]
            chosen += [word for each in lineage.names if each not in others for word in ("-d", each)]
            fix = f"leave it out of {name} with `certbot certonly {shlex.join(chosen)}`"
            yield Finding("CERT-SHARED", fact, f"{name} is served for its other names only", fix, WARNING)


def no_must_staple(subject: Subject) -> Iterator[Finding]:
    """Yield that the CA left must-staple out, which was asked for (RFC 7633)."""
    lineage, path = subject.lineage, subject.lineage.renewal_path
    if lineage.renewal.get("must_staple", "").lower() == "true" and not lineage.is_must_staple:
        fact = f"{path} asks for must-staple, and the certificate came without"
        fix = "ask another CA for that, or take that line out"
        yield Finding("CERT-NO-MUST-STAPLE", fact, "clients do not insist on a staple", fix, WARNING, place=path)


def from_archive(machine: Machine) -> Iterator[Finding]:
    """Yield the lines of sites that name one version of a certificate for good: in archive/, or by a link to that."""
    config_dir = os.path.realpath(machine.context.config_dir)
    archive = os.path.join(config_dir, "archive") + "/"
    lines = (line for uses in certificate_lines(machine.context).values() for _, line in uses)
    for line in dict.fromkeys(lines):
        path = os.fsdecode(line.arguments[0])
        first = os.path.join(os.path.dirname(path), os.readlink(path)) if os.path.islink(path) else path
        is_live = os.path.realpath(os.path.dirname(path)).startswith(os.path.join(config_dir, "live") + "/")
        if not is_live and os.path.realpath(os.path.dirname(first)).startswith(archive):
            live = os.path.join(machine.context.config_dir, "live", first.split("/")[-2], "fullchain.pem")
            place = f"{line.path}:{line.line}"
            fact = f"{place} has {path}, which is one version of a certificate"
            fix = f"make it {live} (with the key beside it), then reload nginx"
            yield Finding("CERT-FROM-ARCHIVE", fact, "renewals do not reach clients", fix, place=place)


def no_tls(subject: Subject) -> Iterator[Finding]:
    """Yield why a handshake with the site fails."""
    if subject.standing.failure:
        fact = f"clients get no certificate: {subject.standing.failure}"
        yield Finding("SITE-NO-TLS", fact, "they cannot come in over https", f"fix that, then {subject.fix('deploy')}")


def staple_awaited(subject: Subject) -> Iterator[Finding]:
    """Yield that a must-staple certificate waits for its staple, and the one before is served."""
    earlier = subject.standing.earlier
    if earlier is not None and not subject.standing.failure:
        fact = "the site keeps the certificate before, because the new one must be stapled and has no staple yet"
        effect = f"clients notice nothing until {moment(earlier.not_after)}, and each `certbot renew` tries again"
        yield Finding("STAPLE-AWAITED", fact, effect, f"{subject.fix('deploy')} to see why it has none")


def not_served(subject: Subject) -> Iterator[Finding]:
    """Yield that clients are handed another certificate, for no reason that is known."""
    standing = subject.standing
    if not standing.is_current and standing.earlier is None and not standing.failure:
        fact = "clients are handed another certificate"
        yield Finding("CERT-NOT-SERVED", fact, "the certificate on disk is not the one served", subject.fix("deploy"))


def revoked(subject: Subject) -> Iterator[Finding]:
    """Yield when and why the CA revoked the certificate, as far as is known.

    The responder is asked where no staple is to be served, unless that is another machine's or user's matter.
    """
    lineage, context, revocation = subject.lineage, subject.context, subject.standing.record.revocation
    if revocation is None and not subject.is_stapled and subject.is_renewed_here:
        due = store.find_due(context, lineage, unstapled="no staple is to be served")
        outcome = due if due.ask is None else store.verify_response(context, lineage, due, due.ask)
        revocation = outcome.record.revocation
    if revocation:
        where = " where it is renewed" if subject.entry else ""
        fix = f"get a new certificate with `certbot renew --force-renewal --cert-name {lineage.name}`{where}"
        yield Finding("CERT-REVOKED", revocation, "clients that ask the CA refuse it", fix)


def other_names(subject: Subject) -> Iterator[Finding]:
    """Yield the server blocks, of the site or not, that use the certificate for names that it has lost or never had.

    A name beside others of the certificate's was its owner's choice, unless an earlier certificate was for it.
    """
    lineage, used = subject.lineage, certificate_lines(subject.context)
    folders = {current.folder for current in (lineage, subject.standing.served) if current is not None}
    for server in dict.fromkeys(server for folder in sorted(folders) for server, _ in used.get(folder, ())):
        names = [name for name in find.strangers(server, lineage.names) if not model.covers(lineage.names, name)]
        is_covered = any(model.covers(lineage.names, name) for name in server.names)
        if lost := [name for name in names if not is_covered or name in _earlier_names(lineage)]:
            fact = f"the server block at {server} uses this certificate for {', '.join(lost)}, and it is not for that"
            get = f"get one for all names with `certbot certonly -a seafile --cert-name {lineage.name} -d NAME...`"
            fix = f"{get}, or give the block another certificate"
            yield Finding("CERT-OTHER-NAMES", fact, "clients that ask for that are warned", fix, place=str(server))


def _earlier_names(lineage: Lineage) -> set[str]:
    """Return the names of all certificates that certbot keeps of the lineage."""
    names: set[str] = set()
    for path in glob.glob(os.path.join(glob.escape(lineage.config_dir), "archive", lineage.name, "cert*.pem")):
        with contextlib.suppress(errors.LineageRefused):
            names.update(lineages.certificate_names(lineages.certificates(path)[0]))
    return names
