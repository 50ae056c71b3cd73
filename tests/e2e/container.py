"""A machine whose nginx runs in a container: in mount, pid and network namespaces of its own.

The law of this module: what `docker run` does is done by the same calls of the kernel. The container has its own /proc,
users, logs and pid file, and of the machine's files those that are mounted; its ports are published by a forwarder on
the machine's loopback, as docker-proxy does it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import socket
import socketserver
import subprocess
import threading
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from e2e.cluster import entered
from e2e.processes import LOOPBACK, tool
from e2e.world import World

#: The official image's users; the machine does not know nginx's.
USERS = {"root": 0, "nginx": 101, "nobody": 65534, "nogroup": 65534}
_STAGE = Path("/mnt")
#: A root of its own, in which the machine's folders lie as they do in an image; pivot_root(8) makes it the root.
_OWN_ROOT = f"""\
mount -t tmpfs -o mode=755 tmpfs {_STAGE}
for entry in /*; do
    if [ -L "$entry" ]; then
        cp -a "$entry" "{_STAGE}$entry"
    elif [ -d "$entry" ] && [ "$entry" != {_STAGE} ]; then
        mkdir "{_STAGE}$entry"
        mount --rbind "$entry" "{_STAGE}$entry"
    fi
done
mkdir {_STAGE}{_STAGE}
cd {_STAGE}
pivot_root . .{_STAGE}
cd /
umount --lazy {_STAGE}"""


def skip_without_namespaces() -> None:
    """Skip where no namespaces can be made."""
    command = ["unshare", "--mount", "--pid", "--net", "--fork", "nsenter", "--version"]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("only root, with util-linux' unshare and nsenter, can make namespaces, and not everywhere")


def inside(
    world: World,
    places: Sequence[tuple[Path, Path]],
    first: str,
    *command: str | Path,
    read_only: Collection[Path] = (),
) -> str:
    """Return a script that runs a command where of the world's folder only some places are seen.

    places: what is mounted, and where, in this order. first: a command to begin with. read_only: these of the places.
    """
    lines = [_OWN_ROOT, first, f"mount -t tmpfs tmpfs {_STAGE}"]
    for number, (source, _) in enumerate(places):
        make = "mkdir" if source.is_dir() else "touch"
        lines += [f"{make} {_STAGE}/{number}", f"mount --bind {source} {_STAGE}/{number}"]
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {world.folder}"]
    lines += [f"mkdir -p {world.path(folder)}" for folder in ("/run", "/var/log/nginx", "/var/lib/nginx")]
    for number, (source, target) in enumerate(places):
        lines += [f"mkdir -p {target if source.is_dir() else target.parent}"]
        lines += [f"mount --move {_STAGE}/{number} {target}"]
        lines += [f"mount -o remount,bind,ro {target}"] if target in read_only else []
    return "\n".join([*lines, f"umount {_STAGE}", f"exec {shlex.join(map(str, command))}"])


class ContainerWorld(World):
    """A world whose nginx runs in a container; nginx_ctl is a script of one line, like `docker exec NAME nginx "$@"`.

    mounts: what of the machine's files the container has at the same path, in this order. read_only: which of them it
    cannot write to. network: a descriptor of the container's network, while nginx runs.
    """

    def __init__(self) -> None:
        skip_without_namespaces()
        super().__init__()
        self.mounts = [self.server_root, self.config_dir, self.webroot, self.path("/etc/ssl"), self.nginx_ctl.parent]
        self.read_only: list[Path] = []
        self.image = self.folder / "image"
        self._ports: list[_Published] = []
        self._binary, self.nginx_ctl = self.nginx_ctl, self.folder / "host" / "nginx-in-container"
        self.nginx_ctl.parent.mkdir()
        (self.image / "etc").mkdir(parents=True)
        (self.image / "etc" / "passwd").write_text("".join(f"{u}:x:{n}:{n}::/:/bin/false\n" for u, n in USERS.items()))
        (self.image / "etc" / "group").write_text("".join(f"{u}:x:{n}:\n" for u, n in USERS.items()))
        self.nginx_conf.write_text(self.nginx_conf.read_text().replace("user root;", "user nginx;"))

    @property
    def master(self) -> int:
        """Return nginx's process id, as the machine sees it."""
        pid = self._children["nginx"].pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def __enter__(self) -> ContainerWorld:
        return self

    def start_nginx(self) -> None:
        """Start the container, publish its ports, and write the script that reaches it."""
        for path in self.mounts:
            if not path.exists():
                path.mkdir(parents=True)
        self._start("nginx", [
            tool("unshare"), "--mount", "--pid", "--net", "--fork", "--kill-child=TERM", "--mount-proc",
            "/bin/sh", "-euc", self._script(),
        ])  # fmt: skip
        child = self._children["nginx"]
        pid_file = self.path("/run/nginx.pid")
        child.wait_until(lambda: self.master > 0 and Path(f"/proc/{self.master}/root{pid_file}").exists(), "running")
        enter = [tool("nsenter"), "--target", str(self.master), "--mount", "--pid", "--net", "--"]
        self.nginx_ctl.write_text(f'#!/bin/sh\nexec {shlex.join(enter)} {self._binary} "$@"\n')
        self.nginx_ctl.chmod(0o755)
        self.network = os.open(f"/proc/{self.master}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._ports = [_Published(port, self.network) for port in (self.http_port, self.https_port)]
        if self._seafile:  # it is the container's neighbour
            self.stop_seafile()
            with entered(self.network):
                self.start_seafile()

    def _script(self) -> str:
        """Return what is done in the container: its files are put together, and nginx is started."""
        places = [(self.image / "etc", Path("/etc"))]
        if self.server_root not in self.mounts:
            shutil.copytree(self.server_root, self.image / "nginx")
            places.append((self.image / "nginx", self.server_root))
        places += [(path, path) for path in self.mounts]
        return inside(
            self, places, "ip link set lo up",
            tool("nginx"), "-e", self.path("/var/log/nginx/error.log"), "-p", self.server_root, "-c", self.nginx_conf,
            "-g", "daemon off;", read_only=self.read_only,
        )  # fmt: skip

    def _stop(self, name: str) -> None:
        if name == "nginx" and name in self._children:
            while self._ports:
                self._ports.pop().close()
            os.close(self.network)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.master, 15)  # the container ends with its first process
            self._children[name].process.wait(20)
        super()._stop(name)


class _Published:
    """A port of the container, published on the machine's loopback."""

    def __init__(self, port: int, namespace: int) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    with entered(namespace):
                        inner = socket.create_connection((LOOPBACK, port), timeout=10)
                    with inner:
                        _pump(self.request, inner)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        self._server = socketserver.ThreadingTCPServer((LOOPBACK, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """End the forwarding."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _pump(left: socket.socket, right: socket.socket) -> None:
    """Pass bytes on in both directions, until one side ends."""
    with selectors.DefaultSelector() as selector:
        selector.register(left, selectors.EVENT_READ, (left, right))
        selector.register(right, selectors.EVENT_READ, (right, left))
        while ready := selector.select(20):
            for key, _ in ready:
                source, target = key.data
                if not (content := source.recv(65536)):
                    return
                target.sendall(content)
