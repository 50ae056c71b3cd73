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

from e2e import minted, road
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
    world.start_seafile()
    site = world.adapt(road.TUTORIAL_SITE)
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    return site


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


@pytest.mark.parametrize(
    "verb", [verb if verb == "renew" else pytest.param(verb, marks=pytest.mark.long) for verb in GET_ANEW]
)
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
    assert len(road.versions(reused)) == 2


def test_a_first_must_staple_certificate_in_a_plain_ones_place(world: World) -> None:
    """The plain certificate is sealed and stays through a person's reload, until the new one has its staple."""
    start(world)
    road.certonly(world)
    said = reload_before_our_hook(world)
    road.certonly(world, "--must-staple", "--force-renewal")
    assert said.read_text() == "accepted\n"
    assert_accepted(world)
    assert road.served_is_lineage(world)
    assert not (world.staple_dir / road.NAME / "ocsp.response").exists()


@pytest.mark.long
def test_ten_renewals_edit_no_site(reused: World) -> None:
    """Its bytes are the same after each, and two versions are kept, whose folder is the root's alone."""
    site = road.site_bytes(reused)
    for _ in range(10):
        reused.certbot("renew", "--force-renewal")
        assert_accepted(reused)
        assert road.site_bytes(reused) == site
    assert len(road.versions(reused)) == 2
    newest = reused.staple_dir / road.NAME / road.versions(reused)[-1]
    assert newest.stat().st_mode & 0o777 == 0o700
    assert {path.name: path.stat().st_mode & 0o777 for path in newest.iterdir()} == {
        "privkey.pem": 0o600, "fullchain.pem": 0o600, "ocsp.response": 0o600}  # fmt: skip


