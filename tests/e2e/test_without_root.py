"""Renewals without root: an ordinary user runs certbot, root edited the site once, and root's step does the rest."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e import killing, road
from e2e.processes import find_tool
from e2e.renewer import SERVICE_UNIT, SOCKET_UNIT, USER, Renewer
from e2e.test_docs import blocks
from e2e.world import World, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which hands over to another uid; sudo make test")


@pytest.fixture
def issuing(world: World) -> Iterator[Renewer]:
    """Give a world where root got the certificate, and nothing is handed over yet."""
    with Renewer(world) as renewer:
        road.start(world)
        renewer.certbot_of_root("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
        assert road.staples_lineage(world)
        yield renewer


@pytest.fixture
def handed(issuing: Renewer) -> Renewer:
    """Give a world where the user renews from now on."""
    issuing.setup()
    return issuing


def roots_files(renewer: Renewer) -> dict[str, tuple[int, bytes]]:
    """Return all that is root's: nginx's folder, the settings, the record of edits."""
    folders = (renewer.world.server_root, renewer.state_dir, renewer.unit_dir)
    return {str(folder / path): fact for folder in folders for path, fact in snapshot(folder).items()}


@pytest.mark.long
def test_three_renewals_as_an_ordinary_user(handed: Renewer) -> None:
    """The new certificate and its own staple are served after each; site and owners stay as they are."""
    world, site = handed.world, road.site_bytes(handed.world)
    for _ in range(3):
        before = world.leaf(road.NAME)
        handed.certbot("renew", "--force-renewal")
        assert world.leaf(road.NAME) != before
        assert road.served_is_lineage(world)
        assert road.staples_lineage(world)
        assert world.gnutls(road.NAME).accepted
    assert road.site_bytes(world) == site
    assert handed.writable(world.server_root, handed.state_dir, handed.unit_dir, handed.settings) == []


def test_staples_are_refreshed_by_the_user(handed: Renewer) -> None:
    """A staple past half of its window is fetched by the user's `renew` and served by root's step, a fresh one not."""
    world = handed.world
    asked, reloads = road.ocsp_requests(world), world.reloads()
    handed.certbot("renew")
    assert (road.ocsp_requests(world), world.reloads()) == (asked, reloads)
    for hours in (97, 98, 99):
        world.set_responder(validity_hours=hours)  # else a response of the same second is the same response
        before = world.handshake(road.NAME).staple
        handed.certbot("renew", env=road.clock(world, hours=50))
        assert world.handshake(road.NAME).staple not in (before, None)
        assert road.staples_lineage(world)
        road.change_record(world, last_success=None)


def test_the_dry_run_changes_nothing_and_says_what_a_run_does(issuing: Renewer) -> None:
    """Each sentence of the dry run is one of the run; the second run has nothing to say."""
    world = issuing.world
    before = snapshot(world.folder / "etc")
    dry = issuing.setup("--dry-run")
    assert snapshot(world.folder / "etc") == before
    assert not issuing.state_dir.exists()
    run = issuing.setup()
    assert [line.removeprefix("would ") for line in dry.stdout.splitlines()] == run.stdout.splitlines()
    after = snapshot(world.folder / "etc")
    again = issuing.setup()
    assert again.stdout == f"All is set up: {USER} runs certbot, root does the rest.\n"
    assert snapshot(world.folder / "etc") == after


def test_undo_takes_all_of_it_back(world: World) -> None:
    """The site's bytes, the folders' owners, units, settings and the user that was made: all is as before."""
    site = road.start(world)
    user = f"certbot-test-{os.getpid()}"
    with Renewer(world, user) as renewer:
        renewer.certbot_of_root("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
        try:
            assert f"make the system user {user}" in renewer.setup().stdout
            assert pwd.getpwnam(user).pw_uid != 0
            renewer.certbot("renew", "--force-renewal")
            assert road.staples_lineage(world)
            run = renewer.seafile_of_root("undo")
            assert f"Taken back from {user}" in run.stdout
            assert [one for one in pwd.getpwall() if one.pw_name == user] == []
        finally:
            subprocess.run(["userdel", user], check=False, capture_output=True)
    assert road.site_bytes(world) == site
    assert list(world.staple_dir.iterdir()) == []
    assert not renewer.settings.exists()
    assert not renewer.state_dir.exists()
    assert list(renewer.unit_dir.rglob("*.socket")) == list(renewer.unit_dir.rglob("*.service")) == []
    everything = [path for folder in (world.config_dir, world.work_dir, world.logs_dir, world.webroot)
                  for path in (folder, *folder.rglob("*")) if not path.is_symlink()]  # fmt: skip
    assert [path for path in everything if path.stat().st_uid != 0] == []
    world.certbot("renew", "--force-renewal")
    assert road.served_is_lineage(world)


def test_root_is_told_to_be_the_user(handed: Renewer) -> None:
    """certbot as root refuses in the user's folders, and says how to run it; what it left is handed over by setup."""
    road.give_scheduler(handed.world)
    assert handed.seafile("check", "--root", handed.world.folder).stdout == "All is well.\n"
    (handed.world.logs_dir / "letsencrypt.log").unlink()  # so that root's run makes it anew
    run = handed.certbot_of_root("renew", "--force-renewal", check=False)
    assert run.exit_code == 1
    assert f"sudo -u {USER} certbot" in run.output
    said = handed.seafile("check", "--root", handed.world.folder, check=False).stdout
    assert f"there are files of root's in {handed.world.logs_dir}" in said
    assert f"`sudo certbot-seafile setup --user {USER}`" in said
    handed.setup()
    assert handed.seafile("check", "--root", handed.world.folder).stdout == "All is well.\n"
    handed.certbot("renew", "--force-renewal")
    assert road.staples_lineage(handed.world)


