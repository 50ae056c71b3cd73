"""DER in, DER out: one request to an OCSP responder over HTTP (RFC 6960 appendix A, RFC 5019 5).

The law of this module: a call ends by its deadline whatever the other side does, keeps at most `max_bytes`, speaks http
and https only, and every failure is errors.ResponderFailed. What the response is worth is not decided here.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import ipaddress
import logging
import os
import socket
import ssl
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import Future
from typing import Any

import urllib3.connection
import urllib3.exceptions
import urllib3.util

from certbot_seafile import __version__, errors

_HEADERS = {
    "Accept": "application/ocsp-response",
    "Accept-Encoding": "identity",
    "User-Agent": f"certbot-seafile/{__version__}",
}
_KEPT = 16  # connections to one responder, each used by one thread at a time
#: What urllib3 and http.client let through for what the network, the URL or the environment can cause.
_FAILURES = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)

for _name in ("urllib3.connection", "urllib3.connectionpool"):  # they log malformed headers with a traceback
    logging.getLogger(_name).addFilter(lambda record: not record.exc_info)


def fetch(url: str, request: bytes, *, deadline_seconds: float = 10, max_bytes: int = 65536) -> bytes:
    """Return the body that the responder at `url` sends for a DER request, at most max_bytes.

    deadline_seconds: for everything together, with name lookups, proxies, redirects and a second request by GET.
    Proxies and certificate authorities come from the environment that the process began with. Many threads may call
    this at the same time. Raises errors.ResponderFailed.
    """
    _call.deadline, _call.proxy = time.monotonic() + deadline_seconds, None
    try:
        return _request(url, request, max_bytes)
    except _FAILURES as error:
        is_late = time.monotonic() >= _call.deadline
        reason = f"no whole answer within {deadline_seconds:g} s" if is_late else _phrase(error)
    if _call.proxy and _call.is_connected is False:
        reason = f"the proxy {_call.proxy} cannot be reached: {reason}"
    elif _call.proxy:
        reason += f" (asked through the proxy {_call.proxy})"
    text = " ".join(reason[:500].split())
    raise errors.ResponderFailed(url, "".join(letter if letter.isprintable() else "?" for letter in text))


def _request(url: str, request: bytes, max_bytes: int) -> bytes:
    """POST the request; repeat it by GET where the responder answers 405, and follow three redirects."""
    body: bytes | None = request
    redirects = 0
    while True:
        with contextlib.closing(_send(url, body)) as response:
            location = response.headers.get("Location")
            if response.status == 200:
                return _read(response, max_bytes)
            if response.status in (301, 302, 303, 307, 308) and location:
                if redirects == 3:
                    raise ValueError(f"it redirects too often, the last time to {location}")
                url, redirects = urllib.parse.urljoin(url, location), redirects + 1
                # 303 names the place of the response; the others repeat the request elsewhere (RFC 9110 15.4).
                body = None if response.status == 303 else body
            elif response.status == 405 and body is not None:  # RFC 5019 5
                url, body = f"{url.removesuffix('/')}/{urllib.parse.quote(base64.b64encode(request), safe='')}", None
            else:
                raise ValueError(f"HTTP {response.status} {response.reason or ''}".rstrip())


def _send(url: str, body: bytes | None) -> Any:
    """POST the body, or GET where there is none; return urllib3's response, whose body is still to be read."""
    target = urllib3.util.parse_url(url)
    if target.scheme not in ("http", "https"):
        raise ValueError(f"{url} is neither http nor https")
    pools = _pools(target.scheme, target.host or "", target.port)
    _call.proxy = pools.proxy and pools.proxy._replace(auth=None).url
    typed = {**_HEADERS, "Content-Type": "application/ocsp-request"}
    method, headers = ("GET", _HEADERS) if body is None else ("POST", typed)
    options = {"redirect": False, "retries": False, "preload_content": False}
    send = functools.partial(pools.urlopen, method, url, body=body, headers=headers, **options)
    for _ in range(_KEPT):  # The responder may have closed each of the connections that were kept.
        _call.is_connected = None
        try:
            return send()
        except (urllib3.exceptions.ProtocolError, urllib3.exceptions.ProxyError):
            if _call.is_connected is not None:
                raise
    return send()


def _read(response: Any, max_bytes: int) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() != "identity":
        raise ValueError(f"the answer is encoded as {encoding}, which was not asked for")
    body: bytes = response.read(max_bytes + 1, decode_content=False)
    if len(body) > max_bytes:
        raise ValueError(f"the answer is larger than {max_bytes} bytes")
    if response.length_remaining:
        raise ValueError(f"the connection ended after {len(body)} of {len(body) + response.length_remaining} bytes")
    return body


