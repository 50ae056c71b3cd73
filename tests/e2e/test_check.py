"""`certbot-seafile check` and `status`: what is wrong is said in a sentence, what is well is not."""

from __future__ import annotations

import json
import shutil

import pytest

from e2e import road
from e2e.front import validity
from e2e.world import Run, World, snapshot


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, in which a certificate and its staple are served."""
    return restored


def check(world: World, hours: float = 0) -> Run:
    """Run check as at a clock that many hours ahead."""
    env = road.clock(world, hours=hours) if hours else None
    return world.seafile("check", "--root", world.folder, check=False, env=env)


def the_fault(world: World, hours: float = 0) -> str:
    """Return the one sentence that check says."""
    run = check(world, hours)
    assert run.exit_code == 1, run
    assert len(run.stdout.splitlines()) == 1, run
    assert run.stderr == ""
    return run.stdout


def replace(world: World, path: str, old: str, new: str) -> None:
    """Replace text in a file of the world, which must hold it."""
    file = world.path(path)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def test_all_is_well(issued: World) -> None:
    """Nothing is wrong after `certonly`: exit 0, one sentence; and no file was touched."""
    run = check(issued)
    assert (run.exit_code, run.stdout) == (0, "All is well.\n"), run


@pytest.mark.certbot
def test_a_renewal_that_failed_is_told_until_one_succeeds(issued: World) -> None:
    """With the CA down, certbot calls nobody for the certificate: it is a warning, and `status` has it, too."""
    issued.stop_pebble()
    assert issued.certbot("renew", "--force-renewal", check=False).exit_code == 1
    run = check(issued)
    assert run.exit_code == 0
    assert run.stdout.count("\n") == 1
    assert "`certbot renew` could not renew the certificate on " in run.stdout
    assert run.stdout.endswith("[RENEWAL-FAILED]\n")
    (lineage,) = json.loads(issued.seafile("status", "--json").stdout)["lineages"]
    assert lineage["last_failure"].startswith("certbot could not renew the certificate")
    issued.start_pebble()
    issued.certbot("renew")
    assert check(issued).stdout == "All is well.\n"


def test_the_certificate_on_disk_is_not_the_one_served(issued: World) -> None:
    """A site that somebody put back to its own certificate is noticed; the sentence's command mends it."""
    ssl = issued.path("/etc/ssl/private")
    live = issued.lineage(road.NAME)
    site = road.site_bytes(issued)
    by_hand = site.replace(b"%s/fullchain" % bytes(live), b"%s/cacert" % bytes(ssl))
    (issued.sites / road.SITE_NAME).write_bytes(by_hand.replace(bytes(live), bytes(ssl)))
    issued.reload_nginx()
    told = f"not the one served; run `certbot-seafile deploy --cert-name {road.NAME}`. [CERT-NOT-SERVED]"
    assert told in check(issued).stdout
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert check(issued).exit_code == 0


def test_programs_are_told_as_json(issued: World) -> None:
    """The same findings with id, severity, file and line; exit 1 with a fault only."""
    words = ["check", "--json", "--root", str(issued.folder)]
    assert json.loads(issued.seafile(*words).stdout) == {"schema": 1, "findings": []}
    issued.path("/usr/sbin/cron").unlink()
    run = issued.seafile(*words)
    road.give_scheduler(issued)
    (warning,) = json.loads(run.stdout)["findings"]
    assert (warning["id"], warning["severity"]) == ("SCHEDULE-NO-CRON", "warning")
    site = road.site_bytes(issued)
    (issued.sites / road.SITE_NAME).write_bytes(b"".join(line for line in site.splitlines(True) if b"OCSP" not in line))
    issued.reload_nginx()
    run = issued.seafile(*words, check=False)
    assert run.exit_code == 1
    (fault,) = json.loads(run.stdout)["findings"]
    assert (fault["id"], fault["severity"], fault["name"]) == ("SITE-NO-INCLUDE", "fault", road.NAME)
    assert (fault["file"], fault["effect"]) == (str(issued.sites / road.SITE_NAME), "the staple is not served")
    assert road.site_bytes(issued).splitlines()[fault["line"] - 1].startswith(b"server")
    issued.seafile(*fault["command"].split()[1:])
    assert check(issued).exit_code == 0


