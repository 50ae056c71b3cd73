"""Which OCSP response may be stapled, and until when.

The law of this module: the verdict is a pure function of the response's bytes, the leaf, its chain and the time. It is
a Staple, or one of our errors with every reason against the response; nothing else comes out, whatever the bytes are.
What OpenSSL's or GnuTLS's TLS client refuses is never a Staple: clients reject a bad staple, but accept none, so in
doubt the answer is no. All times are aware and UTC.

cryptography reads the bytes, late and in pieces: names, keys, extensions and hash algorithms are parsed when they are
first looked at. So `_read` looks at all of them within one boundary, and what follows it computes with plain values.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import ContextDecorator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID as Access
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from certbot_seafile import errors

MARGIN = timedelta(hours=25)  # Debian's timer leaves at most 24 h between two runs of `certbot renew`
MAX_AGE = timedelta(days=10)  # the longest window that the CA/Browser Forum's Baseline Requirements allow (4.9.10)
MAX_SKEW = timedelta(minutes=5)
REFRESH_AFTER = timedelta(hours=6)
_NOTABLE = timedelta(days=1)  # a clock that is off by so much is worth a word
_remember = functools.lru_cache(maxsize=64)  # by certificate: a CA's are met again and again, and keys are dear

#: RFC 6960 4.2.1, with what the responder means by it.
_UNSUCCESSFUL = {
    "MALFORMED_REQUEST": "malformedRequest: the responder did not understand the request",
    "INTERNAL_ERROR": "internalError: the responder is out of order",
    "TRY_LATER": "tryLater: the responder is busy",
    "SIG_REQUIRED": "sigRequired: the responder wants signed requests",
    "UNAUTHORIZED": "unauthorized: the responder has no record of this certificate",  # RFC 5019 2.2.3
}


@dataclass(frozen=True)
class Staple:
    """A response that was verified, and what it says; `end` is when it must no longer be served.

    end: min(nextUpdate, thisUpdate + 10 days, the delegate's notAfter).
    """

    response: bytes
    serial: int
    this_update: datetime
    next_update: datetime
    produced_at: datetime
    end: datetime


class _Boundary(ContextDecorator):
    """Turn what cryptography raises for bytes that it cannot read into errors.ResponseRefused.

    A panic of its Rust code is a BaseException of a class that cannot be imported, so it is known by its name.
    """

    _UNREADABLE = (
        ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, InternalError,
        x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion,
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, self._UNREADABLE) or (kind is not None and kind.__name__ == "PanicException"):
            raise errors.ResponseRefused([f"{self._name} cannot be read: {error}"]) from error


# --- the certificate -------------------------------------------------------------------------------------------------


@_Boundary("the certificate's responder")
def ocsp_url(leaf: x509.Certificate) -> str | None:
    """Return the first http or https URL of an OCSP responder that the leaf names (RFC 5280 4.2.2.1); None without.

    Raises errors.ResponseRefused where the extensions cannot be read.
    """
    descriptions = _extension(leaf, x509.AuthorityInformationAccess) or ()
    locations = [each.access_location for each in descriptions if each.access_method == Access.OCSP]
    urls = [location.value for location in locations if isinstance(location, x509.UniformResourceIdentifier)]
    return next((url for url in urls if url.lower().startswith(("http://", "https://"))), None)


@_Boundary("the certificate's TLS features")
def is_must_staple(leaf: x509.Certificate) -> bool:
    """Tell whether the leaf demands a staple: TLS feature status_request or status_request_v2 (RFC 7633 4.2.3.1).

    Raises errors.ResponseRefused where the extensions cannot be read.
    """
    demanded = set(_extension(leaf, x509.TLSFeature) or ())
    return bool(demanded & {x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2})


@_Boundary("the certificate or its chain")
def find_issuer(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the certificate of the chain that signed the leaf: the names match (RFC 5280 6.1.3) and so does the key.

    Names alone do not tell: a CA may have several keys under one name. Raises errors.ResponseRefused where none did.
    """
    return _find_issuer(leaf, tuple(chain))


@_remember
def _find_issuer(leaf: x509.Certificate, chain: tuple[x509.Certificate, ...]) -> x509.Certificate:
    reasons = []
    for candidate in chain:
        if candidate.subject.public_bytes() == leaf.issuer.public_bytes():
            fault = _signature_fault(candidate, leaf, leaf.public_bytes(Encoding.DER), leaf.tbs_certificate_bytes)
            if fault is None:
                return candidate
            reasons.append(f"a chain certificate has the issuer's name, but for it {fault}")
    raise errors.ResponseRefused(["none of the chain's certificates signed the certificate", *reasons])


def build_request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Return the DER of an OCSP request for the leaf.

    With a SHA-1 CertID (RFC 5019 2.1.1) and without a nonce (RFC 9654 would tie the response to one request, but a
    staple is handed to everyone, and responders may answer from a store, RFC 5019 2.2.1).
    """
    return _request(leaf, issuer).public_bytes(Encoding.DER)


def _request(leaf: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPRequest:
    return ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()


def _extension(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _time(holder: x509.Certificate | ocsp.OCSPResponse, name: str) -> Any:
    """Return a time of a response or certificate, aware; None where it has none. Before 43.0 they are naive UTC."""
    if hasattr(type(holder), f"{name}_utc"):
        return getattr(holder, f"{name}_utc")
    moment = getattr(holder, name)
    return None if moment is None else moment.replace(tzinfo=UTC)


def _validity(certificate: x509.Certificate) -> tuple[datetime, datetime]:
    return _time(certificate, "not_valid_before"), _time(certificate, "not_valid_after")


# --- the verdict -----------------------------------------------------------------------------------------------------


def verify(
    response: bytes,
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    now: datetime,
    *,
    must_staple: bool = False,
    known_update: datetime | None = None,
) -> Staple:
    """Return the staple that a response is.

    chain: certificates among which the leaf's issuer is. now: aware. must_staple: the end need only be in the future,
    since such a leaf is useless without a staple. known_update: the newest thisUpdate that was ever accepted for this
    very leaf, of a staple or of a revocation (None: none); what is older may be a replay.
    Raises errors.CertificateRevoked, errors.ResponseRefused.
    """
    return _conclude(_read(response, leaf, chain), now, timedelta(0) if must_staple else MARGIN, known_update)


def verify_stored(response: bytes, leaf: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> Staple:
    """Return the staple that a stored response still is: all rules of `verify`, the end being in the future.

    Raises errors.CertificateRevoked, errors.ResponseRefused.
    """
    return _conclude(_read(response, leaf, chain), now, timedelta(0), None)


@dataclass(frozen=True)
class _Content:
    """What a response about a leaf holds; faults: what speaks against it at any time."""

    response: bytes
    serial: int
    faults: tuple[str, ...]
    status: ocsp.OCSPCertStatus
    revoked_at: datetime | None
    revocation_reason: str | None
    this_update: datetime
    next_update: datetime | None
    produced_at: datetime
    leaf_end: datetime
    delegate_window: tuple[datetime, datetime] | None


def _conclude(content: _Content, now: datetime, margin: timedelta, known_update: datetime | None) -> Staple:
    faults = [*content.faults, *_time_faults(content, now)]
    if known_update is not None and content.this_update < known_update:  # RFC 5019 6.1
        at, known_at = _at(content.this_update), _at(known_update)
        faults.append(f"it is of {at}, older than the newest known one, of {known_at}: it may be a replay")
    if content.status is ocsp.OCSPCertStatus.REVOKED and not faults:
        raise errors.CertificateRevoked(content.revoked_at, content.revocation_reason, content.this_update)
    end, window_faults = _window(content, now, margin)
    faults += [*_status_faults(content, now), *window_faults]
    if faults or content.next_update is None or end is None:
        raise errors.ResponseRefused(faults)
    return Staple(
        content.response, content.serial, content.this_update, content.next_update, content.produced_at, end
    )  # fmt: skip


@_Boundary("the response")
def _read(response: bytes, leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> _Content:
    """Return what a response holds. Raises errors.ResponseRefused where it holds no verdict on one certificate."""
    issuer = find_issuer(leaf, chain)
    if not response:
        raise errors.ResponseRefused(["it is empty"])
    if response[0] != 0x30:
        raise errors.ResponseRefused([f"it is not an OCSP response: it begins with {response[:24]!r}"])
    basic = ocsp.load_der_ocsp_response(response)
    if basic.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise errors.ResponseRefused([f"its status is {_UNSUCCESSFUL[basic.response_status.name]} (RFC 6960 4.2.1)"])
    signer_faults, delegate = _find_signer(response, basic, issuer, (leaf, *chain))
    count = sum(1 for _ in basic.responses)
    if count != 1:
        wrong_count = f"it holds {count} SingleResponses instead of one (RFC 5019 2.2.1)"
        raise errors.ResponseRefused([*signer_faults, wrong_count])
    return _Content(
        response,
        leaf.serial_number,
        faults=(*signer_faults, *_extension_faults(basic), *_identity_faults(basic, _request(leaf, issuer))),
        status=basic.certificate_status,
        revoked_at=_time(basic, "revocation_time"),
        revocation_reason=_revocation_reason(basic),
        this_update=_time(basic, "this_update"),
        next_update=_time(basic, "next_update"),
        produced_at=_time(basic, "produced_at"),
        leaf_end=_validity(leaf)[1],
        delegate_window=None if delegate is None else _validity(delegate),
    )


def _extension_faults(basic: ocsp.OCSPResponse) -> Iterator[str]:
    """Yield the critical extensions: clients need not understand any (RFC 6960 4.4), and we need none."""
    for extension in (*basic.extensions, *basic.single_extensions):
        if extension.critical:
            name = extension.oid.dotted_string
            yield f"it has the critical extension {name}, which clients need not understand (RFC 6960 4.4)"


def _identity_faults(basic: ocsp.OCSPResponse, request: ocsp.OCSPRequest) -> Iterator[str]:
    """Yield where the CertID is not that of a request for the leaf (RFC 6960 3.2, rule 1)."""
    if not isinstance(basic.hash_algorithm, hashes.SHA1):
        yield f"its CertID is made with {basic.hash_algorithm.name}, but clients look for SHA-1 (RFC 5019 2.1.1)"
    else:
        if basic.issuer_name_hash != request.issuer_name_hash:
            yield "it is about a certificate of an issuer with another name"
        if basic.issuer_key_hash != request.issuer_key_hash:
            yield "it is about a certificate of an issuer with another key"
        if not any(algorithm + b"\x04\x14" in basic.tbs_response_bytes for algorithm in _forms(_SHA1)):
            yield "its CertID is not in DER"  # cryptography 38 does not look at the hash's parameters
    if basic.serial_number != request.serial_number:
        serial = f"{basic.serial_number:x}"[:41]  # RFC 5280 4.1.2.2: 20 bytes at most
        yield f"it is about the serial number {serial}, but the certificate has {request.serial_number:x}"


def _revocation_reason(basic: ocsp.OCSPResponse) -> str | None:
    """Return the reason's name (RFC 5280 5.3.1); None without, or for a number that has no name."""
    try:
        return basic.revocation_reason and basic.revocation_reason.value
    except ValueError:
        return None  # The leaf is revoked all the same.


# --- time ------------------------------------------------------------------------------------------------------------


def _time_faults(content: _Content, now: datetime) -> Iterator[str]:
    """Yield where the delegate or the response is not for this time (RFC 6960 4.2.2.2; 3.2, rules 5 and 6)."""
    if content.delegate_window is not None:
        begin, end = content.delegate_window
        if now < begin:
            yield f"the delegate's certificate holds only from {_at(begin)} on{_clock(now, begin - now)}"
        if end <= now:
            yield f"the delegate's certificate expired on {_at(end)}{_clock(now, now - end)}"
    begin, next_update = content.this_update, content.next_update
    if begin - now > MAX_SKEW:
        yield f"it holds only from {_at(begin)} on{_clock(now, begin - now)}"
    if next_update is None:
        if now - begin >= MAX_AGE:
            yield f"it was made on {_at(begin)}, too long ago for one without nextUpdate{_clock(now, now - begin)}"
    elif next_update <= begin:
        yield f"its nextUpdate, {_at(next_update)}, is not later than its thisUpdate, {_at(begin)}"
    elif next_update <= now:
        yield f"it expired on {_at(next_update)}{_clock(now, now - next_update)}"


def _status_faults(content: _Content, now: datetime) -> Iterator[str]:
    """Yield that the status is not good (RFC 6960 2.2), or that of a certificate at which no client looks any more."""
    if content.status is ocsp.OCSPCertStatus.UNKNOWN:
        yield "its status is unknown: the responder does not know the certificate (yet, if it is new)"
    if content.revoked_at is not None:
        yield f"its status is revoked, since {_at(content.revoked_at)}"
    if content.leaf_end <= now:
        yield f"the certificate itself expired on {_at(content.leaf_end)}{_clock(now, now - content.leaf_end)}"


def _window(content: _Content, now: datetime, margin: timedelta) -> tuple[datetime | None, list[str]]:
    """Return when a staple would end, and why that is no good, where `_time_faults` has nothing against it."""
    begin, next_update = content.this_update, content.next_update
    if next_update is None:
        return None, ["it has no nextUpdate, so nobody can tell how long it holds (RFC 5019 2.2.4)"]
    end = begin + min(next_update - begin, MAX_AGE)  # begin + MAX_AGE alone may lie beyond the last year that there is
    if content.delegate_window is not None:
        end = min(end, content.delegate_window[1])
    if any(_time_faults(content, now)) or end - now > margin:
        return end, []
    if end <= now:
        return end, [f"it is too old: it ended on {_at(end)} (ten days after it was made){_clock(now, now - end)}"]
    if end - begin <= MARGIN:
        return end, [
            f"it holds for {_span(end - begin)} only: up to {_span(MARGIN)} may pass between two runs of "
            "`certbot renew`, and clients reject an expired staple but accept none"
        ]
    return end, [f"it ends on {_at(end)}, which is less than {_span(MARGIN)} away"]


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _span(time: timedelta) -> str:
    return f"{time / timedelta(hours=1):.3g} h"


def _clock(now: datetime, gap: timedelta) -> str:
    """Return a word about this machine's clock where it is far off: a wrong one is the usual cause."""
    return f" (this machine's clock says {_at(now.astimezone(UTC))}; is it right?)" if gap > _NOTABLE else ""


# --- the signer ------------------------------------------------------------------------------------------------------

#: The critical extensions that both OpenSSL and GnuTLS know when they verify a chain (RFC 5280 4.2).
_UNDERSTOOD = {
    ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS,
    ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.CRL_DISTRIBUTION_POINTS,
}  # fmt: skip


def _find_signer(
    response: bytes, basic: ocsp.OCSPResponse, issuer: x509.Certificate, served: tuple[x509.Certificate, ...]
) -> tuple[list[str], x509.Certificate | None]:
    """Return why the signature counts for nothing (nothing, where it counts), and the delegate, if one signed.

    served: leaf and chain. RFC 6960 4.2.2.2: the issuer or its delegate signs; 4.2.2.3: responderID says which. `certs`
    is not signed, so anybody on the way can put look-alikes there. Of those that fit the responder ID, OpenSSL takes
    the first that is served, else the first of `certs`; GnuTLS the first of `certs`, else the issuer. No other counts.
    """
    embedded = basic.certificates
    faults = list(_embedded_faults(embedded, served[1:]))
    known = next((certificate for certificate in served if _fits(basic, certificate)), None)
    sent = next((certificate for certificate in embedded if _fits(basic, certificate, by_identifier=True)), None)
    if known is None and sent is None:
        return [*faults, "its responder ID names neither the issuer nor a certificate in the response"], None
    if known is not None and _key_hash(known) != _key_hash(sent or issuer):
        faults.append("its responder ID fits two certificates with different keys, of which clients take the first")
    if sent is None or sent == issuer:
        issuer_faults = _signing_faults(issuer, basic, response)
        return faults + [f"as a response of the issuer, {fault}" for fault in issuer_faults], None
    issuing_fault = _issuing_fault(sent, issuer)
    if issuing_fault is not None:
        return [*faults, f"as a response of a delegate, the issuer did not make its certificate: {issuing_fault}"], None
    delegate_faults = (*_delegation_faults(sent, issuer), *_signing_faults(sent, basic, response))
    return faults + [f"as a response of a delegate, {fault}" for fault in delegate_faults], sent


def _embedded_faults(embedded: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """Yield what in `certs` makes clients refuse a response, whoever signed it.

    OpenSSL takes what looks like a certificate of the chain for it when it builds the delegate's chain.
    """
    names = {_folded_subject(certificate) for certificate in chain}
    for certificate in embedded:
        if not _is_whole(certificate):
            yield "a certificate in it names two signature algorithms (RFC 5280 4.1.1.2)"
        if certificate not in chain and _folded_subject(certificate) in names:
            yield "a certificate in it looks like one of the chain, but is another one"


@_remember
def _is_whole(certificate: x509.Certificate) -> bool:
    """Tell whether the algorithm beside the signature is the signed one, without which GnuTLS reads no certificate.

    All parts are looked at, as OpenSSL does: what cannot be read ends in the boundary.
    """
    _parts = certificate.issuer, certificate.extensions, _validity(certificate)
    signed = certificate.tbs_certificate_bytes
    outer = certificate.public_bytes(Encoding.DER).partition(signed)[2]
    return outer[: 2 + outer[1]] in signed


def _fits(basic: ocsp.OCSPResponse, certificate: x509.Certificate, *, by_identifier: bool = False) -> bool:
    """Tell whether a client may take a certificate for the one that responderID names.

    OpenSSL folds names; GnuTLS also takes a subject key identifier for the key's hash (by_identifier).
    """
    if basic.responder_name is not None:
        return _folded(basic.responder_name) == _folded_subject(certificate)
    key_hash = basic.responder_key_hash
    return key_hash == _key_hash(certificate) or (by_identifier and key_hash == _key_identifier(certificate))


def _signing_faults(signer: x509.Certificate, basic: ocsp.OCSPResponse, response: bytes) -> Iterator[str]:
    """Yield that the response is not exactly the signer's, by its name to the letter (GnuTLS) or its key's hash."""
    name, signed = signer.subject.public_bytes(), basic.tbs_response_bytes
    if basic.responder_name is None:
        is_named = basic.responder_key_hash == _key_hash(signer)
    else:
        is_named = name in signed and name in signer.tbs_certificate_bytes  # cryptography encodes names again
    if not is_named:
        yield "its responder ID is almost, but not quite, that of the signer"
    fault = _signature_fault(signer, basic, response, signed)
    if fault is not None:
        yield fault


@_remember
def _issuing_fault(delegate: x509.Certificate, issuer: x509.Certificate) -> str | None:
    """Return why the issuer did not make a delegate's certificate; None where it did (RFC 6960 4.2.2.2)."""
    if delegate.issuer.public_bytes() != issuer.subject.public_bytes():
        return "it names another one"
    return _signature_fault(issuer, delegate, delegate.public_bytes(Encoding.DER), delegate.tbs_certificate_bytes)


@_remember
def _delegation_faults(delegate: x509.Certificate, issuer: x509.Certificate) -> tuple[str, ...]:
    """Return why a certificate of the issuer may not sign responses (RFC 6960 4.2.2.2), or would not be believed."""
    faults = []
    if ExtendedKeyUsageOID.OCSP_SIGNING not in (_extension(delegate, x509.ExtendedKeyUsage) or ()):
        faults.append("its certificate lacks the extended key usage OCSPSigning")
    for extension in delegate.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            name = extension.oid.dotted_string
            faults.append(f"its certificate has the critical extension {name}, which clients do not understand")
    usage = _extension(delegate, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):  # RFC 5280 4.2.1.3
        faults.append("its certificate's key usage does not allow signatures")
    if not _is_key_named(delegate, issuer):
        faults.append("its certificate names another key of the issuer")
    return tuple(faults)


def _is_key_named(delegate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Tell whether a delegate names no other key of the issuer (RFC 5280 4.2.1.1), as X509_check_issued compares it."""
    authority = _extension(delegate, x509.AuthorityKeyIdentifier)
    if authority is None:
        return True
    identifiers = {authority.key_identifier, _key_identifier(issuer)} - {None}
    names = [name.value for name in authority.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
    return (
        len(identifiers) <= 1
        and authority.authority_cert_serial_number in (None, issuer.serial_number)
        and all(_folded(name) == _folded(issuer.issuer) for name in names)
    )


def _folded(name: x509.Name) -> tuple[tuple[x509.ObjectIdentifier, str], ...]:
    """Return a name as OpenSSL compares it (X509_NAME_cmp), or more loosely: without case and spaces."""
    return tuple((attribute.oid, "".join(str(attribute.value).casefold().split())) for attribute in name)


@_remember
def _folded_subject(certificate: x509.Certificate) -> tuple[tuple[x509.ObjectIdentifier, str], ...]:
    return _folded(certificate.subject)


@_remember
def _key_hash(certificate: x509.Certificate) -> bytes:
    """Return the SHA-1 of the public key's bits as they stand there (RFC 6960 4.2.1), also if the key is of no use."""
    return _request(certificate, certificate).issuer_key_hash


@_remember
def _key_identifier(certificate: x509.Certificate) -> bytes | None:
    identifier = _extension(certificate, x509.SubjectKeyIdentifier)
    return None if identifier is None else identifier.digest


# --- signatures ------------------------------------------------------------------------------------------------------

_PKCS1 = padding.PKCS1v15()
#: What a signature may be made with: the key's kind, what else its `verify` is told, and the OID's bytes (RFC 4055 5,
#: RFC 5758 3.2, RFC 8410 3). RSASSA-PSS is not among them, since its parameters cannot be read everywhere.
_ALGORITHMS: dict[x509.ObjectIdentifier, tuple[type, tuple[object, ...], str]] = {
    Algorithm.RSA_WITH_SHA224: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA224()), "2a864886f70d01010e"),
    Algorithm.RSA_WITH_SHA256: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA256()), "2a864886f70d01010b"),
    Algorithm.RSA_WITH_SHA384: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA384()), "2a864886f70d01010c"),
    Algorithm.RSA_WITH_SHA512: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA512()), "2a864886f70d01010d"),
    Algorithm.ECDSA_WITH_SHA224: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA224()),), "2a8648ce3d040301"),
    Algorithm.ECDSA_WITH_SHA256: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA256()),), "2a8648ce3d040302"),
    Algorithm.ECDSA_WITH_SHA384: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA384()),), "2a8648ce3d040303"),
    Algorithm.ECDSA_WITH_SHA512: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA512()),), "2a8648ce3d040304"),
    Algorithm.ED25519: (ed25519.Ed25519PublicKey, (), "2b6570"),
    Algorithm.ED448: (ed448.Ed448PublicKey, (), "2b6571"),
}
#: Collisions can be made, so such a signature proves nothing.
_BROKEN = {
    Algorithm.RSA_WITH_MD5: "MD5", Algorithm.RSA_WITH_SHA1: "SHA-1", Algorithm.ECDSA_WITH_SHA1: "SHA-1"
}  # fmt: skip
_SHA1 = bytes.fromhex("2b0e03021a")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # as in the Baseline Requirements, 6.1.5


