"""The certificate before this one, kept in the site while a must-staple certificate has no staple yet.

certbot lets live/NAME/ name the new certificate before anybody is asked, so that whatever reloads nginx next would
serve it. While it lacks the staple that it demands, the site is pinned: its lines name the version before, in
archive/NAME/, and a copy of that one's staple. So that no reload can come too early, the site is held, that is pinned
to the version of now, before the CA is asked for the next one.

The law: certificate, key and staple change in one step, the replacement of the site's file, so that at every instant
what is on disk belongs together; and a site that is unpinned holds the bytes that it held before.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store, verify
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


def response_path(options: lineages.Options, name: str) -> str:
    """Return where the staple of the pinned version is kept."""
    return os.path.join(options.staple_dir, name, "pinned.response")


def pin(context: Context, lineage: Lineage) -> None:
    """Let the site name the version before, where it names the lineage's, which must be stapled and has no staple.

    nginx is not reloaded: it serves that version already. Nothing is done where there is no version to name.
    Raises errors.Error; then the site is as it was.
    """
    if store.stored_staple(lineage, context.now()) is not None or not _statements(context, lineage.fullchain_path):
        return
    earlier = _best(lineage, context.now())
    if earlier is not None:
        _pin_to(context, lineage, earlier)


def _pin_to(context: Context, lineage: Lineage, version: Pinned) -> None:
    """Let the site name the version, and a copy of its staple where the stored one is for it; that comes first."""
    response = (
        files.read(lineage.response_path) if _is_stapled_by(version, lineage.response_path, context.now()) else None
    )
    if response is not None:
        files.replace(version.response_path, response)
    planned = _plan(context, lineage, version, is_stapled=response is not None)
    writing.pin(context, planned, lineage.name)
    logger.info("%s: the site names version %d until a newer one has its staple", lineage.name, version.number)


def to_hold(
    config_dir: str, names: Collection[str], cert_name: str | None, options: lineages.Options, *, must_staple: bool
) -> list[Lineage]:
    """Return the lineages that certbot may be about to renew for the names and that must be stapled before or after.

    cert_name: the lineage that the person named; without one, certbot takes those whose names are among the names asked
    for. must_staple: whether the new certificate will demand a staple. What cannot be read is passed over: certbot
    says so itself.
    """
    found = []
    for name in [cert_name] if cert_name else lineages.all_names(config_dir):
        with contextlib.suppress(errors.LineageRefused):
            leaf = lineages.certificates(os.path.join(config_dir, "live", name, "cert.pem"))[0]
            is_meant = bool(cert_name) or set(lineages.certificate_names(leaf)) <= set(names)
            if is_meant and (must_staple or verify.is_must_staple(leaf)):
                found.append(lineages.load(config_dir, name, options=options))
    return found


def hold(context: Context, lineage: Lineage) -> None:
    """Let the site name the version that it serves by that version's own path, before certbot may renew the lineage.

    nginx is not reloaded, since the content is the same. A site that is pinned already stays so, unless certbot would
    remove the pinned version together with the next renewal. Nothing is done for a pair, which is never stapled.
    Raises errors.Error; then the site is as it was.
    """
    with files.lock(context.lock_path):
        _release(context, lineage)
        present, kept = _present(lineage), pinned(context, lineage)
        if present is None or (kept is not None and kept.number >= present.number - KEPT_VERSIONS + 1):
            return
        unpin(context, lineage)
        if _statements(context, lineage.fullchain_path) and not _is_paired(context, lineage):
            _pin_to(context, lineage, present)


def release(context: Context, lineage: Lineage) -> None:
    """Let a site that is held name the lineage's own certificate again, where certbot has brought no newer one.

    Raises errors.Error; then the site is as it was.
    """
    with files.lock(context.lock_path):
        _release(context, lineage)
        clear(context, lineage)


def repair(context: Context, lineage: Lineage) -> None:
    """Release what a killed run left held; the lock is the caller's. Raises errors.Error; then the site is as it was.

    Costs nothing where a hold could do no harm: a plain certificate that was not stapled.
    """
    if lineage.is_must_staple or os.path.lexists(response_path(lineage.options, lineage.name)):
        _release(context, lineage)
        clear(context, lineage)


def _release(context: Context, lineage: Lineage) -> None:
    if not _is_held(context, lineage):
        return
    copy = files.read_if_present(response_path(lineage.options, lineage.name))
    unpin(context, lineage)
    if copy != files.read_if_present(lineage.response_path):
        context.nginx.reload()
    logger.info("%s: the site names the lineage's own certificate again", lineage.name)


def _is_held(context: Context, lineage: Lineage) -> bool:
    """Tell whether the site is pinned to the lineage's newest version, or to nothing that is there."""
    kept, present = pinned(context, lineage), _present(lineage)
    if kept is None or present is None:
        return _has_pin(context, lineage)
    # Where certbot was killed between storing and linking, its next run links what is stored, and runs no hook.
    newer = replace(kept, number=kept.number + 1)
    return kept.number == present.number and not os.path.exists(newer.fullchain_path)


