"""Taking out what was put in.

The law: the site comes first, so that nothing names the staples any more when they go; certificates and renewal files
are certbot's and stay.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from certbot_seafile import errors
from certbot_seafile.sealed import pinning
from certbot_seafile.system import files, lineages, records, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.journal import Purpose


def undo(context: Context, names: Sequence[str], *, is_whole: bool = False) -> bool:
    """Take out what was put in for the named lineages, which may be deleted already; what others share with them stays.

    is_whole: take every edit out of every file. Return whether all could be taken out. Raises errors.NginxRefused where
    nginx would refuse the result; then nothing was changed.
    """
    purposes = None if is_whole else _purposes(context, names)
    with files.lock(context.lock_path):
        is_changed, is_clean = writing.take_out_edits(context, purposes)
        has_removed = [files.remove(_paths(context, name).snippet_path) for name in names]
        if any(has_removed):
            context.nginx.changed()
            context.nginx.test()
        if is_changed or any(has_removed):
            context.nginx.reload()
        for name in names:
            _remove_staple(context, name)
    return is_clean


def is_known(context: Context, name: str) -> bool:
    """Tell whether there is anything of a lineage called name: at certbot, in the journal, or a staple."""
    own = _paths(context, name)
    paths = [own.renewal_path, own.snippet_path, own.response_path, records.path(context.state_dir, name)]
    steps = (step for entry in context.journal.entries() for step in entry.steps)
    return any(os.path.lexists(path) for path in paths) or any(step.owner == name for step in steps)


def _paths(context: Context, name: str) -> lineages.Paths:
    return lineages.Paths(name, context.config_dir, context.options)


def _purposes(context: Context, names: Sequence[str]) -> set[Purpose]:
    """Return for what the lineages' edits were made: for them, and for those of their names that no other has."""
    domains = {name: {name} for name in lineages.all_names(context.config_dir)}
    for name in domains:
        with contextlib.suppress(errors.LineageRefused):
            domains[name].update(lineages.load(context.config_dir, name).names)
    purposes = {(name, is_pin) for name in names for is_pin in (False, True)}
    for name in domains.keys() & set(names):
        others = set().union(*(domains[other] for other in domains if other != name))
        purposes |= {(domain, False) for domain in domains[name] - others}
    return purposes


def _remove_staple(context: Context, name: str) -> None:
    """Remove the response and what is remembered of it, where the site's own lines do not name it."""
    folder = os.path.join(context.options.staple_dir, name)
    word = os.fsencode(folder) + b"/"
    statements = context.nginx.configuration().mentioning(word)
    if not any(argument.startswith(word) for statement in statements for argument in statement.arguments):
        files.remove(_paths(context, name).response_path)
        files.remove(pinning.response_path(context.options, name))
        files.remove(os.path.join(folder, "revoked"))
        files.remove_folder_if_empty(folder)
    records.forget(context.state_dir, name)
