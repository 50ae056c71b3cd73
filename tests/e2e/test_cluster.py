"""Several frontends: one machine renews, and each frontend serves what it is handed, and nothing else."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from certbot_seafile.sealed import apply, bundle
from certbot_seafile.sealed.settings import Entry, Settings
from certbot_seafile.site import plan
from certbot_seafile.system.lineages import Options
from e2e import cluster, road
from e2e.cluster import Cluster, Frontend, Machine, hand_over, mint, push, restaple
from e2e.minted import issuer
from e2e.processes import tool
from e2e.renewer import Renewer, facts
from e2e.road import NAME
from e2e.test_failures import fill

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which makes networks; sudo make test")

#: The file's owner on a frontend, which has no account there, as behind a share or an rsync.
STRANGER = 54321


@pytest.fixture
def frontend(tools: None) -> Iterator[Frontend]:
    """Give a frontend with the tutorial's site, on which nothing is set up, and to which nothing was handed over."""
    with contextlib.closing(Frontend(8)) as made:
        made.start()
        yield made


@pytest.fixture
def serving(frontend: Frontend) -> Frontend:
    """Give a frontend that serves the first set."""
    hand_over(mint(1), frontend.handed)
    frontend.setup()
    assert frontend.serves(mint(1))
    return frontend


@pytest.fixture
def machines(tools: None) -> Iterator[Cluster]:
    """Give three machines of one cluster, on which nothing is set up."""
    with cluster.cluster() as made:
        yield made


@pytest.fixture
def must_staple(tools: None) -> Iterator[Cluster]:
    """Give three machines of one cluster, whose CA makes must-staple certificates."""
    with cluster.cluster(must_staple=True) as made:
        yield made


def renew(renewing: Machine, *words: str, check: bool = True) -> None:
    """Let root on the renewing machine get the next certificate."""
    with renewing.inside():
        renewing.world.certbot("renew", "--force-renewal", *words, check=check)


def askers(machine: Machine) -> set[str]:
    """Return the addresses of other machines that asked this one's nginx for a validation file; some are waited for.

    nginx writes the line when the answer has gone.
    """
    deadline = time.monotonic() + 5
    while True:
        lines = machine.world.path("/var/log/nginx/access.log").read_text().splitlines()
        asked = {line.split()[0] for line in lines if plan.CHALLENGE_PATH in line} - {"127.0.0.1"}
        if asked or time.monotonic() > deadline:
            return asked
        time.sleep(0.02)


def nginx_starts(frontend: Frontend) -> bool:
    """Tell whether nginx, stopped and started from what is on disk, serves what it served."""
    before = frontend.look()
    with frontend.inside():
        frontend.world.stop_nginx()
        frontend.world.start_nginx()
    return frontend.look() == before


# --- three machines --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_what_root_renews_reaches_both_frontends(machines: Cluster) -> None:
    """By a shared folder and by rsync; the CA asks a frontend, which passes it on. Staples go the same way."""
    renewing, first, second = machines.renewing, machines.first, machines.second
    first.source = handover = renewing.world.path("/srv/handover")
    handover.mkdir(mode=0o700, parents=True)
    for frontend in (first, second):
        frontend.setup("--forward-challenges", f"http://{renewing.address}")
    with renewing.inside():
        renewing.world.set_address(NAME, first.address)
        road.certonly(renewing.world, "--seafile-handover", handover)
    assert (askers(renewing), askers(first)) == ({first.address}, {renewing.address})
    arrive(machines)
    sites = [road.site_bytes(frontend.world) for frontend in (first, second)]

    renew(renewing)
    arrive(machines)

    renewing.world.set_responder(validity_hours=97)
    with renewing.inside():
        renewing.world.seafile("refresh", "--force")
    arrive(machines)
    assert sites == [road.site_bytes(frontend.world) for frontend in (first, second)]
    for frontend in (first, second):
        assert frontend.gnutls(renewing.world.root).accepted


def arrive(machines: Cluster) -> None:
    """See that a set that was handed over just now is served by each machine, after one reload, and no other later."""
    first, second = machines.first, machines.second
    push(first.source, second.source)
    for frontend in (first, second):
        reloads = frontend.world.reloads()
        frontend.apply()
        assert frontend.serves(first.handed.read_bytes())
        assert frontend.look() == machines.renewing.look()
        frontend.apply()
        assert frontend.world.reloads() == reloads + 1