@functools.lru_cache(maxsize=32)
def _pools(scheme: str, host: str, port: int | None) -> urllib3.PoolManager:
    """Return what connects to a responder, directly or through a proxy, and keeps the connections for later calls."""
    proxies = urllib.request.getproxies_environment()
    address = proxies.get(scheme) or proxies.get("all")
    proxy = urllib3.util.parse_url(address if "://" in address else f"http://{address}") if address else None
    if proxy is None or _is_direct(host, f"{host}:{port}" if port else host, proxies):
        pools = urllib3.PoolManager(maxsize=_KEPT, ssl_context=_trust() if scheme == "https" else None)
    elif proxy.scheme in ("http", "https"):
        auth = urllib3.util.make_headers(proxy_basic_auth=urllib.parse.unquote(proxy.auth or "") or None)
        inner, outer = (_trust(), _trust(is_for_tunnels=True)) if "https" in (scheme, proxy.scheme) else (None, None)
        contexts: dict[str, Any] = {"ssl_context": inner, "proxy_ssl_context": outer}
        pools = urllib3.ProxyManager(proxy.url, maxsize=_KEPT, proxy_headers=auth, **contexts)
    else:
        raise ValueError(f"the proxy {proxy._replace(auth=None).url} is neither http nor https")
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return pools


def _is_direct(host: str, netloc: str, proxies: dict[str, str]) -> bool:
    """Tell whether no_proxy names the host: its name, domain or address, or the network of its address."""
    for network in proxies.get("no", "").split(","):
        with contextlib.suppress(ValueError):  # host or network is a name
            if ipaddress.ip_address(host.strip("[]")) in ipaddress.ip_network(network.strip(), strict=False):
                return True
    return bool(urllib.request.proxy_bypass_environment(netloc, proxies))  # type: ignore[attr-defined]


@functools.lru_cache
def _trust(*, is_for_tunnels: bool = False) -> ssl.SSLContext:
    """Return what trusts the certificate authorities in the file or folder that a variable names, else the system's.

    urllib3 compares the server's name itself, so that addresses work in 1.26; a tunnel's proxy it leaves to OpenSSL.
    """
    variables = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
    path = next(filter(None, map(os.environ.get, variables)), None)
    try:
        is_folder = path is not None and os.path.isdir(path)
        context = ssl.create_default_context(cafile=None if is_folder else path, capath=path if is_folder else None)
    except OSError as error:
        raise ValueError(f"the certificate authorities in {path} cannot be read: {_phrase(error)}") from None
    context.check_hostname = is_for_tunnels
    context.sslsocket_class = _TlsSocket
    return context


class _Call(threading.local):
    """The call that this thread makes. is_connected: None until its last request had to make a new connection."""

    deadline = 0.0
    proxy: str | None = None
    is_connected: bool | None = None

    def seconds_left(self) -> float:
        if (left := self.deadline - time.monotonic()) > 0:
            return left
        raise TimeoutError


_call = _Call()
#: The addresses of each host and port that has answered, as getaddrinfo returns them, the one that did so first.
_answered: dict[tuple[str, int], list[Any]] = {}


def _timed(name: str) -> Any:
    """Return a socket's method, which now waits no longer than until the call's deadline."""

    def method(self: _Socket, *arguments: Any) -> Any:
        self.settimeout(_call.seconds_left())
        return getattr(super(_Socket, self), name)(*arguments)

    return method


class _Socket(socket.socket):
    """A socket that keeps the deadline, however often the other side sends a byte."""

    recv, recv_into, send, sendall = map(_timed, ("recv", "recv_into", "send", "sendall"))


class _TlsSocket(_Socket, ssl.SSLSocket):
    do_handshake = _timed("do_handshake")


def _connect(self: Any) -> socket.socket:
    """Connect to the first address that answers. Each has its share of the time that is left. Raises OSError."""
    _call.is_connected, host, port = False, self._dns_host, self.port
    addresses = _answered.get((host, port)) or look_up(host, port, _call.seconds_left())
    failure = OSError("its name has no address")
    for number, (family, kind, protocol, _, address) in enumerate(addresses):
        seconds = _call.seconds_left() / (len(addresses) - number)
        try:
            connection = socket.create_connection(address[:2], seconds)
        except OSError as error:
            failure = error
        else:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _call.is_connected, _answered[host, port] = True, addresses[number:] + addresses[:number]
            return _Socket(family, kind, protocol, connection.detach())
    _answered.pop((host, port), None)
    raise failure


class _Pool(urllib3.HTTPConnectionPool):
    class ConnectionCls(urllib3.connection.HTTPConnection):
        _new_conn = _connect


class _TlsPool(urllib3.HTTPSConnectionPool):
    class ConnectionCls(urllib3.connection.HTTPSConnection):
        _new_conn = _connect


def look_up(host: str, port: int, seconds: float) -> list[Any]:
    """Return the host's addresses, as getaddrinfo does. Raises OSError, also after so many seconds, and UnicodeError.

    Nothing can end a lookup, so it has a thread, which may outlive the call.
    """
    future: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            future.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:
            future.set_exception(error)

    threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
    return future.result(seconds)


def _phrase(error: BaseException) -> str:
    """Return what really happened: the root of a chain of wrapped exceptions, in a few words."""
    while (inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__)) is not None:
        error = inner
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate is not trusted: {error.verify_message}"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be looked up: {error.strerror}"
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
