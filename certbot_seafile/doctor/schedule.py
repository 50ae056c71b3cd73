"""What this machine runs by the clock, as far as certificates go: timers of systemd, crontabs, and scripts of both.

The law: a job is read as the program that runs it reads it. Below another root folder only files are read; of this
machine, systemd itself is asked for its timers, and nothing else is run. What somebody else keeps to themselves does
not count.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from certbot_seafile.system import files

_CRONTABS = ("etc/crontab", "etc/anacrontab")
_CRONTAB_FOLDERS = ("etc/cron.d", "etc/crontabs", "var/spool/cron/crontabs", "var/spool/cron")
_SCRIPT_FOLDERS = [f"etc/cron.{period}" for period in ("hourly", "daily", "weekly", "monthly")]
_SCRIPT_FOLDERS += [f"etc/periodic/{period}" for period in ("15min", "hourly", "daily", "weekly", "monthly")]  # Alpine
_UNITS = ("etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
          "lib/systemd/system")  # fmt: skip
_CRON_FOLDERS = ("usr/sbin", "usr/bin", "sbin", "bin", "usr/local/sbin", "usr/lib/systemd-cron")
_CRONS = ("cron", "crond", "fcron", "bcron-sched", "anacron", "crontab_setgid")
_PROGRAM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
_SCRIPT_BYTES = 65536
_ASK_SECONDS = 10

# What stands before the program are prefixes of systemd.service(5).
_CERTBOT = re.compile(r"""[-@:+!]*(?P<program>[^\s;&|()'"`$]*\bcertbot(?:-auto)?)[ \t](?P<words>[^;&|#\n]*)""")
_RENEW = re.compile(r"(?<![\w-])renew(?![\w-])")
_PRE_HOOK = re.compile(r"""--pre-hook[ =]("[^"]*"|'[^']*'|\S+)""")
_STOPS_NGINX = re.compile(
    r"\bstop\b[^\n;&|]*\bnginx\b|\bnginx\b[^\n;&|]*\b(?:stop|quit)\b|\b(?:pkill|killall)\b[^\n;&|]*\bnginx\b"
)
_OCSP = re.compile(r"\bopenssl\s+ocsp\b")
# Debian's own line and script for certbot: they do nothing where systemd runs.
_NOT_UNDER_SYSTEMD = re.compile(r"!\s+-d\s+/run/systemd/system")
_WORD = re.compile(r"[^\s;&|<>()'\"$`=]+")
_FOLDER = re.compile(r"\bcd\s+[\"']?([^\s;&|\"']+)")
_FILE_NAME = re.compile(r"[A-Za-z0-9_-]+")  # run-parts(8), and cron(8) of /etc/cron.d
_DAYS, _MONTHS = "sun mon tue wed thu fri sat", "jan feb mar apr may jun jul aug sep oct nov dec"
_TOO_RARE = "it runs less than once a day"


@dataclass(frozen=True)
class Job:
    """Something that runs by the clock and has to do with certificates.

    place: the file, with ":LINE" for a line of a crontab, or the timer. scripts: what it runs that was looked into.
    text: its commands, and theirs. renews: it runs `certbot renew`. flaw: why that does not keep the certificates of
    the configuration folder (None: it does). cert_names: those that it is for; (): all. has_plugin: its certbot was
    seen to run by the Python that runs this program. is_packaged: a package brought it, so it is not for people to
    remove.
    """

    place: str
    scripts: tuple[str, ...] = ()
    text: str = ""
    renews: bool = False
    flaw: str | None = None
    cert_names: tuple[str, ...] = ()
    has_plugin: bool = False
    is_packaged: bool = False

    def renews_daily(self, name: str) -> bool:
        """Tell whether it renews the certificate called name, as far as can be seen."""
        return self.renews and self.flaw is None and (not self.cert_names or name in self.cert_names)

    def stores_staples(self, folder: str) -> bool:
        """Tell whether it fetches OCSP responses, and has to do with this folder."""
        return _OCSP.search(self.text) is not None and folder in self.text

    @property
    def pre_hooks(self) -> str:
        """Return what its commands give certbot to run before a renewal; "" without."""
        return "\n".join(hook.strip("\"'") for hook in _PRE_HOOK.findall(self.text))


def has_cron(root: str = "/") -> bool:
    """Tell whether a program that reads crontabs is installed below root."""
    return any(os.path.lexists(os.path.join(root, folder, name)) for folder in _CRON_FOLDERS for name in _CRONS)


def jobs(root: str = "/", config_dir: str = "/etc/letsencrypt") -> list[Job]:
    """Return what runs by the clock on the system below root and has to do with certificates in config_dir."""
    reader = _Reader(root, config_dir, os.path.isdir(os.path.join(root, "run/systemd/system")))
    return [*(reader.timers() if reader.has_systemd else ()), *reader.crontabs(), *reader.script_folders()]


def stops_nginx(command: str) -> bool:
    """Tell whether a shell command stops nginx."""
    return _STOPS_NGINX.search(command) is not None


def places_that_stop_nginx(known: Iterable[Job], config_dir: str, root: str = "/") -> list[str]:
    """Return where a pre-hook for all certificates stops nginx: certbot's folder, its cli.ini, what runs it (known)."""
    hooks = {job.place: job.pre_hooks for job in known}
    for path in glob.glob(os.path.join(glob.escape(config_dir), "renewal-hooks", "pre", "*")):
        if os.access(path, os.X_OK) and not path.endswith("~"):  # certbot's hooks.list_hooks()
            hooks[path] = read_script(path)
    hooks |= {path: stated.get("pre_hook", "") for path, stated in cli_settings(root).items()}
    return [place for place, hook in hooks.items() if stops_nginx(hook)]


def cli_settings(root: str = "/") -> dict[str, dict[str, str]]:
    """Return what stands in certbot's own settings on the system below root, by path and name; the last line counts."""
    settings = {}
    for folder in ("/etc", os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")):
        path = os.path.join(root, folder.lstrip("/"), "letsencrypt", "cli.ini")
        pairs = [line.partition("=") for line in read_script(path).splitlines() if "=" in line]
        settings[path] = {name.strip().replace("-", "_"): value.strip().strip("\"'") for name, _, value in pairs}
    return settings


@dataclass(frozen=True)
class _Reader:
    """What is read: the system below root, for the certificates in config_dir."""

    root: str
    config_dir: str
    has_systemd: bool

    def crontabs(self) -> Iterator[Job]:
        """Yield the lines of all crontabs (crontab(5), anacrontab(5))."""
        paths = [self._path(name) for name in _CRONTABS]
        paths += [path for folder in _CRONTAB_FOLDERS for path in _entries(self._path(folder))]
        for path in paths:
            text = read_script(path)
            flaw = _name_flaw(path) if os.path.dirname(path).endswith("cron.d") else None
            (*_, folders) = (_PROGRAM_FOLDERS, *re.findall(r"(?m)^PATH\s*=\s*[\"']?([^\"'\n]+)", text))
            for number, line in enumerate(text.splitlines(), 1):
                if words := line.split():
                    rarity = _TOO_RARE if _is_rare(words, is_anacrons=path.endswith("anacrontab")) else None
                    yield from self._job(f"{path}:{number}", line, flaw or rarity, folders)

    def script_folders(self) -> Iterator[Job]:
        """Yield the scripts that are run by their folder (run-parts(8))."""
        for path in [path for folder in _SCRIPT_FOLDERS for path in _entries(self._path(folder))]:
            flaw = _name_flaw(path) or (None if os.access(path, os.X_OK) else "it is not executable")
            rarity = _TOO_RARE if path.split("/")[-2].endswith(("weekly", "monthly")) else None
            yield from self._job(path, read_script(path), flaw or rarity)

    def timers(self) -> Iterator[Job]:
        """Yield the enabled timers, with what their services run: as systemd says, else as the unit files do.

        How often they do is not read: that shows by when `certbot renew` last came by.
        """
        links = [link for folder in _UNITS for link in _entries(self._path(folder), "*.wants/*.timer")]
        names = dict.fromkeys(map(os.path.basename, links))
        asked = _show("*.timer", *names, "certbot.timer") if self.root == "/" else {}
        asked |= _show(*(name for timer in asked.values() for name in _values(timer.text, "Unit"))) if asked else {}
        for name in [name for name in asked if name.endswith(".timer")] or names:
            timer = asked.get(name) or self._unit(name)
            named = _values(timer.text, "Unit")
            service_name = named[-1] if named else name.removesuffix(".timer") + ".service"
            service = asked.get(service_name) or self._unit(service_name)
            commands = "\n".join(_values(service.text, "Exec(?:Start|StartPre|StartPost)"))
            flaw = timer.flaw or service.flaw
            is_packaged = name.startswith("snap.") or not timer.path.startswith(self._path("etc"))
            yield from self._job(timer.path, commands, flaw, is_packaged=is_packaged)

    def _job(
        self, place: str, command: str, flaw: str | None, folders: str = _PROGRAM_FOLDERS, *, is_packaged: bool = False
    ) -> Iterator[Job]:
        """Yield the job that runs these commands, where it has to do with certificates. flaw: of its place and time."""
        is_debians = _NOT_UNDER_SYSTEMD.search(command) is not None
        if is_debians and self.has_systemd:
            return
        texts = {} if is_debians else self._scripts(command, folders)
        text = "\n".join([command, *texts.values()]).replace("\\\n", " ")
        text = text.replace("certbot.renew", "certbot renew")  # as the snap's own timer has it
        renewals = [renewal for renewal in _CERTBOT.finditer(text) if _RENEW.search(renewal["words"])]
        if not renewals and not _OCSP.search(text):
            return
        flaws = [self._flaw_of(renewal, text) for renewal in renewals]
        named = [re.findall(r"--cert-name[ =][\"']?([^\s\"']+)", renewal["words"]) for renewal in renewals]
        yield Job(
            place,
            tuple(path for path, script in texts.items() if _CERTBOT.search(script) or _OCSP.search(script)),
            text,
            bool(renewals),
            flaw or (flaws[0] if flaws and all(flaws) else None),
            tuple(name for names in named for name in names) if all(named) else (),
            any(self._has_plugin(renewal["program"], folders) for renewal in renewals),
            is_packaged or is_debians,
        )

    def _flaw_of(self, renewal: re.Match[str], text: str) -> str | None:
        """Return why a `certbot renew` does not keep the configuration folder's certificates; None where it does."""
        words, program = renewal["words"], renewal["program"]
        tested = re.findall(r"test\s+-x\s+(/\S*certbot)\b", text)
        gone = [path for path in (program, *tested) if path.startswith("/") and not os.path.lexists(self._path(path))]
        if self.root == "/" and not self._find(program, _PROGRAM_FOLDERS):
            gone.append(program)
        if gone:
            return f"{gone[0]} is not there"
        if "--dry-run" in words.split():
            return "with --dry-run, it renews nothing"
        folders = re.findall(r"--config-dir[ =][\"']?([^\s\"']+)", words)
        if folders and self.config_dir not in (folders[-1], self._path(folders[-1])):
            return f"it renews what is in {folders[-1]}"
        return None

    def _has_plugin(self, program: str, folders: str) -> bool:
        path = self._find(program, folders)
        interpreter = re.match(r"#!\s*(\S+)", files.text(path)) if path else None
        return interpreter is not None and os.path.dirname(interpreter[1]) == os.path.dirname(sys.executable)

    def _find(self, program: str, folders: str) -> str | None:
        paths = [self._path(os.path.join(folder, program)) for folder in folders.split(":")]
        return next(filter(os.path.exists, paths), None)

    def _scripts(self, command: str, folders: str) -> dict[str, str]:
        """Return the scripts that the command names, by path: in full, from the folder of its `cd`, or by PATH."""
        within = [*_FOLDER.findall(command), *folders.split(":"), "/root"]
        scripts = {}
        for word in _WORD.findall(command):
            for path in (self._path(os.path.join(folder, word)) for folder in ([""] if word[0] == "/" else within)):
                is_certbot = os.path.basename(path) in ("certbot", "certbot-auto")
                if text := "" if is_certbot else read_script(path):
                    scripts[path] = text
                    break
        return scripts

    def _path(self, path: str) -> str:
        return path if self.root != "/" and path.startswith(self.root) else os.path.join(self.root, path.lstrip("/"))

    def _unit(self, name: str) -> Unit:
        """Read a unit with its drop-ins, or the template that it is made of (systemd.unit(5))."""
        stem, _, instance = name.partition("@")
        instance, dot, kind = instance.rpartition(".")
        names = [name, f"{stem}@.{kind}"] if dot else [name]
        places = [self._path(os.path.join(folder, each)) for each in names for folder in _UNITS]
        path = next(filter(os.path.lexists, places), "")
        target = os.readlink(path) if os.path.islink(path) else path
        if target == os.devnull:
            return Unit(path, "", _masked(name))
        parts = {
            os.path.basename(part): part for place in reversed(places) for part in _entries(f"{place}.d", "*.conf")
        }
        own = self._path(target) if os.path.isabs(target) else os.path.join(os.path.dirname(path), target)
        texts = [files.text(each) for each in (own, *(parts[part] for part in sorted(parts)))]
        return Unit(path or name, "\n".join(texts).replace("%i", instance))


@dataclass(frozen=True)
class Unit:
    """A unit of systemd: its file (or its name), the lines of it and its drop-ins, and why it does not run."""

    path: str
    text: str
    flaw: str | None = None


def _masked(name: str) -> str:
    return f"{name} is masked, which `systemctl unmask {name}` ends"


def _show(*names: str) -> dict[str, Unit]:
    """Return what systemd says of units that are there, as the lines of unit files; {} where it does not answer."""
    properties = "--property=Id,LoadState,ActiveState,FragmentPath,Unit,ExecStart"
    try:
        done = subprocess.run(
            ["systemctl", "show", properties, "--", *names], capture_output=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    blocks = [block for block in done.stdout.decode("utf-8", "replace").split("\n\n") if block.strip()]
    return {name: unit for name, unit in map(read_shown, blocks) if unit is not None}


def read_shown(block: str) -> tuple[str, Unit | None]:
    """Return a unit's name, and what its block of `systemctl show` says; None where there is no such unit."""
    facts = {key: value for key, _, value in (line.partition("=") for line in block.splitlines())}
    name, state, path = facts["Id"], facts["LoadState"], facts.get("FragmentPath", "")
    if state == "masked":
        return name, Unit(path or name, "", _masked(name))
    lines = [f"ExecStart={argv}" for argv in re.findall(r"^ExecStart=.*? argv\[\]=(.*?) ; ignore_errors=", block, re.M)]
    lines += [f"Unit={facts['Unit']}"] if "Unit" in facts else []
    is_idle = name.endswith(".timer") and facts["ActiveState"] != "active"
    flaw = f"{name} does not run, which `systemctl enable --now {name}` ends" if is_idle else None
    return name, Unit(path or name, "\n".join(lines), flaw) if state == "loaded" else None


def _is_rare(words: Sequence[str], *, is_anacrons: bool) -> bool:
    """Tell whether a line lets more than a day go by between two runs (crontab(5); anacrontab(5): a period in days)."""
    if is_anacrons or words[0].startswith("@"):
        return words[0] not in ("1", "@daily", "@midnight", "@hourly")
    if len(words) < 6:
        return True
    days, month, weekdays = words[2:5]
    fulls = [_is_full(days, 1, 31), _is_full(weekdays, 0, 6, _DAYS)]
    # Where neither begins with "*", the line runs on the days of both.
    is_daily = all(fulls) if "*" in (days[0], weekdays[0]) else any(fulls)
    return not (is_daily and _is_full(month, 1, 12, _MONTHS))


def _is_full(field: str, first: int, last: int, names: str = "") -> bool:
    """Tell whether a field of a crontab names all values from first to last. names: of the values, from first on."""
    values: set[int] = set()
    field, count = field.lower(), last - first + 1
    for number, name in enumerate(names.split(), first):
        field = field.replace(name, str(number))
    try:
        for part in field.split(","):
            span, _, step = part.partition("/")
            low, _, high = (f"{first}-{last}" if span == "*" else span).partition("-")
            begin, end = int(low), int(high or (last if step else low))
            values.update(range(begin, end + 1 if end >= begin else end + count + 1, int(step or 1)))
    except ValueError:
        return False
    return {(value - first) % count for value in values} == set(range(count))  # cron's 7 is its 0


def _values(text: str, key: str) -> list[str]:
    """Return the values of a unit's setting, in order: an empty one takes back those before it."""
    values: list[str] = []
    for value in re.findall(rf"(?m)^[ \t]*{key}[ \t]*=[ \t]*(.*?)[ \t]*$", text):
        values = [*values, value] if value else []
    return values


def _name_flaw(path: str) -> str | None:
    if _FILE_NAME.fullmatch(os.path.basename(path)):
        return None
    return "cron skips a file whose name has other characters than letters, digits, - and _"


def read_script(path: str) -> str:
    """Return the lines of a small text file that are no comments; "" for anything else."""
    text = files.text(path, at_most_bytes=_SCRIPT_BYTES)  # most commands are large programs
    lines = () if "\0" in text else text.splitlines()
    return "\n".join("" if line.lstrip().startswith("#") else line for line in lines)


def _entries(folder: str, pattern: str = "*") -> list[str]:
    """Return the paths in a folder that are no folders, sorted, without dot files; none where it cannot be read."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))
    return [path for path in paths if not os.path.isdir(path)]
