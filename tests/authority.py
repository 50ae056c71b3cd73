"""A CA, its leaves and delegates, and a signer of OCSP responses, minted for each test.

The law of this module: nothing is pasted, everything is made when it is asked for. Responses are encoded here byte by
byte, because cryptography's builder refuses to make most of the wrong ones that tests are about.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)

SHA1, SHA256 = "1.3.14.3.2.26", "2.16.840.1.101.3.4.2.1"
OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True)
class Identity:
    """A certificate and the key in it."""

    certificate: x509.Certificate
    key: Key

    @property
    def encoded(self) -> bytes:
        """Return the certificate's DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def certificate_pem(self) -> bytes:
        """Return the certificate's PEM."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """Return the key's PEM, unencrypted."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


# --- keys and certificates -------------------------------------------------------------------------------------------


def ecdsa_key() -> Key:
    """Make a P-256 key: the fastest, so the default everywhere."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key(number: int = 0) -> Key:
    """Make an RSA key of 2048 bits, once for each number: they take long."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


KEYS: dict[str, Callable[[], Key]] = {
    "RSA": rsa_key,
    "ECDSA P-256": ecdsa_key,
    "ECDSA P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "Ed448": ed448.Ed448PrivateKey.generate,
}


def make_ca(name: str = "Test CA", key: Key | None = None, signed_by: Identity | None = None) -> Identity:
    """Make a CA: a root, or signed by another one. The same name and key give a cross-signed twin."""
    key = key or ecdsa_key()
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (x509.KeyUsage(True, False, False, False, False, True, True, False, False), True),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
    ]
    return _make(_name(name), key, signed_by, extensions=extensions)


def make_leaf(
    issuer: Identity,
    names: Iterable[str] = ("seafile.example.com",),
    *,
    addresses: Iterable[ipaddress.IPv4Address | ipaddress.IPv6Address] = (),
    ocsp_urls: Sequence[str] = ("http://ocsp.example.com",),
    features: Sequence[x509.TLSFeatureType] = (),
    serial: int | None = None,
    key: Key | None = None,
    now: datetime.datetime | None = None,
) -> Identity:
    """Make a server's certificate. features: x509.TLSFeatureType.status_request makes it a must-staple one."""
    alternatives = [*map(x509.DNSName, names), *map(x509.IPAddress, addresses)]
    # Critical, as the subject is empty (RFC 5280 4.2.1.6); Python 3.13 verifies that, and the key identifiers.
    extensions: list[tuple[x509.ExtensionType, bool]] = [(x509.SubjectAlternativeName(alternatives), True)]
    if ocsp_urls:
        extensions.append((x509.AuthorityInformationAccess([_responder(url) for url in ocsp_urls]), False))
    if features:
        extensions.append((x509.TLSFeature(features), False))
    return _make(x509.Name([]), key or ecdsa_key(), issuer, extensions=extensions, serial=serial, now=now)


def make_delegate(
    issuer: Identity,
    *,
    purposes: Sequence[x509.ObjectIdentifier] = (OCSP_SIGNING,),
    begin: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    key: Key | None = None,
    name: str = "Test responder",
) -> Identity:
    """Make a certificate that may sign responses for its issuer (RFC 6960 4.2.2.2), unless it lacks the purpose."""
    extensions = [(x509.ExtendedKeyUsage(purposes), False)] if purposes else []
    return _make(_name(name), key or ecdsa_key(), issuer, extensions=extensions, begin=begin, end=end)


def make_certificate(
    name: str,
    issuer: Identity | None = None,
    *,
    key: Key | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    begin: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
) -> Identity:
    """Make a certificate of any kind: a look-alike, or a delegate with unusual extensions, each critical or not."""
    return _make(_name(name), key or ecdsa_key(), issuer, extensions=extensions, begin=begin, end=end)


def _make(
    subject: x509.Name,
    key: Key,
    issuer: Identity | None,
    *,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    serial: int | None = None,
    begin: datetime.datetime | None = None,
    end: datetime.datetime | None = None,
    now: datetime.datetime | None = None,
) -> Identity:
    now = now or datetime.datetime.now(datetime.UTC)
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(begin or now - 30 * DAY)
        .not_valid_after(end or now + 60 * DAY)
    )
    if issuer:
        builder = builder.add_extension(_authority_key(issuer), critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return Identity(builder.sign(signer, None if is_edwards(signer) else hashes.SHA256()), key)


def _authority_key(issuer: Identity) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())


