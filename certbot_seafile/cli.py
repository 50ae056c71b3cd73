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

from certbot_seafile import __version__, errors, plugin
from certbot_seafile.doctor import findings
from certbot_seafile.sealed import asking, handover, pinning, settings, settling
from certbot_seafile.system import lineages
from certbot_seafile.system.context import Context
from certbot_seafile.usecases import deploy, refresh, status, undo

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


def _settings_of_root(arguments: argparse.Namespace) -> settings.Settings | None:
    """Return what root goes by where another user renews; None for that user, and where root does so itself.

    Raises errors.FileRefused.
    """
    if os.geteuid() != 0:
        return None
    found, config_dir = settings.read(arguments.settings), os.path.abspath(arguments.config_dir)
    if arguments.command == "settle" or (found is not None and found.config_dir == config_dir):
        return found
    if arguments.command != "setup" and os.path.exists(lineages.handover_path(config_dir)):
        raise errors.FileRefused(
            f"{config_dir} was handed over to another user, but {arguments.settings} says nothing of it; "
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


def _set_up_logging(arguments: argparse.Namespace) -> None:
    root = logging.getLogger("certbot_seafile")
    root.setLevel(logging.DEBUG)
    root.propagate = False
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.DEBUG if arguments.verbose else logging.WARNING)
    console.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(console)
    if arguments.handed is not None and os.geteuid() == 0:
        return  # the folder of logs is another user's
    try:
        log = logging.handlers.RotatingFileHandler(
            os.path.join(arguments.logs_dir, _LOG_NAME), maxBytes=1_000_000, backupCount=5, encoding="utf-8", delay=True
        )
        if os.access(arguments.logs_dir, os.W_OK):
            log.setLevel(logging.DEBUG)
            log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            root.addHandler(log)
    except OSError as error:
        logger.warning("no log in %s: %s", arguments.logs_dir, error.strerror)


def _certbot_configuration(arguments: argparse.Namespace) -> configuration.NamespaceConfig:
    return configuration.NamespaceConfig(
        argparse.Namespace(
            config_dir=arguments.config_dir,
            work_dir=arguments.work_dir,
            logs_dir=arguments.logs_dir,
            http01_port=arguments.http_port or 80,
            https_port=arguments.https_port or 443,
            strict_permissions=False,
            domains=[],
            server="",
        )
    )


def _context(arguments: argparse.Namespace, options: lineages.Options) -> Context:
    def say(text: str) -> None:
        if not arguments.quiet:
            print(text)

    of_root: dict[str, object] = {}
    if arguments.handed is not None and os.geteuid() == 0:
        of_root = {"state_dir": arguments.handed.state_dir, "checkpoints": _NoCheckpoints()}
    return plugin.context_for(_certbot_configuration(arguments), options, say, **of_root)


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


def _load(arguments: argparse.Namespace, name: str) -> lineages.Lineage:
    ports = {key: getattr(arguments, key) for key in ("http_port", "https_port") if getattr(arguments, key)}
    return lineages.load(os.path.abspath(arguments.config_dir), name, **ports)


def _ours(arguments: argparse.Namespace, name: str) -> lineages.Lineage | None:
    """Return the lineage where it is this plugin's; None for others, also where they cannot be read."""
    try:
        lineage = _load(arguments, name)
    except errors.LineageRefused:
        if not arguments.cert_name and not lineages.is_of_plugin(os.path.abspath(arguments.config_dir), name):
            return None
        raise
    return lineage if lineages.names_plugin(lineage.renewal) else None


def _machine_context(arguments: argparse.Namespace, found: Sequence[lineages.Lineage]) -> Context:
    """Return what to work with on the machine as a whole: as the lineages say, else as the command line does."""
    if found:
        return _context(arguments, found[0].options)
    chosen = {key: value for key in ("ctl", "staple_dir") if (value := getattr(arguments, key))}
    return _context(arguments, lineages.Options(**chosen))


def _chosen(arguments: argparse.Namespace) -> list[lineages.Lineage]:
    names = (
        [arguments.cert_name]
        if arguments.cert_name
        else lineages.names_of_plugin(os.path.abspath(arguments.config_dir))
    )
    if not names:
        raise _no_lineage(arguments)
    return [_load(arguments, name) for name in names]


def _no_lineage(arguments: argparse.Namespace) -> errors.LineageRefused:
    return errors.LineageRefused(
        f"no lineage in {os.path.abspath(arguments.config_dir)} uses the seafile plugin; "
        "get one with `certbot certonly -a seafile -d NAME`"
    )


