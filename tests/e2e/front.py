"""A front for a CA that overlooks must-staple: Pebble before 2.5 issues such certificates without the extension.

The law of this module: everything passes through unchanged, except that a certificate whose CSR asked for must-staple
(the TLS feature extension, RFC 7633) gets it, signed by the CA's own issuing key, where the CA left it out. The serial
number stays, so responders know the certificate; Pebble's revocation by certificate does not.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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
    issuing_key: PEM file of the key that the CA signs with.
    """

    def __init__(self, port: int, inner_port: int, identity: tuple[Path, Path, Path], issuing_key: Path) -> None:
        certificate, key, authority = identity
        self._inner_port, self._issuing_key = inner_port, issuing_key
        self._trust = ssl.create_default_context(cafile=str(authority))
        self._asked: set[bytes] = set()
        front = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

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
        if "/finalize" in request.path:
            self._remember(sent)
        inner = http.client.HTTPSConnection(LOOPBACK, self._inner_port, timeout=30, context=self._trust)
        # With the Host of this front, the CA names this front in all the addresses that it gives out.
        inner.request(request.command, request.path, sent or None, dict(request.headers))
        answer = inner.getresponse()
        body = answer.read()
        if answer.headers.get_content_type() == CHAIN_TYPE:
            body = self._with_must_staple(body)
        request.send_response(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"content-length", "transfer-encoding", "connection", "date"}:
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)
        inner.close()

    def _remember(self, jws: bytes) -> None:
        """Note the public key of a CSR (RFC 8555 7.4) that asks for must-staple."""
        csr = x509.load_der_x509_csr(_decode(json.loads(_decode(json.loads(jws)["payload"]))["csr"]))
        if _has_must_staple(csr.extensions):
            self._asked.add(csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    def _with_must_staple(self, chain: bytes) -> bytes:
        leaf = x509.load_pem_x509_certificate(chain)
        key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if key not in self._asked or _has_must_staple(leaf.extensions):
            return chain
        end = b"-----END CERTIFICATE-----\n"
        return self._signed_again(leaf).public_bytes(Encoding.PEM) + chain[chain.index(end) + len(end) :]

    def _signed_again(self, leaf: x509.Certificate) -> x509.Certificate:
        issuing_key = load_pem_private_key(self._issuing_key.read_bytes(), None)
        assert isinstance(issuing_key, RSAPrivateKey)
        begin, end = validity(leaf)
        builder = (
            x509.CertificateBuilder()
            .issuer_name(leaf.issuer)
            .subject_name(leaf.subject)
            .public_key(leaf.public_key())
            .serial_number(leaf.serial_number)
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(MUST_STAPLE, critical=False)
        )
        for extension in leaf.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        return builder.sign(issuing_key, hashes.SHA256())


def validity(certificate: x509.Certificate) -> tuple[datetime.datetime, datetime.datetime]:
    """Return a certificate's first and last second, in UTC; cryptography before 42 has only naive ones."""
    if hasattr(certificate, "not_valid_after_utc"):
        return certificate.not_valid_before_utc, certificate.not_valid_after_utc
    begin, end = certificate.not_valid_before, certificate.not_valid_after
    return begin.replace(tzinfo=datetime.UTC), end.replace(tzinfo=datetime.UTC)


def _has_must_staple(extensions: x509.Extensions) -> bool:
    return any(extension.value == MUST_STAPLE for extension in extensions)


def _decode(text: str) -> bytes:
    """Decode base64url without padding (RFC 7515, 2)."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
