"""Debian's, Fedora's and Arch's packages are built by their own tools, and judged by their own linters.

On a Debian machine, so each builds with Debian's Python and without its distribution's dependencies. The Debian package
in bare roots, twice and installed, is what tests/packaging/debian-root shows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

#: What Fedora's pyproject-rpm-macros do, in short: build a wheel, install it, and list what came of that.
RPM_MACROS = """\
%pypi_source() certbot_seafile-%{{version}}.tar.gz
%pyproject_buildrequires true
%pyproject_wheel {python} -m build --wheel --no-isolation
%pyproject_install {python} -m installer --no-compile-bytecode --destdir=%{{buildroot}} --prefix=/usr dist/*.whl; \\
    sed -i '1s|.*|#!/usr/bin/python3|' %{{buildroot}}/usr/bin/*
%pyproject_save_files(l) (cd %{{buildroot}} && find . -type f -path '*/site-packages/*' | cut -c2-)>%{{pyproject_files}}
%pyproject_files %{{_builddir}}/files
%pytest true
"""
#: What rpmlint misses on a Debian machine, and Fedora's builder adds: signature, packager, compressed manual pages. Its
#: list of licences and its dictionary are Debian's too, and Fedora's guidelines no longer want the two tags.
RPM_FILTERS = (
    "no-signature", "no-packager-tag", "no-group-tag", "no-buildroot-tag", "manpage-not-compressed", "invalid-license",
    "no-manual-page-for-binary", "spelling-error",
)  # fmt: skip


def run(*command: str | Path, folder: Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder, with the system's programs; return what it prints. It is expected to exit 0."""
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": SYSTEM_PATH, "PYTHONPATH": ""} | dict(env or {}), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def field(text: str, name: str) -> str:
    """Return the value of a field of debian/control's first paragraph."""
    value: str
    (value,) = re.findall(rf"^{name}: (.+)$", text.partition("\n\n")[0], re.MULTILINE)
    return value


def test_debians_source_paragraph_is_of_today() -> None:
    """Policy 4.7.2, no root, and where the packaging is kept; a native package has no watch file."""
    control = (PROJECT / "packaging" / "debian" / "control").read_text(encoding="utf-8")
    assert field(control, "Standards-Version") == "4.7.2"
    assert field(control, "Rules-Requires-Root") == "no"
    assert field(control, "Vcs-Git").startswith("https://")
    assert (PROJECT / "packaging" / "debian" / "source" / "format").read_text().strip() == "3.0 (native)"
    assert not (PROJECT / "packaging" / "debian" / "watch").exists()


@pytest.mark.long
def test_lintian_finds_nothing_in_the_debian_package(sources: Path, tmp_path: Path, need: Callable[..., None]) -> None:
    """Source and binary package, to the last pedantic word; that Debian 12's lintian knows no 4.7.2 is its own."""
    need(lintian="lintian", dh="debhelper", pybuild="pybuild-plugin-pyproject", fakeroot="fakeroot")
    tree = tmp_path / "certbot-seafile"
    shutil.copytree(sources, tree)
    shutil.copytree(tree / "packaging" / "debian", tree / "debian")
    nocheck = {"DEB_BUILD_PROFILES": "nocheck", "DEB_BUILD_OPTIONS": "nocheck"}
    run("dpkg-buildpackage", "-d", "-us", "-uc", folder=tree, env=nocheck)
    (changes,) = tmp_path.glob("*.changes")
    options = ["--display-info", "--pedantic", "--tag-display-limit", "0", "--allow-root"]
    assert run("lintian", *options, "--suppress-tags", "newer-standards-version", changes, folder=tmp_path) == ""


@pytest.mark.long
def test_fedoras_spec_builds_and_rpmlint_finds_nothing(
    released: Path, builder: Path, tmp_path: Path, need: Callable[..., None]
) -> None:
    """The package holds command, manual page and modules, and nothing that its builder does not list."""
    need(rpmbuild="rpm", rpmlint="rpmlint")
    (tmp_path / "SOURCES").mkdir()
    shutil.copy(next(released.glob("*.tar.gz")), tmp_path / "SOURCES")
    spec = shutil.copy(PROJECT / "packaging" / "fedora" / "certbot-seafile.spec", tmp_path)
    (tmp_path / "macros").write_text(RPM_MACROS.format(python=builder / "python"))
    options = ["--nodeps", "--define", f"_topdir {tmp_path}", "--load", str(tmp_path / "macros")]
    run("rpmbuild", "-bb", *options, spec, folder=tmp_path)
    (package,) = tmp_path.glob("RPMS/noarch/*.rpm")
    listed = run("rpm", "-qpl", package, folder=tmp_path).split()
    assert {"/usr/bin/certbot-seafile", "/usr/share/man/man1/certbot-seafile.1"} <= set(listed)
    (tmp_path / "rpmlint.toml").write_text(f"Filters = {list(RPM_FILTERS)}\n")
    verdict = run("rpmlint", "-c", tmp_path / "rpmlint.toml", spec, package, folder=tmp_path)
    assert re.findall(r"^\S+: [EW]: .*$", verdict, re.MULTILINE) == []
    assert "1 packages and 1 specfiles checked; 0 errors, 0 warnings" in verdict


@pytest.mark.long
def test_archs_pkgbuild_builds_without_a_warning(
    released: Path, builder: Path, tmp_path: Path, need: Callable[..., None]
) -> None:
    """makepkg reads every field, builds, and has nothing to say about what it packed."""
    need(makepkg="makepkg", bsdtar="libarchive-tools", fakeroot="fakeroot")
    shutil.copy(PROJECT / "packaging" / "arch" / "PKGBUILD", tmp_path)
    shutil.copy(next(released.glob("*.tar.gz")), tmp_path)
    env = {"PATH": f"{builder}:{SYSTEM_PATH}", "HOME": str(tmp_path), "PKGEXT": ".pkg.tar.gz"}
    # makepkg refuses root; in a user namespace the same user has another number.
    ordinary = ["unshare", "--user", "--map-user=1000"] if os.geteuid() == 0 else []
    fields = run(*ordinary, "makepkg", "--printsrcinfo", folder=tmp_path, env=env)
    assert re.findall(r"^\t(pkgdesc|url|arch|license|source|sha256sums) = \S", fields, re.MULTILINE) == [
        "pkgdesc", "url", "arch", "license", "source", "sha256sums",
    ]  # fmt: skip
    log = run(*ordinary, "makepkg", "--nodeps", "--nocheck", folder=tmp_path, env=env)
    assert [line for line in log.splitlines() if "WARNING" in line and "dependency checks" not in line] == []
    (package,) = tmp_path.glob("*.pkg.tar.gz")
    listed = run("bsdtar", "-tf", package, folder=tmp_path).split()
    assert {"usr/share/licenses/certbot-seafile/LICENSE", "usr/share/man/man1/certbot-seafile.1.gz"} <= set(listed)
    assert [name for name in listed if name.endswith("/certbot_seafile/plugin.py")] != []
