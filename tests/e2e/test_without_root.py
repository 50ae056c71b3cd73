"""Renewals without root: an ordinary user runs certbot, root's step serves what it hands over."""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import authority
import lineages
from e2e import road
from e2e.minted import issuer
from e2e.renewer import RENEW, UNITS, Renewer, facts
from e2e.test_docs import blocks
from e2e.world import Run, World

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which makes an ordinary user; sudo make test")


@pytest.fixture
def renewer(world: World) -> Iterator[Renewer]:
    """Give a world with the tutorial's site, in which nothing is set up yet."""
    road.start(world)
    with Renewer(world) as made:
        yield made


@pytest.fixture
def issued(renewer: Renewer) -> Renewer:
    """Give a world in which the user's certificate is served."""
    renewer.setup()
    renewer.certonly()
    assert renewer.is_served()
    return renewer


def renew(renewer: Renewer, *, check: bool = True) -> Run:
    """Get the next certificate, although the last one was loaded less than a minute ago."""
    renewer.forget_reload()
    return renewer.certbot("renew", "--force-renewal", check=check)


def check(renewer: Renewer) -> str:
    """Return what `check` as root says, on a machine where systemd runs the timers that were written."""
    wants = renewer.unit_dir / "timers.target.wants"
    if renewer.unit_dir.exists() and not wants.exists():
        wants.mkdir()
        (wants / f"{RENEW}.timer").symlink_to(f"../{RENEW}.timer")
        renewer.world.path("/run/systemd/system").mkdir(parents=True)
    return renewer.seafile("check", "--root", renewer.world.folder, check=False).stdout


# --- the road ---------------------------------------------------------------------------------------------------------


@pytest.mark.certbot
def test_a_certificate_and_its_renewals_are_served(issued: Renewer) -> None:
    """Root's step edits the site for the first certificate, and nothing but its snippet for the next ones."""
    world, site = issued.world, road.site_bytes(issued.world)
    assert world.gnutls(road.NAME).accepted
    assert check(issued) == "All is well.\n"
    before = issued.leaf()
    renew(issued)
    assert issued.leaf() != before
    assert issued.is_served()
    assert road.site_bytes(world) == site
    assert len(road.versions(world)) == 2
    assert "yes, stapled" in issued.seafile("status").stdout
    assert check(issued) == "All is well.\n"


@pytest.mark.long
def test_nothing_is_done_where_nothing_is_due(issued: Renewer) -> None:
    """The renewal service's own command leaves handover file, responder and nginx alone."""
    world = issued.world
    before, asked, reloads = facts(issued.handover), road.ocsp_requests(world), world.reloads()
    issued.renew_by_unit()
    assert (facts(issued.handover), road.ocsp_requests(world)) == (before, asked)
    calls = len(world.nginx_calls())
    issued.apply()
    assert world.reloads() == reloads
    assert [call for call in world.nginx_calls()[calls:] if "-t" in call.split()] == []


@pytest.mark.long
def test_a_staple_that_is_due_goes_the_same_way(issued: Renewer) -> None:
    """`renew` with no certificate due leaves a new staple in the handover file, and root's step serves it."""
    world = issued.world
    before, leaf = world.handshake(road.NAME).staple, issued.leaf()
    world.set_responder(validity_hours=97)  # else a response of the same second is the same response
    issued.stop_path_unit()
    issued.certbot("renew", env=road.clock(world, hours=50))
    issued.apply()
    assert world.handshake(road.NAME).staple not in (before, None)
    assert (issued.is_served(), issued.leaf()) == (True, leaf)


@pytest.mark.long
def test_without_a_responder_the_renewal_is_served_unstapled(issued: Renewer) -> None:
    """A certificate that need not be stapled does not wait; the next `renew` brings its staple."""
    world = issued.world
    world.stop_responder()
    renew(issued)
    assert world.handshake(road.NAME).certificate == issued.leaf()
    assert world.handshake(road.NAME).staple is None
    assert "there is no good staple" in check(issued)
    world.start_responder()
    issued.stop_path_unit()
    issued.certbot("renew")
    issued.apply()
    assert issued.is_served()


