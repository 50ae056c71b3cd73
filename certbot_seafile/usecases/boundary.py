"""Where one lineage's failure ends, so that the others go on.

The law: this is the one place that catches whatever is raised. Failures that we name become a sentence; anything else
is a defect of this program, and becomes a sentence too, with its traceback in the log.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from certbot_seafile import errors
from certbot_seafile.system import progress

logger = logging.getLogger(__name__)

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Failure:
    """What stopped the work on one lineage. name: the lineage's. reason: a sentence without its full stop."""

    name: str
    reason: str

    def __str__(self) -> str:
        return self.reason if self.reason.startswith(self.name) else f"{self.name}: {self.reason}"


def attempt(name: str, work: Callable[_P, _T], *arguments: _P.args, **options: _P.kwargs) -> _T | Failure:
    """Return what the work on the lineage called name returns, or what stopped it, whatever that is."""
    try:
        return work(*arguments, **options)
    except errors.CertbotError as error:
        logger.debug("%s failed", name, exc_info=True)
        return Failure(name, str(error))
    except Exception as error:
        logger.exception("%s: a defect of certbot-seafile", name)
        return Failure(
            name,
            f"certbot-seafile has a defect ({type(error).__name__}: {error}); the other certificates are not affected; "
            "please report it with the lines above it in the log",
        )


def attempt_each(names: Sequence[str], work: Callable[[str], _T]) -> tuple[list[_T], list[Failure]]:
    """Return what the work on each of the lineages returns, and what stopped the work on the others."""
    results = []
    with progress.waiting("the certificates") as wait:
        for number, name in enumerate(names):
            wait.count(number, len(names))
            results.append(attempt(name, work, name))
    failures = [result for result in results if isinstance(result, Failure)]
    return [result for result in results if not isinstance(result, Failure)], failures


@contextlib.contextmanager
def remembered(remember: Callable[[str | None], object]) -> Iterator[None]:
    """Let `remember` know in the end why the block failed; None where it did not."""
    failure: str | None = "it was interrupted"
    try:
        yield
        failure = None
    except errors.CertbotError as error:
        failure = str(error)
        raise
    finally:
        remember(failure)
