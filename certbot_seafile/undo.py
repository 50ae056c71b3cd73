"""Taking out what was put in.

The law: the site comes first, so that nothing names the staples any more when they go; certificates and renewal files
are certbot's and stay.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence

from certbot_seafile import errors, files, lineage, pinning, stapling, writing
from certbot_seafile.host import Host


def undo_all(host: Host, names: Sequence[str]) -> bool:
    """Take every edit out of every file, then the staples of the named lineages; return whether all could be taken out.

    Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    with files.lock(host.lock_path):
        clean = writing.take_out_edits(host)
        for name in names:
            _remove_staple(host, name)
    return clean


def undo_one(host: Host, name: str) -> bool:
    """Take out what was put in for one lineage, which may be deleted already; what others share with it stays.

    Return whether all could be taken out. Raises errors.NginxRefused; then nothing was changed.
    """
    with files.lock(host.lock_path):
        clean = writing.take_out_edits(host, _owners(host, name))
        _remove_staple(host, name)
    return clean


def _owners(host: Host, name: str) -> Collection[str]:
    """Return for whom the lineage's edits were made: itself, and its names, as far as no other lineage has them."""
    others: set[str] = set()
    for other in lineage.all_names(host.config_dir):
        if other != name:
            others |= {other, *_names(host, other)}
    return {name, pinning.owner(name)} | (set(_names(host, name)) - others)


def _names(host: Host, name: str) -> tuple[str, ...]:
    try:
        return lineage.load(host.config_dir, name).names
    except errors.LineageRefused:
        return ()


def _remove_staple(host: Host, name: str) -> None:
    """Remove snippet and response, and reload nginx in between where it read them."""
    folder = os.path.join(host.options.staple_dir, name)
    if files.remove(lineage.snippet_path(host.options, name)):
        host.nginx.test()
        host.nginx.reload()
    if not _is_named(host, folder):
        for path in (lineage.response_path, pinning.response_path, stapling.revocation_path):
            files.remove(path(host.options, name))
        files.remove_folder_if_empty(folder)


def _is_named(host: Host, folder: str) -> bool:
    """Tell whether the site's own lines still name something in the folder of staples."""
    named = os.fsencode(folder) + b"/"
    statements = host.nginx.statements(lambda source: named in source)
    everything = (inner for outer in statements for inner in (outer, *outer.walk()))
    return any(said.arguments and said.arguments[0].startswith(named) for said in everything)