def test_root_reads_status_as_the_user(handed: Renewer) -> None:
    """status, check and refresh as root drop to the user first: nothing that the user wrote is done as root."""
    world, planted = handed.world, handed.world.folder / "run" / "planted"
    conf = world.config_dir / "renewal" / f"{road.NAME}.conf"
    text = conf.read_text().replace("[renewalparams]", f"[renewalparams]\nseafile_reload_cmd = touch {planted}")
    handed.as_user("sh", "-c", 'printf %s "$1" > "$2"', "sh", text, conf)
    for command in (["status"], ["refresh", "--force"], ["deploy", "--cert-name", road.NAME], ["check"]):
        run = handed.seafile_of_root(*command, check=False)
        assert "Traceback" not in run.output
    handed.settle()
    assert not planted.exists()
    assert road.staples_lineage(world)
    assert handed.writable(world.server_root, handed.state_dir, handed.settings) == []


def test_the_user_can_write_nothing_that_nginx_or_root_reads(handed: Renewer) -> None:
    """Snippet, staple, site, settings, record and units cannot be written, replaced, removed or linked over."""
    world = handed.world
    before = roots_files(handed)
    targets = [world.staple_dir / f"{road.NAME}.conf", road.response_path(world), world.sites / road.SITE_NAME,
               handed.settings, world.nginx_conf, handed.unit_dir / SERVICE_UNIT, handed.state_dir]  # fmt: skip
    for target in targets:
        for attempt in ('echo x > "$1"', 'ln -sfn /etc/passwd "$1"', 'mv "$1" "$1.gone"', 'rm -rf "$1"',
                        'touch "$(dirname "$1")/planted"', 'ln "$1" "$2/hard"'):  # fmt: skip
            handed.as_user("sh", "-c", attempt, "sh", target, world.config_dir, check=False)
    assert roots_files(handed) == before
    assert road.staples_lineage(world)


# --- what a user who turned evil may leave behind ---------------------------------------------------------------------


def _link_to_secret(world: World, place: Path) -> None:
    place.unlink()
    place.symlink_to(world.folder / "secret")


def _fifo(world: World, place: Path) -> None:
    place.unlink()
    os.mkfifo(place)


def _huge(world: World, place: Path) -> None:
    with place.open("wb") as stream:
        stream.truncate(8 << 30)


