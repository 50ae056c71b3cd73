"""What runs by the clock, told from the files of systems that stand in a folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from certbot_seafile.doctor import schedule

NAME = "home.seafile.com"
DEBIANS_LINE = (
    "SHELL=/bin/sh\n# certbot renew\n"
    "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && sleep 1 && certbot -q renew\n"
)
#: A file's text by path; "-> TARGET" is a link, "" a folder. Scripts and programs are executable.
System = Mapping[str, str]

CERTBOT = {"/usr/bin/certbot": f"#!{sys.executable}\n", "/usr/sbin/cron": "\0"}
SYSTEMD = {
    **CERTBOT,
    "/run/systemd/system/": "",
    "/etc/cron.d/certbot": DEBIANS_LINE,
    "/lib/systemd/system/certbot.timer": "[Timer]\nOnCalendar=*-*-* 00,12:00:00\nRandomizedDelaySec=43200\n",
    "/lib/systemd/system/certbot.service": "[Service]\nExecStart=/usr/bin/certbot -q renew\n",
}
ENABLED = {**SYSTEMD, "/etc/systemd/system/timers.target.wants/certbot.timer": "-> /lib/systemd/system/certbot.timer"}
OWN_SERVICE = "[Service]\nType=oneshot\nExecStart=/usr/bin/certbot -q renew\n"


def own_timer(text: str, **more: str) -> System:
    """Return a system with systemd and an enabled timer of a person's own, with these lines."""
    units = {"renew.timer": f"[Timer]\n{text}\n", "renew.service": OWN_SERVICE, **more}
    wanted = "/etc/systemd/system/timers.target.wants/"
    links = {f"{wanted}{name}": f"-> ../{name}" for name in units if name.endswith(".timer") and "@." not in name}
    return {**SYSTEMD, **{f"/etc/systemd/system/{name}": unit for name, unit in units.items()}, **links}


def crontab(line: str, **more: str) -> System:
    """Return a system with cron and this line in /etc/crontab."""
    return {**CERTBOT, "/etc/crontab": f"SHELL=/bin/sh\n# m h\n{line}\n", **more}


HEALTHY: Mapping[str, System] = {
    "Debian's timer": ENABLED,
    "Debian's crontab": {**CERTBOT, "/etc/cron.d/certbot": DEBIANS_LINE},
    "a plain line": crontab("17 3 * * * root certbot -q renew"),
    "a line with a hook": crontab("17 3 * * * root /usr/bin/certbot renew --post-hook 'x'"),
    "@daily": crontab("@daily root certbot renew"),
    "@hourly": crontab("@hourly root certbot renew"),
    "every day of the month": crontab("17 3 1-31 * * root certbot renew"),
    "every day of the week": crontab("17 3 * * 0-6 root certbot renew"),
    "every day of the week by name": crontab("17 3 * * mon-sun root certbot renew"),
    "every month": crontab("17 3 * 1-12 * root certbot renew"),
    "each day listed": crontab("17 3 * * 1,2,3,4,5,6,7 root certbot renew"),
    "every day, and Mondays": crontab("17 3 1-31 * 1 root certbot renew"),
    "for this certificate": crontab(f"17 3 * * * root certbot renew --cert-name {NAME}"),
    "for this folder": crontab("17 3 * * * root certbot --config-dir /etc/letsencrypt renew"),
    "two commands": crontab("17 3 * * * root certbot renew --dry-run; certbot renew"),
    "a script in full": crontab("17 3 * * * root /opt/renew", **{"/opt/renew": "#!/bin/sh\ncertbot renew\n"}),
    "a script of a folder": crontab("17 3 * * * root cd /opt && ./renew.sh", **{"/opt/renew.sh": "certbot renew\n"}),
    "a script of PATH": crontab("17 3 * * * root renew", **{"/usr/local/sbin/renew": "certbot \\\n renew\n"}),
    "a script of the crontab's PATH": {
        **CERTBOT, "/etc/crontab": "PATH=/opt/bin:/bin\n17 3 * * * root renew\n", "/opt/bin/renew": "certbot renew\n"
    },
    "cron.daily": {**CERTBOT, "/etc/cron.daily/renew-certs": "#!/bin/sh\ncertbot renew\n"},
    "anacron's daily": {**CERTBOT, "/etc/anacrontab": "1 10 certbot certbot renew\n"},
    "Alpine's crontab": {**CERTBOT, "/etc/crontabs/root": "0 3 * * * certbot renew\n"},
    "Alpine's periodic": {**CERTBOT, "/etc/periodic/daily/certbot": "#!/bin/sh\ncertbot renew\n"},
    "a user's crontab": {**CERTBOT, "/var/spool/cron/crontabs/certbot": "0 3 * * * certbot renew\n"},
    "OnCalendar=daily": own_timer("OnCalendar=daily"),
    "Unit=": own_timer("OnCalendar=daily\nUnit=letsencrypt.service", **{
        "renew.service": "", "letsencrypt.service": OWN_SERVICE}),
    "a template": own_timer("", **{
        "le@.timer": "[Timer]\nOnCalendar=daily\n", "le@home.seafile.com.timer": "-> le@.timer",
        "le@.service": "[Service]\nExecStart=-/usr/bin/certbot renew --cert-name %i\n"}),
    "ExecStart in a drop-in": own_timer("OnCalendar=daily", **{
        "renew.service": "[Service]\nExecStart=/bin/true\n",
        "renew.service.d/own.conf": "[Service]\nExecStart=\nExecStart=/usr/bin/certbot renew\n"}),
    "the snap's timer": own_timer("", **{
        "snap.certbot.renew.timer": "[Timer]\nOnCalendar=*-*-* 04:26\nOnCalendar=*-*-* 15:11\n",
        "snap.certbot.renew.service": "ExecStart=/usr/bin/snap run --timer=\"00:00~24:00/2\" certbot.renew\n"}),
}  # fmt: skip

SICK: Mapping[str, tuple[System, str]] = {
    "nothing": (CERTBOT, ""),
    "a timer that is not enabled": (SYSTEMD, ""),
    "a masked timer": ({**ENABLED, "/etc/systemd/system/certbot.timer": "-> /dev/null"}, "masked"),
    "a masked service": ({**ENABLED, "/etc/systemd/system/certbot.service": "-> /dev/null"}, ""),
    "a timer of another command": (own_timer("OnCalendar=daily", **{"renew.service": "ExecStart=/bin/updatedb\n"}), ""),
    "a drop-in that takes the command away": (
        {**ENABLED, "/etc/systemd/system/certbot.service.d/own.conf": "[Service]\nExecStart=\nExecStart=/bin/true\n"},
        "",
    ),
    "a line on Mondays": (crontab("17 3 * * 1 root certbot renew"), "less than once a day"),
    "a line of each second day": (crontab("17 3 */2 * * root certbot renew"), "less than once a day"),
    "a line on the first": (crontab("17 3 1 * * root certbot renew"), "less than once a day"),
    "a line of one month": (crontab("17 3 * jan * root certbot renew"), "less than once a day"),
    "@weekly": (crontab("@weekly root certbot renew"), "less than once a day"),
    "@reboot": (crontab("@reboot root certbot renew"), "less than once a day"),
    "anacron's weekly": ({**CERTBOT, "/etc/anacrontab": "7 10 certbot certbot renew\n"}, "less than once a day"),
    "a certbot that is gone": (crontab("17 3 * * * root /opt/gone/certbot renew"), "/opt/gone/certbot is not there"),
    "Debian's line without certbot": ({"/etc/cron.d/certbot": DEBIANS_LINE}, "/usr/bin/certbot is not there"),
    "--dry-run": (crontab("17 3 * * * root certbot renew --dry-run"), "--dry-run"),
    "another certificate": (crontab("17 3 * * * root certbot renew --cert-name other"), ""),
    "another folder": (crontab("17 3 * * * root certbot renew --config-dir=/srv/le"), "what is in /srv/le"),
    "a name that cron.d skips": ({**CERTBOT, "/etc/cron.d/certbot.bak": DEBIANS_LINE}, "cron skips"),
    "a name that run-parts skips": (
        {**CERTBOT, "/etc/cron.daily/certbot.sh": "#!/bin/sh\ncertbot renew\n"},
        "cron skips",
    ),
    "a script that is not executable": ({**CERTBOT, "/etc/cron.daily/certbot": "certbot renew\n"}, "not executable"),
    "cron.weekly": ({**CERTBOT, "/etc/cron.weekly/certbot": "#!/bin/sh\ncertbot renew\n"}, "less than once a day"),
    "another command of certbot": (crontab("17 3 * * * root certbot certificates"), ""),
    "a comment": (crontab("# 1 2 * * * root certbot renew"), ""),
}