@pytest.mark.long
def test_two_certificates_for_the_same_name_are_a_warning(world: World) -> None:
    """Both are named, with the command that deletes the one that is not served; what is said then leads to the end.

    CERT-SHARED, then STAPLE-LEFT-OVER.
    """
    road.start(world)
    road.certonly(world)
    road.give_scheduler(world)
    road.certonly(world, "--cert-name", f"{road.NAME}-0001", "--duplicate")
    run = check(world)
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 1), run
    assert run.stdout.startswith(f"{road.NAME}: the site has the certificate {road.NAME}-0001, ")
    assert run.stdout.endswith("[CERT-SHARED]\n")
    command = run.stdout.split("`")[1]
    assert command == f"certbot delete --cert-name {road.NAME}"
    world.certbot(*command.split()[1:])
    for _ in range(2):  # what is left over, then the challenge location, which was written for the first of the two
        left = check(world)
        assert len(left.stdout.splitlines()) == 1, left
        world.seafile(*left.stdout.split("`")[1].split()[1:], check=False)
    assert check(world).stdout == "All is well.\n"
    assert road.served_is_lineage(world, f"{road.NAME}-0001")


def test_the_renewal_file_lacks_installer_and_hook(issued: World) -> None:
    """RENEWAL-NO-INSTALLER, RENEWAL-NO-HOOK: Both are named; deploy puts them back and keeps the person's own hook."""
    renewal = f"/etc/letsencrypt/renewal/{road.NAME}.conf"
    replace(issued, renewal, road.renewal(issued)["renew_hook"], "true")
    replace(issued, renewal, "installer = seafile", "installer = None")
    run = check(issued)
    assert run.exit_code == 1
    assert "does not name the installer seafile" in run.stdout
    assert "has no deploy hook of certbot-seafile" in run.stdout
    issued.seafile("deploy", "--cert-name", road.NAME)
    assert check(issued).exit_code == 0
    assert road.renewal(issued)["renew_hook"].strip('"').endswith("; true")


def test_staple_missing(issued: World) -> None:
    """STAPLE-MISSING: Where somebody removed it, refresh is named."""
    road.response_path(issued).unlink()
    (issued.staple_dir / f"{road.NAME}.conf").unlink()
    run = check(issued)
    assert run.exit_code == 1
    assert "there is no staple" in run.stdout
    assert f"certbot-seafile refresh --cert-name {road.NAME}" in run.stdout


def test_staple_of_another_certificate(issued: World) -> None:
    """A stored response for another serial number is no staple."""
    issued.set_responder(fault="wrong-serial")
    road.response_path(issued).write_bytes(road.ask_responder(issued))
    assert "serial number" in check(issued).stdout


def test_staple_stale(issued: World) -> None:
    """A staple that nobody refreshed for days, and one whose end is near, are told apart.

    STAPLE-NOT-REFRESHED, STAPLE-STALE.
    """
    assert "was last refreshed on" in check(issued, hours=60).stdout
    assert "the staple is stale: it ends on" in check(issued, hours=80).stdout


def test_staple_served_is_not_the_stored_one(issued: World) -> None:
    """STAPLE-NOT-SERVED: nginx that was not reloaded serves an old staple; reloading is named."""
    issued.set_responder(this_update_offset_hours=-1)
    road.response_path(issued).write_bytes(road.ask_responder(issued))
    assert f"reload nginx with `{issued.nginx_ctl} -s reload`" in the_fault(issued)


def test_the_include_is_gone(issued: World) -> None:
    """The server block is named by file and line, with the line that it lacks."""
    site = issued.sites / road.SITE_NAME
    site.write_bytes(b"".join(line for line in road.site_bytes(issued).splitlines(True) if b"OCSP" not in line))
    issued.reload_nginx()
    said = the_fault(issued)
    assert f"{site}:" in said
    assert f"include {issued.staple_dir}/{road.NAME}[.]conf;" in said


def test_the_hooks_program_is_gone(issued: World) -> None:
    """RENEWAL-HOOK-GONE: A hook that names a removed virtual environment is noticed."""
    hook = road.renewal(issued)["renew_hook"]
    replace(issued, f"/etc/letsencrypt/renewal/{road.NAME}.conf", hook, "/opt/gone/bin/certbot-seafile deploy")
    assert "runs /opt/gone/bin/certbot-seafile, which is not there" in the_fault(issued)


def test_nobody_runs_renew(issued: World) -> None:
    """SCHEDULE-NONE: Without a timer or crontab, and with a weekly one, the way to one is named."""
    issued.path("/etc/cron.d/certbot").unlink()
    assert "no timer and no crontab runs `certbot renew`" in the_fault(issued)
    issued.path("/etc/crontab").write_text("1 2 * * 0 root certbot -q renew\n")
    assert "less than once a day" in the_fault(issued)


def test_a_host_is_judged_by_the_last_run(issued: World) -> None:
    """An idle `certbot renew` is remembered: healthy for two days without any crontab, sick afterwards."""
    issued.certbot("renew")
    issued.path("/etc/cron.d/certbot").unlink()
    assert check(issued).stdout == "All is well.\n"
    assert "and none came by since" in check(issued, hours=49).stdout


def test_a_crontab_that_nobody_reads(issued: World) -> None:
    """Without cron it is a note, since there are more crons than are known: exit 0, and the crontab is named."""
    issued.path("/usr/sbin/cron").unlink()
    run = check(issued)
    road.give_scheduler(issued)
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 1), run
    assert f"{issued.path('/etc/cron.d/certbot')}:1 runs `certbot renew`, but no cron was found" in run.stdout


def test_port_80_is_not_reachable(issued: World) -> None:
    """CHALLENGE-NO-ANSWER, SITE-NO-TLS: Where nginx does not run, both ports are named."""
    issued.stop_nginx()
    said = check(issued).stdout
    issued.start_nginx()
    assert f"port {issued.http_port} is not reachable" in said
    assert "clients get no certificate" in said


def test_the_challenge_location_is_shadowed(issued: World) -> None:
    """A rule that answers for every path is named, also where it stands beyond what the lines tell.

    CHALLENGE-SHADOWED.
    """
    site = road.site_bytes(issued)
    (issued.sites / road.SITE_NAME).write_bytes(site.replace(b"location ^~ /.well-known/", b"location ^~ /unknown/", 1))
    issued.reload_nginx()
    assert "the challenge location of the server block at" in the_fault(issued)
    (issued.sites / road.SITE_NAME).write_bytes(site.replace(b"default_type text/plain;", b"return 403;", 1))
    issued.reload_nginx()
    assert "the challenge location" in the_fault(issued)


@pytest.mark.parametrize(
    "rule",
    [b"error_page 404 =200 /index.html;", b"error_page 404 = @x; location @x { return 302 /; }", b"gzip_static on;"],
)
def test_what_is_answered_for_files_that_are_not_there_is_no_matter(issued: World, rule: bytes) -> None:
    """The challenge is judged by a file that is written and fetched; it is gone afterwards."""
    site = road.site_bytes(issued)
    (issued.sites / road.SITE_NAME).write_bytes(site.replace(b"server_tokens off;", b"server_tokens off;\n" + rule, 1))
    issued.reload_nginx()
    assert check(issued).stdout == "All is well.\n"
    assert not [path for path in issued.webroot.rglob("*") if path.is_file()]


def test_a_folder_that_answers_challenges_but_takes_none(issued: World) -> None:
    """CHALLENGE-NOT-WRITTEN: Where root cannot write the validation file, the CA would not get it either."""
    issued.webroot.mkdir(parents=True, exist_ok=True)
    (issued.webroot / ".well-known").write_text("")
    fault = the_fault(issued)
    (issued.webroot / ".well-known").unlink()
    assert "the validation file" in fault
    assert "cannot be written" in fault


