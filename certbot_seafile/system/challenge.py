"""HTTP-01 on the site: validation files written, seen through nginx as the CA will see them, and removed.

The law: the CA is asked only after nginx itself has handed the files out, and what was put in for that is taken out
again, whatever the CA says, by the next run where this one is killed; lasting edits are the deployment's.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator

from certbot_seafile import errors
from certbot_seafile.site import edits, find, plan
from certbot_seafile.system import files, handshake, serving, webroot, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Options

logger = logging.getLogger(__name__)

#: What the CA will fetch: (name or address, token) to the bytes that must come back.
Expected = dict[tuple[str, str], bytes]

# A note of what a process has put in for a challenge; the process holds it.
_NOTE = re.compile(r"\.challenge\.\d+\.json")


@contextlib.contextmanager
def answered(context: Context, expected: Expected) -> Iterator[None]:
    """Let nginx hand out the validation files of one order while the block runs, the site edited for that if need be.

    Raises errors.NotServed, errors.SiteRefused, errors.FileRefused; then nothing is left behind.
    """
    names = list(dict.fromkeys(name for name, _ in expected))
    contents = {token: content for (_, token), content in expected.items()}
    site = serving.find_site(context, names)
    written, own = folders(context, site), _own_folder(context)
    if _notes(context):
        with files.lock(context.lock_path):
            clean_up(context)
    with contextlib.ExitStack() as opened:
        owner = opened.enter_context(_noted(context, [*written, own], contents))
        for folder in written:
            opened.enter_context(webroot.published(folder, contents))
        try:
            _fetch(context, site, expected)
        except errors.NotServed as unreachable:
            logger.debug("before any edit: %s", unreachable)
            if own not in written:
                opened.enter_context(webroot.published(own, contents))
            planned = plan_challenge(context, site, only_missing=False)
            opened.enter_context(writing.edited(context, planned, "challenge", owner, is_lasting=False))
            context.nginx.reload()
            edited = serving.find_site(context, names)
            serving.wait_for(context, lambda: _fetch(context, edited, expected))
        yield


@contextlib.contextmanager
def _noted(context: Context, folders: Iterable[str], tokens: Iterable[str]) -> Iterator[str]:
    """Keep a note of validation files while the block runs; yield for whom its edits are, as the journal has it."""
    owner, path = f"challenge-{os.getpid()}", os.path.join(context.state_dir, f".challenge.{os.getpid()}.json")
    files.make_folder(context.state_dir, 0o700)
    note = {"owner": owner, "folders": list(dict.fromkeys(folders)), "tokens": list(tokens)}
    files.replace(path, json.dumps(note).encode(), mode=0o600)
    with files.held(path):
        try:
            yield owner
        finally:
            files.remove(path)
            files.remove_folder_if_empty(context.state_dir)


def _notes(context: Context) -> list[str]:
    return [
        os.path.join(context.state_dir, name) for name in files.names_in(context.state_dir) if _NOTE.fullmatch(name)
    ]


def clean_up(context: Context) -> None:
    """Take out what killed runs had put in for a challenge: validation files, and edits of the site.

    The lock is the caller's. Raises errors.FileRefused, errors.NginxRefused.
    """
    for path in _notes(context):
        with files.held(path) as is_ours:
            if not is_ours:  # that run goes on
                continue
            note = json.loads(files.read(path))
            for folder in note["folders"]:
                webroot.remove(folder, note["tokens"])
            taken = writing.take_out_edits(context, {note["owner"]})
            if any(each.now != each.without for each in taken):
                context.nginx.reload()
            writing.forget_edits(context, taken)
            files.remove(path)


def edit_site(context: Context, planned: edits.Edits, domain: str) -> None:
    """Write planned edits that let a site answer challenges, for good. Raises errors.Error; then nothing changed."""
    with writing.edited(context, planned, "setup", domain):
        context.nginx.reload()


def _own_folder(context: Context) -> str:
    """Return the folder of our own webroot that answers challenges."""
    return context.options.webroot.rstrip("/") + plan.CHALLENGE_PATH.rstrip("/")


def wanted_challenge(options: Options) -> plan.Challenge:
    """Return how challenges are to be answered."""
    return plan.Challenge(options.webroot, options.forward, options.is_users_webroot)


def plan_challenge(context: Context, site: find.Site, *, only_missing: bool) -> edits.Edits:
    """Plan what lets the site answer challenges. only_missing: leave out servers that answer them already.

    Raises errors.SiteRefused where that cannot be without harm to others.
    """
    add_edits = functools.partial(let_answer, context.options, only_missing=only_missing)
    return serving.plan_edits(context, site.domains, add_edits)


def let_answer(options: Options, planned: edits.Edits, site: find.Site, *, only_missing: bool) -> None:
    """Add to the edits what lets the site answer challenges."""
    for server, domain in site.nameless:
        if server in site.plain:
            plan.add_name(planned, server, domain)
    wanted = wanted_challenge(options)
    for server in site.plain:
        if not (only_missing and plan.has_challenge_location(server, wanted)):
            plan.add_challenge_location(planned, server, wanted)
    if not site.plain:
        plan.add_plain_server(planned, site, site.tls[0], wanted, options.http_port)


def folders(context: Context, site: find.Site) -> list[str]:
    """Return the folders whose files answer challenges."""
    own = _own_folder(context)
    served = (plan.challenge_folder(server) or own for server in site.plain)
    return list(dict.fromkeys(map(context.nginx.place, served))) or [own]


def _fetch(context: Context, site: find.Site, expected: Expected) -> None:
    """Fetch each validation file as the CA will. Raises errors.NotServed, which says what came instead."""
    port = context.options.http_port
    for endpoint in serving.endpoints(site.plain, port) or [handshake.Endpoint("127.0.0.1", port)]:
        for (domain, token), content in expected.items():
            answer = handshake.get(endpoint, domain, plan.CHALLENGE_PATH + token)
            if answer.status != 200 or answer.body.strip() != content.strip():
                instead = str(answer) if answer.status != 200 else "HTTP status 200 with other content"
                raise errors.NotServed(
                    f"the challenge for {domain} does not come back from nginx at {endpoint}: {instead} came instead; "
                    "the CA was not asked; look at what else the site says about that path, and at nginx's error log"
                )
