"""The certificate before this one, kept in the site while a must-staple certificate has no staple yet.

certbot lets live/NAME/ name the new certificate before anybody is asked. While that lacks the staple that it demands,
the site is pinned: its lines name the version before, in archive/NAME/, and a copy of its staple. So that no reload can
come too early, the site is held, that is pinned to the present version, before the CA is asked for the next one.

The law: certificate, key and staple change in one step, the replacement of the site's file, so that at every instant
what is on disk belongs together; and a site that is unpinned holds the bytes that it held before.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.site import edits, plan
from certbot_seafile.site.config import Statement
from certbot_seafile.system import files, lineages, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage

logger = logging.getLogger(__name__)

#: After each renewal, newer certbots remove all but so many versions before the newest (RenewableCert.truncate).
KEPT_VERSIONS = 5
_NUMBERED = re.compile(r"(.*/)fullchain(\d+)\.pem\Z", re.DOTALL)


@dataclass(frozen=True)
class Pinned(Lineage):
    """An earlier version of a lineage; its staple is a copy of its own. number: as in archive/NAME/cert7.pem."""

    number: int = 0

    @property
    def fullchain_path(self) -> str:
        """Return the version's chain below archive/."""
        return self._archived("fullchain")

    @property
    def key_path(self) -> str:
        """Return the version's key below archive/."""
        return self._archived("privkey")

    @property
    def response_path(self) -> str:
        """Return the path of the version's staple."""
        return response_path(self.options, self.name)

    def _archived(self, kind: str) -> str:
        newest = os.path.realpath(os.path.join(self.folder, "fullchain.pem"))
        return os.path.join(os.path.dirname(newest), f"{kind}{self.number}.pem")


def response_path(options: lineages.Options, name: str) -> str:
    """Return where the staple of the pinned version is kept."""
    return os.path.join(options.staple_dir, name, "pinned.response")


def pin(context: Context, lineage: Lineage) -> None:
    """Let the site name the version before, where it names the lineage's, which must be stapled and has no staple.

    nginx is not reloaded: it serves that version already. Raises errors.Error; then the site is as it was.
    """
    now = context.now()
    if store.stored_staple(lineage, now) is not None or not _statements(context, lineage.fullchain_path):
        return
    earlier = [version for version in _versions(lineage) if version.not_before <= now < version.not_after]
    stapled = (version for version in earlier if store.stored_staple(version, now, lineage.response_path) is not None)
    if earlier:
        _pin_to(context, lineage, next(stapled, earlier[0]))


def _pin_to(context: Context, lineage: Lineage, version: Pinned) -> None:
    """Let the site name the version, and a copy of its staple where the stored one is for it; that comes first."""
    staple = store.stored_staple(version, context.now(), lineage.response_path)
    if staple is not None:
        files.replace(version.response_path, staple.response)
    own, instead = (
        plan.Certificate(each.fullchain_path, each.key_path, lineage.snippet_path, staple is not None)
        for each in (lineage, version)
    )
    paths = (own.fullchain, own.key, own.include, lineage.response_path)
    statements = [statement for path in paths for statement in _statements(context, path)]
    planned = edits.Edits()
    plan.pin(planned, statements, own, instead, lineage.response_path, version.response_path)
    writing.pin(context, planned, lineage.name)
    logger.info("%s: the site names version %d until a newer one has its staple", lineage.name, version.number)


def pinned(context: Context, lineage: Lineage) -> Pinned | None:
    """Return the version that the site is pinned to; None where it is not pinned, or to nothing that is there."""
    if not _has_pin(context, lineage):
        return None
    return next((version for version in _versions(lineage, 0) if _statements(context, version.fullchain_path)), None)


def is_waiting(context: Context, lineage: Lineage) -> bool:
    """Tell whether the site names the version before, because the lineage's own has no staple yet."""
    if not lineage.is_must_staple:
        return False
    version, present = pinned(context, lineage), _present(lineage)
    return version is not None and present is not None and version.number < present.number