@pytest.mark.long
def test_a_revoked_certificate_loses_its_staple(issued: Renewer) -> None:
    """The user hears "revoked", and the staple is withdrawn from what nginx reads."""
    world = issued.world
    world.set_responder(fault="revoked")
    issued.stop_path_unit()
    run = issued.seafile_of_user("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert "revoked" in run.output
    issued.apply(check=False)
    assert world.handshake(road.NAME).certificate == issued.leaf()
    assert world.handshake(road.NAME).staple is None


@pytest.mark.long
def test_must_staple_is_never_served_without_its_staple(world: World) -> None:
    """Without a responder, the set before stays in the handover file; with one, the new set follows."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    with Renewer(world) as renewer:
        renewer.setup()
        renewer.certonly("--must-staple")
        assert renewer.is_served()
        assert world.gnutls(road.NAME).accepted
        renew(renewer)
        assert renewer.is_served()
        site, served = road.site_bytes(world), world.handshake(road.NAME).certificate
        world.set_responder(fault="try-later")
        run = renew(renewer, check=False)
        assert "the old certificate stays" in run.output
        assert world.handshake(road.NAME).certificate == served != renewer.leaf()
        assert world.gnutls(road.NAME).accepted
        world.set_responder(validity_hours=97)
        renewer.forget_reload()
        renewer.certbot("renew")
        assert renewer.is_served()
        assert world.gnutls(road.NAME).accepted
        assert road.site_bytes(world) == site


@pytest.mark.long
def test_a_second_certificate_takes_a_setup_of_its_own(issued: Renewer) -> None:
    """Without it root's step would not know the name; with it both are served and renewed."""
    world, name = issued.world, "second.seafile.com"
    second = road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name second.seafile.com;")
    world.write_site("second.conf", world.adapt(second))
    world.reload_nginx()
    issued.setup(name=name)
    issued.forget_reload()
    issued.certbot("certonly", "-a", "seafile", "-d", name)
    assert issued.is_served(name)
    assert issued.is_served()
    assert check(issued) == "All is well.\n"


@pytest.mark.long
def test_without_root_step_the_renewal_says_what_to_look_at(issued: Renewer) -> None:
    """Nobody applies: the new certificate is kept, the sentence names the unit, and the next step serves it."""
    issued.stop_path_unit()
    run = renew(issued, check=False)
    assert "systemctl status certbot-seafile-apply.path" in run.output
    assert issued.world.handshake(road.NAME).certificate != issued.leaf()
    issued.apply()
    assert issued.is_served()


# --- setup and its inverse --------------------------------------------------------------------------------------------


def test_the_dry_run_changes_nothing_and_says_what_a_run_does(renewer: Renewer) -> None:
    """Each sentence of the dry run is a sentence of the run; the second run has nothing to say and changes nothing."""
    world = renewer.world
    before = facts(world.folder, without=[world.nginx_calls_log])
    dry = renewer.setup("--dry-run")
    assert facts(world.folder, without=[world.nginx_calls_log]) == before
    assert [entry for entry in pwd.getpwall() if entry.pw_name == renewer.user] == []
    run = renewer.setup()
    assert [line.removeprefix("would ") for line in dry.stdout.splitlines()] == run.stdout.splitlines()
    places = [world.path("/etc"), world.path("/var/lib"), world.path("/var/www")]
    logs = renewer.home / "logs"  # of the trial of certbot
    after = [facts(place, without=[logs]) for place in places]
    assert renewer.setup().stdout == "All is set up.\n"
    assert [facts(place, without=[logs]) for place in places] == after


@pytest.mark.long
def test_roots_own_is_untouched_and_undo_leaves_it_so(world: World) -> None:
    """Setup, issue, renewal and undo: every owner, mode and byte below /etc that is not ours is what it was."""
    site = road.start(world)
    other = {"authenticator": "webroot", "installer": "None"}
    lineages.make(world.config_dir, "mail.example.com", authority.make_leaf(issuer()), issuer(), other)
    with Renewer(world) as renewer:
        renewer.unit_dir.mkdir(parents=True)
        before = facts(world.path("/etc"))
        renewer.setup()
        renewer.certonly()
        renew(renewer)
        assert renewer.is_served()
        own = [world.sites / road.SITE_NAME, world.staple_dir, world.config_dir / "seafile", renewer.settings]
        own += [renewer.unit_dir / name for name in UNITS]
        now = facts(world.path("/etc"), without=own)
        assert now == {path: fact for path, fact in before.items() if path in now}
        assert set(before) - set(now) == {str(world.sites / road.SITE_NAME)}
        key = (renewer.home / "config" / "live" / road.NAME / "privkey.pem").read_bytes()
        run = renewer.seafile("undo")
        assert f"{renewer.home} stays" in run.stdout
        assert facts(world.path("/etc")) == before
        assert road.site_bytes(world) == site
        assert not renewer.challenges.exists()
        outside = facts(world.folder, without=[renewer.home])
        assert [path for path, (_, _, _, content) in outside.items() if key.splitlines()[1] in content] == []


def test_undo_before_the_first_certificate_removes_the_user_too(renewer: Renewer) -> None:
    """Where the user holds nothing, home and user go; a challenge folder that was there goes back to its owner."""
    world = renewer.world
    renewer.challenges.mkdir(parents=True)
    shutil.chown(renewer.challenges, "daemon", "daemon")
    before = facts(world.path("/var/www")), facts(world.path("/etc"))
    renewer.setup()
    assert facts(world.path("/var/www")) != before[0]
    renewer.seafile("undo")
    renewer.stop_path_unit()
    assert [entry for entry in pwd.getpwall() if entry.pw_name == renewer.user] == []
    assert not renewer.home.exists()
    for path in (renewer.unit_dir, renewer.unit_dir.parent):
        path.rmdir()
    assert (facts(world.path("/var/www")), facts(world.path("/etc"))) == before


@pytest.mark.long
def test_a_certificate_of_roots_stays_roots_until_the_users_is_served(renewer: Renewer) -> None:
    """Setup names it and leaves it alone; undo afterwards gives the site back as it was without either."""
    world, site = renewer.world, road.site_bytes(renewer.world)
    renewer.certbot_of_root("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
    before = facts(world.config_dir, without=[world.config_dir / "seafile"])
    run = renewer.setup()
    assert f"The certificate {road.NAME} in {world.config_dir} is for these names too" in run.stdout
    assert road.staples_lineage(world)
    renewer.forget_reload()
    renewer.certonly()
    assert renewer.is_served()
    assert facts(world.config_dir, without=[world.config_dir / "seafile"]) == before
    renewer.certbot_of_root("delete", "--cert-name", road.NAME)
    renew(renewer)
    assert renewer.is_served()
    renewer.seafile("undo")
    assert road.site_bytes(world) == site


@pytest.mark.long
def test_crons_lines_do_the_same_without_systemd(renewer: Renewer) -> None:
    """Setup tells the lines for cron, which run certbot as the user and root's step."""
    run = renewer.setup(has_systemd=False)
    assert not renewer.unit_dir.exists()
    _, _, lines = run.stdout.partition("/etc/cron.d/certbot-seafile:\n")
    crontab = renewer.world.path("/etc/cron.d/certbot-seafile")
    for path, text in ((crontab, lines), (renewer.world.path("/usr/sbin/cron"), "")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
    (_, renewing), (_, applying) = jobs = re.findall(r"^\S+ \S+ \* \* \*  (\S+)  (.+)$", lines, re.MULTILINE)
    assert [user for user, _ in jobs] == [renewer.user, "root"]
    with ThreadPoolExecutor() as pool:
        issuing = pool.submit(renewer.certonly)
        while not issuing.done() and not (renewer.handover / f"{road.NAME}.pem").exists():
            time.sleep(0.1)
        renewer.world.run("sh", "-c", applying)
        issuing.result()
    assert renewer.is_served()
    renewer.as_user("sh", "-c", f"{renewing} --no-random-sleep-on-renew")
    assert check(renewer) == "All is well.\n"


@pytest.mark.parametrize(
    ("user", "sentence"),
    [("root", "root itself"), ("www-data", "would own the private keys"), ("daemon", "the home of daemon is ")],
)
def test_users_that_undo_the_point_are_refused(renewer: Renewer, user: str, sentence: str) -> None:
    """Neither root, nor nginx's workers' user, nor one whose home is elsewhere may renew; nothing is changed."""
    world = renewer.world
    if user == "www-data":
        world.nginx_conf.write_text(world.nginx_conf.read_text().replace("user root;", "user www-data;"))
    before = facts(world.folder, without=[world.nginx_calls_log])
    run = renewer.setup("--user", user, check=False)
    assert run.exit_code == 1
    assert sentence in run.stderr
    assert facts(world.folder, without=[world.nginx_calls_log]) == before


@pytest.mark.parametrize("place", ["var/lib/certbot", "var/www/letsencrypt/.well-known/acme-challenge"])
def test_folders_that_are_links_are_not_given_away(renewer: Renewer, place: str) -> None:
    """Root would give the user a folder that it does not know; it says so, and changes nothing."""
    world = renewer.world
    linked, elsewhere = world.folder / place, world.folder / "elsewhere"
    linked.parent.mkdir(parents=True, exist_ok=True)
    elsewhere.mkdir()
    linked.symlink_to(elsewhere)
    before = facts(world.folder, without=[world.nginx_calls_log])
    run = renewer.setup(check=False)
    assert run.exit_code == 1
    assert str(linked) in run.stderr
    assert facts(world.folder, without=[world.nginx_calls_log]) == before


@pytest.mark.long
def test_systemd_accepts_the_units(issued: Renewer) -> None:
    """systemd-analyze has nothing to say about them."""
    run = issued.world.run("systemd-analyze", "verify", "--man=no", *(issued.unit_dir / name for name in UNITS))
    assert run.output == ""
    written = issued.unit(f"{RENEW}.service")["Service"]["ReadWritePaths"]
    assert str(issued.home) in written
    assert str(issued.world.server_root) not in written


@pytest.mark.long
def test_the_pages_commands_work_in_its_order(renewer: Renewer) -> None:
    """Each command of docs/without-root.md exits 0, run by whom the page says, but for those that ask systemd."""
    world, site = renewer.world, road.site_bytes(renewer.world)
    second = road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name office.seafile.com;")
    world.write_site("office", world.adapt(second))
    world.reload_nginx()
    lines = [line for kind, text in blocks("without-root.md") if kind == "console" for line in text.splitlines()]
    commands = [line.removeprefix("$ ") for line in lines]
    for command in commands:
        run_of_page(renewer, command)
    assert road.site_bytes(world) == site
    assert len([command for command in commands if command.startswith("sudo ")]) > 8


def run_of_page(renewer: Renewer, command: str) -> None:
    """Run a command of the page with this world's paths and user."""
    words = shlex.split(command)
    if words[:4] == ["sudo", "-u", "certbot", "certbot"]:
        renewer.forget_reload()
        renewer.certbot(*words[4:])
    elif words[:5] == ["sudo", "certbot-seafile", "setup", "--user", "certbot"]:
        name = words.index("-d") + 1
        renewer.setup(*words[5 : name - 1], *words[name + 1 :], name=words[name])
    elif words == ["sudo", "certbot-seafile", "check"]:
        assert check(renewer) == "All is well.\n"
    elif words[:2] == ["sudo", "certbot-seafile"]:
        renewer.seafile(*words[2:])
    else:
        assert words[0] in ("systemctl", "journalctl", "systemd-analyze"), command
