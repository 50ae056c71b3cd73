"""Which OCSP response may be stapled, and until when.

The law of this module: the verdict is a pure function of the response's bytes, the leaf, its chain and the time. It is
a Staple, or one of our errors with every reason that was found; nothing else ever comes out, whatever the bytes are.
Times are aware and UTC. Clients reject an expired staple but accept none, so in doubt the answer is no.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509 import ocsp

from certbot_seafile import errors
from certbot_seafile.ocsp import der

MARGIN = timedelta(hours=25)  # Debian's timer leaves at most 24 h between two runs of `certbot renew`
MAX_AGE = timedelta(days=10)  # the longest window that the CA/Browser Forum's Baseline Requirements allow (4.9.10)
MAX_SKEW = timedelta(minutes=5)
REFRESH_AFTER = timedelta(hours=6)
_REMEMBERED = 64  # certificates; each is looked at a few times in a row
_NOTABLE = timedelta(days=1)  # a clock that is off by so much is worth a word

_AUTHORITY_INFORMATION_ACCESS, _OCSP = "1.3.6.1.5.5.7.1.1", "1.3.6.1.5.5.7.48.1"
_TLS_FEATURE, _STATUS_REQUESTS = "1.3.6.1.5.5.7.1.24", {5, 17}
_EXTENDED_KEY_USAGE, _OCSP_SIGNING = "2.5.29.37", "1.3.6.1.5.5.7.3.9"
_URI = der.CONTEXT | 6

#: RFC 6960 4.2.1, with what the responder means by it.
_UNSUCCESSFUL = {
    1: "malformedRequest: the responder did not understand the request",
    2: "internalError: the responder is out of order",
    3: "tryLater: the responder is busy",
    5: "sigRequired: the responder wants signed requests",
    6: "unauthorized: the responder has no record of this certificate",  # RFC 5019 2.2.3
}

#: RFC 5280 5.3.1
_REVOCATION_REASONS = {
    0: "unspecified", 1: "keyCompromise", 2: "cACompromise", 3: "affiliationChanged", 4: "superseded",
    5: "cessationOfOperation", 6: "certificateHold", 8: "removeFromCRL", 9: "privilegeWithdrawn", 10: "aACompromise",
}  # fmt: skip


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


# --- the certificate -------------------------------------------------------------------------------------------------


def ocsp_url(leaf: x509.Certificate) -> str | None:
    """Return the first http or https URL of an OCSP responder that the leaf names (RFC 5280 4.2.2.1); None without.

    Raises errors.ResponseRefused where the extension cannot be read.
    """
    try:
        access = _fields(leaf).extension(_AUTHORITY_INFORMATION_ACCESS)
        urls = () if access is None else tuple(_ocsp_locations(access))
    except der.NotDer as error:
        raise errors.ResponseRefused([f"the certificate's responder cannot be read: {error}"]) from error
    return next((url for url in urls if url.lower().startswith(("http://", "https://"))), None)


def _ocsp_locations(access: der.Element) -> Iterator[str]:
    for description in access.children():
        fields = description.fields()
        method, location = fields.take(der.OID, "accessMethod").oid(), fields.take_any("accessLocation")
        if method == _OCSP and location.tag == _URI:
            yield location.content.decode("ascii", "replace")


def is_must_staple(leaf: x509.Certificate) -> bool:
    """Tell whether the leaf demands a staple: TLS feature status_request or status_request_v2 (RFC 7633 4.2.3.1).

    Raises errors.ResponseRefused where the extension cannot be read.
    """
    try:
        feature = _fields(leaf).extension(_TLS_FEATURE)
        features = () if feature is None else feature.children()
        numbers = {one.expect(der.INTEGER, "a feature").integer() for one in features}
    except der.NotDer as error:
        raise errors.ResponseRefused([f"the certificate's TLS features cannot be read: {error}"]) from error
    return bool(numbers & _STATUS_REQUESTS)


def find_issuer(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the certificate of the chain that signed the leaf: the names match (RFC 5280 6.1.3) and so does the key.

    Names alone do not tell: a CA may have several keys under one name. Raises errors.ResponseRefused where none did.
    """
    return _find_issuer(leaf, tuple(chain))


