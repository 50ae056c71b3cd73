"""What certificates say, and whether a signature is by one's key (RFC 5280): for cryptography's every version.

The law: pure functions of what cryptography has parsed. It parses names, keys, extensions and hash algorithms when they
are first looked at, so all that looks at them stands within a boundary. Times are aware and UTC.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from datetime import UTC
from typing import Any

from cryptography import x509
from cryptography.exceptions import InternalError, InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID
from cryptography.x509.oid import SignatureAlgorithmOID as Algorithm

from certbot_seafile import errors

remember = functools.lru_cache(maxsize=256)  # by certificate: each is met again and again, and keys are dear
_UNREADABLE = (
    ValueError, TypeError, KeyError, OverflowError, UnsupportedAlgorithm, InternalError,
    x509.DuplicateExtension, x509.UnsupportedGeneralNameType, x509.InvalidVersion,
)  # fmt: skip


@contextlib.contextmanager
def boundary(name: str, refusal: type[errors.BundleRefused] | None = None) -> Iterator[None]:
    """Turn what cryptography raises for bytes that it cannot read into errors.ResponseRefused.

    refusal: what to raise instead, with a reason that quotes nothing.
    """
    try:
        yield
    except BaseException as error:  # A panic of Rust code is no Exception, and its class cannot be imported.
        if isinstance(error, _UNREADABLE) or type(error).__name__ == "PanicException":
            if refusal is not None:
                raise refusal([f"{name} cannot be read"]) from error
            raise errors.ResponseRefused([f"{name} cannot be read: {error}"]) from error
        raise


def extension_of(certificate: x509.Certificate, kind: type[x509.ExtensionType]) -> Any:
    """Return the value of a certificate's extension; None without. Raises what cryptography does."""
    return next((each.value for each in certificate.extensions if isinstance(each.value, kind)), None)


def time_of(holder: x509.Certificate | ocsp.OCSPResponse, name: str) -> Any:
    """Return the time `name` of a certificate or response, aware; None without; cryptography's own may be naive."""
    if hasattr(type(holder), f"{name}_utc"):
        return getattr(holder, f"{name}_utc")
    moment = getattr(holder, name)
    return None if moment is None else moment.replace(tzinfo=UTC)


@boundary("the certificate's responder")
def ocsp_url(leaf: x509.Certificate) -> str | None:
    """Return the leaf's first http or https URL of a responder (RFC 5280 4.2.2.1), or None. Raises ResponseRefused."""
    descriptions = extension_of(leaf, x509.AuthorityInformationAccess) or ()
    responders = [each for each in descriptions if each.access_method == AuthorityInformationAccessOID.OCSP]
    locations = (each.access_location for each in responders)
    urls = (location.value for location in locations if isinstance(location, x509.UniformResourceIdentifier))
    return next((url for url in urls if url.lower().startswith(("http://", "https://"))), None)


@boundary("the certificate's TLS features")
def is_must_staple(leaf: x509.Certificate) -> bool:
    """Tell whether the leaf demands a staple by its TLS features (RFC 7633 4.2.3.1). Raises errors.ResponseRefused."""
    demanded = set(extension_of(leaf, x509.TLSFeature) or ())
    return bool(demanded & {x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2})


# --- who signed it ----------------------------------------------------------------------------------------------------