@pytest.mark.long
def test_the_ca_fails_and_all_is_as_it_was(issued: World) -> None:
    """The run that got no certificate changed nothing that nginx reads."""
    before, served = snapshot(issued.server_root), issued.handshake(road.NAME)
    issued.stop_pebble()
    run = issued.certbot("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert snapshot(issued.server_root) == before
    issued.reload_nginx()
    assert issued.handshake(road.NAME) == served


@pytest.mark.long
@pytest.mark.parametrize("words", [("renew", "--dry-run"), ("certonly", "-a", "seafile", "--must-staple", "--dry-run")])
def test_a_dry_run_seals_nothing(world: World, words: tuple[str, ...]) -> None:
    """Neither of what is sealed already nor of a plain certificate is anything written."""
    start(world)
    road.certonly(world)
    before, edited = snapshot(world.server_root), (world.sites / road.SITE_NAME).stat()
    world.certbot(*words, *(() if words[0] == "renew" else ("-d", road.NAME, *world.plugin_options)))
    assert snapshot(world.server_root) == before
    assert (world.sites / road.SITE_NAME).stat().st_ino == edited.st_ino


@pytest.mark.long
def test_a_plain_certificate_is_not_sealed(world: World) -> None:
    """certbot's convention stays: the site names live/, and nothing lies in the staples' folder but the response."""
    start(world)
    road.certonly(world)
    edited = (world.sites / road.SITE_NAME).stat()
    world.certbot("renew", "--force-renewal")
    assert (world.sites / road.SITE_NAME).stat().st_ino == edited.st_ino
    assert road.versions(world) == ["ocsp.response"]
    assert road.staples_lineage(world)


@pytest.mark.long
def test_it_stays_sealed_when_it_becomes_plain_again(reused: World) -> None:
    """Until undo: the site is not edited for it, and the staple goes on being fresh."""
    site = road.site_bytes(reused)
    reused.certbot(
        "certonly", "-a", "seafile", "-d", road.NAME, "--force-renewal", "--cert-name", road.NAME,
        *reused.plugin_options, env={"CERTBOT_MUST_STAPLE": "no"},
    )  # fmt: skip
    assert road.site_bytes(reused) == site
    assert road.served_is_lineage(reused)
    assert road.staples_lineage(reused)


@pytest.mark.long
@pytest.mark.parametrize("change", ["key type", "a name more", "a name less"])
def test_the_lineage_changes_and_stays_served(world: World, change: str) -> None:
    """Another type of key, a name added, a name taken away: the site goes on without an edit for the certificate."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    names = ["-d", "www.seafile.com"] if change == "a name less" else []
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE.replace(b"!ECDSA:", b"")))
    world.start_nginx()
    road.certonly(world, "--must-staple", "--key-type", "rsa", *names)
    words = {"key type": ["--key-type", "ecdsa"], "a name more": ["-d", "www.seafile.com"], "a name less": []}[change]
    certbot_words = ["--cert-name", road.NAME, "--force-renewal", "--must-staple", "--renew-with-new-domains"]
    road.certonly(world, *certbot_words, *words)
    assert_accepted(world)
    assert road.served_is_lineage(world)


@pytest.mark.long
@pytest.mark.parametrize("order", ["must-staple second", "must-staple first"])
def test_beside_another_type_of_key_it_is_refused_before_the_ca(world: World, order: str) -> None:
    """nginx has one staple for both: the run says so, spends no order, and what is served stays."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE.replace(b"!ECDSA:", b"")))
    world.start_nginx()
    none: list[str] = []
    first, second = (["--must-staple"], none) if order == "must-staple first" else (none, ["--must-staple"])
    road.certonly(world, "--key-type", "rsa", *first)
    served, orders = world.handshake(road.NAME), len(list((world.config_dir / "live").iterdir()))
    run = road.certonly(world, "--key-type", "ecdsa", "--cert-name", "other", *second, check=False)
    assert run.exit_code == 1
    assert "one of the two must be stapled" in run.output
    assert world.handshake(road.NAME) == served
    assert len(list((world.config_dir / "live").iterdir())) == orders


def test_what_certbot_knows_no_more_is_found_by_the_options_of_another(issued: World) -> None:
    """Its folder of staples and nginx are no default: refresh has them from another certificate, and check tells it.

    CERT-DELETED.
    """
    minted.mint(issued, "other.example.com", minted.options(issued), ocsp_urls=[])
    issued.certbot("delete", "--cert-name", road.NAME)
    issued.set_responder(this_update_offset_hours=60)
    issued.seafile("refresh", "--force", env=road.clock(issued, hours=60))
    assert_accepted(issued)
    assert issued.handshake(road.NAME).staple == road.response_path(issued).read_bytes()
    assert "certbot knows it no more" in issued.seafile("check", check=False).stdout


@pytest.mark.parametrize("trouble", ["off", "refuses a line"])
def test_what_a_killed_run_switched_to_outlives_an_nginx_that_cannot_load(reused: World, trouble: str) -> None:
    """Somebody stopped nginx, or broke another site: both versions stay, and the new one is served afterwards."""
    world = reused
    world.certbot("renew", "--force-renewal")
    versions = road.versions(world)
    road.change_record(world, needs_reload=True)
    if trouble == "off":
        world.stop_nginx()
    else:
        world.write_site("broken.conf", b"no_such_thing;\n")
    run = world.certbot("renew", check=False)
    assert run.exit_code == 1
    assert ("reload" if trouble == "off" else "no_such_thing") in run.output
    assert (len(versions), road.versions(world)) == (2, versions)
    if trouble == "off":
        world.start_nginx()
    else:
        (world.sites / "broken.conf").unlink()
        world.reload_nginx()
    assert_accepted(world)
    assert road.served_is_lineage(world)
    world.certbot("renew")
    assert not road.record(world)["needs_reload"]


@pytest.mark.long
@pytest.mark.parametrize("loss", ["certbot delete", "archive moved away"])
def test_nginx_serves_on_without_certbots_files(issued: World, loss: str) -> None:
    """It stops and starts from what is on disk; check names the certificate that certbot knows no more.

    CERT-DELETED.
    """
    served = issued.handshake(road.NAME)
    if loss == "certbot delete":
        issued.certbot("delete", "--cert-name", road.NAME)
    else:
        (issued.config_dir / "archive").rename(issued.config_dir / "moved")
    issued.stop_nginx()
    issued.start_nginx()
    assert issued.handshake(road.NAME) == served
    machine = ["--seafile-ctl", str(issued.nginx_ctl), "--seafile-staple-dir", str(issued.staple_dir),
               "--https-port", str(issued.https_port), "--http-01-port", str(issued.http_port)]  # fmt: skip
    run = issued.seafile(*machine, "check", check=False)
    assert run.exit_code == 1
    assert road.NAME in run.stdout
    if loss == "certbot delete":
        assert "certbot knows it no more" in run.stdout
        assert road.NAME in issued.seafile(*machine, "status").stdout
        issued.set_responder(this_update_offset_hours=60)
        issued.seafile(*machine, "refresh", "--force", env=road.clock(issued, hours=60))
        assert issued.handshake(road.NAME).staple == road.response_path(issued).read_bytes() != served.staple


@pytest.mark.long
def test_undo_leaves_no_key_of_ours(world: World) -> None:
    """The site is what it was, byte for byte, and the key is nowhere but where certbot keeps it."""
    site = start(world)
    road.certonly(world, "--must-staple")
    world.certbot("renew", "--force-renewal")
    keys = [path.read_bytes() for path in (world.config_dir / "archive" / road.NAME).glob("privkey*.pem")]
    lines = {line for key in keys for line in key.splitlines()[1:-1] if len(line) == 64}
    assert holding(world, lines) != []
    world.seafile("undo", "--cert-name", road.NAME)
    assert road.site_bytes(world) == site
    assert holding(world, lines) == []
    assert list(world.staple_dir.iterdir()) == []


def holding(world: World, lines: set[bytes]) -> list[Path]:
    """Return the files outside certbot's own folder that hold a line of a private key."""
    files = [path for path in world.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    own = {world.config_dir / "archive", world.config_dir / "keys"}  # certbot below 2.3 keeps a key in the second, too
    foreign = [path for path in files if own.isdisjoint(path.parents)]
    return [path for path in foreign if lines & set(path.read_bytes().splitlines())]


@pytest.mark.long
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_rollback_leaves_an_nginx_that_starts(issued: World, count: int) -> None:
    """Whatever certbot's checkpoints bring back: nginx starts, and the site hands out a certificate."""
    issued.certbot("rollback", "--checkpoints", str(count), *issued.plugin_options, "-i", "seafile", check=False)
    issued.stop_nginx()
    issued.start_nginx()
    assert issued.handshake(road.NAME).certificate is not None
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert_accepted(issued)


@pytest.mark.long
def test_a_rollback_to_a_snippet_that_is_gone_is_taken_back(world: World) -> None:
    """After undo the sealed versions are gone: a site that needs them does not come back, and the run says so.

    nginx alone would take the http level's certificate and be content.
    """
    start(world)
    own = (world.path("/etc/ssl/private/cacert.pem"), world.path("/etc/ssl/private/privkey.pem"))
    world.path("/etc/nginx/conf.d/certificate.conf").write_text(
        f"ssl_certificate {own[0]};\nssl_certificate_key {own[1]};\n"
    )
    road.certonly(world, "--must-staple")
    world.certbot("enhance", "-i", "seafile", "--hsts", "--cert-name", road.NAME, *world.plugin_options)
    world.seafile("undo", "--cert-name", road.NAME)
    site = road.site_bytes(world)
    run = world.certbot("rollback", "--checkpoints", "1", "-i", "seafile", *world.plugin_options, check=False)
    assert run.exit_code == 1
    assert "nothing was rolled back" in run.output
    assert road.site_bytes(world) == site
    world.run(world.nginx_ctl, "-t")


@pytest.mark.parametrize("name", ["$host", "a;b", "a b", "a\nb", "*", "a'b", "x.conf", "-x"])
def test_a_name_that_could_write_into_a_file_is_refused_before_the_ca(world: World, name: str) -> None:
    """certbot takes nearly any name; a line end in it would be a directive in the snippet."""
    site = start(world)
    run = road.certonly(world, f"--cert-name={name}", check=False)
    assert run.exit_code != 0
    assert "must not be called" in run.output
    assert road.site_bytes(world) == site
    assert not (world.config_dir / "live").exists()


@pytest.mark.long
def test_a_missing_snippet_is_written_again(issued: World) -> None:
    """From the newest whole version; and where none is whole, nginx starts all the same and hands out nothing."""
    served, snippet = issued.handshake(road.NAME), issued.staple_dir / f"{road.NAME}.conf"
    snippet.unlink()
    issued.certbot("renew")
    issued.stop_nginx()
    issued.start_nginx()
    assert issued.handshake(road.NAME).certificate == served.certificate
    assert_accepted(issued)


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
    assert road.site_bytes(issued) == site
    issued.start_responder()
    issued.certbot("renew")
    assert road.served_is_lineage(issued)
    assert_accepted(issued)
    assert road.site_bytes(issued) == site


@pytest.mark.long
def test_undo_while_a_new_one_waits_restores_the_original_site(world: World) -> None:
    """Taking everything out leaves no file of ours."""
    site = start(world)
    road.certonly(world, "--must-staple")
    world.stop_responder()
    world.certbot("renew", "--force-renewal", check=False)
    world.seafile("undo", "--cert-name", road.NAME)
    assert road.site_bytes(world) == site
    assert list(world.staple_dir.iterdir()) == []


@pytest.mark.long
def test_a_second_renewal_without_responder_keeps_the_first(issued: World) -> None:
    """The version that has a staple goes on being served, not the one in between."""
    site, old = road.site_bytes(issued), issued.handshake(road.NAME)
    issued.stop_responder()
    for _ in range(2):
        issued.certbot("renew", "--force-renewal", check=False)
        assert road.site_bytes(issued) == site
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
    old, kept = waiting.handshake(road.NAME), road.response_path(waiting)
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
    """One sentence says what is so, until when, and which command says why; deploy is that, and ends it at last.

    STAPLE-AWAITED.
    """
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


@pytest.mark.long
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


@pytest.mark.parametrize("words", [("refresh", "--force"), ("deploy", "--cert-name", road.NAME)], ids=" ".join)
def test_a_revoked_must_staple_certificate_loses_its_staple(issued: World, words: tuple[str, ...]) -> None:
    """Never withdrawn for its age, it is for the CA's word; time and reason are named."""
    issued.set_responder(fault="revoked")
    road.change_record(issued, last_success="2026-01-01T00:00:00+00:00")
    run = issued.seafile(*words, check=False)
    assert run.exit_code == 1
    assert "the CA revoked the certificate on" in run.stderr
    assert issued.handshake(road.NAME).staple is None
    assert not road.response_path(issued).exists()
    issued.run(issued.nginx_ctl, "-t")


@pytest.mark.long
def test_no_client_is_refused_over_a_whole_life(issued: World) -> None:
    """Refresh, renewal, renewal without responder, reloads and what ends it: not one connection is refused."""
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
