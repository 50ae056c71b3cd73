"""Certificates that demand a staple (RFC 7633): no client that holds them to it is ever refused.

The client is gnutls-cli, which refuses a must-staple certificate without a good staple for it.
"""

from __future__ import annotations

import json
import shlex
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from e2e import road
from e2e.processes import tool
from e2e.world import World, snapshot

#: Run by certbot before the saved deploy hook, as everything in that folder is: reload, wait until the old workers are
#: gone, connect as a client that insists on a staple.
RELOADING_HOOK = """\
#!/bin/sh
master=$(cat {pid})
old=$(cat /proc/$master/task/$master/children)
{ctl} -s reload
for worker in $old; do while [ -e /proc/$worker ]; do sleep 0.02; done; done
{gnutls} --x509cafile {root} --sni-hostname {name} --verify-hostname {name} --port {port} 127.0.0.1 < /dev/null \
    > /dev/null 2>&1 && echo accepted >> {said} || echo refused >> {said}
"""


@pytest.fixture
def issued(world: World) -> World:
    """Return a world in which a must-staple certificate is served, with its staple."""
    start(world)
    road.certonly(world, "--must-staple")
    assert world.gnutls(road.NAME).accepted
    return world


def start(world: World, *, authz_reuse: int = 0) -> bytes:
    """Start CA, responder and nginx; return the site's bytes."""
    world.start_pebble(must_staple=True, authz_reuse=authz_reuse)
    world.start_responder()
    site = world.adapt(road.TUTORIAL_SITE)
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    return site


def staple_files(world: World) -> list[str]:
    """Return what lies in the lineage's folder of staples."""
    return sorted(path.name for path in (world.staple_dir / road.NAME).iterdir())


def assert_accepted(world: World) -> None:
    """Assert that gnutls-cli accepts the site now."""
    verdict = world.gnutls(road.NAME)
    assert verdict.accepted, verdict.text


def reload_before_our_hook(world: World) -> Path:
    """Give the world a deploy hook of a person's, which reloads nginx; return the file in which it says what came."""
    said = world.folder / "said"
    hook = world.config_dir / "renewal-hooks" / "deploy" / "reload-nginx"
    words = {"pid": world.path("/run/nginx.pid"), "ctl": world.nginx_ctl, "gnutls": tool("gnutls-cli"), "said": said,
             "root": world.root, "name": road.NAME, "port": world.https_port}  # fmt: skip
    hook.write_text(RELOADING_HOOK.format(**{key: shlex.quote(str(word)) for key, word in words.items()}))
    hook.chmod(0o755)
    return said


@pytest.fixture
def reused(world: World) -> World:
    """Return a world like `issued`, whose CA never asks for a challenge twice, so that nothing but prepare() is run."""
    start(world, authz_reuse=100)
    road.certonly(world, "--must-staple")
    return world


ANEW = ("-d", road.NAME, "--must-staple", "--force-renewal")
GET_ANEW = {
    "renew": ("renew", "--force-renewal"),
    "certonly": ("certonly", "-a", "seafile", *ANEW),
    "run": ("run", "--configurator", "seafile", "--no-redirect", *ANEW),
    "as installer": ("run", "-a", "standalone", "-i", "seafile", "--no-redirect", *ANEW),
}


@pytest.mark.parametrize("verb", GET_ANEW)
def test_a_reload_before_our_hook_serves_the_old_certificate(reused: World, verb: str) -> None:
    """A person's own hook reloads nginx as soon as live/ names the new certificate: no client is refused."""
    site, old = road.site_bytes(reused), reused.leaf(road.NAME)
    said = reload_before_our_hook(reused)
    words = [] if verb == "renew" else reused.plugin_options
    reused.certbot(*GET_ANEW[verb], *words)
    assert said.read_text() == "accepted\n"
    assert reused.leaf(road.NAME) != old
    assert road.served_is_lineage(reused)
    assert_accepted(reused)
    assert road.site_bytes(reused) == site
    assert staple_files(reused) == ["ocsp.response"]


def test_a_first_must_staple_certificate_in_a_plain_ones_place(world: World) -> None:
    """The plain certificate stays through a person's reload, until the new one has its staple."""
    start(world)
    road.certonly(world)
    site, said = road.site_bytes(world), reload_before_our_hook(world)
    road.certonly(world, "--must-staple", "--force-renewal")
    assert said.read_text() == "accepted\n"
    assert_accepted(world)
    assert road.staples_lineage(world)
    assert road.site_bytes(world) == site


@pytest.fixture
def seen(issued: World) -> Path:
    """Return where a pre-hook of certbot's, run after prepare() and before the CA is asked, copies the site to.

    Older certbots run the folder's hooks for renew only.
    """
    hook = issued.config_dir / "renewal-hooks" / "pre" / "look"
    hook.write_text(f"#!/bin/sh\ncp {issued.sites / road.SITE_NAME} {issued.folder / 'seen'}\n")
    hook.chmod(0o755)
    return issued.folder / "seen"