def unpin(context: Context, lineage: Lineage) -> bool:
    """Let the site name the lineage's own certificate again; return whether nginx must reload. Raises errors.Error."""
    return _has_pin(context, lineage) and writing.take_out_edits(context, {(lineage.name, True)})[0]


def clear(context: Context, lineage: Lineage) -> None:
    """Remove the earlier version's staple, once nginx has reloaded, where the configuration names it no more."""
    path = response_path(lineage.options, lineage.name)
    if os.path.lexists(path) and not _statements(context, path):
        files.remove(path)


def keep_staple(context: Context, lineage: Lineage) -> None:
    """Refresh the staple of the version that the site is pinned to; what goes wrong there is only logged."""
    version = pinned(context, lineage)
    if version is None or not _statements(context, version.response_path):
        return
    staple = store.ensure_staple(context, version).staple
    if staple is not None and files.read_if_present(version.response_path) != staple.response:
        files.replace(version.response_path, staple.response)
        context.nginx.test()
        context.nginx.reload()


def hold(context: Context, lineage: Lineage) -> None:
    """Let the site name the version that it serves by that version's own path, before certbot may renew the lineage.

    nginx is not reloaded, since the content is the same. A site that is pinned already stays so, unless certbot would
    remove the pinned version with the next renewal; a pair is never stapled. Raises errors.Error.
    """
    with files.lock(context.lock_path):
        release(context, lineage)
        present, version = _present(lineage), pinned(context, lineage)
        if present is None or (version is not None and version.number >= present.number - KEPT_VERSIONS + 1):
            return
        unpin(context, lineage)
        if not _statements(context, lineage.fullchain_path):
            return
        if serving.why_paired(lineage, serving.find_site(context, lineage.names)) is None:
            _pin_to(context, lineage, present)


def release(context: Context, lineage: Lineage) -> None:
    """Let a held site name the lineage's own certificate again; the caller has the lock. Raises errors.Error."""
    if _is_held(context, lineage):
        copy = files.read_if_present(response_path(lineage.options, lineage.name))
        unpin(context, lineage)
        if copy != files.read_if_present(lineage.response_path):
            context.nginx.reload()
        logger.info("%s: the site names the lineage's own certificate again", lineage.name)
    clear(context, lineage)


def _is_held(context: Context, lineage: Lineage) -> bool:
    """Tell whether the site is pinned to the lineage's newest version, or to nothing that is there."""
    version, present = pinned(context, lineage), _present(lineage)
    if version is None or present is None:
        return _has_pin(context, lineage)
    # Where certbot was killed between storing and linking, its next run links what is stored, and runs no hook.
    newer = replace(version, number=version.number + 1)
    return version.number == present.number and not os.path.exists(newer.fullchain_path)


def _has_pin(context: Context, lineage: Lineage) -> bool:
    return any(step.purpose == (lineage.name, True) for entry in context.journal.entries() for step in entry.steps)


def _present(lineage: Lineage) -> Pinned | None:
    """Return the version that live/ names; None where live/ holds no links, as certbot makes them."""
    return next(_versions(lineage, 0), None)


def _versions(lineage: Lineage, back: int = 1) -> Iterator[Pinned]:
    """Yield the versions from so many before the lineage's own on, newest first."""
    numbered = _NUMBERED.match(os.path.realpath(lineage.fullchain_path))
    for number in range(int(numbered.group(2)) - back, 0, -1) if numbered else ():
        version = Pinned(**{**vars(lineage), "number": number})
        with contextlib.suppress(errors.LineageRefused):
            leaf, *chain = lineages.certificates(version.fullchain_path)
            if os.path.exists(version.key_path):
                yield replace(version, leaf=leaf, chain=tuple(chain))


def _statements(context: Context, path: str) -> list[Statement]:
    """Return the statements that nginx reads whose one argument is the path."""
    word = os.fsencode(path)
    statements = context.nginx.configuration().mentioning(word)
    return [statement for statement in statements if statement.arguments == (word,)]
