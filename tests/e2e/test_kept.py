"""What a person said once is kept, through renewals and through asking again; what undo took out stays out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from e2e import killing, road
from e2e.world import World

pytestmark = pytest.mark.certbot
AUTHZ_REUSE = 100


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, with a certificate whose CA reuses authorizations."""
    return restored


def test_asking_again_keeps_hooks_key_size_and_options(world: World) -> None:
    """The README's command over a lineage with a person's own hooks: all of them stand in the renewal file still."""
    road.start(world, authz_reuse=100)
    mine = ["--deploy-hook", "echo mine", "--post-hook", "echo post", "--rsa-key-size", "3072"]
    road.certonly(world, *mine, "--seafile-ocsp-url", world.ocsp_url)
    road.certonly(world, "--force-renewal")
    saved = road.renewal(world)
    assert saved["renew_hook"].strip('"').endswith("|| trap 'exit 1' EXIT; echo mine")
    assert (saved["post_hook"], saved["rsa_key_size"]) == ("echo post", "3072")
    assert saved["seafile_ocsp_url"] == world.ocsp_url
    assert world.leaf(road.NAME).public_key().key_size == 3072  # type: ignore[union-attr]


@pytest.mark.long
def test_a_hook_that_reconfigure_replaced_comes_back_at_an_idle_renewal(issued: World) -> None:
    """Before the person's own, which stays."""
    renewal = issued.config_dir / "renewal" / f"{road.NAME}.conf"
    lines = renewal.read_text().splitlines()
    lines = ["renew_hook = echo mine" if line.startswith("renew_hook") else line for line in lines]
    renewal.write_text("\n".join(lines) + "\n")
    issued.certbot("renew")
    hook = road.renewal(issued)["renew_hook"].strip('"')
    assert "certbot-seafile" in hook
    assert hook.endswith("; echo mine")


@pytest.mark.long
def test_ports_are_remembered(issued: World) -> None:
    """A renewal that is run without --https-port goes by the saved one, in its hook too."""
    command = list(issued.certbot_command("renew", "--force-renewal"))
    for option in ("--https-port", "--http-01-port"):
        place = command.index(option)
        del command[place : place + 2]
    site = road.site_bytes(issued)
    issued.run(*command)
    assert road.renewal(issued)["https_port"] == str(issued.https_port)
    assert f"--https-port {issued.https_port} deploy" in road.renewal(issued)["renew_hook"]
    assert road.site_bytes(issued) == site
    assert road.staples_lineage(issued)


@pytest.mark.long
def test_a_value_that_is_the_default_is_heard(issued: World) -> None:
    """`install --seafile-stapling auto` over a saved "off"."""
    off = ["install", "-i", "seafile", "--cert-name", road.NAME]
    issued.certbot(*off, "--seafile-stapling", "off")
    assert issued.handshake(road.NAME).staple is None
    issued.certbot(*off, "--seafile-stapling", "auto")
    assert road.staples_lineage(issued)


def test_undo_stays_until_deploy(issued: World) -> None:
    """Renewals that are due and that are not leave the site alone; the certificate is renewed all the same."""
    issued.seafile("undo")
    site, first = road.site_bytes(issued), issued.leaf(road.NAME)
    assert "installer" not in road.renewal(issued)
    for words in (["renew"], ["renew", "--force-renewal"]):
        issued.certbot(*words)
        assert road.site_bytes(issued) == site
    assert issued.leaf(road.NAME) != first
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert road.staples_lineage(issued)
    assert road.renewal(issued)["installer"] == "seafile"


@pytest.mark.parametrize("damage", ["empty", "cut off", "key twice"])
def test_a_damaged_renewal_file_is_told_and_nothing_is_done(issued: World, damage: str) -> None:
    """The certificate does not vanish: check, status and refresh name it and exit 1, and nothing is written."""
    renewal = issued.config_dir / "renewal" / f"{road.NAME}.conf"
    text = renewal.read_text()
    cut = text[: text.index("seafile_staple_dir")]
    renewal.write_text({"empty": "", "cut off": cut, "key twice": text + "renew_hook = x\n"}[damage])
    before = killing.state(issued)
    for command in ("check", "status", "refresh"):
        run = issued.seafile(command, check=False)
        assert run.exit_code == 1 or (command, damage) == ("status", "cut off")
        assert road.NAME in run.output
    assert killing.state(issued) == before