@functools.lru_cache(maxsize=_REMEMBERED)
def _find_issuer(leaf: x509.Certificate, chain: tuple[x509.Certificate, ...]) -> x509.Certificate:
    reasons = []
    try:
        subject = _fields(leaf)
        for candidate in chain:
            issuer = _fields(candidate)
            if issuer.subject != subject.issuer:
                continue
            fault = _signature_fault(issuer, subject.algorithm, subject.signature, subject.signed)
            if fault is None:
                return candidate
            reasons.append(f"a chain certificate has the issuer's name, but for it {fault}")
    except der.NotDer as error:
        reasons.append(f"the certificate or its chain cannot be read: {error}")
    raise errors.ResponseRefused(["none of the chain's certificates signed the certificate", *reasons])


def build_request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Return the DER of an OCSP request for the leaf.

    With a SHA-1 CertID (RFC 5019 2.1.1) and without a nonce (RFC 9654 would tie the response to one request, but a
    staple is handed to everyone, and responders may answer from a store, RFC 5019 2.2.1).
    """
    request = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()
    return request.public_bytes(Encoding.DER)


@functools.lru_cache(maxsize=_REMEMBERED)
def _fields(certificate: x509.Certificate) -> der.Certificate:
    return der.certificate(certificate.public_bytes(Encoding.DER))


# --- the verdict -----------------------------------------------------------------------------------------------------


def judge(
    response: bytes,
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    now: datetime,
    *,
    must_staple: bool = False,
    previous: Staple | None = None,
) -> Staple:
    """Return the staple that a responder's answer is.

    chain: certificates among which the leaf's issuer is. must_staple: the end need only be in the future, since such a
    leaf is useless without a staple. previous: the stored staple, never to be replaced by an older one.
    Raises errors.CertificateRevoked, errors.ResponseRefused.
    """
    return _judge(response, leaf, chain, now, timedelta(0) if must_staple else MARGIN, previous)


def recheck(response: bytes, leaf: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> Staple:
    """Return the staple that a stored response still is: all rules of `judge`, the end being in the future.

    Raises errors.CertificateRevoked, errors.ResponseRefused.
    """
    return _judge(response, leaf, chain, now, timedelta(0), None)


def _judge(
    response: bytes,
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    now: datetime,
    margin: timedelta,
    previous: Staple | None,
) -> Staple:
    issuer, subject = _fields(find_issuer(leaf, chain)), _fields(leaf)
    basic = _open(response)
    signing_faults, delegate = _find_signer(basic, issuer, now)
    faults = [*signing_faults, *_extension_faults(basic)]
    if len(basic.singles) != 1:
        count = len(basic.singles)
        raise errors.ResponseRefused([*faults, f"it holds {count} SingleResponses instead of one (RFC 5019 2.2.1)"])
    single = basic.singles[0]
    faults += [*_identity_faults(single, subject, issuer), *_time_faults(single, now)]
    faults += _replay_faults(single, previous)
    if single.status == "revoked" and not faults:
        raise errors.CertificateRevoked(single.revoked_at, _reason_name(single.revocation_reason))
    end, window_faults = _window(single, delegate, now, margin)
    faults += [*_status_faults(single), *window_faults]
    if faults or single.next_update is None or end is None:
        raise errors.ResponseRefused(faults)
    return Staple(response, subject.serial, single.this_update, single.next_update, basic.produced_at, end)


def _open(response: bytes) -> der.BasicResponse:
    """Return what a successful response holds. Raises errors.ResponseRefused."""
    if not response:
        raise errors.ResponseRefused(["it is empty"])
    try:
        status, basic = der.response(response)
    except der.NotDer as error:
        start = "" if response[0] == der.SEQUENCE else f"; it begins with {response[:24]!r}"
        raise errors.ResponseRefused([f"it is not an OCSP response in strict DER: {error}{start}"]) from error
    if basic is None:
        raise errors.ResponseRefused([f"its status is {_UNSUCCESSFUL.get(status, status)} (RFC 6960 4.2.1)"])
    return basic


def _extension_faults(basic: der.BasicResponse) -> Iterator[str]:
    """Yield what is wrong with extensions: a critical one that is not understood (RFC 5280 4.2; we need none)."""
    for extension in (*basic.extensions, *(one for single in basic.singles for one in single.extensions)):
        if extension.is_critical:
            yield f"it has the critical extension {extension.oid}, which clients need not understand (RFC 6960 4.4)"


def _identity_faults(single: der.SingleResponse, leaf: der.Certificate, issuer: der.Certificate) -> Iterator[str]:
    """Yield where the CertID names another certificate (RFC 6960 3.2, rule 1)."""
    if single.hash_oid != _SHA1:
        name = _HASH_NAMES.get(single.hash_oid, single.hash_oid)
        yield f"its CertID is made with {name}, but clients look for SHA-1 (RFC 5019 2.1.1)"
    else:
        if single.name_hash != der.sha1(leaf.issuer):
            yield "it is about a certificate of an issuer with another name"
        if single.key_hash != issuer.key_hash:
            yield "it is about a certificate of an issuer with another key"
    if single.serial != leaf.serial:
        yield f"it is about the serial number {single.serial:x}, but the certificate has {leaf.serial:x}"


def _time_faults(single: der.SingleResponse, now: datetime) -> Iterator[str]:
    """Yield where the response is not for this time (RFC 6960 3.2, rules 5 and 6)."""
    if single.this_update - now > MAX_SKEW:
        yield f"it holds only from {_at(single.this_update)} on{_clock(now, single.this_update - now)}"
    if single.next_update is None:
        age = now - single.this_update
        if age >= MAX_AGE:
            yield f"it was made on {_at(single.this_update)}, too long ago for one without nextUpdate{_clock(now, age)}"
    elif single.next_update <= single.this_update:
        yield f"its nextUpdate, {_at(single.next_update)}, is not later than its thisUpdate, {_at(single.this_update)}"
    elif single.next_update <= now:
        yield f"it expired on {_at(single.next_update)}{_clock(now, now - single.next_update)}"


def _replay_faults(single: der.SingleResponse, previous: Staple | None) -> Iterator[str]:
    """Yield that a newer staple of the same certificate is stored: an old response may be a replay (RFC 5019 6.1)."""
    if previous is not None and previous.serial == single.serial and single.this_update < previous.this_update:
        yield f"it is of {_at(single.this_update)}, older than the stored one of {_at(previous.this_update)}"


def _status_faults(single: der.SingleResponse) -> Iterator[str]:
    """Yield that the status is not good (RFC 6960 2.2)."""
    if single.status == "unknown":
        yield "its status is unknown: the responder does not know the certificate (yet, if it is new)"
    if single.status == "revoked" and single.revoked_at is not None:
        yield f"its status is revoked, since {_at(single.revoked_at)}"


def _window(
    single: der.SingleResponse, delegate: der.Certificate | None, now: datetime, margin: timedelta
) -> tuple[datetime | None, list[str]]:
    """Return when a staple would end, and why that is no good, where the response itself has not expired."""
    if single.next_update is None:
        return None, ["it has no nextUpdate, so nobody can tell how long it holds (RFC 5019 2.2.4)"]
    # A difference first: thisUpdate + 10 days may lie beyond the last year that there is.
    end = single.this_update + min(single.next_update - single.this_update, MAX_AGE)
    if delegate is not None:
        end = min(end, delegate.not_after)
    if single.next_update <= max(now, single.this_update) or single.this_update - now > MAX_SKEW:
        return end, []
    if end <= now:  # a delegate in the past has signed nothing, so it is the age
        return end, [f"it is too old: it ended on {_at(end)} (ten days after it was made){_clock(now, now - end)}"]
    if end - now > margin:
        return end, []
    if end - single.this_update <= MARGIN:
        return end, [
            f"it holds for {_span(end - single.this_update)} only: up to {_span(MARGIN)} may pass between two runs of "
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


def _reason_name(code: int | None) -> str | None:
    return None if code is None else _REVOCATION_REASONS.get(code, str(code))


# --- signatures ------------------------------------------------------------------------------------------------------

_SHA1 = "1.3.14.3.2.26"
_HASHES: dict[str, type[hashes.HashAlgorithm]] = {
    "2.16.840.1.101.3.4.2.1": hashes.SHA256, "2.16.840.1.101.3.4.2.2": hashes.SHA384,
    "2.16.840.1.101.3.4.2.3": hashes.SHA512, "2.16.840.1.101.3.4.2.4": hashes.SHA224,
}  # fmt: skip
_HASH_NAMES = {_SHA1: "SHA-1", **{oid: kind.name for oid, kind in _HASHES.items()}}
_PKCS1: dict[str, type[hashes.HashAlgorithm]] = {
    "1.2.840.113549.1.1.11": hashes.SHA256, "1.2.840.113549.1.1.12": hashes.SHA384,
    "1.2.840.113549.1.1.13": hashes.SHA512, "1.2.840.113549.1.1.14": hashes.SHA224,
}  # fmt: skip
_ECDSA: dict[str, type[hashes.HashAlgorithm]] = {
    "1.2.840.10045.4.3.1": hashes.SHA224, "1.2.840.10045.4.3.2": hashes.SHA256,
    "1.2.840.10045.4.3.3": hashes.SHA384, "1.2.840.10045.4.3.4": hashes.SHA512,
}  # fmt: skip
_PSS, _MGF1 = "1.2.840.113549.1.1.10", "1.2.840.113549.1.1.8"
_ED25519, _ED448 = "1.3.101.112", "1.3.101.113"
#: Collisions can be made, so such a signature proves nothing.
_BROKEN = {
    "1.2.840.113549.1.1.2": "MD2", "1.2.840.113549.1.1.4": "MD5", "1.2.840.113549.1.1.5": "SHA-1",
    "1.2.840.10040.4.3": "SHA-1", "1.2.840.10045.4.1": "SHA-1",
}  # fmt: skip


def _find_signer(
    basic: der.BasicResponse, issuer: der.Certificate, now: datetime
) -> tuple[list[str], der.Certificate | None]:
    """Return why the signature counts for nothing (nothing, where it counts), and the delegate, if one signed.

    RFC 6960 4.2.2.2: the issuer itself or its delegate, and RFC 6960 4.2.2.3: the one that responderID names. Several
    may bear that name, so each is tried.
    """
    faults: list[str] = []
    if _is_named(basic, issuer):
        fault = _signature_fault(issuer, basic.algorithm, basic.signature, basic.signed)
        if fault is None:
            return [], None
        faults.append(f"as a response of the issuer, {fault}")
    for delegate in basic.certificates:
        is_issuer = (delegate.subject, delegate.key_bits) == (issuer.subject, issuer.key_bits)
        if _is_named(basic, delegate) and not is_issuer:
            delegate_faults = list(_delegate_faults(basic, delegate, issuer, now))
            if not delegate_faults:
                return [], delegate
            faults += [f"as a response of a delegate, {fault}" for fault in delegate_faults]
    return faults or ["its responder ID names neither the issuer nor a certificate in the response"], None


def _is_named(basic: der.BasicResponse, signer: der.Certificate) -> bool:
    return signer.subject == basic.responder_name or signer.key_hash == basic.responder_key_hash


def _delegate_faults(
    basic: der.BasicResponse, delegate: der.Certificate, issuer: der.Certificate, now: datetime
) -> Iterator[str]:
    """Yield why a certificate of the response may not sign for the issuer (RFC 6960 4.2.2.2), or did not."""
    if delegate.issuer != issuer.subject:
        yield "the issuer did not make its certificate: it names another one"
        return
    fault = _signature_fault(issuer, delegate.algorithm, delegate.signature, delegate.signed)
    if fault is not None:
        yield f"the issuer did not make its certificate: {fault}"
        return
    if not _may_sign_responses(delegate):
        yield "its certificate lacks the extended key usage OCSPSigning"
    if now < delegate.not_before:
        yield f"its certificate holds only from {_at(delegate.not_before)} on{_clock(now, delegate.not_before - now)}"
    if delegate.not_after <= now:
        yield f"its certificate expired on {_at(delegate.not_after)}{_clock(now, now - delegate.not_after)}"
    fault = _signature_fault(delegate, basic.algorithm, basic.signature, basic.signed)
    if fault is not None:
        yield fault


def _may_sign_responses(delegate: der.Certificate) -> bool:
    try:
        usage = delegate.extension(_EXTENDED_KEY_USAGE)
        purposes = () if usage is None else usage.children()
        return _OCSP_SIGNING in {one.expect(der.OID, "a purpose").oid() for one in purposes}
    except der.NotDer:
        return False


def _signature_fault(signer: der.Certificate, algorithm: der.Element, signature: bytes, signed: bytes) -> str | None:
    """Return why `signature` over `signed` is not the signer's; None where it is."""
    try:
        _verify(signer, algorithm, signature, signed)
    except _Unverified as error:
        return str(error)
    except der.NotDer as error:
        return f"the signature's algorithm cannot be read: {error}"
    except InvalidSignature:
        return "the signature is not from its key"
    except (UnsupportedAlgorithm, ValueError) as error:
        return f"the signature cannot be verified: {error}"
    return None


