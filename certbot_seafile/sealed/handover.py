"""The handover file: how chain, key and staple leave this machine or this user, for root or for other frontends.

The law: a file is written whole and replaced by one rename, only when it is complete; nobody but its owner may read it.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace

from certbot_seafile import errors
from certbot_seafile.sealed import bundle
from certbot_seafile.sealed.bundle import Bundle
from certbot_seafile.system import files
from certbot_seafile.system.lineages import Lineage, Paths


@dataclass(frozen=True)
class Handed(Lineage):
    """The set of a lineage that lies in the handover folder; its staple is stored there and nowhere else."""

    bundle: Bundle | None = None

    @property
    def response_path(self) -> str:
        """Return the handover file's path."""
        return path(self)

    def stored_response(self) -> bytes | None:
        """Return the staple that was handed over last."""
        return None if self.bundle is None else self.bundle.response

    def contents(self, response: bytes | None) -> list[tuple[str, bytes | None]]:
        """Return the handover file with this staple; nothing else of it is this user's to write."""
        return [(path(self), replace(self.bundle, response=response).pem())] if self.bundle else []


def path(lineage: Paths) -> str:
    """Return the path of the lineage's handover file; the options name a folder."""
    return os.path.join(lineage.options.handover or "", f"{lineage.name}.pem")


def load(lineage: Lineage) -> Handed:
    """Return the set in the lineage's handover file; one without a bundle where that is missing or damaged.

    Raises errors.FileRefused.
    """
    handed = unwritten(lineage)
    with contextlib.suppress(errors.BundleRefused):
        if (content := files.read_if_present(path(lineage))) is not None:
            known = bundle.parse(content)
            return replace(handed, leaf=known.leaf, chain=known.issuers, bundle=known)
    return handed


def unwritten(lineage: Lineage) -> Handed:
    """Return the lineage as a set that is not handed over yet: what root stores is not this user's to read."""
    known = lineage.name, lineage.config_dir, lineage.options
    return Handed(*known, lineage.leaf, lineage.chain, lineage.renewal, lineage.for_names)


def read_bundle(lineage: Lineage, response: bytes | None) -> Bundle:
    """Return the lineage's chain and key, with this staple. Raises errors.FileRefused, errors.BundleRefused."""
    pair = bundle.parse(files.read(lineage.fullchain_path) + b"\n" + files.read(lineage.key_path))
    if not bundle.fits(pair.key, pair.leaf):
        raise errors.BundleRefused(
            [f"the key {lineage.key_path} does not fit {lineage.fullchain_path}; run `certbot renew --force-renewal`"]
        )
    return replace(pair, response=response)


def write(lineage: Lineage, response: bytes | None) -> None:
    """Let the lineage's set lie in its handover file, with this staple. Raises errors.FileRefused."""
    content = dict(lineage.contents(response)).get(path(lineage)) or read_bundle(lineage, response).pem()
    if files.read_if_present(path(lineage)) != content:
        files.put(path(lineage), content, mode=0o600)


def remove(lineage: Paths) -> None:
    """Remove the lineage's handover file, which holds its key. Raises errors.FileRefused."""
    if lineage.options.handover:
        files.remove(path(lineage))
