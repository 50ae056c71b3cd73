"""The fault table, end to end: what a live responder answers, and what TLS clients are handed after it.

The rows and their reasons are those of `unit/test_fetch.py`, which holds that no fault of the responder lacks one.
"""

from __future__ import annotations

import ipaddress
import shutil
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import authority
import lineages
import ocsp_server
from authority import Identity
from e2e import road
from e2e.world import Issuer, World, snapshot
from unit.test_fetch import ACCEPTED, REFUSED, UNREACHABLE

ROWS = {
    **REFUSED,
    **dict(UNREACHABLE.values()),
    "short": "bytes",
    "drip-headers": "no whole answer within 10 s",
    "drip-body": "no whole answer within 10 s",
    "silent": "no whole answer within 10 s",
    "replay": "older than the newest known one",
}


def serve(world: World, issuer: Identity, chain: bytes = b"") -> None:
    """Let nginx serve a leaf of the issuer with a staple that was made two hours ago. chain: instead of the issuer."""
    options = {"seafile_ctl": world.nginx_ctl, "seafile_staple_dir": world.staple_dir,
               "http01_port": world.http_port, "https_port": world.https_port}  # fmt: skip
    leaf = authority.make_leaf(issuer, [road.NAME], ocsp_urls=[world.ocsp_url], key=authority.rsa_key())
    lineages.make(world.config_dir, road.NAME, leaf, issuer, options)
    if chain:
        (world.lineage(road.NAME) / "chain.pem").write_bytes(chain)
        (world.lineage(road.NAME) / "fullchain.pem").write_bytes(leaf.certificate_pem + chain)
    for folder in (world.work_dir, world.logs_dir):
        folder.mkdir(parents=True)
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    paths = lineages.write_identity(world.folder / "ca", issuer)
    world.start_responder(Issuer(*paths), this_update_offset_hours=-2)
    world.seafile("deploy", "--cert-name", road.NAME)
    assert road.staples_lineage(world)


@pytest.fixture(scope="module")
def issuer() -> Identity:
    """Give the CA of this module."""
    return authority.make_ca()


@pytest.fixture(scope="module")
def served(tools: None, issuer: Identity) -> Iterator[World]:
    """Give the rows one world, in which a staple is served."""
    with World() as made:
        serve(made, issuer)
        shutil.copytree(made.path("/etc"), made.folder / "kept", symlinks=True)
        yield made


@pytest.fixture
def stapled(served: World) -> Iterator[World]:
    """Give a row the module's world, and put its files back afterwards."""
    yield served
    shutil.rmtree(served.path("/etc"))
    shutil.copytree(served.folder / "kept", served.path("/etc"), symlinks=True)
    served.reload_nginx()


def ask(world: World, url: str) -> None:
    """Let the lineage's renewal file name another responder."""
    with (world.config_dir / "renewal" / f"{road.NAME}.conf").open("a") as renewal:
        renewal.write(f"seafile_ocsp_url = {url}\n")


def assert_kept(world: World, reason: str) -> None:
    """Assert that a refresh fails for the reason, changes no file, and leaves the good staple served, reload or not."""
    before, good = snapshot(world.server_root), world.handshake(road.NAME)
    run = world.seafile("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert reason in run.stderr
    assert snapshot(world.server_root) == before
    assert good.staple == road.response_path(world).read_bytes()
    assert world.handshake(road.NAME) == good
    world.reload_nginx()
    assert world.handshake(road.NAME) == good


def assert_renewed(world: World, env: Mapping[str, str] | None = None) -> None:
    """Assert that a refresh brings a newer staple, which is served."""
    old = world.handshake(road.NAME).staple
    world.seafile("refresh", "--force", env=env)
    new = world.handshake(road.NAME).staple
    assert new == road.response_path(world).read_bytes() != old
    assert road.staples_lineage(world)


#: Each waits until the ten seconds are over; one of them is enough for every day.
_SLOW = ("drip-headers", "drip-body", "silent")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.long) if fault in _SLOW else fault for fault in ROWS]
)
def test_the_good_staple_stays_served(stapled: World, fault: str) -> None:
    """Nothing of a bad answer is stored, and the reason is said."""
    stapled.set_responder(fault=fault)
    assert_kept(stapled, ROWS[fault])


UNREACHED = {
    "connection refused": ("http://127.0.0.1:1/", "refused"),
    "no such name": ("http://responder.invalid/", "responder.invalid"),
    "no such protocol": ("file:///etc/hostname", "neither http nor https"),
}


@pytest.mark.parametrize(("url", "reason"), UNREACHED.values(), ids=UNREACHED)
def test_the_good_staple_stays_served_where_nobody_answers(stapled: World, url: str, reason: str) -> None:
    """Nor does it matter why the responder cannot be asked at all."""
    ask(stapled, url)
    assert_kept(stapled, reason)


@pytest.mark.parametrize("fault", ACCEPTED)
def test_a_good_answer_is_served(stapled: World, fault: str) -> None:
    """By the issuer or a delegate, by POST or GET, at once or after a redirect."""
    stapled.set_responder(fault=fault)
    assert_renewed(stapled)


def test_an_answer_through_a_proxy_is_served(stapled: World) -> None:
    """The responder's name need not be known here; the proxy of this world answers for every name."""
    ask(stapled, "http://responder.invalid/")
    stapled.set_responder()
    assert_renewed(stapled, {"http_proxy": stapled.ocsp_url})
    assert " http://responder.invalid/ " in stapled.ocsp_log.read_text()


def test_an_answer_over_https_is_served(stapled: World, issuer: Identity, tmp_path: Path) -> None:
    """The responder's own certificate is verified."""
    ca = authority.make_ca("TLS CA")
    own = authority.make_leaf(ca, ["responder.invalid"], addresses=[ipaddress.ip_address("127.0.0.1")])
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    (tmp_path / "own.pem").write_bytes(own.certificate_pem + own.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    with ocsp_server.serve([issuer], tls=context) as server:
        ask(stapled, server.url)
        assert_renewed(stapled, {"REQUESTS_CA_BUNDLE": str(tmp_path / "ca.pem")})


@pytest.mark.parametrize("kind", authority.KEYS)
def test_a_staple_of_any_issuer_is_served(world: World, kind: str) -> None:
    """RSA, ECDSA, Ed25519 and Ed448."""
    serve(world, authority.make_ca(key=authority.KEYS[kind]()))
    world.set_responder()
    assert_renewed(world)


def test_a_staple_of_a_cross_signed_issuer_is_served(world: World) -> None:
    """Among the chain's certificates the issuer is the one that signed, whatever the others are called."""
    other = authority.make_ca("Old root")
    real, namesake = authority.make_ca("Same name"), authority.make_ca("Same name")
    twin = authority.make_ca("Same name", real.key, signed_by=other)
    serve(world, real, twin.certificate_pem + namesake.certificate_pem + other.certificate_pem)
    world.set_responder()
    assert_renewed(world)