@pytest.mark.long
def test_an_expired_certificate_is_not_deployed(issued: World) -> None:
    """It says when it ended and what to run; the site keeps what it has."""
    site = road.site_bytes(issued)
    run = issued.seafile("deploy", "--cert-name", road.NAME, check=False, env=road.clock(issued, hours=24 * 365 * 6))
    assert run.exit_code == 1
    assert "expired on" in run.stderr
    assert road.site_bytes(issued) == site


@pytest.mark.long
def test_certificate_files_of_nobody_are_refused_in_a_sentence(issued: World, tmp_path: Path) -> None:
    """`certbot install` with paths instead of a certificate of certbot's."""
    live = issued.config_dir / "live" / road.NAME
    words = ["--cert-path", str(live / "cert.pem"), "--key-path", str(live / "privkey.pem"), "-d", road.NAME]
    run = issued.certbot("install", "-i", "seafile", *words, *map(str, issued.plugin_options), check=False)
    assert run.exit_code == 1
    assert "--cert-name" in run.output
    assert "TypeError" not in run.output + run.log


def test_a_closed_pipe_does_not_stop_a_deployment(issued: World) -> None:
    """The site, the renewal file and what is served are whole, though nobody reads what is told."""
    issued.seafile("undo")
    command = [str(word) for word in killing.seafile(issued, "deploy", "--cert-name", road.NAME)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert b"Traceback" not in process.communicate()[1]
    assert road.renewal(issued)["installer"] == "seafile"
    assert road.staples_lineage(issued)


@pytest.mark.long
@pytest.mark.parametrize("words", [["status"], ["--version"], ["check"]])
def test_a_full_output_is_told_without_a_traceback(issued: World, words: list[str]) -> None:
    """Exit 1, one line."""
    command = [sys.executable, "-m", "certbot_seafile", *map(str, issued.folders), *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr


def test_the_log_is_its_owners(issued: World) -> None:
    """Nobody else reads it."""
    log = issued.logs_dir / "certbot-seafile.log"
    assert log.stat().st_mode & 0o777 == 0o600


@pytest.mark.long
def test_a_second_certificate_for_the_name_keeps_the_site(issued: World) -> None:
    """The newest owns the site: idle and due renewals of the older one leave it alone; deploy by hand takes it."""
    road.certonly(issued, "--cert-name", f"{road.NAME}-0001", "--duplicate")
    site = road.site_bytes(issued)
    assert road.served_is_lineage(issued, f"{road.NAME}-0001") or b"-0001/fullchain.pem" in site
    issued.certbot("renew")
    assert road.site_bytes(issued) == site
    issued.certbot("renew", "--force-renewal", "--cert-name", road.NAME)
    assert road.site_bytes(issued) == site
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert f"/live/{road.NAME}/fullchain.pem;".encode() in road.site_bytes(issued)


@pytest.mark.long
def test_relative_folders_are_meant_from_where_certbot_runs(world: World) -> None:
    """The site and the renewal file name the whole path."""
    road.start(world, authz_reuse=100)
    words = ["--seafile-ctl", str(world.nginx_ctl), "--seafile-webroot", str(world.webroot)]
    world.certbot("certonly", "-a", "seafile", "-d", road.NAME, *words, "--seafile-staple-dir", "ocsp")
    assert road.renewal(world)["seafile_staple_dir"] == str(world.folder / "ocsp")
    assert f"{world.folder}/ocsp/".encode() in road.site_bytes(world)


@pytest.mark.long
def test_a_name_that_is_gone_is_dropped_and_the_rest_is_renewed(world: World) -> None:
    """With --allow-subset-of-names, certbot gets a certificate for the names that nginx still has."""
    site = road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name home.seafile.com www.seafile.com;")
    road.start(world, site)
    road.certonly(world, "-d", "www.seafile.com", "--allow-subset-of-names")
    path = world.sites / road.SITE_NAME
    path.write_bytes(path.read_bytes().replace(b" www.seafile.com", b""))
    world.reload_nginx()
    world.certbot("renew", "--force-renewal")
    assert road.names(world) == [road.NAME]
    assert road.served_is_lineage(world)
