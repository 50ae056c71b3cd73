"""HTTP-01 on the site: validation files written, seen through nginx as the CA will see them, and removed.

The law: the CA is asked only after nginx itself has handed the files out, and what was put in for that is taken out
again, whatever the CA says; lasting edits are the deployment's.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from certbot_seafile import edits, errors, probe, servers, serving, site, webroot, writing
from certbot_seafile.host import Host

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.05

#: What the CA will fetch: (name or address, token) to the bytes that must come back.
Expected = dict[tuple[str, str], bytes]


class Challenges:
    """The validation files of one order, and the wiring that was put in for them."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._webroots: list[webroot.Webroot] = []
        self._wiring = contextlib.ExitStack()

    def answer(self, expected: Expected) -> None:
        """Write the files and see that nginx hands them out, with the site wired for it where it is not yet.

        Raises errors.ChallengeUnreachable, errors.SiteRefused, errors.FileRefused; then nothing is left behind.
        """
        names = list(dict.fromkeys(name for name, _ in expected))
        with contextlib.ExitStack() as on_failure:
            on_failure.callback(self.clear)
            found = serving.find_site(self._host, names)
            for folder in folders(self._host, found):
                self._write(folder, expected)
            try:
                fetch(self._host, found, expected)
            except errors.ChallengeUnreachable as unreachable:
                logger.debug("before any edit: %s", unreachable)
                self._wire(found, names, expected)
            on_failure.pop_all()

    def clear(self) -> None:
        """Remove the files and the wiring; a second call does nothing."""
        for folder in self._webroots:
            folder.clear()
        self._webroots.clear()
        self._wiring.close()

    def _write(self, folder: str, expected: Expected) -> None:
        self._webroots.append(webroot.Webroot(folder))
        for (_, token), content in expected.items():
            logger.debug("validation file %s", self._webroots[-1].write(token, content))

    def _wire(self, found: site.Site, names: Sequence[str], expected: Expected) -> None:
        own = own_folder(self._host)
        if own not in [folder.folder for folder in self._webroots]:
            self._write(own, expected)
        with contextlib.ExitStack() as wiring:
            planned = plan(self._host, found, only_unwired=False)
            title = f"certbot-seafile challenge {names[0]}"
            wiring.enter_context(writing.edited(self._host, planned, title, is_lasting=False))
            self._host.nginx.reload()
            wait(self._host, names, expected)
            self._wiring = wiring.pop_all()


def wire(host: Host, planned: edits.Edits, domain: str) -> None:
    """Write planned edits that let a site answer challenges, for good. Raises errors.Error; then nothing changed."""
    with writing.edited(host, planned, f"certbot-seafile setup {domain}"):
        host.nginx.reload()


def own_folder(host: Host) -> str:
    """Return the folder of our own webroot that answers challenges."""
    return host.options.webroot.rstrip("/") + site.CHALLENGE_PATH.rstrip("/")


def plan(host: Host, found: site.Site, *, only_unwired: bool) -> edits.Edits:
    """Plan what lets the site answer challenges."""
    planned = edits.Edits()
    for server, domain in found.nameless:
        if server in found.plain:
            site.add_name(planned, server, domain)
    for server in found.plain:
        if not (only_unwired and site.is_wired(server)):
            site.wire_challenge(planned, server, host.options.webroot)
    if not found.plain:
        site.add_plain_server(planned, found, found.tls[0], host.options.webroot, host.options.http_port)
    return planned


def folders(host: Host, found: site.Site) -> dict[str, list[servers.Server]]:
    """Return the folders whose files answer challenges, each with the servers that serve it."""
    own = own_folder(host)
    folders: dict[str, list[servers.Server]] = {}
    for server in found.plain:
        folders.setdefault(site.challenge_folder(server) or own, []).append(server)
    return folders or {own: []}


def fetch(host: Host, found: site.Site, expected: Expected) -> None:
    """Fetch each validation file as the CA will: expected maps (domain, token) to bytes.

    Raises errors.ChallengeUnreachable, which says what came instead.
    """
    port = host.options.http_port
    for endpoint in serving.endpoints(found.plain, port) or [probe.Endpoint("127.0.0.1", port)]:
        for (domain, token), content in expected.items():
            answer = probe.fetch(endpoint, domain, site.CHALLENGE_PATH + token)
            if answer.status != 200 or answer.body.strip() != content.strip():
                came = f"{answer}" if answer.status != 200 else "HTTP status 200 with other content"
                raise errors.ChallengeUnreachable(
                    f"the challenge for {domain} does not come back from nginx at {endpoint}: {came} came instead; "
                    "the CA was not asked; look at what else the site says about that path, and at nginx's error log"
                )


def wait(host: Host, domains: Sequence[str], expected: Expected) -> None:
    """Wait until a reloaded nginx hands the validation files out. Raises errors.ChallengeUnreachable."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            fetch(host, serving.find_site(host, domains), expected)
            return
        except errors.ChallengeUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)
