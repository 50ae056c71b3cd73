"""The harness itself, proved with stock certbot and a hand-written site: no part of this package is involved."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtensionOID
from OpenSSL import SSL

from e2e import processes
from e2e.world import World, snapshot

NAME = "seafile.example.com"

PLAIN_SITE = b"""\
server {
    listen 80;
    server_name seafile.example.com;
    location /.well-known/acme-challenge/ { root /var/www/letsencrypt; }
}
"""

TLS_SITE = (
    PLAIN_SITE
    + b"""\
server {
    listen 443 ssl;
    server_name seafile.example.com;
    ssl_certificate /etc/letsencrypt/live/seafile.example.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/seafile.example.com/privkey.pem;
    # stapling
    location / { return 200 "seafile\\n"; }
}
"""
)

STAPLING = b"""\
ssl_stapling on;
    ssl_stapling_file /etc/nginx/OCSP/seafile.example.com/ocsp.response;
"""


def issue(world: World, *words: str, ocsp: bool = True, must_staple: bool = False) -> x509.Certificate:
    """Let stock certbot get a certificate for NAME through nginx and the webroot, and return it."""
    world.start_pebble(ocsp=ocsp, must_staple=must_staple)
    world.write_site("seafile.conf", world.adapt(PLAIN_SITE))
    world.start_nginx()
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot("certonly", "--webroot", "--webroot-path", world.webroot, "-d", NAME, *words)
    return world.leaf(NAME)


def fetch_staple(world: World) -> bytes:
    """Fetch a staple as the tutorial does, with `openssl ocsp`, which must find it verified and good."""
    path = world.staple_dir / NAME / "ocsp.response"
    path.parent.mkdir(parents=True)
    live = world.lineage(NAME)
    run = world.run(
        "openssl", "ocsp", "-issuer", live / "chain.pem", "-cert", live / "cert.pem", "-url", world.ocsp_url,
        "-CAfile", world.root, "-no_nonce", "-respout", path,
    )  # fmt: skip
    assert "Response verify OK" in run.output
    assert f"{live / 'cert.pem'}: good" in run.output
    return path.read_bytes()


def ocsp_urls(leaf: x509.Certificate) -> list[str]:
    """Return the OCSP URLs that a certificate names."""
    try:
        access = leaf.extensions.get_extension_for_oid(ExtensionOID.AUTHORITY_INFORMATION_ACCESS).value
    except x509.ExtensionNotFound:
        return []
    assert isinstance(access, x509.AuthorityInformationAccess)
    return [one.access_location.value for one in access if one.access_method == AuthorityInformationAccessOID.OCSP]


def test_stock_certbot_nginx_and_openssl_make_a_stapled_site(world: World) -> None:
    """A certificate from Pebble, stapled by nginx from a file, is accepted by curl and GnuTLS at once."""
    leaf = issue(world)
    assert ocsp_urls(leaf) == [world.ocsp_url]

    world.start_openssl_responder([leaf])
    staple = fetch_staple(world)
    world.write_site("seafile.conf", world.adapt(TLS_SITE.replace(b"# stapling", STAPLING)))
    world.stop_nginx()
    world.start_nginx()

    look = world.handshake(NAME)
    assert look.certificate == leaf
    assert look.staple == staple
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 404")
    verdict = world.curl_cert_status(NAME)
    assert verdict.accepted, verdict.text
    verdict = world.gnutls(NAME)
    assert verdict.accepted, verdict.text
    assert "OCSP status request" in verdict.text


def test_clients_refuse_the_staple_of_a_revoked_certificate(world: World) -> None:
    """curl and GnuTLS turn away a site whose staple says revoked, so that their consent elsewhere means something."""
    leaf = issue(world)
    world.start_openssl_responder([], revoked=[leaf])
    path = world.staple_dir / NAME / "ocsp.response"
    path.parent.mkdir(parents=True)
    live = world.lineage(NAME)
    world.run("openssl", "ocsp", "-issuer", live / "chain.pem", "-cert", live / "cert.pem", "-url", world.ocsp_url,
              "-noverify", "-no_nonce", "-respout", path)  # fmt: skip
    world.write_site("seafile.conf", world.adapt(TLS_SITE.replace(b"# stapling", STAPLING)))
    world.reload_nginx()

    staple = world.handshake(NAME).staple
    assert staple is not None
    assert ocsp.load_der_ocsp_response(staple).certificate_status is ocsp.OCSPCertStatus.REVOKED
    assert not world.curl_cert_status(NAME).accepted
    assert not world.gnutls(NAME).accepted


def test_a_site_without_staple_shows_none(world: World) -> None:
    """A look at a site that staples nothing has None for a staple, and curl --cert-status refuses it."""
    leaf = issue(world, ocsp=False)
    assert ocsp_urls(leaf) == []
    world.write_site("seafile.conf", world.adapt(TLS_SITE))
    world.reload_nginx()

    look = world.handshake(NAME)
    assert (look.certificate, look.staple) == (leaf, None)
    assert not world.curl_cert_status(NAME).accepted
    assert world.gnutls(NAME).accepted


def test_must_staple_is_issued_and_enforced(world: World) -> None:
    """The CA honours certbot's --must-staple, and GnuTLS refuses that certificate without a staple."""
    leaf = issue(world, "--must-staple", must_staple=True)
    features = leaf.extensions.get_extension_for_class(x509.TLSFeature).value
    assert list(features) == [x509.TLSFeatureType.status_request]
    world.write_site("seafile.conf", world.adapt(TLS_SITE))
    world.reload_nginx()
    verdict = world.gnutls(NAME)
    assert not verdict.accepted
    assert "the OCSP status is missing" in verdict.text, verdict.text


