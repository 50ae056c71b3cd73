"""What this machine runs by the clock, as far as certificates go: timers of systemd, crontabs, and scripts of both.

The law: files are read below one root folder, and nothing is run. A crontab of somebody else that cannot be read does
not count.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.system import files

_CRONTABS = ("etc/crontab", "etc/anacrontab")
_CRONTAB_FOLDERS = ("etc/cron.d", "var/spool/cron/crontabs", "var/spool/cron")
_SCRIPT_FOLDERS = ("etc/cron.hourly", "etc/cron.daily", "etc/cron.weekly", "etc/cron.monthly")
_WANTS = ("etc/systemd/system", "run/systemd/system", "lib/systemd/system", "usr/lib/systemd/system")
_CRON_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/lib/systemd-cron")
_CRONS = ("cron", "crond", "fcron", "bcron-sched", "anacron", "crontab_setgid")
_SCRIPT_BYTES = 65536

_RENEW = re.compile(r"\bcertbot(?:-auto)?\b[^;&|#]*\brenew\b")
_OCSP = re.compile(r"\bopenssl\s+ocsp\b|\bocsp\.response\b")
# Debian's own line and script for certbot: they do nothing where systemd runs.
_NOT_UNDER_SYSTEMD = re.compile(r"!\s+-d\s+/run/systemd/system")
_SCRIPT_WORD = re.compile(r"(?<![\w./-])/[^\s;&|<>()'\"$`]+")
_RARE = re.compile(r"@(?:weekly|monthly|yearly|annually|reboot)\b")
_RARE_CALENDAR = re.compile(r"(?im)^\s*OnCalendar\s*=\s*(?:weekly|monthly|quarterly|semiannually|yearly|annually)\b")


@dataclass(frozen=True)
class Job:
    """Something that runs by the clock.

    place: the file, with ":LINE" for a line of a crontab. scripts: what it runs that was looked into. renews: it runs
    `certbot renew`. staples: it fetches an OCSP response. is_daily: once a day or more often. is_packaged: a package
    brought it, so it is not for people to remove. is_timer: systemd runs it, not cron.
    """

    place: str
    scripts: tuple[str, ...]
    renews: bool
    staples: bool
    is_daily: bool
    is_packaged: bool = False
    is_timer: bool = False


def has_cron(root: str = "/") -> bool:
    """Tell whether a program that reads crontabs is installed below root."""
    return any(os.path.exists(os.path.join(root, folder, name)) for folder in _CRON_FOLDERS for name in _CRONS)


def jobs(root: str = "/") -> list[Job]:
    """Return what runs by the clock on the system below root and has to do with certificates."""
    has_systemd = os.path.isdir(os.path.join(root, "run/systemd/system"))
    return [*(_timers(root) if has_systemd else ()), *_cron_jobs(root, has_systemd)]


def _cron_jobs(root: str, has_systemd: bool) -> Iterator[Job]:
    crontabs = [os.path.join(root, name) for name in _CRONTABS]
    crontabs += [path for folder in _CRONTAB_FOLDERS for path in _entries(os.path.join(root, folder))]
    for path in crontabs:
        for number, line in enumerate(_text(path).splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                yield from _job(root, f"{path}:{number}", line, _is_daily_line(line), has_systemd)
    for folder in _SCRIPT_FOLDERS:
        for path in _entries(os.path.join(root, folder)):
            if os.access(path, os.X_OK):
                is_daily = folder.endswith(("hourly", "daily"))
                for job in _job(root, path, _without_comments(_text(path)), is_daily, has_systemd):
                    yield replace(job, scripts=(path, *job.scripts))


def _job(root: str, place: str, command: str, is_daily: bool, has_systemd: bool) -> Iterator[Job]:
    is_packaged = _NOT_UNDER_SYSTEMD.search(command) is not None
    if is_packaged and has_systemd:
        return
    scripts = {} if is_packaged else _scripts(root, command)
    text = "\n".join([command, *scripts.values()])
    renews, staples = _RENEW.search(text) is not None, _OCSP.search(text) is not None
    if renews or staples:
        ran = tuple(path for path, script in scripts.items() if _RENEW.search(script) or _OCSP.search(script))
        yield Job(place, ran, renews, staples, is_daily, is_packaged)


def _scripts(root: str, command: str) -> dict[str, str]:
    scripts = {}
    for word in _SCRIPT_WORD.findall(command):
        path = word if word.startswith(root) else os.path.join(root, word.lstrip("/"))
        text = _text(path)
        if text.startswith("#!") or (text and "\0" not in text):
            scripts[path] = _without_comments(text)
    return scripts


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _is_daily_line(line: str) -> bool:
    """Tell whether a crontab's line runs every day: day of month, month and day of week are all "*" (crontab(5))."""
    words = line.split()
    if words[0].startswith("@"):
        return _RARE.match(words[0]) is None
    return len(words) > 5 and all(word in ("*", "*/1") for word in words[2:5])


def _timers(root: str) -> Iterator[Job]:
    links = [link for units in _WANTS for link in _entries(os.path.join(root, units), "*.wants/*.timer")]
    for name in dict.fromkeys(map(os.path.basename, links)):
        timer, service = _unit(root, name), _unit(root, name.removesuffix(".timer") + ".service")
        runs = "\n".join(re.findall(r"(?m)^\s*Exec\w+\s*=\s*(.*)$", _text(service)))
        is_packaged = not timer.startswith(os.path.join(root, "etc"))
        for job in _job(root, timer or name, runs, _RARE_CALENDAR.search(_text(timer)) is None, False):
            yield replace(job, is_packaged=is_packaged, is_timer=True)


def _unit(root: str, name: str) -> str:
    paths = (os.path.join(root, folder, name) for folder in _WANTS)
    return next((path for path in paths if os.path.isfile(path)), "")


def _entries(folder: str, pattern: str = "*") -> list[str]:
    """Return the paths in a folder that are no folders, sorted, without dot files; none where it cannot be read."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    return [path for path in paths if not os.path.isdir(path)]


def _text(path: str) -> str:
    """Return the text of a small regular file, "" for anything else: most commands are large programs."""
    with contextlib.suppress(errors.FileRefused):
        if os.path.isfile(path):  # opening a device would do something already
            return files.read(path, at_most_bytes=_SCRIPT_BYTES).decode("utf-8", "replace")
    return ""
