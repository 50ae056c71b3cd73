"""Looks at a TLS server from outside, as clients take them.

The law of this module: each look opens one new connection to 127.0.0.1, and reports what came back as it came back.
It judges nothing; `curl` and `gnutls-cli` do, each by its own rules.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from e2e.processes import LOOPBACK, tool

TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Look:
    """What one TLS handshake showed.

    certificate: the server's. chain: all certificates it sent, the server's first. staple: the DER bytes of the OCSP
    response in the handshake, or None where there was none. protocol: as in "TLSv1.3".
    """

    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    staple: bytes | None
    protocol: str

    @property
    def chain_pem(self) -> bytes:
        """The chain as PEM blocks, the server's certificate first."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)


@dataclass(frozen=True)
class Verdict:
    """What a client program said about a server: whether it accepted the connection, and its output."""

    accepted: bool
    text: str


def handshake(name: str, port: int, only: Literal["rsa", "ecdsa"] | None = None) -> Look:
    """Make a TLS handshake that asks for a staple, with SNI unless `name` is an address or empty.

    `only` offers nothing but that kind of certificate (with TLS 1.2, whose cipher suites name the kind). Raises
    OpenSSL.SSL.Error where the server refuses, OSError where nothing listens.
    """
    staples: list[bytes] = []
    context = _context(only, staples)
    with socket.create_connection((LOOPBACK, port), timeout=TIMEOUT_SECONDS) as plain:
        _limit_blocking(plain)
        connection = SSL.Connection(context, plain)
        if name and not _is_address(name):
            connection.set_tlsext_host_name(name.encode("idna"))
        connection.request_ocsp()
        connection.set_connect_state()
        connection.do_handshake()
        chain = tuple(certificate.to_cryptography() for certificate in connection.get_peer_cert_chain() or ())
        protocol = connection.get_protocol_version_name()
        connection.shutdown()
    return Look(chain[0], chain, staples[0] if staples and staples[0] else None, protocol)


def _context(only: str | None, staples: list[bytes]) -> SSL.Context:
    def keep(_: SSL.Connection, response: bytes, __: object) -> bool:
        staples.append(response)
        return True

    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_ocsp_client_callback(keep)
    if only is not None:
        context.set_options(SSL.OP_NO_TLSv1_3)
        context.set_cipher_list({"rsa": b"aRSA", "ecdsa": b"aECDSA"}[only])
    return context


def _limit_blocking(plain: socket.socket) -> None:
    # OpenSSL works on the descriptor itself and takes Python's timeouts for a non-blocking socket.
    plain.settimeout(None)
    limit = struct.pack("ll", TIMEOUT_SECONDS, 0)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def curl_cert_status(name: str, port: int, root: Path) -> Verdict:
    """Ask curl for the site with `--cert-status`: it accepts only a verified chain with a valid, current staple."""
    url = f"https://{name}:{port}/"
    command = [tool("curl"), "--silent", "--show-error", "--verbose", "--output", "/dev/null", "--max-time", "20",
               "--noproxy", "*", "--cert-status", "--cacert", str(root),
               "--resolve", f"{name}:{port}:{LOOPBACK}", url]  # fmt: skip
    return _verdict(command)


def gnutls(name: str, port: int, root: Path) -> Verdict:
    """Connect with gnutls-cli, which verifies the chain, the name, the staple if there is one, and must-staple."""
    command = [tool("gnutls-cli"), "--x509cafile", str(root), "--sni-hostname", name, "--verify-hostname", name,
               "--port", str(port), LOOPBACK]  # fmt: skip
    return _verdict(command)


def _verdict(command: list[str]) -> Verdict:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False, env={"LC_ALL": "C.UTF-8"}
    )
    return Verdict(done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace"))
