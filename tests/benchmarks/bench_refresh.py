"""How fast `certbot-seafile refresh` is with many lineages, beside a shell loop of `openssl ocsp` in the same run.

Both ask the same responder on this machine, verify each answer and store it; ours also verifies what is stored, syncs
what it writes and reads the renewal files. The responder answers at once, then as late as one that is 20 ms away; it
keeps connections open for a client that asks for more, as those of CAs do. The loop is run over a sample of the
lineages, and its figure scaled. nginx is left out of both (ours reloads it once, whatever the number). Prints lineages
per second, their ratio, our CPU time per lineage, and our peak memory for few and for all lineages; on a disk, whose
file system decides much of it (ext4 without a journal searches long for a place after a thousand files were replaced),
and in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from cryptography.x509 import ocsp

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import authority
import lineages
from authority import Identity

FEW = 100
TARGET_RATIOS = {0: 1.5, 20: 8.0}  # by milliseconds: responders of CAs are 20 ms away, at best
MEMORY = "/dev/shm"  # a file system that takes no time
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
    options = parser.parse_args()
    ca, places = authority.make_ca("CA of many"), [tempfile.gettempdir(), *filter(os.path.isdir, [MEMORY])]
    good = [measure(place, ca, options.lineages, options.sample) for place in dict.fromkeys(places)]
    return 0 if all(good) else 1


def measure(place: str, ca: Identity, count: int, sample: int) -> bool:
    """Print the figures of lineages and staples below a folder; return whether each meets its target."""
    with tempfile.TemporaryDirectory(dir=place) as folder, responder(ca) as asked:
        print(f"below {place}:")
        few = Fleet(Path(folder) / "few", FEW, ca, asked.url)
        fleet = Fleet(Path(folder) / "all", count, ca, asked.url)
        good = report_memory(few.refresh(), fleet.refresh(), count) <= TARGET_GROWTH
        for milliseconds, target in TARGET_RATIOS.items():
            asked.wait_before_answers(milliseconds / 1000)
            cost = fleet.refresh("--force")
            ours = count / cost.seconds
            peer = sample / fleet.refresh_with_peer(sample)
            print(
                f"responder {milliseconds} ms away: ours {ours:.0f} lineages a second, a shell loop of openssl ocsp "
                f"{peer:.0f} (from {sample}); ratio {ours / peer:.1f}, target {target}; "
                f"{cost.cpu_seconds / count * 1000:.2f} ms of CPU for each of ours"
            )
            good = good and ours / peer >= target
    return good


def report_memory(few: Cost, fleet: Cost, count: int) -> float:
    """Print the peak memory of both runs; return by how much it grows."""
    print(f"peak memory: {few.kibibytes / 1024:.0f} MiB for {FEW}, {fleet.kibibytes / 1024:.0f} MiB for {count}")
    return fleet.kibibytes / few.kibibytes


@contextmanager
def responder(ca: Identity) -> Iterator[Responder]:
    """Run a responder in a process of its own for as long as the block lasts."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=answer, args=(ca, theirs), daemon=True)
    process.start()
    try:
        yield Responder(f"http://127.0.0.1:{ours.recv()}/", ours)
    finally:
        process.terminate()
        process.join()


@dataclass(frozen=True)
class Responder:
    """A running responder: its URL, and the pipe by which it is told how long to wait before each answer."""

    url: str
    pipe: Connection

    def wait_before_answers(self, seconds: float) -> None:
        """Let the responder be so far away, and have newer answers than before."""
        self.pipe.send(seconds)
        self.pipe.recv()


def answer(ca: Identity, pipe: Connection) -> None:
    """Answer OCSP requests until the process is ended, each certificate's with one response that is signed before."""
    kept: dict[authority.CertId, bytes] = {}
    delay_seconds = [0.0]

    def sign(about: authority.CertId) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        return authority.respond(ca, [authority.single(about, now, now + 4 * authority.DAY)], now)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer until the client hangs up, or once where it speaks HTTP/1.0, as `openssl ocsp` does."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *(\d+)", head)
                request = ocsp.load_der_ocsp_request(await reader.readexactly(int(length.group(1)) if length else 0))
                cert_id = authority.CertId(request.issuer_name_hash, request.issuer_key_hash, request.serial_number)
                body = kept[cert_id] = kept.get(cert_id) or sign(cert_id)
                await asyncio.sleep(delay_seconds[0])
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
                if b" HTTP/1.0\r\n" in head:
                    return

    def hear() -> None:
        delay_seconds[0] = pipe.recv()
        kept.update({about: sign(about) for about in kept})  # newer ones, which will be stored
        pipe.send(None)

    async def serve() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0, backlog=1000)
        asyncio.get_running_loop().add_reader(pipe.fileno(), hear)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


class Cost:
    """Seconds on the clock, seconds of CPU time and peak memory of one command."""

    def __init__(self, command: list[str | Path]) -> None:
        began = time.monotonic()
        process = subprocess.Popen(command)
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.monotonic() - began
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.kibibytes = usage.ru_maxrss
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command[0]} ended with {process.returncode}")


class Fleet:
    """A folder with lineages of this plugin."""

    def __init__(self, folder: Path, count: int, ca: Identity, url: str) -> None:
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
        target.mkdir(exist_ok=True)
        script = PEER.format(names=" ".join(self.names[:count]))
        return Cost(["sh", "-c", script, "sh", self.config_dir, self.url, target]).seconds


if __name__ == "__main__":
    sys.exit(main())
