"""The console script's door: words in, one use case, an exit code out.

The law: exit code 0 is done, 1 is failed (one line on stderr says what and what to do), 2 is wrong usage; nothing
that a person can cause ends in a traceback.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Sequence

from certbot import configuration

from certbot_seafile import __version__, check, deploy, errors, lineage, plugin, refreshing, report, undo
from certbot_seafile.host import Host

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
_MANY = 20  # lineages, from which on a person would wonder whether anything happens
_LOG_NAME = "certbot-seafile.log"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    said = _parser().parse_args(arguments)
    _set_up_logging(said)
    try:
        return int(_COMMANDS[said.command](said))
    except errors.CertbotError as error:
        logger.debug("failed", exc_info=True)
        print(f"certbot-seafile: {error}", file=sys.stderr)
        return FAILED


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
    return parser


def _set_up_logging(said: argparse.Namespace) -> None:
    root = logging.getLogger("certbot_seafile")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if said.verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
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

    return plugin.host_for(_certbot_configuration(said), options, say)


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
    found, good = False, True
    for result in refreshing.refresh_all(
        names, lambda name: _ours(said, name), host_for, force=said.force, on_progress=progress
    ):
        progress.clear()
        result.report(progress.say)
        found, good = True, good and result.failure is None
    progress.clear()
    if not found:
        raise _no_lineage(said)
    return DONE if good else FAILED


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


def _undo(said: argparse.Namespace) -> int:
    found, _ = _readable(said)
    host = _machine_host(said, found)
    if said.cert_name:
        is_clean = undo.undo_one(host, said.cert_name)
    else:
        names = {one.name for one in found} | set(check.stapled_names(host))
        if not names and not host.journal.entries():
            raise _no_lineage(said)
        is_clean = undo.undo_all(host, sorted(names))
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


_COMMANDS = {"deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo}


if __name__ == "__main__":
    sys.exit(main())