def _folder(world: World, place: Path) -> None:
    place.unlink()
    place.mkdir()


def _link_above(world: World, place: Path) -> None:
    shutil.rmtree(place.parent)
    place.parent.symlink_to(world.staple_dir / place.parent.name)


def _whole_state_linked(world: World, place: Path) -> None:
    shutil.rmtree(place.parents[2])
    place.parents[2].symlink_to(world.server_root)


def _garbage(world: World, place: Path) -> None:
    place.write_bytes(b"ssl_engine evil;")


def _another_answer(world: World, place: Path) -> None:
    world.set_responder(fault="wrong-serial")
    place.write_bytes(road.ask_responder(world))


def _another_leaf(world: World, place: Path) -> None:
    live = world.lineage(road.NAME) / "cert.pem"
    live.unlink()
    live.symlink_to(world.folder / "secret")


def _fifo_for_leaf(world: World, place: Path) -> None:
    leaf = (world.lineage(road.NAME) / "cert.pem").resolve()
    leaf.unlink()
    os.mkfifo(leaf)


ATTACKS: list[Callable[[World, Path], None]] = [
    _link_to_secret, _fifo, _huge, _folder, _link_above, _whole_state_linked, _garbage, _another_answer, _another_leaf,
    _fifo_for_leaf,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__.strip("_"))
def test_what_the_user_plants_touches_nothing_of_roots(handed: Renewer, attack: Callable[[World, Path], None]) -> None:
    """Links, FIFOs, huge files and lies: root's step ends, gives nothing away, and keeps or withdraws the staple."""
    world, place = handed.world, handed.outbox / road.NAME / "ocsp.response"
    secret = world.folder / "secret"
    secret.write_text("the root's own secret\n")
    secret.chmod(0o600)
    before, kept = roots_files(handed), road.response_path(world).read_bytes()
    attack(world, place)
    for path in (place, place.parent):  # planted by root here, but as if by the user
        if path.exists() and not path.is_symlink():
            shutil.chown(path, USER)
    run = handed.settle(check=False)
    assert "Traceback" not in run.output
    assert "own secret" not in run.output
    after = roots_files(handed)
    gone = set(before) - set(after)
    staples = {str(world.staple_dir / road.NAME), str(road.response_path(world)),
               str(world.staple_dir / f"{road.NAME}.conf")}  # fmt: skip
    assert gone <= staples
    remembered = str(world.path("/var/lib/certbot-seafile/lineages"))  # root's own record of what it withdrew
    changed = {path: fact for path, fact in after.items() if before.get(path) != fact}
    assert {path for path in changed if not path.startswith(remembered)} == set()
    assert secret.read_text() == "the root's own secret\n"
    assert world.handshake(road.NAME).staple in (kept, None)
    world.run(world.nginx_ctl, "-t")


def test_a_foreign_renewed_lineage_is_refused(handed: Renewer) -> None:
    """RENEWED_LINEAGE outside the live folder fails for the user, and says nothing to root's step."""
    world, before = handed.world, roots_files(handed)
    for foreign in ("/etc", str(world.server_root), str(world.config_dir / "live" / "..")):
        run = handed.seafile("deploy", env={"RENEWED_LINEAGE": foreign}, check=False)
        assert run.exit_code == 1
        assert "RENEWED_LINEAGE" in run.stderr
        handed.settle(env={"RENEWED_LINEAGE": foreign})
    assert roots_files(handed) == before


def test_names_that_would_reach_into_nginxs_files_are_refused(handed: Renewer) -> None:
    """A lineage's file name with a line of nginx's in it never gets into root's files."""
    world = handed.world
    evil = "x\nload_module evil.so;\n"
    conf = world.config_dir / "renewal" / f"{road.NAME}.conf"
    handed.as_user("cp", conf, world.config_dir / "renewal" / f"{evil}.conf")
    before = roots_files(handed)
    run = handed.setup("--cert-name", evil, check=False)
    assert run.exit_code == 1
    assert "letters, digits" in run.stderr
    assert roots_files(handed) == before


