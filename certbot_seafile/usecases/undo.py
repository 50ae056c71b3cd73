"""Taking out what was put in.

The law: the site comes first, so that nothing names staples and sealed versions any more when they go; what was
remembered goes when nginx runs without it. Certificates are certbot's and stay, and renewals leave the site alone until
the next deployment.
"""

from __future__ import annotations

import contextlib
import glob
import os
from collections.abc import Callable, Collection, Sequence

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import handover, versions
from certbot_seafile.site import model, proof
from certbot_seafile.site.config import Configuration
from certbot_seafile.system import challenge, files, journal, lineages, records, renewal, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Paths
from certbot_seafile.usecases import install


def stapled_names(context: Context) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    names = []
    for path in sorted(glob.glob(os.path.join(glob.escape(context.options.staple_dir), "*.conf"))):
        with contextlib.suppress(errors.FileRefused):
            if b"kept by certbot-seafile" in files.read(path, at_most_bytes=65536):
                names.append(os.path.basename(path).removesuffix(".conf"))
    return names


def undo(context: Context, names: Sequence[str], *, is_whole: bool = False) -> list[str]:
    """Take out what was put in for the named lineages, which may be deleted already; what others share with them stays.

    is_whole: take every edit out of every file. Return the lines of ours, "FILE:LINE", that could not be taken out.
    Raises errors.SiteRefused where nginx would refuse the result, or others' edits stand on these, so that nothing was
    changed; errors.NginxRefused where nginx does not load it, so that the next undo goes on.
    """
    owners = _owners(context, names)
    with files.lock(context.lock_path):
        challenge.clean_up(context)
        before = context.nginx.configuration()
        if not is_whole and any(os.path.lexists(paths(context, name).renewal_path) for name in names):
            _refuse_covered(context, names, owners)  # of one that is deleted, what can go is to go
        taken = writing.take_out_edits(context, None if is_whole else owners)
        context.nginx.changed()
        _tell_others(context, before, owners, {each.path for each in taken})
        every = [paths(context, name) for name in names]
        left = [*dict.fromkeys(line for each in taken for line in each.left)]
        left += [line for each in every for line in install.including(context, each) if line not in left]
        # Without a sealed snippet that a site includes still, nginx would not start.
        own = [each for each in every if not (versions.is_sealed(each) and install.including(context, each))]
        has_removed = [files.remove(each.snippet_path) for each in own]
        if any(has_removed):
            context.nginx.changed()
            context.nginx.test()
        is_loaded = not taken and all(records.is_undone(context.state_dir, name) for name in names)
        if not is_loaded or any(has_removed):
            _reload(context)
        writing.forget_edits(context, taken)
        for each in own:
            _remove_files(context, each)
            if os.path.lexists(each.renewal_path):
                records.write(context.state_dir, each.name, records.Record("", is_undone=True))
                with contextlib.suppress(errors.LineageRefused):  # which `check` tells
                    renewal.take_out(each.renewal_path)
        if os.listdir(context.state_dir) == [os.path.basename(context.lock_path)]:
            files.remove(context.lock_path)
            files.remove_folder_if_empty(context.state_dir)
    return left


def _refuse_covered(context: Context, names: Sequence[str], owners: Collection[str]) -> None:
    """Refuse to take edits out from under those that were made for others later. Raises errors.SiteRefused."""
    if later := writing.owners_upon(context, owners):
        first, every = (" ".join(f"--cert-name {name}" for name in each) for each in (later, [*names, *later]))
        raise errors.SiteRefused(
            f"nothing was taken out, because the edits for {', '.join(later)} stand on those for {', '.join(names)}: "
            f"run `certbot-seafile undo {first}` first, or take out all of them with `certbot-seafile undo {every}`"
        )


def _reload(context: Context) -> None:
    """Let nginx read what is left, where it runs. Raises errors.NginxRefused."""
    try:
        context.nginx.reload()
    except errors.NginxRefused:
        if not context.nginx.is_stopped:
            raise
    store.reload_mark(context).clear()