def _deploy(arguments: argparse.Namespace) -> int:
    renewed = os.environ.get("RENEWED_LINEAGE")
    if renewed:
        arguments.cert_name = lineages.from_environment(arguments.config_dir, renewed)
    elif not arguments.cert_name:
        raise errors.LineageRefused("no lineage is named: give --cert-name NAME, or let certbot set RENEWED_LINEAGE")
    for found in _chosen(arguments):
        deploy.deploy(_context(arguments, found.options), found)
    return DONE


def _refresh(arguments: argparse.Namespace) -> int:
    config_dir = os.path.abspath(arguments.config_dir)
    names = [arguments.cert_name] if arguments.cert_name else lineages.all_names(config_dir)
    context_for = functools.lru_cache(lambda options: _context(arguments, options))
    progress = _Progress(arguments, len(names))
    waiting: list[lineages.Lineage] = []

    def load(name: str) -> lineages.Lineage | None:
        one = _ours(arguments, name)
        if one is None or not pinning.is_waiting(context_for(one.options), one):
            return one
        waiting.append(one)
        return None

    found, good = False, True
    for result in refresh.refresh_all(names, load, context_for, force=arguments.force, on_progress=progress):
        progress.clear()
        result.report(progress.say)
        found, good = True, good and result.failure is None
    progress.clear()
    for one in waiting:
        found, good = True, _try_again(context_for(one.options), one) and good
    if not found:
        raise _no_lineage(arguments)
    return DONE if good else FAILED


def _try_again(context: Context, lineage: lineages.Lineage) -> bool:
    """Bring a certificate live that waits for its staple, else refresh that of the version before; return success."""
    try:
        deploy.deploy(context, lineage)
    except errors.CertbotError as error:
        text = str(error)
        logger.warning("%s", text if text.startswith(lineage.name) else f"{lineage.name}: {text}")
        return False
    return True


class _Progress:
    """How far a long run is, on one line of a terminal that is overwritten; nothing elsewhere, and with -q."""

    def __init__(self, arguments: argparse.Namespace, total: int) -> None:
        self._total, self._is_quiet = total, arguments.quiet
        self._is_shown = total >= _MANY and not arguments.quiet and sys.stderr.isatty()

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


def _readable(arguments: argparse.Namespace) -> tuple[list[lineages.Lineage], list[status.Damaged]]:
    """Return the lineages that were asked for, and those of them that cannot be read."""
    config_dir = os.path.abspath(arguments.config_dir)
    found, damaged = [], []
    for name in [arguments.cert_name] if arguments.cert_name else lineages.names_of_plugin(config_dir):
        try:
            found.append(_load(arguments, name))
        except errors.LineageRefused as refused:
            damaged.append(status.Damaged(name, str(refused)))
    return found, damaged


def _status(arguments: argparse.Namespace) -> int:
    found, damaged = _readable(arguments)
    standings = [status.standing(_context(arguments, one.options), one) for one in found]
    if arguments.json:
        print(json.dumps(status.as_json(standings, damaged), indent=2))
    elif found or damaged:
        print(status.as_table(standings, damaged))
    else:
        raise _no_lineage(arguments)
    return FAILED if damaged else DONE


def _check(arguments: argparse.Namespace) -> int:
    found, damaged = _readable(arguments)
    context = _machine_context(arguments, found)
    results = [
        findings.Finding(f"{one.name}: {one.failure}.") for one in damaged if not _is_deleted(arguments, one.name)
    ]
    results += [
        finding for one in found for finding in findings.lineage_findings(_context(arguments, one.options), one)
    ]
    results += findings.machine_findings(context, found, arguments.root)
    if (handed := settings.of_user(os.path.abspath(arguments.config_dir))) is not None:
        results += findings.handover_findings(handed)
    if not found and not results:
        raise errors.LineageRefused(damaged[0].failure) if damaged else _no_lineage(arguments)
    for finding in results:
        print(finding)
    is_wrong = any(finding.is_fault for finding in results)
    if not results:
        context.say("All is well.")
    return FAILED if is_wrong else DONE


def _is_deleted(arguments: argparse.Namespace, name: str) -> bool:
    return name not in lineages.all_names(os.path.abspath(arguments.config_dir))


