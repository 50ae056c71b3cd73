"""Whether people can log in is asked of Seahub's own form; a real Django stands in its place, whose guard it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import processes, road
from e2e.world import World

pytest.importorskip("django", reason="its middleware refuses forged forms: pip install django")

FORM = Path(__file__).with_name("login_form.py")
PROTOCOL = b"\t\tproxy_set_header   X-Forwarded-Proto https;\n"
HOST = b"        proxy_set_header   Host $host;\n"


@pytest.fixture
def issued(restored: World) -> Iterator[World]:
    """Give a test the world of this module, with nothing in Seahub's place yet."""
    restored.stop_seafile()
    yield restored
    restored.start_seafile()


def log_in(world: World, without: bytes, *origins: str) -> str:
    """Return what check tells where the site lacks these lines, and Django trusts the origins."""
    (world.sites / road.SITE_NAME).write_bytes(road.site_bytes(world).replace(without, b""))
    world.reload_nginx()
    words: list[str | Path] = [sys.executable, FORM, world.seafile_address, "8000", *origins]
    child = processes.start("form", words, world.folder / "servers" / "form.log", world.environment())
    try:
        child.wait_until(lambda: processes.answers(8000, world.seafile_address), "answering")
        run = world.seafile("check", "--root", world.folder, check=False)
    finally:
        child.stop()
    lines = [line for line in run.stdout.splitlines() if "SEAFILE-NO-ANSWER" not in line]  # of the file server
    assert run.exit_code == bool(lines)
    return "\n".join(lines)


CASES = {
    "as in the manual": (b"", "", ""),
    "LOGIN-FORBIDDEN without the scheme": (PROTOCOL, "", "put `proxy_set_header X-Forwarded-Proto $scheme;` into"),
    "LOGIN-FORBIDDEN without the host": (HOST, "", "put `proxy_set_header Host $http_host;` into the location at"),
    "without the host, but trusted": (HOST, f"https://{road.NAME}", ""),
    "without the scheme, but trusted": (PROTOCOL, f"https://{road.NAME}", ""),
}


@pytest.mark.parametrize("name", CASES)
def test_login_forbidden_is_told_with_what_it_lacks(issued: World, name: str) -> None:
    """LOGIN-FORBIDDEN is a fault, found by the token of its form, without a try to log in."""
    without, origin, told = CASES[name]
    text = log_in(issued, without, *filter(None, [origin]))
    assert bool(text) == bool(told)
    assert not told or (told in text and "nobody can log in" in text and text.endswith("[LOGIN-FORBIDDEN]"))


def test_login_forbidden_by_a_name_that_the_proxy_makes_up(issued: World) -> None:
    """LOGIN-FORBIDDEN: where host and scheme are handed on, but others than people use, Seahub is to trust theirs."""
    site = road.site_bytes(issued)
    (issued.sites / road.SITE_NAME).write_bytes(site.replace(b"Host $host;", b"Host $host:8443;"))
    text = log_in(issued, b"")
    assert f"put CSRF_TRUSTED_ORIGINS = ['https://{road.NAME}'] into conf/seahub_settings.py" in text
