"""The console script's door: words in, one use case, an exit code out.

The law: exit code 0 is done, 1 is failed (one line on stderr says what and what to do), 2 is wrong usage; nothing
that a person can cause ends in a traceback.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Sequence

from certbot import configuration

from certbot_seafile import (
    __version__,
    asking,
    check,
    deploy,
    errors,
    handover,
    lineage,
    pinning,
    plugin,
    refreshing,
    report,
    settings,
    settling,
    undo,
)
from certbot_seafile.host import Host

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
_MANY = 20  # lineages, from which on a person would wonder whether anything happens
_LOG_NAME = "certbot-seafile.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    said = _parser().parse_args(arguments)
    try:
        said.handed = _settings_of_root(said)
        if said.handed is not None and said.command in _OF_THE_USER:
            handover.become(said.handed.user)
        _set_up_logging(said)
        return int(_COMMANDS[said.command](said))
    except errors.CertbotError as error:
        logger.debug("failed", exc_info=True)
        print(f"certbot-seafile: {error}", file=sys.stderr)
        return FAILED


def _settings_of_root(said: argparse.Namespace) -> settings.Settings | None:
    """Return what root goes by where another user renews; None for that user, and where root does so itself.

    Raises errors.FileRefused.
    """
    if os.geteuid() != 0:
        return None
    found, config_dir = settings.read(said.settings), os.path.abspath(said.config_dir)
    if said.command == "settle" or (found is not None and found.config_dir == config_dir):
        return found
    if said.command != "setup" and os.path.exists(lineage.handover_path(config_dir)):
        raise errors.FileRefused(
            f"{config_dir} was handed over to another user, but {said.settings} says nothing of it; "
            "run `certbot-seafile setup --user USER` again"
        )
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="certbot-seafile", description="What certbot's seafile plugin does around renewals, and how things stand."
    )
    parser.add_argument("--version", action="version", version=f"certbot-seafile {__version__}")
    parser.add_argument("--config-dir", default="/etc/letsencrypt", metavar="D", help="certbot's configuration folder")
    parser.add_argument("--work-dir", default="/var/lib/letsencrypt", metavar="D", help="certbot's work folder")
    parser.add_argument("--logs-dir", default="/var/log/letsencrypt", metavar="D", help="certbot's log folder")
    parser.add_argument("--http-01-port", dest="http_port", type=int, help="as certbot's option of that name")
    parser.add_argument("--https-port", dest="https_port", type=int, help="as certbot's option of that name")
    parser.add_argument("--seafile-ctl", dest="ctl", metavar="PATH", help="nginx binary, where no lineage says it")
    parser.add_argument(
        "--seafile-staple-dir", dest="staple_dir", metavar="DIR", help="folder of staples, where no lineage says it"
    )
    parser.add_argument(
        "--settings", default=settings.DEFAULT_PATH, metavar="FILE", help="what `setup` wrote (renewals without root)"
    )
    volume = parser.add_mutually_exclusive_group()
    volume.add_argument("-q", "--quiet", action="store_true", help="say nothing but failures")
    volume.add_argument("-v", "--verbose", action="store_true", help="say each step, with the site's diff")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("--cert-name", metavar="NAME", help="this lineage only")
    commands.add_parser("deploy", parents=[one], help="the deploy hook: staple, site, test, reload, look")
    refresh = commands.add_parser("refresh", parents=[one], help="refresh the OCSP staples that are due")
    refresh.add_argument("--force", action="store_true", help="refresh them all, due or not")
    status = commands.add_parser("status", parents=[one], help="a table of the lineages and what is served")
    status.add_argument("--json", action="store_true", help="the same as JSON, for monitoring")
    checked = commands.add_parser(
        "check", parents=[one], help="say what is wrong and what to do; exit 1 if anything is"
    )
    checked.add_argument(
        "--root", default="/", metavar="DIR", help="where timers and crontabs are looked for, for example a container's"
    )
    commands.add_parser("undo", parents=[one], help="take this package's edits and files out again")
    made = commands.add_parser("setup", parents=[one], help="hand the renewals over to an ordinary user (root)")
    made.add_argument("--user", required=True, metavar="USER", help="who is to run certbot; made where missing")
    made.add_argument("-d", "--domain", action="append", default=[], metavar="NAME", help="let its site be challenged")
    made.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    made.add_argument("--state-dir", default=settings.DEFAULT_STATE_DIR, metavar="DIR", help="root's own folder")
    has_systemd = os.path.isdir("/run/systemd/system")
    made.add_argument(
        "--systemd-dir", default="/etc/systemd/system" if has_systemd else None, metavar="DIR",
        help="where systemd's units go (default: its own folder, where systemd runs; empty: nowhere)",
    )  # fmt: skip
    made.add_argument(
        "--socket", default=settings.DEFAULT_SOCKET if has_systemd else None, metavar="PATH",
        help="where root's step is asked (default: below /run, where systemd runs; empty: a scheduler runs it)",
    )  # fmt: skip
    for name, metavar, text in (
        ("server-root", "DIR", "folder of nginx.conf"),
        ("reload-cmd", "CMD", "how root's step reloads nginx"),
        ("webroot", "DIR", "where challenges are written"),
    ):
        dest = name.replace("-", "_")
        made.add_argument(f"--seafile-{name}", dest=dest, metavar=metavar, help=f"{text}, where no lineage says it")
    commands.add_parser("settle", help="root's step: store and serve what that user renewed")
    return parser


def _set_up_logging(said: argparse.Namespace) -> None:
    root = logging.getLogger("certbot_seafile")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if said.verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
    if said.handed is not None and os.geteuid() == 0:
        return  # the folder of logs is another user's
    try:
        log = logging.handlers.RotatingFileHandler(
            os.path.join(said.logs_dir, _LOG_NAME), maxBytes=1_000_000, backupCount=5, encoding="utf-8", delay=True
        )
        if os.access(said.logs_dir, os.W_OK):
            log.setLevel(logging.DEBUG)
            log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            root.addHandler(log)
    except OSError as error:
        logger.warning("no log in %s: %s", said.logs_dir, error.strerror)


def _certbot_configuration(said: argparse.Namespace) -> configuration.NamespaceConfig:
    return configuration.NamespaceConfig(
        argparse.Namespace(
            config_dir=said.config_dir,
            work_dir=said.work_dir,
            logs_dir=said.logs_dir,
            http01_port=said.http_port or 80,
            https_port=said.https_port or 443,
            strict_permissions=False,
            domains=[],
            server="",
        )
    )


def _host(said: argparse.Namespace, options: lineage.Options) -> Host:
    def say(text: str) -> None:
        if not said.quiet:
            print(text)

    of_root: dict[str, object] = {}
    if said.handed is not None and os.geteuid() == 0:
        of_root = {"state_dir": said.handed.state_dir, "checkpoints": _NoCheckpoints()}
    return plugin.host_for(_certbot_configuration(said), options, say, **of_root)


class _NoCheckpoints:
    """What stands in for certbot's checkpoints where they lie in another user's folder: `undo` goes by our journal."""

    def settle(self) -> None:
        """Do nothing: none is open."""

    def add(self, paths: set[str], notes: str) -> None:
        """Do nothing."""

    def finish(self, title: str) -> None:
        """Do nothing."""

    def drop(self) -> None:
        """Do nothing."""


def _load(said: argparse.Namespace, name: str) -> lineage.Lineage:
    ports = {key: getattr(said, key) for key in ("http_port", "https_port") if getattr(said, key)}
    return lineage.load(os.path.abspath(said.config_dir), name, **ports)


def _ours(said: argparse.Namespace, name: str) -> lineage.Lineage | None:
    """Return the lineage where it is this plugin's; None for others, also where they cannot be read."""
    try:
        found = _load(said, name)
    except errors.LineageRefused:
        if not said.cert_name and not lineage.is_of_plugin(os.path.abspath(said.config_dir), name):
            return None
        raise
    return found if lineage.names_plugin(found.renewal) else None


