"""A run that is killed while the CA is asked leaves nothing for good: the next one cleans up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest

from certbot_seafile.system import challenge
from certbot_seafile.usecases import deploy, refresh, undo
from e2e import minted
from e2e.shapes import NAME, SITE, plain, tls
from e2e.world import World, snapshot

OTHER = "other.example.org"
TOKENS = "/var/www/letsencrypt/.well-known/acme-challenge"


def ask_and_die(world: World) -> None:
    """Let a process put in what the CA is to see, and kill it then."""
    if (child := os.fork()) == 0:
        try:
            with challenge.answered(minted.context(world, minted.options(world)), {(NAME, "token"): b"content"}):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def ask_again(world: World) -> None:
    """Ask for the same once more."""
    with challenge.answered(minted.context(world, minted.options(world)), {(NAME, "another"): b"content"}):
        pass


def take_back(world: World) -> None:
    """Undo everything."""
    assert undo.undo(minted.context(world, minted.options(world)), [], is_whole=True) == []


def keep_other(world: World) -> None:
    """Let `certbot renew` come by, for another site's certificate that is not due."""
    context = minted.context(world, minted.options(world))
    deploy.keep(context, minted.load(world, OTHER))


def refresh_other(world: World) -> None:
    """Refresh another site's staple."""
    context, lineage = minted.context(world, minted.options(world)), minted.load(world, OTHER)
    assert [each.name for each in refresh.refresh([OTHER], lambda _: (context, lineage))] == [OTHER]


@pytest.mark.parametrize("run", [ask_again, take_back, keep_other, refresh_other])
def test_the_next_run_takes_out_what_a_killed_one_left(world: World, run: Callable[[World], None]) -> None:
    """Validation file, edits, journal and note are gone, and nginx runs without the edits."""
    site = world.write_site("seafile.conf", world.adapt(SITE.encode()))
    other = plain(names=OTHER) + tls(names=OTHER)
    world.write_site("other.conf", world.adapt(other.encode()))
    world.start_nginx()
    deploy.deploy(minted.context(world, minted.options(world)), minted.mint(world, OTHER, minted.options(world)))
    bare = site.read_bytes()
    ask_and_die(world)
    assert site.read_bytes() != bare
    assert os.listdir(world.path(TOKENS)) == ["token"]
    run(world)
    assert site.read_bytes() == bare
    assert snapshot(world.path(TOKENS)) == {}
    assert list(world.config_dir.rglob(".challenge*")) == []
    assert world.fetch(NAME, "/.well-known/acme-challenge/token").stdout.startswith("HTTP/1.1 301")


def test_a_run_that_goes_on_is_left_alone(world: World) -> None:
    """What it has put in for its own challenge stays until it has been answered."""
    site = world.write_site("seafile.conf", world.adapt(SITE.encode()))
    world.start_nginx()
    first, other = (minted.context(world, minted.options(world)) for _ in range(2))
    with challenge.answered(first, {(NAME, "token"): b"content"}):
        edited = site.read_bytes()
        if (child := os.fork()) == 0:
            try:
                with challenge.answered(other, {(NAME, "another"): b"content"}):
                    pass
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        assert site.read_bytes() == edited
        assert os.listdir(world.path(TOKENS)) == ["token"]
    assert site.read_bytes() == world.adapt(SITE.encode())