@pytest.mark.long
def test_what_a_user_renews_passes_root_squash(tools: None) -> None:
    """A file of a uid without an account, mode 0600, which the frontend's root cannot read itself."""
    with cluster.cluster(is_squashed=True) as machines, machines.renewing.inside():
        renewing, first, second = machines.renewing, machines.first, machines.second
        os.chown(second.source, STRANGER, STRANGER)
        with Renewer(renewing.world) as renewer:
            renewer.setup()
            first.source = first.world.path("/mnt/certs")
            with cluster.shared(renewer.handover, first.source):
                for frontend in (first, second):
                    frontend.setup("--forward-challenges", f"http://{renewing.address}")
                run = first.world.run(*first.prefix, tool("ls"), first.source, check=False)
                assert "Permission denied" in run.stderr
                renewing.world.set_address(NAME, second.address)
                for _ in range(2):
                    renewer.forget_reload()
                    renewer.certonly("--force-renewal")
                    content = first.handed.read_bytes()
                    push(renewer.handover, second.source, STRANGER)
                    for frontend in (first, second):
                        frontend.apply()
                        assert frontend.serves(content)
                        assert frontend.look() == renewing.look()
                assert askers(renewing) == {second.address}
                for frontend in (first, second):
                    assert frontend.handed.stat().st_uid != 0
                    frontend.seafile("undo")
            assert cluster.keys_left(first.world.folder, content) == []


@pytest.mark.long
def test_must_staple_is_never_served_unstapled_by_a_frontend(must_staple: Cluster) -> None:
    """Whoever reloads nginx at any time; with the responder down, the set before stays, and stays stapled."""
    renewing, frontend = must_staple.renewing, must_staple.first
    root, refusals, is_over = renewing.world.root, [], threading.Event()
    frontend.source = renewing.world.path("/srv/handover")
    with renewing.inside():
        road.certonly(renewing.world, "--must-staple", "--seafile-handover", frontend.source)
    frontend.setup()
    assert frontend.gnutls(root).accepted
    site = road.site_bytes(frontend.world)

    def reload_and_look() -> None:
        while not is_over.is_set():
            with frontend.inside():
                frontend.world.run(tool("nginx"), "-c", frontend.world.nginx_conf, "-s", "reload")
            verdict = frontend.gnutls(root)
            if not verdict.accepted:
                refusals.append(verdict.text)

    with ThreadPoolExecutor(1) as pool:
        reloading = pool.submit(reload_and_look)
        for _ in range(3):
            renew(renewing)
            frontend.apply()
            assert frontend.serves(frontend.handed.read_bytes())
        renewing.world.set_responder(fault="try-later")
        renew(renewing, check=False)
        frontend.apply()
        assert frontend.look().certificate != renewing.world.leaf(NAME)
        renewing.world.set_responder()
        renew(renewing)
        frontend.apply()
        is_over.set()
        reloading.result()
    assert refusals == []
    assert frontend.look().certificate == renewing.world.leaf(NAME)
    assert nginx_starts(frontend)
    assert road.site_bytes(frontend.world) == site


def test_two_frontends_that_point_at_each_other_end_a_challenge(machines: Cluster) -> None:
    """Each of them sees it once, and the CA gets an answer."""
    first, second = machines.first, machines.second
    first.setup("--forward-challenges", f"http://{second.address}")
    second.setup("--forward-challenges", f"http://{first.address}")
    with machines.renewing.inside():
        words = ["--silent", "--include", "--noproxy", "*", "--max-time", "10"]
        run = machines.renewing.world.run(
            tool("curl"), *words, "--connect-to", f"::{first.address}:80", f"http://{NAME}{plan.CHALLENGE_PATH}token"
        )
    assert run.stdout.startswith("HTTP/1.1 508")
    assert (askers(first), askers(second)) == ({machines.renewing.address}, {first.address})


