"""systemd's units and cron's lines, as systemd itself and a shell read them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from certbot_seafile.sealed import units
from certbot_seafile.sealed.settings import Entry, Owned, Settings
from certbot_seafile.system.lineages import Options

needs_systemd = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze (systemd)")

APPLY, CERTBOT = ["/usr/bin/certbot-seafile", "apply"], ["/usr/bin/certbot"]
WRITABLE = ["/etc/nginx", "/run"]
WEBROOT = Owned("/var/www/letsencrypt/.well-known/acme-challenge", 0, 0)
SERVICES = [f"{units.APPLY}.service", f"{units.RENEW}.service"]


def chosen(*folders: str, user: str | None = "daemon") -> Settings:
    """Return settings with one entry for each folder."""
    names = [f"{number}.example.org" for number, _ in enumerate(folders)]
    entries = {name: Entry(name, (name,), at, 1, 1, Options()) for name, at in zip(names, folders, strict=True)}
    return Settings(entries, user, webroots=(WEBROOT,) if user else ())


def texts(settings: Settings, apply: list[str] = APPLY, writable: list[str] = WRITABLE) -> dict[str, str]:
    """Return the units as text."""
    return {name: content.decode() for name, content in units.contents(settings, apply, CERTBOT, writable).items()}


def written(folder: Path, every: dict[str, str]) -> list[str]:
    """Write units into a folder, and return their paths; their programs are ones that are there."""
    for name, text in every.items():
        (folder / name).write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", text))
    return [str(folder / name) for name in every]


@needs_systemd
@pytest.mark.parametrize("user", ["daemon", None], ids=["with a user", "from another machine"])
def test_systemd_takes_every_line(tmp_path: Path, user: str | None) -> None:
    """`systemd-analyze verify` says nothing, with spaces, specifiers and variables in paths and commands too."""
    every = texts(
        chosen("/mnt/a b", "/mnt/100%n", user=user), ["/bin/x", "--settings", "/etc/a b $HOME %h.json", "apply"],
        ["/srv/a b", "/srv/100%n"],
    )  # fmt: skip
    command = ["systemd-analyze", "verify", *written(tmp_path, every)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", SERVICES)
def test_each_service_is_little_exposed(tmp_path: Path, name: str) -> None:
    """`systemd-analyze security` gives less than 3 of 10."""
    written(tmp_path, texts(chosen("/var/lib/certbot/handover")))
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=29", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_user_writes_its_home_and_the_challenges_alone() -> None:
    """Nothing else is writable for certbot's service, which runs as the user and has no capability."""
    service = texts(chosen("/var/lib/certbot/handover"))[f"{units.RENEW}.service"]
    assert f"\nReadWritePaths=-/var/lib/certbot -{WEBROOT.path}\n" in service
    assert "\nUser=daemon\n" in service
    assert "\nCapabilityBoundingSet=\n" in service


def test_without_a_user_nothing_renews_here() -> None:
    """A machine that is handed its certificates by another has the units of root's step only."""
    assert set(texts(chosen("/mnt/certs", user=None))) == {
        f"{units.APPLY}.{kind}" for kind in ("path", "service", "timer")
    }


def test_each_folder_is_watched_once() -> None:
    """The path unit names every folder that certificates come from."""
    path = texts(chosen("/mnt/b", "/mnt/a", "/mnt/b"))[f"{units.APPLY}.path"]
    assert re.findall("PathChanged=(.*)", path) == ["/mnt/a", "/mnt/b"]


def test_no_limit_stops_the_path_unit() -> None:
    """A user who writes a thousand times a minute cannot make systemd give up on the path unit."""
    every = texts(chosen("/mnt/a"))
    assert "\nTriggerLimitIntervalSec=0\n" in every[f"{units.APPLY}.path"]
    assert "\nStartLimitIntervalSec=0\n" in every[f"{units.APPLY}.service"]


def test_the_lines_of_cron_are_a_crontab_of_the_system() -> None:
    """Five fields, a user, a command; a per cent sign is escaped, because cron ends the command there."""
    lines = units.cron_lines(chosen("/mnt/a"), ["/bin/x", "--settings", "/etc/a 100%.json", "apply"], CERTBOT)
    jobs = [line.split(maxsplit=6) for line in lines.splitlines() if "=" not in line]
    assert [(job[5], job[6]) for job in jobs] == [
        ("daemon", "/usr/bin/certbot -q renew"), ("root", "/bin/x --settings '/etc/a 100\\%.json' apply")
    ]  # fmt: skip
    assert shlex.split(jobs[1][6].replace("\\%", "%"))[2] == "/etc/a 100%.json"


def test_without_a_user_cron_has_root_s_step_alone() -> None:
    """Nothing renews on a machine that is handed its certificates by another."""
    lines = units.cron_lines(chosen("/mnt/a", user=None), APPLY, CERTBOT)
    assert "renew" not in lines
    assert lines.endswith("* * * * *  root  /usr/bin/certbot-seafile apply\n")
