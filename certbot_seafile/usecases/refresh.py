"""Refreshing staples: of one lineage, or of many at a time.

The law: responders are asked side by side, and all else is done one by one: threads that compute only take Python's
lock from each other. Each nginx is reloaded once for all lineages. One lineage's failure is its own. What is kept of a
lineage until the end is text, so memory does not grow with their number.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from certbot_seafile import errors
from certbot_seafile.ocsp import staple, store
from certbot_seafile.ocsp.store import Outcome
from certbot_seafile.system import files
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.system.nginx import Nginx

logger = logging.getLogger(__name__)

WORKERS = 16
_AHEAD = 4 * WORKERS  # so many may wait for their answer, or for their turn to be stored

_T = TypeVar("_T")


@dataclass(frozen=True)
class Refreshed:
    """What became of a lineage's staple.

    done: what changed, a phrase (None: nothing). failure: what went wrong (None: nothing did). ends_soon: whether a
    client may meet no good staple before the next run.
    """

    name: str
    done: str | None = None
    failure: str | None = None
    is_revoked: bool = False
    ends_soon: bool = True

    def report(self, say: Callable[[str], None]) -> None:
        """Say what was done, and log what went wrong."""
        if self.done is not None:
            say(f"{self.name}: {self.done}")
        if self.failure is not None:
            logger.warning("%s: %s", self.name, self.failure)


@dataclass
class _Turn:
    """One nginx's part: whether it must reload, what waits for that, and the responses that go afterwards."""

    context: Context
    waiting: list[Refreshed] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)


def refresh_one(context: Context, lineage: Lineage) -> Refreshed:
    """Refresh the lineage's staple where it is due, store it, and reload nginx where it changed.

    Raises errors.NginxRefused, errors.SyntaxRefused, errors.FileRefused.
    """
    turn = _Turn(context)
    result = _settle(turn, lineage, store.obtain(context, lineage))
    _reload(turn)
    return result


def refresh_all(
    names: Iterable[str],
    load: Callable[[str], Lineage | None],
    context_for: Callable[[Options], Context],
    *,
    force: bool = False,
    on_progress: Callable[[int], None] = lambda count: None,
) -> Iterator[Refreshed]:
    """Refresh the staples of the named lineages that are due; yield what became of each.

    load: returns None for a name that is to be passed over; raises errors.LineageRefused. on_progress: hears how many
    are settled; results of those that changed come after nginx has reloaded.
    """
    turns: dict[Nginx, _Turn] = {}
    with ThreadPoolExecutor(WORKERS, "refresh") as pool:
        all_begun = (_begin(name, load, context_for, force, pool) for name in names)
        for count, begun in enumerate(_some_ahead(all_begun), 1):
            on_progress(count)
            if isinstance(begun, Refreshed):
                yield begun
            elif begun is not None:
                turn = turns.setdefault(begun.context.nginx, _Turn(begun.context))
                result = _settle(turn, begun.found, begun.outcome())
                if result.done is None:
                    yield result
    for turn in turns.values():
        yield from _reloaded(turn)


@dataclass(frozen=True)
class _Begun:
    """A lineage whose responder is being asked, or needs no asking; outcome: waits, and tells what became of it."""

    context: Context
    found: Lineage
    outcome: Callable[[], Outcome]


def _begin(
    name: str,
    load: Callable[[str], Lineage | None],
    context_for: Callable[[Options], Context],
    force: bool,
    pool: ThreadPoolExecutor,
) -> _Begun | Refreshed | None:
    """Let the responder be asked, where that is due; return what failed, or None where load knows no such lineage."""
    try:
        found = load(name)
        if found is None:
            return None
        context = context_for(found.options)
        asked = store.question(context, found, force=force)
    except errors.CertbotError as error:
        return Refreshed(name, failure=str(error))
    if isinstance(asked, Outcome):
        return _Begun(context, found, lambda: asked)
    answer = pool.submit(store.ask, asked)
    return _Begun(context, found, lambda: store.conclude(context, found, asked, answer.result()))


def _some_ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items in order, each when a few more have been taken."""
    waiting: deque[_T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _settle(turn: _Turn, lineage: Lineage, outcome: Outcome) -> Refreshed:
    """Bring the files in line with the outcome, and note what is left for the reload and after it."""
    failure = outcome.reason if store.why_unstapled(lineage) is None else None
    ends_soon = outcome.staple is None or staple.must_withdraw(outcome.staple, turn.context.now())
    result = Refreshed(lineage.name, None, failure, outcome.is_revoked, ends_soon)
    try:
        with files.lock(turn.context.lock_path):
            store.mend(lineage)
            changed = store.settle(turn.context, lineage, outcome)
    except errors.FileRefused as refused:
        return replace(result, failure=str(refused))
    if store.is_withdrawn(lineage, outcome):
        turn.withdrawn.append(lineage.response_path)
    if changed:
        result = replace(result, done=_phrase(outcome))
        turn.waiting.append(result)
    return result


def _phrase(outcome: Outcome) -> str:
    if outcome.staple is None:
        return f"stapling withdrawn: {outcome.reason}"
    return f"stored {store.staple_phrase(outcome).removeprefix('with ')}"


def _reload(turn: _Turn) -> None:
    if turn.waiting or store.is_pending(turn.context):
        store.reload(turn.context)
    store.withdraw_responses(turn.context, turn.withdrawn)


def _reloaded(turn: _Turn) -> Iterator[Refreshed]:
    """Reload the turn's nginx, and yield what waited for it."""
    try:
        _reload(turn)
    except errors.Error as error:
        if not turn.waiting:
            yield Refreshed("nginx", failure=str(error))
        for result in turn.waiting:
            yield replace(result, done=None, failure=f"stored, but not served: {error}")
    else:
        yield from turn.waiting
