"""What a CA's validator and a TLS client are really handed by the site.

The law: nothing is changed. Connections go to the listen address of the site itself, never to what a name resolves to,
and each ends within its deadline.
"""

from __future__ import annotations

import errno
import http.client
import select
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from OpenSSL import SSL, crypto

from certbot_seafile import errors
from certbot_seafile.site import model

_BODY_BYTES = 65536
_TIMEOUT_SECONDS = 10


@dataclass(frozen=True)
class Endpoint:
    """Where to look: an IP address, a port, and whether the listener expects the PROXY protocol."""

    address: str
    port: int
    proxy_protocol: bool = False

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer: status, the Location header (None where absent), at most 64 KiB of body, and cookies."""

    status: int
    location: str | None
    body: bytes
    cookies: tuple[str, ...] = field(default=(), compare=False)  # "NAME=VALUE" each

    @property
    def is_steady(self) -> bool:
        """Tell whether it does not change by itself: not that a server or a client has too much to do."""
        return self.status < 500 and self.status != 429

    @property
    def bare(self) -> Answer:
        """Return it without the body, which may differ each time."""
        return replace(self, body=b"", cookies=())

    def __str__(self) -> str:
        target = f", a redirect to {self.location}" if self.location else ""
        return f"HTTP status {self.status}{target}"


@dataclass(frozen=True)
class Handshake:
    """What a TLS client was handed: the leaf's DER and the staple's DER (None where there was none)."""

    leaf_der: bytes
    staple: bytes | None


def is_here(address: str) -> bool:
    """Tell whether an address is one of this machine's now: it can be bound. Nothing is sent.

    A standby may bind to the address of another machine (ip_nonlocal_bind): there, the way to it must begin at it, too.
    """
    version, family = ("6", socket.AF_INET6) if ":" in address else ("4", socket.AF_INET)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind((address, 0))
        with open(f"/proc/sys/net/ipv{version}/ip_nonlocal_bind", encoding="ascii") as stream:
            if stream.read().strip() == "0":
                return True
        with socket.socket(family, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect((address, 9))
            return bool(datagrams.getsockname()[0] == datagrams.getpeername()[0])
    except OSError:
        return False


def is_taken(address: str, port: int) -> bool:
    """Tell whether somebody listens at an address ("*" and "::" for all of the family) and port (bind(2): EADDRINUSE).

    Where it cannot be tried (another machine's address, a port below 1024 without root), nobody is seen there.
    """
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in address:
            stream.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            stream.bind(("" if address == "*" else address, port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def get(
    endpoint: Endpoint,
    host: str,
    path: str,
    *,
    tls: bool = False,
    seconds: float = _TIMEOUT_SECONDS,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """GET path from the endpoint with this Host, or ask by another method and with more headers.

    tls: over TLS, whose certificate is not verified. seconds: how long each wait may last. Raises
    errors.NotServed where no answer comes.
    """
    sent = {"Host": f"[{host}]" if ":" in host else host, "Connection": "close", **(headers or {})}
    try:
        with _connected(endpoint, seconds) as plain, _encrypted(plain, host) if tls else plain as stream:
            connection = http.client.HTTPConnection(endpoint.address, endpoint.port)
            connection.sock = stream
            connection.request(method, path, headers=sent)
            response = connection.getresponse()
            cookies = [line.partition(";")[0] for line in response.headers.get_all("Set-Cookie", ())]
            location = response.getheader("Location")
            return Answer(response.status, location, response.read(_BODY_BYTES), tuple(cookies))
    except (OSError, http.client.HTTPException) as error:
        raise errors.NotServed(f"no HTTP answer from {endpoint}: {_reason(error)}") from error


def _encrypted(stream: socket.socket, name: str) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # what the site has is looked at, and not judged
    return context.wrap_socket(stream, server_hostname=name)


def perform(
    endpoint: Endpoint, name: str, *, ciphers: bytes | None = None, seconds: float = _TIMEOUT_SECONDS
) -> Handshake:
    """Make a TLS handshake for name and ask for a staple (RFC 6066 8). Nothing is verified.

    ciphers: all that the client has, of TLS 1.2, so that an RSA-only or ECDSA-only one can be played.
    seconds: how long it may take. Raises errors.NotServed where the handshake does not end well.
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)  # it verifies nothing unless told to
    if ciphers:
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        context.set_cipher_list(ciphers)
    staples: list[bytes] = []

    def keep(_connection: SSL.Connection, staple: bytes, _data: object) -> bool:
        staples.append(staple)
        return True

    context.set_ocsp_client_callback(keep)
    try:
        with _connected(endpoint, seconds) as stream:
            connection = SSL.Connection(context, stream)
            if not model.is_address(name):
                connection.set_tlsext_host_name(name.encode("idna") if not name.isascii() else name.encode())
            connection.request_ocsp()
            connection.set_connect_state()
            _shake(connection, stream, seconds)
            certificate = connection.get_peer_certificate()
    except (OSError, SSL.Error) as error:
        raise errors.NotServed(f"no TLS handshake with {endpoint} for {name}: {_reason(error)}") from error
    if certificate is None:
        raise errors.NotServed(f"{endpoint} showed no certificate for {name}; see nginx's error log")
    leaf = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return Handshake(leaf, next((staple for staple in staples if staple), None))


def _shake(connection: SSL.Connection, stream: socket.socket, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection.do_handshake()
            return
        except SSL.WantReadError:
            if not select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"no answer within {seconds:g} s") from None


def _connected(endpoint: Endpoint, seconds: float = _TIMEOUT_SECONDS) -> socket.socket:
    stream = socket.create_connection((endpoint.address, endpoint.port), seconds)
    if endpoint.proxy_protocol:
        here, there = stream.getsockname(), stream.getpeername()
        family = "TCP6" if stream.family == socket.AF_INET6 else "TCP4"
        stream.sendall(f"PROXY {family} {here[0]} {there[0]} {here[1]} {there[1]}\r\n".encode())
    return stream


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there; is nginx running?"
    if isinstance(error, SSL.Error):
        told = [part for entry in error.args[:1] if isinstance(entry, list) for part in entry[-1:]]
        return "; ".join(str(part[-1]) for part in told) or "the connection was closed"
    if isinstance(error, http.client.HTTPException):
        return "what came is not HTTP/1"
    if isinstance(error, TimeoutError) and "timed out" in str(error):
        return "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