OTHER_SITE = b"""\
server {
    listen 127.0.0.1:%d ssl;
    server_name files.seafile.com cloud.seafile.com;
    ssl_certificate %s/fullchain.pem;
    ssl_certificate_key %s/privkey.pem;
}
"""


def test_another_server_block_uses_the_certificate_for_names_that_it_is_not_for(issued: World) -> None:
    """Wherever the block stands, it is named with its names: its clients are handed a certificate for somebody else.

    CERT-OTHER-NAMES.
    """
    live = bytes(issued.lineage(road.NAME))
    other = issued.write_site("other.conf", OTHER_SITE % (issued.other_https_port, live, live))
    issued.reload_nginx()
    fault = the_fault(issued)
    other.unlink()
    assert f"the server block at {other}:1 uses this certificate for files.seafile.com, cloud.seafile.com" in fault


def test_staples_that_are_too_short_are_told_once_and_are_no_fault(issued: World) -> None:
    """STAPLE-SHORT: A note names the command that ends the tries; after that, all is well."""
    issued.set_responder(validity_hours=12)
    road.response_path(issued).unlink()
    (issued.staple_dir / f"{road.NAME}.conf").unlink()
    issued.reload_nginx()
    run = check(issued)
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 1), run
    assert "the CA's staples hold for 12 h only" in run.stdout
    command = run.stdout.split("`")[3]
    assert command == f"certbot install -i seafile --cert-name {road.NAME} --seafile-stapling off"
    issued.certbot(*command.split()[1:])
    assert check(issued).stdout == "All is well.\n"


@pytest.mark.long
def test_short_staples_of_a_certificate_that_demands_one(world: World) -> None:
    """They are served, so that the note names what keeps them fresh."""
    world.start_pebble(must_staple=True)
    world.start_responder(validity_hours=12)
    world.start_seafile()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    road.certonly(world, "--must-staple")
    road.give_scheduler(world)
    run = check(world)
    assert (run.exit_code, len(run.stdout.splitlines())) == (0, 1), run
    assert "let a timer run `certbot-seafile refresh` every hour" in run.stdout


@pytest.mark.long
def test_the_way_back_of_a_lost_key_leads_there(world: World) -> None:
    """The commands that check names, one after the other, end with a new certificate that is served."""
    road.start(world)
    road.certonly(world)
    road.give_scheduler(world)
    (world.lineage(road.NAME) / "privkey.pem").resolve().unlink()
    run = check(world)
    assert run.exit_code == 1
    first = run.stdout.splitlines()[0]
    undo, delete, again = (words for words in first.split("`") if words.startswith("certbot"))
    world.seafile(*undo.split()[1:])
    world.certbot(*delete.split()[1:])
    world.certbot(*again.split()[1:], *world.plugin_options)
    assert road.served_is_lineage(world)
    assert check(world).stdout == "All is well.\n"


def test_check_and_status_leave_nothing_behind(issued: World) -> None:
    """Also where nothing of ours is there yet: no backups, no folder of ours, no validation file."""
    shutil.rmtree(issued.config_dir / "seafile")
    shutil.rmtree(issued.work_dir, ignore_errors=True)
    folders = issued.path("/etc"), issued.path("/var/lib"), issued.path("/var/www")
    before = [snapshot(folder) for folder in folders]
    assert check(issued).exit_code == 0
    issued.seafile("status")
    issued.seafile("status", "--json")
    assert [snapshot(folder) for folder in folders] == before


@pytest.mark.parametrize("hours", [-48, -0.2])
def test_the_clock_is_behind(issued: World, hours: float) -> None:
    """CLOCK-WRONG: A clock from before the certificate, or from before the files were written, is named first."""
    first = check(issued, hours=hours).stdout.splitlines()[0]
    assert "the clock of this machine is wrong" in first
    assert "timedatectl" in first


