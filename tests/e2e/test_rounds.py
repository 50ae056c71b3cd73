"""Refreshing beside other runs and failures: what is told of one certificate must not depend on how others fare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import authority
import lineages as lineages_on_disk
from certbot_seafile.ocsp import fetch
from certbot_seafile.usecases import deploy, refresh
from e2e import minted, road, shapes
from e2e.world import Issuer, World

A, B, C = "a.example.com", "b.example.com", "c.example.com"
MUST_STAPLE = [x509.TLSFeatureType.status_request]


def begin(world: World, *names: str) -> None:
    """Start a responder for minted lineages, whose first answers are two hours old, and nginx with sites."""
    for name in names:
        world.write_site(name, world.adapt((shapes.plain(names=name) + shapes.tls(names=name)).encode()))
    world.start_nginx()
    for folder in (world.work_dir, world.logs_dir):
        folder.mkdir(parents=True)
    world.start_responder(Issuer(*lineages_on_disk.write_identity(world.folder / "ca", minted.issuer())))
    world.set_responder(this_update_offset_hours=-2)
    world.root.write_bytes(minted.issuer().certificate_pem)


def put(world: World, name: str, number: int = 1, *, is_must_staple: bool = False, **options: str) -> None:
    """Deploy the lineage's version of this number, with its staple and these options."""
    features = MUST_STAPLE if is_must_staple else []
    chosen, leaf = minted.options(world, **options), dict[str, Any](features=features, ocsp_urls=[world.ocsp_url])
    deploy.deploy(
        minted.context(world, chosen),
        minted.mint(world, name, chosen, key=authority.ecdsa_key(), number=number, **leaf),
    )


def choose(world: World, name: str, line: str) -> None:
    """Save an option in the renewal file, as `certbot reconfigure` does."""
    path = world.config_dir / "renewal" / f"{name}.conf"
    path.write_text(path.read_text().replace("[renewalparams]", f"[renewalparams]\n{line}"))


def serves_stored(world: World, name: str) -> bool:
    """Tell whether clients are handed the staple that is stored."""
    return world.handshake(name).staple == road.response_path(world, name).read_bytes()


@pytest.mark.parametrize(("is_first_sealed", "is_second_sealed"), [(False, True), (True, True), (False, False)])
def test_what_was_asked_for_the_certificate_before_is_not_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, is_first_sealed: bool, is_second_sealed: bool
) -> None:
    """The deploy hook of a renewal runs while `refresh` waits for the responder: the new one stays as it is."""
    begin(world, A)
    put(world, A, is_must_staple=is_first_sealed)
    world.set_responder()
    ask, renewed = fetch.fetch, list[str]()

    def ask_and_renew(url: str, request: bytes) -> bytes:
        response = ask(url, request)
        if not renewed:
            renewed.append(A)
            put(world, A, 2, is_must_staple=is_second_sealed)
        return response

    monkeypatch.setattr(fetch, "fetch", ask_and_renew)
    context = minted.context(world, minted.options(world))
    results = refresh.refresh(
        [A], lambda name: (context, deploy.subject(context, minted.load(world, name))), force=True
    )
    assert [result.failure for result in results] == [None]
    assert renewed == [A]
    world.run(world.nginx_ctl, "-t")
    assert road.served_is_lineage(world, A)
    assert road.staples_lineage(world, A)


def test_what_a_refused_reload_left_is_loaded_with_whichever_lineage_comes_next(world: World) -> None:
    """Two staples are stored while another site is broken; then one of the two is refreshed or deployed alone."""
    begin(world, A, B)
    put(world, A)
    put(world, B)
    world.set_responder()
    (world.sites / "zz").write_text("server { listen; }\n")
    assert world.seafile("refresh", "--force", check=False).exit_code == 1
    renewal = world.certbot("renew", check=False)
    assert renewal.exit_code == 1
    assert f"{B}: " in renewal.output
    (world.sites / "zz").unlink()
    world.seafile("deploy", "--cert-name", B)
    assert serves_stored(world, A)
    assert serves_stored(world, B)


def test_a_must_staple_certificate_keeps_its_staple_without_stapling(world: World) -> None:
    """`--seafile-stapling off` would let clients refuse it."""
    begin(world, A)
    put(world, A, is_must_staple=True)
    choose(world, A, "seafile_stapling = off")
    world.set_responder()
    world.certbot("renew")
    world.seafile("refresh", "--force")
    assert world.gnutls(A).accepted
    assert serves_stored(world, A)


def test_a_damaged_staple_stops_no_nginx(world: World) -> None:
    """Also a must-staple certificate's, while its responder is down: nginx starts for all others."""
    begin(world, A)
    put(world, A, is_must_staple=True)
    world.stop_responder()
    road.response_path(world, A).write_bytes(b"\x30\x03\x0a\x01")
    assert world.seafile("refresh", check=False).exit_code == 1
    world.run(world.nginx_ctl, "-t")
    assert road.served_is_lineage(world, A)


def test_one_handover_folder_that_is_away_is_one_lineage_s_fault(world: World) -> None:
    """The others are told as they are, and handed over to those who are there."""
    begin(world, A, B, C)
    for name in (A, B, C):
        put(world, name)
    world.set_responder()
    away, there = world.folder / "away", world.folder / "there"
    away.write_text("")
    there.mkdir()
    choose(world, A, f"seafile_handover = {away}")
    choose(world, C, f"seafile_handover = {there}")
    run = world.seafile("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert [name for name in (A, B, C) if f"{name}: {away}" in run.stderr] == [A]
    assert len(run.stderr.splitlines()) == 1
    assert Path(there, f"{C}.pem").exists()
    assert all(serves_stored(world, name) for name in (A, B, C))


def test_each_sealed_certificate_is_looked_at_with_its_own_options(world: World) -> None:
    """Two have a site file of their own by --seafile-site; one round refreshes both."""
    begin(world, A, B)
    for name in (A, B):
        put(world, name, is_must_staple=True, site=str(world.sites / name))
    world.set_responder()
    world.seafile("refresh", "--force")
    assert serves_stored(world, A)
    assert serves_stored(world, B)


def test_a_lineage_that_is_gone_is_nobody_s(world: World) -> None:
    """Undone or deleted while its responder was asked: nothing of it comes back."""
    begin(world, A)
    put(world, A)
    context = minted.context(world, minted.options(world))
    loaded = [(context, minted.load(world, A)), None]
    before = road.response_path(world, A).read_bytes()
    world.set_responder()
    (result,) = refresh.refresh([A], lambda name: loaded.pop(0), force=True)
    assert (result.done, result.failure) == (None, None)
    assert road.response_path(world, A).read_bytes() == before


@pytest.mark.parametrize("is_must_staple", [False, True])
def test_another_folder_of_staples_is_taken_up_by_the_next_renewal(world: World, is_must_staple: bool) -> None:
    """`certbot reconfigure --seafile-staple-dir` changes the renewal file alone: the site follows, and undo works."""
    begin(world, A)
    site = (world.sites / A).read_bytes()
    put(world, A, is_must_staple=is_must_staple)
    path, former = world.config_dir / "renewal" / f"{A}.conf", world.handshake(A).staple
    path.write_text(path.read_text().replace(str(world.staple_dir), str(world.server_root / "elsewhere")))
    world.set_responder()
    world.certbot("renew")
    assert world.handshake(A).staple not in (None, former)
    edited = (world.sites / A).read_bytes()
    world.certbot("renew")
    assert (world.sites / A).read_bytes() == edited
    world.seafile("undo")
    assert (world.sites / A).read_bytes() == site
