"""`certbot certonly -a seafile` on the tutorial's own site: from a self-signed certificate to a stapled one."""

from __future__ import annotations

import pytest

from e2e import road
from e2e.world import World, snapshot

pytestmark = pytest.mark.certbot


@pytest.fixture
def issued(world: World) -> World:
    """Return a world in which the one line was run on the tutorial's shape."""
    road.start(world)
    road.certonly(world)
    return world


def test_certbot_lists_the_plugin_with_its_interfaces(world: World) -> None:
    """Stock certbot shows seafile as Authenticator, Installer and Plugin."""
    listed = world.certbot("plugins").stdout
    block = listed[listed.index("* seafile") :].split("* ", 2)[1]
    assert "Interfaces: Authenticator, Installer, Plugin" in block


@pytest.mark.parametrize("site", ["our shape", pytest.param("community-subpath-https.conf", marks=pytest.mark.long)])
def test_the_tutorials_site_ends_stapled_from_the_first_connection(world: World, site: str) -> None:
    """The site is found, edited, served with an RSA certificate, and the first TLS connection carries a good staple."""
    before = road.start(world, road.TUTORIAL_SITE if site == "our shape" else road.real_site(site))
    road.certonly(world)
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)
    assert road.response_path(world).read_bytes() == world.handshake(road.NAME).staple
    assert (
        "rsaEncryption"
        in world.run("openssl", "x509", "-noout", "-text", "-in", world.lineage(road.NAME) / "cert.pem").stdout
    )
    after = road.site_bytes(world)
    assert b"location ^~ /.well-known/acme-challenge/" in after
    assert b"#    ssl_certificate " in after
    assert b"#    ssl_certificate_key " in after
    assert len(after.splitlines()) == len(before.splitlines()) + 9


def test_independent_clients_accept_the_staple(issued: World) -> None:
    """curl --cert-status and gnutls-cli, which reject what browsers reject, accept the very first connection."""
    issued.reload_nginx()
    assert issued.gnutls(road.NAME).accepted
    assert issued.curl_cert_status(road.NAME).accepted


def test_openssl_ocsp_as_the_responder(world: World) -> None:
    """A response signed by `openssl ocsp` is fetched, verified and stapled."""
    road.start(world, ocsp=True)
    world.stop_responder()
    run = road.certonly(world)
    assert "without a staple" in run.output
    world.start_openssl_responder(good=[world.leaf(road.NAME)])
    world.seafile("refresh")
    assert road.staples_lineage(world)
    assert world.curl_cert_status(road.NAME).accepted


def test_a_second_run_changes_no_byte_of_the_site(issued: World) -> None:
    """Running the same line again, also with a new certificate, leaves the site as it is."""
    first = road.site_bytes(issued)
    road.certonly(issued, "--keep-until-expiring")
    assert road.site_bytes(issued) == first
    road.certonly(issued, "--force-renewal")
    assert road.site_bytes(issued) == first
    assert road.served_is_lineage(issued)
    assert road.staples_lineage(issued)


def test_the_renewal_file_names_plugin_and_hook(issued: World) -> None:
    """Authenticator, installer and deploy hook are saved; defaults are not."""
    saved = road.renewal(issued)
    assert saved["authenticator"] == "seafile"
    assert saved["installer"] == "seafile"
    assert "certbot-seafile" in saved["renew_hook"]
    assert saved["renew_hook"].strip("'\"").endswith("deploy")
    assert "seafile_stapling" not in saved


def test_no_perform_when_the_ca_reuses_an_authorization(world: World) -> None:
    """A lineage made with --webroot moves over although perform() is never called."""
    site = road.TUTORIAL_SITE.replace(
        b"    server_tokens off;\n",
        b"    server_tokens off;\n    location /.well-known/acme-challenge/ { root /var/www/letsencrypt; }\n",
        1,
    )
    road.start(world, site, authz_reuse=100)
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot("certonly", "--webroot", "-w", world.webroot, "-d", road.NAME, "--key-type", "rsa")
    run = road.certonly(world, "--force-renewal")
    assert "certbot_seafile.plugin:validation file" not in run.log
    saved = road.renewal(world)
    assert (saved["authenticator"], saved["installer"]) == ("seafile", "seafile")
    assert "certbot-seafile" in saved["renew_hook"]
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)


@pytest.mark.long
def test_a_persons_own_deploy_hook_still_runs(world: World) -> None:
    """A --deploy-hook given by the person runs at first issue and at renewal, beside ours."""
    road.start(world)
    mark = world.folder / "mark"
    road.certonly(world, "--deploy-hook", f"echo $RENEWED_LINEAGE >> {mark}")
    assert mark.read_text().splitlines() == [str(world.lineage(road.NAME))]
    assert road.staples_lineage(world)
    world.certbot("renew", "--force-renewal")
    assert len(mark.read_text().splitlines()) == 2
    assert road.staples_lineage(world)


def test_a_certificate_without_ocsp_url_is_installed_without_stapling(world: World) -> None:
    """As at Let's Encrypt: no stapling lines, nginx -t silent, exit 0, one plain sentence."""
    road.start(world, ocsp=False)
    run = road.certonly(world)
    assert road.served_is_lineage(world)
    assert world.handshake(road.NAME).staple is None
    assert b"OCSP" not in road.site_bytes(world)
    assert "names no OCSP responder" in run.output
    tested = world.run(world.nginx_ctl, "-t").output
    assert "staple" not in tested
    assert "stapling" not in tested
    assert not world.staple_dir.exists() or snapshot(world.staple_dir) == {}


def test_ecdsa_that_the_site_cannot_serve_is_refused_where_it_was_chosen(world: World) -> None:
    """With --key-type ecdsa the run stops before the CA is asked and names the line."""
    before = road.start(world, ocsp=False)
    run = road.certonly(world, "--key-type", "ecdsa", check=False)
    assert run.exit_code == 1
    assert "ssl_ciphers" in run.output
    assert f"{road.SITE_NAME}:" in run.output
    assert road.site_bytes(world) == before
    assert not world.lineage(road.NAME).exists()


@pytest.mark.long
def test_an_ecdsa_lineage_on_a_site_that_needs_rsa_is_told_the_way(world: World) -> None:
    """A lineage made with --webroot has an ECDSA key, which certbot changes only when told so: the line says how."""
    site = road.TUTORIAL_SITE.replace(
        b"    server_tokens off;\n",
        b"    server_tokens off;\n    location /.well-known/acme-challenge/ { root /var/www/letsencrypt; }\n",
        1,
    )
    before = road.start(world, site, ocsp=False)
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot("certonly", "--webroot", "-w", world.webroot, "-d", road.NAME, "--key-type", "ecdsa")
    run = road.certonly(world, "--force-renewal", check=False)
    assert run.exit_code == 1
    assert f"--cert-name {road.NAME} --key-type rsa" in run.output
    assert road.site_bytes(world) == before
    road.certonly(world, "--force-renewal", "--cert-name", road.NAME, "--key-type", "rsa")
    assert road.served_is_lineage(world)