# --- setup and its inverse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://seafile1.example.com", "nginx does not start while it cannot look up a name"),
        ("https://192.0.2.7", "give it as http://192.0.2.7"),
        ("http://192.0.2.7/path", "give it as http://192.0.2.7"),
        ("http://192.0.2.8", "is this machine's own address"),
        ("http://192.0.2.80", "is this machine's own address"),
        ("http://127.0.0.1", "is this machine's own address"),
        ("http://[::1]", "is this machine's own address"),
    ],
)
def test_what_challenges_cannot_be_passed_on_to_is_refused(frontend: Frontend, url: str, reason: str) -> None:
    """A name, another scheme, a path, this machine itself: the reason is said before anything is written."""
    frontend.make_switch()
    before = facts(frontend.world.folder, without=[frontend.world.nginx_calls_log])
    run = frontend.setup("--forward-challenges", url, check=False)
    assert run.exit_code == 1
    assert reason in run.stderr
    assert facts(frontend.world.folder, without=[frontend.world.nginx_calls_log]) == before


def test_a_folder_that_is_not_there_is_refused(frontend: Frontend) -> None:
    """As where a share is not mounted: nothing is written."""
    frontend.source = frontend.world.path("/mnt/certs")
    before = facts(frontend.world.folder, without=[frontend.world.nginx_calls_log])
    run = frontend.setup(check=False)
    assert run.exit_code == 1
    assert f"the folder {frontend.source} is not there; mount or make it" in run.stderr
    assert facts(frontend.world.folder, without=[frontend.world.nginx_calls_log]) == before


def test_the_dry_run_tells_what_setup_does_and_a_second_run_does_nothing(frontend: Frontend) -> None:
    """Nothing is changed by either; the owner of a folder that is still empty is who must own the file."""
    world = frontend.world
    forward = ["--forward-challenges", "http://192.0.2.7"]
    os.chown(frontend.source, STRANGER, STRANGER)
    before = facts(world.folder, without=[world.nginx_calls_log])
    dry = frontend.setup("--dry-run", *forward)
    assert facts(world.folder, without=[world.nginx_calls_log]) == before
    run = frontend.setup(*forward)
    assert [line.removeprefix("would ") for line in dry.stdout.splitlines()] == run.stdout.splitlines()
    after, reloads = facts(world.folder, without=[world.nginx_calls_log, world.path("/var/log")]), world.reloads()
    assert frontend.setup(*forward).stdout == "All is set up.\n"
    assert facts(world.folder, without=[world.nginx_calls_log, world.path("/var/log")]) == after
    assert world.reloads() == reloads
    hand_over(mint(1), frontend.handed)
    assert f"put a file of the uid {STRANGER} itself there" in frontend.apply(check=False).stderr
    hand_over(mint(1), frontend.handed, STRANGER)
    frontend.apply()
    assert frontend.serves(mint(1))


def test_undo_leaves_no_key_on_a_frontend(frontend: Frontend) -> None:
    """The site is byte for byte what it was, and the key is in no file but the one that was handed over."""
    world = frontend.world
    before = facts(world.path("/etc"))
    contents = [mint(1), mint(2)]
    hand_over(contents[0], frontend.handed)
    frontend.setup("--forward-challenges", "http://192.0.2.7")
    hand_over(contents[1], frontend.handed)
    frontend.apply()
    assert len(cluster.keys_left(world.folder, contents[0])) == 1
    frontend.seafile("undo")
    assert road.site_bytes(world) == frontend.site
    assert facts(world.path("/etc"), without=[world.config_dir, frontend.units.parent]) == {
        path: fact for path, fact in before.items() if Path(path) != world.config_dir
    }
    assert list(frontend.units.iterdir()) == []
    assert [cluster.keys_left(world.folder, content) for content in contents] == [[], [frontend.handed]]
    assert nginx_starts(frontend)


# --- what is handed over ---------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("writes", ["truncating", "over the old one"])
def test_a_set_that_is_half_there_is_not_served(serving: Frontend, writes: str) -> None:
    """cp or rsync --inplace was stopped at some byte: the old set stays, and the reason is told; then the whole one."""
    old, new = (bundle.parse(content).pem() for content in (mint(1), mint(2)))
    blocks = [match.start() for match in re.finditer(b"-----BEGIN", new)]
    for cut in sorted({*range(100, len(new) - 2, 600), *blocks[1:], *(start - 1 for start in blocks[1:])}):
        half = new[:cut] + (old[cut:] if writes == "over the old one" else b"")
        serving.handed.write_bytes(half)
        run = serving.apply(check=False)
        assert serving.serves(old), cut
        assert run.exit_code == 1, cut
        assert f"what was handed over in {serving.handed} is not served: " in run.stderr
    serving.handed.write_bytes(new)
    serving.apply()
    assert serving.serves(new)