def test_the_site_is_held_only_while_the_ca_is_asked(issued: World, seen: Path) -> None:
    """Before the request the site names the version of now and a copy of its staple; afterwards it is as before."""
    site = road.site_bytes(issued)
    issued.certbot("renew", "--force-renewal")
    assert b"/archive/home.seafile.com/fullchain1.pem" in seen.read_bytes()
    assert b"/pinned.response" in seen.read_bytes()
    assert road.site_bytes(issued) == site


def test_the_ca_fails_and_the_site_is_as_it_was(issued: World, seen: Path) -> None:
    """The run that got no certificate takes the hold out again: site, staples and what is served are as before."""
    before, served = snapshot(issued.server_root), issued.handshake(road.NAME)
    issued.stop_pebble()
    run = issued.certbot("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert snapshot(issued.server_root) == before
    issued.reload_nginx()
    assert issued.handshake(road.NAME) == served


def test_a_certificate_that_is_not_due_leaves_the_site_as_it_was(issued: World) -> None:
    """certonly that finds nothing to do asks no CA, and leaves no hold."""
    before = snapshot(issued.server_root)
    run = road.certonly(issued, "--must-staple", "--keep-until-expiring")
    assert "not yet due" in run.output
    assert snapshot(issued.server_root) == before


def test_a_dry_run_holds_nothing(issued: World, seen: Path) -> None:
    """The site is not even touched."""
    before, edited = snapshot(issued.server_root), (issued.sites / road.SITE_NAME).stat()
    issued.certbot("renew", "--dry-run")
    assert seen.read_bytes() == road.site_bytes(issued)
    assert snapshot(issued.server_root) == before
    assert (issued.sites / road.SITE_NAME).stat().st_ino == edited.st_ino


def test_other_names_hold_nothing(issued: World, seen: Path) -> None:
    """A certificate for names that the lineage does not have is none of its business."""
    site = road.site_bytes(issued)
    issued.certbot("certonly", "-a", "seafile", "-d", "other.example.com", *issued.plugin_options,
                   "--seafile-site", issued.sites / road.SITE_NAME,
                   "--pre-hook", issued.config_dir / "renewal-hooks" / "pre" / "look", check=False)  # fmt: skip
    assert seen.read_bytes() == site


@pytest.mark.long
def test_a_plain_certificate_is_not_held(world: World) -> None:
    """Without the TLS feature a reload may come at any time, and the site is left alone until the deploy hook."""
    start(world)
    road.certonly(world)
    edited = (world.sites / road.SITE_NAME).stat()
    world.certbot("renew", "--force-renewal")
    assert (world.sites / road.SITE_NAME).stat().st_ino == edited.st_ino
    assert road.staples_lineage(world)


@pytest.mark.long
def test_certbot_never_removes_the_version_that_the_site_is_pinned_to(issued: World) -> None:
    """Newer certbots keep five old versions: before the pinned one would go, the site is pinned to a later one."""
    site = road.site_bytes(issued)
    issued.stop_responder()
    issued.certbot("renew", "--force-renewal", check=False)
    assert b"/fullchain1.pem" in road.site_bytes(issued)
    renumber(issued, 2, 6)
    issued.certbot("renew", "--force-renewal", check=False)
    assert b"/fullchain6.pem" in road.site_bytes(issued)
    issued.run(issued.nginx_ctl, "-t")
    issued.start_responder()
    issued.certbot("renew")
    assert_accepted(issued)
    assert road.site_bytes(issued) == site


def renumber(world: World, old: int, new: int) -> None:
    """Give a lineage's newest version a higher number, as if certbot had renewed it more often."""
    for link in world.lineage(road.NAME).glob("*.pem"):
        path = link.resolve()
        later = path.with_name(path.name.replace(f"{old}.pem", f"{new}.pem"))
        path.rename(later)
        link.unlink()
        link.symlink_to(f"../../archive/{road.NAME}/{later.name}")


def test_it_goes_live_with_its_staple(issued: World) -> None:
    """The leaf demands a staple, and the first connection has it."""
    assert issued.handshake(road.NAME).certificate == issued.leaf(road.NAME)
    assert road.staples_lineage(issued)


@pytest.mark.long
def test_first_issue_without_responder_edits_nothing(world: World) -> None:
    """The site stays as it is and the hook says why; the next renew brings certificate and staple live by itself."""
    site = start(world)
    world.stop_responder()
    old = world.handshake(road.NAME).certificate
    run = road.certonly(world, "--must-staple", check=False)
    assert "must be stapled but cannot be" in run.output + run.log
    assert road.site_bytes(world) == site
    assert world.handshake(road.NAME).certificate == old
    world.start_responder()
    world.certbot("renew")
    assert_accepted(world)
    assert road.served_is_lineage(world)


@pytest.mark.long
def test_renewal_without_responder_keeps_the_old_certificate_through_everything(issued: World) -> None:
    """Reloads and restarts of nginx bring back the old certificate with its staple, until the new one has its own."""
    site, old = road.site_bytes(issued), issued.handshake(road.NAME)
    issued.stop_responder()
    run = issued.certbot("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert "must be stapled but cannot be" in run.output
    for again in ([], [issued.reload_nginx], [issued.stop_nginx, issued.start_nginx]):
        for step in again:
            step()
        assert issued.handshake(road.NAME) == old
        assert_accepted(issued)
    assert b"/archive/" in road.site_bytes(issued)
    issued.start_responder()
    issued.certbot("renew")
    assert road.served_is_lineage(issued)
    assert_accepted(issued)
    assert road.site_bytes(issued) == site
    assert staple_files(issued) == ["ocsp.response"]


@pytest.mark.long
def test_undo_while_pinned_restores_the_original_site(world: World) -> None:
    """Taking everything out takes the pin out too, and leaves no file of ours."""
    site = start(world)
    road.certonly(world, "--must-staple")
    world.stop_responder()
    world.certbot("renew", "--force-renewal", check=False)
    assert b"/archive/" in road.site_bytes(world)
    world.seafile("undo", "--cert-name", road.NAME)
    assert road.site_bytes(world) == site
    assert list(world.staple_dir.iterdir()) == []


@pytest.mark.long
def test_a_second_renewal_without_responder_keeps_the_pin(issued: World) -> None:
    """The site goes on naming the version that has a staple, not the one in between."""
    site, old = road.site_bytes(issued), issued.handshake(road.NAME)
    issued.stop_responder()
    issued.certbot("renew", "--force-renewal", check=False)
    pinned = road.site_bytes(issued)
    issued.certbot("renew", "--force-renewal", check=False)
    assert road.site_bytes(issued) == pinned
    issued.reload_nginx()
    assert issued.handshake(road.NAME) == old
    issued.start_responder()
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert road.site_bytes(issued) == site
    assert_accepted(issued)


@pytest.fixture
def waiting(issued: World) -> World:
    """Return a world whose new certificate has no staple, while the responder answers for the one before."""
    issued.stop_responder()
    issued.certbot("renew", "--force-renewal", check=False)
    issued.start_responder(fault="unauthorized", fault_serial=f"{issued.leaf(road.NAME).serial_number:x}")
    return issued


@pytest.mark.long
@pytest.mark.parametrize("verb", ["renew", "refresh"])
def test_the_staple_of_the_certificate_before_is_refreshed(waiting: World, verb: str) -> None:
    """While the site keeps it, a newer staple for it is fetched and served, though the new one has none."""
    old, kept = waiting.handshake(road.NAME), waiting.staple_dir / road.NAME / "pinned.response"
    assert kept.read_bytes() == old.staple
    run_verb = {"renew": waiting.certbot, "refresh": waiting.seafile}[verb]
    run = run_verb(verb, check=False, env=road.clock(waiting, hours=7))
    assert run.exit_code == 1
    assert "must be stapled but cannot be" in run.output
    now = waiting.handshake(road.NAME)
    assert now.certificate == old.certificate
    assert now.staple == kept.read_bytes() != old.staple
    assert_accepted(waiting)
    waiting.reload_nginx()
    assert waiting.handshake(road.NAME) == now


@pytest.mark.long
def test_refresh_brings_it_live_too(issued: World) -> None:
    """Where the responder answers again, refresh does not only store what the new certificate waits for."""
    site = road.site_bytes(issued)
    issued.stop_responder()
    issued.certbot("renew", "--force-renewal", check=False)
    issued.start_responder()
    run = issued.seafile("refresh")
    assert f"Served: the certificate of {road.NAME}" in run.stdout
    assert road.site_bytes(issued) == site
    assert road.served_is_lineage(issued)
    assert_accepted(issued)


@pytest.mark.long
def test_a_bad_answer_about_the_certificate_before_is_not_served(waiting: World) -> None:
    """The staple that it has stays, whatever the responder says about it now."""
    old = waiting.handshake(road.NAME)
    waiting.set_responder(fault="flipped")
    waiting.certbot("renew", check=False, env=road.clock(waiting, hours=7))
    waiting.reload_nginx()
    assert waiting.handshake(road.NAME) == old
    assert_accepted(waiting)


@pytest.mark.long
def test_check_and_status_say_that_the_certificate_before_is_kept(waiting: World) -> None:
    """One sentence says what is so, until when, and which command says why; deploy is that, and mends it at last."""
    road.give_scheduler(waiting)
    run = waiting.seafile("check", "--root", waiting.folder, check=False)
    assert run.exit_code == 1
    assert len(run.stdout.splitlines()) == 1
    assert "the site keeps the certificate before" in run.stdout
    assert f"run `certbot-seafile deploy --cert-name {road.NAME}`" in run.stdout
    assert "the one BEFORE" in waiting.seafile("status").stdout
    (one,) = json.loads(waiting.seafile("status", "--json").stdout)["lineages"]
    assert int(one["pinned"]["serial"], 16) == waiting.handshake(road.NAME).certificate.serial_number
    said = waiting.seafile("deploy", "--cert-name", road.NAME, check=False).stderr
    assert "unauthorized" in said
    waiting.set_responder()
    waiting.seafile("deploy", "--cert-name", road.NAME)
    assert waiting.seafile("check", "--root", waiting.folder).stdout == "All is well.\n"


def test_the_last_staple_is_kept_to_its_end(issued: World) -> None:
    """Where the end is near and the responder down, renew fails loudly and withdraws nothing."""
    kept = road.response_path(issued).read_bytes()
    issued.stop_responder()
    run = issued.certbot("renew", check=False, env=road.clock(issued, hours=80))
    assert run.exit_code == 1
    assert "the OCSP responder" in run.output
    run = issued.certbot("renew", check=False, env=road.clock(issued, hours=200))
    assert run.exit_code == 1
    assert road.response_path(issued).read_bytes() == kept
    assert issued.handshake(road.NAME).staple == kept


def test_the_responder_down_for_an_hour_is_no_failure(issued: World) -> None:
    """While the staple holds for long, renew says that no newer one came, and exits 0."""
    issued.stop_responder()
    run = issued.certbot("renew", env=road.clock(issued, hours=20))
    assert "the OCSP responder" in run.output
    assert_accepted(issued)


@contextmanager
def client_in_a_loop(world: World) -> Iterator[list[str]]:
    """Connect with gnutls-cli without a pause; give what it said where it refused."""
    refused: list[str] = []
    connections, ending = [0], threading.Event()

    def connect() -> None:
        while not ending.is_set():
            verdict = world.gnutls(road.NAME)
            connections[0] += 1
            if not verdict.accepted:
                refused.append(verdict.text)

    thread = threading.Thread(target=connect)
    thread.start()
    try:
        yield refused
    finally:
        ending.set()
        thread.join()
    assert connections[0] > 10


@contextmanager
def reloads_without_end(world: World) -> Iterator[None]:
    """Reload nginx as soon as the last reload is through, until the block ends, as anybody may at any time."""
    ending, reloads = threading.Event(), [0]

    def reload() -> None:
        while not ending.is_set():
            world.reload_nginx()
            reloads[0] += 1

    thread = threading.Thread(target=reload)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()
    assert reloads[0] > 5


@pytest.mark.long
def test_no_client_is_refused_though_nginx_is_reloaded_all_the_time(world: World) -> None:
    """From a plain certificate to a must-staple one, its renewal, and one that the CA refuses."""
    start(world)
    road.certonly(world)
    with client_in_a_loop(world) as refused, reloads_without_end(world):
        road.certonly(world, "--must-staple", "--force-renewal")
        world.certbot("renew", "--force-renewal")
        renewed = world.leaf(road.NAME)
        world.stop_pebble()
        world.certbot("renew", "--force-renewal", check=False)
    assert refused == []
    assert world.handshake(road.NAME).certificate == renewed == world.leaf(road.NAME)
    assert road.staples_lineage(world)


def test_a_revoked_must_staple_certificate_loses_its_staple(issued: World) -> None:
    """Never withdrawn for its age, it is for the CA's word; time and reason are named."""
    issued.set_responder(fault="revoked")
    run = issued.seafile("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert "the CA revoked the certificate on" in run.stderr
    assert issued.handshake(road.NAME).staple is None
    assert not road.response_path(issued).exists()
    issued.run(issued.nginx_ctl, "-t")


@pytest.mark.long
def test_no_client_is_refused_over_a_whole_life(issued: World) -> None:
    """Refresh, renewal, renewal without responder, reloads and what mends it: not one connection is refused."""
    said = reload_before_our_hook(issued)
    with client_in_a_loop(issued) as refused:
        for _ in range(3):
            time.sleep(1)  # so that the responder's next answer is another one
            issued.seafile("refresh", "--force")
        issued.certbot("renew", "--force-renewal")
        issued.reload_nginx()
        issued.stop_responder()
        issued.certbot("renew", "--force-renewal", check=False)
        issued.reload_nginx()
        issued.start_responder()
        issued.certbot("renew")
        issued.seafile("deploy", "--cert-name", road.NAME)
    assert refused == []
    assert said.read_text() == "accepted\n" * 2
    assert road.served_is_lineage(issued)
