"""An RSA and an ECDSA certificate in one server: both are served, and neither is stapled."""

from __future__ import annotations

import pytest

from e2e import road
from e2e.world import World

MODERN = road.TUTORIAL_SITE.replace(b"!ECDSA:", b"")
OTHER = f"{road.NAME}-ecdsa"
REASON = "an RSA and an ECDSA certificate"


@pytest.fixture
def paired(world: World) -> World:
    """Return a world whose site has a certificate of each kind, each a lineage of this plugin."""
    road.start(world, MODERN)
    road.certonly(world, "--key-type", "rsa")
    assert road.staples_lineage(world)
    run = road.certonly(world, "--key-type", "ecdsa", "--cert-name", OTHER)
    assert REASON in run.output
    return world


def assert_both_are_served_bare(world: World) -> None:
    """Assert that each kind of client is handed its own certificate, and no staple."""
    rsa, ecdsa = (world.handshake(road.NAME, only=only) for only in ("rsa", "ecdsa"))
    assert rsa.certificate == world.leaf(road.NAME)
    assert ecdsa.certificate == world.leaf(OTHER)
    assert (rsa.staple, ecdsa.staple) == (None, None)


def test_both_are_served_without_a_staple(paired: World) -> None:
    """nginx would send one's staple with both, so there is none, and the run says why."""
    assert_both_are_served_bare(paired)


@pytest.mark.long
def test_renewals_keep_the_pair(paired: World) -> None:
    """Each deployment keeps the other's lines: both are renewed, both are served, nothing is stapled."""
    paired.certbot("renew", "--force-renewal")
    assert_both_are_served_bare(paired)
    site = road.site_bytes(paired)
    paired.certbot("renew")
    assert road.site_bytes(paired) == site
    assert_both_are_served_bare(paired)


@pytest.mark.long
def test_refresh_brings_no_staple_back(paired: World) -> None:
    """The console script's refresh stores what it likes, but nothing of it is served beside a pair."""
    paired.seafile("refresh", "--force")
    paired.reload_nginx()
    assert_both_are_served_bare(paired)


@pytest.mark.long
def test_each_is_undone_for_itself(paired: World) -> None:
    """Without the second lineage, the first one is served, and stapled again by the next deployment."""
    paired.seafile("undo", "--cert-name", OTHER)
    paired.certbot("delete", "--cert-name", OTHER)
    paired.seafile("deploy", "--cert-name", road.NAME)
    assert road.served_is_lineage(paired)
    assert road.staples_lineage(paired)


@pytest.mark.long
def test_a_revocation_is_found_beside_a_twin(paired: World) -> None:
    """refresh, deploy, renew and check name the one that is revoked and exit 1; both are served bare, as before."""
    serial = f"{paired.leaf(OTHER).serial_number:x}"
    for path in (paired.config_dir / "renewal").glob("*.conf"):  # certbot would get a new one at once
        path.write_text(path.read_text().replace("[renewalparams]", "[renewalparams]\nautorenew = False"))
    paired.set_responder(fault="revoked", fault_serial=serial)
    for words in (["refresh", "--force"], ["deploy", "--cert-name", OTHER], ["check", "--cert-name", OTHER]):
        run = paired.seafile(*words, check=False)
        assert run.exit_code == 1
        assert f"{OTHER}: the CA revoked the certificate on" in run.output
    run = paired.certbot("renew", check=False)
    assert run.exit_code == 1
    assert f"{OTHER}: the CA revoked the certificate on" in run.output
    paired.seafile("deploy", "--cert-name", road.NAME)
    assert_both_are_served_bare(paired)
