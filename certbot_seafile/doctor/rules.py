"""All rules of the doctor, in the order in which they are told.

The law: nothing is judged here; a rule that stands in no list is not asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from certbot_seafile.doctor import (
    answering,
    certificate,
    handed,
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

_Rules = tuple[Callable[[Subject], Iterable[Finding]], ...]

#: Of every certificate.
_FIRST: _Rules = (certificate.clock_wrong, certificate.not_renewed, certificate.no_must_staple)
#: Of one whose site is known; what follows, only where that has no other certificate for the same names.
_SITE: _Rules = (certificate.shared,)
_SERVED: _Rules = (
    network.port_taken, certificate.no_tls, certificate.staple_awaited, certificate.not_served, certificate.revoked,
    staple.short, staple.old, staple.not_included, staple.not_served, staple.missing,
)  # fmt: skip
#: What lets its next renewal fail: of one that is kept, then of every one.
_KEPT: _Rules = (renewing.no_installer, renewing.no_hook, renewing.hook_gone)
_OBSTACLES: _Rules = (renewing.failed, renewing.file_gone, renewing.off, renewing.no_http, renewing.hook_stops_nginx)
#: Of one whose site is known: challenges, and Seafile's settings.
_CHALLENGES: _Rules = (
    answering.no_port, answering.unanswered, seafile.plain_http, seafile.mixed_content, seafile.other_host,
    seafile.url_left_over,
)  # fmt: skip


def _of_behind(*rules: Callable[[Behind], Iterable[Finding]]) -> _Rules:
    return tuple(partial(lambda rule, subject: rule(subject.behind), rule) for rule in rules)


#: What Seafile answers, where clients come in over TLS; and what nginx lets through.
_ASKED = _of_behind(outcome.redirects_to_itself, outcome.no_answer, outcome.file_server_astray, outcome.login_forbidden)
_PASSED_ON = _of_behind(
    proxying.upload_path, proxying.upload_limit, proxying.seahub_limit, proxying.timeout, proxying.buffer_space,
    proxying.websockets,
)  # fmt: skip
_LAST: _Rules = (certificate.other_names,)

_MACHINE: tuple[Callable[[Machine], Iterator[Finding]], ...] = (
    left.nginx_refuses, left.orphans, certificate.from_archive, network.compose_starts_caddy, left.staple_left_over,
    renewing.nobody_renews, renewing.superseded, renewing.certbot_settings, renewing.hooks_stop_nginx, handed.deleted,
    handed.refused, handed.late, left.pinned, left.handed_over,
)  # fmt: skip


def of_lineage(context: Context, lineage: Lineage, machine: Machine) -> list[Finding]:
    """Return what is wrong with a lineage, its site, its staple, and Seafile behind it; [] where nothing is."""
    subject = Subject(context, status.standing(context, lineage), machine)
    results = dict.fromkeys(finding for rule in _rules(subject) for finding in rule(subject))
    return [replace(finding, name=lineage.name) for finding in results]


def _rules(subject: Subject) -> _Rules:
    if subject.standing.record.is_undone:  # a person wants nothing more of it than renewals
        return (*_FIRST, *_OBSTACLES, *_LAST)
    if subject.standing.site is None:
        return (*_FIRST, certificate.site_not_found, *_KEPT, *_OBSTACLES, *_LAST)
    served = _SERVED if subject.owner is None else _SITE
    asked = _ASKED if subject.site.tls and not subject.standing.failure else ()
    behind = (*_CHALLENGES, *asked, *_PASSED_ON, network.name_astray)
    return (*_FIRST, *served, *_KEPT, *_OBSTACLES, *behind, *_LAST)


def of_machine(machine: Machine) -> list[Finding]:
    """Return what is wrong with nginx, with certificates that certbot does not know, and with what is to renew."""
    return [finding for rule in _MACHINE for finding in rule(machine)]
