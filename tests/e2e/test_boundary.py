"""What one lineage does never stops the others: refresh, status and check go on, name the one, and exit 1."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from certbot_seafile import cli, errors
from certbot_seafile.ocsp import store
from certbot_seafile.system import lineages, records
from certbot_seafile.usecases import deploy, status
from e2e import many, minted, road
from e2e.world import World

NAMES = many.names(3)
BROKEN = NAMES[1]


@pytest.fixture
def three(world: World) -> World:
    """Give a world with three lineages, their responder and an nginx, whose sites do not matter."""
    many.make_lineages(world, 3)
    world.start_nginx()
    road.give_scheduler(world)
    return world


def breaking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with a defect for one lineage: what nobody thought of."""

    def broken(context: Any, lineage: Any, *rest: Any, **options: Any) -> Any:
        if lineage.name == BROKEN:
            raise IndexError("22 bytes from a responder")
        return function(context, lineage, *rest, **options)

    return broken


def run(world: World, *words: str) -> int:
    """Run the console script in this process."""
    return cli.main([*world.folders, *words])


@pytest.mark.parametrize("function", ["find_due", "verify_response"])
def test_refresh_goes_on(
    three: World, function: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The other lineages get their staples, the one is named, and the exit code is 1."""
    monkeypatch.setattr(store, function, breaking(getattr(store, function)))
    assert run(three, "refresh") == 1
    stored = [name for name in NAMES if (three.staple_dir / name / "ocsp.response").exists()]
    assert stored == [name for name in NAMES if name != BROKEN]
    assert f"{BROKEN}: certbot-seafile has a defect (IndexError" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["status"], ["check"]])
def test_status_and_check_go_on(
    three: World, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one is named among what is told of the others."""
    monkeypatch.setattr(status, "standing", breaking(status.standing))
    assert run(three, *words, *(["--root", str(three.folder)] if words == ["check"] else [])) == 1
    told = capsys.readouterr().out
    assert f"{BROKEN}: certbot-seafile has a defect (IndexError" in told
    assert all(name in told for name in NAMES)


def test_22_bytes_from_a_responder_stop_nothing(three: World) -> None:
    """A SUCCESSFUL response with an empty OCTET STRING is refused for each lineage, in a sentence."""
    three.set_responder(fault="hollow")
    refreshed = three.seafile("refresh", check=False)
    assert refreshed.exit_code == 1
    assert "Traceback" not in refreshed.output
    assert all(f"{name}: the OCSP response is refused" in refreshed.stderr for name in NAMES)
    three.set_responder()
    assert three.seafile("refresh").exit_code == 0


def test_a_lineage_that_cannot_be_read_stops_no_other(three: World) -> None:
    """A certificate that is garbage is named; the others get their staples."""
    (three.config_dir / "live" / BROKEN / "cert.pem").unlink()
    (three.config_dir / "live" / BROKEN / "cert.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n")
    refreshed = three.seafile("refresh", check=False)
    assert refreshed.exit_code == 1
    assert BROKEN in refreshed.stderr
    assert sorted(path.parent.name for path in three.staple_dir.glob("*/ocsp.response")) == [NAMES[0], NAMES[2]]


def test_a_reload_that_is_owed_and_refused_is_told_in_a_sentence(world: World) -> None:
    """Staples wait for nginx since a killed run, nothing is due, and somebody broke another site meanwhile."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    context = minted.issue(world, road.NAME, minted.options(world, stapling="off"))
    lineage = lineages.load(str(world.config_dir), road.NAME)
    mark = records.Mark(context.state_dir, context.options.ctl, context.options.server_root)
    mark.set()
    world.write_site("broken.conf", b"no_such_thing;\n")
    with pytest.raises(errors.Error, match="no_such_thing"):
        deploy.keep(context, lineage)
    assert mark.is_set
