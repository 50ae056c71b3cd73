"""The console script's door: words in, one use case, an exit code out.

The law: exit code 0 is done, 1 is failed (one line on stderr says what and what to do), 2 is wrong usage; nothing
that a person can cause ends in a traceback.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import os
import sys
from collections.abc import Sequence

from certbot import configuration

from certbot_seafile import __version__, deploy, errors, lineage, plugin, report, stapling
from certbot_seafile.host import Host

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
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
    commands.add_parser("check", parents=[one], help="say what is wrong and what to do; exit 1 if anything is")
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


def _chosen(said: argparse.Namespace) -> list[lineage.Lineage]:
    config_dir = os.path.abspath(said.config_dir)
    names = [said.cert_name] if said.cert_name else lineage.names_of_plugin(config_dir)
    if not names:
        raise errors.LineageRefused(
            f"no lineage in {config_dir} uses the seafile plugin; get one with `certbot certonly -a seafile -d NAME`"
        )
    return [_load(said, name) for name in names]


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
    chosen = _chosen(said)
    good = True
    for found in chosen:
        host = _host(said, found.options)
        good = stapling.report(host, stapling.refresh(host, [found], force=said.force)) and good
    return DONE if good else FAILED


def _status(said: argparse.Namespace) -> int:
    standings = [report.standing(_host(said, found.options), found) for found in _chosen(said)]
    if said.json:
        print(json.dumps(report.as_json(standings), indent=2))
    else:
        print(report.as_table(standings))
    return DONE


def _check(said: argparse.Namespace) -> int:
    wrong = [line for found in _chosen(said) for line in report.faults(_host(said, found.options), found)]
    for line in wrong:
        print(line)
    if not wrong and not said.quiet:
        print("All is well.")
    return FAILED if wrong else DONE


def _undo(said: argparse.Namespace) -> int:
    chosen = _chosen(said)
    host = _host(said, chosen[0].options)
    if deploy.undo(host, chosen):
        host.say("The site is as it was; the certificates and their renewal are certbot's and stay.")
        return DONE
    print("certbot-seafile: some lines were changed by others too and stay; see the log", file=sys.stderr)
    return FAILED


_COMMANDS = {"deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo}


if __name__ == "__main__":
    sys.exit(main())