def _signature_fault(
    signer: x509.Certificate, holder: x509.Certificate | ocsp.OCSPResponse, encoded: bytes, signed: bytes
) -> str | None:
    """Return why the signature over `signed` in `encoded` is not the signer's; None where it is."""
    oid, key = holder.signature_algorithm_oid, _public_key(signer)
    kind, arguments, oid_bytes = _ALGORITHMS.get(oid, (type(None), (), ""))
    if oid in _BROKEN:
        return f"the signature is made with {_BROKEN[oid]}, which proves nothing any more"
    is_for_key = isinstance(key, kind)
    if not is_for_key:
        return f"the signature's algorithm, {oid.dotted_string}, is not one for its key, or none that is accepted"
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        return f"its key is on the curve {key.curve.name}, which GnuTLS does not know"
    try:
        key.verify(holder.signature, signed, *arguments)
    except InvalidSignature:
        return "the signature is not from its key"
    if not _is_bare(encoded, signed, bytes.fromhex(oid_bytes), holder.signature):
        return "what stands around the signature is not in its only form"
    return None


def _is_bare(encoded: bytes, signed: bytes, oid: bytes, signature: bytes) -> bool:
    """Tell whether between what is signed and the signature stand the algorithm, tag, length, and no unused bits.

    They are not signed, and cryptography is lax with them.
    """
    between = encoded.partition(signed)[2].partition(signature)[0]
    return between.startswith(_forms(oid)) and between.endswith(b"\0")


