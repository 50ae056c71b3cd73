"""Machines of one cluster: each is a world with a network of its own, and a cable from one to all others.

The law of this module: a machine's programs, sockets and ports are in its network namespace, which lives as long as a
descriptor of this process; so each machine has the ports 80 and 443, 127.0.0.1 is another one on each, and an address
tells them apart. Files go from machine to machine by a shared folder or by a copy, as in docs/cluster.md.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import datetime
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

import authority
from e2e import looks, road
from e2e.minted import issuer
from e2e.processes import find_tool, tool
from e2e.road import NAME
from e2e.world import Run, World

_CLONE_NEWNET = 0x40000000  # of unshare(2) and setns(2), which Python has from 3.12 on
_C = ctypes.CDLL(None, use_errno=True)
#: What root cannot do on a share with root_squash: read what others own, or pass their folders.
_SQUASHED = "--bounding-set=-dac_override,-dac_read_search"
_STAPLE = re.compile(rb"-----BEGIN OCSP RESPONSE-----(.*?)-----END", re.DOTALL)


def _call(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _present_namespace() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def _kept_namespace() -> Iterator[None]:
    """Bring this thread back to its present network afterwards."""
    present = _present_namespace()
    try:
        yield
    finally:
        _call(_C.setns(present, _CLONE_NEWNET))
        os.close(present)


@contextlib.contextmanager
def entered(namespace: int) -> Iterator[None]:
    """Let what this thread runs and connects to be in the network of a descriptor, while the block runs."""
    with _kept_namespace():
        _call(_C.setns(namespace, _CLONE_NEWNET))
        yield


def _ip(*words: str) -> None:
    subprocess.run([tool("ip"), *words], check=True, capture_output=True)


class Machine:
    """A machine with its files, its address and its network."""

    def __init__(self, number: int) -> None:
        if find_tool("ip") is None:
            pytest.skip("not installed: ip (Debian's iproute2)")
        self.address = f"192.0.2.{number}"
        with _kept_namespace():
            try:
                _call(_C.unshare(_CLONE_NEWNET))
            except OSError as error:
                pytest.skip(f"no network namespace can be made here: {error.strerror}")
            self.namespace = _present_namespace()
            _ip("link", "set", "lo", "up")
        self.world = World()
        self.world.http_port, self.world.https_port = 80, 443
        #: The tutorial's site, which answers at all addresses of the machine.
        self.site = self.world.adapt(road.TUTORIAL_SITE).replace(b" 127.0.0.1:", b" ")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Let what this thread runs and connects to be on the machine, while the block runs."""
        with entered(self.namespace):
            yield

    def close(self) -> None:
        """End what runs on the machine, and remove its files and its network."""
        self.world.close()
        os.close(self.namespace)

    def make_switch(self) -> None:
        """Give the machine its address, at a switch to which others can be connected."""
        with self.inside():
            _ip("link", "add", "switch", "type", "bridge")
            _ip("address", "add", f"{self.address}/24", "dev", "switch")
            _ip("address", "add", f"{self.address}0/24", "dev", "switch")  # a second one, in the first one's network
            _ip("link", "set", "switch", "up")

    def connect(self, other: Machine) -> None:
        """Connect another machine to this one's switch, with its address."""
        port, there = f"port{other.namespace}", f"/proc/{os.getpid()}/fd/{other.namespace}"
        with self.inside():
            _ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", there)
            _ip("link", "set", port, "master", "switch", "up")
        with other.inside():
            _ip("address", "add", f"{other.address}/24", "dev", "eth0")
            _ip("link", "set", "eth0", "up")

    def start(self) -> None:
        """Start nginx with the site."""
        self.world.write_site(road.SITE_NAME, self.site)
        with self.inside():
            self.world.start_nginx()

    def look(self) -> looks.Look:
        """Return what a TLS client on the machine is handed."""
        with self.inside():
            return self.world.handshake(NAME)

    def gnutls(self, root: Path) -> looks.Verdict:
        """Ask gnutls-cli, which trusts the CA in the file root alone."""
        with self.inside():
            return looks.gnutls(NAME, self.world.https_port, root)


