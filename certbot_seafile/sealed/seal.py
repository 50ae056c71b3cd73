"""How a new version of a sealed certificate reaches nginx: the order of writes, told once for all uses.

The law: whatever is killed between any two steps leaves an nginx that starts and serves nothing unstapled that must be
stapled, and the next run goes on from there. A version is whole and tried before anything names it; that nginx has not
read it yet is written down before the snippet names it; what nginx or a TLS client refuses is taken back.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import replace

from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import handover, versions
from certbot_seafile.sealed.bundle import Bundle
from certbot_seafile.sealed.versions import Version
from certbot_seafile.system import files, records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Paths
from certbot_seafile.system.records import Record
from certbot_seafile.usecases import install

logger = logging.getLogger(__name__)

_FORMER = ("ocsp.response", "pinned.response")


def serve(context: Context, lineage: Paths, bundle: Bundle, record: Record, for_names: Sequence[str] = ()) -> Version:
    """Let nginx serve the set, whose staple is verified, as a new version; return that. The lock is the caller's.

    record: what is to be remembered of the leaf. Raises errors.Error; then nginx serves what it served.
    """
    version = versions.write(lineage, bundle, context.now(), for_names)
    former = files.read_if_present(version.snippet_path)
    snippet = version.snippet(bundle.response)
    with contextlib.ExitStack() as undoing:
        undoing.callback(versions.remove, version)
        context.nginx.test_alone(snippet.decode().splitlines(), version.options.staple_dir)
        known, now = records.load(context.state_dir, version), context.now()
        undoing.callback(records.write, context.state_dir, version.name, replace(known, last_reload=now))
        pending = replace(record, needs_reload=True, last_reload=now)
        records.write(context.state_dir, version.name, pending, is_synced=True)
        undoing.callback(_put_back, context, version, former)
        store.put([(version.snippet_path, snippet)])
        context.nginx.changed()
        load(context, version)
        undoing.pop_all()
    # Each version has a staple of its own; what the plain lineage had is named no more.
    store.remove_unnamed(context, [os.path.join(lineage.own_folder, name) for name in _FORMER])
    if version.options.handover:
        handover.write(version, bundle.response)
    return version


def load(context: Context, version: Version) -> None:
    """Let nginx read the version that the snippet names, and see that clients are handed it. Raises errors.Error."""
    site = serving.find_site(context, version.names)
    context.checkpoints.close()
    for folder in set(map(os.path.dirname, site.paths)):
        files.sweep(folder)
    if not install.put_into_site(context, version, site):
        context.nginx.test()
        context.nginx.reload()
        serving.verify_served(context, version)
    record = replace(records.load(context.state_dir, version), needs_reload=False, last_reload=context.now())
    records.write(context.state_dir, version.name, record)
    earlier = versions.before(version)
    versions.remove_all_but(version, {version.id, *([earlier.id] if earlier else [])})


def resume(context: Context, lineage: Paths, for_names: Sequence[str] = ()) -> Version | None:
    """Go on where a killed run had written or named a version; return the one that is served then, None without.

    Where nginx or a client refuses it, and not the version before, that one comes back. Raises errors.Error where
    neither is to blame: nginx is off, or refuses somebody else's line. A sole one that is refused counts as none, and
    stays on disk. for_names: see Version.
    """
    is_named = os.path.lexists(lineage.snippet_path)
    versions.repair(lineage)
    if (version := versions.served(lineage, for_names)) is None:
        return None
    for folder in (version.options.staple_dir, version.own_folder, version.folder):
        files.sweep(folder)
    if is_named and not records.load(context.state_dir, version).needs_reload:
        return version
    try:
        load(context, version)
    except (errors.ConfigurationRefused, errors.NotServed) as refused:
        context.nginx.changed()
        if versions.before(version) is None and install.including(context, version):
            return None  # it stays until another one takes its place
        earlier = _go_back(context, version, refused)
        logger.warning("%s: what was served before is served again: %s", version.name, refused)
        return earlier
    return version


def _go_back(context: Context, version: Version, refused: errors.Error) -> Version | None:
    """Serve the version before instead, or what a site without our include names; then remove this one.

    Raises errors.Error where that cannot be served either; then the snippet names what nginx can start with, this
    version where it can start with neither.
    """
    earlier, present = versions.before(version), files.read_if_present(version.snippet_path)
    snippet = None if earlier is None else earlier.snippet(earlier.stored_response())
    store.put([(version.snippet_path, snippet)])
    context.nginx.changed()
    try:
        if earlier is None:
            context.nginx.test()
        else:
            load(context, earlier)
    except (errors.NginxRefused, errors.NotServed, errors.SiteRefused) as failure:
        if isinstance(refused, errors.NotServed) or isinstance(failure, errors.ConfigurationRefused):
            _put_back(context, version, present)
        raise
    versions.remove(version)
    return earlier


def _put_back(context: Context, version: Version, snippet: bytes | None) -> None:
    """Let the snippet be what it was, and nginx read that; a site that includes it by now keeps the version."""
    context.nginx.changed()
    if snippet is None and install.including(context, version):
        return
    store.put([(version.snippet_path, snippet)])
    context.nginx.changed()
    with contextlib.suppress(errors.NginxRefused):
        context.nginx.test()
        context.nginx.reload()


def seal_present(context: Context, lineage: Lineage) -> None:
    """Seal what the site serves of a plain lineage now, so that certbot's next step cannot bring an unstapled one.

    Nothing is done where the site does not name what live/ has (archive/, as of version 0.0, stays as it is); a version
    that is there already was left by a killed run then. Raises errors.Error.
    """
    with files.lock(context.lock_path):
        named = serving.named_certificates(serving.find_site(context, lineage.names))
        if lineage.folder not in map(os.path.dirname, named):
            resume(context, lineage)
            return
        staple, record = store.stored_staple(lineage, context.now()), records.load(context.state_dir, lineage)
        response = None if staple is None else staple.response
        serve(context, lineage, handover.read_bundle(lineage, response), record)