_ANOTHER_NAME = "it names another one"
_PKCS1 = padding.PKCS1v15()
#: What a signature may be made with: the key's kind, and what else its `verify` is told (RFC 4055 5, RFC 5758 3.2, RFC
#: 8410 3). RSASSA-PSS is not among them, since its parameters cannot be read everywhere.
_ALGORITHMS: dict[x509.ObjectIdentifier, tuple[type, tuple[object, ...]]] = {
    Algorithm.RSA_WITH_SHA224: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA224())),
    Algorithm.RSA_WITH_SHA256: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA256())),
    Algorithm.RSA_WITH_SHA384: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA384())),
    Algorithm.RSA_WITH_SHA512: (rsa.RSAPublicKey, (_PKCS1, hashes.SHA512())),
    Algorithm.ECDSA_WITH_SHA224: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA224()),)),
    Algorithm.ECDSA_WITH_SHA256: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA256()),)),
    Algorithm.ECDSA_WITH_SHA384: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA384()),)),
    Algorithm.ECDSA_WITH_SHA512: (ec.EllipticCurvePublicKey, (ec.ECDSA(hashes.SHA512()),)),
    Algorithm.ED25519: (ed25519.Ed25519PublicKey, ()),
    Algorithm.ED448: (ed448.Ed448PublicKey, ()),
}
#: Collisions can be made, so such a signature proves nothing.
BROKEN = {Algorithm.RSA_WITH_MD5: "MD5", Algorithm.RSA_WITH_SHA1: "SHA-1", Algorithm.ECDSA_WITH_SHA1: "SHA-1"}
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # as in the Baseline Requirements, 6.1.5
_public_key = remember(lambda certificate: certificate.public_key())


@boundary("the certificate or its chain")
def find_issuer(leaf: x509.Certificate, chain: Sequence[x509.Certificate]) -> x509.Certificate:
    """Return the chain's certificate that signed the leaf, by name and key. Raises errors.ResponseRefused without."""
    reasons = []
    for candidate in chain:
        fault = issuing_fault(leaf, candidate)
        if fault is None:
            return candidate
        if fault != _ANOTHER_NAME:
            reasons.append(f"a chain certificate has the issuer's name, but for it {fault}")
    raise errors.ResponseRefused(["none of the chain's certificates signed the certificate", *reasons])


@remember
def issuing_fault(certificate: x509.Certificate, issuer: x509.Certificate) -> str | None:
    """Return why the issuer did not make a certificate; None where it did (RFC 5280 6.1.3, RFC 6960 4.2.2.2)."""
    if certificate.issuer.public_bytes() != issuer.subject.public_bytes():
        return _ANOTHER_NAME
    encoded = certificate.public_bytes(Encoding.DER)
    return signature_fault(issuer, certificate, encoded, certificate.tbs_certificate_bytes)


def signature_fault(
    signer: x509.Certificate, holder: x509.Certificate | ocsp.OCSPResponse, encoded: bytes, signed: bytes
) -> str | None:
    """Return why the signature over `signed` in `encoded` is not the signer's; None where it is."""
    oid, key, signature = holder.signature_algorithm_oid, _public_key(signer), holder.signature
    kind, arguments = _ALGORITHMS.get(oid, (type(None), ()))
    if oid in BROKEN:
        return f"the signature is made with {BROKEN[oid]}, which proves nothing any more"
    is_for_key = isinstance(key, kind)
    if not is_for_key:
        return f"the signature's algorithm, {oid.dotted_string}, is not one for its key, or none that is accepted"
    if isinstance(key, ec.EllipticCurvePublicKey) and not isinstance(key.curve, _CURVES):
        return f"its key is on the curve {key.curve.name}, which GnuTLS does not know"
    try:
        key.verify(signature, signed, *arguments)
    except InvalidSignature:
        return "the signature is not from its key"
    # Algorithm, tag, length and the number of unused bits are not signed, and cryptography is lax with them.
    between = encoded.partition(signed)[2].partition(signature)[0]
    if not (between.startswith(forms(oid)) and between.endswith(b"\0")):
        return "what stands around the signature is not in its only form"
    return None


@remember
def forms(oid: x509.ObjectIdentifier) -> tuple[bytes, bytes]:
    """Return both forms of an AlgorithmIdentifier: with NULL for parameters, and with none, as some write RSA's."""
    bare = x509.ExtendedKeyUsage([oid]).public_bytes()  # a sequence of OIDs
    return bytes([0x30, bare[1] + 2]) + bare[2:] + b"\x05\x00", bare
