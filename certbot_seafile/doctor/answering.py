"""What stands between the CA and the next challenge.

The law: one validation file is written, fetched as the CA would, and removed. Where this user cannot write it, or
challenges are passed on to another machine, only the configuration and the port are looked at.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.doctor import network
from certbot_seafile.doctor.findings import Finding
from certbot_seafile.doctor.subject import Subject
from certbot_seafile.site import plan
from certbot_seafile.system import challenge, handshake, serving, webroot
from certbot_seafile.system.lineages import Lineage


def no_port(subject: Subject) -> Iterator[Finding]:
    """Yield that no server block of the site answers where the CA looks."""
    if not subject.site.plain:
        fact = f"no server block of the site answers on port {subject.context.options.http_port}, where the CA looks"
        yield Finding("CHALLENGE-NO-PORT", fact, "the next renewal fails", subject.fix("deploy"))


def unanswered(subject: Subject) -> Iterator[Finding]:
    """Yield why the site does not hand a validation file out."""
    context, site, wanted = subject.context, subject.site, challenge.wanted_challenge(subject.context.options)
    token = f"certbot-seafile-check-{os.getpid()}"
    with contextlib.ExitStack() as opened:
        is_written = wanted.forward is None and bool(site.plain)
        try:
            for folder in challenge.folders(context, site) if is_written else ():
                opened.enter_context(webroot.published(folder, {token: token.encode()}))
        except errors.FileRefused as refused:
            is_written = False
            if os.geteuid() == 0:
                yield Finding("CHALLENGE-NOT-WRITTEN", str(refused), "the next renewal fails")
        places = serving.endpoints(site.plain, context.options.http_port)
        results = [finding for place in places for finding in _answers(place, subject.lineage, token)]
    if results and (holders := [finding for place in places for finding in network.taken(subject, place.port)]):
        yield from holders
        return
    shadowed = [finding for finding in results if finding.id == "CHALLENGE-SHADOWED"]
    yield from (finding for finding in results if finding not in shadowed)
    bare = [server for server in site.plain if not plan.has_challenge_location(server, wanted)]
    if bare and (shadowed or not is_written):
        place = str(bare[0])
        fact = f"the challenge location of the server block at {place} is missing or shadowed by other lines"
        yield Finding("CHALLENGE-SHADOWED", fact, "the next renewal may fail", subject.fix("deploy"), place=place)
    elif is_written:
        yield from shadowed


def _answers(endpoint: handshake.Endpoint, lineage: Lineage, token: str) -> Iterator[Finding]:
    """Yield that the endpoint gives no answer, or for which names it does not hand out the file."""
    try:
        for name in [name for name in lineage.names if "*" not in name]:
            answer = handshake.get(endpoint, name, plan.CHALLENGE_PATH + token)
            if (answer.status, answer.body) != (200, token.encode()):
                got = str(answer) if answer.status != 200 else "HTTP status 200 and other content"
                fact = f"the challenge location for {name} is shadowed: {endpoint} answers a file's path with {got}"
                fix = "take out the rule that does so"
                yield Finding("CHALLENGE-SHADOWED", fact, "the CA would not get its file either", fix)
    except errors.NotServed as unreachable:
        fact, fix = f"port {endpoint.port} is not reachable: {unreachable}", "start nginx, and look at firewall rules"
        yield Finding("CHALLENGE-NO-ANSWER", fact, "the CA gets no answer", fix)
