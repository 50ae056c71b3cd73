"""Fetching from a live responder on loopback, and verifying what it answers: the fault table."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import ipaddress
import json
import logging
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

import authority
import ocsp_server
from authority import DAY, HOUR, Identity
from certbot_seafile import __version__, errors
from certbot_seafile.ocsp import fetch, verify
from ocsp_server import Server, State

#: urllib3 1.26 leaves it to Python to close the connections that it kept to a responder that others have superseded.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <certbot_seafile.ocsp.fetch:ResourceWarning")

TESTS = Path(__file__).resolve().parent.parent
VARIABLES = [
    "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "requests_ca_bundle", "curl_ca_bundle", "ssl_cert_file", "ssl_cert_dir",
]  # fmt: skip


def now() -> datetime.datetime:
    """Return the time, aware, UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class World:
    """A live responder of one CA, and a leaf of that."""

    server: Server
    ca: Identity
    leaf: x509.Certificate

    @property
    def request(self) -> bytes:
        """Return the request about the leaf."""
        return verify.build_request(self.leaf, self.ca.certificate)

    def fetch(self, fault: str = "none", url: str | None = None, **options: Any) -> bytes:
        """Ask the responder, which answers with a fault, at its own or at another URL."""
        self.server.state = State(fault)
        return fetch.fetch(url or self.server.url, self.request, **{"deadline_seconds": 5, **options})

    def staple(self, fault: str = "none", url: str | None = None, **options: Any) -> verify.Staple:
        """Ask the responder, which answers with a fault, and verify the response."""
        return verify.verify(self.fetch(fault, url), self.leaf, [self.ca.certificate], now(), **options)


@contextlib.contextmanager
def make_world(key: authority.Key | None = None, **options: Any) -> Iterator[World]:
    """Make a CA with a leaf, and run its responder."""
    ca = authority.make_ca(key=key)
    with ocsp_server.serve([ca], **options) as server:
        yield World(server, ca, authority.make_leaf(ca).certificate)


@pytest.fixture
def world() -> Iterator[World]:
    """Run a responder."""
    with make_world() as made:
        yield made


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy or CA bundle of this machine's environment interfere, nor what an earlier test made of it."""
    forget()
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def forget() -> None:
    """Let the environment be read once more, as by another process."""
    fetch._pools.cache_clear()
    fetch._trust.cache_clear()
    fetch._answered.clear()


def has_ended(host: str) -> bool:
    """Tell whether no lookup of a host is left, waiting for one that is about to end."""
    for thread in threading.enumerate():
        if thread.name == f"look up {host}":
            thread.join(10)
            return not thread.is_alive()
    return True


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return what gives a name the addresses (host and port) that it has for the rest of a test."""
    look_up = socket.getaddrinfo

    def give(name: str, *addresses: tuple[str, int]) -> None:
        def answer(host: str, *arguments: Any, **options: Any) -> Any:
            if host != name:
                return look_up(host, *arguments, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", address) for address in addresses]

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    return give


# --- accepted --------------------------------------------------------------------------------------------------------


ACCEPTED = [
    "none", "by-name", "delegate", "delegate-rsa", "get-only", "redirect-301", "redirect-303", "redirect-307", "cookie",
]  # fmt: skip


@pytest.mark.parametrize("fault", ACCEPTED)
def test_a_good_answer_is_stapled(world: World, fault: str) -> None:
    """Signed by the issuer or a delegate, by POST or GET, at once or after a redirect."""
    staple = world.staple(fault)
    assert staple.serial == world.leaf.serial_number
    assert staple.end - staple.this_update == 96 * HOUR


@pytest.mark.parametrize("kind", authority.KEYS)
def test_an_issuer_with_any_kind_of_key_is_understood(kind: str) -> None:
    """RSA, ECDSA, Ed25519 and Ed448."""
    with make_world(authority.KEYS[kind]()) as world:
        assert world.staple().serial == world.leaf.serial_number


def test_one_responder_may_answer_for_several_issuers() -> None:
    """It tells them apart by the CertID, and knows no certificate of others."""
    first, second, stranger = (authority.make_ca(name) for name in ("First", "Second", "Stranger"))
    with ocsp_server.serve([first, second]) as server:
        for ca in (first, second):
            leaf = authority.make_leaf(ca).certificate
            response = fetch.fetch(server.url, verify.build_request(leaf, ca.certificate))
            assert verify.verify(response, leaf, [ca.certificate], now()).serial == leaf.serial_number
        leaf = authority.make_leaf(stranger).certificate
        response = fetch.fetch(server.url, verify.build_request(leaf, stranger.certificate))
        with pytest.raises(errors.ResponseRefused, match="unauthorized"):
            verify.verify(response, leaf, [stranger.certificate], now())


def test_a_request_is_posted_as_ocsp_says(world: World) -> None:
    """One POST, with the right type, a name to answer for, nothing compressed, no cookie and no credentials."""
    world.fetch()
    (request,) = world.server.requests
    assert (request.method, request.path, request.body) == ("POST", "/", world.request)
    assert request.headers["Content-Type"] == "application/ocsp-request"
    assert request.headers["Accept-Encoding"] == "identity"
    assert request.headers["User-Agent"] == f"certbot-seafile/{__version__}"
    assert not {"Cookie", "Authorization"} & request.headers.keys()


@pytest.mark.parametrize("path", ["", "/", "/ocsp", "/ocsp/"])
def test_a_responder_that_answers_405_is_asked_by_get(world: World, path: str) -> None:
    """RFC 5019 5: the request in base64, quoted, after the URL and one slash."""
    world.server.state = State("get-only")
    fetch.fetch(world.server.url + path, world.request)
    post, get = world.server.requests
    assert (post.method, get.method, get.body) == ("POST", "GET", world.request)
    folder, _, last = get.path.rpartition("/")
    assert folder == path.rstrip("/")
    assert not set(last) & set("+/=")
    assert "Content-Type" not in get.headers


def test_redirects_are_followed_three_times_at_most(world: World) -> None:
    """The request is repeated each time; the fourth redirect is one too many."""
    with pytest.raises(errors.ResponderFailed, match="it redirects too often"):
        world.fetch("redirect-loop")
    assert [request.method for request in world.server.requests] == ["POST"] * 4


METHODS = {"redirect-301": "POST", "redirect-307": "POST", "redirect-303": "GET"}


@pytest.mark.parametrize(("fault", "method"), METHODS.items(), ids=METHODS)
def test_a_redirect_repeats_the_request_unless_it_names_the_answer(world: World, fault: str, method: str) -> None:
    """303 says where the answer is (RFC 9110 15.4.4); the others, where to ask."""
    world.fetch(fault)
    first, second = ((request.method, request.path) for request in world.server.requests)
    assert (first, second) == (("POST", "/"), (method, "/moved/here"))


def test_cookies_are_neither_kept_nor_sent(world: World) -> None:
    """A responder has no business telling its clients apart."""
    world.fetch("cookie")
    assert [("Cookie" in request.headers, request.path) for request in world.server.requests] == [
        (False, "/"),
        (False, "/moved"),
    ]


def test_credentials_of_netrc_are_not_sent(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """requests would, wherever it reads proxies from the environment."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login seafile password secret\n", encoding="ascii")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    world.fetch()
    assert "Authorization" not in world.server.requests[0].headers


