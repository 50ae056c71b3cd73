"""What is written down more than once says the same everywhere: versions, requirements, options."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import certbot_seafile

PROJECT = Path(__file__).resolve().parents[2]
PACKAGING = PROJECT / "packaging"

#: The distribution (setup.py), and its packages at Debian and at Arch, of every top-level module that is imported.
DISTRIBUTIONS = {
    "OpenSSL": ("pyopenssl", "python3-openssl", "python-pyopenssl"),
    "acme": ("acme", "python3-acme", "python-acme"),
    "certbot": ("certbot", "python3-certbot", "certbot"),
    "configobj": ("configobj", "python3-configobj", "python-configobj"),
    "cryptography": ("cryptography", "python3-cryptography", "python-cryptography"),
    "urllib3": ("urllib3", "python3-urllib3", "python-urllib3"),
    "zope": ("zope.interface", "python3-zope.interface", "python-zope-interface"),
}
VERSIONS = {
    "debian/changelog": r"^certbot-seafile \(([^)-]+)\)",
    "fedora/certbot-seafile.spec": r"^Version:\s+(\S+)$",
    "arch/PKGBUILD": r"^pkgver=(\S+)$",
    "../snap/snapcraft.yaml": r'^version: "([^"]+)"$',
    "../docs/certbot-seafile.1": r'^\.TH \S+ "1" \S+ "certbot\\-seafile ([^"]+)"',
}


def read(path: str) -> str:
    """Return the text of a file below packaging/."""
    return (PACKAGING / path).read_text(encoding="utf-8")


def imported_modules() -> set[str]:
    """Return the top-level modules, other than the standard library's and our own, that the package imports."""
    found: set[str] = set()
    for path in (PROJECT / "certbot_seafile").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"certbot_seafile"}


def requirements() -> set[str]:
    """Return the names in setup.py's install_requires."""
    (required,) = (
        node.value
        for node in ast.walk(ast.parse((PROJECT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.keyword) and node.arg == "install_requires"
    )
    return {re.split(r"[<>=; ]", line, maxsplit=1)[0] for line in ast.literal_eval(required)}


def packages(text: str) -> set[str]:
    """Return every word of the text that can be a package's name."""
    return set(re.findall(r"[a-z0-9][a-z0-9.+-]+", text))


@pytest.mark.parametrize("path", VERSIONS)
def test_every_package_has_the_version_of_the_program(path: str) -> None:
    """Changelog, spec, PKGBUILD and manual page state certbot_seafile.__version__."""
    stated = re.search(VERSIONS[path], read(path), re.MULTILINE)
    assert stated is not None
    assert stated[1] == certbot_seafile.__version__


def test_every_import_is_a_requirement_and_every_requirement_an_import() -> None:
    """setup.py requires exactly what the package imports, directly."""
    assert {DISTRIBUTIONS[module][0] for module in imported_modules()} == requirements()


def test_every_folder_of_the_package_is_installed() -> None:
    """setup.py takes every folder that has an __init__.py, and every folder with modules in it has one."""
    setup = ast.parse((PROJECT / "setup.py").read_text(encoding="utf-8"))
    (packages,) = (node.value for node in ast.walk(setup) if isinstance(node, ast.keyword) and node.arg == "packages")
    assert ast.unparse(packages) == "find_packages(include=['certbot_seafile', 'certbot_seafile.*'])"
    folders = {path.parent for path in (PROJECT / "certbot_seafile").rglob("*.py")}
    assert {folder.name for folder in folders} > {"certbot_seafile", "site", "ocsp", "system", "usecases", "doctor"}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == []


@pytest.mark.parametrize("module", DISTRIBUTIONS)
def test_the_distributions_know_every_requirement(module: str) -> None:
    """Debian's builder has what the tests import; so does Arch's package (others: generated)."""
    _, debian, arch = DISTRIBUTIONS[module]
    assert debian in packages(read("debian/control"))
    assert arch in packages(read("arch/PKGBUILD"))


def test_no_package_runs_a_script_of_its_own_when_it_comes_or_goes() -> None:
    """nginx and /etc/letsencrypt are not a package's business: no maintainer scripts, scriptlets or install files."""
    scripts = {"preinst", "postinst", "prerm", "postrm", "triggers"}
    assert [path.name for path in (PACKAGING / "debian").iterdir() if path.name.split(".")[-1] in scripts] == []
    scriptlet = re.compile(r"^%(?:pre(?!p)|post|trigger|filetrigger|transfiletrigger)\w*", re.MULTILINE)
    assert scriptlet.findall(read("fedora/certbot-seafile.spec")) == []
    assert re.findall(r"^install=", read("arch/PKGBUILD"), re.MULTILINE) == []
