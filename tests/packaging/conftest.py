"""What the tests of packages stand on: the tree as git holds it, and what `make dist` makes of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
NOT_IN_GIT = shutil.ignore_patterns(
    ".venv*", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "build", "*.whl", "*.tar.gz", "*.deb", "_build"
)


@pytest.fixture
def need(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Return what skips the test, or fails it with --no-missing-tools, where a program is not installed.

    It takes programs by name: need(rpmbuild="rpm") for one that Debian's package rpm holds.
    """

    def refuse_without(**programs: str) -> None:
        missing = [package for program, package in programs.items() if shutil.which(program) is None]
        if missing:
            refuse = pytest.fail if request.config.getoption("--no-missing-tools") else pytest.skip
            refuse(f"not installed: apt-get install {' '.join(missing)}")

    return refuse_without


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the files that git holds, or would hold; of an sdist, all of them."""
    tree = tmp_path_factory.mktemp("sources") / "certbot-seafile"
    if not (PROJECT / ".git").exists():
        shutil.copytree(PROJECT, tree, ignore=NOT_IN_GIT)
        return tree
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split("\0"):
        if name and (PROJECT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, tree / name)
    return tree


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the bin folder of an environment with PyPI's tools to build, check and install packages."""
    folder = tmp_path_factory.mktemp("builder")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    tools = ["build", "twine", "installer", "setuptools>=77", "wheel"]
    subprocess.run([folder / "bin" / "pip", "install", "--quiet", *tools], check=True)
    return folder / "bin"


@pytest.fixture(scope="session")
def released(sources: Path, builder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with sdist and wheel, as tests/packaging/dist makes and checks them.

    It builds twice, at other times, in other folders and under other umasks, and fails where a byte differs, or where
    `twine check --strict` has something to say.
    """
    folder = tmp_path_factory.mktemp("released")
    command = ["sh", str(sources / "tests" / "packaging" / "dist"), str(builder / "python"), str(folder)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": ""}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder
