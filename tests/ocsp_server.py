"""A live OCSP responder on loopback that can go wrong in every way that tests ask for, and counts what it is asked.

In a test: `with ocsp_server.serve([issuer]) as server`, then `server.url`, `server.state`, `server.requests`. From a
shell, for end-to-end tests:

    python tests/ocsp_server.py --port-file F --issuer issuer.pem --key issuer.key [--issuer … --key …]
        [--port N] [--validity-hours N] [--this-update-offset-hours N] [--state FILE] [--log FILE]

--state: a JSON object, read again at each request, whose members are those of State; --log: one line for each request.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import datetime
import http.server
import json
import os
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import ocsp

import authority
from authority import DAY, HOUR, CertId, Identity

DRIP_SECONDS = 0.05
HUGE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class State:
    """How to answer: a key of FAULTS, and the window (thisUpdate as a distance from now, or this_update itself).

    fault_serial: where it is given, the fault is for this certificate alone (hexadecimal).
    """

    fault: str = "none"
    this_update_offset_hours: float = 0
    validity_hours: float = 96
    fault_serial: str | None = None
    this_update: datetime.datetime | None = None


@dataclass(frozen=True)
class Request:
    """What was asked: the HTTP request, and the CertID's serial where the request could be read."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    serial: int | None


# --- what is answered ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """One CertID, the issuer that it names, and the window that the state asks for."""

    about: CertId
    issuer: Identity
    this_update: datetime.datetime
    next_update: datetime.datetime

    def single(
        self,
        about: CertId | None = None,
        shift: datetime.timedelta = datetime.timedelta(0),
        status: bytes = authority.GOOD,
    ) -> bytes:
        """Return a SingleResponse, good unless told otherwise."""
        return authority.single(about or self.about, self.this_update + shift, self.next_update + shift, status)

    def respond(self, *singles: bytes, signer: Identity | None = None, **options: object) -> bytes:
        """Return a response, good and by the issuer unless told otherwise."""
        singles = singles or (self.single(),)
        return authority.respond(signer or self.issuer, singles, self.this_update, **options)  # type: ignore[arg-type]

    @property
    def validity(self) -> datetime.timedelta:
        """Return how long the window is."""
        return self.next_update - self.this_update


def _delegated(question: Question, issuer: Identity | None = None, **options: object) -> bytes:
    """Return the response of a delegate that is made for it."""
    delegate = authority.make_delegate(issuer or question.issuer, **options)  # type: ignore[arg-type]
    return question.respond(signer=delegate, certificates=[delegate])


def _forged(question: Question) -> bytes:
    """Return the response of a CA that has the issuer's name and nothing else of it."""
    subject = question.issuer.certificate.subject
    forger = authority.make_ca(str(subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value))
    return question.respond(signer=forger, responder=authority.by_name, certificates=[forger])


def _other_issuer(question: Question) -> bytes:
    other = authority.make_ca("Another CA").certificate
    twin = authority.make_leaf(authority.make_ca("Another CA"), serial=question.about.serial).certificate
    return question.respond(question.single(authority.cert_id(twin, other)))


def _sha256_id(question: Question) -> bytes:
    twin = authority.make_leaf(question.issuer, serial=question.about.serial).certificate
    return question.respond(question.single(authority.cert_id(twin, question.issuer.certificate, authority.SHA256)))


def _wrong_serial(question: Question) -> bytes:
    about = dataclasses.replace(question.about, serial=question.about.serial + 1)
    return question.respond(question.single(about))


def _window(question: Question, validity: datetime.timedelta | None) -> bytes:
    end = None if validity is None else question.this_update + validity
    return question.respond(authority.single(question.about, question.this_update, end))


#: What stands in the body of an answer with HTTP 200.
BODIES: dict[str, Callable[[Question], bytes]] = {
    "none": lambda q: q.respond(),
    "by-name": lambda q: q.respond(responder=authority.by_name),
    "delegate": _delegated,
    "delegate-rsa": lambda q: _delegated(q, key=authority.rsa_key()),
    "revoked": lambda q: q.respond(q.single(status=authority.revoked(q.this_update - HOUR, 1))),
    "unknown": lambda q: q.respond(q.single(status=authority.UNKNOWN)),
    "garbage": lambda q: b"This is no OCSP response.\n",
    "html": lambda q: b"<!DOCTYPE html><html><title>Welcome</title></html>\n",
    "empty": lambda q: b"",
    "hollow": lambda q: authority.successful(b""),  # SUCCESSFUL, with nothing in it
    "truncated": lambda q: q.respond()[:-10],
    "trailing": lambda q: q.respond() + b"\n",
    "try-later": lambda q: authority.unsuccessful(3),
    "unauthorized": lambda q: authority.unsuccessful(6),
    "wrong-serial": _wrong_serial,
    "other-issuer": _other_issuer,
    "sha256-id": _sha256_id,
    "two-singles": lambda q: q.respond(q.single(), q.single()),
    "forged": _forged,
    "flipped": lambda q: q.respond(damage=authority.flip),
    "sha1-signature": lambda q: q.respond(signing=authority.sign_with_sha1),
    "delegate-without-purpose": lambda q: _delegated(q, purposes=()),
    "delegate-expired": lambda q: _delegated(q, end=q.this_update - HOUR),
    "delegate-of-other-issuer": lambda q: _delegated(q, authority.make_ca("Another CA")),
    "expired": lambda q: q.respond(q.single(shift=-q.validity - HOUR)),
    "future": lambda q: q.respond(q.single(shift=2 * DAY)),
    "replay": lambda q: q.respond(q.single(shift=-DAY)),
    "no-next-update": lambda q: _window(q, None),
    "next-before-this": lambda q: _window(q, -HOUR),
}

