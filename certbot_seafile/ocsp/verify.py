"""Which OCSP response may be stapled, and until when.

The law of this module: the verdict is a pure function of the response's bytes, the leaf, its chain and the time. It is
a Staple, or one of our errors with every reason against the response; nothing else comes out, whatever the bytes are.
What OpenSSL's or GnuTLS's TLS client refuses is never a Staple: clients reject a bad staple, but accept none, so in
doubt the answer is no. All times are aware and UTC.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from certbot_seafile import errors
from certbot_seafile.ocsp import pkix

_HOUR = timedelta(hours=1)
MARGIN = 25 * _HOUR  # Debian's timer leaves at most 24 h between two runs of `certbot renew`
MAX_AGE = timedelta(days=10)  # the longest window that the CA/Browser Forum's Baseline Requirements allow (4.9.10)
MAX_SKEW = timedelta(minutes=5)
_NEWS = 6 * _HOUR  # so long, a good response is news
_SHA1 = x509.ObjectIdentifier("1.3.14.3.2.26")

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
    """A verified response; end, when it must no longer be served: min(nextUpdate, thisUpdate + 10 days, delegate's)."""

    response: bytes
    serial: int
    this_update: datetime
    next_update: datetime
    end: datetime


def build_request(leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    """Return the DER of an OCSP request for the leaf: with a SHA-1 CertID (RFC 5019 2.1.1) and without a nonce.

    One would tie the response to one request, but a staple is for everyone, and responders may answer from a store.
    """
    return _request(leaf, issuer).public_bytes(Encoding.DER)


def _request(leaf: x509.Certificate, issuer: x509.Certificate) -> ocsp.OCSPRequest:
    return ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1()).build()


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
    if any(time is not None and time.tzinfo is None for time in (now, known_update)):
        raise TypeError("a naive time")  # The caller's mistake is not to be taken for the responder's.
    with pkix.boundary("the response"):
        issuer = pkix.find_issuer(leaf, chain)
        basic = _load(response)
        faults, delegate = _find_signer(response, basic, issuer, (leaf, *chain))
        if (count := sum(1 for _ in basic.responses)) != 1:
            raise errors.ResponseRefused([*faults, f"it holds {count} SingleResponses instead of one (RFC 5019 2.2.1)"])
        begin, next_update = pkix.time_of(basic, "this_update"), pkix.time_of(basic, "next_update")
        time_faults = list(_time_faults(basic, delegate, now))
        faults += [*_content_faults(basic, _request(leaf, issuer)), *time_faults]
        if known_update is not None and begin < known_update:  # RFC 5019 6.1
            newest = _at(known_update)
            faults.append(f"it is of {_at(begin)}, older than the newest known one, of {newest}: it may be a replay")
        if basic.certificate_status is ocsp.OCSPCertStatus.REVOKED and not faults:
            raise errors.CertificateRevoked(pkix.time_of(basic, "revocation_time"), _revocation_reason(basic), begin)
        faults += _status_faults(basic, leaf, now)
        if next_update is None:
            faults.append("it has no nextUpdate, so nobody can tell how long it holds (RFC 5019 2.2.4)")
            raise errors.ResponseRefused(faults)
        end = begin + min(next_update - begin, MAX_AGE)  # begin + MAX_AGE alone may lie beyond the last year there is
        if delegate is not None:
            end = min(end, pkix.time_of(delegate, "not_valid_after"))
        if not time_faults and end - now <= (timedelta(0) if must_staple else MARGIN):
            faults.append(_end_fault(begin, end, now))
        if faults:
            raise errors.ResponseRefused(faults)
        return Staple(response, leaf.serial_number, begin, next_update, end)


def verify_stored(response: bytes, leaf: x509.Certificate, chain: Sequence[x509.Certificate], now: datetime) -> Staple:
    """Return the staple that a stored response still is: all rules of `verify`, the end being in the future."""
    return verify(response, leaf, chain, now, must_staple=True)


def is_whole(response: bytes) -> bool:
    """Tell whether bytes are a successful response, about whatever: nginx does not start with what is none."""
    with contextlib.suppress(errors.ResponseRefused), pkix.boundary("the response"):
        return bool(_load(response))
    return False


def _load(response: bytes) -> ocsp.OCSPResponse:
    if not response:
        raise errors.ResponseRefused(["it is empty"])
    if response[0] != 0x30:
        raise errors.ResponseRefused([f"it is not an OCSP response: it begins with {response[:24]!r}"])
    basic = ocsp.load_der_ocsp_response(response)
    if basic.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise errors.ResponseRefused([f"its status is {_UNSUCCESSFUL[basic.response_status.name]} (RFC 6960 4.2.1)"])
    return basic


def _content_faults(basic: ocsp.OCSPResponse, request: ocsp.OCSPRequest) -> Iterator[str]:
    """Yield critical extensions, and where the CertID is not that of a request for the leaf (RFC 6960 3.2, rule 1)."""
    for extension in (*basic.extensions, *basic.single_extensions):
        if extension.critical:
            name = extension.oid.dotted_string
            yield f"it has the critical extension {name}, which clients need not understand (RFC 6960 4.4)"
    if not isinstance(basic.hash_algorithm, hashes.SHA1):
        yield f"its CertID is made with {basic.hash_algorithm.name}, but clients look for SHA-1 (RFC 5019 2.1.1)"
    else:
        if basic.issuer_name_hash != request.issuer_name_hash:
            yield "it is about a certificate of an issuer with another name"
        if basic.issuer_key_hash != request.issuer_key_hash:
            yield "it is about a certificate of an issuer with another key"
        if not any(algorithm + b"\x04\x14" in basic.tbs_response_bytes for algorithm in pkix.forms(_SHA1)):
            yield "its CertID is not in DER"  # cryptography 38 does not look at the hash's parameters
    if basic.serial_number != request.serial_number:
        serial = f"{basic.serial_number:x}"[:41]  # RFC 5280 4.1.2.2: 20 bytes at most
        yield f"it is about the serial number {serial}, but the certificate has {request.serial_number:x}"


def _time_faults(basic: ocsp.OCSPResponse, delegate: x509.Certificate | None, now: datetime) -> Iterator[str]:
    """Yield where the delegate or the response is not for this time (RFC 6960 4.2.2.2; 3.2, rules 5 and 6)."""
    begin, next_update = pkix.time_of(basic, "this_update"), pkix.time_of(basic, "next_update")
    if delegate is not None:
        first, last = pkix.time_of(delegate, "not_valid_before"), pkix.time_of(delegate, "not_valid_after")
        if now < first:
            yield f"the delegate's certificate holds only from {_at(first)} on{_clock(now, first)}"
        if last <= now:
            yield f"the delegate's certificate expired on {_at(last)}{_clock(now, last)}"
    if begin - now > MAX_SKEW:
        yield f"it holds only from {_at(begin)} on{_clock(now, begin)}"
    if next_update is None:
        if now - begin >= MAX_AGE:
            yield f"it was made on {_at(begin)}, too long ago for one without nextUpdate{_clock(now, begin)}"
    elif next_update <= begin:
        yield f"its nextUpdate, {_at(next_update)}, is not later than its thisUpdate, {_at(begin)}"
    elif next_update <= now:
        yield f"it expired on {_at(next_update)}{_clock(now, next_update)}"


def _status_faults(basic: ocsp.OCSPResponse, leaf: x509.Certificate, now: datetime) -> Iterator[str]:
    """Yield that the status is not good (RFC 6960 2.2), or that of a certificate at which no client looks any more."""
    if basic.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        yield "its status is unknown: the responder does not know the certificate (yet, if it is new)"
    if basic.certificate_status is ocsp.OCSPCertStatus.REVOKED:
        yield f"its status is revoked, since {_at(pkix.time_of(basic, 'revocation_time'))}"
    if (leaf_end := pkix.time_of(leaf, "not_valid_after")) <= now:
        yield f"the certificate itself expired on {_at(leaf_end)}{_clock(now, leaf_end)}"


def _revocation_reason(basic: ocsp.OCSPResponse) -> str | None:
    """Return the reason's name (RFC 5280 5.3.1); None without, or for a number that has no name."""
    try:
        return basic.revocation_reason and basic.revocation_reason.value
    except ValueError:
        return None  # The leaf is revoked all the same.


def _end_fault(begin: datetime, end: datetime, now: datetime) -> str:
    if end <= now:
        return f"it is too old: it ended on {_at(end)} (ten days after it was made){_clock(now, end)}"
    if end - begin <= MARGIN:
        return (
            f"it holds for {(end - begin) / _HOUR:.3g} h only: up to {MARGIN / _HOUR:.3g} h may pass between two runs "
            "of `certbot renew`, and clients reject an expired staple but accept none"
        )
    return f"it ends on {_at(end)}, which is less than {MARGIN / _HOUR:.3g} h away"


def _at(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"


def _clock(now: datetime, time: datetime) -> str:
    """Return a word about this machine's clock where it is far from the time: a wrong one is the usual cause."""
    is_far = abs(now - time) > timedelta(days=1)
    return f" (this machine's clock says {_at(now.astimezone(UTC))}; is it right?)" if is_far else ""


# --- the signer ------------------------------------------------------------------------------------------------------

#: The critical extensions that both OpenSSL and GnuTLS know when they verify a chain (RFC 5280 4.2).
_UNDERSTOOD = (
    x509.KeyUsage, x509.ExtendedKeyUsage, x509.BasicConstraints,
    x509.SubjectAlternativeName, x509.CertificatePolicies, x509.CRLDistributionPoints,
)  # fmt: skip


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
        faults += [f"as a response of the issuer, {fault}" for fault in _signing_faults(issuer, basic, response)]
        return faults, None
    if fault := pkix.issuing_fault(sent, issuer):
        return [*faults, f"as a response of a delegate, the issuer did not make its certificate: {fault}"], None
    delegate_faults = (*_delegation_faults(sent, issuer), *_signing_faults(sent, basic, response))
    faults += [f"as a response of a delegate, {fault}" for fault in delegate_faults]
    return faults, sent


def _embedded_faults(embedded: Sequence[x509.Certificate], chain: Sequence[x509.Certificate]) -> Iterator[str]:
    """Yield what in `certs` makes clients refuse a response: OpenSSL takes a look-alike for the chain's certificate."""
    names = {_folded_subject(certificate) for certificate in chain}
    for certificate in embedded:
        if not _is_whole(certificate):
            yield "a certificate in it names two signature algorithms (RFC 5280 4.1.1.2)"
        if certificate not in chain and _folded_subject(certificate) in names:
            yield "a certificate in it looks like one of the chain, but is another one"


@pkix.remember
def _is_whole(certificate: x509.Certificate) -> bool:
    """Tell whether the algorithm beside the signature is the signed one, without which GnuTLS reads no certificate."""
    times = (pkix.time_of(certificate, name) for name in ("not_valid_before", "not_valid_after"))
    _parts = certificate.issuer, certificate.extensions, *times  # looked at, as OpenSSL does, for the boundary's sake
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
    signed = basic.tbs_response_bytes
    if basic.responder_name is None:
        is_named = basic.responder_key_hash == _key_hash(signer)
    else:
        name = signer.subject.public_bytes()  # encoded again by cryptography
        is_named = name in signed and name in signer.tbs_certificate_bytes
    if not is_named:
        yield "its responder ID is almost, but not quite, that of the signer"
    if fault := pkix.signature_fault(signer, basic, response, signed):
        yield fault


@pkix.remember
def _delegation_faults(delegate: x509.Certificate, issuer: x509.Certificate) -> tuple[str, ...]:
    """Return why a certificate of the issuer may not sign responses (RFC 6960 4.2.2.2), or would not be believed."""
    faults = []
    if ExtendedKeyUsageOID.OCSP_SIGNING not in (pkix.extension_of(delegate, x509.ExtendedKeyUsage) or ()):
        faults.append("its certificate lacks the extended key usage OCSPSigning")
    for extension in delegate.extensions:
        if extension.critical and not isinstance(extension.value, _UNDERSTOOD):
            name = extension.oid.dotted_string
            faults.append(f"its certificate has the critical extension {name}, which clients do not understand")
    usage = pkix.extension_of(delegate, x509.KeyUsage)
    if usage is not None and not (usage.digital_signature or usage.content_commitment):  # RFC 5280 4.2.1.3
        faults.append("its certificate's key usage does not allow signatures")
    authority = pkix.extension_of(delegate, x509.AuthorityKeyIdentifier)
    if authority is not None and not _is_key_named(authority, issuer):
        faults.append("its certificate names another key of the issuer")
    return tuple(faults)


def _is_key_named(authority: x509.AuthorityKeyIdentifier, issuer: x509.Certificate) -> bool:
    """Tell whether a certificate names no other key of the issuer (RFC 5280 4.2.1.1); as X509_check_issued does it."""
    names = [name.value for name in authority.authority_cert_issuer or () if isinstance(name, x509.DirectoryName)]
    return (
        len({authority.key_identifier, _key_identifier(issuer)} - {None}) <= 1
        and authority.authority_cert_serial_number in (None, issuer.serial_number)
        and all(_folded(name) == _folded(issuer.issuer) for name in names)
    )


def _folded(name: x509.Name) -> tuple[tuple[x509.ObjectIdentifier, str], ...]:
    """Return a name as OpenSSL compares it (X509_NAME_cmp), or more loosely: without case and spaces."""
    return tuple((attribute.oid, "".join(str(attribute.value).casefold().split())) for attribute in name)


# The hash is that of the key's bits as they stand there (RFC 6960 4.2.1), also if the key is of no use.
_folded_subject = pkix.remember(lambda certificate: _folded(certificate.subject))
_key_hash = pkix.remember(lambda certificate: _request(certificate, certificate).issuer_key_hash)
_key_identifier = pkix.remember(
    lambda holder: getattr(pkix.extension_of(holder, x509.SubjectKeyIdentifier), "digest", None)
)


# --- when to act -----------------------------------------------------------------------------------------------------


def due_at(staple: Staple, last_success: datetime) -> datetime:
    """Return when a newer staple is to be fetched: half of the window is over, or the last success 6 h old."""
    return min(staple.this_update + (staple.end - staple.this_update) / 2, last_success + _NEWS)


def is_due(staple: Staple | None, now: datetime, last_success: datetime | None) -> bool:
    """Tell whether a newer staple is to be fetched now. last_success: when a response was last good, None for never."""
    return staple is None or last_success is None or is_old(last_success, now) or now >= due_at(staple, last_success)


def is_old(last_success: datetime | None, now: datetime) -> bool:
    """Tell whether the last good response (None: never) tells nothing about now any more.

    One from the future tells of a clock that was set back.
    """
    return last_success is None or not -MAX_SKEW <= now - last_success < _NEWS


def must_withdraw(staple: Staple, now: datetime) -> bool:
    """Tell whether the staple's end is so near that it may be served expired before the next run."""
    return staple.end - now <= MARGIN
