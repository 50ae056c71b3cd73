"""DER in, DER out: one question to an OCSP responder over HTTP (RFC 6960 appendix A, RFC 5019 5).

The law of this module: a call ends by its deadline whatever the other side does, keeps at most `max_bytes`, speaks http
and https only, and what cannot be used is errors.ResponderFailed. What the answer is worth is not decided here.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import http.cookiejar
import os
import re
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import requests
import requests.adapters
import requests.auth
import urllib3
import urllib3.connection
import urllib3.exceptions

from certbot_seafile import __version__, errors

_HEADERS = {
    "Accept": "application/ocsp-response",
    "Accept-Encoding": "identity",
    "User-Agent": f"certbot-seafile/{__version__}",
}
_REDIRECTS = {301, 302, 303, 307, 308}
_CHUNK_BYTES = 4096
_PROXIES = [word for low in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for word in (low, low.upper())]
#: Addresses that are sent as they are written: what has to be quoted, or put into ASCII, is left to requests.
_PLAIN = re.compile(r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]+)?(?:/[!-~]*)?", re.IGNORECASE)
#: What requests, urllib3 and http.client let through for what the network, the URL or the environment can cause.
_FAILURES = (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, OSError, ValueError)


def fetch(
    url: str, request: bytes, *, deadline_seconds: float = 10, max_bytes: int = 65536, max_redirects: int = 3
) -> bytes:
    """Return what the responder at `url` answers to a DER request, at most max_bytes.

    deadline_seconds: for all of it, names, proxies, redirects and the second question by GET included. Proxies and
    certificate authorities come from the environment, as requests reads it. Raises errors.ResponderFailed.
    """
    question = _Question(url, request, time.monotonic() + deadline_seconds, max_bytes, max_redirects)
    question.start()
    question.join(deadline_seconds)
    if question.is_alive():
        question.give_up()
        raise errors.ResponderFailed(url, f"no whole answer within {deadline_seconds:g} s")
    return question.outcome()


class _Question(threading.Thread):
    """One call, in a thread of its own.

    Timeouts of sockets are per read, so a server that sends a byte now and then outlives them, and looking up a name
    has none at all. The caller waits for the thread until the deadline, then ends its connections under it.
    """

    def __init__(self, url: str, request: bytes, deadline: float, max_bytes: int, max_redirects: int) -> None:
        super().__init__(name=f"OCSP responder {url}", daemon=True)
        self._url, self._request, self._deadline = url, request, deadline
        self._max_bytes, self._redirects_left = max_bytes, max_redirects
        self._connections = _Connections()
        self._answer: bytes | None = None
        self._failure: errors.ResponderFailed | None = None

    def run(self) -> None:
        """Ask, and keep answer or failure."""
        try:
            _current.connections = self._connections
            with self._connections:
                self._answer = self._ask()
        except errors.ResponderFailed as failure:
            self._failure = failure
        except _FAILURES as error:
            self._failure = errors.ResponderFailed(self._url, _phrase(error))

    def give_up(self) -> None:
        """End the connections, so that the thread ends too."""
        self._connections.close()

    def outcome(self) -> bytes:
        """Return the answer. Raises errors.ResponderFailed."""
        if self._failure is not None:
            raise self._failure
        if self._answer is None:
            raise RuntimeError("asking the OCSP responder ended in a defect; its traceback is above")
        return self._answer

    def _ask(self) -> bytes:
        """POST the request; repeat it by GET where the responder wants that, and follow redirects by hand."""
        url, is_post = self._url, True
        while True:
            with contextlib.closing(self._send(url, is_post)) as answer:
                if answer.status == 200:
                    return self._read(answer)
                if answer.status in _REDIRECTS and "Location" in answer.headers:
                    url = self._redirected(url, answer.headers["Location"])
                    # 303 names the place of the answer; the others want the same question elsewhere (RFC 9110 15.4).
                    is_post = is_post and answer.status != 303
                elif answer.status == 405 and is_post:
                    url, is_post = _get_url(url, self._request), False
                else:
                    raise self._failed(f"HTTP {answer.status} {answer.reason}".rstrip())

    def _send(self, url: str, is_post: bool) -> _Answer:
        if urllib.parse.urlsplit(url).scheme.lower() not in ("http", "https"):
            raise self._failed(f"{url} is neither http nor https")
        # A little more than is left: the caller's deadline comes first, so that it is what is told.
        left = max(self._deadline - time.monotonic(), 0) + 1
        is_plain = _PLAIN.fullmatch(url) and not any(map(os.environ.get, _PROXIES))
        return (_send_plainly if is_plain else _send)(url, self._request if is_post else None, left)

    def _redirected(self, url: str, location: str) -> str:
        if self._redirects_left == 0:
            raise self._failed(f"it redirects too often, the last time to {location}")
        self._redirects_left -= 1
        return urllib.parse.urljoin(url, location)

    def _read(self, answer: _Answer) -> bytes:
        """Return the body as it is sent, in small pieces so that no more than a piece too much is ever held."""
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":
            raise self._failed(f"the answer is encoded as {encoding}, which was not asked for")
        body = bytearray()
        for chunk in answer.chunks:
            body += chunk
            if len(body) > self._max_bytes:
                raise self._failed(f"the answer is larger than {self._max_bytes} bytes")
        announced = answer.headers.get("Content-Length", "")
        if announced.isdecimal() and len(body) < int(announced):  # neither http.client nor urllib3 < 2 says so
            raise self._failed(f"the connection ended after {len(body)} of {announced} bytes")
        return bytes(body)

    def _failed(self, reason: str) -> errors.ResponderFailed:
        return errors.ResponderFailed(self._url, reason)


def _get_url(url: str, request: bytes) -> str:
    """Return the URL of a question by GET (RFC 5019 5: base64, then quoted, after a slash)."""
    return f"{url.removesuffix('/')}/{urllib.parse.quote(base64.b64encode(request), safe='')}"


# --- two ways to send ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Answer:
    """What came back, its body still to be read."""

    status: int
    reason: str
    headers: Mapping[str, str] | http.client.HTTPMessage
    chunks: Iterator[bytes]
    close: Callable[[], None]


def _send(url: str, request: bytes | None, timeout_seconds: float) -> _Answer:
    """POST the request, or GET where there is none, by requests: https, proxies, and whatever is unusual."""
    options: dict[str, Any] = {"timeout": timeout_seconds, "stream": True, "allow_redirects": False}
    if request is not None:
        options |= {"data": request, "headers": {"Content-Type": "application/ocsp-request"}}
    with contextlib.ExitStack() as opened:
        session = _sessions.take()
        opened.callback(_sessions.put_back, session)
        response = opened.enter_context(session.request("GET" if request is None else "POST", url, **options))
        close = opened.pop_all().close
    chunks = response.raw.stream(_CHUNK_BYTES, decode_content=False)
    return _Answer(response.status_code, response.reason or "", response.headers, chunks, close)


def _send_plainly(url: str, request: bytes | None, timeout_seconds: float) -> _Answer:
    """Do as _send does, by http.client, at a ninth of the cost: many lineages are most often asked for over http."""
    split = urllib.parse.urlsplit(url)
    headers = {**_HEADERS, "Connection": "close"}
    if request is not None:
        headers["Content-Type"] = "application/ocsp-request"
    target = urllib.parse.urlunsplit(("", "", split.path or "/", split.query, ""))
    with contextlib.ExitStack() as opened:
        connection = _PlainConnection(split.hostname or "", split.port or 80, timeout=timeout_seconds)
        opened.callback(connection.close)
        connection.request("GET" if request is None else "POST", target, request, headers)
        response = opened.enter_context(connection.getresponse())
        close = opened.pop_all().close
    chunks = iter(lambda: response.read(_CHUNK_BYTES), b"")
    return _Answer(response.status, response.reason, response.headers, chunks, close)


class _PlainConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        """Connect, and hand the connection to the call that it is made for."""
        super().connect()
        self.sock = _kept(self.sock)


# --- connections that can be ended from outside ----------------------------------------------------------------------


class _Connections:
    """The connections of one call; `close` ends them, and any that comes later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._twins: list[socket.socket] = []
        self._is_closed = False

    def add(self, connection: socket.socket) -> socket.socket:
        """Keep a twin of a new connection, which stays valid when TLS takes the descriptor over. Raises OSError."""
        with self._lock:
            if self._is_closed:
                connection.close()
                raise TimeoutError("given up")
            self._twins.append(connection.dup())
        return connection

    def close(self) -> None:
        """End all connections: a read that waits in another thread returns at once, which closing alone does not do."""
        with self._lock:
            self._is_closed = True
            for twin in self._twins:
                with contextlib.suppress(OSError):  # not connected any more
                    twin.shutdown(socket.SHUT_RDWR)
                twin.close()
            self._twins.clear()

    def __enter__(self) -> _Connections:
        return self

    def __exit__(self, *details: object) -> None:
        self.close()


