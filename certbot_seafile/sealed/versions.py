"""The versions of a sealed certificate, and the snippet that names the one that nginx reads.

A version is the folder STAPLE-DIR/NAME/ID/ with fullchain.pem, privkey.pem and, where there is a staple, ocsp.response.

The law: a version is written whole before anything names it, under an ID that is never used again, and nothing of it
but the staple is ever rewritten: at the same path with the same inode and time, newer versions of nginx serve the
old certificate with the new staple. The snippet switches all three by one rename, and is never removed while a site
includes it.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import shutil
import stat
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives import hashes

from certbot_seafile import errors
from certbot_seafile.sealed.bundle import Bundle
from certbot_seafile.system import files, lineages
from certbot_seafile.system.lineages import Lineage, Paths

_ID = re.compile(r"\d{8}T\d{12}Z-[0-9a-f]{16}")
_REJECTING = b"# The certificate's files are damaged, so that no client is served until a new one is here.\n"


@dataclass(frozen=True)
class Version(Lineage):
    """One version of a sealed lineage. id: its folder's name: its time, and how the leaf's SHA-256 begins."""

    id: str = ""

    @property
    def folder(self) -> str:
        """Return the version's folder, which holds fullchain.pem and privkey.pem."""
        return os.path.join(self.own_folder, self.id)

    @property
    def response_path(self) -> str:
        """Return the path of the version's staple."""
        return os.path.join(self.folder, "ocsp.response")

    def named_response(self) -> bytes | None:
        """Return the stored staple where the snippet names it: one that is withdrawn stays until nginx has reloaded."""
        named = lineages.quoted(self.response_path).encode()
        return self.stored_response() if named in (files.read_if_present(self.snippet_path) or b"") else None

    def contents(self, response: bytes | None) -> list[tuple[str, bytes | None]]:
        """Return what is to be on disk with this staple: the snippet stays without one, and turns stapling off."""
        snippet = self.snippet_path, self.snippet(response)
        return [snippet] if response is None else [(self.response_path, response), snippet]

    def snippet(self, response: bytes | None) -> bytes:
        """Return the snippet that names this version, with this staple or with stapling turned off."""
        lines = [
            f"# The sealed certificate {self.name}, {lineages.KEPT}: written whole, at each renewal.",
            f"ssl_certificate {lineages.quoted(self.fullchain_path)};",
            f"ssl_certificate_key {lineages.quoted(self.key_path)};",
            *(["ssl_stapling off;"] if response is None else self.stapling_lines),
        ]
        return "\n".join([*lines, ""]).encode()


def names(staple_dir: str) -> list[str]:
    """Return the names of all sealed lineages, sorted."""
    return [name for name in files.names_in(staple_dir) if _ids(os.path.join(staple_dir, name))]


def is_sealed(lineage: Paths) -> bool:
    """Tell whether nginx is to read a version of the lineage instead of certbot's own files."""
    return bool(_ids(lineage.own_folder))


def served(lineage: Paths, for_names: Sequence[str] = ()) -> Version | None:
    """Return the version that the snippet names; the newest whole one where it names none; None where there is none."""
    ids = _ids(lineage.own_folder)
    snippet = (files.read_if_present(lineage.snippet_path) or b"") if ids else b""
    for each in sorted(ids, key=lambda each: (each.encode() in snippet, each), reverse=True):
        with contextlib.suppress(errors.LineageRefused):
            return _load(lineage, each, for_names)
    return None


def before(version: Version) -> Version | None:
    """Return the newest version that is older; None where there is none."""
    for each in sorted((each for each in _ids(version.own_folder) if each < version.id), reverse=True):
        with contextlib.suppress(errors.LineageRefused):
            return _load(version, each, version.for_names)
    return None


def _ids(folder: str) -> list[str]:
    return [name for name in files.names_in(folder) if _ID.fullmatch(name)]


def _load(lineage: Paths, each: str, for_names: Sequence[str]) -> Version:
    folder = os.path.join(lineage.own_folder, each)
    leaf, *chain = lineages.certificates(os.path.join(folder, "fullchain.pem"))
    if not os.path.exists(os.path.join(folder, "privkey.pem")):
        raise errors.LineageRefused(f"{folder} has no key")
    known = lineage.name, lineage.config_dir, lineage.options, leaf, tuple(chain)
    names = tuple(for_names) or getattr(lineage, "for_names", ())
    return Version(*known, getattr(lineage, "renewal", {}), names, id=each)


def write(lineage: Paths, bundle: Bundle, now: datetime.datetime, for_names: Sequence[str] = ()) -> Version:
    """Write the set as a new version, which nothing names yet, and return it. Raises errors.FileRefused."""
    lineages.check_name(lineage.name)
    folder = lineage.own_folder
    for each in (lineage.options.staple_dir, folder):
        files.make_folder(each)
        _refuse_foreign(each)
    if not os.path.exists(ignored := os.path.join(folder, ".gitignore")):
        files.replace(ignored, b"# Private keys are not for etckeeper and the like.\n*\n")
    each = f"{now.astimezone(datetime.UTC):%Y%m%dT%H%M%S%fZ}-{bundle.leaf.fingerprint(hashes.SHA256()).hex()[:16]}"
    contents = {"privkey.pem": bundle.key_pem, "fullchain.pem": bundle.chain_pem, "ocsp.response": bundle.response}
    files.make_whole_folder(os.path.join(folder, each), contents)
    return _load(lineage, each, for_names)


def _refuse_foreign(folder: str) -> None:
    facts = os.lstat(folder)
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise errors.FileRefused(
            f"{folder} is not a folder that root alone can write; look at what is in it, then run "
            f"`chown root {folder}` and `chmod 755 {folder}`"
        )


def remove(version: Version) -> None:
    """Remove the version, the key first, unless the snippet names it. Raises errors.FileRefused."""
    if version.id.encode() in (files.read_if_present(version.snippet_path) or b""):
        return
    _discard(version, version.id)


def _discard(lineage: Paths, each: str) -> None:
    """Remove the version with this ID, the key first."""
    folder = os.path.join(lineage.own_folder, each)
    files.remove(os.path.join(folder, "privkey.pem"))
    shutil.rmtree(folder, ignore_errors=True)


def remove_all_but(lineage: Paths, kept: Collection[str] = ()) -> None:
    """Remove the versions but those with these IDs, and what killed runs left. Raises errors.FileRefused."""
    for each in _ids(lineage.own_folder):
        if each not in kept:
            _discard(lineage, each)
    files.sweep(lineage.own_folder)
    if not kept:
        files.remove(os.path.join(lineage.own_folder, ".gitignore"))


def repair(lineage: Paths) -> None:
    """Write the snippet of a sealed lineage again where it names no whole version. Raises errors.FileRefused."""
    if not is_sealed(lineage):
        return
    snippet, version = files.read_if_present(lineage.snippet_path) or b"", served(lineage)
    if version is None:
        content = _REJECTING + f"# {lineages.KEPT}\n".encode() + b"ssl_reject_handshake on;\n"
    elif version.id.encode() in snippet:
        return
    else:
        content = version.snippet(version.stored_response())
    files.replace(lineage.snippet_path, content)