def is_waiting(context: Context, lineage: Lineage) -> bool:
    """Tell whether the site names the version before, because the lineage's own has no staple yet."""
    if not lineage.is_must_staple:
        return False
    kept, present = pinned(context, lineage), _present(lineage)
    return kept is not None and present is not None and kept.number < present.number


def pinned(context: Context, lineage: Lineage) -> Pinned | None:
    """Return the version that the site is pinned to; None where it is not pinned, or to nothing that is there."""
    if not _has_pin(context, lineage):
        return None
    return next((one for one in _versions(lineage, 0) if _statements(context, one.fullchain_path)), None)


def _has_pin(context: Context, lineage: Lineage) -> bool:
    return any(step.purpose == (lineage.name, True) for entry in context.journal.entries() for step in entry.steps)


def _is_paired(context: Context, lineage: Lineage) -> bool:
    return serving.why_paired(context, lineage, serving.find_site(context, lineage.names)) is not None


def unpin(context: Context, lineage: Lineage) -> bool:
    """Let the site name the lineage's own certificate again; return whether it was pinned and nginx must reload.

    Raises errors.Error; then the site is as it was.
    """
    if not _has_pin(context, lineage):
        return False
    changed, _ = writing.take_out_edits(context, {(lineage.name, True)})
    return changed


def clear(context: Context, lineage: Lineage) -> None:
    """Remove the earlier version's staple, once nginx has reloaded, where the configuration names it no more."""
    path = response_path(lineage.options, lineage.name)
    if os.path.lexists(path) and not _statements(context, path):
        files.remove(path)


def keep_staple(context: Context, lineage: Lineage) -> None:
    """Refresh the staple of the version that the site is pinned to; what goes wrong there is only logged."""
    path = response_path(lineage.options, lineage.name)
    kept = pinned(context, lineage)
    if kept is None or not _statements(context, path):
        return
    outcome = store.ensure_staple(context, kept)
    if outcome.staple is not None and files.read_if_present(path) != outcome.staple.response:
        files.replace(path, outcome.staple.response)
        context.nginx.test()
        context.nginx.reload()


def _best(lineage: Lineage, now: datetime.datetime) -> Pinned | None:
    """Return the newest earlier version that the stored staple is for, else the newest that has not expired."""
    earlier = [one for one in _versions(lineage) if one.not_before <= now < one.not_after]
    stapled = (one for one in earlier if _is_stapled_by(one, lineage.response_path, now))
    return next(stapled, earlier[0] if earlier else None)


def _present(lineage: Lineage) -> Pinned | None:
    """Return the version that live/ names; None where live/ holds no links, as certbot makes them."""
    return next(_versions(lineage, 0), None)


def _versions(lineage: Lineage, back: int = 1) -> Iterator[Pinned]:
    """Yield the versions from so many before the lineage's own on, newest first."""
    numbered = _NUMBERED.match(os.path.realpath(lineage.fullchain_path))
    for number in range(int(numbered.group(2)) - back, 0, -1) if numbered else ():
        version = Pinned(**{**vars(lineage), "number": number})
        try:
            leaf, *chain = lineages.certificates(version.fullchain_path)
        except errors.LineageRefused:
            continue
        if os.path.exists(version.key_path):
            yield replace(version, leaf=leaf, chain=tuple(chain))


def _is_stapled_by(version: Lineage, path: str, now: datetime.datetime) -> bool:
    return store.staple_at(path, version, now) is not None


def _plan(context: Context, lineage: Lineage, earlier: Pinned, *, is_stapled: bool) -> edits.Edits:
    own = plan.Certificate(lineage.fullchain_path, lineage.key_path, lineage.snippet_path, is_stapled)
    instead = plan.Certificate(earlier.fullchain_path, earlier.key_path, lineage.snippet_path, is_stapled)
    paths = (own.fullchain, own.key, own.include, lineage.response_path)
    named = [said for path in paths for said in _statements(context, path)]
    planned = edits.Edits()
    plan.pin(planned, named, own, instead, lineage.response_path, earlier.response_path)
    return planned


def _statements(context: Context, path: str) -> list[Statement]:
    """Return the statements that nginx reads whose one argument is the path."""
    word = os.fsencode(path)
    return [one for one in context.configuration.mentioning(word) if one.arguments == (word,)]
