"""The package for pip. Tools' settings are in pyproject.toml."""

import gzip
import os
import re
import tarfile
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

HERE = Path(__file__).parent

# A wheel keeps the modes of the files that are written for it; they are not to depend on who builds it.
os.umask(0o022)


def read_version() -> str:
    """Return the version that the package states, without importing it (and so without needing certbot)."""
    source = (HERE / "certbot_seafile" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    if match is None:
        raise ValueError("certbot_seafile/__init__.py states no __version__")
    return match.group(1)


def read_description() -> str:
    """Return the README's text, or nothing where a source tree has none."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


class ReproducibleSdist(sdist):
    """Write the same bytes for the same files, where SOURCE_DATE_EPOCH says which time they are to carry.

    setuptools itself heeds SOURCE_DATE_EPOCH for wheels only.
    """

    def make_archive(self, base_name, format, root_dir=None, base_dir=None, owner=None, group=None):
        """Return the path of the archive of the folder base_dir, made by setuptools where no time is given."""
        epoch = os.environ.get("SOURCE_DATE_EPOCH")
        if format != "gztar" or epoch is None:
            return super().make_archive(base_name, format, root_dir, base_dir, owner, group)
        path = f"{base_name}.tar.gz"
        with (
            open(path, "wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, mtime=int(epoch)) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for entry in (Path(base_dir), *sorted(Path(base_dir).rglob("*"))):
                archive.add(entry, recursive=False, filter=lambda member: normal(member, int(epoch)))
        return path


def normal(member: tarfile.TarInfo, epoch: int) -> tarfile.TarInfo:
    """Return the member without what differs from one machine to the next: owner, umask, time."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    member.mtime = epoch
    return member


setup(
    name="certbot-seafile",
    version=read_version(),
    description="HTTPS that looks after itself for Seafile behind nginx: a certbot plugin",
    long_description=read_description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    url="https://pypi.org/project/certbot-seafile/",
    # The reserved domain of the maintainers' address stands for the repository's, as in packaging/debian/control.
    project_urls={
        "Source": "https://certbot-seafile.invalid/certbot-seafile",
        "Issues": "https://certbot-seafile.invalid/certbot-seafile/issues",
        "Changelog": "https://certbot-seafile.invalid/certbot-seafile/CHANGELOG.md",
    },
    python_requires=">=3.11",
    packages=find_packages(include=["certbot_seafile", "certbot_seafile.*"]),
    package_data={"certbot_seafile": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
    cmdclass={"sdist": ReproducibleSdist},
    # No upper caps on certbot and acme: certbot <= 2.6 resolves these lines through pkg_resources at every start, and
    # one that does not resolve breaks every certbot command, not only this plugin.
    install_requires=[
        "certbot>=2.1.0",
        "acme>=2.1.0",
        "configobj",
        "cryptography>=38",
        "pyopenssl",
        "urllib3",
        # The metadata of zope.interface 8 is named zope_interface, which the pkg_resources of older setuptools does not
        # find under "zope.interface". Python 3.13 is where that pair ends: certbot 2.6 and older do not run on it.
        'zope.interface<8; python_version < "3.13"',
        'zope.interface; python_version >= "3.13"',
    ],
    extras_require={
        "test": ["pytest>=7.2", "pytest-xdist", "hypothesis", "pyyaml", "argparse-manpage", "django"],
        "bench": ["crossplane", "certbot-nginx"],
        "dist": ["build", "twine"],
        "docs": ["sphinx", "myst-parser"],
        "lint": ["ruff", "mypy"],
    },
    entry_points={
        "certbot.plugins": ["seafile = certbot_seafile.plugin:Plugin"],
        "console_scripts": ["certbot-seafile = certbot_seafile.cli:main"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Environment :: Plugins",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Internet :: WWW/HTTP",
        "Topic :: Security",
        "Topic :: System :: Systems Administration",
        "Typing :: Typed",
    ],
)
