"""The console script's commands: each loads what it is about, calls one use case, and returns an exit code.

The law: nothing is decided here, but which lineages are meant, and whether all went well.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from certbot_seafile import assembly, errors
from certbot_seafile.doctor import findings, formats
from certbot_seafile.sealed import asking, handover, pinning, settings, settling
from certbot_seafile.sealed.settings import Settings
from certbot_seafile.system import lineages
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy, refresh, status, undo
from certbot_seafile.usecases.boundary import Failure, attempt

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
_MANY = 20  # lineages, from which on a person would wonder whether anything happens


def take_role(arguments: argparse.Namespace) -> None:
    """Find out who renews here (arguments.handed: what root goes by where that is another user), and be that user.

    Raises errors.FileRefused.
    """
    arguments.handed = _settings_of_root(arguments)
    if arguments.handed is not None and arguments.command in _OF_THE_USER:
        handover.become(arguments.handed.user)


def _settings_of_root(arguments: argparse.Namespace) -> Settings | None:
    """Return what root goes by where another user renews; None for that user, and where root does so itself.

    Raises errors.FileRefused.
    """
    if os.geteuid() != 0:
        return None
    arguments.settings = arguments.settings or settings.DEFAULT_PATH
    stored = settings.read(arguments.settings)
    if arguments.command == "settle" or (stored is not None and stored.config_dir == arguments.config_dir):
        return stored
    if arguments.command != "setup" and os.path.exists(lineages.handover_path(arguments.config_dir)):
        raise errors.FileRefused(
            f"{arguments.config_dir} was handed over to another user, but {arguments.settings} says nothing of it; "
            "run `certbot-seafile setup --user USER` again"
        )
    return None


# --- what commands work with -----------------------------------------------------------------------------------------


def _context(arguments: argparse.Namespace, options: Options) -> Context:
    def say(text: str) -> None:
        if not arguments.quiet:
            print(text)

    # What certbot's checkpoints go by: certbot's own configuration would take longer to load than all the rest.
    config = argparse.Namespace(
        config_dir=arguments.config_dir, work_dir=arguments.work_dir, logs_dir=arguments.logs_dir,
        https_port=arguments.https_port or 443, strict_permissions=False,
        backup_dir=os.path.join(arguments.work_dir, "backups"),
        in_progress_dir=os.path.join(arguments.work_dir, "IN_PROGRESS"),
        temp_checkpoint_dir=os.path.join(arguments.work_dir, "temp_checkpoint"),
    )  # fmt: skip
    chosen: dict[str, Any] = {}
    if arguments.handed is not None and os.geteuid() == 0:
        chosen = {"state_dir": arguments.handed.state_dir, "checkpoints": assembly.NoCheckpoints()}
    return assembly.context_for(config, options, say, **chosen)


def _load(arguments: argparse.Namespace, name: str) -> Lineage:
    ports = {key: getattr(arguments, key) for key in ("http_port", "https_port") if getattr(arguments, key)}
    return lineages.load(arguments.config_dir, name, **ports)


def _names_of_plugin(arguments: argparse.Namespace) -> list[str]:
    """Return the names of the lineages that were asked for, else of all that are this plugin's."""
    return list(dict.fromkeys(arguments.cert_names)) or lineages.names_of_plugin(arguments.config_dir)


def _readable(arguments: argparse.Namespace) -> tuple[list[Lineage], list[Failure]]:
    """Return the lineages that were asked for, and those of them that cannot be read."""
    loaded = [attempt(name, functools.partial(_load, arguments, name)) for name in _names_of_plugin(arguments)]
    damaged = [one for one in loaded if isinstance(one, Failure)]
    return [one for one in loaded if not isinstance(one, Failure)], damaged


def _machine_context(arguments: argparse.Namespace, readable: Sequence[Lineage]) -> Context:
    """Return what to work with on the machine as a whole: as the lineages say, else as the command line does."""
    if readable:
        return _context(arguments, readable[0].options)
    chosen = {key: value for key in ("ctl", "staple_dir") if (value := getattr(arguments, key))}
    return _context(arguments, Options(**chosen))


def _no_lineage(arguments: argparse.Namespace) -> errors.LineageRefused:
    return errors.LineageRefused(
        f"no certificate in {arguments.config_dir} uses the seafile plugin; "
        "get one with `certbot certonly -a seafile -d NAME`"
    )


