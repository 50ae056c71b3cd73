"""What Seafile answered before an edit it answers after it, or the edit is taken out again."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

from certbot_seafile import errors
from certbot_seafile.system import answers, handshake
from e2e import backends, minted
from e2e.shapes import NAME, PROXY, SITE, plain
from e2e.world import World

SILENT = "Seafile does not answer at https://"


def test_an_edit_after_which_seafile_fails_is_taken_out(world: World) -> None:
    """The API answers in clear, and fails as soon as the edit lets it be asked over https: the site is as it was."""
    asked: list[str] = []

    def fails_over_https(path: str) -> tuple[int, bytes]:
        asked.append(path)
        return (500, b"") if b" ssl" in site.read_bytes() and path == "/api2/ping/" else backends.seahub(path)

    site = world.sites / "seafile.conf"
    world.start_seafile(fails_over_https)
    before = world.write_site(site.name, world.adapt(plain(PROXY).encode())).read_bytes()
    world.start_nginx()
    with pytest.raises(errors.NotServed, match=r"/api2/ping/ answers .* with HTTP status 500"):
        minted.issue(world, NAME, minted.options(world))
    assert site.read_bytes() == before
    assert asked.count("/api2/ping/") > 2


@pytest.mark.parametrize("status", [429, 503])
def test_that_seafile_is_busy_takes_no_edit_out(world: World, status: int) -> None:
    """Who has too much to do says so at any time; it is not the edit."""
    site = world.sites / "seafile.conf"
    world.start_seafile(lambda path: (status, b"") if b" ssl" in site.read_bytes() else backends.seahub(path))
    before = world.write_site(site.name, world.adapt(plain(PROXY).encode())).read_bytes()
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    assert site.read_bytes() != before


def test_what_did_not_answer_before_is_told_and_stays(world: World) -> None:
    """Nothing of Seafile runs: the certificate is served all the same, and the run says so."""
    world.start_seafile()
    world.write_site("seafile.conf", world.adapt(SITE.encode()))
    world.start_nginx()
    world.stop_seafile()
    lineage = minted.mint(world, NAME, minted.options(world))
    run = world.seafile("deploy", "--cert-name", NAME)
    assert world.handshake(NAME).certificate == lineage.leaf
    assert f"{SILENT}{NAME}/, https://{NAME}/api2/ping/, " in run.stdout
    assert "HTTP status 502, so people cannot use that; " in run.stdout
    world.start_seafile()
    assert SILENT not in world.seafile("deploy", "--cert-name", NAME).stdout


def test_a_seafile_that_hangs_is_waited_for_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the edit nothing answers within the time for all: after it the run does not wait for the same again."""
    is_over = Event()
    allowed: list[float] = []
    get = handshake.get

    def recorded(*arguments: Any, **options: Any) -> handshake.Answer:
        allowed.extend(options[key] for key in ("seconds",) if key in options)
        return get(*arguments, **options)

    def hang(path: str) -> tuple[int, bytes]:
        is_over.wait(60)
        return 503, b""

    monkeypatch.setattr(handshake, "get", recorded)
    monkeypatch.setattr(answers, "ASK_SECONDS", 1.0)
    world.start_seafile(hang, hang)
    world.write_site("seafile.conf", world.adapt(SITE.encode()))
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    is_over.set()
    assert allowed[0] == 1.0
    assert set(allowed[1:]) == {0.1}


UPLOADS = {
    "client_max_body_size 0;": ("", "uploads over 1 MB fail with 413", "[UPLOAD-LIMIT]"),
    "(.*)$ $1 break": ("(.*)$1 break", "every upload and download fails", "[SEAFHTTP-REWRITE]"),
}


@pytest.mark.parametrize("line", UPLOADS)
def test_what_cuts_uploads_is_told_after_the_deployment(world: World, line: str) -> None:
    """The certificate is served, and the run names the line that lets people's uploads fail, with its finding's id."""
    other, effect, finding = UPLOADS[line]
    world.start_seafile()
    world.write_site("seafile.conf", world.adapt(SITE.replace(line, other).encode()))
    world.start_nginx()
    lineage = minted.mint(world, NAME, minted.options(world))
    (told,) = [line for line in world.seafile("deploy", "--cert-name", NAME).stdout.splitlines() if line.endswith("]")]
    assert told.startswith(f"{NAME}: ")
    assert told.endswith(finding)
    assert effect in told
    assert world.handshake(NAME).certificate == lineage.leaf
