"""certbot's verbs and flags, each run as its users run it."""

from __future__ import annotations

import re
from importlib import metadata

import pytest

from e2e import road
from e2e.world import Run, World, snapshot

pytestmark = pytest.mark.certbot

CERTBOT = tuple(int(part) for part in metadata.version("certbot").split(".")[:2])
NAME, OTHER = road.NAME, "files.seafile.com"

#: A site per name in one file, without TLS yet.
TWO_SITES = b"".join(
    b"""\
server {
    listen 80;
    server_name %s;
    location / {
        proxy_pass http://127.0.0.1:8000;
        proxy_set_header Host $host;
    }
}
"""
    % name.encode()
    for name in (NAME, OTHER)
)


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, in which a certificate and its staple are served."""
    return restored


def serial(world: World, name: str = NAME) -> int:
    """Return the serial number of the lineage's leaf."""
    return world.leaf(name).serial_number


def plugin(world: World, *words: str, check: bool = True) -> Run:
    """Run certbot with the plugin's options of this world."""
    return world.certbot(*words, *world.plugin_options, check=check)


# --- getting and installing


@pytest.mark.parametrize(
    "chosen",
    [("-a", "seafile", "-i", "seafile"), pytest.param(("--configurator", "seafile"), marks=pytest.mark.long)],
)
def test_run_gets_and_installs(world: World, chosen: tuple[str, ...]) -> None:
    """`run` ends stapled; the renewal file names the plugin twice and remembers what was chosen, not the defaults."""
    road.start(world)
    plugin(world, "run", *chosen, "-d", NAME, "--no-redirect")
    assert road.staples_lineage(world)
    saved = road.renewal(world)
    assert (saved["authenticator"], saved["installer"]) == ("seafile", "seafile")
    assert {key for key in saved if key.startswith("seafile_")} == {
        "seafile_ctl", "seafile_webroot", "seafile_staple_dir"
    }  # fmt: skip


def test_no_redirect_is_kept_by_the_deploy_hook(world: World) -> None:
    """A site over HTTP gets TLS, and answers in clear as before: after `certonly`, a renewal, `undo` and `deploy`."""
    road.start(world, TWO_SITES)
    plugin(world, "certonly", "-a", "seafile", "-d", NAME, "--no-redirect")
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 200")
    world.certbot("renew", "--force-renewal")
    assert road.renewal(world)["renew_hook"].endswith("--no-redirect deploy")
    world.seafile("undo")
    world.seafile("--no-redirect", "deploy", "--cert-name", NAME)
    world.seafile("deploy", "--cert-name", NAME)
    assert road.served_is_lineage(world)
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 200")


def test_run_with_every_enhancement(world: World) -> None:
    """`run --redirect --hsts --staple-ocsp --must-staple` is accepted in one go."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    plugin(world, "run", "--configurator", "seafile", "-d", NAME, "--redirect", "--hsts", "--must-staple")
    assert road.staples_lineage(world)
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 301")
    site = road.site_bytes(world)
    assert site.count(b"Strict-Transport-Security") == 1


def test_install_puts_another_plugins_lineage_into_the_site(world: World) -> None:
    """`install -i seafile --cert-name` serves a lineage that --webroot got, with a staple, and `renew` keeps it."""
    rooted = b"server_tokens off;\n    root /var/www/letsencrypt;\n"
    road.start(world, road.TUTORIAL_SITE.replace(b"server_tokens off;\n", rooted, 1))
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot("certonly", "--webroot", "-w", world.webroot, "-d", NAME, "--key-type", "rsa")
    plugin(world, "install", "-i", "seafile", "--cert-name", NAME, "--no-redirect")
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)
    saved = road.renewal(world)
    assert (saved["authenticator"], saved["installer"]) == ("webroot", "seafile")
    assert saved["seafile_ctl"] == str(world.nginx_ctl)
    world.certbot("renew", "--force-renewal")
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)


def test_a_csr_of_ones_own(world: World) -> None:
    """`certonly --csr` gets a certificate for the request; certbot keeps no lineage of it, so none is served."""
    before = road.start(world)
    key, csr = world.folder / "key.pem", world.folder / "csr.pem"
    words = ("-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}")
    world.run("openssl", "req", "-new", *words, "-keyout", key, "-out", csr)
    made = [f"--{kind}-path={world.folder}/{kind}.pem" for kind in ("cert", "chain", "fullchain")]
    plugin(world, "certonly", "-a", "seafile", "--csr", str(csr), *made)
    assert (world.folder / "cert.pem").exists()
    assert road.site_bytes(world) == before
    assert not (world.config_dir / "renewal" / f"{NAME}.conf").exists()


# --- enhance


@pytest.mark.long
def test_enhance_adds_each_once(issued: World) -> None:
    """redirect, HSTS and the staple; asked again, nothing is added, and the challenge still comes through."""
    words = ("enhance", "-i", "seafile", "--cert-name", NAME, "--redirect", "--hsts", "--staple-ocsp")
    issued.certbot(*words)
    site = road.site_bytes(issued)
    assert world_redirects(issued)
    assert site.count(b"Strict-Transport-Security") == 1
    assert road.staples_lineage(issued)
    issued.certbot(*words)
    assert road.site_bytes(issued) == site
    issued.certbot("renew", "--force-renewal")
    assert road.site_bytes(issued) == site
    assert road.staples_lineage(issued)


def world_redirects(world: World) -> bool:
    """Tell whether the site's root is redirected to https."""
    answer = world.fetch(NAME, "/").stdout
    return answer.startswith("HTTP/1.1 301") and f"Location: https://{NAME}" in answer