class Frontend(Machine):
    """A machine that takes over what another one hands over.

    source: the folder that `setup` is told. is_squashed: it is a share with root_squash.
    """

    def __init__(self, number: int, *, is_squashed: bool = False) -> None:
        super().__init__(number)
        self.source = self.world.path("/var/lib/certs/handover")
        self.source.mkdir(mode=0o700, parents=True)
        self.world.folder.chmod(0o755)  # so that the file's owner can come to it
        self.settings = self.world.path("/etc/certbot-seafile.json")
        self.units = self.world.path("/etc/systemd/system")
        self.prefix = [tool("setpriv"), _SQUASHED, "--"] if is_squashed else []

    @property
    def handed(self) -> Path:
        """Return the path of the handover file on this machine."""
        return self.source / f"{NAME}.pem"

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line with which `seafile` runs the console script."""
        script = Path(sys.executable).parent / "certbot-seafile"
        return [*self.prefix, script, "--settings", self.settings, *self.world.folders, *words]

    def seafile(self, *words: str | Path, check: bool = True) -> Run:
        """Run the console script as root."""
        with self.inside():
            return self.world.run(*self.command(*words), check=check)

    def setup(self, *words: str | Path, check: bool = True) -> Run:
        """Run `setup` as docs/cluster.md says, with this machine's folders."""
        world = self.world
        nginx = ["--seafile-ctl", str(world.nginx_ctl), "--seafile-staple-dir", str(world.staple_dir)]
        own = ["--seafile-webroot", str(world.webroot), "--systemd-dir", str(self.units), "-d", NAME]
        return self.seafile(*nginx, "setup", "--source", self.source, *own, *words, check=check)

    def forget_reload(self) -> None:
        """Let the last reload be so long ago that root's step waits for none."""
        if any(record["last_reload"] for record in road.records(self.world)):
            road.change_record(self.world, last_reload=None)

    def apply(self, *, check: bool = True, env: dict[str, str] | None = None) -> Run:
        """Run what the unit of root's step runs, as if the last reload were long ago."""
        self.forget_reload()
        (command,) = re.findall("^ExecStart=(.*)$", (self.units / "certbot-seafile-apply.service").read_text(), re.M)
        with self.inside():
            return self.world.run(*self.prefix, *shlex.split(command), check=check, env=env)

    def serves(self, content: bytes) -> bool:
        """Tell whether clients are handed certificate and staple of a handover file's content."""
        look = self.look()
        return (look.certificate, look.staple) == (x509.load_pem_x509_certificate(content), staple(content))


@dataclass(frozen=True)
class Cluster:
    """Three machines, each of which can reach the others: the one that renews, and two frontends."""

    renewing: Machine
    first: Frontend
    second: Frontend


@contextlib.contextmanager
def cluster(*, is_squashed: bool = False, must_staple: bool = False) -> Iterator[Cluster]:
    """Give three machines with the tutorial's site, and CA and responder, which only the renewing one can reach.

    is_squashed: the first frontend's folder is a share with root_squash. must_staple: as World.start_pebble() takes it.
    """
    with contextlib.ExitStack() as closing:
        renewing = Machine(7)
        closing.callback(renewing.close)
        renewing.make_switch()
        frontends = []
        for number in (8, 9):
            frontends.append(frontend := Frontend(number, is_squashed=is_squashed and number == 8))
            closing.callback(frontend.close)
            renewing.connect(frontend)
            frontend.start()
        with renewing.inside():
            renewing.world.start_pebble(must_staple=must_staple)
            renewing.world.start_responder()
            renewing.start()
        yield Cluster(renewing, *frontends)


# --- what is handed over ---------------------------------------------------------------------------------------------