def test_requests_is_not_imported() -> None:
    """It takes as long as all the rest, and urllib3 is enough."""
    code = "import sys; from certbot_seafile.ocsp import fetch; sys.exit('requests' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- kept connections ------------------------------------------------------------------------------------------------


def keep_connections(server: Server, answers: int = sys.maxsize, *, is_hasty: bool = False) -> list[int]:
    """Let a responder keep connections; return a list that grows by the client's port with each answer.

    answers: so many on each connection. Then the responder closes it: at once where it is hasty, else when it is asked
    again. It announces neither.
    """
    ports: list[int] = []

    class Keeping(ocsp_server.Handler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        answered = 0

        def do_POST(self) -> None:
            self.answered += 1
            ports.append(self.client_address[1])
            super().do_POST()
            self.close_connection = is_hasty and self.answered == answers

        def handle_one_request(self) -> None:
            if self.answered == answers:
                self.rfile.readline()
                self.close_connection = True
            else:
                super().handle_one_request()

    server.RequestHandlerClass = Keeping
    return ports


def test_a_connection_is_kept_for_the_next_call(world: World) -> None:
    """Where the responder agrees; a second handshake would cost more than the request."""
    ports = keep_connections(world.server)
    for _ in range(3):
        assert world.staple().serial == world.leaf.serial_number
    assert len(ports) == 3
    assert len(set(ports)) == 1


@pytest.mark.parametrize("is_hasty", [True, False], ids=["while it is idle", "when it is used again"])
def test_a_kept_connection_that_the_responder_closed_is_replaced(world: World, is_hasty: bool) -> None:
    """Nobody notices: the request is sent once more, by a new connection."""
    ports = keep_connections(world.server, 1, is_hasty=is_hasty)
    for _ in range(3):
        assert world.staple().serial == world.leaf.serial_number
    assert len(set(ports)) == 3


def test_many_threads_fetch_at_the_same_time() -> None:
    """Each has the response to its own request, and connections are used again."""
    ca = authority.make_ca()
    leaves = [authority.make_leaf(ca).certificate for _ in range(16)]
    with ocsp_server.serve([ca]) as server, ThreadPoolExecutor(16) as pool:
        ports = keep_connections(server)

        def ask(leaf: x509.Certificate) -> int:
            response = fetch.fetch(server.url, verify.build_request(leaf, ca.certificate))
            return verify.verify(response, leaf, [ca.certificate], now()).serial

        assert list(pool.map(ask, leaves * 8)) == [leaf.serial_number for leaf in leaves] * 8
        assert len(set(ports)) < 2 * 16  # of 128 requests; a responder that has much to do may close some


# --- proxies ---------------------------------------------------------------------------------------------------------


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    """Forward a POST to where its absolute URL says, or open a tunnel."""

    server: Proxy

    def do_POST(self) -> None:
        """Forward."""
        self.server.note(self)
        url = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        connection = http.client.HTTPConnection(self.server.target)
        with contextlib.closing(connection):
            connection.request("POST", url.path, body, dict(self.headers))
            answer = connection.getresponse()
            content = answer.read()
        self.send_response(answer.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_CONNECT(self) -> None:  # http.server's name
        """Open a tunnel and carry bytes both ways until one side ends."""
        self.server.note(self)
        host, _, port = self.server.target.partition(":")
        with socket.create_connection((host, int(port))) as other, contextlib.suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            peers = {self.connection: other, other: self.connection}
            while True:
                for source in select.select(list(peers), [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    peers[source].sendall(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


class Proxy(http.server.ThreadingHTTPServer):
    """An HTTP proxy that reaches one server, whatever name it is asked for, and notes what was asked."""

    daemon_threads = True

    def __init__(self, target: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.target, self.asked, self.authorization = target, list[str](), list[str | None]()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def note(self, handler: _ProxyHandler) -> None:
        """Keep what a client asked for, and as whom."""
        self.asked.append(f"{handler.command} {handler.path}")
        self.authorization.append(handler.headers.get("Proxy-Authorization"))

    def __enter__(self) -> Proxy:
        """Run in a thread."""
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        """End the thread."""
        self.shutdown()
        self._thread.join()
        self.server_close()


@pytest.fixture
def proxy(world: World) -> Iterator[Proxy]:
    """Run a proxy that reaches the responder."""
    with Proxy(f"127.0.0.1:{world.server.server_port}") as made:
        yield made


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_an_http_responder_is_asked_through_the_proxy(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, name: str, scheme: str
) -> None:
    """The proxy looks the name up, so this machine need not be able to."""
    monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.server_port}")
    assert world.staple(url="http://responder.invalid/ocsp").serial == world.leaf.serial_number
    assert proxy.asked == ["POST http://responder.invalid/ocsp"]
    assert proxy.authorization == [None]


def test_a_proxy_is_told_who_asks(world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the user and password in the proxy's URL, which the responder does not see."""
    monkeypatch.setenv("http_proxy", f"http://user:p%40ss@127.0.0.1:{proxy.server_port}")
    world.fetch()
    assert proxy.authorization == ["Basic dXNlcjpwQHNz"]
    assert "Authorization" not in world.server.requests[0].headers


DIRECT = [
    "127.0.0.1", "127.0.0.1:{port}", "*", "example.org, 127.0.0.1", "127.0.0.0/8", "10.0.0.0/8,127.0.0.1/32",
]  # fmt: skip


@pytest.mark.parametrize("exception", DIRECT)
def test_no_proxy_names_hosts_and_networks(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    """Their responders are asked directly."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exception.format(port=world.server.server_port))
    world.fetch()
    assert proxy.asked == []


@pytest.mark.parametrize("exception", ["invalid", ".invalid", "responder.invalid"])
def test_no_proxy_names_domains(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None], exception: str
) -> None:
    """With and without a leading dot."""
    resolve("responder.invalid", ("127.0.0.1", world.server.server_port))
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exception)
    world.fetch(url=f"http://responder.invalid:{world.server.server_port}/")
    assert proxy.asked == []


@pytest.mark.parametrize("exception", ["example.org", "10.0.0.0/8", "::1/128", "27.0.0.1", "127.0.0.1:1", ""])
def test_no_proxy_spares_nobody_else(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, exception: str
) -> None:
    """They are asked through the proxy."""
    monkeypatch.setenv("http_proxy", proxy.url)
    monkeypatch.setenv("no_proxy", exception)
    world.fetch()
    assert len(proxy.asked) == 1


@pytest.mark.parametrize("url", ["http://responder.invalid/", "https://responder.invalid/"])
def test_a_dead_proxy_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It is not the responder that refuses the connection. The proxy's password is not told."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        monkeypatch.setenv("all_proxy", f"http://user:secret@127.0.0.1:{port}")
        with pytest.raises(errors.ResponderFailed) as failed:
            fetch.fetch(url, b"")
    assert failed.value.url == url
    assert failed.value.reason == f"the proxy http://127.0.0.1:{port} cannot be reached: Connection refused"


def test_a_proxy_whose_name_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The responder's name is not looked up at all."""

    def fail(host: str, *arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, f"{host} is not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:3128")
    with pytest.raises(errors.ResponderFailed) as failed:
        fetch.fetch("http://responder.invalid/", b"")
    expected = "its name cannot be looked up: proxy.invalid is not known"
    assert failed.value.reason == f"the proxy http://proxy.invalid:3128 cannot be reached: {expected}"


@pytest.mark.parametrize("url", ["http://responder.invalid/", "https://responder.invalid/"])
def test_a_proxy_that_hangs_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """It accepts the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = f"http://127.0.0.1:{listener.getsockname()[1]}"
        monkeypatch.setenv("all_proxy", proxy)
        with pytest.raises(errors.ResponderFailed, match=rf"asked through the proxy {proxy}\)$"):
            fetch.fetch(url, b"", deadline_seconds=2)


def test_what_a_proxy_refuses_is_told(world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is the proxy's or the responder's; the message names both."""
    monkeypatch.setenv("http_proxy", proxy.url)
    with pytest.raises(errors.ResponderFailed) as failed:
        world.fetch("refuse-404")
    assert failed.value.reason == f"HTTP 404 Not Found (asked through the proxy {proxy.url})"


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h", "ftp"])
def test_a_proxy_that_speaks_no_http_is_refused(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """SOCKS would need one more library. The proxy's password is not told."""
    monkeypatch.setenv("all_proxy", f"{scheme}://user:secret@127.0.0.1:1080")
    with pytest.raises(errors.ResponderFailed, match=f"the proxy {scheme}://127.0.0.1:1080 is neither http nor https"):
        fetch.fetch("http://responder.invalid/", b"")


@pytest.mark.parametrize("proxy", ["http://[::1", "http://127.0.0.1:99999", "http://", "http:// /", "\x01", "[", "@:"])
def test_a_proxy_that_makes_no_sense_is_one_of_our_errors(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    """The environment can hold anything."""
    monkeypatch.setenv("http_proxy", proxy)
    with pytest.raises(errors.ResponderFailed):
        fetch.fetch("http://responder.invalid/", b"", deadline_seconds=2)


# --- TLS -------------------------------------------------------------------------------------------------------------


def make_tls(folder: Path) -> ssl.SSLContext:
    """Make a TLS server's context in a folder, and beside it, in ca.pem, the CA that its clients have to trust."""
    ca = authority.make_ca("TLS CA")
    server = authority.make_leaf(ca, ["responder.invalid"], addresses=[ipaddress.ip_address("127.0.0.1")])
    (folder / "ca.pem").write_bytes(ca.certificate_pem)
    (folder / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Make a TLS server's context whose CA is the only one that the environment trusts."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    return make_tls(tmp_path)


def test_an_https_responder_is_asked(tls: ssl.SSLContext) -> None:
    """Its certificate is verified with the certificate authorities that the environment names."""
    with make_world(tls=tls) as world:
        assert world.server.url.startswith("https://")
        assert world.staple().serial == world.leaf.serial_number


def test_a_connection_over_tls_is_kept_for_the_next_call(tls: ssl.SSLContext) -> None:
    """There it saves most."""
    with make_world(tls=tls) as world:
        ports = keep_connections(world.server)
        for _ in range(3):
            assert world.staple().serial == world.leaf.serial_number
        assert len(set(ports)) == 1


def test_an_https_responder_is_asked_through_a_tunnel(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees the name only."""
    with make_world(tls=tls) as world, Proxy(f"127.0.0.1:{world.server.server_port}") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert world.staple(url="https://responder.invalid").serial == world.leaf.serial_number
        assert proxy.asked == ["CONNECT responder.invalid:443"]


@pytest.mark.parametrize("url", ["http://responder.invalid", "https://responder.invalid"])
def test_a_proxy_may_itself_speak_tls(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None], url: str
) -> None:
    """With TLS inside of TLS where the responder speaks it too."""
    inner = tls if url.startswith("https") else None
    with make_world(tls=inner) as world, Proxy(f"127.0.0.1:{world.server.server_port}", tls) as proxy:
        resolve("responder.invalid", ("127.0.0.1", proxy.server_port))
        monkeypatch.setenv("all_proxy", f"https://responder.invalid:{proxy.server_port}")
        assert world.staple(url=url).serial == world.leaf.serial_number
        assert len(proxy.asked) == 1


@pytest.mark.parametrize("url", ["http://responder.invalid", "https://responder.invalid"])
def test_a_tls_proxy_with_another_name_is_refused(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None], url: str
) -> None:
    """It would see which certificates a host has."""
    with make_world() as world, Proxy(f"127.0.0.1:{world.server.server_port}", tls) as proxy:
        resolve("other.invalid", ("127.0.0.1", proxy.server_port))
        monkeypatch.setenv("all_proxy", f"https://other.invalid:{proxy.server_port}")
        with pytest.raises(errors.ResponderFailed, match=r"(?i)hostname"):
            world.fetch(url=url)
        assert proxy.asked == []


UNTRUSTED = "its TLS certificate is not trusted"


def test_an_https_responder_that_nobody_vouches_for_is_refused(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer would be signed, but whoever configured https wants it private."""
    (tmp_path / "other.pem").write_bytes(authority.make_ca("Other CA").certificate_pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with make_world(tls=tls) as world:
        with pytest.raises(errors.ResponderFailed, match=UNTRUSTED):
            world.fetch()
        assert world.server.requests == []


def test_an_https_responder_with_another_name_is_refused(tls: ssl.SSLContext, resolve: Callable[..., None]) -> None:
    """Its certificate is trusted, but it is not for that name."""
    with make_world(tls=tls) as world:
        resolve("other.invalid", ("127.0.0.1", world.server.server_port))
        with pytest.raises(errors.ResponderFailed, match=r"hostname 'other\.invalid' doesn't match"):
            world.fetch(url=f"https://other.invalid:{world.server.server_port}/")
        assert world.server.requests == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_the_environment_names_the_authorities_to_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Without it they are the system's, and those do not know the responder's."""
    with make_world(tls=make_tls(tmp_path)) as world:
        with pytest.raises(errors.ResponderFailed, match=UNTRUSTED):
            world.fetch()
        monkeypatch.setenv(name, str(tmp_path / "ca.pem"))
        forget()
        assert world.staple().serial == world.leaf.serial_number


def test_the_variable_of_requests_comes_first(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then curl's, then OpenSSL's."""
    monkeypatch.setenv("CURL_CA_BUNDLE", "/nowhere/curl.pem")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/openssl.pem")
    with make_world(tls=tls) as world:
        world.fetch()
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "")
        forget()
        with pytest.raises(errors.ResponderFailed, match=r"/nowhere/curl\.pem cannot be read: No such file"):
            world.fetch()
        monkeypatch.delenv("CURL_CA_BUNDLE")
        forget()
        with pytest.raises(errors.ResponderFailed, match=r"/nowhere/openssl\.pem cannot be read: No such file"):
            world.fetch()


def test_the_authorities_may_be_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the form that `openssl rehash` makes."""
    subprocess.run(["openssl", "rehash", tmp_path], check=True)
    context = make_tls(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with make_world(tls=context) as world:
        subprocess.run(["openssl", "rehash", tmp_path], check=True)
        assert world.staple().serial == world.leaf.serial_number


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where they are needed."""
    (tmp_path / "ca.pem").write_text("This is no certificate.\n", encoding="ascii")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with pytest.raises(errors.ResponderFailed, match=f"the certificate authorities in {tmp_path}/ca.pem cannot be"):
        fetch.fetch("https://127.0.0.1:1/", b"")
    with make_world() as world:
        world.fetch()


def test_a_plain_responder_at_an_https_url_is_one_of_our_errors() -> None:
    """OpenSSL's words are passed on."""
    with make_world() as world, pytest.raises(errors.ResponderFailed, match=r"(?i)ssl"):
        world.fetch(url=world.server.url.replace("http:", "https:"))


# --- faults of the transport -----------------------------------------------------------------------------------------


UNREACHABLE = {
    "HTTP 404": ("refuse-404", "HTTP 404 Not Found"),
    "HTTP 500": ("refuse-500", "HTTP 500 Internal Server Error"),
    "redirect loop": ("redirect-loop", "it redirects too often"),
    "redirect to file:": ("redirect-file", "file:///etc/hostname is neither http nor https"),
    "64 MiB": ("huge", "larger than 65536 bytes"),
    "64 MiB in chunks": ("huge-chunked", "larger than 65536 bytes"),
    "compressed": ("gzip", "encoded as gzip, which was not asked for"),
    "hangs up": ("hang-up", "Remote end closed connection without response"),
    "another protocol": ("no-http", "220 mail.example.com ESMTP"),
}


@pytest.mark.parametrize(("fault", "reason"), UNREACHABLE.values(), ids=UNREACHABLE)
def test_a_faulty_transport_is_one_of_our_errors(world: World, fault: str, reason: str) -> None:
    """It says in a phrase what came instead, and names the responder."""
    with pytest.raises(errors.ResponderFailed) as failed:
        world.fetch(fault)
    assert reason in failed.value.reason
    assert failed.value.url == world.server.url
    assert "object at 0x" not in str(failed.value)
    assert world.server.poured_bytes < ocsp_server.HUGE_BYTES / 2


def test_a_body_that_is_cut_short_is_refused(world: World) -> None:
    """Although what came is a whole response, the responder meant more."""
    with pytest.raises(errors.ResponderFailed, match=r"after \d+ of \d+ bytes|\d+ bytes read"):
        world.fetch("short")


def test_an_answer_of_just_the_largest_size_is_taken(world: World) -> None:
    """The limit is what may come, not one less."""
    size = len(world.fetch("garbage"))
    assert len(world.fetch("garbage", max_bytes=size)) == size
    with pytest.raises(errors.ResponderFailed, match="larger than"):
        world.fetch("garbage", max_bytes=size - 1)


def test_a_refused_connection_is_named() -> None:
    """Nobody listens there."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        with pytest.raises(errors.ResponderFailed, match=f"http://127.0.0.1:{port} .*: Connection refused"):
            fetch.fetch(f"http://127.0.0.1:{port}", b"")


def test_a_name_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's words are passed on."""

    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(errors.ResponderFailed, match="its name cannot be looked up: Name or service not known"):
        fetch.fetch("http://responder.invalid", b"")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/", "ocsp.example.com", "", "//127.0.0.1"])
def test_only_http_and_https_are_spoken(url: str) -> None:
    """Whatever a certificate or an option says."""
    with pytest.raises(errors.ResponderFailed, match="is neither http nor https"):
        fetch.fetch(url, b"")


SENSELESS = ["http://", "http://[::1", "http://a:b:c/", "http://127.0.0.1:99999/", f"http://{'a' * 64}.example/"]


@pytest.mark.parametrize("url", SENSELESS)
def test_a_url_that_makes_no_sense_is_one_of_our_errors(url: str) -> None:
    """It comes from a certificate or an option, so it can be anything."""
    with pytest.raises(errors.ResponderFailed):
        fetch.fetch(url, b"")


SEQUENCES = {
    "no status": b"HTTP/1.1 \r\n\r\n",
    "a status of letters": b"HTTP/1.1 OK\r\n\r\n",
    "a status out of range": b"HTTP/1.1 99999 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc",
    "chunks of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nabc\r\n",
    "a chunk that is cut short": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
    "a line without end": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70000,
    "headers without end": b"HTTP/1.1 200 OK\r\n" + b"X: x\r\n" * 200,
    "NUL": bytes(100),
    "a place that makes no sense": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "a place of nothing": b"HTTP/1.1 302 Found\r\nLocation:\r\n\r\n",
    "another encoding": b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd, gzip\r\nContent-Length: 3\r\n\r\nabc",
    "a TLS alert": bytes.fromhex("15030100020228"),
}  # fmt: skip


@contextlib.contextmanager
def recite(answer: bytes) -> Iterator[str]:
    """Run a server that gives every client these bytes after its request, and hangs up; return its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_recite, args=(listener, answer))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _recite(listener: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):  # the listener was shut down
        while True:
            connection = listener.accept()[0]
            with connection, contextlib.suppress(OSError):
                received = b""
                while not received.endswith(b"request") and not received.startswith(b"GET"):
                    received += connection.recv(4096)
                connection.sendall(answer)


@pytest.mark.parametrize("answer", SEQUENCES.values(), ids=SEQUENCES)
def test_http_that_makes_no_sense_is_one_of_our_errors(answer: bytes) -> None:
    """Whatever urllib3 and http.client make of it."""
    with recite(answer) as url, pytest.raises(errors.ResponderFailed) as failed:
        fetch.fetch(url, b"request", deadline_seconds=5)
    assert failed.value.url == url
    assert len(failed.value.reason) < 600


@settings(max_examples=60, deadline=None)
@given(
    status=st.sampled_from([b"200", b"302", b"405", b"404", b"1", b"100"]),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Content-Encoding", b"Location", b"", b"\xff"]),
            st.one_of(st.binary(max_size=20), st.sampled_from([b"3", b"chunked", b"gzip", b"http://127.0.0.1:1/"])),
        ),
        max_size=4,
    ),
    body=st.binary(max_size=50),
)
def test_whatever_is_answered_is_bytes_or_one_of_our_errors(
    status: bytes, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Never any other exception."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    answer = b"HTTP/1.1 " + status + b" X\r\n" + lines + b"\r\n" + body
    with recite(answer) as url, contextlib.suppress(errors.ResponderFailed):
        assert isinstance(fetch.fetch(url, b"request", deadline_seconds=5), bytes)


def test_a_malformed_header_is_passed_over_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    """urllib3 logs it as a warning, with a traceback, which a person would take for a defect."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nthis line has no colon\r\n\r\nabc"
    with recite(answer) as url, caplog.at_level(logging.WARNING):
        assert fetch.fetch(url, b"request") == b"abc"
    assert caplog.records == []


def test_a_message_holds_nothing_that_a_terminal_obeys() -> None:
    """The reason phrase is the responder's, and a person reads it as root."""
    with recite(b"HTTP/1.1 404 \x1b[2Jgone\x07\r\n\r\n") as url, pytest.raises(errors.ResponderFailed) as failed:
        fetch.fetch(url, b"request")
    assert failed.value.reason == "HTTP 404 ?[2Jgone?"


# --- the addresses of a name -----------------------------------------------------------------------------------------


@pytest.fixture
def hole() -> Iterator[tuple[str, int]]:
    """Return an address that leads nowhere: its queue is full, so that it never answers a client that connects."""
    with contextlib.ExitStack() as opened:
        listener = opened.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_an_address_that_leads_nowhere_leaves_time_for_the_next(
    world: World, hole: tuple[str, int], resolve: Callable[..., None]
) -> None:
    """As an AAAA record does on a host without IPv6. The address that answered is the first from then on."""
    alive, name = ("127.0.0.1", world.server.server_port), "two.invalid"
    resolve(name, hole, alive)
    world.fetch(url=f"http://{name}:80/", deadline_seconds=1)
    resolve(name, hole)
    world.fetch(url=f"http://{name}:80/", deadline_seconds=1)
    assert len(world.server.requests) == 2


def test_addresses_that_all_lead_nowhere_end_with_the_deadline(
    hole: tuple[str, int], resolve: Callable[..., None]
) -> None:
    """Together they have no more time than one."""
    resolve("holes.invalid", hole, hole, hole)
    with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
        fetch.fetch("http://holes.invalid/", b"", deadline_seconds=0.3)


def test_an_address_that_refuses_is_passed_over(world: World, resolve: Callable[..., None]) -> None:
    """The next has its turn at once. When all refuse, the name is looked up again by the next call."""
    url = f"http://moving.invalid:{world.server.server_port}/"
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        resolve("moving.invalid", bound.getsockname())
        with pytest.raises(errors.ResponderFailed, match="Connection refused"):
            world.fetch(url=url)
        resolve("moving.invalid", bound.getsockname(), ("127.0.0.1", world.server.server_port))
        world.fetch(url=url)
    assert len(world.server.requests) == 1


def test_an_address_that_has_answered_and_is_gone_is_looked_up_again(resolve: Callable[..., None]) -> None:
    """A responder that has moved in the meantime costs one call, not all that follow."""
    url = "http://moved.invalid:80/"
    with make_world() as world:
        resolve("moved.invalid", ("127.0.0.1", world.server.server_port))
        world.fetch(url=url)
    with make_world() as world:
        resolve("moved.invalid", ("127.0.0.1", world.server.server_port))
        with pytest.raises(errors.ResponderFailed, match="Connection refused"):
            world.fetch(url=url)
        world.fetch(url=url)
        assert len(world.server.requests) == 1


def test_a_name_without_addresses_is_one_of_our_errors(resolve: Callable[..., None]) -> None:
    """No resolver should say so."""
    resolve("empty.invalid")
    with pytest.raises(errors.ResponderFailed, match="no address"):
        fetch.fetch("http://empty.invalid/", b"")


# --- the deadline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drip-headers", "drip-body", "silent"])
def test_the_deadline_ends_the_call(world: World, fault: str) -> None:
    """The server would go on until this test ends; each byte would renew a timeout per read. No thread stays behind."""
    with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
        world.fetch(fault, deadline_seconds=0.3)
    assert has_ended("127.0.0.1")


@pytest.mark.parametrize("fault", ["drip-headers", "drip-body", "silent"])
def test_the_deadline_ends_a_call_over_tls(tls: ssl.SSLContext, fault: str) -> None:
    """Also where TLS has taken the connection over."""
    with make_world(tls=tls) as world:
        with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
            world.fetch(fault, deadline_seconds=0.3)
        assert has_ended("127.0.0.1")


@pytest.mark.parametrize("fault", ["drip-headers", "drip-body", "silent"])
def test_the_deadline_ends_a_call_over_tls_inside_tls(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, resolve: Callable[..., None], fault: str
) -> None:
    """Where urllib3 reads the inner TLS from the outer."""
    with make_world(tls=tls) as world, Proxy(f"127.0.0.1:{world.server.server_port}", tls) as proxy:
        resolve("responder.invalid", ("127.0.0.1", proxy.server_port))
        monkeypatch.setenv("all_proxy", f"https://responder.invalid:{proxy.server_port}")
        with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
            world.fetch(fault, url="https://responder.invalid", deadline_seconds=0.3)


def test_the_deadline_ends_a_tls_handshake_that_hangs() -> None:
    """A listener that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
            fetch.fetch(url, b"", deadline_seconds=0.3)
        assert has_ended("127.0.0.1")


def test_the_deadline_ends_the_look_up_of_a_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver has no timeout that could be set. When it answers at last, nobody is asked any more."""
    released, look_up = threading.Event(), socket.getaddrinfo

    def wait(*arguments: Any, **options: Any) -> Any:
        released.wait()
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", wait)
    with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s"):
        world.fetch(deadline_seconds=0.3)
    released.set()
    assert has_ended("127.0.0.1")
    assert world.server.requests == []


# --- faults of the response ------------------------------------------------------------------------------------------


REFUSED = {
    "empty": "it is empty",
    "hollow": "the response cannot be read",
    "html": "begins with b'<!DOCTYPE html>",
    "garbage": "begins with b'This is no OCSP",
    "truncated": "the response cannot be read",
    "trailing": "the response cannot be read",
    "try-later": "tryLater",
    "unauthorized": "unauthorized",
    "wrong-serial": "it is about the serial number",
    "other-issuer": "of an issuer with another name",
    "sha256-id": "its CertID is made with sha256",
    "two-singles": "2 SingleResponses instead of one",
    "forged": "the signature is not from its key",
    "flipped": "the signature is not from its key",
    "sha1-signature": "made with SHA-1",
    "delegate-without-purpose": "lacks the extended key usage OCSPSigning",
    "delegate-expired": "the delegate's certificate expired on",
    "delegate-of-other-issuer": "the issuer did not make its certificate",
    "unknown": "its status is unknown",
    "expired": "it expired on",
    "future": "is it right?",
    "no-next-update": "it has no nextUpdate",
    "next-before-this": "is not later than its thisUpdate",
}


@pytest.mark.parametrize("must_staple", [False, True])
@pytest.mark.parametrize(("fault", "reason"), REFUSED.items(), ids=REFUSED)
def test_a_faulty_response_is_never_stapled(world: World, fault: str, reason: str, must_staple: bool) -> None:
    """The reason says which rule it breaks; a must-staple certificate changes nothing about it."""
    with pytest.raises(errors.ResponseRefused) as refused:
        world.staple(fault, must_staple=must_staple)
    assert reason in str(refused.value)


def test_every_fault_of_the_server_is_in_a_table() -> None:
    """So that none is added without a test: a fault is a good answer, a failing transport or a refused response."""
    failing = {fault for fault, _ in UNREACHABLE.values()} | {"short", "drip-headers", "drip-body", "silent"}
    assert {*ACCEPTED, *failing} | REFUSED.keys() | {"revoked", "replay"} == ocsp_server.FAULTS


def test_a_revoked_leaf_is_never_stapled(world: World) -> None:
    """The CA's word is an error of its own."""
    with pytest.raises(errors.CertificateRevoked, match=r"the CA revoked the certificate on .*keyCompromise"):
        world.staple("revoked")


def test_a_replayed_response_does_not_replace_the_stored_one(world: World) -> None:
    """An old response is good as a first one, but not after a newer one."""
    stored = world.staple()
    assert world.staple("replay").this_update < stored.this_update
    with pytest.raises(errors.ResponseRefused, match="older than the newest known one"):
        world.staple("replay", known_update=stored.this_update)


# --- the server as a script ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def script(folder: Path, issuers: list[Identity], *options: str) -> Iterator[str]:
    """Run the server as a process that keeps port, state and log in `folder`; return its URL."""
    pairs: list[str] = []
    for number, issuer in enumerate(issuers):
        (folder / f"{number}.pem").write_bytes(issuer.certificate_pem)
        (folder / f"{number}.key").write_bytes(issuer.key_pem)
        pairs += ["--issuer", str(folder / f"{number}.pem"), "--key", str(folder / f"{number}.key")]
    files = ["--port-file", str(folder / "port"), "--log", str(folder / "log"), "--state", str(folder / "state.json")]
    process = subprocess.Popen([sys.executable, str(TESTS / "ocsp_server.py"), *files, *pairs, *options])
    try:
        yield f"http://127.0.0.1:{int(_read_when_there(folder / 'port', process))}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def _read_when_there(path: Path, process: subprocess.Popen[bytes]) -> str:
    """Return a file's text as soon as there is one; fail as soon as the process that should write it has ended."""
    for _ in range(1500):
        if path.exists():
            return path.read_text(encoding="ascii")
        with contextlib.suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"the responder ended with {process.wait(0.02)}")
    raise AssertionError(f"the responder did not write {path}")


def test_the_server_runs_as_a_script_for_end_to_end_tests(tmp_path: Path) -> None:
    """Several issuers, a state that is read again at each request, and a line of log for each."""
    issuers = [authority.make_ca("First"), authority.make_ca("Second", authority.rsa_key())]
    leaves = [authority.make_leaf(issuer).certificate for issuer in issuers]
    staples = []
    with script(tmp_path, issuers, "--validity-hours", "50") as url:
        for issuer, leaf in zip(issuers, leaves, strict=True):
            response = fetch.fetch(url, verify.build_request(leaf, issuer.certificate))
            staples.append(verify.verify(response, leaf, [issuer.certificate], now()))
        state = {"fault": "refuse-500", "this_update_offset_hours": -1, "validity_hours": 30}
        (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
        with pytest.raises(errors.ResponderFailed, match="HTTP 500"):
            fetch.fetch(url, verify.build_request(leaves[0], issuers[0].certificate))
        (tmp_path / "state.json").write_text(json.dumps(state | {"fault": "none"}), encoding="utf-8")
        response = fetch.fetch(url, verify.build_request(leaves[0], issuers[0].certificate))
        staples.append(verify.verify(response, leaves[0], [issuers[0].certificate], now()))
    assert [staple.next_update - staple.this_update for staple in staples] == [50 * HOUR, 50 * HOUR, 30 * HOUR]
    assert staples[0].this_update - staples[2].this_update > HOUR - DAY / 1000
    serials = [format(leaf.serial_number, "x") for leaf in leaves]
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["POST", "/", serials[0], "none"],
        ["POST", "/", serials[1], "none"],
        ["POST", "/", serials[0], "refuse-500"],
        ["POST", "/", serials[0], "none"],
    ]
