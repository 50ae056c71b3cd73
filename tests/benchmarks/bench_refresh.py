"""How fast `certbot-seafile refresh` is with many lineages, beside a shell loop of `openssl ocsp` in the same run.

Both ask the same responder on this machine, verify each answer and store it. The loop is run over a sample of the
lineages, and its figure scaled. nginx is left out of both (ours reloads it once, whatever the number). Prints
lineages per second, their ratio, and our peak memory for few and for all lineages.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

import authority
import lineages

FEW = 100
TARGET_RATIO = 5
TARGET_GROWTH = 1.25  # of peak memory, from FEW lineages to all

PEER = """\
for name in {names}; do
    openssl ocsp -issuer "$1/live/$name/chain.pem" -cert "$1/live/$name/cert.pem" -url "$2" -no_nonce \\
        -CAfile "$1/live/$name/chain.pem" -respout "$3/$name" 2>&1 | grep -q ': good' || exit 1
done
"""


def main() -> int:
    """Print the figures; exit code 1 where one misses its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lineages", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=100, help="lineages of the peer's loop")
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ca = authority.make_ca("CA of many")
        with responder(Path(folder) / "responder", ca) as url:
            few = Fleet(Path(folder) / "few", FEW, ca, url)
            fleet = Fleet(Path(folder) / "all", said.lineages, ca, url)
            memory_few, memory = few.refresh().kibibytes, fleet.refresh().kibibytes
            ours = said.lineages / fleet.refresh("--force").seconds
            peer = said.sample / fleet.refresh_with_peer(said.sample)
    print(f"ours, {said.lineages} lineages: {ours:.0f} a second")
    print(f"a shell loop of openssl ocsp, {said.sample} of them: {peer:.0f} a second")
    print(f"ratio: {ours / peer:.1f} (target: {TARGET_RATIO})")
    growth = memory / memory_few
    print(f"peak memory: {memory_few / 1024:.0f} MiB for {FEW}, {memory / 1024:.0f} MiB for {said.lineages}")
    return 0 if ours / peer >= TARGET_RATIO and growth <= TARGET_GROWTH else 1


@contextmanager
def responder(folder: Path, ca: authority.Identity) -> Iterator[str]:
    """Run tests/ocsp_server.py in a process of its own; give its URL."""
    certificate, key = lineages.write_identity(folder, ca)
    port_file = folder / "port"
    process = subprocess.Popen(
        [sys.executable, TESTS / "ocsp_server.py", "--port-file", port_file, "--issuer", certificate, "--key", key]
    )
    try:
        while not port_file.exists():
            if process.poll() is not None:
                raise SystemExit("the responder did not start")
            time.sleep(0.01)
        yield f"http://127.0.0.1:{int(port_file.read_text())}"
    finally:
        process.terminate()
        process.wait()


class Cost:
    """Seconds on the clock and peak memory of one command."""

    def __init__(self, command: list[str | Path]) -> None:
        began = time.monotonic()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.monotonic() - began
        self.kibibytes = usage.ru_maxrss
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")


class Fleet:
    """A folder with lineages of this plugin."""

    def __init__(self, folder: Path, count: int, ca: authority.Identity, url: str) -> None:
        self.folder, self.url = folder, url
        self.names = [f"site{number:04d}.example.org" for number in range(count)]
        self.config_dir = folder / "letsencrypt"
        (folder / "nginx").mkdir(parents=True)
        (folder / "nginx" / "nginx.conf").write_text("events {}\n")
        options = {
            "seafile_ctl": shutil.which("true"),
            "seafile_server_root": folder / "nginx",
            "seafile_staple_dir": folder / "OCSP",
        }
        lineages.make_many(self.config_dir, self.names, ca, url, options)

    def refresh(self, *words: str) -> Cost:
        """Refresh with our console script; return what it cost."""
        folders = {"--config-dir": self.config_dir, "--work-dir": self.folder / "work", "--logs-dir": self.folder}
        script = Path(sys.executable).parent / "certbot-seafile"
        cost = Cost([script, *(str(word) for pair in folders.items() for word in pair), "-q", "refresh", *words])
        stored = len(list((self.folder / "OCSP").rglob("ocsp.response")))
        if stored != len(self.names):
            raise SystemExit(f"{stored} of {len(self.names)} staples were stored")
        return cost

    def refresh_with_peer(self, count: int) -> float:
        """Refresh a sample with openssl, as the scripts that people run do; return the seconds."""
        target = self.folder / "peer"
        target.mkdir()
        script = PEER.format(names=" ".join(self.names[:count]))
        return Cost(["sh", "-c", script, "sh", self.config_dir, self.url, target]).seconds


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