class _Unverified(Exception):
    """A signature is of a kind that is not accepted."""


def _verify(signer: der.Certificate, algorithm: der.Element, signature: bytes, signed: bytes) -> None:
    """Verify one signature. Raises _Unverified, der.NotDer, InvalidSignature, UnsupportedAlgorithm, ValueError."""
    oid = algorithm.fields().take(der.OID, "algorithm").oid()
    if oid in _BROKEN:
        raise _Unverified(f"the signature is made with {_BROKEN[oid]}, which proves nothing any more")
    key = _key(signer.public_key_info)
    if oid == _PSS and isinstance(key, rsa.RSAPublicKey):
        pss, digest = _pss_parameters(algorithm)
        key.verify(signature, signed, pss, digest)
        return
    der.algorithm_oid(algorithm)  # the others have no parameters (RFC 4055 5, RFC 5758 3.2, RFC 8410 3)
    if oid in _PKCS1 and isinstance(key, rsa.RSAPublicKey):
        key.verify(signature, signed, padding.PKCS1v15(), _PKCS1[oid]())
    elif oid in _ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(signature, signed, ec.ECDSA(_ECDSA[oid]()))
    elif (oid == _ED25519 and isinstance(key, ed25519.Ed25519PublicKey)) or (
        oid == _ED448 and isinstance(key, ed448.Ed448PublicKey)
    ):
        key.verify(signature, signed)
    else:
        raise _Unverified(f"the signature's algorithm, {oid}, is not one for its key, or none that is accepted")


