"""What is wrong with a certificate's staple.

The law: a staple is judged by its own times, and only where one is to be served.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import timedelta

from certbot_seafile import errors
from certbot_seafile.doctor.findings import NOTE, WARNING, Finding, moment
from certbot_seafile.doctor.subject import Subject
from certbot_seafile.ocsp import verify
from certbot_seafile.site import model, plan
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage

#: Two runs of `certbot renew` are at most a day apart; a success that is older than this was missed.
MISSED_AFTER = timedelta(hours=25)


def short(subject: Subject) -> Iterator[Finding]:
    """Yield that the CA's staples are too short: then they are served only where the certificate demands one."""
    if (life := subject.short_life) is None:
        return
    hours, most = (f"{span / timedelta(hours=1):.3g} h" for span in (life, verify.MARGIN))
    fact = f"the CA's staples hold for {hours} only, and up to {most} may pass between two runs of `certbot renew`"
    if subject.lineage.is_must_staple:
        fix = "let a timer run `certbot-seafile refresh` every hour"
        yield Finding("STAPLE-SHORT", fact, "clients may refuse the certificate, which demands one", fix, WARNING)
    else:
        fix = f"`certbot install -i seafile --cert-name {subject.lineage.name} --seafile-stapling off` ends the tries"
        yield Finding("STAPLE-SHORT", fact, "none is served, which hurts nobody", fix, NOTE)


def old(subject: Subject) -> Iterator[Finding]:
    """Yield that the stored staple is stale, or will be because nobody refreshed it."""
    staple, success, now = subject.standing.staple, subject.standing.record.last_success, subject.standing.now
    if staple is None or subject.short_life:
        return
    fix = subject.handing or f"{subject.fix('refresh')} and see that `certbot renew` runs every day"
    if verify.must_withdraw(staple, now):
        end = f"{moment(staple.end)} and no newer one came"
        fact = f"the staple ends on {end}" if subject.entry else f"the staple is stale: it ends on {end}"
        yield Finding("STAPLE-STALE", fact, "clients refuse it from then on", fix)
    elif not subject.handing and success is not None and now - success > MISSED_AFTER and subject.standing.due < now:
        fact = f"the staple was last refreshed on {moment(success)}"
        yield Finding("STAPLE-NOT-REFRESHED", fact, "it will end before a newer one comes", fix)


def not_included(subject: Subject) -> Iterator[Finding]:
    """Yield the site's server blocks that do not include the stored staple."""
    for server in _bare_servers(subject) if subject.standing.staple else ():
        fact = f"the server block at {server} has no line `include {_include(subject)};`"
        yield Finding("SITE-NO-INCLUDE", fact, "the staple is not served", subject.fix("deploy"), place=str(server))


def not_served(subject: Subject) -> Iterator[Finding]:
    """Yield that nginx serves another staple than the stored one, though it includes that."""
    standing, nginx = subject.standing, subject.context.nginx
    if standing.staple and standing.is_current and not standing.is_stored and not _bare_servers(subject):
        served = "another staple than" if standing.is_stapled else "no staple in spite of"
        command = nginx.reload_command or shlex.join([nginx.ctl, "-s", "reload"])
        fact = f"nginx serves {served} the stored one"
        yield Finding("STAPLE-NOT-SERVED", fact, "clients do not get it", f"reload nginx with `{command}`")


def missing(subject: Subject) -> Iterator[Finding]:
    """Yield why there is no good staple, where the CA makes some."""
    lineage, standing = subject.lineage, subject.standing
    if standing.staple is None and (lineage.is_must_staple or not subject.short_life):
        reason = "there is no good staple" if subject.entry else ""
        fact = reason or _reason_without_staple(subject.context, standing.served or lineage)
        effect = "clients ask the CA, or refuse the certificate where it demands a staple"
        yield Finding("STAPLE-MISSING", fact, effect, subject.handing or subject.fix("refresh"))


def _include(subject: Subject) -> str:
    return plan.staple_include((subject.standing.served or subject.lineage).snippet_path)


def _bare_servers(subject: Subject) -> list[model.Server]:
    return [server for server in subject.site.tls if _include(subject) not in plan.used(server)]


def _reason_without_staple(context: Context, lineage: Lineage) -> str:
    try:
        response = lineage.stored_response()
        if response is None:
            return f"there is no staple: {lineage.response_path} is missing"
        verify.verify_stored(response, lineage.leaf, lineage.chain, context.now())
    except errors.ResponseRefused as refused:
        return f"the staple in {lineage.response_path} is no good: {'; '.join(refused.reasons)}"
    except errors.FileRefused as refused:
        return f"there is no staple: {refused}"
    return f"{lineage.response_path} has changed just now"