@pytest.mark.skipif(find_tool("strace") is None, reason="strace kills at a system call of one's choice")
def test_roots_step_killed_at_every_change(handed: Renewer) -> None:
    """nginx starts from what each kill leaves, and the next run of the step serves certificate and staple."""
    world = handed.world
    handed.stop_step()
    handed.certbot("renew", "--force-renewal", check=False)
    handed.seafile("refresh", "--force", check=False)
    owned, kept = (world.server_root, handed.state_dir), world.folder / "kept"
    for folder in owned:
        shutil.copytree(folder, kept / folder.name, symlinks=True)

    def restore() -> None:
        for folder in owned:
            shutil.rmtree(folder)
            shutil.copytree(kept / folder.name, folder, symlinks=True)
        world.stop_nginx()
        world.start_nginx()

    restore()
    command = [*map(str, handed.step_command)]
    points = killing.trace(world, command, within=owned)
    assert len(points) >= 8
    for point in points:
        restore()
        killing.kill_at(world, command, point)
        world.run(world.nginx_ctl, "-t")
        assert handed.settle().stdout == "done\n", point
        assert road.served_is_lineage(world), point
        assert road.staples_lineage(world), point
        assert [path for folder in owned for path in folder.rglob(".*.certbot-seafile")] == []


# --- life goes on -----------------------------------------------------------------------------------------------------


def test_a_revoked_certificate_loses_its_staple(handed: Renewer) -> None:
    """The user hears "revoked", and root's step withdraws what it stored."""
    world = handed.world
    world.set_responder(fault="revoked")
    run = handed.seafile("refresh", "--force", check=False)
    assert run.exit_code == 1
    assert "revoked" in run.stderr
    assert world.handshake(road.NAME).staple is None
    assert not road.response_path(world).exists()
    assert road.served_is_lineage(world)


def test_without_the_step_the_renewal_says_what_to_look_at(handed: Renewer) -> None:
    """Nothing listens: the renewal is kept, the sentence names the unit, and the next renew serves it."""
    world = handed.world
    handed.stop_step()
    run = handed.certbot("renew", "--force-renewal", check=False)
    assert "systemctl status certbot-seafile.socket" in run.output
    assert not road.served_is_lineage(world)
    assert f"nobody listens at {handed.socket}" in handed.seafile("check", check=False).stdout
    handed.start_step()
    handed.certbot("renew")
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)


def test_where_cron_runs_the_step_the_renewal_does_not_wait(issuing: Renewer) -> None:
    """Without a socket the user's run ends well and says what is left; root's step serves it."""
    world = issuing.world
    issuing.setup(has_systemd=False)
    assert not issuing.unit_dir.exists()
    run = issuing.certbot("renew", "--force-renewal")
    assert "once root's step has run" in run.output
    assert not road.served_is_lineage(world)
    assert issuing.settle().stdout == "done\n"
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)


def test_a_new_name_takes_root_twice(handed: Renewer) -> None:
    """Root lets the new name's site answer challenges, the user gets the certificate, root lets the site use it."""
    world, name = handed.world, "second.seafile.com"
    second = road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name second.seafile.com;")
    world.write_site("second.conf", world.adapt(second))
    world.reload_nginx()
    words = ["certonly", "-a", "seafile", "-d", name, *world.plugin_options]
    refused = handed.certbot(*words, check=False)
    assert f"sudo certbot-seafile setup --user {USER}" in refused.output
    handed.setup("-d", name)
    issued = handed.certbot(*words)
    assert f"sudo certbot-seafile setup --user {USER}" in issued.output
    handed.setup("--cert-name", name)
    handed.seafile("refresh", "--cert-name", name, "--force")
    assert road.served_is_lineage(world, name)
    assert road.staples_lineage(world, name)
    handed.certbot("renew", "--force-renewal", "--cert-name", name)
    assert road.served_is_lineage(world, name)
    assert road.staples_lineage(world, name)