# --- renew


def test_renew_dry_run_not_due_and_named(issued: World) -> None:
    """None of these changes the certificate."""
    old = serial(issued)
    for words in (("--dry-run",), (), ("--cert-name", NAME)):
        issued.certbot("renew", *words)
    assert serial(issued) == old


def test_renew_when_due(issued: World) -> None:
    """Near the certificate's end, renew gets and serves a new one unasked."""
    old = serial(issued)
    renewal = issued.config_dir / "renewal" / f"{NAME}.conf"
    text = re.sub(r"(?m)^#? ?renew_before_expiry = .*\n", "", renewal.read_text())
    renewal.write_text("renew_before_expiry = 99 years\n" + text)
    issued.certbot("renew")
    assert serial(issued) != old
    assert road.staples_lineage(issued)


def test_renew_with_a_hook_given_now(issued: World) -> None:
    """A --deploy-hook of one renewal runs beside ours, and ours stays in the renewal file."""
    mark = issued.folder / "mark"
    issued.certbot("renew", "--force-renewal", "--cert-name", NAME, "--deploy-hook", f"touch {mark}")
    assert mark.exists()
    assert road.served_is_lineage(issued)
    assert road.staples_lineage(issued)
    assert "certbot-seafile" in road.renewal(issued)["renew_hook"]


@pytest.mark.long
def test_disable_renew_updates(issued: World) -> None:
    """With --disable-renew-updates a renewed certificate is served all the same: the deploy hook does it."""
    asked = road.ocsp_requests(issued)
    issued.certbot("renew", "--disable-renew-updates", env=road.clock(issued, hours=7))
    assert road.ocsp_requests(issued) == asked
    issued.certbot("renew", "--disable-renew-updates", "--force-renewal")
    assert road.served_is_lineage(issued)
    assert road.staples_lineage(issued)


# --- changing a lineage


def test_rollback_puts_the_site_back(issued: World) -> None:
    """`certbot rollback` brings the site's bytes back, and nginx runs with them."""
    certified = road.site_bytes(issued)
    plugin(issued, "enhance", "-i", "seafile", "--cert-name", NAME, "--hsts")
    assert road.site_bytes(issued) != certified
    plugin(issued, "rollback", "-i", "seafile", "--checkpoints", "1")
    assert road.site_bytes(issued) == certified
    issued.run(issued.nginx_ctl, "-t")


@pytest.mark.long
@pytest.mark.skipif(CERTBOT < (2, 3), reason="certbot reconfigure came with 2.3")
def test_reconfigure_changes_what_is_saved(issued: World) -> None:
    """`reconfigure` with another staple folder is saved; the next renew uses it."""
    other = issued.server_root / "staples"
    issued.certbot("reconfigure", "--cert-name", NAME, "--seafile-staple-dir", str(other))
    assert road.renewal(issued)["seafile_staple_dir"] == str(other)
    issued.certbot("renew", "--force-renewal")
    assert (other / NAME / "ocsp.response").exists()
    assert road.staples_lineage(issued)


def test_delete_leaves_the_site_and_check_says_so(issued: World) -> None:
    """After `certbot delete` the site names files that are gone: check says so, and its command ends it.

    SITE-CERT-DELETED.
    """
    issued.certbot("delete", "--cert-name", NAME)
    words = ("--seafile-ctl", str(issued.nginx_ctl), "--seafile-staple-dir", str(issued.staple_dir))
    run = issued.seafile(*words, "check", check=False)
    assert run.exit_code == 1
    assert f"names a certificate of {NAME}, which was deleted, so nginx will not start again" in run.stdout
    assert f"certbot-seafile undo --cert-name {NAME}" in run.stdout
    issued.seafile(*words, "undo", "--cert-name", NAME)
    issued.run(issued.nginx_ctl, "-t")
    assert b"letsencrypt" not in road.site_bytes(issued)
    assert snapshot(issued.staple_dir) == {}


def test_certificates_lists_the_lineage(issued: World) -> None:
    """`certbot certificates` knows nothing of us and works."""
    assert f"Certificate Name: {NAME}" in issued.certbot("certificates").stdout


def test_revoke_withdraws_the_staple_at_the_next_run(issued: World) -> None:
    """Once the responder says revoked, the next renew withdraws the staple, says so and fails."""
    issued.revoke(NAME)
    issued.set_responder(fault="revoked")
    run = issued.certbot("renew", "--no-random-sleep-on-renew", check=False, env=road.clock(issued, hours=7))
    issued.set_responder()
    assert issued.handshake(NAME).staple is None
    assert "revoked" in run.output + run.log