@pytest.mark.parametrize(("kind", "other"), [("rsa", "ecdsa"), ("ecdsa", "rsa")])
def test_a_look_can_ask_for_one_kind_of_certificate(world: World, kind: str, other: str) -> None:
    """A look that offers only the other kind of key is refused by nginx."""
    leaf = issue(world, "--key-type", kind)
    world.write_site("seafile.conf", world.adapt(TLS_SITE))
    world.reload_nginx()
    assert world.handshake(NAME, only=kind).certificate == leaf  # type: ignore[arg-type]
    with pytest.raises(SSL.Error):
        world.handshake(NAME, only=other)  # type: ignore[arg-type]


def test_a_valid_authorization_is_used_again_when_asked(world: World) -> None:
    """With authz_reuse=100 a second order needs no challenge: it succeeds while nginx is down."""
    world.start_pebble(authz_reuse=100)
    world.write_site("seafile.conf", world.adapt(PLAIN_SITE))
    world.start_nginx()
    words = ("certonly", "--webroot", "--webroot-path", str(world.webroot), "-d", NAME, "--force-renewal")
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot(*words)
    first = world.leaf(NAME).serial_number
    world.stop_nginx()
    world.certbot(*words)
    assert world.leaf(NAME).serial_number != first


def test_the_wrapper_is_nginx_with_this_folder_as_its_home(world: World) -> None:
    """`-t` and `-T` read the world's configuration, `-V` names it, and every call is counted."""
    site = world.write_site("seafile.conf", world.adapt(PLAIN_SITE))
    assert "test is successful" in world.run(world.nginx_ctl, "-t").stderr
    assert f"# configuration file {site}:" in world.run(world.nginx_ctl, "-T").stdout
    assert f"--conf-path={world.nginx_conf} " in world.run(world.nginx_ctl, "-V").stderr
    assert world.reloads() == 0
    world.start_nginx()
    world.reload_nginx()
    assert world.nginx_calls() == ["-t", "-T", "-V", "-s reload"]
    assert world.reloads() == 1


def test_a_broken_site_is_refused_by_the_wrapper(world: World) -> None:
    """`nginx -t` through the wrapper fails, and says where."""
    site = world.write_site("seafile.conf", b"server { listen nonsense:; }\n")
    run = world.run(world.nginx_ctl, "-t", check=False)
    assert run.exit_code == 1
    assert f"{site}:1" in run.stderr


