"""A host where the tutorial was followed by hand moves over with one `certonly -a seafile`."""

from __future__ import annotations

import sys

import pytest

from e2e import road
from e2e.world import World, snapshot

#: The tutorial's site when it is finished: challenge location, the self-signed lines commented out, a staple by hand.
FINISHED_SITE = (
    road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name   home.seafile.com;")
    .replace(
        b"""\
    }
}

server {
""",
        b"""\
    }

    location /.well-known/acme-challenge {
        alias /var/www/letsencrypt/.well-known/acme-challenge;
        location ~ /.well-known/acme-challenge/(.*) {
            add_header Content-Type application/jose+json;
        }
    }
}

server {
""",
        1,
    )
    .replace(b"    ssl_certificate /", b"#    ssl_certificate /")
    .replace(
        b"    ssl_certificate_key /etc/ssl/private/privkey.pem;\n",
        b"""\
#    ssl_certificate_key /etc/ssl/private/privkey.pem;
    ssl_certificate /etc/letsencrypt/live/home.seafile.com/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/home.seafile.com/privkey.pem;
    ssl_stapling on;
    ssl_stapling_file /etc/nginx/OCSP/home.seafile.com/ocsp.response;
#   ssl_stapling_verify on;
#   resolver 192.168.1.1;
""",
    )
)

OCSP_SCRIPT = """\
#!/bin/bash
# Fetch the response for each certificate.
openssl ocsp -noverify -issuer "$chain" -cert "$cert" -url "$url" -respout /etc/nginx/OCSP/$name/ocsp.response |
    grep ': good' && systemctl reload nginx
"""
RENEW_SCRIPT = "#!/bin/bash\n/usr/bin/certbot renew --quiet && systemctl reload nginx\n"
CRONTAB = "5 4 * * *  /usr/local/sbin/OCSPResponse >/dev/null 2>&1\n15 4 * * 0  /usr/local/sbin/CertbotRenew\n"


@pytest.fixture
def by_hand(world: World) -> World:
    """Return a host with the tutorial's site, lineage, staple, scripts and cron lines, all of it serving."""
    assert b"\nssl_certificate_key" not in FINISHED_SITE
    self_signed = road.TUTORIAL_SITE.replace(
        b"    location /seafile {\n      rewrite",
        b"    location /.well-known/ { root /var/www/letsencrypt; }\n    location /seafile {\n      rewrite",
        1,
    )
    road.start(world, self_signed)
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.certbot("certonly", "--webroot", "-w", world.webroot, "-d", road.NAME, "--key-type", "rsa")
    road.response_path(world).parent.mkdir(parents=True)
    road.response_path(world).write_bytes(road.ask_responder(world))
    world.write_site(road.SITE_NAME, world.adapt(FINISHED_SITE))
    world.reload_nginx()
    road.give_scheduler(world)
    world.path("/etc/cron.d/certbot").write_text(
        "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && certbot -q renew\n"
    )
    for path, text in (
        ("/usr/bin/certbot", f"#!{sys.executable}\n"),
        ("/usr/local/sbin/OCSPResponse", OCSP_SCRIPT),
        ("/usr/local/sbin/CertbotRenew", RENEW_SCRIPT),
        ("/var/spool/cron/crontabs/root", CRONTAB),
    ):
        world.path(path).parent.mkdir(parents=True, exist_ok=True)
        world.path(path).write_text(text)
        world.path(path).chmod(0o755)
    assert road.staples_lineage(world)
    return world


def theirs(world: World) -> list[dict[str, tuple[int, bytes]]]:
    """Return what the person made beside site and lineage."""
    return [snapshot(world.path(path)) for path in ("/usr/local", "/var/spool", "/etc/cron.d", "/etc/ssl")]


@pytest.mark.long
def test_one_line_moves_a_finished_tutorial_over(by_hand: World) -> None:
    """Renewals go by the plugin, nothing stands twice, nothing of theirs is gone, and undo brings it all back."""
    site, made = road.site_bytes(by_hand), theirs(by_hand)
    run = road.certonly(by_hand)
    assert "webroot" in run.output
    saved = road.renewal(by_hand)
    assert (saved["authenticator"], saved["installer"]) == ("seafile", "seafile")
    assert road.served_is_lineage(by_hand)
    assert road.staples_lineage(by_hand)
    after = road.site_bytes(by_hand)
    active = [line.split()[0] for line in after.splitlines() if line.strip() and not line.lstrip().startswith(b"#")]
    assert [active.count(word) for word in (b"ssl_certificate", b"ssl_certificate_key", b"include")] == [1, 1, 1]
    assert (active.count(b"ssl_stapling"), active.count(b"ssl_stapling_file")) == (0, 0)
    assert after.count(b"acme-challenge") == site.count(b"acme-challenge")
    assert theirs(by_hand) == made
    by_hand.certbot("renew", "--force-renewal")
    assert road.staples_lineage(by_hand)
    assert road.site_bytes(by_hand) == after
    by_hand.seafile("undo")
    assert road.site_bytes(by_hand) == site
    by_hand.run(by_hand.nginx_ctl, "-t")


@pytest.mark.long
def test_check_names_what_can_go(by_hand: World) -> None:
    """The OCSP script is a fault, because it writes over verified staples; the renewing one is only superfluous."""
    road.certonly(by_hand)
    words = ("check", "--root", by_hand.folder)
    run = by_hand.seafile(*words, check=False)
    crontab = by_hand.path("/var/spool/cron/crontabs/root")
    ocsp, renew = (by_hand.path(f"/usr/local/sbin/{name}") for name in ("OCSPResponse", "CertbotRenew"))
    assert run.exit_code == 1
    said = run.stdout.splitlines()
    assert len(said) == 2, run
    assert said[0].startswith(f"{crontab}:1 and {ocsp} can go")
    assert said[1].startswith(f"{crontab}:2 and {renew} can go")
    crontab.write_text(CRONTAB.splitlines(keepends=True)[1])
    run = by_hand.seafile(*words)
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 1)
    crontab.write_text("")
    assert by_hand.seafile(*words).stdout == "All is well.\n"
