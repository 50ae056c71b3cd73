"""docs/install.md: the commands of its sections are run as they stand, and what they promise is looked at.

pip, pipx and uv are run here, with PyPI's newest certbot and wheels of this tree. The deb section is what
tests/packaging/debian-root does, and the command of the snap section runs in tests/e2e/test_plugin_path.py.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import certbot_seafile

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "docs" / "install.md").read_text(encoding="utf-8")
NEXT_VERSION = f"{certbot_seafile.__version__}.post1"
#: Prints the deploy hook that a certbot, started as this program, writes into renewal files.
PRINT_HOOK = """\
import sys
from types import SimpleNamespace
from certbot_seafile import assembly
from certbot_seafile.system.lineages import Options
sys.argv[0] = sys.argv[1]
folders = dict(config_dir="/etc/letsencrypt", work_dir="/var/lib/letsencrypt", logs_dir="/var/log/letsencrypt")
print(assembly.hook_command(SimpleNamespace(**folders), Options()))
"""


@dataclass(frozen=True)
class Machine:
    """A folder that mirrors a system: /opt and /usr/local/bin are in it, and so is what a user has at home."""

    folder: Path

    @property
    def commands(self) -> Path:
        """Return /usr/local/bin."""
        return self.folder / "usr" / "local" / "bin"

    @property
    def environment(self) -> dict[str, str]:
        """Return this process's environment, with wheels of this tree beside PyPI, and pipx's folders here."""
        wheels, tools = self.folder / "wheels", self.folder / "tools" / "bin"
        return os.environ | {
            "PYTHONPATH": "", "HOME": str(self.folder / "root"),
            "PATH": f"{self.commands}:{tools}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PIP_FIND_LINKS": str(wheels), "UV_FIND_LINKS": str(wheels),
            "PIPX_GLOBAL_HOME": str(self.folder / "opt" / "pipx"), "PIPX_GLOBAL_BIN_DIR": str(self.commands),
            "PIPX_GLOBAL_MAN_DIR": str(self.folder / "usr" / "local" / "share" / "man"),
        }  # fmt: skip

    def run(self, *command: str | Path, exit_code: int = 0) -> str:
        """Run a command to its end; return what it prints, on either stream."""
        done = subprocess.run(
            command, env=self.environment, cwd=self.folder, text=True, check=False, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == exit_code, f"{shlex.join(map(str, command))}\n{done.stdout}"
        return done.stdout

    def run_block(self, commands: str) -> str:
        """Run the commands of one block of the page, in one shell, with this machine's paths."""
        text = re.sub(r"(?<![\w/])/(?=opt/|usr/local/)", f"{self.folder}/", commands)
        return self.run("sh", "-euc", text)

    def add_wheel(self, version: str) -> None:
        """Build a wheel of this tree, as that version."""
        tree = self.folder / "tree"
        shutil.copytree(PROJECT / "certbot_seafile", tree / "certbot_seafile")
        for name in ("setup.py", "pyproject.toml"):
            shutil.copy(PROJECT / name, tree)
        module = tree / "certbot_seafile" / "__init__.py"
        module.write_text(module.read_text().replace(certbot_seafile.__version__, version))
        self.run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", self.folder / "wheels", tree)
        shutil.rmtree(tree)

    def hook(self) -> str:
        """Return the deploy hook that the installed certbot writes into renewal files."""
        script = (self.commands / "certbot").resolve()
        python = script.read_text().partition("\n")[0].removeprefix("#!").split()
        return self.run(*python, "-c", PRINT_HOOK, self.commands / "certbot").strip()


def blocks(section: str) -> list[str]:
    """Return the commands of each console block of a section of the page, without prompts."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return [re.sub(r"^# ", "", block, flags=re.MULTILINE) for block in re.findall(r"```console\n(.*?)```", text, re.S)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Return a machine with pipx and uv, and a wheel of this tree."""
    made = Machine(tmp_path)
    made.commands.mkdir(parents=True)
    made.run(sys.executable, "-m", "venv", tmp_path / "tools")
    made.run(tmp_path / "tools" / "bin" / "pip", "install", "--quiet", "pipx", "uv")
    made.add_wheel(certbot_seafile.__version__)
    return made


@pytest.mark.long
@pytest.mark.parametrize("section", ["pipx", "uv", "pip"])
def test_a_section_installs_upgrades_and_keeps_the_hook(machine: Machine, section: str) -> None:
    """certbot lists the plugin, check runs, and the hook is where the page tells, before and after the upgrade."""
    install, upgrade = blocks(section)
    assert "* seafile" in machine.run_block(install)
    hook = machine.hook()
    stated = re.findall(r"The hook is `(/\S+ deploy)`", PAGE.partition(f"\n## {section}\n")[2])[0]
    assert hook == f"{machine.folder}{stated}"
    program = hook.removesuffix(" deploy")
    assert machine.run(program, "--version").split()[-1] == certbot_seafile.__version__
    check = [program, "--config-dir", f"{machine.folder}/letsencrypt", "check", "--root", str(machine.folder)]
    assert "get one with `certbot certonly -a seafile -d NAME`" in machine.run(*check, exit_code=1)
    machine.add_wheel(NEXT_VERSION)
    machine.run_block(upgrade)
    assert machine.run(program, "--version").split()[-1] == NEXT_VERSION
    assert machine.hook() == hook
    assert "* seafile" in machine.run("certbot", "plugins")


def test_every_console_block_of_the_page_is_run() -> None:
    """Each is of a section that the test above installs by."""
    assert PAGE.count("```console") == sum(len(blocks(section)) for section in ("pipx", "uv", "pip"))
