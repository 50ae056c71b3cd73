"""sdist and wheel: the same bytes each time, no more in them than git holds, and addresses that agree."""

from __future__ import annotations

import re
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: What setuptools adds to an sdist.
ADDED = re.compile(r"PKG-INFO|setup\.cfg|certbot_seafile\.egg-info/.*")
#: A certificate or key in full; its first line alone is in many tests.
PASTED = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----\s+[A-Za-z0-9+/]{40}")


def packed(folder: Path) -> dict[str, bytes]:
    """Return the files of the sdist, without the name of its top folder."""
    (path,) = folder.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        members = [member for member in archive if not member.isdir()]
        assert all(member.isfile() for member in members)  # no links
        return {member.name.partition("/")[2]: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]


def wheel_metadata(folder: Path) -> Message:
    """Return the METADATA of the wheel."""
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.mark.long
def test_the_sdist_holds_what_git_holds_and_nothing_else(released: Path, sources: Path) -> None:
    """What lies about in the tree, or beside it, is not packed; what tests and packages need is."""
    names = {name for name in packed(released) if not ADDED.fullmatch(name)}
    held = {str(path.relative_to(sources)) for path in sources.rglob("*") if path.is_file()}
    assert names == held - {".gitignore"}


@pytest.mark.long
def test_nobodys_certificate_or_key_is_in_the_sdist(released: Path) -> None:
    """Tests mint what they need; no file has a certificate, a key or a response pasted in, as PEM or as DER."""
    files = packed(released)
    assert [name for name, content in files.items() if PASTED.search(content)] == []
    assert [name for name in files if re.search(r"\.(pem|crt|key|der|p12|ocsp|response)$", name)] == []


@pytest.mark.long
def test_the_metadata_names_the_project_and_its_licence(released: Path) -> None:
    """Version, licence, Python, README and addresses are there, for PyPI to show."""
    metadata = wheel_metadata(released)
    assert metadata["Name"] == "certbot-seafile"
    assert "Apache-2.0" in (metadata["License"] or metadata["License-Expression"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    labels = {value.partition(", ")[0] for value in metadata.get_all("Project-URL", [])}
    assert labels >= {"Source", "Issues", "Changelog"}


def test_every_package_names_the_same_addresses() -> None:
    """Where the project and its repository are is one address each, in PyPI's, Debian's, Fedora's and Arch's files."""
    paths = ("setup.py", "packaging/debian/control", "packaging/fedora/certbot-seafile.spec", "packaging/arch/PKGBUILD")
    setup, control, spec, build = ((PROJECT / path).read_text(encoding="utf-8") for path in paths)
    (home,) = re.findall(r'^    url="(\S+)"', setup, re.MULTILINE)
    assert re.findall(r"^URL:\s+(\S+)$", spec, re.MULTILINE) == [home]
    assert re.findall(r"^url='(\S+)'$", build, re.MULTILINE) == [home]
    (repository,) = re.findall(r'"Source": "(\S+)"', setup)
    assert re.findall(r"^Vcs-Browser: (\S+)$", control, re.MULTILINE) == [repository]
    assert re.findall(r"^Vcs-Git: (\S+)\.git$", control, re.MULTILINE) == [repository]
    assert all(address.startswith(repository) for address in re.findall(r'"(?:Issues|Changelog)": "(\S+)"', setup))
