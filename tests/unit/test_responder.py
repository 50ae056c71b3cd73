"""Asking a live responder on loopback, and judging what it answers: the fault table."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import ipaddress
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

import authority
import ocsp_server
from authority import DAY, HOUR, Identity
from certbot_seafile import __version__, errors
from certbot_seafile.ocsp import responder, staple
from ocsp_server import Server, State

TESTS = Path(__file__).resolve().parent.parent


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
        return staple.build_request(self.leaf, self.ca.certificate)

    def fetch(self, fault: str = "none", **options: Any) -> bytes:
        """Ask the responder, which answers with a fault."""
        self.server.state = State(fault)
        return responder.fetch(self.server.url, self.request, **{"deadline_seconds": 5, **options})

    def staple(self, fault: str = "none", **options: Any) -> staple.Staple:
        """Ask the responder, which answers with a fault, and judge the answer."""
        return staple.judge(self.fetch(fault), self.leaf, [self.ca.certificate], now(), **options)


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
    """Let no proxy or CA bundle of this machine's environment interfere."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def has_ended(url: str) -> bool:
    """Tell whether no thread that asks `url` is left, waiting for one that is about to end."""
    for thread in threading.enumerate():
        if thread.name == f"OCSP responder {url}":
            thread.join(10)
            return not thread.is_alive()
    return True


# --- accepted --------------------------------------------------------------------------------------------------------


ACCEPTED = [
    "none", "by-name", "delegate", "delegate-rsa", "get-only", "redirect-301", "redirect-303", "redirect-307", "cookie",
]  # fmt: skip


@pytest.mark.parametrize("fault", ACCEPTED)
def test_a_good_answer_is_stapled(world: World, fault: str) -> None:
    """Signed by the issuer or a delegate, by POST or GET, at once or after a redirect."""
    found = world.staple(fault)
    assert found.serial == world.leaf.serial_number
    assert found.end - found.this_update == 96 * HOUR


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
            response = responder.fetch(server.url, staple.build_request(leaf, ca.certificate))
            assert staple.judge(response, leaf, [ca.certificate], now()).serial == leaf.serial_number
        leaf = authority.make_leaf(stranger).certificate
        response = responder.fetch(server.url, staple.build_request(leaf, stranger.certificate))
        with pytest.raises(errors.ResponseRefused, match="unauthorized"):
            staple.judge(response, leaf, [stranger.certificate], now())


def test_a_question_is_posted_as_ocsp_says(world: World) -> None:
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
    responder.fetch(world.server.url + path, world.request)
    post, get = world.server.requests
    assert (post.method, get.method, get.body) == ("POST", "GET", world.request)
    folder, _, last = get.path.rpartition("/")
    assert folder == path.rstrip("/")
    assert not set(last) & set("+/=")
    assert "Content-Type" not in get.headers


def test_redirects_are_followed_three_times_at_most(world: World) -> None:
    """The question is repeated each time; the fourth redirect is one too many."""
    with pytest.raises(errors.ResponderFailed, match="it redirects too often"):
        world.fetch("redirect-loop")
    assert [request.method for request in world.server.requests] == ["POST"] * 4


METHODS = {"redirect-301": "POST", "redirect-307": "POST", "redirect-303": "GET"}


@pytest.mark.parametrize(("fault", "method"), METHODS.items(), ids=METHODS)
def test_a_redirect_repeats_the_question_unless_it_names_the_answer(world: World, fault: str, method: str) -> None:
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


# --- proxies and TLS -------------------------------------------------------------------------------------------------