def is_edwards(key: Key) -> bool:
    """Tell whether a key is of the kind whose signatures name no hash."""
    return isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _responder(url: str) -> x509.AccessDescription:
    return x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url))


# --- DER -------------------------------------------------------------------------------------------------------------


def tlv(tag: int, *contents: bytes) -> bytes:
    """Return one element: tag, length, contents in a row."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    octets = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def sequence(*contents: bytes) -> bytes:
    """Return a SEQUENCE."""
    return tlv(0x30, *contents)


def integer(value: int, tag: int = 0x02) -> bytes:
    """Return an INTEGER."""
    return tlv(tag, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    return tlv(0x06, *(_arc(arc) for arc in (40 * first + second, *rest)))


def _arc(value: int) -> bytes:
    septets = [value & 0x7F]
    while value := value >> 7:
        septets.append(0x80 | value & 0x7F)
    return bytes(reversed(septets))


def algorithm(dotted: str, parameters: bytes = b"") -> bytes:
    """Return an AlgorithmIdentifier."""
    return sequence(oid(dotted), parameters)


def elements(encoded: bytes) -> list[bytes]:
    """Return the elements inside of a structure, each with its tag and length: the inverse of `sequence`."""
    content, rows = _content(encoded), []
    while content:
        rows.append(content[: len(content) - len(_after(content))])
        content = _after(content)
    return rows


def _content(encoded: bytes) -> bytes:
    return encoded[_head_length(encoded) : len(encoded) - len(_after(encoded))]


def _after(encoded: bytes) -> bytes:
    head = _head_length(encoded)
    length = int.from_bytes(encoded[2:head], "big") if head > 2 else encoded[1]
    return encoded[head + length :]


def _head_length(encoded: bytes) -> int:
    return 2 if encoded[1] < 0x80 else 2 + (encoded[1] & 0x7F)


def time(moment: datetime.datetime) -> bytes:
    """Return a GeneralizedTime in whole seconds."""
    return tlv(0x18, f"{moment.astimezone(datetime.UTC):%Y%m%d%H%M%SZ}".encode())


def extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    """Return an Extension."""
    return sequence(oid(dotted), b"\x01\x01\xff" if critical else b"", tlv(0x04, value))


NULL = b"\x05\x00"
GOOD, UNKNOWN = b"\x80\x00", b"\x82\x00"


def revoked(since: datetime.datetime, reason: int | None = None) -> bytes:
    """Return the certStatus of a revoked certificate."""
    return tlv(0xA1, time(since), b"" if reason is None else tlv(0xA0, integer(reason, 0x0A)))


# --- responses -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CertId:
    """Which certificate a SingleResponse is about (RFC 6960 4.1.1)."""

    name_hash: bytes
    key_hash: bytes
    serial: int
    hash_oid: str = SHA1

    @property
    def encoded(self) -> bytes:
        """Return the DER."""
        return sequence(
            algorithm(self.hash_oid, NULL), tlv(0x04, self.name_hash), tlv(0x04, self.key_hash), integer(self.serial)
        )


def cert_id(leaf: x509.Certificate, issuer: x509.Certificate, hash_oid: str = SHA1) -> CertId:
    """Return the CertID of a leaf of an issuer."""
    kind = "sha1" if hash_oid == SHA1 else "sha256"
    name_hash = hashlib.new(kind, leaf.issuer.public_bytes()).digest()
    return CertId(name_hash, hashlib.new(kind, key_bits(issuer)).digest(), leaf.serial_number, hash_oid)


def sha1(data: bytes) -> bytes:
    """Return the SHA-1."""
    return hashlib.sha1(data).digest()


def key_bits(certificate: x509.Certificate) -> bytes:
    """Return a public key's bits, as they stand in the certificate."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return key.public_bytes(Encoding.DER, PublicFormat.PKCS1)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
        return key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    raise TypeError(f"no CA of these tests has a {type(key).__name__}")


def single(
    about: CertId,
    this_update: datetime.datetime,
    next_update: datetime.datetime | None,
    status: bytes = GOOD,
    extensions: Sequence[bytes] = (),
) -> bytes:
    """Return a SingleResponse."""
    following = b"" if next_update is None else tlv(0xA0, time(next_update))
    return sequence(about.encoded, status, time(this_update), following, _extensions(extensions))


def _extensions(extensions: Sequence[bytes]) -> bytes:
    return tlv(0xA1, sequence(*extensions)) if extensions else b""