def make(root: Path, system: System) -> str:
    """Write the system's files below the root, and return the root."""
    for path, text in system.items():
        place = root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if text.startswith("-> "):
            place.symlink_to(text[3:])
        elif path.endswith("/"):
            place.mkdir(parents=True)
        else:
            place.write_text(text)
            place.chmod(0o755 if text.startswith(("#!", "\0")) else 0o644)
    return str(root)


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_system_is_healthy(tmp_path: Path, name: str) -> None:
    """Something renews the certificate every day, as the program that runs it reads it."""
    jobs = schedule.jobs(make(tmp_path, HEALTHY[name]))
    assert any(job.renews_daily(NAME) for job in jobs), jobs


@pytest.mark.parametrize("name", SICK)
def test_a_sick_system_is_sick(tmp_path: Path, name: str) -> None:
    """Nothing renews the certificate every day; where something seems to, its flaw is named."""
    system, flaw = SICK[name]
    jobs = schedule.jobs(make(tmp_path, system))
    assert not any(job.renews_daily(NAME) for job in jobs), jobs
    assert flaw in "; ".join(job.flaw or "" for job in jobs)


def test_whether_a_cron_is_installed(tmp_path: Path) -> None:
    """Debian's cron is found where it lies."""
    assert not schedule.has_cron(str(tmp_path))
    assert schedule.has_cron(make(tmp_path, CERTBOT))


def test_who_brought_a_job_and_whether_its_certbot_has_this_plugin(tmp_path: Path) -> None:
    """Debian's line is a package's, and its certbot runs by this Python; the snap's is not known."""
    line = "1 2 * * * root /snap/bin/certbot renew"
    root = make(
        tmp_path, {**CERTBOT, "/etc/cron.d/certbot": DEBIANS_LINE, "/etc/crontab": line, "/snap/bin/certbot": "\0"}
    )
    packaged, own = sorted(schedule.jobs(root), key=lambda job: job.is_packaged, reverse=True)
    assert (packaged.place, packaged.is_packaged, packaged.has_plugin) == (f"{root}/etc/cron.d/certbot:3", True, True)
    assert (own.place, own.is_packaged, own.has_plugin) == (f"{root}/etc/crontab:1", False, False)


def test_the_snaps_timer_is_not_for_people_to_remove(tmp_path: Path) -> None:
    """snapd writes its units where people write theirs."""
    jobs = schedule.jobs(make(tmp_path, HEALTHY["the snap's timer"]))
    assert [job.is_packaged for job in jobs if "snap." in job.place] == [True]


def test_scripts_are_looked_into(tmp_path: Path) -> None:
    """The tutorial's script is found behind the line of root's own crontab, and what it stores where."""
    script = "#!/bin/sh\n# weekly\nopenssl ocsp -respout /etc/nginx/OCSP/x/ocsp.response\n"
    line = "1 2 * * * /usr/local/sbin/OCSPResponse >/dev/null\n"
    system = {**CERTBOT, "/usr/local/sbin/OCSPResponse": script, "/var/spool/cron/crontabs/root": line}
    (job,) = schedule.jobs(make(tmp_path, system))
    assert job.scripts == (f"{tmp_path}/usr/local/sbin/OCSPResponse",)
    assert not job.renews
    assert job.stores_staples("/etc/nginx/OCSP")
    assert not job.stores_staples("/etc/haproxy")


def test_hooks_that_a_job_gives_certbot(tmp_path: Path) -> None:
    """What stands after --pre-hook is told, in each kind of quotes."""
    line = "1 2 * * * root certbot renew --pre-hook 'systemctl stop nginx' --post-hook \"nginx\""
    (job,) = schedule.jobs(make(tmp_path, crontab(line)))
    assert job.pre_hooks == "systemctl stop nginx"


SHOWN = """\
Unit=renew@home.service
Id=renew@home.timer
LoadState=loaded
ActiveState=active
FragmentPath=/etc/systemd/system/renew@.timer

Id=gone.timer
LoadState=not-found
ActiveState=inactive

ExecStart={ path=/bin/sh ; argv[]=/bin/sh -c certbot renew; echo done ; ignore_errors=yes ; start_time=[n/a] ; pid=0 }
Id=renew@home.service
LoadState=loaded
ActiveState=inactive
"""


def test_what_systemd_says_is_read_as_unit_files_are() -> None:
    """Real lines of `systemctl show` (systemd 252): the unit that is run, its commands; what is gone is none."""
    timer, gone, service = (schedule.read_shown(block) for block in SHOWN.split("\n\n"))
    assert timer[1] is not None
    assert timer[1].text.splitlines() == ["Unit=renew@home.service"]
    assert (timer[1].path, timer[1].flaw) == ("/etc/systemd/system/renew@.timer", None)
    assert gone == ("gone.timer", None)
    assert service[1] is not None
    assert service[1].text == "ExecStart=/bin/sh -c certbot renew; echo done"