@functools.lru_cache(maxsize=_REMEMBERED)
def _key(public_key_info: bytes) -> object:
    """Return a public key; that of a CA is met again and again. Raises UnsupportedAlgorithm, ValueError."""
    return load_der_public_key(public_key_info)


def _pss_parameters(algorithm: der.Element) -> tuple[padding.PSS, hashes.HashAlgorithm]:
    """Return padding and hash of an RSASSA-PSS signature (RFC 4055 3.1). Raises _Unverified, der.NotDer."""
    outer = algorithm.fields()
    outer.take(der.OID, "algorithm")
    fields = outer.take(der.SEQUENCE, "RSASSA-PSS-params").fields()
    outer.end("AlgorithmIdentifier")
    hash_, mask, salt, trailer = (fields.take_optional(der.CONTEXT | der.CONSTRUCTED | number) for number in range(4))
    fields.end("RSASSA-PSS-params")
    if hash_ is None or mask is None:
        raise _Unverified("the signature is made with SHA-1, which proves nothing any more")  # what absence means
    generator = mask.only_child(der.SEQUENCE, "maskGenAlgorithm").fields()
    if generator.take(der.OID, "algorithm").oid() != _MGF1:
        raise _Unverified("the signature's mask generation function is not MGF1")
    mask_digest = _pss_hash(generator.take(der.SEQUENCE, "the mask's hash"))
    generator.end("maskGenAlgorithm")
    length = 20 if salt is None else salt.only_child(der.INTEGER, "saltLength").integer()
    if not 0 <= length <= 512 or (trailer and trailer.only_child(der.INTEGER, "trailerField").integer() != 1):
        raise _Unverified("the signature's salt or trailer is not one that RFC 4055 knows")
    return padding.PSS(padding.MGF1(mask_digest), length), _pss_hash(hash_.only_child(der.SEQUENCE, "hashAlgorithm"))


def _pss_hash(algorithm: der.Element) -> hashes.HashAlgorithm:
    oid = der.algorithm_oid(algorithm)
    if oid not in _HASHES:
        raise _Unverified(f"the signature is made with {_HASH_NAMES.get(oid, oid)}, which is not accepted")
    return _HASHES[oid]()


# --- when to act -----------------------------------------------------------------------------------------------------


def half_way(staple: Staple) -> datetime:
    """Return when half of the staple's window has passed."""
    return staple.this_update + (staple.end - staple.this_update) / 2


def is_due(staple: Staple | None, now: datetime, last_success: datetime | None) -> bool:
    """Tell whether a newer staple is to be fetched: half of the window is over, or the last success 6 h old.

    last_success: when the responder last gave a good answer, None for never. One from the future tells of a clock that
    was set back, and counts as never.
    """
    if staple is None or last_success is None or now >= half_way(staple):
        return True
    return not -MAX_SKEW <= now - last_success < REFRESH_AFTER


def must_withdraw(staple: Staple, now: datetime) -> bool:
    """Tell whether the staple's end is so near that it may be served expired before the next run."""
    return staple.end - now <= MARGIN