_current = threading.local()  # .connections: those of the call that this thread makes


class _Plain(urllib3.connection.HTTPConnection):
    def _new_conn(self) -> socket.socket:
        return _kept(super()._new_conn())


class _Secure(urllib3.connection.HTTPSConnection):
    def _new_conn(self) -> socket.socket:
        return _kept(super()._new_conn())


def _kept(connection: socket.socket) -> socket.socket:
    """Hand a connection to its call. `_new_conn` is where urllib3 1.26 and 2 make every TCP connection."""
    connections: _Connections = _current.connections
    return connections.add(connection)


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Plain


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Secure


_POOLS = {"http": _PlainPool, "https": _SecurePool}


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter over our own pools."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Use our pools for direct connections."""
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        """Use our pools for connections to an HTTP proxy; a SOCKS proxy needs its own."""
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = _POOLS
        return manager


class _NoCredentials(requests.auth.AuthBase):
    """What keeps requests from sending what ~/.netrc says."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


#: What requests reads from the environment (utils.get_environ_proxies, Session.merge_environment_settings).
_ENVIRONMENT = [*_PROXIES, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"]


class _Session(requests.Session):
    """requests' session, which reads the environment anew only for another place or when it has changed."""

    _known: tuple[object, Any] = (None, None)

    def merge_environment_settings(self, url: Any, *options: Any) -> Any:
        """Return the settings as requests does, from what it returned before where nothing is different."""
        asked = (urllib.parse.urlsplit(url)[:2], [os.environ.get(name) for name in _ENVIRONMENT])
        if self._known[0] != asked:
            self._known = asked, super().merge_environment_settings(url, *options)
        return dict(self._known[1])


def _session() -> requests.Session:
    """Return a session; its making costs more than its use, so that `_Sessions` keeps it."""
    session = _Session()
    session.headers.clear()
    session.headers.update(_HEADERS)
    session.auth = _NoCredentials()
    session.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter())
    return session


class _Sessions:
    """Sessions that wait for the next call; no connection outlives the call that it was made for."""

    def __init__(self) -> None:
        self._idle: list[requests.Session] = []

    def take(self) -> requests.Session:
        """Give a session to one call."""
        try:
            return self._idle.pop()
        except IndexError:
            return _session()

    def put_back(self, session: requests.Session) -> None:
        """Take a session back, without its connections."""
        session.close()
        self._idle.append(session)


_sessions = _Sessions()


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
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
