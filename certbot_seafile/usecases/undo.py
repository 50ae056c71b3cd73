"""Taking out what was put in.

The law: the site comes first, so that nothing names the staples any more when they go; certificates and renewal files
are certbot's and stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import pinning
from certbot_seafile.system import files, lineages, writing
from certbot_seafile.system.context import Context


def undo_all(context: Context, names: Sequence[str]) -> bool:
    """Take every edit out of every file, then the staples of the named lineages; return whether all could be taken out.

    Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    with files.lock(context.lock_path):
        clean = writing.take_out_edits(context)
        for name in names:
            _remove_staple(context, name)
    return clean


def undo_one(context: Context, name: str) -> bool:
    """Take out what was put in for one lineage, which may be deleted already; what others share with it stays.

    Return whether all could be taken out. Raises errors.NginxRefused; then nothing was changed.
    """
    with files.lock(context.lock_path):
        clean = writing.take_out_edits(context, _owners(context, name))
        _remove_staple(context, name)
    return clean


def _owners(context: Context, name: str) -> Collection[str]:
    """Return for whom the lineage's edits were made: itself, and its names, as far as no other lineage has them."""
    others: set[str] = set()
    for other in lineages.all_names(context.config_dir):
        if other != name:
            others |= {other, *_names(context, other)}
    return {name, pinning.owner(name)} | (set(_names(context, name)) - others)


def _names(context: Context, name: str) -> tuple[str, ...]:
    try:
        return lineages.load(context.config_dir, name).names
    except errors.LineageRefused:
        return ()


def _remove_staple(context: Context, name: str) -> None:
    """Remove snippet and response, and reload nginx in between where it read them."""
    folder = os.path.join(context.options.staple_dir, name)
    if files.remove(lineages.snippet_path(context.options, name)):
        context.nginx.test()
        context.nginx.reload()
    if not _is_named(context, folder):
        for path in (lineages.response_path, pinning.response_path, store.revocation_path):
            files.remove(path(context.options, name))
        files.remove_folder_if_empty(folder)


def _is_named(context: Context, folder: str) -> bool:
    """Tell whether the site's own lines still name something in the folder of staples."""
    named = os.fsencode(folder) + b"/"
    statements = context.nginx.statements(lambda source: named in source)
    everything = (inner for outer in statements for inner in (outer, *outer.walk()))
    return any(said.arguments and said.arguments[0].startswith(named) for said in everything)
