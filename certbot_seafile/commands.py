"""The console script's commands: each calls one use case for the lineages that are meant, and returns an exit code.

The law: nothing is decided here, but which lineages are meant, and whether all went well.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from certbot_seafile import assembly, errors
from certbot_seafile.doctor import findings, formats, rules
from certbot_seafile.doctor.subject import Machine
from certbot_seafile.sealed import apply, former, settings, setup, versions
from certbot_seafile.sealed.handover import Handed
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import files, lineages, progress, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options, Paths
from certbot_seafile.usecases import deploy, refresh, status, undo
from certbot_seafile.usecases.boundary import Failure, attempt_each

logger = logging.getLogger(__name__)

DONE, FAILED = 0, 1
#: The options that are the machine's; the others are one certificate's own.
_OF_MACHINE = ("server_root", "ctl", "reload_cmd", "webroot", "staple_dir", "http_port", "https_port")
_T = TypeVar("_T")


def read_settings(arguments: argparse.Namespace) -> None:
    """Set arguments.entries to what root is handed on this machine, by name: nothing for others than root."""
    stored = settings.read(arguments.settings) if os.geteuid() == 0 and arguments.command != "setup" else None
    arguments.entries = stored.entries if stored else {}


def _context(arguments: argparse.Namespace, options: Options) -> Context:
    # What certbot's checkpoints go by: certbot's own configuration would take longer to load than all the rest.
    config = argparse.Namespace(
        config_dir=arguments.config_dir, work_dir=arguments.work_dir, logs_dir=arguments.logs_dir,
        https_port=arguments.https_port or 443, strict_permissions=False,
        backup_dir=os.path.join(arguments.work_dir, "backups"),
        in_progress_dir=os.path.join(arguments.work_dir, "IN_PROGRESS"),
        temp_checkpoint_dir=os.path.join(arguments.work_dir, "temp_checkpoint"),
    )  # fmt: skip
    return assembly.context_for(config, options, functools.partial(_say, arguments))


def _say(arguments: argparse.Namespace, text: str) -> None:
    """Print text; what was closed or is full does not stop the work that is told."""
    if not arguments.quiet:
        progress.erase()
        try:
            print(text, flush=True)
        except OSError:
            progress.give_up(sys.stdout)


def _given(arguments: argparse.Namespace, *keys: str) -> dict[str, Any]:
    """Return the options that the command line names: these, or all."""
    return {key: value for key in keys or lineages.KEYS if (value := getattr(arguments, key, None))}


def _load(arguments: argparse.Namespace, name: str) -> Lineage:
    """Return certbot's lineage; the sealed version where root's settings name it, or where certbot knows it no more."""
    entry, config_dir = arguments.entries.get(name), arguments.config_dir
    if entry is not None:
        places = [entry.options]
    else:
        is_certbots = os.path.lexists(Paths(name, config_dir, Options()).renewal_path)
        places = [] if is_certbots else _machines(arguments, lineages.names_of_plugin(config_dir))
    for options in places:
        version = versions.served(Paths(name, config_dir, options), entry.names if entry else ())
        if version is not None:
            return version
    if entry is not None:
        raise errors.LineageRefused(
            f"nothing was served of {name} yet, because nothing good was handed over in {entry.path}; get the "
            "certificate there, then run `certbot-seafile apply`"
        )
    return lineages.load(config_dir, name, **_given(arguments, "http_port", "https_port", "no_redirect"))


def _machines(arguments: argparse.Namespace, names: Sequence[str]) -> list[Options]:
    """Return what may hold for a certificate that certbot knows no more: where its sealed version is, and nginx.

    names: the plugin's lineages. Those in root's settings say it, and the first of these; else the command line.
    """
    given = _given(arguments)
    others = [entry.options for entry in arguments.entries.values()]
    others += [lineage.options for lineage in lineages.load_each(arguments.config_dir, names[:1])]
    known = [{key: getattr(options, key) for key in _OF_MACHINE} for options in others]
    return [Options(**{**each, **given, "staple_dir": each["staple_dir"]}) for each in known] + [Options(**given)]


def _names(arguments: argparse.Namespace) -> list[str]:
    """Return the lineages that are meant: those named, else the plugin's, those in root's settings, and sealed ones."""
    if arguments.cert_names:
        return list(arguments.cert_names)
    own = lineages.names_of_plugin(arguments.config_dir)
    folders = {options.staple_dir for options in _machines(arguments, own)}
    return sorted({*own, *arguments.entries, *(name for folder in folders for name in versions.names(folder))})


def _each(arguments: argparse.Namespace, work: Callable[[Lineage], _T]) -> tuple[list[_T], list[Failure]]:
    """Return what the work on each lineage that is meant returns, and what stopped the work on the others."""
    return attempt_each(_names(arguments), lambda name: work(_load(arguments, name)))


def _machine_context(arguments: argparse.Namespace, readable: Sequence[Lineage]) -> Context:
    """Return what to work with on the machine as a whole: as the lineages say, else as the command line does."""
    chosen = [lineage.options for lineage in readable] + [entry.options for entry in arguments.entries.values()]
    for name in () if chosen else lineages.names_of_plugin(arguments.config_dir):
        with contextlib.suppress(errors.LineageRefused):
            chosen.append(lineages.options_of(arguments.config_dir, name))
    return _context(arguments, chosen[0] if chosen else Options(**_given(arguments)))


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


def _deploy_each(arguments: argparse.Namespace, names: Sequence[str]) -> int:
    def work(name: str) -> None:
        lineage = _load(arguments, name)
        is_renewed = "RENEWED_LINEAGE" in os.environ and lineage.is_renewed  # a first certificate was asked for
        deploy.deploy(_context(arguments, lineage.options), lineage, is_upkeep=is_renewed)

    return _report(attempt_each(names, work)[1])


def _report(failures: Sequence[Failure], tell: Callable[[str], str] = str) -> int:
    for failure in failures:
        print(f"certbot-seafile: {tell(str(failure))}", file=sys.stderr)
    return FAILED if failures else DONE


def _refresh(arguments: argparse.Namespace) -> int:
    context_for = functools.cache(functools.partial(_context, arguments))
    waiting: list[str] = []

    def load(name: str) -> tuple[Context, Lineage] | None:
        lineage = _load(arguments, name)
        if records.is_undone(lineages.state_dir(arguments.config_dir), name):
            return None
        if not isinstance(lineage, Version):
            lineages.refuse_cut_off(lineage)
        context = context_for(lineage.options)
        current = deploy.subject(context, lineage)
        if current.leaf != lineage.leaf or (isinstance(current, Handed) and current.bundle is None):
            waiting.append(name)
        return context, current

    results = []
    for result in refresh.refresh(_names(arguments), load, force=arguments.force):
        result.report(functools.partial(_say, arguments))
        results.append(result.failure is None)
    if not results:
        raise _no_lineage(arguments)
    # A certificate that waits for its staple goes live with it.
    deployed = _deploy_each(arguments, waiting)
    return deployed if all(results) else FAILED


def _status(arguments: argparse.Namespace) -> int:
    context_for = functools.cache(functools.partial(_context, arguments))
    standings, damaged = _each(arguments, lambda lineage: status.standing(context_for(lineage.options), lineage))
    if arguments.json:
        print(json.dumps(formats.as_json(standings, damaged), indent=2))
    elif arguments.prometheus is not None:
        results = _findings(arguments, [standing.lineage for standing in standings], damaged)
        _write_metrics(arguments.prometheus, formats.as_prometheus(standings, results))
    elif standings or damaged:
        is_coloured = formats.wants_colour(sys.stdout, os.environ)
        is_detailed = bool(arguments.cert_names)
        print(formats.as_table(standings, damaged, is_detailed=is_detailed, is_coloured=is_coloured))
    else:
        raise _no_lineage(arguments)
    return FAILED if damaged else DONE


def _write_metrics(path: str, text: str) -> None:
    """Put the text at path in one step, readable for node_exporter; "-" is stdout."""
    if path == "-":
        print(text, end="")
    else:
        files.replace(os.path.abspath(path), text.encode(), is_synced=False)


def _findings(
    arguments: argparse.Namespace, readable: Sequence[Lineage], damaged: Sequence[Failure], root: str = "/"
) -> list[findings.Finding]:
    """Return what is wrong with the readable lineages, the damaged ones, and the machine below root."""
    machine = Machine(_machine_context(arguments, readable), readable, arguments.entries, root)
    by_name = {lineage.name: lineage for lineage in readable}
    context_for = functools.cache(functools.partial(_context, arguments))

    def look(name: str) -> list[findings.Finding]:
        return rules.of_lineage(context_for(by_name[name].options), by_name[name], machine)

    # What was deleted, the rules of the machine tell.
    known = {*lineages.all_names(arguments.config_dir), *arguments.entries}
    found, failures = attempt_each(list(by_name), look)
    failed = [failure for failure in damaged if failure.name in known] + failures
    return [*map(findings.of_failure, failed), *itertools.chain.from_iterable(found), *rules.of_machine(machine)]


def _check(arguments: argparse.Namespace) -> int:
    readable, damaged = _each(arguments, lambda lineage: lineage)
    results = _findings(arguments, readable, damaged, arguments.root)
    if arguments.nagios:
        standings, _ = _each(arguments, lambda each: status.standing(_context(arguments, each.options), each))
        code, line = formats.as_nagios(results, standings)
        print(line)
        return code
    if not readable and not results:
        raise errors.LineageRefused(str(damaged[0])) if damaged else _no_lineage(arguments)
    if arguments.json:
        print(json.dumps(findings.as_json(results), indent=2))
    else:
        for finding in results:
            print(finding)
        if not results:
            _say(arguments, "All is well.")
    return FAILED if any(finding.is_fault for finding in results) else DONE


def _undo(arguments: argparse.Namespace) -> int:
    readable, _ = _each(arguments, lambda lineage: lineage)
    context = _machine_context(arguments, readable)
    if context.renewer is not None:
        raise errors.SiteRefused("only root can take the site's edits out again; run `sudo certbot-seafile undo`")
    names = arguments.cert_names or sorted({*_names(arguments), *undo.stapled_names(context)})
    if unknown := [name for name in arguments.cert_names if not undo.is_known(context, name)]:
        raise errors.LineageRefused(
            f"nothing is known of a certificate called {', '.join(unknown)}; `certbot certificates` lists them"
        )
    stored = settings.read(arguments.settings) if os.geteuid() == 0 else None
    if not names and not context.journal.entries() and stored is None:
        raise _no_lineage(arguments)
    left_lines = undo.undo(context, names, is_whole=not arguments.cert_names)
    if stored is not None:
        left = {name: entry for name, entry in stored.entries.items() if name not in names}
        if left:
            settings.write(arguments.settings, dataclasses.replace(stored, entries=left))
        else:
            setup.take_back(arguments.settings, stored, context.say)
    return _report_undo(context, left_lines)


def _report_undo(context: Context, left_lines: Sequence[str]) -> int:
    if left_lines:
        raise errors.SiteRefused(
            "lines of ours that somebody has changed, moved or copied since were left in the site: "
            f"{', '.join(left_lines)}; take them out by hand, then run `certbot-seafile undo` again, and do not delete "
            "the certificate before"
        )
    context.say("The site is as it was. certbot renews the certificates on, and leaves the site alone until")
    context.say("`certbot-seafile deploy`; `certbot delete` ends their renewal.")
    return DONE


def _setup(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise errors.FileRefused("setup prepares what is root's; run it as root")
    if (former_settings := settings.read_former(arguments.settings)) is not None:
        return _bring_over(arguments, former_settings)
    is_users = arguments.user is not None
    options = Options(**_given(arguments), forward=arguments.forward, is_users_webroot=is_users)
    name = arguments.cert_names[0] if arguments.cert_names else arguments.domain[0]
    working = _working(arguments)
    if is_users:
        steps = working.for_user(arguments.user, arguments.home, name, arguments.domain, options)
    else:
        steps = working.for_source(os.path.abspath(arguments.source), name, arguments.domain, options)
    if not steps:
        _say(arguments, "All is set up.")
    return DONE if arguments.dry_run else _apply(arguments)


def _working(arguments: argparse.Namespace) -> setup.Setup:
    path, is_usual = arguments.settings, arguments.settings == "/etc/certbot-seafile.json"
    command = [*assembly.own_words(arguments), *([] if is_usual else ["--settings", path])]
    return setup.Setup(
        path, settings.read(path), functools.partial(_context, arguments), functools.partial(_say, arguments),
        command, arguments.systemd_dir or None, arguments.dry_run, arguments.work_dir,
    )  # fmt: skip


def _bring_over(arguments: argparse.Namespace, before: settings.FormerSettings) -> int:
    """Bring over a machine on which version 0.0 gave certbot's folders to a user: seal what is served, then move."""
    if arguments.user != before.user:
        arguments.refuse_usage(f"{before.user} renews here: give --user {before.user}")
    chosen = former.names(before, arguments.domain, arguments.home)
    _say(
        arguments,
        f"{'would bring' if arguments.dry_run else 'bring'} this machine over from an earlier version: seal what is "
        f"served, and move {before.config_dir}, {before.work_dir} and {before.logs_dir} to {arguments.home}",
    )
    if arguments.dry_run:
        return DONE

    def set_up() -> None:
        for name, names in chosen.items():
            options = dataclasses.replace(before.lineages[name], is_users_webroot=True)
            _working(arguments).for_user(before.user, arguments.home, name, names, options)

    arguments.config_dir = former.new_config_dir(before)
    if not former.is_moved(before, arguments.home):
        former.keep(before, arguments.settings, arguments.home)
        set_up()
        former.hand_over(before, arguments.home)
        if _apply(arguments) == FAILED:
            return FAILED
    folders = {f"{name}_dir": os.path.join(arguments.home, name) for name in ("config", "work", "logs")}
    hook = assembly.hook_command(argparse.Namespace(**folders), Options(https_port=arguments.https_port or 443))
    former.move(before, arguments.home, hook)
    arguments.config_dir = before.config_dir
    set_up()
    former.forget(before, arguments.settings)
    return _apply(arguments)


def _apply(arguments: argparse.Namespace) -> int:
    """Run root's step."""
    stored = settings.read(arguments.settings)
    if stored is None:
        raise errors.FileRefused(
            f"there is no {arguments.settings} for root to go by; run `certbot-seafile setup` as root first"
        )
    os.environ.clear()
    os.environ.update(PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL="C.UTF-8")
    return _report(apply.apply(stored, functools.partial(_context, arguments)), apply.escaped)


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "deploy": _deploy, "refresh": _refresh, "status": _status, "check": _check, "undo": _undo, "setup": _setup,
    "apply": _apply,
}  # fmt: skip
