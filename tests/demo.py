"""The demonstration: one certificate's life on this machine, told as a story, without touching its real nginx.

Pebble is the CA, a responder answers for it, and nginx serves the tutorial's site, all below a temporary folder and on
loopback ports above 1024. Everything that is shown was asked of those servers a moment before.
"""

from __future__ import annotations

import difflib
import sys
import textwrap
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from cryptography.x509 import ocsp

from e2e import road
from e2e.looks import Look
from e2e.world import Run, World

WIDTH = 100


def main() -> int:
    """Tell the whole story; exit code 0 when every step showed what it promises, else 1."""
    began = time.monotonic()
    with World() as world:
        chapters = (
            first_certificate, first_connection, nothing_due, half_way, new_certificate, failing, examined, undone,
        )  # fmt: skip
        before = set_up(world)
        good = [chapter(world, before) for chapter in chapters]
    tell(f"\nThe story took {time.monotonic() - began:.0f} seconds; the temporary folder and its servers are gone.")
    return 0 if all(good) else 1


def tell(text: str) -> None:
    """Print a paragraph."""
    print(
        textwrap.fill(text, WIDTH) if not text.startswith("\n") else "\n" + textwrap.fill(text[1:], WIDTH), flush=True
    )


def show(text: str) -> None:
    """Print what a program said, indented."""
    print(textwrap.indent(text.rstrip("\n"), "    "), flush=True)


def verdict(holds: bool, promise: str) -> bool:
    """Print whether a promise holds, and return it."""
    print(f"  {'yes' if holds else 'NO '}  {promise}", flush=True)
    return holds


def set_up(world: World) -> bytes:
    """Start the servers with the tutorial's site and return the site's bytes."""
    tell(
        f"A CA (Pebble), its OCSP responder and nginx run below {world.folder}. nginx has the Seafile tutorial's site: "
        "nameless servers, a self-signed certificate, a redirect, TLS 1.2 without ECDSA."
    )
    before = road.start(world)
    road.give_scheduler(world)
    look = world.handshake(road.NAME)
    tell(f"A TLS client is handed a certificate of {look.certificate.subject.rfc4514_string()}, signed by itself.")
    return before


def first_certificate(world: World, before: bytes) -> bool:
    """Run the one line, and show what it did to the site."""
    tell("\n1. sudo certbot certonly -a seafile -d home.seafile.com")
    run = road.certonly(world)
    show(told(run.stdout, world))
    tell("\nThe site's diff:")
    old, new = (content.decode().replace(str(world.folder), "") for content in (before, road.site_bytes(world)))
    show("".join(difflib.unified_diff(old.splitlines(True), new.splitlines(True), "seafile.conf", "seafile.conf", n=1)))
    return verdict(road.served_is_lineage(world), "nginx serves the new certificate")


def told(output: str, world: World) -> str:
    """Return certbot's lines that are about the site, without the temporary folder's name."""
    dull = ("Saving debug log", "- - -", "If you like", "* Donating", "Account registered", "This certificate")
    lines = [line for line in output.splitlines() if line.strip() and not line.strip().startswith(dull)]
    return "\n".join(lines).replace(str(world.folder), "")


def first_connection(world: World, before: bytes) -> bool:
    """Show what the first client after a reload is handed."""
    tell("\n2. nginx has just been reloaded; this is what its first client is handed:")
    world.reload_nginx()
    look = world.handshake(road.NAME)
    show(described(look))
    stapled = verdict(road.staples_lineage(world), "the first connection carries a good staple")
    curl = verdict(world.curl_cert_status(road.NAME).accepted, "curl --cert-status accepts it")
    gnutls = verdict(world.gnutls(road.NAME).accepted, "gnutls-cli, which rejects what browsers reject, accepts it")
    return stapled and curl and gnutls


def described(look: Look) -> str:
    """Return certificate and staple in a few lines."""
    leaf = look.certificate
    lines = [
        f"certificate  {leaf.subject.rfc4514_string() or '(names in subjectAltName)'}, serial {leaf.serial_number:x}",
        f"issued by    {leaf.issuer.rfc4514_string()}",
    ]
    if look.staple is None:
        return "\n".join([*lines, "staple       none"])
    staple = ocsp.load_der_ocsp_response(look.staple)
    since, until = window(staple)
    return "\n".join([*lines, f"staple       {staple.certificate_status.name}, from {since} to {until} UTC"])