def test_folders_that_were_a_users_already_are_not_trusted(issuing: Renewer) -> None:
    """Where the tutorial's user has certbot's folders, setup as root does nothing that stands there."""
    world, planted = issuing.world, issuing.world.folder / "run" / "planted"
    conf = world.config_dir / "renewal" / f"{road.NAME}.conf"
    evil = f"[renewalparams]\nseafile_reload_cmd = touch {planted}"
    conf.write_text(conf.read_text().replace("[renewalparams]", evil))
    for path in (world.config_dir, *world.config_dir.rglob("*")):
        if path != world.config_dir / "seafile" and world.config_dir / "seafile" not in path.parents:
            os.chown(path, pwd.getpwnam(USER).pw_uid, -1, follow_symlinks=False)
    issuing.setup()
    issuing.certbot("renew", "--force-renewal")
    issuing.seafile_of_root("refresh", "--force")
    assert road.served_is_lineage(world)
    assert road.staples_lineage(world)
    assert not planted.exists()


@pytest.mark.long
def test_a_host_without_ocsp_is_ready_for_a_ca_that_has_it(world: World) -> None:
    """Nothing is stapled, so there is no folder of staples: setup makes it, since the unit could not."""
    road.start(world, ocsp=False)
    with Renewer(world) as renewer:
        renewer.certbot_of_root("certonly", "-a", "seafile", "-d", road.NAME, *world.plugin_options)
        assert not world.staple_dir.exists()
        assert f"make the folder {world.staple_dir}" in renewer.setup().stdout
        assert world.staple_dir.is_dir()
        renewer.certbot("renew", "--force-renewal")
        assert road.served_is_lineage(world)
        road.restart_ca(world, ocsp=True)
        world.start_responder()
        renewer.setup()  # the new account, which root made
        renewed = renewer.certbot("renew", "--force-renewal")
        assert "must be edited, which daemon may not do" in renewed.output
        assert road.served_is_lineage(world)
        assert "has no line `include" in renewer.seafile("check", check=False).stdout
        renewer.setup()
        renewer.certbot("renew")
        assert road.staples_lineage(world)


def test_a_planted_record_of_edits_is_refused(issuing: Renewer) -> None:
    """undo writes what the record says, so one that another user could have written is not taken over."""
    world, records = issuing.world, issuing.world.config_dir / "seafile"
    shutil.chown(world.config_dir, USER)
    shutil.chown(records, USER)
    run = issuing.setup(check=False)
    assert run.exit_code == 1
    assert "not of the user who renews" in run.stderr
    assert not issuing.settings.exists()


def test_without_its_settings_root_trusts_nothing(handed: Renewer) -> None:
    """Where the settings are gone but the folders handed over, root's commands refuse, and setup mends it."""
    handed.settings.unlink()
    for command in ("status", "check", "undo", "refresh"):
        run = handed.seafile_of_root(command, check=False)
        assert run.exit_code == 1
        assert "was handed over to another user" in run.stderr
    handed.setup()
    handed.seafile_of_root("refresh", "--force")
    assert road.staples_lineage(handed.world)


@pytest.mark.long
def test_the_pages_commands_work_in_its_order(world: World) -> None:
    """Each command of docs/without-root.md exits 0, run by whom the page says, but for those that ask systemd."""
    site = road.start(world)
    second = road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name office.seafile.com;")
    world.write_site("office", world.adapt(second))
    world.reload_nginx()
    road.give_scheduler(world)
    lines = [line for kind, text in blocks("without-root.md") if kind == "console" for line in text.splitlines()]
    said = [line.removeprefix("$ ") for line in lines]
    with Renewer(world) as renewer:
        for command in said:
            run_of_page(renewer, command)
            if command == "sudo certbot-seafile undo":
                assert road.site_bytes(world) == site
        assert road.served_is_lineage(world)
    assert said.count("sudo certbot-seafile undo") == 1
    assert len([command for command in said if command.startswith("sudo ")]) > 8