def staple(content: bytes) -> bytes | None:
    """Return the OCSP response in a handover file's content; None where there is none."""
    block = _STAPLE.search(content)
    return base64.b64decode(block[1]) if block else None


@functools.cache
def mint(number: int, *, must_staple: bool = False) -> bytes:
    """Return a handover file's content, once for each number, with a newer certificate for each."""
    begin = datetime.datetime.now(datetime.UTC) - authority.DAY + datetime.timedelta(minutes=number)
    features = [x509.TLSFeatureType.status_request] if must_staple else []
    leaf = authority.make_leaf(issuer(), [NAME], key=authority.rsa_key(number), features=features, now=begin)
    return restaple(leaf.certificate_pem + issuer().certificate_pem + leaf.key_pem, 0)


def restaple(content: bytes, staple_number: int) -> bytes:
    """Return the content with another staple, each number (of 50) with a newer one."""
    leaf = x509.load_pem_x509_certificate(content)
    update = datetime.datetime.now(datetime.UTC) - 10 * authority.HOUR + datetime.timedelta(minutes=10 * staple_number)
    single = authority.single(authority.cert_id(leaf, issuer().certificate), update, update + 4 * authority.DAY)
    response = base64.encodebytes(authority.respond(issuer(), [single], update))
    unstapled, _, _ = content.partition(b"-----BEGIN OCSP RESPONSE-----")
    return unstapled + b"-----BEGIN OCSP RESPONSE-----\n" + response + b"-----END OCSP RESPONSE-----\n"


def hand_over(content: bytes, target: Path, uid: int = 0) -> None:
    """Let a handover file have this content and this owner: written beside, then renamed."""
    beside = target.with_name(".new")
    beside.write_bytes(content)
    beside.chmod(0o600)
    os.chown(beside, uid, uid)
    beside.rename(target)


def push(source: Path, target: Path, uid: int = 0) -> None:
    """Copy a folder's files to another with rsync, for a user there; where it is missing, as it does that."""
    if find_tool("rsync"):
        # Tests write faster than the second by which rsync tells two files of one size apart.
        options = ["-rtog", "--ignore-times", f"--chown={uid}:{uid}", "--chmod=D700,F600"]
        subprocess.run([tool("rsync"), *options, f"{source}/", f"{target}/"], check=True, capture_output=True)
        return
    for path in source.glob("*.pem"):
        hand_over(path.read_bytes(), target / path.name, uid)


def _mount(*words: str | Path) -> None:
    if subprocess.run([tool("mount"), *words], capture_output=True).returncode != 0:
        pytest.skip("only root may mount a file system, and not everywhere")


@contextlib.contextmanager
def shared(folder: Path, at: Path) -> Iterator[None]:
    """Show a folder of another machine at a path of this one, for reading, as a mount of NFS does."""
    at.mkdir(parents=True, exist_ok=True)
    _mount("--bind", "-o", "ro", folder, at)
    try:
        yield
    finally:
        subprocess.run([tool("umount"), "--lazy", at], check=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Lay a file system of 64 KiB over a folder, with the files in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(folder, kept, dirs_exist_ok=True)
        _mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", folder)
        try:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
            yield
        finally:
            subprocess.run([tool("umount"), "--lazy", folder], check=True)


def remount(folder: Path, mode: str) -> None:
    """Let a mounted file system be "ro" or "rw"."""
    subprocess.run([tool("mount"), "-o", f"remount,{mode}", folder], check=True)


def keys_left(folder: Path, content: bytes) -> list[Path]:
    """Return the files below a folder that hold a line of the secret half of a handover file's RSA key."""
    _, _, rest = content.partition(b"PRIVATE KEY-----\n")
    lines = [line for line in rest.partition(b"-----END")[0].split() if len(line) == 64]
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in paths if any(line in path.read_bytes() for line in lines[len(lines) // 2 :])]
