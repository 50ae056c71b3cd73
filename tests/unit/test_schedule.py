"""What runs by the clock, told from the files of a system that stands in a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from certbot_seafile.doctor import schedule

DEBIANS_LINE = (
    "SHELL=/bin/sh\n# certbot renew\n"
    "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && sleep 1 && certbot -q renew\n"
)


def put(root: Path, path: str, text: str, mode: int = 0o644) -> Path:
    """Write a file below the root and return its path."""
    written = root / path.lstrip("/")
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(text)
    written.chmod(mode)
    return written


@pytest.fixture
def cron(tmp_path: Path) -> Path:
    """Return a system without systemd on which cron is installed."""
    put(tmp_path, "/usr/sbin/cron", "\0", 0o755)
    return tmp_path


@pytest.fixture
def systemd(tmp_path: Path) -> Path:
    """Return a system that systemd runs, with cron and certbot's Debian package."""
    put(tmp_path, "/usr/sbin/cron", "\0", 0o755)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    put(tmp_path, "/etc/cron.d/certbot", DEBIANS_LINE)
    put(tmp_path, "/lib/systemd/system/certbot.timer", "[Timer]\nOnCalendar=*-*-* 00,12:00:00\n")
    put(tmp_path, "/lib/systemd/system/certbot.service", "[Service]\nExecStart=/usr/bin/certbot -q renew\n")
    return tmp_path


def enable(root: Path, timer: str) -> None:
    """Enable a timer as systemctl does: by a link."""
    wants = root / "etc/systemd/system/timers.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / timer).symlink_to(f"/lib/systemd/system/{timer}")


def test_an_empty_system_runs_nothing(tmp_path: Path) -> None:
    """Where there is nothing, nothing runs."""
    assert schedule.jobs(str(tmp_path)) == []


def test_debians_crontab_counts_where_systemd_does_not_run(cron: Path) -> None:
    """The packaged line renews every day, and is a package's; its comment does not count."""
    place = put(cron, "/etc/cron.d/certbot", DEBIANS_LINE)
    assert schedule.jobs(str(cron)) == [schedule.Job(f"{place}:3", (), True, False, True, True)]


def test_whether_a_cron_is_installed(tmp_path: Path) -> None:
    """Debian's cron is found where it lies."""
    assert not schedule.has_cron(str(tmp_path))
    put(tmp_path, "/usr/sbin/cron", "\0", 0o755)
    assert schedule.has_cron(str(tmp_path))


def test_a_timer_that_is_not_enabled_does_not_count(systemd: Path) -> None:
    """Under systemd, Debian's crontab does nothing, and an unlinked timer does not either."""
    assert schedule.jobs(str(systemd)) == []


def test_an_enabled_timer_counts(systemd: Path) -> None:
    """certbot.timer, linked below timers.target.wants, renews every day."""
    enable(systemd, "certbot.timer")
    (job,) = schedule.jobs(str(systemd))
    assert (job.place, job.renews, job.is_daily) == (str(systemd / "lib/systemd/system/certbot.timer"), True, True)
    assert (job.is_packaged, job.is_timer) == (True, True)


def test_a_timer_of_another_name_is_judged_by_what_it_runs(systemd: Path) -> None:
    """snap.certbot.renew.timer counts by its service's ExecStart; one that runs something else does not."""
    put(systemd, "/etc/systemd/system/snap.certbot.renew.timer", "[Timer]\nOnCalendar=weekly\n")
    put(systemd, "/etc/systemd/system/snap.certbot.renew.service", "ExecStart=/snap/bin/certbot -q renew\n")
    put(systemd, "/etc/systemd/system/other.timer", "")
    put(systemd, "/etc/systemd/system/other.service", "ExecStart=/usr/bin/updatedb\n")
    enable(systemd, "snap.certbot.renew.timer")
    enable(systemd, "other.timer")
    (job,) = schedule.jobs(str(systemd))
    assert job.place.endswith("snap.certbot.renew.timer")
    assert not job.is_daily


LINES = {
    "17 3 * * * root certbot -q renew": True,
    "17 3 * * * root /usr/bin/certbot renew --post-hook 'x'": True,
    "@daily root certbot renew": True,
    "17 3 * * 1 root certbot renew": False,
    "17 3 1 * * root certbot renew": False,
    "@weekly root certbot renew": False,
    "@reboot root certbot renew": False,
}


@pytest.mark.parametrize("line", LINES)
def test_how_often_a_crontab_line_runs(cron: Path, line: str) -> None:
    """A line is daily where no day, month or weekday is singled out."""
    put(cron, "/etc/crontab", f"# m h\n{line}\n")
    (job,) = schedule.jobs(str(cron))
    assert (job.renews, job.is_daily, job.is_packaged) == (True, LINES[line], False)


@pytest.mark.parametrize("line", ["17 3 * * * root certbot certificates", "# 1 2 * * * root certbot renew", ""])
def test_lines_that_do_not_renew(cron: Path, line: str) -> None:
    """Another command of certbot, a comment and an empty line are none of ours."""
    put(cron, "/etc/crontab", f"{line}\n")
    assert schedule.jobs(str(cron)) == []


def test_scripts_are_looked_into(cron: Path) -> None:
    """The tutorial's scripts are found behind the lines of root's own crontab, with what they do."""
    ocsp = put(cron, "/usr/local/sbin/OCSPResponse", "#!/bin/sh\nopenssl ocsp -respout /x/ocsp.response\n", 0o755)
    renew = put(cron, "/usr/local/sbin/CertbotRenew", "#!/bin/bash\n# weekly\n/usr/bin/certbot renew\n", 0o755)
    place = put(
        cron,
        "/var/spool/cron/crontabs/root",
        "5 4 * * * /usr/local/sbin/OCSPResponse >/dev/null\n5 4 * * 0 /usr/local/sbin/CertbotRenew\n",
    )
    assert schedule.jobs(str(cron)) == [
        schedule.Job(f"{place}:1", (str(ocsp),), False, True, True),
        schedule.Job(f"{place}:2", (str(renew),), True, False, False),
    ]


def test_a_script_of_cron_weekly_is_a_job_itself(cron: Path) -> None:
    """Only executable files run, and a weekly one is not daily."""
    put(cron, "/etc/cron.daily/readme", "certbot renew\n")
    place = put(cron, "/etc/cron.weekly/renew", "#!/bin/sh\ncertbot renew\n", 0o755)
    assert schedule.jobs(str(cron)) == [schedule.Job(str(place), (str(place),), True, False, False)]