def run_of_page(renewer: Renewer, command: str) -> None:
    """Run one command of the page with this world's paths and user."""
    world, words = renewer.world, shlex.split(command)
    if words[:4] == ["sudo", "-u", "certbot", "certbot"]:
        renewer.certbot(*words[4:], *(world.plugin_options if "certonly" in words else []))
    elif words[:2] == ["sudo", "certbot"]:
        renewer.certbot_of_root(*words[2:], *world.plugin_options)
    elif words[:3] == ["sudo", "certbot-seafile", "setup"]:
        assert words[3:5] == ["--user", "certbot"]
        renewer.setup(*words[5:])
    elif words[:2] == ["sudo", "certbot-seafile"]:
        renewer.seafile_of_root(*words[2:], *(["--root", str(world.folder)] if words[2] == "check" else []))
        if words[2] == "undo":
            renewer.stop_step()
    else:
        assert words[0] in ("systemctl", "journalctl"), command


@pytest.mark.parametrize(
    ("user", "sentence"), [("root", "root itself"), ("www-data", "would own the private keys")], ids=["root", "nginx"]
)
def test_users_that_undo_the_point_are_refused(issuing: Renewer, user: str, sentence: str) -> None:
    """Neither root nor the user of nginx's workers may renew, and nothing is changed."""
    world = issuing.world
    if user == "www-data":
        world.nginx_conf.write_text(world.nginx_conf.read_text().replace("user root;", "user www-data;"))
    issuing.user = user
    before = snapshot(world.folder / "etc")
    run = issuing.setup(check=False)
    assert run.exit_code == 1
    assert sentence in run.stderr
    assert snapshot(world.folder / "etc") == before


@pytest.mark.parametrize(
    "folder", ["etc/letsencrypt", "var/log/letsencrypt", "var/www/letsencrypt/.well-known/acme-challenge"]
)
def test_folders_that_are_links_are_refused(issuing: Renewer, folder: str) -> None:
    """Root would follow a link that is in the user's hands, or hand over nothing; it says so, and changes nothing."""
    world = issuing.world
    linked, elsewhere = world.folder / folder, world.folder / "elsewhere"
    linked.mkdir(parents=True, exist_ok=True)  # certbot removes that of the challenges after each use
    linked.rename(elsewhere)
    linked.symlink_to(elsewhere)
    before = snapshot(world.folder / "etc")
    run = issuing.setup(check=False)
    assert run.exit_code == 1
    assert run.stderr.startswith(f"certbot-seafile: {linked} is a link")
    assert snapshot(world.folder / "etc") == before
    assert not issuing.state_dir.exists()
    assert {path.lstat().st_uid for path in (linked, elsewhere, *elsewhere.rglob("*"))} == {0}


def test_must_staple_stays_roots(world: World) -> None:
    """A must-staple lineage is not handed over, and the user cannot ask for one; each is told why."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    with Renewer(world) as renewer:
        renewer.certbot_of_root("certonly", "-a", "seafile", "-d", road.NAME, "--must-staple", *world.plugin_options)
        run = renewer.setup(check=False)
        assert run.exit_code == 1
        assert "must-staple" in run.stderr
        assert not renewer.settings.exists()


def test_systemd_accepts_the_units(handed: Renewer) -> None:
    """systemd-analyze finds nothing to say about socket, service and drop-in; certbot.service gets the user."""
    handed.unit_dir.joinpath("certbot.service").write_text("[Service]\nType=oneshot\nExecStart=/bin/true\n")
    handed.setup()
    drop_in = handed.unit("certbot.service.d/certbot-seafile.conf")["Service"]
    assert drop_in["User"] == USER
    for folder in (handed.world.config_dir, handed.world.work_dir, handed.world.logs_dir, handed.world.webroot):
        assert str(folder) in drop_in["ReadWritePaths"]
    assert str(handed.world.staple_dir) not in drop_in["ReadWritePaths"]
    units = [handed.unit_dir / name for name in (SOCKET_UNIT, "certbot.service")]
    instance = handed.unit_dir / SERVICE_UNIT.replace("@", "@1")
    shutil.copy(handed.unit_dir / SERVICE_UNIT, instance)
    run = handed.world.run("systemd-analyze", "verify", "--man=no", *units, instance)
    assert run.output == ""
