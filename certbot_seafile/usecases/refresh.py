"""Refreshing staples: of one lineage, or of many at a time.

The law: responders are asked side by side, and all else is done one by one: threads that compute only take Python's
lock from each other. Each nginx is reloaded once for all lineages. What is kept of a lineage until the end is text, so
memory does not grow with their number.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from certbot_seafile import errors
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import challenge, files, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.system.nginx import Nginx
from certbot_seafile.usecases.boundary import Failure, attempt

logger = logging.getLogger(__name__)

WORKERS = 16
_AHEAD = 4 * WORKERS  # so many may wait for their response, or for their turn to be stored

_T = TypeVar("_T")
#: Returns a lineage and what to work with; None for one that is to be passed over.
Load = Callable[[str], tuple[Context, Lineage] | None]


@dataclass(frozen=True)
class Refreshed:
    """What became of a lineage's staple. done: what changed; failure: what went wrong; None for nothing.

    is_fault: whether a client is hurt: the leaf is revoked, nginx refuses to load, or a must-staple leaf may be without
    a good staple before the next run.
    """

    name: str
    done: str | None = None
    failure: str | None = None
    is_fault: bool = False

    def report(self, say: Callable[[str], None]) -> None:
        """Say what was done, and log what went wrong."""
        if self.done is not None:
            say(f"{self.name}: {self.done}")
        if self.failure is not None:
            logger.warning("%s", Failure(self.name, self.failure))


@dataclass
class _Turn:
    """One nginx's round, the results that wait for it to load what was written, and what is to be looked at then."""

    round: store.Round
    waiting: list[Refreshed] = field(default_factory=list)
    sealed: list[Version] = field(default_factory=list)


def refresh(
    names: Iterable[str], load: Load, *, force: bool = False, on_progress: Callable[[int], None] = lambda count: None
) -> Iterator[Refreshed]:
    """Refresh the staples that are due, and yield what became of each; on_progress hears how many are done."""
    turns: dict[Nginx, _Turn] = {}

    def begin(name: str) -> Callable[[], Refreshed] | None:
        """Let the responder be asked, where a staple is due; return what waits for the response, and stores it."""
        loaded = load(name)
        if loaded is None:
            return None
        context, lineage = loaded
        if context.nginx not in turns:
            with files.lock(context.lock_path):
                challenge.clean_up(context)
        turn = turns.setdefault(context.nginx, _Turn(store.Round(context)))
        due = store.find_due(context, lineage, force=force)
        if due.ask is None:
            return partial(_write, turn, lineage, due)
        response = pool.submit(due.ask)
        return lambda: _write(turn, lineage, store.verify_response(context, lineage, due, response.result))

    with ThreadPoolExecutor(WORKERS, "refresh") as pool:
        all_begun = ((name, attempt(name, begin, name)) for name in names)
        for count, (name, begun) in enumerate(_some_ahead(all_begun), 1):
            on_progress(count)
            result = begun if begun is None or isinstance(begun, Failure) else attempt(name, begun)
            if isinstance(result, Failure):
                yield Refreshed(name, failure=result.reason, is_fault=True)
            elif result is not None and result.done is None:
                yield result
    for turn in turns.values():
        yield from _load(turn)


def refresh_one(context: Context, lineage: Lineage) -> Refreshed:
    """Refresh one lineage's staple where it is due; return what became of it, or why nginx loads nothing."""
    *_, result = refresh([lineage.name], lambda _: (context, lineage))
    return result


def _some_ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items in order, each when a few more have been taken."""
    waiting: deque[_T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _write(turn: _Turn, lineage: Lineage, outcome: store.Outcome) -> Refreshed:
    """Bring the files in line with the outcome; what nginx must load waits for the end of its round."""
    context = turn.round.context
    with files.lock(context.lock_path):
        is_changed = turn.round.write(lineage, outcome)
    failure = outcome.reason if outcome.is_revoked or store.why_unstapled(lineage, outcome.record) is None else None
    ends_soon = outcome.staple is None or verify.must_withdraw(outcome.staple, context.now())
    is_fault = outcome.is_revoked or (failure is not None and lineage.is_must_staple and ends_soon)
    result = Refreshed(lineage.name, _phrase(outcome) if is_changed else None, failure, is_fault)
    if is_changed:
        turn.waiting.append(result)
        turn.sealed += [lineage] if isinstance(lineage, Version) else []
    return result


def _phrase(outcome: store.Outcome) -> str:
    if outcome.staple is None:
        return f"stapling withdrawn: {outcome.reason}"
    return f"stored {str(outcome).removeprefix('with ')}"


def _load(turn: _Turn) -> Iterator[Refreshed]:
    context = turn.round.context
    try:
        turn.round.finish()
    except errors.Error as error:
        reasons = {result.name: str(error) for result in turn.waiting}
        if not reasons:
            yield Refreshed("nginx", failure=str(error), is_fault=True)
    else:
        look = serving.verify_served
        looked = [attempt(each.name, look, context, each, each.stored_response()) for each in turn.sealed]
        reasons = {each.name: each.reason for each in looked if isinstance(each, Failure)}
    for result in turn.waiting:
        reason = reasons.get(result.name)
        failure = f"stored, but not served: {reason}"
        yield replace(result, done=None, failure=failure, is_fault=True) if reason else result