def test_the_certificate_was_not_renewed(issued: World) -> None:
    """CERT-NOT-RENEWED, CERT-EXPIRED: Near its end, and behind it, the certificate itself is what is wrong."""
    begin, end = validity(issued.leaf(road.NAME))
    hours = (end - begin).total_seconds() / 3600
    assert "and was not renewed" in check(issued, hours=hours - 24 * 20).stdout
    assert "the certificate expired on" in check(issued, hours=hours + 1).stdout


SETTINGS = {
    "seahub_settings.py": "SERVICE_URL = 'http://home.seafile.com'\nFILE_SERVER_ROOT = 'http://192.168.1.2/seafhttp'\n",
    ".env": "SEAFILE_SERVER_PROTOCOL=http\n",
}


@pytest.mark.parametrize("name", SETTINGS)
def test_seafile_still_says_http(issued: World, name: str) -> None:
    """Seafile's settings are found through the site's root; each setting is named with its line."""
    conf = issued.path("/opt/seafile/conf")
    conf.mkdir(parents=True, exist_ok=True)
    (conf / name).write_text(SETTINGS[name])
    run = check(issued)
    (conf / name).unlink()
    lines = SETTINGS[name].splitlines()
    assert run.exit_code == 1
    for number, (said, line) in enumerate(zip(run.stdout.splitlines(), lines, strict=True), 1):
        assert f"{conf / name}:{number}" in said
        assert line.split("=")[0].strip() in said


def test_nginx_refuses_its_configuration(issued: World) -> None:
    """NGINX-REFUSES: A broken file anywhere is quoted from nginx."""
    issued.path("/etc/nginx/conf.d/broken.conf").write_text("nonsense on;\n")
    assert "nonsense" in check(issued).stdout


def test_status_is_a_table_of_one_line_a_lineage(issued: World) -> None:
    """A person reads the name, what is left of certificate and staple, and what is served, in 80 columns."""
    header, row = issued.seafile("status").stdout.splitlines()
    assert header.split() == ["CERTIFICATE", "EXPIRES", "RENEWAL", "LAST", "RENEW", "STAPLE", "SERVED"]
    assert row.split()[0] == road.NAME
    assert row.endswith(" 3 d     yes, stapled")
    assert len(row) <= 80


STATUS_SHAPE = {
    "name": str, "names": list, "expires": str, "seconds_left": int, "begins": str, "renewal_due": str,
    "ca_asked_from": type(None), "last_run": type(None), "last_failure": type(None), "serial": str, "sha256": str,
    "key_type": str, "ocsp_url": str, "must_staple": bool, "stapling": str, "staple": dict, "served": dict,
    "served_until": str, "revoked": type(None), "pinned": type(None), "sealed": bool, "next_action": str,
}  # fmt: skip


def test_status_as_json_keeps_its_schema(issued: World) -> None:
    """Schema 1 has these keys of these types, and says what is so."""
    said = json.loads(issued.seafile("status", "--json").stdout)
    (one,) = said["lineages"]
    assert (said["schema"], said["damaged"]) == (1, [])
    assert {key: type(value) for key, value in one.items()} == STATUS_SHAPE
    assert set(one["staple"]) == {"this_update", "next_update", "end", "due", "seconds_left"}
    assert one["served"] == {"current": True, "stapled": True, "stored_staple": True, "failure": None}
    assert int(one["serial"], 16) == issued.leaf(road.NAME).serial_number


def test_status_goes_on_past_a_damaged_lineage(issued: World) -> None:
    """CERT-NOT-CHECKED: One that cannot be read is named below the others, and the exit code is 1."""
    renewal = issued.config_dir / "renewal"
    (renewal / "damaged.conf").write_text((renewal / f"{road.NAME}.conf").read_text())
    run = issued.seafile("status", check=False)
    assert run.exit_code == 1
    assert "yes, stapled" in run.stdout
    assert run.stdout.splitlines()[-1].startswith("damaged: ")
    assert "damaged: " in check(issued).stdout
