"""Taking out what was put in.

The law: the site comes first, so that nothing names the staples any more when they go; certificates and renewal files
are certbot's and stay.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from certbot_seafile import errors
from certbot_seafile.sealed import pinning
from certbot_seafile.system import files, lineages, records, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.journal import Purpose


def undo_all(context: Context, names: Sequence[str]) -> bool:
    """Take every edit out of every file, then the staples of the named lineages; return whether all could be taken out.

    Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    return _undo(context, None, names)


def undo_each(context: Context, names: Sequence[str]) -> bool:
    """Take out what was put in for the named lineages, which may be deleted already; what others share with them stays.

    Return whether all could be taken out. Raises errors.NginxRefused; then nothing was changed.
    """
    purposes = {purpose for name in names for purpose in _purposes(context, name)}
    return _undo(context, purposes, names)


def is_known(context: Context, name: str) -> bool:
    """Tell whether there is anything of a lineage called name: at certbot, in the journal, or a staple."""
    paths = [lineages.renewal_path(context.config_dir, name), records.path(context.state_dir, name)]
    paths += [lineages.snippet_path(context.options, name), lineages.response_path(context.options, name)]
    steps = (step for entry in context.journal.entries() for step in entry.steps)
    return any(os.path.lexists(path) for path in paths) or any(step.owner == name for step in steps)


def _undo(context: Context, purposes: set[Purpose] | None, names: Sequence[str]) -> bool:
    with files.lock(context.lock_path):
        is_changed, is_clean = writing.take_out_edits(context, purposes)
        snippets = [lineages.snippet_path(context.options, name) for name in names]
        has_removed = [files.remove(path) for path in snippets]
        if any(has_removed):
            context.nginx.changed()
            context.nginx.test()
        if is_changed or any(has_removed):
            context.nginx.reload()
        for name in names:
            _remove_staple(context, name)
    return is_clean


def _purposes(context: Context, name: str) -> set[Purpose]:
    """Return for what the lineage's edits were made: itself, and its names, as far as no other lineage has them."""
    others: set[str] = set()
    for other in lineages.all_names(context.config_dir):
        if other != name:
            others |= {other, *_names(context, other)}
    return {(name, False), (name, True)} | {(domain, False) for domain in set(_names(context, name)) - others}


def _names(context: Context, name: str) -> tuple[str, ...]:
    try:
        return lineages.load(context.config_dir, name).names
    except errors.LineageRefused:
        return ()


def _remove_staple(context: Context, name: str) -> None:
    """Remove the response and what is remembered of it, where the site's own lines do not name it."""
    folder = os.path.join(context.options.staple_dir, name)
    word = os.fsencode(folder) + b"/"
    statements = context.configuration.mentioning(word)
    if not any(argument.startswith(word) for statement in statements for argument in statement.arguments):
        for path in (lineages.response_path, pinning.response_path):
            files.remove(path(context.options, name))
        files.remove(os.path.join(folder, "revoked"))
        files.remove_folder_if_empty(folder)
    records.forget(context.state_dir, name)