def _machine_host(said: argparse.Namespace, found: Sequence[lineage.Lineage]) -> Host:
    """Return what to work with on the machine as a whole: as the lineages say, else as the command line does."""
    if found:
        return _host(said, found[0].options)
    chosen = {key: value for key in ("ctl", "staple_dir") if (value := getattr(said, key))}
    return _host(said, lineage.Options(**chosen))


def _chosen(said: argparse.Namespace) -> list[lineage.Lineage]:
    names = [said.cert_name] if said.cert_name else lineage.names_of_plugin(os.path.abspath(said.config_dir))
    if not names:
        raise _no_lineage(said)
    return [_load(said, name) for name in names]


def _no_lineage(said: argparse.Namespace) -> errors.LineageRefused:
    return errors.LineageRefused(
        f"no lineage in {os.path.abspath(said.config_dir)} uses the seafile plugin; "
        "get one with `certbot certonly -a seafile -d NAME`"
    )


def _deploy(said: argparse.Namespace) -> int:
    renewed = os.environ.get("RENEWED_LINEAGE")
    if renewed:
        said.cert_name = lineage.from_environment(said.config_dir, renewed)
    elif not said.cert_name:
        raise errors.LineageRefused("no lineage is named: give --cert-name NAME, or let certbot set RENEWED_LINEAGE")
    for found in _chosen(said):
        deploy.deploy(_host(said, found.options), found)
    return DONE


