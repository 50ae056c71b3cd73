"""Refreshing staples: of one lineage, or of many at a time.

The law: responders are asked side by side, and all else is done one by one: threads that compute only take Python's
lock from each other. Each nginx is reloaded once for all lineages. What is kept of a lineage until the end is text, so
memory does not grow with their number.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import handover
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import challenge, files, progress, serving
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
        progress.erase()
        if self.done is not None:
            say(f"{self.name}: {self.done}")
        if self.failure is not None:
            logger.warning("%s", Failure(self.name, self.failure))


#: What waits for nginx to load what was written: the results, each with what is to be looked at then.
_Waiting = list[tuple[Refreshed, Context, Lineage]]


def refresh(names: Sequence[str], load: Load, *, force: bool = False) -> Iterator[Refreshed]:
    """Refresh the staples that are due, and yield what became of each."""
    turns: dict[Nginx, tuple[store.Round, _Waiting]] = {}

    def begin(name: str) -> Callable[[], Refreshed] | None:
        """Let the responder be asked, where a staple is due; return what waits for the response, and stores it."""
        loaded = load(name)
        if loaded is None:
            return None
        context, lineage = loaded
        if context.nginx not in turns:
            with files.lock(context.lock_path):
                challenge.clean_up(context)
        turn = turns.setdefault(context.nginx, (store.Round(context), []))
        due = store.find_due(context, lineage, force=force)
        write = partial(_write, *turn, loaded, partial(load, name))
        if due.ask is None:
            return partial(write, due)
        response = pool.submit(due.ask)
        return lambda: write(store.verify_response(context, lineage, due, response.result))

    with ThreadPoolExecutor(WORKERS, "refresh") as pool, progress.waiting("staples") as wait:
        all_begun = ((name, attempt(name, begin, name)) for name in names)
        for count, (name, begun) in enumerate(_some_ahead(all_begun), 1):
            wait.count(count, len(names))
            result = begun if begun is None or isinstance(begun, Failure) else attempt(name, begun)
            if isinstance(result, Failure):
                yield Refreshed(name, failure=result.reason, is_fault=True)
            elif result is not None and result.done is None:
                yield result
    for turn in turns.values():
        yield from _load(*turn)


def refresh_one(context: Context, name: str, load: Callable[[], Lineage]) -> Refreshed:
    """Refresh one lineage's staple where it is due; return what became of it, or why nginx loads nothing."""
    *_, result = refresh([name], lambda _: (context, load()))
    return result


def _some_ahead(items: Iterable[_T]) -> Iterator[_T]:
    """Yield the items in order, each when a few more have been taken."""
    waiting: deque[_T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > _AHEAD:
            yield waiting.popleft()
    yield from waiting


def _write(
    loading: store.Round,
    waiting: _Waiting,
    loaded: tuple[Context, Lineage],
    load: Callable[[], tuple[Context, Lineage] | None],
    outcome: store.Outcome,
) -> Refreshed:
    """Bring the files in line with the outcome; what nginx must load waits for the end of its round.

    Where somebody has deployed or undone the lineage while its responder was asked, the outcome is about what is gone.
    """
    context, lineage = loaded
    with files.lock(context.lock_path):
        now = load()
        if now is None or (now[1].leaf, now[1].folder) != (lineage.leaf, lineage.folder):
            return Refreshed(lineage.name)
        is_changed = loading.write(lineage, outcome)
    failure = outcome.reason if outcome.is_revoked or store.why_unstapled(lineage, outcome.record) is None else None
    ends_soon = outcome.staple is None or verify.must_withdraw(outcome.staple, context.now())
    is_fault = outcome.is_revoked or (failure is not None and lineage.is_must_staple and ends_soon)
    result = Refreshed(lineage.name, _phrase(outcome) if is_changed else None, failure, is_fault)
    if is_changed:
        waiting.append((result, context, lineage))
    return result


def _phrase(outcome: store.Outcome) -> str:
    if outcome.staple is None:
        return f"stapling withdrawn: {outcome.reason}"
    return f"stored {str(outcome).removeprefix('with ')}"


def _load(loading: store.Round, waiting: _Waiting) -> Iterator[Refreshed]:
    finished = attempt("nginx", loading.finish)
    if isinstance(finished, Failure) and not waiting:
        yield Refreshed("nginx", failure=finished.reason, is_fault=True)
    for result, context, lineage in waiting:
        looked = finished
        if looked is None and isinstance(lineage, Version):
            looked = attempt(result.name, serving.verify_served, context, lineage)
        if isinstance(looked, Failure):
            result = replace(result, done=None, failure=f"stored, but not served: {looked.reason}", is_fault=True)
        yield result
    for lineage, response in loading.handed:
        handed = attempt(lineage.name, handover.write, lineage, response)
        if isinstance(handed, Failure):
            yield Refreshed(lineage.name, failure=handed.reason, is_fault=True)