def window(staple: ocsp.OCSPResponse) -> tuple[str, str]:
    """Return thisUpdate and nextUpdate as text (cryptography below 43 has them without a time zone)."""
    new = hasattr(staple, "this_update_utc")
    since = staple.this_update_utc if new else staple.this_update
    until = staple.next_update_utc if new else staple.next_update
    return f"{since:%Y-%m-%d %H:%M}", f"{until:%Y-%m-%d %H:%M}"


def nothing_due(world: World, before: bytes) -> bool:
    """Run certbot renew with nothing to do."""
    tell("\n3. certbot renew, with nothing due:")
    asked, reloaded, site = road.ocsp_requests(world), world.reloads(), road.site_bytes(world)
    world.certbot("renew")
    quiet = verdict(road.ocsp_requests(world) == asked, "no request to the responder")
    still = verdict(world.reloads() == reloaded, "no reload of nginx")
    return verdict(road.site_bytes(world) == site, "not a byte of the site changed") and quiet and still


def half_way(world: World, before: bytes) -> bool:
    """Let more than half of the staple's window pass, and run certbot renew again."""
    tell("\n4. certbot renew, when more than half of the staple's window has passed:")
    old = road.response_path(world).read_bytes()
    world.set_responder(this_update_offset_hours=60)
    world.certbot("renew", env=road.clock(world, hours=60))
    world.set_responder()
    new = world.handshake(road.NAME)
    show(described(new))
    return verdict(new.staple not in (None, old) and road.staples_lineage(world), "a new staple is stored and served")


def new_certificate(world: World, before: bytes) -> bool:
    """Renew the certificate itself."""
    tell("\n5. certbot renew, when the certificate itself is due (here: --force-renewal):")
    serial = world.leaf(road.NAME).serial_number
    world.certbot("renew", "--force-renewal")
    show(described(world.handshake(road.NAME)))
    fresh = verdict(world.leaf(road.NAME).serial_number != serial and road.served_is_lineage(world), "it is served")
    return verdict(road.staples_lineage(world), "its own staple comes with it") and fresh


def failing(world: World, before: bytes) -> bool:
    """Let a renewal fail, since the CA is down, and show what clients and the person are told."""
    tell("\n6. certbot renew, when the certificate is due and the CA is down; then how things stand:")
    world.stop_pebble()
    run = world.certbot("renew", "--force-renewal", check=False)
    show(told(world.seafile("status").stdout, world))
    show(told(check(world).stdout, world))
    failed = verdict(run.exit_code == 1, "certbot renew fails, with exit code 1")
    told_so = verdict("[RENEWAL-FAILED]" in check(world).stdout, "the doctor warns of it")
    return verdict(road.staples_lineage(world), "clients are served as before, with the staple") and failed and told_so


def examined(world: World, before: bytes) -> bool:
    """Break the site as a person might, let the doctor find it, and run the command that it names."""
    tell("\n7. Somebody puts the old certificate back into the site. certbot-seafile check:")
    world.start_pebble()
    world.certbot("renew")
    site = world.sites / road.SITE_NAME
    good = site.read_bytes()
    lines = [line for line in good.splitlines(keepends=True) if b"/live/" not in line and b"[.]conf" not in line]
    site.write_bytes(b"".join(lines).replace(b"#    ssl_certificate", b"    ssl_certificate"))
    world.reload_nginx()
    show(told(check(world).stdout, world))
    found = verdict(check(world).exit_code == 1, "the doctor finds it, and names the command")
    tell("\nThat command: certbot-seafile deploy --cert-name home.seafile.com")
    show(told(world.seafile("deploy", "--cert-name", road.NAME).stdout, world))
    show(told(check(world).stdout, world))
    return verdict(check(world).stdout == "All is well.\n", "nothing is wrong any more") and found


def check(world: World) -> Run:
    """Run the doctor."""
    return world.seafile("check", "--root", world.folder, check=False)


def undone(world: World, before: bytes) -> bool:
    """Take everything out again."""
    tell("\n8. certbot-seafile undo")
    show(told(world.seafile("undo").stdout, world))
    return verdict(road.site_bytes(world) == before, "the site is byte for byte what it was")


if __name__ == "__main__":
    sys.exit(main())
