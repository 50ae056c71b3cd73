"""certbot's next versions: nothing that is deprecated is used, and a deploy hook may run twice."""

from __future__ import annotations

from pathlib import Path

import acme
import certbot
import pytest

import certbot_seafile
from e2e import road
from e2e.world import World, snapshot

pytestmark = pytest.mark.certbot

#: What no output may hold: Python prints a warning's class.
DEPRECATED = "DeprecationWarning"


def modules() -> list[str]:
    """Return the names of all modules of certbot, acme and this package."""
    found = []
    for package in (certbot, acme, certbot_seafile):
        root = Path(str(package.__file__)).parent
        parts = [path.relative_to(root.parent).with_suffix("").parts for path in root.rglob("*.py")]
        found += [".".join(each).removesuffix(".__init__") for each in parts if "tests" not in each]
    return found


def strict() -> dict[str, str]:
    """Return the environment in which a deprecated use of, or by, any of these modules is an exception.

    PYTHONWARNINGS takes modules by their whole names only. Other libraries' warnings about each other are not ours.
    """
    return {"PYTHONWARNINGS": ",".join(f"error::DeprecationWarning:{name}" for name in modules())}


def warning(module: str) -> list[str]:
    """Return a command that raises the warning of a deprecation as if it were that module."""
    warn = f"warnings.warn_explicit('old', DeprecationWarning, 'file', 1, {module!r})"
    return ["python3", "-c", f"import warnings; {warn}"]


@pytest.mark.parametrize("name", ["certbot_seafile.plugin", "certbot.achallenges", "acme.crypto_util"])
def test_the_strict_environment_turns_a_warning_into_an_exception(world: World, name: str) -> None:
    """A warning that is raised in one of these modules ends a program; one of another library does not."""
    caught = world.run(*warning(name), env=strict(), check=False)
    assert (caught.exit_code, caught.stderr.splitlines()[-1]) == (1, f"{DEPRECATED}: old")
    assert world.run(*warning("josepy.jwk"), env=strict()).exit_code == 0


@pytest.mark.long
def test_nothing_deprecated_is_used_from_the_first_certificate_to_undo(world: World) -> None:
    """plugins, certonly, renew with its hook, a refresh, status and undo run where a deprecated use is an exception."""
    site = road.start(world)
    env = strict()
    runs = [world.certbot("plugins", "--prepare", *world.plugin_options, env=env), road.certonly(world, env=env)]
    assert road.staples_lineage(world)
    first = world.leaf(road.NAME)
    runs.append(world.certbot("renew", "--force-renewal", env=env))
    assert world.leaf(road.NAME) != first
    assert road.staples_lineage(world)
    runs += [world.seafile("refresh", "--force", env=env), world.seafile("status", env=env)]
    runs.append(world.seafile("undo", env=env))
    assert road.site_bytes(world) == site
    assert [str(run) for run in runs if DEPRECATED in run.output + run.log] == []


def test_a_hook_that_runs_twice_changes_nothing_the_second_time(issued: World) -> None:
    """renewal-hooks/deploy names us too: one renewal is one reload and one question to the responder."""
    hook = issued.config_dir / "renewal-hooks" / "deploy" / "seafile"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(f"#!/bin/sh\nexec {road.renewal(issued)['renew_hook']}\n")
    hook.chmod(0o755)
    reloads, requests = issued.reloads(), road.ocsp_requests(issued)
    renewed = issued.certbot("renew", "--force-renewal")
    assert renewed.output.count("Served: the certificate of") == 2
    assert issued.reloads() == reloads + 1
    assert road.ocsp_requests(issued) == requests + 1
    assert road.staples_lineage(issued)
    before = snapshot(issued.path("/etc"))
    issued.run(hook, env={"RENEWED_LINEAGE": str(issued.lineage(road.NAME)), "RENEWED_DOMAINS": road.NAME})
    assert snapshot(issued.path("/etc")) == before
    assert issued.reloads() == reloads + 1
