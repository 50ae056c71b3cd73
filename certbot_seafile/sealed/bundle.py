"""What nginx needs together, as one value: chain, key and OCSP response; and whether a set from outside is fit.

The law: only bytes, names and a time come in. What is read here may come from a folder that root does not trust, so it
ends as a Bundle or as errors.BundleRefused, whatever it is, after a bounded amount of work; and no reason quotes it.
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.hazmat.primitives.serialization import load_der_private_key as load_key

from certbot_seafile import errors
from certbot_seafile.ocsp import pkix

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_CERTIFICATE, _RESPONSE, _KEY = b"CERTIFICATE", b"OCSP RESPONSE", b"PRIVATE KEY"
_MOST_CERTIFICATES = 10
_MOST_KEY_BYTES = 4096  # RSA-4096 takes 3,272; OpenSSL needs 13 s for RSA-8192
_MOST_INTEGER_BYTES = 4096 // 8 + 1
_MOST_EC_BYTES = 256  # of DER; P-521 takes 241, RSA-2048 takes 1,190

_boundary = functools.partial(pkix.boundary, refusal=errors.BundleRefused)


@dataclass(frozen=True)
class Bundle:
    """A certificate's chain (the leaf first), its key, and an OCSP response that is not verified (DER; None without).

    Two are equal by what clients are handed; only one key fits a leaf.
    """

    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(compare=False)
    response: bytes | None = None

    @property
    def leaf(self) -> x509.Certificate:
        """Return the server's certificate."""
        return self.chain[0]

    @property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """Return the chain without the leaf."""
        return self.chain[1:]

    @property
    def chain_pem(self) -> bytes:
        """Return the chain as PEM, as in fullchain.pem."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)

    @property
    def key_pem(self) -> bytes:
        """Return the key as PEM (PKCS #8, unencrypted)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def pem(self) -> bytes:
        """Return the handover file's bytes: chain, response, key.

        The key comes last, so that a file which is cut off, or written over an older one by half, never fits together.
        """
        if self.response is None:
            return self.chain_pem + self.key_pem
        block = b"-----BEGIN %b-----\n%b-----END %b-----\n"
        return self.chain_pem + block % (_RESPONSE, base64.encodebytes(self.response), _RESPONSE) + self.key_pem


def parse(content: bytes) -> Bundle:
    """Return the bundle that PEM text holds: a handover file, or fullchain.pem and privkey.pem in a row.

    content: at most 64 KiB; what stands between its blocks, and blocks of other kinds, are passed over. Raises
    errors.BundleRefused.
    """
    blocks = list(_blocks(content))
    certificates = [body for label, body in blocks if label == _CERTIFICATE]
    keys = [(label, body) for label, body in blocks if label.endswith(_KEY)]
    responses = [body for label, body in blocks if label == _RESPONSE]
    counts = (
        (certificates, range(1, _MOST_CERTIFICATES + 1), f"certificates instead of 1 to {_MOST_CERTIFICATES}"),
        (keys, (1,), "private keys instead of one"),
        (responses, (0, 1), "OCSP responses instead of one at most"),
    )
    reasons = [f"it holds {len(bodies)} {text}" for bodies, allowed, text in counts if len(bodies) not in allowed]
    if reasons:
        raise errors.BundleRefused(reasons)
    key = _load_key(*keys[0])
    with _boundary("a certificate"):
        chain = tuple(x509.load_der_x509_certificate(_decode(body)) for body in certificates)
    with _boundary("the OCSP response"):
        return Bundle(chain, key, _decode(responses[0]) if responses else None)


def _blocks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield label and body of each PEM block (RFC 7468). Raises errors.BundleRefused for one that has no end."""
    for part in content.split(b"-----BEGIN ")[1:]:
        label, _, rest = part.partition(b"-----")
        body, end, _ = rest.partition(b"-----END %b-----" % label)
        if not end:
            raise errors.BundleRefused(["a PEM block in it has no end"])
        yield label, body


def _decode(body: bytes) -> bytes:
    return base64.b64decode(b"".join(body.split()), validate=True)


def _load_key(label: bytes, body: bytes) -> PrivateKey:
    if len(body) > _MOST_KEY_BYTES:
        raise errors.BundleRefused([f"the private key is larger than {_MOST_KEY_BYTES} bytes"])
    if b"ENCRYPTED" in label + body:  # RFC 5958's label, RFC 1421's header
        raise errors.BundleRefused(["the private key is encrypted"])
    with _boundary("the private key"):
        encoded = _decode(body)
        if len(encoded) > _MOST_EC_BYTES:
            _refuse_slow(encoded)
        key = load_key(encoded, None)
    if not isinstance(key, PrivateKey):
        raise errors.BundleRefused(["the private key is neither RSA nor ECDSA"])
    return key


def _refuse_slow(encoded: bytes) -> None:
    """Refuse the DER of an RSA key with a number of more than 4096 bits: OpenSSL tests for minutes whether it is prime.

    Within that bound the test takes a few seconds at most.
    What is not DER (X.690 10.1), or has a part that no RSA key has, is a ValueError, since OpenSSL may read it.
    """
    while encoded:
        tag, size, start = encoded[0], int.from_bytes(encoded[1:2], "big"), 2
        if size > 0x7F:
            start += size & 0x7F
            size = int.from_bytes(encoded[2:start], "big")
        if tag not in (0x02, 0x04, 0x05, 0x06, 0x30):
            raise ValueError("no RSA key in DER")
        if tag == 0x02 and size > _MOST_INTEGER_BYTES:
            raise errors.BundleRefused(["the private key is larger than RSA-4096"])
        is_around_others = tag in (0x04, 0x30)  # SEQUENCE, and the OCTET STRING in which PKCS #8 has the key itself
        encoded = encoded[start if is_around_others else start + size :]


def refuse_unfit(bundle: Bundle, names: Sequence[str], now: datetime) -> None:
    """Raise errors.BundleRefused, with every reason, where nginx must not serve a bundle for names.

    names: DNS names and IP addresses. now: aware. The response is not looked at.
    """
    leaf = bundle.leaf
    with _boundary("a certificate"):
        reasons = [*_name_faults(leaf, names), *_key_faults(bundle.key, leaf), *_chain_faults(bundle.chain)]
        begin, end = pkix.time_of(leaf, "not_valid_before"), pkix.time_of(leaf, "not_valid_after")
    if now < begin:
        reasons.append(f"the certificate holds only from {begin:%Y-%m-%d %H:%M} UTC on")
    if end <= now:
        reasons.append(f"the certificate expired on {end:%Y-%m-%d %H:%M} UTC")
    if reasons:
        raise errors.BundleRefused(reasons)


def _name_faults(leaf: x509.Certificate, names: Sequence[str]) -> Iterator[str]:
    """Yield the names that the leaf is not for; a wildcard stands for the whole left-most label (RFC 6125 6.4.3)."""
    alternatives = pkix.extension_of(leaf, x509.SubjectAlternativeName) or x509.SubjectAlternativeName([])
    addresses = alternatives.get_values_for_type(x509.IPAddress)
    domains = {domain.lower() for domain in alternatives.get_values_for_type(x509.DNSName)}
    for name in names:
        try:
            is_covered = ipaddress.ip_address(name) in addresses
        except ValueError:
            is_covered = not domains.isdisjoint({name.lower(), "*." + name.lower().partition(".")[2]})
        if not is_covered:
            yield f"the certificate is not for {name}"


def _key_faults(key: PrivateKey, leaf: x509.Certificate) -> Iterator[str]:
    """Yield that a key is of a kind that nginx loads slowly, or that clients do not know, or that it is another's."""
    if isinstance(key, rsa.RSAPrivateKey):
        if not 2048 <= key.key_size <= 4096:
            yield f"the private key is RSA with {key.key_size} bits instead of 2048 to 4096"
    elif not isinstance(key.curve, (ec.SECP256R1, ec.SECP384R1)):
        yield f"the private key is on the curve {key.curve.name} instead of P-256 or P-384"
    if not fits(key, leaf):
        yield "the private key does not belong to the certificate"


@_boundary("the certificate")
def fits(key: PrivateKey, leaf: x509.Certificate) -> bool:
    """Tell whether a key belongs to a certificate. Raises errors.BundleRefused where the latter cannot be read."""
    how = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(*how) == leaf.public_key().public_bytes(*how)


def _chain_faults(chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """Yield each certificate that the next one did not sign, or with a broken hash; a root's own proves nothing."""
    for number, (certificate, issuer) in enumerate(itertools.zip_longest(chain, chain[1:]), 1):
        broken = pkix.BROKEN.get(certificate.signature_algorithm_oid)
        if broken and certificate.issuer != certificate.subject:
            yield f"certificate {number} of its chain is signed with {broken}"
        elif issuer is not None:
            try:
                pkix.find_issuer(certificate, [issuer])
            except errors.ResponseRefused:
                yield f"certificate {number} of its chain is not signed by the next one"