def _tell_others(context: Context, before: Configuration, names: Collection[str], paths: Collection[str]) -> None:
    """Say whose server blocks in other files answer otherwise without our edits of these files.

    It is no reason to refuse: whoever undoes wants the site as it was, and what others have of our edits (a socket that
    speaks TLS by our line alone, a file that they have begun to include) they would lose with any way back.
    """
    for hurt in proof.compare(before, context.nginx.configuration(), names).hurt:
        if hurt.block.path not in paths:
            context.say(f"Without the edits that were taken out, {hurt.who} get another answer: look at what they need")


def roll_back(context: Context, restore: Callable[[], None]) -> None:
    """Let certbot restore the files of its checkpoints, where they are of use; else put back those of now.

    They are not where nginx could not start from them, or they bring back what was undone: no other undo would know of
    it. Raises errors.NginxRefused in that case.
    """
    before = context.nginx.configuration()
    now = {path: file.source for path, file in before.files.items()}
    restore()
    context.nginx.changed()
    try:
        context.nginx.test()
        if lost := _servers_without_snippet(context):
            raise errors.NginxRefused(f"the server block at {lost[0]} would have no certificate, whose snippet is gone")
        if undone := _undone_names(context, before):
            raise errors.NginxRefused(f"the checkpoint has the certificate of {undone[0]}, which `undo` took out since")
    except errors.NginxRefused as refused:
        for path, content in now.items():
            if files.read_if_present(path) != content:
                files.replace(path, content)
        context.nginx.changed()
        raise errors.NginxRefused(
            f"nothing was rolled back, because the files of the checkpoint are of no use: {refused}; "
            "`certbot-seafile undo` brings back the site as it was without certbot"
        ) from refused


def _undone_names(context: Context, before: Configuration) -> list[str]:
    """Return the lineages that were undone, and that nginx's files name more often than before."""
    undone = [each for each in lineages.all_names(context.config_dir) if records.is_undone(context.state_dir, each)]
    folders = {each: os.fsencode(os.path.join(context.config_dir, "live", each, "")) for each in undone}
    now = context.nginx.configuration()
    return [each for each in undone if len(now.mentioning(folders[each])) > len(before.mentioning(folders[each]))]


def _servers_without_snippet(context: Context) -> list[model.Server]:
    """Return the server blocks that include a snippet which is not there, and have no certificate of their own."""
    folder = os.fsencode(context.options.staple_dir) + b"/"
    return [
        server
        for server in model.http_servers(context.nginx.configuration().statements())
        if not server.level(b"ssl_certificate")
        for include in server.statement.children
        if include.name == b"include" and include.arguments[0].startswith(folder) and not include.children
    ]


def is_known(context: Context, name: str) -> bool:
    """Tell whether there is anything of a lineage called name: at certbot, in the journal, or in nginx's folders.

    Raises errors.LineageRefused for a name that leads out of these folders.
    """
    lineages.check_name(name)
    own = paths(context, name)
    places = own.renewal_path, own.snippet_path, own.response_path, records.path(context.state_dir, name)
    owners = (step.owner for entry in context.journal.entries() for step in entry.steps)
    return name in owners or versions.is_sealed(own) or any(map(os.path.lexists, places))


def paths(context: Context, name: str) -> Paths:
    """Return where the files of the lineage called name are, as its renewal file says where that can be read."""
    options = context.options
    with contextlib.suppress(errors.LineageRefused):
        options = lineages.options_of(context.config_dir, name)
    return Paths(name, context.config_dir, options)


def _owners(context: Context, names: Sequence[str]) -> set[str]:
    """Return for whom the lineages' edits were made: for them, and for those of their names that no other has."""
    others = {name for name in lineages.all_names(context.config_dir) if name not in names}
    own_domains, their_domains = (
        {domain for lineage in lineages.load_each(context.config_dir, each) for domain in lineage.names}
        for each in (names, others)
    )
    return {*names, *(journal.PINNED + name for name in names)} | (own_domains - their_domains - others)


def _remove_files(context: Context, own: Paths) -> None:
    """Remove versions, the staple where the site's own lines do not name it, and what is remembered."""
    versions.remove_all_but(own)
    handover.remove(own)
    stored = ("ocsp.response", "pinned.response", "revoked")
    store.remove_unnamed(context, [os.path.join(own.own_folder, name) for name in stored])
    files.remove_folder_if_empty(own.own_folder)
    records.forget(context.state_dir, own.name)