def test_a_site_is_adapted_without_touching_its_other_bytes(world: World) -> None:
    """Ports and system paths change in directives alone: not in comments, strings, or with other parameters."""
    site = (
        b"# listen 80; /etc/ssl/cacert.pem isn't 'mine\r\n"
        b"server{listen 80 default_server;listen\t[::]:443 ssl http2; # /etc/x\r\n"
        b"  listen *:8443 ssl; listen [::]:80 ipv6only=off; listen 192.0.2.1;\xe4\r\n"
        b"  error_log '/var/log/nginx/my site.log'; location /var { } add_header X \"listen 80; /etc\";\r\n"
        b"  ssl_certificate /etc/ssl/cacert.pem;ssl_certificate_key /etc/ssl/privkey.pem;"
        b" ssl_dhparam /etc/nginx/dh.pem; }"
    )
    here, http, https = os.fsencode(world.folder), b"%d" % world.http_port, b"%d" % world.https_port
    expected = (
        b"# listen 80; /etc/ssl/cacert.pem isn't 'mine\r\n"
        b"server{listen 127.0.0.1:" + http + b" default_server;listen\t[::1]:" + https + b" ssl http2; # /etc/x\r\n"
        b"  listen 127.0.0.1:18443 ssl; listen [::ffff:127.0.0.1]:" + http + b" ipv6only=off; listen 192.0.2.1:" + http
        + b";\xe4\r\n  error_log '" + here + b"/var/log/nginx/my site.log'; location /var { }"
        b" add_header X \"listen 80; /etc\";\r\n"
        b"  ssl_certificate " + here + b"/etc/ssl/cacert.pem;ssl_certificate_key " + here + b"/etc/ssl/privkey.pem;"
        b" ssl_dhparam " + here + b"/etc/nginx/dh.pem; }"
    )  # fmt: skip
    assert world.adapt(site, {8443: 18443}) == expected
    assert world.path("/etc/ssl/cacert.pem").read_bytes().startswith(b"-----BEGIN CERTIFICATE")
    assert world.path("/etc/ssl/privkey.pem").stat().st_mode & 0o777 == 0o600
    assert b"DH PARAMETERS" in world.path("/etc/nginx/dh.pem").read_bytes()


def test_an_adapted_site_with_its_own_certificate_starts(world: World) -> None:
    """A site with self-signed files and DH parameters is served as soon as it is adapted."""
    site = TLS_SITE.replace(b"/etc/letsencrypt/live/seafile.example.com/", b"/etc/ssl/private/")
    site = site.replace(b"# stapling", b"ssl_dhparam /etc/ssl/private/dhparam2048.pem;")
    world.write_site("seafile.conf", world.adapt(site))
    world.start_nginx()
    look = world.handshake(NAME)
    assert look.certificate.issuer == look.certificate.subject
    assert world.fetch(NAME, "/").stdout.startswith("HTTP/1.1 404")


def test_a_snapshot_sees_content_mode_and_links(tmp_path: Path) -> None:
    """Two snapshots differ exactly when a file's bytes, its mode, or a link's target differ."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"one")
    link.symlink_to("file")
    before = snapshot(tmp_path)
    assert snapshot(tmp_path) == before
    file.chmod(0o600)
    mode_changed = snapshot(tmp_path)
    link.unlink()
    link.symlink_to("elsewhere")
    link_changed = snapshot(tmp_path)
    file.write_bytes(b"two")
    assert len({repr(one) for one in (before, mode_changed, link_changed, snapshot(tmp_path))}) == 4


def test_nothing_is_left_running_or_lying_about(tools: None) -> None:
    """After a test that failed, no process is in its folder, its ports are free, and the folder is gone."""

    def fail_amid_everything() -> None:
        with world:
            issue(world)
            world.start_openssl_responder([world.leaf(NAME)])
            assert len(processes.processes_in(world.folder)) >= 4
            raise ZeroDivisionError

    world = World()
    with pytest.raises(ZeroDivisionError):
        fail_amid_everything()
    assert processes.processes_in(world.folder) == {}
    ports = (world.http_port, world.acme_port, world.ocsp_port)
    assert [port for port in ports if processes.answers(port)] == []
    assert not world.folder.exists()


def test_an_nginx_that_nobody_asked_for_is_ended_and_reported(tools: None) -> None:
    """A test that lets nginx become a daemon fails when its world closes, and the daemon is ended all the same."""
    world = World()
    world.write_site("seafile.conf", world.adapt(PLAIN_SITE))
    with pytest.raises(processes.ProcessFailed, match="left running"), world:
        world.run(world.nginx_ctl)
    assert not processes.answers(world.http_port)