def test_while_rsync_writes_only_whole_sets_are_served(serving: Frontend) -> None:
    """New staples and a new certificate come while root's step runs: none is refused, and the last set is served."""
    source = serving.world.path("/srv/handover")
    source.mkdir(parents=True)
    sets = [restaple(mint(number), update) for number in (1, 2) for update in range(1, 15)]

    def write() -> None:
        for content in sets:
            hand_over(content, source / f"{NAME}.pem")
            push(source, serving.source)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not writing.done():
            serving.apply()
            assert any(serving.serves(content) for content in [mint(1), *sets])
        writing.result()
    serving.apply()
    assert serving.serves(sets[-1])


def test_a_frontend_that_was_off_serves_the_newest_after_one_step(serving: Frontend) -> None:
    """Two renewals were missed; root's step says that nginx is off, and does not start it."""
    world = serving.world
    world.stop_nginx()
    for number in (2, 3):
        hand_over(mint(number), serving.handed)
    run = serving.apply(check=False)
    assert run.exit_code == 1
    assert "reload" in run.stderr
    with pytest.raises(ConnectionRefusedError):
        serving.look()
    with serving.inside():
        world.start_nginx()
    reloads = world.reloads()
    serving.apply()
    assert serving.serves(mint(3))
    assert world.reloads() == reloads + 1


def test_a_clock_that_was_ahead_once_does_not_keep_a_new_set_waiting(serving: Frontend) -> None:
    """The last reload lies ten years ahead, as the record says: the new set is served at once."""
    road.change_record(serving.world, last_reload="2036-01-01T00:00:00+00:00")
    hand_over(mint(2), serving.handed)
    serving.seafile("apply")
    assert serving.serves(mint(2))


def test_a_set_that_still_waits_after_the_last_look_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are served at each of its turns: root's step fails, so that somebody looks."""
    monkeypatch.setattr(apply, "_apply", lambda *_: 0.001)
    stored = Settings({NAME: Entry(NAME, (NAME,), "/srv/handover", 0, 0, Options())})
    (failure,) = apply.apply(stored, lambda options: None)  # type: ignore[arg-type, return-value]
    assert "still waits" in str(failure)


def test_a_new_staple_takes_one_reload_and_no_edit(serving: Frontend) -> None:
    """Site and version stay; the next step has nothing to do."""
    world = serving.world
    site, versions, reloads = road.site_bytes(world), road.versions(world), world.reloads()
    hand_over(restaple(mint(1), 5), serving.handed)
    for _ in range(2):
        serving.apply()
        assert serving.serves(serving.handed.read_bytes())
        assert (road.site_bytes(world), road.versions(world)) == (site, versions)
        assert world.reloads() == reloads + 1


def test_a_staple_that_is_not_followed_by_a_newer_one_is_withdrawn(serving: Frontend) -> None:
    """Before it ends, and with the site left alone; the newer one is served when it comes."""
    site = road.site_bytes(serving.world)
    serving.apply(env=road.clock(serving.world, 84))
    assert serving.look().staple is None
    assert nginx_starts(serving)
    hand_over(restaple(mint(1), 5), serving.handed)
    serving.apply()
    assert serving.serves(serving.handed.read_bytes())
    assert road.site_bytes(serving.world) == site


def test_a_must_staple_set_without_its_staple_is_not_served(frontend: Frontend) -> None:
    """The set before stays, stapled, until the staple is handed over too."""
    root = frontend.world.folder / "root.pem"
    root.write_bytes(issuer().certificate_pem)
    old, new = mint(1, must_staple=True), mint(2, must_staple=True)
    hand_over(old, frontend.handed)
    frontend.setup()
    hand_over(new.partition(b"-----BEGIN OCSP")[0], frontend.handed)
    run = frontend.apply(check=False)
    assert run.exit_code == 1
    assert "must be stapled" in run.stderr
    assert frontend.serves(old)
    assert frontend.gnutls(root).accepted
    hand_over(new, frontend.handed)
    frontend.apply()
    assert frontend.serves(new)
    assert frontend.gnutls(root).accepted


