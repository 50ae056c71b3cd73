"""A front for a CA that overlooks must-staple and profiles, as Pebble 2.4 does, and knows the machine's clock only.

The law of this module: everything passes through unchanged, except that a certificate gets what was asked for and the
CA left out, signed by the CA's own issuing key: must-staple (the TLS feature extension, RFC 7633) where the CSR has it,
the lifetime of the profile that the order names, and with either the CSR's very names (Pebble 2.4 adds addresses as
DNS names). The serial number stays, so responders know the certificate; Pebble's revocation by certificate does not.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from e2e.processes import LOOPBACK

CHAIN_TYPE = "application/pem-certificate-chain"
MUST_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


class Front:
    """An HTTPS server on `port` that passes everything to the CA on `inner_port`.

    identity: PEM files of the front's own certificate and key, and of the authority that both servers' clients trust.
    issuing_key: PEM file of the key that the CA signs with. profiles: how long a certificate of each holds. now: the
    CA's clock, which says when such a certificate begins. While is_down is set, every connection is closed unanswered.
    """

    def __init__(
        self,
        port: int,
        inner_port: int,
        identity: tuple[Path, Path, Path],
        issuing_key: Path,
        profiles: Mapping[str, datetime.timedelta],
        now: Callable[[], datetime.datetime],
    ) -> None:
        certificate, key, authority = identity
        self._inner_port, self._issuing_key, self._profiles, self._now = inner_port, issuing_key, profiles, now
        self._trust = ssl.create_default_context(cafile=str(authority))
        self._requests: dict[bytes, x509.CertificateSigningRequest] = {}  # by public key
        self._lifetimes: dict[
            bytes | str, datetime.timedelta
        ] = {}  # by the path of the order's end, then by public key
        self.is_down = False
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # one packet an answer: the second of two waits 40 ms for the client's acknowledgement

            def do_GET(self) -> None:
                front.forward(self)

            do_HEAD = do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Write nothing: the CA behind this front has a log."""

        self._server = ThreadingHTTPServer((LOOPBACK, port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """End the server."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def forward(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request with what the CA answers."""
        sent = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        if self.is_down:
            request.close_connection = True
            return
        payload = _payload(sent)
        if "csr" in payload:
            self._remember(request.path, payload["csr"])
        inner = http.client.HTTPSConnection(LOOPBACK, self._inner_port, timeout=30, context=self._trust)
        # With the Host of this front, the CA names this front in all the addresses that it gives out.
        inner.request(request.command, request.path, sent or None, dict(request.headers))
        answer = inner.getresponse()
        body = answer.read()
        if request.path == "/dir" and self._profiles:
            body = self._with_profiles(body)
        elif "profile" in payload:
            path = urllib.parse.urlsplit(json.loads(body)["finalize"]).path
            self._lifetimes[path] = self._profiles[payload["profile"]]
        elif answer.headers.get_content_type() == CHAIN_TYPE:
            body = self._completed(body)
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        inner.close()

    def _with_profiles(self, directory: bytes) -> bytes:
        """Return the directory with the profiles (draft-ietf-acme-profiles 3)."""
        content = json.loads(directory)
        content["meta"]["profiles"] = {name: f"for {lifetime}" for name, lifetime in self._profiles.items()}
        return json.dumps(content).encode()

    def _remember(self, path: str, encoded: str) -> None:
        """Note what the certificate of a CSR (RFC 8555 7.4) is to have, by its public key."""
        csr = x509.load_der_x509_csr(_decode(encoded))
        key = _key_bytes(csr)
        self._requests[key] = csr
        if path in self._lifetimes:
            self._lifetimes[key] = self._lifetimes.pop(path)

    def _completed(self, chain: bytes) -> bytes:
        """Return the chain with the leaf as it was asked for."""
        leaf = x509.load_pem_x509_certificate(chain)
        key, (begin, end) = _key_bytes(leaf), validity(leaf)
        lifetime, csr = self._lifetimes.get(key), self._requests[key]
        if lifetime is not None:
            begin = self._now()
            end = begin + lifetime - datetime.timedelta(seconds=1)  # both seconds are included (RFC 5280 4.1.2.5)
        elif not _has_must_staple(csr.extensions) or _has_must_staple(leaf.extensions):
            return chain
        mark = b"-----END CERTIFICATE-----\n"
        issued = self._signed_again(leaf, begin, end, csr).public_bytes(Encoding.PEM)
        return issued + chain[chain.index(mark) + len(mark) :]

    def _signed_again(
        self,
        leaf: x509.Certificate,
        begin: datetime.datetime,
        end: datetime.datetime,
        csr: x509.CertificateSigningRequest,
    ) -> x509.Certificate:
        issuing_key = load_pem_private_key(self._issuing_key.read_bytes(), None)
        assert isinstance(issuing_key, RSAPrivateKey)
        builder = (
            x509.CertificateBuilder()
            .issuer_name(leaf.issuer)
            .subject_name(csr.subject)
            .public_key(leaf.public_key())
            .serial_number(leaf.serial_number)
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        extensions = {extension.oid: extension for extension in (*leaf.extensions, *csr.extensions)}
        for extension in extensions.values():
            is_name = isinstance(extension.value, x509.SubjectAlternativeName)
            is_critical = extension.critical or (is_name and not csr.subject.rdns)  # RFC 5280 4.2.1.6
            builder = builder.add_extension(extension.value, is_critical)
        return builder.sign(issuing_key, hashes.SHA256())


def validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """Return a certificate's first and last second, in UTC; cryptography before 42 has only naive ones."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begin, end = certificate.not_valid_before, certificate.not_valid_after
    return begin.replace(tzinfo=datetime.UTC), end.replace(tzinfo=datetime.UTC)


def _has_must_staple(extensions: x509.Extensions) -> bool:
    return any(extension.value == MUST_STAPLE for extension in extensions)


def _key_bytes(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _payload(sent: bytes) -> dict[str, Any]:
    """Return what a request's JWS says (RFC 8555 6.2); {} for a plain request, or one that only asks."""
    encoded = json.loads(sent)["payload"] if sent else ""
    payload: dict[str, Any] = json.loads(_decode(encoded)) if encoded else {}
    return payload


def _decode(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