def _forms(oid: bytes) -> tuple[bytes, bytes]:
    """Return both forms of an AlgorithmIdentifier: with NULL for parameters, and with none, as some write RSA's."""
    name = bytes([0x06, len(oid)]) + oid
    return bytes([0x30, len(name) + 2]) + name + b"\x05\x00", bytes([0x30, len(name)]) + name


@_remember
def _public_key(certificate: x509.Certificate) -> Any:
    return certificate.public_key()


# --- when to act -----------------------------------------------------------------------------------------------------


def half_way(staple: Staple) -> datetime:
    """Return when half of the staple's window has passed."""
    return staple.this_update + (staple.end - staple.this_update) / 2


def is_due(staple: Staple | None, now: datetime, last_success: datetime | None) -> bool:
    """Tell whether a newer staple is to be fetched: half of the window is over, or the last success 6 h old.

    last_success: when the responder last gave a good response, None for never. One from the future tells of a clock
    that was set back, and counts as never.
    """
    if staple is None or last_success is None or now >= half_way(staple):
        return True
    return not -MAX_SKEW <= now - last_success < REFRESH_AFTER


def must_withdraw(staple: Staple, now: datetime) -> bool:
    """Tell whether the staple's end is so near that it may be served expired before the next run."""
    return staple.end - now <= MARGIN