def _refresh(said: argparse.Namespace) -> int:
    config_dir = os.path.abspath(said.config_dir)
    names = [said.cert_name] if said.cert_name else lineage.all_names(config_dir)
    host_for = functools.lru_cache(lambda options: _host(said, options))
    progress = _Progress(said, len(names))
    waiting: list[lineage.Lineage] = []

    def load(name: str) -> lineage.Lineage | None:
        one = _ours(said, name)
        if one is None or not pinning.is_waiting(host_for(one.options), one):
            return one
        waiting.append(one)
        return None

    found, good = False, True
    for result in refreshing.refresh_all(names, load, host_for, force=said.force, on_progress=progress):
        progress.clear()
        result.report(progress.say)
        found, good = True, good and result.failure is None
    progress.clear()
    for one in waiting:
        found, good = True, _try_again(host_for(one.options), one) and good
    if not found:
        raise _no_lineage(said)
    return DONE if good else FAILED


def _try_again(host: Host, found: lineage.Lineage) -> bool:
    """Bring a certificate live that waits for its staple, else refresh that of the version before; return success."""
    try:
        deploy.deploy(host, found)
    except errors.CertbotError as error:
        text = str(error)
        logger.warning("%s", text if text.startswith(found.name) else f"{found.name}: {text}")
        return False
    return True


