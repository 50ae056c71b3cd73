"""Stock `certbot renew`, from any scheduler: what it does to staple, certificate, site and nginx."""

from __future__ import annotations

import http.server
import shutil
import threading

import pytest

from e2e import minted, road
from e2e.world import World, snapshot

pytestmark = pytest.mark.certbot


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, in which a certificate and its staple are served."""
    return restored


def test_nothing_due_asks_nobody_and_reloads_nothing(issued: World) -> None:
    """With certificate and staple fresh, renew sends no OCSP request and does not reload nginx."""
    asked, reloads, site = road.ocsp_requests(issued), issued.reloads(), road.site_bytes(issued)
    issued.certbot("renew")
    assert (road.ocsp_requests(issued), issued.reloads(), road.site_bytes(issued)) == (asked, reloads, site)


def test_a_staple_past_half_of_its_window_is_replaced(issued: World) -> None:
    """The new one is stored and served, after one request and one reload."""
    old, reloads = road.response_path(issued).read_bytes(), issued.reloads()
    issued.set_responder(this_update_offset_hours=60)
    issued.certbot("renew", env=road.clock(issued, hours=60))
    new = road.response_path(issued).read_bytes()
    assert new != old
    assert issued.handshake(road.NAME).staple == new
    assert issued.reloads() == reloads + 1


def test_a_renewed_certificate_is_served_with_its_own_staple(issued: World) -> None:
    """After --force-renewal the new leaf and a staple for it are served."""
    before = issued.leaf(road.NAME).serial_number
    issued.certbot("renew", "--force-renewal")
    assert issued.leaf(road.NAME).serial_number != before
    assert road.served_is_lineage(issued)
    assert road.staples_lineage(issued)


def test_dry_run_changes_no_file(issued: World) -> None:
    """`renew --dry-run` leaves nginx's folder, the lineages and the webroot as they were."""
    folders = (issued.server_root, issued.config_dir / "live", issued.config_dir / "renewal", issued.path("/var/www"))
    before = [snapshot(folder) for folder in folders]
    issued.certbot("renew", "--dry-run")
    assert [snapshot(folder) for folder in folders] == before


@pytest.mark.long
def test_looks_and_dry_runs_leave_no_folder(world: World) -> None:
    """Neither dry runs nor check and status leave folders of certbot's reverter, or of ours."""
    road.start(world, ocsp=False)
    own = world.work_dir / "backups", world.config_dir / "seafile"
    road.certonly(world, "--dry-run")
    assert [folder for folder in own if folder.exists()] == []
    road.certonly(world)
    for folder in own:
        shutil.rmtree(folder)
    world.certbot("renew", "--dry-run", *world.plugin_options)
    for command in ("status", "check"):
        world.seafile(command, check=False)
    assert [folder for folder in own if folder.exists()] == []
    run = world.certbot("rollback", *world.plugin_options, "-i", "seafile", check=False)
    assert "Traceback" not in run.output


def test_renew_asks_the_responders_of_all_lineages_side_by_side(world: World) -> None:
    """A responder that answers nobody before all three have asked has heard all three."""
    waiting = threading.Barrier(3, timeout=8)
    answered: list[bool] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            # certbot itself asks too, and a deployment asks once more.
            if "certbot-seafile/" in self.headers["User-Agent"] and len(answered) < 3:
                waiting.wait()
                answered.append(True)
            self.send_error(500)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", world.ocsp_port), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for number in range(3):
            name = f"site{number}.example.com"
            world.write_site(name, world.adapt(road.TUTORIAL_SITE.replace(b" _;", f" {name};".encode())))
            minted.mint(world, name, minted.options(world), ocsp_urls=[world.ocsp_url])
        world.start_nginx()
        world.certbot("renew", check=False)
        server.shutdown()
    assert len(answered) == 3
    assert not waiting.broken


def test_first_dry_run_takes_its_wiring_out_again(world: World) -> None:
    """`certonly --dry-run` on an untouched site passes, and every byte of nginx's folder is as before."""
    road.start(world)
    before = snapshot(world.server_root)
    run = road.certonly(world, "--dry-run")
    assert "dry run was successful" in run.output
    assert snapshot(world.server_root) == before
    assert world.fetch(road.NAME, "/.well-known/acme-challenge/x").stdout.startswith("HTTP/1.1 404")


def test_ca_down_the_renewal_fails_and_the_staple_is_refreshed(issued: World) -> None:
    """The same run that cannot renew the certificate stores and serves a new staple."""
    old = road.response_path(issued).read_bytes()
    issued.stop_pebble()
    issued.set_responder(this_update_offset_hours=60)
    run = issued.certbot("renew", "--force-renewal", check=False, env=road.clock(issued, hours=60))
    assert run.exit_code == 1
    assert "Failed to renew certificate home.seafile.com" in run.output
    assert road.response_path(issued).read_bytes() != old
    assert road.staples_lineage(issued)


@pytest.mark.long
def test_stapling_is_withdrawn_when_the_ca_stops_offering_ocsp(issued: World) -> None:
    """A renewed certificate without an OCSP URL is served without a staple, and nothing stale stays."""
    road.restart_ca(issued, ocsp=False)
    issued.certbot("renew", "--force-renewal")
    assert road.served_is_lineage(issued)
    assert issued.handshake(road.NAME).staple is None
    assert not road.response_path(issued).exists()
    assert not (issued.staple_dir / f"{road.NAME}.conf").exists()
    issued.run(issued.nginx_ctl, "-t")


@pytest.mark.long
def test_responder_down_at_first_issue_is_mended_by_renew(world: World) -> None:
    """The certificate goes live unstapled; the next renew staples it."""
    road.start(world)
    world.stop_responder()
    run = road.certonly(world)
    assert "without a staple" in run.output
    assert road.served_is_lineage(world)
    assert world.handshake(road.NAME).staple is None
    world.start_responder()
    world.certbot("renew")
    assert road.staples_lineage(world)


def test_six_hours_after_the_last_success_the_next_is_due(issued: World) -> None:
    """After five hours nobody is asked; after seven, long before half of the window, a newer staple is served."""
    old, asked = road.response_path(issued).read_bytes(), road.ocsp_requests(issued)
    issued.certbot("renew", env=road.clock(issued, hours=5))
    assert road.ocsp_requests(issued) == asked
    issued.set_responder(this_update_offset_hours=7)
    issued.certbot("renew", env=road.clock(issued, hours=7))
    new = road.response_path(issued).read_bytes()
    assert new != old
    assert issued.handshake(road.NAME).staple == new


def test_a_site_changed_by_hand_is_served_again_by_renew(issued: World) -> None:
    """Where somebody took the include out, `certbot-seafile deploy` puts it back and nothing else changes."""
    site = road.site_bytes(issued)
    without = b"".join(line for line in site.splitlines(keepends=True) if b"OCSP" not in line)
    (issued.sites / road.SITE_NAME).write_bytes(without)
    issued.reload_nginx()
    assert issued.handshake(road.NAME).staple is None
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert road.site_bytes(issued) == site
    assert road.staples_lineage(issued)
