"""What end-to-end tests stand on: a world per test, whose logs go into the report of a failure."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from e2e import road
from e2e.processes import answers, find_tool
from e2e.world import TOOLS, World

LOG_TAIL_CHARACTERS = 8000


@pytest.fixture(scope="session")
def tools(request: pytest.FixtureRequest) -> None:
    """Skip, or fail with --no-missing-tools, where a program that every world needs is not installed."""
    missing = [name for name in TOOLS if find_tool(name) is None]
    if missing:
        refuse = pytest.fail if request.config.getoption("--no-missing-tools") else pytest.skip
        refuse(f"not installed: {', '.join(missing)} (tests/setup-environment packages installs them)")


@pytest.fixture
def world(tools: None) -> Iterator[World]:
    """Give a world in which nothing runs yet; afterwards everything in it is ended and removed."""
    with World() as made:
        yield made


@pytest.fixture
def issued(world: World) -> World:
    """Give a world in which the tutorial's site is served with its certificate and a staple for 96 hours."""
    road.start(world)
    road.certonly(world)
    assert road.staples_lineage(world)
    return world


@pytest.fixture(scope="module")
def kept(tools: None, request: pytest.FixtureRequest) -> Iterator[World]:
    """Give the tests of a module one world, with a certificate, its staple, and a crontab that renews it.

    A module's AUTHZ_REUSE says how often, in percent, the CA reuses an authorization.
    """
    with World() as made:
        road.start(made, authz_reuse=getattr(request.module, "AUTHZ_REUSE", 0))
        road.certonly(made)
        road.give_scheduler(made)
        shutil.copytree(made.path("/etc"), made.folder / "kept", symlinks=True)
        yield made


@pytest.fixture
def restored(kept: World) -> Iterator[World]:
    """Give a test its module's world, and put its files back afterwards."""
    yield kept
    shutil.rmtree(kept.path("/etc"))
    shutil.copytree(kept.folder / "kept", kept.path("/etc"), symlinks=True)
    (kept.set_responder if answers(kept.ocsp_port) else kept.start_responder)()
    kept.reload_nginx()


@pytest.hookimpl(hookwrapper=True)  # the way that Debian 12's pytest knows, too
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Add the logs of the test's world to the report of its failure."""
    report: pytest.TestReport = (yield).get_result()
    made = getattr(item, "funcargs", {}).get("world")
    if report.failed and isinstance(made, World) and made.folder.exists():
        report.sections += [(title, text[-LOG_TAIL_CHARACTERS:]) for title, text in made.logs().items()]
