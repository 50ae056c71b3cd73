"""Options of the whole test run."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option with which `make test` refuses to skip for want of a program."""
    parser.addoption(
        "--no-missing-tools", action="store_true", help="fail, not skip, tests whose programs are not installed"
    )