class _Progress:
    """How far a long run is, on one line of a terminal that is overwritten; nothing elsewhere, and with -q."""

    def __init__(self, said: argparse.Namespace, total: int) -> None:
        self._total, self._is_quiet = total, said.quiet
        self._is_shown = total >= _MANY and not said.quiet and sys.stderr.isatty()

    def __call__(self, count: int) -> None:
        """Show how many are done."""
        if self._is_shown:
            print(f"\rRefreshing staples: {count} of {self._total}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """Say something, unless quiet."""
        if not self._is_quiet:
            print(text)


def _readable(said: argparse.Namespace) -> tuple[list[lineage.Lineage], list[report.Damaged]]:
    """Return the lineages that were asked for, and those of them that cannot be read."""
    config_dir = os.path.abspath(said.config_dir)
    found, damaged = [], []
    for name in [said.cert_name] if said.cert_name else lineage.names_of_plugin(config_dir):
        try:
            found.append(_load(said, name))
        except errors.LineageRefused as refused:
            damaged.append(report.Damaged(name, str(refused)))
    return found, damaged


def _status(said: argparse.Namespace) -> int:
    found, damaged = _readable(said)
    standings = [report.standing(_host(said, one.options), one) for one in found]
    if said.json:
        print(json.dumps(report.as_json(standings, damaged), indent=2))
    elif found or damaged:
        print(report.as_table(standings, damaged))
    else:
        raise _no_lineage(said)
    return FAILED if damaged else DONE


def _check(said: argparse.Namespace) -> int:
    found, damaged = _readable(said)
    host = _machine_host(said, found)
    findings = [check.Finding(f"{one.name}: {one.failure}.") for one in damaged if not _is_deleted(said, one.name)]
    findings += [finding for one in found for finding in check.lineage_findings(_host(said, one.options), one)]
    findings += check.machine_findings(host, found, said.root)
    if (handed := settings.of_user(os.path.abspath(said.config_dir))) is not None:
        findings += check.handover_findings(handed)
    if not found and not findings:
        raise errors.LineageRefused(damaged[0].failure) if damaged else _no_lineage(said)
    for finding in findings:
        print(finding)
    is_wrong = any(finding.is_fault for finding in findings)
    if not findings:
        host.say("All is well.")
    return FAILED if is_wrong else DONE


def _is_deleted(said: argparse.Namespace, name: str) -> bool:
    return name not in lineage.all_names(os.path.abspath(said.config_dir))


def _setup(said: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise errors.FileRefused("setup hands over what is root's; run it as root")
    before = said.handed
    chosen = before or _new_settings(said)
    names = list(chosen.lineages) if before else lineage.names_of_plugin(chosen.config_dir)
    if said.cert_name and (before or said.cert_name not in names):
        names.append(said.cert_name)
    said.handed = chosen
    host = _host(said, chosen.options)
    steps = handover.Handover(
        said.settings, before, chosen, _is_roots(chosen.config_dir), functools.partial(_host, said), host.say,
        [_program()], said.systemd_dir or None, said.dry_run,
    ).run(list(dict.fromkeys(names)), said.domain)  # fmt: skip
    if not steps:
        host.say(f"All is set up: {said.user} runs certbot, root does the rest.")
    if said.dry_run:
        return DONE
    said.handed = settings.read(said.settings)
    return _report(settling.settle(said.handed or chosen, functools.partial(_host, said)))


def _new_settings(said: argparse.Namespace) -> settings.Settings:
    """Return the settings of a first handover; a later lineage is to be like the first, as far as the machine goes."""
    config_dir, work_dir, logs_dir = map(os.path.abspath, (said.config_dir, said.work_dir, said.logs_dir))
    keys = ("ctl", "server_root", "reload_cmd", "webroot", "staple_dir")
    found = _readable(said)[0] if _is_roots(config_dir) else []
    like = {key: getattr(found[0].options, key) for key in keys} if found else {}
    given = {key: value for key in (*keys, "http_port", "https_port") if (value := getattr(said, key))}
    return settings.Settings(
        said.user, config_dir, work_dir, logs_dir, os.path.abspath(said.state_dir), said.socket or None,
        options=lineage.Options(**like | given),
    )  # fmt: skip


def _is_roots(config_dir: str) -> bool:
    """Tell whether what stands in certbot's folder was written by root."""
    return os.path.isdir(config_dir) and os.stat(config_dir).st_uid == os.geteuid()


def _program() -> str:
    return os.path.abspath(sys.argv[0])


def _settle(said: argparse.Namespace) -> int:
    """Run root's step; what came of it goes to whoever asked, in one last line on stdout."""
    if said.handed is None:
        raise errors.FileRefused(
            f"there is no {said.settings} for root to go by; run `certbot-seafile setup --user USER` as root first"
        )
    os.environ.clear()
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8")
    said.quiet, (said.config_dir, said.work_dir, said.logs_dir) = True, said.handed.folders
    try:
        failures = settling.settle(said.handed, functools.partial(_host, said))
    except errors.CertbotError as error:
        failures = [str(error)]
    print(asking.FAILED + " / ".join(failures) if failures else asking.DONE)
    return _report(failures)


def _report(failures: Sequence[str]) -> int:
    for failure in failures:
        logger.error("%s", failure)
    return FAILED if failures else DONE


def _undo_of_root(said: argparse.Namespace, handed: settings.Settings) -> int:
    """Undo where the renewals were handed over: nothing is taken from folders that the user can write."""
    host = _host(said, handed.options)
    names = sorted(handed.lineages)
    if said.cert_name:
        is_clean = undo.undo_one(host, said.cert_name)
        left = {name: options for name, options in handed.lineages.items() if name != said.cert_name}
        settings.write(said.settings, dataclasses.replace(handed, lineages=left))
    else:
        is_clean = undo.undo_all(host, names)
        handover.take_back(said.settings, handed, host.say)
    return _undone(host, is_clean)


def _undo(said: argparse.Namespace) -> int:
    if said.handed is not None:
        return _undo_of_root(said, said.handed)
    if settings.of_user(os.path.abspath(said.config_dir)) is not None:
        raise errors.RootNeeded("only root can take the site's edits out again; run `sudo certbot-seafile undo`")
    found, _ = _readable(said)
    host = _machine_host(said, found)
    if said.cert_name:
        is_clean = undo.undo_one(host, said.cert_name)
    else:
        names = {one.name for one in found} | set(check.stapled_names(host))
        if not names and not host.journal.entries():
            raise _no_lineage(said)
        is_clean = undo.undo_all(host, sorted(names))
    return _undone(host, is_clean)


def _undone(host: Host, is_clean: bool) -> int:
    if is_clean:
        host.say("The site is as it was. The certificates stay certbot's: `certbot delete` ends their renewal,")
        host.say("which would put them into the site again.")
        return DONE
    print(
        "certbot-seafile: lines of ours that somebody has changed since were left in the site; "
        "look for certbot-seafile and /etc/letsencrypt in it, and take out by hand what is not wanted",
        file=sys.stderr,
    )
    return FAILED


_COMMANDS = {
    "deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo, "setup": _setup,
    "settle": _settle,
}  # fmt: skip

#: What root does as the user, where the renewals were handed over.
_OF_THE_USER = {"deploy", "refresh", "status", "check"}


if __name__ == "__main__":
    sys.exit(main())