@pytest.mark.long
def test_reuse_key_keeps_the_key(issued: World) -> None:
    """--reuse-key: another certificate, the same key, served with its staple."""
    road.certonly(issued, "--force-renewal", "--reuse-key")
    old, key = serial(issued), issued.leaf(NAME).public_key().public_numbers()  # type: ignore[union-attr]
    issued.certbot("renew", "--force-renewal")
    assert serial(issued) != old
    assert issued.leaf(NAME).public_key().public_numbers() == key  # type: ignore[union-attr]
    assert road.staples_lineage(issued)


@pytest.mark.long
def test_key_type_that_was_chosen_is_used(world: World) -> None:
    """--key-type ecdsa on a site that can serve it; --key-type rsa afterwards changes the lineage."""
    road.start(world, TWO_SITES, ocsp=False)
    road.certonly(world, "--key-type", "ecdsa")
    assert world.handshake(NAME, only="ecdsa").certificate == world.leaf(NAME)
    road.certonly(world, "--cert-name", NAME, "--key-type", "rsa", "--force-renewal")
    assert world.handshake(NAME, only="rsa").certificate == world.leaf(NAME)


@pytest.mark.long
def test_options_given_once_are_remembered(issued: World) -> None:
    """--seafile-stapling off withdraws the staple, and is kept by renewals until auto is chosen again."""
    road.certonly(issued, "--force-renewal", "--seafile-stapling", "off")
    assert road.renewal(issued)["seafile_stapling"] == "off"
    assert issued.handshake(NAME).staple is None
    issued.certbot("renew", "--force-renewal")
    assert issued.handshake(NAME).staple is None
    assert not road.response_path(issued).exists()
    road.certonly(issued, "--force-renewal", "--seafile-stapling", "auto")
    assert road.staples_lineage(issued)


# --- several names, several lineages


def test_expand_serves_both_names(issued: World) -> None:
    """`--expand` with a second name on one site: both names get the certificate with both."""
    road.certonly(issued, "--expand", "-d", OTHER)
    assert set(road.names(issued)) == {NAME, OTHER}
    for name in (NAME, OTHER):
        assert issued.handshake(name).certificate == issued.leaf(NAME)
    assert road.staples_lineage(issued)


@pytest.mark.long
def test_a_lineage_per_site(world: World) -> None:
    """Two lineages for two servers of one file: each is served with its own staple; undo of one leaves the other."""
    before = road.start(world, TWO_SITES)
    for name in (NAME, OTHER):
        plugin(world, "certonly", "-a", "seafile", "-d", name)
    for name in (NAME, OTHER):
        assert road.served_is_lineage(world, name)
        assert road.staples_lineage(world, name)
    assert len(world.seafile("status").stdout.splitlines()) == 3
    world.seafile("undo", "--cert-name", NAME)
    after = road.site_bytes(world)
    half = len(before) // 2
    assert after.startswith(before[: before.index(b"}\n}\n") + 4])
    assert road.staples_lineage(world, OTHER)
    assert not road.response_path(world, NAME).exists()
    assert half
    world.seafile("undo")
    assert road.site_bytes(world) == before


def test_a_lineage_for_two_sites(world: World) -> None:
    """One lineage with the names of two servers: both serve it, both stapled."""
    road.start(world, TWO_SITES)
    road.certonly(world, "-d", OTHER)
    for name in (NAME, OTHER):
        look = world.handshake(name)
        assert look.certificate == world.leaf(NAME)
        assert look.staple == road.response_path(world).read_bytes()


@pytest.mark.long
def test_a_second_ca(issued: World) -> None:
    """A lineage that moves to a CA without OCSP is served without a staple."""
    road.restart_ca(issued, ocsp=False)
    run = road.certonly(issued, "--force-renewal")
    assert road.served_is_lineage(issued)
    assert issued.handshake(NAME).staple is None
    assert "names no OCSP responder" in run.output
    road.restart_ca(issued, ocsp=True)


@pytest.mark.skipif(CERTBOT < (5, 3), reason="certbot --ip-address came with 5.3")
def test_a_certificate_for_an_address(world: World) -> None:
    """--ip-address: the default server answers the challenge and serves the certificate."""
    known = b"listen 80 default_server; location /seafhttp { return 204; }"
    road.start(world, TWO_SITES.replace(b"listen 80;", known, 1), ocsp=False)
    run = plugin(world, "certonly", "-a", "seafile", "--ip-address", "127.0.0.1", check=False)
    if run.exit_code:  # Pebble up to 2.4 writes the address as a DNS name too, which certbot refuses once it has it
        assert "Requested name 127.0.0.1 is an IP address" in run.output
        world.seafile("--https-port", str(world.https_port), "deploy", "--cert-name", "127.0.0.1")
    assert world.handshake("").certificate == world.leaf("127.0.0.1")