#: How an answer goes wrong before its body matters.
TRANSPORTS = {
    "refuse-404", "refuse-500", "redirect-loop", "redirect-file", "redirect-301", "redirect-303", "redirect-307",
    "get-only", "drip-headers", "drip-body", "silent", "huge", "huge-chunked", "short", "gzip", "cookie", "hang-up",
    "no-http",
}  # fmt: skip

FAULTS = BODIES.keys() | TRANSPORTS


class Handler(http.server.BaseHTTPRequestHandler):
    """One HTTP request."""

    server: Server

    def do_POST(self) -> None:
        """Answer a question in the body."""
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", "0"))))

    def do_GET(self) -> None:
        """Answer a question in the path (RFC 5019 5)."""
        quoted = urllib.parse.urlsplit(self.path).path.rpartition("/")[2]
        try:
            self._answer(base64.b64decode(urllib.parse.unquote(quoted), validate=True))
        except ValueError:
            self._answer(b"")

    def _answer(self, body: bytes) -> None:
        state = self.server.read_state()
        request, question = self.server.note(self.command, self.path, dict(self.headers), body, state)
        is_spared = state.fault_serial not in (None, format(request.serial or 0, "x"))
        fault, is_moved = "none" if is_spared else state.fault, self.path.startswith("/moved")
        if fault in TRANSPORTS:
            with contextlib.suppress(ConnectionError):  # the other side gave up, as it should
                self._go_wrong(fault, question, is_moved)
            return
        self._send(200, self._body(fault, question) if request.serial is not None else authority.unsuccessful(1))

    def _body(self, fault: str, question: Question | None) -> bytes:
        return authority.unsuccessful(6) if question is None else BODIES[fault](question)

    def _go_wrong(self, fault: str, question: Question | None, is_moved: bool) -> None:
        good = self._body("none", question)
        if fault.startswith("refuse-"):
            self._send(int(fault.removeprefix("refuse-")), b"out of order\n")
        elif fault.startswith("redirect-"):
            self._redirect(fault.removeprefix("redirect-"), good, is_moved)
        elif fault == "get-only":
            self._send(200 if self.command == "GET" else 405, good)
        elif fault in ("drip-headers", "drip-body", "silent"):
            self._drip(fault)
        elif fault in ("huge", "huge-chunked"):
            self._pour(fault == "huge-chunked")
        elif fault in ("hang-up", "no-http"):
            self.wfile.write(b"" if fault == "hang-up" else b"220 mail.example.com ESMTP\r\n")
        else:
            headers = {
                "short": {"Content-Length": str(len(good) + 10)},
                "gzip": {"Content-Encoding": "gzip"},
                "cookie": {"Set-Cookie": "track=me; Path=/", "Location": "/moved"},
            }[fault]
            self._send(302 if fault == "cookie" and not is_moved else 200, good, headers)

    def _redirect(self, kind: str, good: bytes, is_moved: bool) -> None:
        """Redirect for ever, to a file, or once; after 303 the answer is there for a plain GET."""
        if kind == "loop":
            self._send(302, b"", {"Location": self.path})
        elif kind == "file":
            self._send(302, b"", {"Location": "file:///etc/hostname"})
        elif is_moved:
            self._send(200, self.server.last_good if kind == "303" else good)
        else:
            self.server.last_good = good
            self._send(int(kind), b"", {"Location": "/moved/here"})

    def _drip(self, fault: str) -> None:
        """Send a byte now and then, or nothing, until the client or the test has enough."""
        if fault == "drip-body":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
        elif fault == "drip-headers":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.ending.wait(DRIP_SECONDS):
            self.wfile.write(b"" if fault == "silent" else b"x")
            self.server.dripped += 1

    def _pour(self, is_chunked: bool) -> None:
        """Send 64 MiB; without an announced length, so that only counting tells."""
        block = bytes(2**16)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        self.wfile.write(b"Transfer-Encoding: chunked\r\n\r\n" if is_chunked else b"\r\n")
        for _ in range(HUGE_BYTES // len(block)):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block) if is_chunked else block)
            self.server.poured_bytes += len(block)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        fields = {"Content-Type": "application/ocsp-response", "Content-Length": str(len(body)), **(headers or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Print nothing: `note` keeps what was asked."""


class Server(http.server.ThreadingHTTPServer):
    """A responder for several issuers. `state` may be set at any time; `requests` grows."""

    daemon_threads = True
    request_queue_size = 128  # a refresh asks for many at once

    def __init__(
        self,
        issuers: Sequence[Identity],
        state: State,
        *,
        port: int = 0,
        state_file: Path | None = None,
        log_file: Path | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.issuers, self.state, self.requests = tuple(issuers), state, list[Request]()
        self.ending, self.poured_bytes, self.dripped, self.last_good = threading.Event(), 0, 0, b""
        self._state_file, self._log_file, self._lock = state_file, log_file, threading.Lock()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def server_bind(self) -> None:
        """Bind, without http.server's look-up of this machine's name, which can take seconds."""
        super(http.server.HTTPServer, self).server_bind()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def read_state(self) -> State:
        """Return how to answer now."""
        if self._state_file is None or not self._state_file.exists():
            return self.state
        state = dataclasses.replace(self.state, **json.loads(self._state_file.read_text(encoding="utf-8")))
        if state.fault not in FAULTS:
            raise ValueError(f"{state.fault!r} is none of {sorted(FAULTS)}")
        return state

    def note(
        self, method: str, path: str, headers: dict[str, str], body: bytes, state: State
    ) -> tuple[Request, Question | None]:
        """Keep a request; return it, and the question in it where one of the issuers is asked about."""
        serial, question = None, None
        with contextlib.suppress(ValueError):  # not an OCSP request
            asked = ocsp.load_der_ocsp_request(body)
            serial, question = asked.serial_number, self._question(asked, state)
        request = Request(method, path, headers, body, serial)
        with self._lock:
            self.requests.append(request)
            if self._log_file is not None:
                with self._log_file.open("a", encoding="utf-8") as log:
                    number = "-" if serial is None else format(serial, "x")
                    log.write(f"{method} {path} {number} {state.fault} {headers.get('User-Agent', '-')}\n")
        return request, question

    def _question(self, asked: ocsp.OCSPRequest, state: State) -> Question | None:
        if not isinstance(asked.hash_algorithm, hashes.SHA1):
            return None
        about = CertId(asked.issuer_name_hash, asked.issuer_key_hash, asked.serial_number)
        now = datetime.datetime.now(datetime.UTC)
        begin = state.this_update or now + state.this_update_offset_hours * HOUR
        for issuer in self.issuers:
            if about.encoded == _cert_id(issuer, about.serial).encoded:
                return Question(about, issuer, begin, begin + state.validity_hours * HOUR)
        return None


def _cert_id(issuer: Identity, serial: int) -> CertId:
    """Return the CertID of any certificate of an issuer."""
    name = issuer.certificate.subject.public_bytes()
    return CertId(authority.sha1(name), authority.sha1(authority.key_bits(issuer.certificate)), serial)


@contextlib.contextmanager
def serve(
    issuers: Sequence[Identity], fault: str = "none", tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[Server]:
    """Run a responder in a thread, on that port or a free one, for as long as the block lasts."""
    with Server(issuers, State(fault), tls=tls, port=port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.ending.set()
            server.shutdown()
            thread.join()


def load(certificate: Path, key: Path) -> Identity:
    """Read an issuer's PEM files."""
    private = cast(authority.Key, load_pem_private_key(key.read_bytes(), None))
    return Identity(x509.load_pem_x509_certificate(certificate.read_bytes()), private)


def main() -> None:
    """Answer until a signal ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port, once it listens")
    parser.add_argument("--issuer", type=Path, action="append", required=True)
    parser.add_argument("--key", type=Path, action="append", required=True)
    parser.add_argument("--validity-hours", type=float, default=State.validity_hours)
    parser.add_argument("--this-update-offset-hours", type=float, default=State.this_update_offset_hours)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--log", type=Path)
    options = parser.parse_args()
    if len(options.issuer) != len(options.key):
        parser.error("each --issuer needs its --key")
    issuers = [load(certificate, key) for certificate, key in zip(options.issuer, options.key, strict=True)]
    state = State("none", options.this_update_offset_hours, options.validity_hours)
    with Server(issuers, state, port=options.port, state_file=options.state, log_file=options.log) as server:
        whole = options.port_file.with_name(f".{options.port_file.name}.new")
        whole.write_text(f"{server.server_port}\n", encoding="ascii")
        os.replace(whole, options.port_file)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