class _ProxyHandler(http.server.BaseHTTPRequestHandler):
    """Forward a POST to where its absolute URL says, or open a tunnel."""

    server: Proxy

    def do_POST(self) -> None:
        """Forward."""
        self.server.asked.append(f"POST {self.path}")
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
        self.server.asked.append(f"CONNECT {self.path}")
        host, _, port = self.server.target.partition(":")
        with socket.create_connection((host, int(port))) as other:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_carry, args=(other, self.connection))
            back.start()
            _carry(self.connection, other)
            back.join()

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing."""


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(4096):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


class Proxy(http.server.ThreadingHTTPServer):
    """An HTTP proxy that reaches one server, whatever name it is asked for, and notes what was asked."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _ProxyHandler)
        self.target, self.asked = target, list[str]()

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


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY"])
def test_an_http_responder_is_asked_through_the_proxy(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The proxy looks the name up, so this machine need not be able to."""
    with Proxy(f"127.0.0.1:{world.server.server_port}") as proxy:
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        response = responder.fetch("http://responder.invalid/ocsp", world.request)
        assert proxy.asked == ["POST http://responder.invalid/ocsp"]
    assert staple.judge(response, world.leaf, [world.ca.certificate], now()).serial == world.leaf.serial_number


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Make a TLS server's context whose CA is the only one that requests trusts."""
    ca = authority.make_ca("TLS CA")
    server = authority.make_leaf(ca, ["responder.invalid"], addresses=[ipaddress.ip_address("127.0.0.1")])
    (tmp_path / "ca.pem").write_bytes(ca.certificate_pem)
    (tmp_path / "server.pem").write_bytes(server.certificate_pem + server.key_pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    return context


def test_an_https_responder_is_asked(tls: ssl.SSLContext) -> None:
    """Its certificate is verified with the certificate authorities that the environment names."""
    with make_world(tls=tls) as world:
        assert world.server.url.startswith("https://")
        assert world.staple().serial == world.leaf.serial_number


def test_an_https_responder_is_asked_through_a_tunnel(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees the name only."""
    with make_world(tls=tls) as world, Proxy(f"127.0.0.1:{world.server.server_port}") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.server_port}")
        response = responder.fetch("https://responder.invalid", world.request)
        assert proxy.asked == ["CONNECT responder.invalid:443"]
        assert staple.judge(response, world.leaf, [world.ca.certificate], now()).serial == world.leaf.serial_number


def test_an_https_responder_that_nobody_vouches_for_is_refused(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer would be signed, but whoever configured https wants it private."""
    (tmp_path / "other.pem").write_bytes(authority.make_ca("Other CA").certificate_pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "other.pem"))
    with make_world(tls=tls) as world:
        with pytest.raises(errors.ResponderFailed, match="its TLS certificate is not trusted"):
            world.fetch()
        assert world.server.requests == []


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
            responder.fetch(f"http://127.0.0.1:{port}", b"")


def test_a_name_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver's words are passed on."""

    def fail(*arguments: object, **options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(errors.ResponderFailed, match="its name cannot be looked up: Name or service not known"):
        responder.fetch("http://responder.invalid", b"")


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/", "ocsp.example.com", "", "//127.0.0.1"])
def test_only_http_and_https_are_spoken(url: str) -> None:
    """Whatever a certificate or an option says."""
    with pytest.raises(errors.ResponderFailed, match="is neither http nor https"):
        responder.fetch(url, b"")


SENSELESS = ["http://", "http://[::1", "http://a:b:c/", "http://127.0.0.1:99999/", f"http://{'a' * 64}.example/"]


@pytest.mark.parametrize("url", SENSELESS)
def test_a_url_that_makes_no_sense_is_one_of_our_errors(url: str) -> None:
    """It comes from a certificate or an option, so it can be anything."""
    with pytest.raises(errors.ResponderFailed):
        responder.fetch(url, b"")


# --- the deadline ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["drip-headers", "drip-body", "silent"])
def test_the_deadline_ends_the_call(world: World, fault: str) -> None:
    """The server would go on until this test ends; each byte would renew a timeout per read. No thread stays behind."""
    with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
        world.fetch(fault, deadline_seconds=0.3)
    assert has_ended(world.server.url)


@pytest.mark.parametrize("fault", ["drip-headers", "drip-body", "silent"])
def test_the_deadline_ends_a_call_over_tls(tls: ssl.SSLContext, fault: str) -> None:
    """Also where TLS has taken the connection over."""
    with make_world(tls=tls) as world:
        with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
            world.fetch(fault, deadline_seconds=0.3)
        assert has_ended(world.server.url)


def test_the_deadline_ends_a_tls_handshake_that_hangs() -> None:
    """A listener that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(errors.ResponderFailed, match=r"no whole answer within 0\.3 s|it does not answer in time"):
            responder.fetch(url, b"", deadline_seconds=0.3)
        assert has_ended(url)


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
    assert has_ended(world.server.url)
    assert world.server.requests == []


# --- faults of the response ------------------------------------------------------------------------------------------


REFUSED = {
    "empty": "it is empty",
    "html": "begins with b'<!DOCTYPE html>",
    "garbage": "begins with b'This is no OCSP",
    "truncated": "cut short: 10 bytes are missing",
    "trailing": "1 bytes follow the end",
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
    "delegate-expired": "its certificate expired on",
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
        world.staple("replay", previous=stored)


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
    found = []
    with script(tmp_path, issuers, "--validity-hours", "50") as url:
        for issuer, leaf in zip(issuers, leaves, strict=True):
            response = responder.fetch(url, staple.build_request(leaf, issuer.certificate))
            found.append(staple.judge(response, leaf, [issuer.certificate], now()))
        state = {"fault": "refuse-500", "this_update_offset_hours": -1, "validity_hours": 30}
        (tmp_path / "state.json").write_text(json.dumps(state), encoding="utf-8")
        with pytest.raises(errors.ResponderFailed, match="HTTP 500"):
            responder.fetch(url, staple.build_request(leaves[0], issuers[0].certificate))
        (tmp_path / "state.json").write_text(json.dumps(state | {"fault": "none"}), encoding="utf-8")
        response = responder.fetch(url, staple.build_request(leaves[0], issuers[0].certificate))
        found.append(staple.judge(response, leaves[0], [issuers[0].certificate], now()))
    assert [one.next_update - one.this_update for one in found] == [50 * HOUR, 50 * HOUR, 30 * HOUR]
    assert found[0].this_update - found[2].this_update > HOUR - DAY / 1000
    serials = [format(leaf.serial_number, "x") for leaf in leaves]
    lines = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert [line.split()[:4] for line in lines] == [
        ["POST", "/", serials[0], "none"],
        ["POST", "/", serials[1], "none"],
        ["POST", "/", serials[0], "refuse-500"],
        ["POST", "/", serials[0], "none"],
    ]