# --- the commands ----------------------------------------------------------------------------------------------------


def _deploy(arguments: argparse.Namespace) -> int:
    names = list(dict.fromkeys(arguments.cert_names))
    if renewed := os.environ.get("RENEWED_LINEAGE"):
        name = lineages.from_environment(arguments.config_dir, renewed)
        if names not in ([], [name]):
            arguments.refuse_usage(f"--cert-name {names[0]} contradicts RENEWED_LINEAGE, which names {name}")
        names = [name]
    if not names:
        raise errors.LineageRefused(
            "no certificate is named: give --cert-name NAME, or let certbot set RENEWED_LINEAGE"
        )
    return _deploy_each(arguments, names)


def _deploy_each(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    """Deploy each lineage; one that fails does not stop the others."""

    def work(name: str) -> None:
        lineage = _load(arguments, name)
        deploy.deploy(_context(arguments, lineage.options), lineage)

    results = [attempt(name, functools.partial(work, name)) for name in names]
    failures = [result for result in results if isinstance(result, Failure)]
    for failure in failures:
        print(f"certbot-seafile: {failure}", file=sys.stderr)
    return FAILED if failures else DONE


def _refresh(arguments: argparse.Namespace) -> int:
    names = list(dict.fromkeys(arguments.cert_names)) or lineages.all_names(arguments.config_dir)
    context_for = functools.cache(functools.partial(_context, arguments))
    progress = _Progress(arguments, len(names))
    waiting: list[str] = []

    def load(name: str) -> tuple[Context, Lineage] | None:
        lineage = _load_ours(arguments, name)
        if lineage is None:
            return None
        context = context_for(lineage.options)
        if pinning.is_waiting(context, lineage):
            waiting.append(name)
            return None
        return context, lineage

    results = []
    for result in refresh.refresh(names, load, force=arguments.force, on_progress=progress):
        progress.clear()
        result.report(progress.say)
        results.append(result.failure is None)
    progress.clear()
    if not results and not waiting:
        raise _no_lineage(arguments)
    # Certificates that wait for their staple go live with it.
    deployed = _deploy_each(arguments, waiting)
    return deployed if all(results) else FAILED


def _load_ours(arguments: argparse.Namespace, name: str) -> Lineage | None:
    """Return the lineage where it is this plugin's; None for others, also where they cannot be read."""
    try:
        lineage = _load(arguments, name)
    except errors.LineageRefused:
        if not arguments.cert_names and not lineages.is_of_plugin(arguments.config_dir, name):
            return None
        raise
    return lineage if lineages.names_plugin(lineage.renewal) else None


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


def _status(arguments: argparse.Namespace) -> int:

    readable, damaged = _readable(arguments)
    context_for = functools.cache(functools.partial(_context, arguments))
    results = [
        attempt(lineage.name, functools.partial(status.standing, context_for(lineage.options), lineage))
        for lineage in readable
    ]
    damaged += [result for result in results if isinstance(result, Failure)]
    standings = [result for result in results if not isinstance(result, Failure)]
    if arguments.json:
        print(json.dumps(formats.as_json(standings, damaged), indent=2))
    elif standings or damaged:
        print(formats.as_table(standings, damaged))
    else:
        raise _no_lineage(arguments)
    return FAILED if damaged else DONE


def _check(arguments: argparse.Namespace) -> int:
    readable, damaged = _readable(arguments)
    context = _machine_context(arguments, readable)
    results = [findings.Finding(f"{one}.") for one in damaged if not _is_deleted(arguments, one.name)]
    context_for = functools.cache(functools.partial(_context, arguments))
    for lineage in readable:
        of_one = attempt(
            lineage.name, functools.partial(findings.lineage_findings, context_for(lineage.options), lineage)
        )
        results += [findings.Finding(f"{of_one}.")] if isinstance(of_one, Failure) else of_one
    results += findings.machine_findings(context, bool(readable), arguments.root)
    if (handed := settings.of_user(arguments.config_dir)) is not None:
        results += findings.handover_findings(handed)
    if not readable and not results:
        raise errors.LineageRefused(str(damaged[0])) if damaged else _no_lineage(arguments)
    for finding in results:
        print(finding)
    if not results:
        context.say("All is well.")
    return FAILED if any(finding.is_fault for finding in results) else DONE


def _is_deleted(arguments: argparse.Namespace, name: str) -> bool:
    return name not in lineages.all_names(arguments.config_dir)


def _undo(arguments: argparse.Namespace) -> int:
    if arguments.handed is not None:
        return _undo_of_root(arguments, arguments.handed)
    if settings.of_user(arguments.config_dir) is not None:
        raise errors.RootNeeded("only root can take the site's edits out again; run `sudo certbot-seafile undo`")
    readable, _ = _readable(arguments)
    context = _machine_context(arguments, readable)
    if arguments.cert_names:
        unknown = [name for name in arguments.cert_names if not undo.is_known(context, name)]
        if unknown:
            raise errors.LineageRefused(
                f"nothing is known of a certificate called {', '.join(unknown)}; `certbot certificates` lists them"
            )
        is_clean = undo.undo_each(context, list(dict.fromkeys(arguments.cert_names)))
    else:
        names = {lineage.name for lineage in readable} | set(findings.stapled_names(context))
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


# --- renewals without root -------------------------------------------------------------------------------------------


def _setup(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise errors.FileRefused("setup hands over what is root's; run it as root")
    before = arguments.handed
    chosen = before or _new_settings(arguments)
    names = (
        list(chosen.lineages)
        if before
        else _names_of_plugin(argparse.Namespace(**vars(arguments) | {"cert_names": []}))
    )
    names += [name for name in arguments.cert_names if before or name not in names]
    arguments.handed = chosen
    context = _context(arguments, chosen.options)
    steps = handover.Handover(
        arguments.settings, before, chosen, _is_roots(chosen.config_dir), functools.partial(_context, arguments),
        context.say, [os.path.abspath(sys.argv[0])], arguments.systemd_dir or None, arguments.dry_run,
    ).run(list(dict.fromkeys(names)), arguments.domain)  # fmt: skip
    if not steps:
        context.say(f"All is set up: {arguments.user} runs certbot, root does the rest.")
    if arguments.dry_run:
        return DONE
    arguments.handed = settings.read(arguments.settings)
    return _report(settling.settle(arguments.handed or chosen, functools.partial(_context, arguments)))


def _new_settings(arguments: argparse.Namespace) -> Settings:
    """Return the settings of a first handover; a later lineage is to be like the first, as far as the machine goes."""
    keys = ("ctl", "server_root", "reload_cmd", "webroot", "staple_dir")
    readable = _readable(arguments)[0] if _is_roots(arguments.config_dir) else []
    like = {key: getattr(readable[0].options, key) for key in keys} if readable else {}
    given = {key: value for key in (*keys, "http_port", "https_port") if (value := getattr(arguments, key))}
    default_socket = settings.DEFAULT_SOCKET if arguments.has_systemd else None
    return settings.Settings(
        arguments.user, arguments.config_dir, arguments.work_dir, arguments.logs_dir,
        os.path.abspath(arguments.state_dir or settings.DEFAULT_STATE_DIR),
        (default_socket if arguments.socket is None else arguments.socket) or None,
        options=Options(**like | given),
    )  # fmt: skip


def _is_roots(config_dir: str) -> bool:
    """Tell whether what stands in certbot's folder was written by root."""
    return os.path.isdir(config_dir) and os.stat(config_dir).st_uid == os.geteuid()


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


def _undo_of_root(arguments: argparse.Namespace, handed: Settings) -> int:
    """Undo where the renewals were handed over: nothing is taken from folders that the user can write."""

    context = _context(arguments, handed.options)
    if arguments.cert_names:
        is_clean = undo.undo_each(context, arguments.cert_names)
        left = {name: options for name, options in handed.lineages.items() if name not in arguments.cert_names}
        settings.write(arguments.settings, dataclasses.replace(handed, lineages=left))
    else:
        is_clean = undo.undo_all(context, sorted(handed.lineages))
        handover.take_back(arguments.settings, handed, context.say)
    return _undone(context, is_clean)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo, "setup": _setup,
    "settle": _settle,
}  # fmt: skip

#: What root does as the user, where the renewals were handed over.
_OF_THE_USER = {"deploy", "refresh", "status", "check"}
