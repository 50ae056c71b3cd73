"""One lineage's failure is its own, whatever it is."""

from __future__ import annotations

import logging

import pytest

from certbot_seafile import errors
from certbot_seafile.usecases.boundary import Failure, attempt


def fail_with(error: BaseException) -> object:
    """Raise the error."""
    raise error


def test_what_works_is_returned() -> None:
    """Without a failure, the result comes through."""
    assert attempt("home", lambda: 7) == 7


def test_a_named_failure_becomes_its_sentence() -> None:
    """Our own errors are told in their own words, under the lineage's name."""
    assert str(attempt("home", lambda: fail_with(errors.NotServed("nothing answers")))) == "home: nothing answers"


def test_the_name_is_not_told_twice() -> None:
    """A sentence that begins with the lineage's name is left as it is."""
    assert str(Failure("home", "home: nothing answers")) == "home: nothing answers"


@pytest.mark.parametrize("error", [IndexError("22 bytes"), RuntimeError(), RecursionError(), MemoryError(), OSError(5)])
def test_what_nobody_thought_of_is_a_failure_of_the_one_lineage(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A defect becomes a sentence that says so, and its traceback is in the log."""
    with caplog.at_level(logging.DEBUG):
        failure = attempt("home", lambda: fail_with(error))
    assert isinstance(failure, Failure)
    assert failure.name == "home"
    assert "defect" in failure.reason
    assert type(error).__name__ in failure.reason
    assert "Traceback" in caplog.text


def test_an_interrupt_is_not_swallowed() -> None:
    """Ctrl-C ends the program."""
    with pytest.raises(KeyboardInterrupt):
        attempt("home", lambda: fail_with(KeyboardInterrupt()))
