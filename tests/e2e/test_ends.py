"""Whatever ends a command early, or keeps it from its files: a sentence, and no work that is half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import authority
import lineages as lineages_on_disk
from e2e import killing, minted, road
from e2e.test_failures import failing_nginx
from e2e.world import Run, World

NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]


def refused(run: Run) -> str:
    """Return what a command said that failed with a sentence."""
    assert run.exit_code == 1, run
    assert "Traceback" not in run.output
    assert "defect" not in run.output
    return run.output


def commands(world: World, name: str) -> dict[str, list[str]]:
    """Return a command line of each command that looks at a lineage."""
    root = ["--root", str(world.folder)]
    named = {command: [command, "--cert-name", name] for command in ("deploy", "refresh", "status")}
    check, undo = ["check", *root, "--cert-name", name], ["undo", "--cert-name", name]
    return {**named, "check": check, "undo": undo}


def test_a_certificate_without_names(world: World) -> None:
    """One with a common name alone: each command goes through, or says that it is for no name."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    folders = {"seafile_ctl": world.nginx_ctl, "seafile_staple_dir": world.staple_dir}
    lineages_on_disk.make(world.config_dir, "old", authority.make_certificate("old", minted.issuer()), minted.issuer(),
                          {**folders, "http01_port": world.http_port, "https_port": world.https_port})  # fmt: skip
    for command, words in commands(world, "old").items():
        run = world.seafile(*words, check=False)
        assert "Traceback" not in run.output
        assert run.exit_code == (1 if command in ("deploy", "check") else 0), run
        assert "for no name" in run.output or run.exit_code == 0
    assert "for no name" in refused(world.certbot("install", "-i", "seafile", "--cert-name", "old",
                                                  *world.plugin_options, check=False))  # fmt: skip


def test_certbot_asks_for_the_names_itself(world: World) -> None:
    """`certbot certonly -a seafile` without a name: the plugin is prepared before certbot knows any."""
    road.start(world, ocsp=False)
    run = world.certbot("certonly", "-a", "seafile", *world.plugin_options, check=False)
    assert "Please enter the domain name" in refused(run)


@pytest.mark.parametrize("option", ["ctl", "staple_dir", "ocsp_url", "reload_cmd"])
def test_a_nul_byte_in_an_option(world: World, option: str) -> None:
    """A renewal file may hold one; each command names the option and goes no further."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE))
    world.start_nginx()
    minted.mint(world, road.NAME, minted.options(world))
    renewal = world.config_dir / "renewal" / f"{road.NAME}.conf"
    lines = [line for line in renewal.read_text().splitlines() if not line.startswith(f"seafile_{option} ")]
    lines.insert(lines.index("[renewalparams]") + 1, f"seafile_{option} = a\0b")
    renewal.write_text("\n".join(lines) + "\n")
    site = road.site_bytes(world)
    for command, words in commands(world, road.NAME).items():
        if command != "undo":
            output = refused(world.seafile(*words, check=False))
            assert f"--seafile-{option.replace('_', '-')} holds a NUL byte" in output
    assert road.site_bytes(world) == site


@pytest.fixture
def undone(restored: World) -> World:
    """Give a world with a certificate whose site was undone: a deployment edits it."""
    restored.seafile("undo")
    return restored


@pytest.mark.long
@pytest.mark.parametrize("folder", ["/dev/null", "/proc/1/x"])
def test_a_work_folder_that_cannot_be(undone: World, folder: str) -> None:
    """Checkpoints cannot be kept there, so nothing is edited; what edits nothing goes through."""
    site = road.site_bytes(undone)
    for command, words in commands(undone, road.NAME).items():
        run = undone.seafile("--work-dir", folder, *words, check=False)
        if command == "deploy":
            assert "--work-dir" in refused(run)
        assert "Traceback" not in run.output
        assert road.site_bytes(undone) == site


def test_a_log_that_cannot_be_opened(undone: World) -> None:
    """It is no reason to leave a certificate unserved."""
    run = undone.seafile("--logs-dir", "/dev/null", "deploy", "--cert-name", road.NAME)
    assert run.stderr == ""
    assert road.served_is_lineage(undone)


@pytest.mark.parametrize("redirection", [">&- 2>&-", ">/dev/full 2>/dev/full", ">/dev/full", ">&-"])
def test_a_deployment_is_whole_where_nothing_can_be_told(undone: World, redirection: str) -> None:
    """Site, hook and installer are there, and the exit code says that all went well."""
    command = killing.seafile(undone, "deploy", "--cert-name", road.NAME)
    undone.run("sh", "-c", f'exec "$@" {redirection}', "sh", *command)
    assert road.served_is_lineage(undone)
    assert road.renewal(undone)["installer"] == "seafile"
    assert "certbot-seafile" in road.renewal(undone)["renew_hook"]


@pytest.fixture
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C reach what this process starts, also where a shell has started it in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("_interruptible")
@pytest.mark.parametrize("moment", ["-t", "-s reload"])
def test_ctrl_c_puts_the_site_back(undone: World, moment: str) -> None:
    """Pressed while nginx tests or reloads: one line, exit code 1, the site as before; the next run goes through."""
    site, renewal = road.site_bytes(undone), road.renewal(undone)
    real = undone.nginx_ctl.read_bytes()
    edited = 'grep -q "live/home" "$site"'
    failing_nginx(undone, f'case "$*" in "{moment}") {edited} && {{ kill -INT $PPID; exec sleep 1; }};; esac')
    run = undone.seafile("deploy", "--cert-name", road.NAME, check=False)
    undone.nginx_ctl.write_bytes(real)
    assert run.stderr.splitlines()[-1] == "certbot-seafile: interrupted; the next run goes on from here"
    refused(run)
    assert road.site_bytes(undone) == site
    assert "installer" not in renewal
    undone.seafile("deploy", "--cert-name", road.NAME)
    assert road.staples_lineage(undone)


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("hidden", ["etc/letsencrypt", "etc/letsencrypt/renewal", "etc/letsencrypt/live"])
def test_a_folder_that_this_user_may_not_read(restored: World, hidden: str) -> None:
    """Each command names it and exits 1, and advises nothing that would end or force a renewal."""
    restored.folder.chmod(0o755)
    (restored.folder / hidden).chmod(0o700)
    script = Path(sys.executable).parent / "certbot-seafile"
    for words in (*commands(restored, road.NAME).values(), ["status"], ["status", "--json"], ["check"], ["refresh"]):
        output = refused(restored.run(*NOBODY, script, *restored.folders, *words, check=False))
        assert "Permission denied; run this as root" in output
        assert "certbot delete" not in output
        assert "force-renewal" not in output
        assert "get one with" not in output


def test_a_pipe_that_is_closed(restored: World) -> None:
    """`certbot-seafile status | true` ends without a word."""
    command = [str(word) for word in killing.seafile(restored, "status")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=restored.environment())
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""
    assert process.returncode != -signal.SIGPIPE