@pytest.mark.long
@pytest.mark.parametrize("trouble", ["full", "read-only"])
@pytest.mark.parametrize("place", ["etc/nginx/OCSP", "etc/letsencrypt/seafile", "etc/nginx/sites-enabled"])
def test_a_disk_that_takes_nothing_leaves_what_is_served(frontend: Frontend, place: str, trouble: str) -> None:
    """The system's reason is told, nginx starts from what is on disk, and the next step serves the new set."""
    folder, is_first = frontend.world.folder / place, place.endswith("sites-enabled")
    with cluster.small_disk(folder):
        if not is_first:
            hand_over(mint(1), frontend.handed)
        frontend.setup()
        before, site = frontend.look(), road.site_bytes(frontend.world)
        hand_over(mint(2), frontend.handed)
        frontend.forget_reload()
        if trouble == "full":
            fill(folder / ".filler")
        else:
            cluster.remount(folder, "ro")
        run = frontend.apply(check=False)
        assert run.exit_code == 1
        assert ("No space left" if trouble == "full" else "Read-only file system") in run.stderr
        assert frontend.look() == before
        assert road.site_bytes(frontend.world) == site
        assert nginx_starts(frontend)
        if trouble == "full":
            (folder / ".filler").unlink()
        else:
            cluster.remount(folder, "rw")
        frontend.apply()
        assert frontend.serves(mint(2))
        frontend.world.stop_nginx()


# --- what is told ----------------------------------------------------------------------------------------------------


def check(frontend: Frontend, **how: dict[str, str]) -> tuple[int, str]:
    """Return exit code and output of `check` on a frontend without a certbot that renews."""
    with frontend.inside():
        run = frontend.world.run(*frontend.command("check", "--root", frontend.world.folder), check=False, **how)
    return run.exit_code, run.output


def test_all_is_well_where_all_is_served(serving: Frontend) -> None:
    """No certbot runs on a frontend, and none is missed there; that Seafile does not run there is told."""
    code, told = check(serving)
    assert (code, re.findall(r"\[[A-Z-]+\]", told)) == (0, ["[SEAFILE-NO-ANSWER]"])
    (row,) = [line for line in serving.seafile("status").stdout.splitlines() if line.startswith(NAME)]
    assert "yes, stapled" in row
    status = json.loads(serving.seafile("status", "--json").stdout)
    (fields,) = status["lineages"]
    assert status["damaged"] == []
    assert (fields["name"], fields["sealed"]) == (NAME, True)
    assert fields["served"] == {"current": True, "stapled": True, "stored_staple": True, "failure": None}


def test_before_the_first_set_it_is_told_what_is_missing(frontend: Frontend) -> None:
    """Nothing is damaged: the certificate has not come yet."""
    frontend.setup()
    frontend.apply()
    code, text = check(frontend)
    assert code == 1
    assert f"nothing good was handed over in {frontend.handed}" in text
    run = frontend.seafile("status", check=False)
    assert run.exit_code == 1
    assert str(frontend.handed) in run.output


def test_a_refused_set_is_told_until_a_good_one_comes(serving: Frontend) -> None:
    """check names the file and the reason, and what is served is told as before."""
    serving.handed.write_bytes(b"half a file")
    serving.apply(check=False)
    code, text = check(serving)
    assert code == 1
    assert f"what was handed over in {serving.handed} is not served" in text
    assert "yes, stapled" in serving.seafile("status").stdout
    hand_over(mint(2), serving.handed)
    serving.apply()
    assert f"{serving.handed} is not served" not in check(serving)[1]


def test_another_certificate_than_the_judged_one_is_told(serving: Frontend) -> None:
    """Somebody put the site's own certificate back; the command that is named lets the handed one be served again."""
    world = serving.world
    (world.sites / road.SITE_NAME).write_bytes(serving.site)
    with serving.inside():
        world.reload_nginx()
    assert "ANOTHER one" in serving.seafile("status").stdout
    code, text = check(serving)
    assert code == 1
    (command,) = re.findall("the certificate on disk is not the one served; run `certbot-seafile (.*)`", text)
    serving.seafile(*command.split())
    assert serving.serves(mint(1))


@pytest.mark.parametrize("hours", [90, 24 * 55])
def test_a_set_that_does_not_come_in_time_is_told(serving: Frontend, hours: int) -> None:
    """Its staple, then its certificate ends soon; what to look at is the machine that renews, not a certbot here."""
    code, text = check(serving, env=road.clock(serving.world, hours))
    assert code == 1
    assert "staple" in text if hours == 90 else "the certificate expires on" in text
    assert str(serving.source) in text
    assert "certbot renew" not in text
