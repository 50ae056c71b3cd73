"""All rules of the doctor, in the order in which they are told.

The law: nothing is judged here; a rule that stands in no list is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from certbot_seafile.doctor import (
    answering,
    certificate,
    left,
    network,
    outcome,
    proxying,
    renewing,
    seafile,
    staple,
)
from certbot_seafile.doctor.findings import Finding
from certbot_seafile.doctor.subject import Machine, Subject
from certbot_seafile.system.answers import Behind
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import status

#: What is asked of a Subject, or of what is behind its site, or of the Machine.
_Rules = tuple[Callable[[Any], Iterable[Finding]], ...]

#: Of a certificate that certbot renews here; of one that another user or machine does.
_RENEWED: _Rules = (certificate.not_renewed, certificate.no_must_staple)
_HANDED: _Rules = (certificate.not_renewed, certificate.refused)
#: Of one whose site is known, and has no other certificate for all of its names.
_SERVED: _Rules = (
    network.port_taken, certificate.no_tls, certificate.staple_awaited, certificate.not_served, certificate.revoked,
)  # fmt: skip
_STAPLED: _Rules = (staple.short, staple.old, staple.not_included, staple.not_served, staple.missing)
#: What lets its next renewal fail: of one that is kept, then of every one, and where this plugin answers the CA.
_KEPT: _Rules = (renewing.no_installer, renewing.no_hook, renewing.hook_gone)
_OBSTACLES: _Rules = (renewing.failed, renewing.file_gone, renewing.off)
_AUTHENTICATED: _Rules = (renewing.no_http, renewing.hook_stops_nginx)
_CHALLENGES: _Rules = (answering.no_port, answering.unanswered)
#: What Seafile's settings say, what it answers, where clients come in over TLS, and what nginx lets through.
_SETTINGS: _Rules = (seafile.plain_http, seafile.mixed_content, seafile.other_host, seafile.url_left_over)
_ASKED: _Rules = (
    outcome.redirects_to_itself, outcome.no_answer, outcome.file_server_astray, outcome.login_forbidden,
)  # fmt: skip
_PASSED_ON: _Rules = (
    proxying.upload_path, proxying.upload_limit, proxying.seahub_limit, proxying.timeout, proxying.buffer_space,
    proxying.websockets,
)  # fmt: skip

_MACHINE: _Rules = (
    left.nginx_refuses, left.orphans, certificate.from_archive, network.compose_starts_caddy, left.staple_left_over,
    renewing.nobody_renews, renewing.superseded, renewing.certbot_settings, renewing.hooks_stop_nginx, left.pinned,
    left.handed_over,
)  # fmt: skip


def of_lineage(context: Context, lineage: Lineage, machine: Machine) -> list[Finding]:
    """Return what is wrong with a lineage, its site, its staple, and Seafile behind it; [] where nothing is."""
    subject = Subject(context, status.standing(context, lineage), machine)
    results = dict.fromkeys(finding for asked, rules in _rules(subject) for rule in rules for finding in rule(asked))
    return [replace(finding, name=lineage.name) for finding in results]


def _rules(subject: Subject) -> Iterator[tuple[Subject | Behind, _Rules]]:
    """Yield what is asked, and the rules for that."""
    is_undone = subject.standing.record.is_undone  # a person wants nothing more of it than renewals
    has_site = subject.standing.site is not None and not is_undone
    yield subject, (certificate.clock_wrong,)
    yield subject, _RENEWED if subject.is_renewed_here else _HANDED if subject.entry else (certificate.deleted,)
    if has_site:
        yield subject, (certificate.shared, *(() if subject.is_replaced else _SERVED))
        yield subject, _STAPLED if not subject.is_replaced and subject.is_stapled else ()
    elif not is_undone:
        yield subject, (certificate.site_not_found,)
    if subject.is_renewed_here:
        yield subject, () if is_undone else _KEPT
        yield subject, _OBSTACLES
    if is_authenticated := subject.lineage.is_authenticated:
        yield subject, _AUTHENTICATED
    if has_site:
        yield subject, _CHALLENGES if is_authenticated else ()
        yield subject, _SETTINGS
        behind = Behind(subject.context, subject.site)
        yield behind, _ASKED if subject.site.tls and not subject.standing.failure else ()
        yield behind, _PASSED_ON
        yield subject, (network.name_astray,)
    yield subject, (certificate.other_names,)


def of_machine(machine: Machine) -> list[Finding]:
    """Return what is wrong with nginx, with certificates that certbot does not know, and with what is to renew."""
    return [finding for rule in _MACHINE for finding in rule(machine)]