def by_name(signer: Identity) -> bytes:
    """Return the responderID that is the signer's name."""
    return tlv(0xA1, signer.certificate.subject.public_bytes())


def by_key(signer: Identity) -> bytes:
    """Return the responderID that is the SHA-1 of the signer's key."""
    return tlv(0xA2, tlv(0x04, sha1(key_bits(signer.certificate))))


Signed = tuple[bytes, bytes]  # AlgorithmIdentifier and signature


def sign(key: Key, data: bytes) -> Signed:
    """Sign as a careful CA does."""
    if isinstance(key, rsa.RSAPrivateKey):
        return algorithm("1.2.840.113549.1.1.11", NULL), key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return algorithm("1.2.840.10045.4.3.2"), key.sign(data, ec.ECDSA(hashes.SHA256()))
    return algorithm("1.3.101.112" if isinstance(key, ed25519.Ed25519PrivateKey) else "1.3.101.113"), key.sign(data)


def sign_without_null(key: Key, data: bytes) -> Signed:
    """Sign with RSA and SHA-256, and say so without the NULL that RFC 4055 5 asks for, as some responders do."""
    return algorithm("1.2.840.113549.1.1.11"), sign(key, data)[1]


def sign_with_sha1(key: Key, data: bytes) -> Signed:
    """Sign in a way that proves nothing any more."""
    if isinstance(key, rsa.RSAPrivateKey):
        return algorithm("1.2.840.113549.1.1.5", NULL), key.sign(data, padding.PKCS1v15(), hashes.SHA1())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return algorithm("1.2.840.10045.4.1"), key.sign(data, ec.ECDSA(hashes.SHA1()))
    raise TypeError("this key's signatures name no hash")


def sign_with_pss(key: Key, data: bytes) -> Signed:
    """Sign with RSASSA-PSS, SHA-256 and a salt of 32 bytes (RFC 4055 3.1)."""
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("RSASSA-PSS needs an RSA key")
    sha256 = algorithm(SHA256, NULL)
    mask = algorithm("1.2.840.113549.1.1.8", sha256)
    parameters = sequence(tlv(0xA0, sha256), tlv(0xA1, mask), tlv(0xA2, integer(32)))
    signature = key.sign(data, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
    return algorithm("1.2.840.113549.1.1.10", parameters), signature


def flip(signature: bytes) -> bytes:
    """Return a signature with one bit of its last byte turned over."""
    return signature[:-1] + bytes([signature[-1] ^ 1])


def respond(
    signer: Identity,
    singles: Sequence[bytes],
    produced_at: datetime.datetime,
    *,
    responder: Callable[[Identity], bytes] = by_key,
    certificates: Sequence[Identity] = (),
    extensions: Sequence[bytes] = (),
    signing: Callable[[Key, bytes], Signed] = sign,
    damage: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Return a successful OCSPResponse. certificates: those put into it; damage: what happens to the signature."""
    data = response_data(signer, singles, produced_at, responder=responder, extensions=extensions)
    return signed_response(signer.key, data, certificates=certificates, signing=signing, damage=damage)


def response_data(
    signer: Identity,
    singles: Sequence[bytes],
    produced_at: datetime.datetime,
    *,
    responder: Callable[[Identity], bytes] = by_key,
    extensions: Sequence[bytes] = (),
) -> bytes:
    """Return a tbsResponseData: what is signed."""
    return sequence(responder(signer), time(produced_at), sequence(*singles), _extensions(extensions))


def signed_response(
    key: Key,
    data: bytes,
    *,
    certificates: Sequence[Identity] = (),
    signing: Callable[[Key, bytes], Signed] = sign,
    damage: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Return a successful OCSPResponse around any bytes."""
    how, signature = signing(key, data)
    embedded = tlv(0xA0, sequence(*(one.encoded for one in certificates))) if certificates else b""
    return successful(sequence(data, how, tlv(0x03, b"\x00", damage(signature)), embedded))


def successful(basic: bytes) -> bytes:
    """Return an OCSPResponse around a BasicOCSPResponse."""
    return sequence(integer(0, 0x0A), tlv(0xA0, sequence(oid("1.3.6.1.5.5.7.48.1.1"), tlv(0x04, basic))))


def unsuccessful(status: int) -> bytes:
    """Return an OCSPResponse without a BasicOCSPResponse: 3 is tryLater, 6 unauthorized (RFC 6960 4.2.1)."""
    return sequence(integer(status, 0x0A))
