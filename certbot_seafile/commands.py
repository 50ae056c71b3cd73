"""The console script's commands: each calls one use case for the lineages that are meant, and returns an exit code.

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
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from certbot_seafile import assembly, errors
from certbot_seafile.doctor import findings, formats
from certbot_seafile.sealed import handover, pinning, settings, settling
from certbot_seafile.system import lineages
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy, refresh, status, undo
from certbot_seafile.usecases.boundary import Failure, attempt, attempt_each

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
_T = TypeVar("_T")
_MANY = 20  # lineages, from which on a person would wonder whether anything happens


def take_role(arguments: argparse.Namespace) -> None:
    """Set arguments.handed to what root goes by where another user renews, and be that user where that is enough."""
    arguments.handed = None
    if os.geteuid() != 0:
        return
    stored = settings.read(arguments.settings)
    if stored is not None and (arguments.command == "settle" or stored.config_dir == arguments.config_dir):
        arguments.handed = stored
        if arguments.command in ("deploy", "refresh", "status", "check"):
            handover.become(stored.user)
    elif arguments.command not in ("settle", "setup") and os.path.exists(lineages.handover_path(arguments.config_dir)):
        raise errors.FileRefused(
            f"{arguments.config_dir} was handed over to another user, but {arguments.settings} says nothing of it; "
            "run `certbot-seafile setup --user USER` again"
        )


def _context(arguments: argparse.Namespace, options: Options) -> Context:
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
    return assembly.context_for(config, options, functools.partial(_say, arguments), **chosen)


def _say(arguments: argparse.Namespace, text: str) -> None:
    if not arguments.quiet:
        print(text)


def _given(arguments: argparse.Namespace, *keys: str) -> dict[str, Any]:
    return {key: value for key in keys if (value := getattr(arguments, key))}


def _load(arguments: argparse.Namespace, name: str) -> Lineage:
    return lineages.load(arguments.config_dir, name, **_given(arguments, "http_port", "https_port"))


def _each(arguments: argparse.Namespace, work: Callable[[Lineage], _T]) -> tuple[list[_T], list[Failure]]:
    """Return what the work on each lineage that is meant returns, and what stopped the work on the others."""
    names = arguments.cert_names or lineages.names_of_plugin(arguments.config_dir)
    return attempt_each(names, lambda name: work(_load(arguments, name)))


def _machine_context(arguments: argparse.Namespace, readable: Sequence[Lineage]) -> Context:
    """Return what to work with on the machine as a whole: as the lineages say, else as the command line does."""
    return _context(arguments, readable[0].options if readable else Options(**_given(arguments, "ctl", "staple_dir")))


def _no_lineage(arguments: argparse.Namespace) -> errors.LineageRefused:
    return errors.LineageRefused(
        f"no certificate in {arguments.config_dir} uses the seafile plugin; "
        "get one with `certbot certonly -a seafile -d NAME`"
    )


def _deploy(arguments: argparse.Namespace) -> int:
    names = arguments.cert_names
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


def _deploy_each(arguments: argparse.Namespace, names: Iterable[str]) -> int:
    def work(name: str) -> None:
        lineage = _load(arguments, name)
        deploy.deploy(_context(arguments, lineage.options), lineage)

    failures = attempt_each(names, work)[1]
    for failure in failures:
        print(f"certbot-seafile: {failure}", file=sys.stderr)
    return FAILED if failures else DONE


def _refresh(arguments: argparse.Namespace) -> int:
    names = arguments.cert_names or lineages.all_names(arguments.config_dir)
    context_for = functools.cache(functools.partial(_context, arguments))
    waiting: list[str] = []
    is_shown = len(names) >= _MANY and not arguments.quiet and sys.stderr.isatty()

    def show(text: str) -> None:
        if is_shown:  # on the terminal's last line, in the place of what stood there
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def show_count(count: int) -> None:
        show(f"Refreshing staples: {count} of {len(names)}")

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
    for result in refresh.refresh(names, load, force=arguments.force, on_progress=show_count):
        show("")
        result.report(functools.partial(_say, arguments))
        results.append(result.failure is None)
    show("")
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
        if arguments.cert_names or lineages.is_of_plugin(arguments.config_dir, name):
            raise
        return None
    return lineage if lineages.names_plugin(lineage.renewal) else None


def _status(arguments: argparse.Namespace) -> int:
    context_for = functools.cache(functools.partial(_context, arguments))
    standings, damaged = _each(arguments, lambda lineage: status.standing(context_for(lineage.options), lineage))
    if arguments.json:
        print(json.dumps(formats.as_json(standings, damaged), indent=2))
    elif standings or damaged:
        print(formats.as_table(standings, damaged))
    else:
        raise _no_lineage(arguments)
    return FAILED if damaged else DONE


def _check(arguments: argparse.Namespace) -> int:
    readable, damaged = _each(arguments, lambda lineage: lineage)
    context = _machine_context(arguments, readable)
    known = lineages.all_names(arguments.config_dir)  # what was deleted, machine_findings() names
    results = [findings.Finding(f"{failure}.") for failure in damaged if failure.name in known]
    context_for = functools.cache(functools.partial(_context, arguments))
    for lineage in readable:
        result = attempt(lineage.name, findings.lineage_findings, context_for(lineage.options), lineage)
        results += [findings.Finding(f"{result}.")] if isinstance(result, Failure) else result
    results += findings.machine_findings(context, bool(readable), arguments.root)
    if (handed := settings.of_user(arguments.config_dir)) is not None:
        results += findings.handover_findings(handed)
    if not readable and not results:
        raise errors.LineageRefused(str(damaged[0])) if damaged else _no_lineage(arguments)
    for finding in results:
        print(finding.text)
    if not results:
        context.say("All is well.")
    return FAILED if any(finding.is_fault for finding in results) else DONE


def _undo(arguments: argparse.Namespace) -> int:
    if arguments.handed is not None:
        return _undo_handed(arguments, arguments.handed)
    if settings.of_user(arguments.config_dir) is not None:
        raise errors.RootNeeded("only root can take the site's edits out again; run `sudo certbot-seafile undo`")
    readable, _ = _each(arguments, lambda lineage: lineage)
    context = _machine_context(arguments, readable)
    names = arguments.cert_names or sorted({*(each.name for each in readable), *findings.stapled_names(context)})
    if unknown := [name for name in arguments.cert_names if not undo.is_known(context, name)]:
        raise errors.LineageRefused(
            f"nothing is known of a certificate called {', '.join(unknown)}; `certbot certificates` lists them"
        )
    if not names and not context.journal.entries():
        raise _no_lineage(arguments)
    return _report_undo(context, undo.undo(context, names, is_whole=not arguments.cert_names))


def _undo_handed(arguments: argparse.Namespace, handed: settings.Settings) -> int:
    """Undo where the renewals were handed over: nothing is taken from folders that the user can write."""
    context = _context(arguments, handed.options)
    if arguments.cert_names:
        is_clean = undo.undo(context, arguments.cert_names)
        left = {name: options for name, options in handed.lineages.items() if name not in arguments.cert_names}
        settings.write(arguments.settings, dataclasses.replace(handed, lineages=left))
    else:
        is_clean = undo.undo(context, sorted(handed.lineages), is_whole=True)
        handover.take_back(arguments.settings, handed, context.say)
    return _report_undo(context, is_clean)


def _report_undo(context: Context, is_clean: bool) -> int:
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


def _setup(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise errors.FileRefused("setup hands over what is root's; run it as root")
    before = arguments.handed
    chosen = arguments.handed = before or _new_settings(arguments)
    names = list(before.lineages) if before else lineages.names_of_plugin(arguments.config_dir)
    context_for = functools.partial(_context, arguments)
    say = functools.partial(_say, arguments)
    steps = handover.Handover(
        arguments.settings, before, chosen, _is_roots(chosen.config_dir), context_for, say,
        [os.path.abspath(sys.argv[0])], arguments.systemd_dir or None, arguments.dry_run,
    ).run(list(dict.fromkeys([*names, *arguments.cert_names])), arguments.domain)  # fmt: skip
    if not steps:
        say(f"All is set up: {arguments.user} runs certbot, root does the rest.")
    if arguments.dry_run:
        return DONE
    arguments.handed = settings.read(arguments.settings)
    return _report(settling.settle(arguments.handed or chosen, context_for))


def _new_settings(arguments: argparse.Namespace) -> settings.Settings:
    """Return the settings of a first handover; a later lineage is to be like the first, as far as the machine goes."""
    keys = ("ctl", "server_root", "reload_cmd", "webroot", "staple_dir")
    readable = _each(arguments, lambda lineage: lineage)[0] if _is_roots(arguments.config_dir) else []
    like = {key: getattr(readable[0].options, key) for key in keys} if readable else {}
    given = _given(arguments, *keys, "http_port", "https_port")
    state_dir = os.path.abspath(arguments.state_dir or settings.DEFAULT_STATE_DIR)
    folders = arguments.config_dir, arguments.work_dir, arguments.logs_dir, state_dir
    return settings.Settings(arguments.user, *folders, socket=arguments.socket or None, options=Options(**like | given))


def _is_roots(config_dir: str) -> bool:
    """Tell whether what stands in certbot's folder was written by root."""
    return os.path.isdir(config_dir) and os.stat(config_dir).st_uid == os.geteuid()


def _settle(arguments: argparse.Namespace) -> int:
    """Run root's step; what came of it goes to whoever asked, in the last line on stdout."""
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
    print(settling.FAILED + " / ".join(failures) if failures else settling.DONE)
    return _report(failures)


def _report(failures: Sequence[str]) -> int:
    for failure in failures:
        logger.error("%s", failure)
    return FAILED if failures else DONE


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo, "setup": _setup,
    "settle": _settle,
}  # fmt: skip
