"""The page on CAs: what it says to type is run against a CA that has profiles and external account binding."""

from __future__ import annotations

import datetime
import re
import shlex

import pytest
from cryptography import x509

from authority import DAY
from e2e import road
from e2e.front import validity
from e2e.test_docs import commands
from e2e.test_verbs import CERTBOT
from e2e.world import Run, World

pytestmark = pytest.mark.certbot

PROFILES = {"shortlived": 6 * DAY, "tlsserver": 45 * DAY}
ADDRESS = "203.0.113.10"  # the page's, for documentation (RFC 5737)
CERTONLY = [command for command in commands("which-ca.md") if command.startswith("certbot certonly")]


def begin(world: World, command: str) -> None:
    """Start a CA that offers what the command asks for, its responder, and nginx."""
    eab = {"KEY_ID": "HMAC_KEY"} if "--eab-kid KEY_ID" in command else None
    world.start_pebble(must_staple=True, profiles=PROFILES, eab=eab)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()


def run(world: World, command: str) -> Run:
    """Run a command of the page at this world's CA and for its address."""
    words = shlex.split(command.replace(ADDRESS, "127.0.0.1"))
    if "--server" in words:
        del words[words.index("--server") :][:2]
    return world.certbot(*words[1:], *world.plugin_options)


def parts(world: World, name: str) -> tuple[datetime.timedelta, bool]:
    """Return for how long the certificate that is served to a client holds, and whether it must be stapled."""
    leaf = world.handshake(name).certificate
    begin, end = validity(leaf)
    return end - begin, any(isinstance(each.value, x509.TLSFeature) for each in leaf.extensions)


def skip_what_is_too_new(command: str) -> None:
    """Skip where this certbot lacks an option of the command: the page says since when it is there."""
    needed = (5, 3) if "--ip-address" in command else (4, 0) if "-profile" in command else (0,)
    if needed > CERTBOT:
        pytest.skip(f"needs certbot {'.'.join(map(str, needed))}")


@pytest.mark.long
@pytest.mark.parametrize("command", CERTONLY)
def test_what_the_page_says_to_type_is_kept_at_renewal(world: World, command: str) -> None:
    """The certificate has the lifetime of its profile and is must-staple where that was asked for; so is the next."""
    skip_what_is_too_new(command)
    begin(world, command)
    run(world, command)
    lineage, name = ("127.0.0.1", "") if ADDRESS in command else (road.NAME, road.NAME)
    first, kept = world.leaf(lineage), parts(world, name)
    profile = next((profile for profile in PROFILES if profile in command), None)
    assert kept[1] == ("--must-staple" in command)
    assert profile is None or kept[0] == PROFILES[profile] - datetime.timedelta(seconds=1)
    told = world.seafile("status", "--cert-name", lineage).stdout
    assert re.search(rf"responder +{world.ocsp_url}\n", told)
    assert re.search(rf"must-staple +{'yes' if kept[1] else 'no'}\n", told)
    world.certbot("renew", "--force-renewal")
    assert world.leaf(lineage) != first
    assert world.handshake(name).certificate == world.leaf(lineage)
    assert world.handshake(name).staple is not None
    assert parts(world, name) == kept


def test_the_page_has_a_command_for_each_kind_of_certificate() -> None:
    """Profiles, addresses, external account binding and must-staple are all typed somewhere on the page."""
    typed = " ".join(CERTONLY)
    options = (
        "--preferred-profile",
        "--required-profile",
        "--ip-address",
        "--eab-kid",
        "--eab-hmac-key",
        "--must-staple",
    )
    assert [option for option in options if option not in typed] == []
