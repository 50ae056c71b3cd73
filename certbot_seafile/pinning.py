"""The certificate before this one, kept in the site while a must-staple certificate has no staple yet.

certbot lets live/NAME/ name the new certificate before anybody is asked, so that whatever reloads nginx next would
serve it. While it lacks the staple that it demands, the site is pinned: its lines name the version before, in
archive/NAME/, and a copy of that one's staple.

The law: certificate, key and staple change in one step, the replacement of the site's file, so that at every instant
what is on disk belongs together; and a site that is unpinned holds the bytes that it held before.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from certbot_seafile import edits, errors, files, lineage, servers, site, stapling, writing
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage

logger = logging.getLogger(__name__)

_NUMBERED = re.compile(r"(.*/)fullchain(\d+)\.pem\Z", re.DOTALL)


@dataclass(frozen=True)
class Pinned(Lineage):
    """An earlier version of a lineage; its staple is a copy of its own. number: as in archive/NAME/cert7.pem."""

    number: int = 0

    @property
    def fullchain_path(self) -> str:
        """Return the version's chain below archive/."""
        return os.path.join(self._archive, f"fullchain{self.number}.pem")

    @property
    def key_path(self) -> str:
        """Return the version's key below archive/."""
        return os.path.join(self._archive, f"privkey{self.number}.pem")

    @property
    def response_path(self) -> str:
        """Return the path of the version's staple."""
        return response_path(self.options, self.name)

    @property
    def _archive(self) -> str:
        return os.path.dirname(os.path.realpath(os.path.join(self.folder, "fullchain.pem")))


def response_path(options: lineage.Options, name: str) -> str:
    """Return where the staple of the pinned version is kept."""
    return os.path.join(options.staple_dir, name, "pinned.response")


def owner(name: str) -> str:
    """Return for whom the journal has a pin's edits."""
    return f"pin:{name}"


def pin(host: Host, found: Lineage) -> None:
    """Let the site name the version before, where it names the lineage's, which must be stapled and has no staple.

    nginx is not reloaded: it serves that version already. Nothing is done where there is no version to name.
    Raises errors.Error; then the site is as it was.
    """
    if stapling.stored_staple(found, host.now()) is not None or not _statements(host, found.fullchain_path):
        return
    earlier = _best(found, host.now())
    if earlier is None:
        return
    response = files.read(found.response_path) if _is_stapled_by(earlier, found.response_path, host.now()) else None
    if response is not None:
        files.replace(earlier.response_path, response)
    planned = _plan(host, found, earlier, is_stapled=response is not None)
    writing.write_unloaded(host, planned, owner(found.name))
    logger.info("%s: the site names version %d until there is a staple", found.name, earlier.number)


def unpin(host: Host, found: Lineage) -> bool:
    """Let the site name the lineage's own certificate again; return whether it was pinned and nginx must reload.

    Raises errors.Error; then the site is as it was.
    """
    pins = {owner(found.name)}
    if not any(step.owner in pins for entry in host.journal.entries() for step in entry.steps):
        return False
    changed, _ = writing.take_out_unloaded(host, pins)
    return changed


def clear(host: Host, found: Lineage) -> None:
    """Remove the earlier version's staple, once nginx has reloaded, where the configuration names it no more."""
    path = response_path(found.options, found.name)
    if os.path.lexists(path) and not _statements(host, path):
        files.remove(path)


def keep_staple(host: Host, found: Lineage) -> None:
    """Refresh the staple of the version that the site is pinned to; what goes wrong there is only logged."""
    path = response_path(found.options, found.name)
    pinned = next((one for one in _versions(found) if _statements(host, one.fullchain_path)), None)
    if pinned is None or not _statements(host, path):
        return
    outcome = stapling.obtain(host, pinned)
    if outcome.staple is not None and files.read_if_present(path) != outcome.staple.response:
        files.replace(path, outcome.staple.response)
        host.nginx.test()
        host.nginx.reload()


def _best(found: Lineage, now: datetime.datetime) -> Pinned | None:
    """Return the newest earlier version that the stored staple is for, else the newest that has not expired."""
    earlier = [one for one in _versions(found) if one.not_before <= now < one.not_after]
    stapled = (one for one in earlier if _is_stapled_by(one, found.response_path, now))
    return next(stapled, earlier[0] if earlier else None)


def _versions(found: Lineage) -> Iterator[Pinned]:
    """Yield the versions before the lineage's own, newest first."""
    numbered = _NUMBERED.match(os.path.realpath(found.fullchain_path))
    for number in range(int(numbered.group(2)) - 1, 0, -1) if numbered else ():
        version = Pinned(**{**vars(found), "number": number})
        try:
            leaf, *chain = lineage.certificates(version.fullchain_path)
        except errors.LineageRefused:
            continue
        if os.path.exists(version.key_path):
            yield replace(version, leaf=leaf, chain=tuple(chain))


def _is_stapled_by(version: Lineage, path: str, now: datetime.datetime) -> bool:
    return stapling.staple_at(path, version, now) is not None


def _plan(host: Host, found: Lineage, earlier: Pinned, *, is_stapled: bool) -> edits.Edits:
    own = site.Certificate(found.fullchain_path, found.key_path, found.snippet_path, is_stapled)
    instead = site.Certificate(earlier.fullchain_path, earlier.key_path, found.snippet_path, is_stapled)
    paths = (own.fullchain, own.key, own.include, found.response_path)
    named = [said for path in paths for said in _statements(host, path)]
    planned = edits.Edits()
    site.pin(planned, named, own, instead, found.response_path, earlier.response_path)
    return planned


def _statements(host: Host, path: str) -> list[servers.Statement]:
    """Return the statements that nginx reads whose one argument is the path."""
    named = os.fsencode(path)
    found: dict[tuple[str, int], servers.Statement] = {}
    for outer in host.nginx.statements(lambda source: named in source):
        for said in _walk(outer):
            if said.arguments == (named,):
                found[said.path, said.directive.start] = said
    return list(found.values())


def _walk(statement: servers.Statement) -> Iterator[servers.Statement]:
    """Yield the statement and all below it, the includes themselves too."""
    yield statement
    for child in statement.children or ():
        yield from _walk(child)