def _setup(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise errors.FileRefused("setup hands over what is root's; run it as root")
    before = arguments.handed
    chosen = before or _new_settings(arguments)
    names = list(chosen.lineages) if before else lineages.names_of_plugin(chosen.config_dir)
    if arguments.cert_name and (before or arguments.cert_name not in names):
        names.append(arguments.cert_name)
    arguments.handed = chosen
    context = _context(arguments, chosen.options)
    steps = handover.Handover(
        arguments.settings, before, chosen, _is_roots(chosen.config_dir), functools.partial(_context, arguments),
        context.say, [_program()], arguments.systemd_dir or None, arguments.dry_run,
    ).run(list(dict.fromkeys(names)), arguments.domain)  # fmt: skip
    if not steps:
        context.say(f"All is set up: {arguments.user} runs certbot, root does the rest.")
    if arguments.dry_run:
        return DONE
    arguments.handed = settings.read(arguments.settings)
    return _report(settling.settle(arguments.handed or chosen, functools.partial(_context, arguments)))


def _new_settings(arguments: argparse.Namespace) -> settings.Settings:
    """Return the settings of a first handover; a later lineage is to be like the first, as far as the machine goes."""
    config_dir, work_dir, logs_dir = map(
        os.path.abspath, (arguments.config_dir, arguments.work_dir, arguments.logs_dir)
    )
    keys = ("ctl", "server_root", "reload_cmd", "webroot", "staple_dir")
    found = _readable(arguments)[0] if _is_roots(config_dir) else []
    like = {key: getattr(found[0].options, key) for key in keys} if found else {}
    given = {key: value for key in (*keys, "http_port", "https_port") if (value := getattr(arguments, key))}
    return settings.Settings(
        arguments.user, config_dir, work_dir, logs_dir, os.path.abspath(arguments.state_dir), arguments.socket or None,
        options=lineages.Options(**like | given),
    )  # fmt: skip


def _is_roots(config_dir: str) -> bool:
    """Tell whether what stands in certbot's folder was written by root."""
    return os.path.isdir(config_dir) and os.stat(config_dir).st_uid == os.geteuid()


def _program() -> str:
    return os.path.abspath(sys.argv[0])


def _settle(arguments: argparse.Namespace) -> int:
    """Run root's step; what came of it goes to whoever asked, in one last line on stdout."""
    if arguments.handed is None:
        raise errors.FileRefused(
            f"there is no {arguments.settings} for root to go by; run `certbot-seafile setup --user USER` as root first"
        )
    os.environ.clear()
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8")
    arguments.quiet, (arguments.config_dir, arguments.work_dir, arguments.logs_dir) = True, arguments.handed.folders
    try:
        failures = settling.settle(arguments.handed, functools.partial(_context, arguments))
    except errors.CertbotError as error:
        failures = [str(error)]
    print(asking.FAILED + " / ".join(failures) if failures else asking.DONE)
    return _report(failures)


def _report(failures: Sequence[str]) -> int:
    for failure in failures:
        logger.error("%s", failure)
    return FAILED if failures else DONE


def _undo_of_root(arguments: argparse.Namespace, handed: settings.Settings) -> int:
    """Undo where the renewals were handed over: nothing is taken from folders that the user can write."""
    context = _context(arguments, handed.options)
    names = sorted(handed.lineages)
    if arguments.cert_name:
        is_clean = undo.undo_one(context, arguments.cert_name)
        left = {name: options for name, options in handed.lineages.items() if name != arguments.cert_name}
        settings.write(arguments.settings, dataclasses.replace(handed, lineages=left))
    else:
        is_clean = undo.undo_all(context, names)
        handover.take_back(arguments.settings, handed, context.say)
    return _undone(context, is_clean)


def _undo(arguments: argparse.Namespace) -> int:
    if arguments.handed is not None:
        return _undo_of_root(arguments, arguments.handed)
    if settings.of_user(os.path.abspath(arguments.config_dir)) is not None:
        raise errors.RootNeeded("only root can take the site's edits out again; run `sudo certbot-seafile undo`")
    found, _ = _readable(arguments)
    context = _machine_context(arguments, found)
    if arguments.cert_name:
        is_clean = undo.undo_one(context, arguments.cert_name)
    else:
        names = {one.name for one in found} | set(findings.stapled_names(context))
        if not names and not context.journal.entries():
            raise _no_lineage(arguments)
        is_clean = undo.undo_all(context, sorted(names))
    return _undone(context, is_clean)


def _undone(context: Context, is_clean: bool) -> int:
    if is_clean:
        context.say("The site is as it was. The certificates stay certbot's: `certbot delete` ends their renewal,")
        context.say("which would put them into the site again.")
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
