"""Which responses may be stapled: one case for each rule."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

import authority
from authority import DAY, HOUR, Identity
from certbot_seafile import errors
from certbot_seafile.ocsp import pkix, verify
from certbot_seafile.ocsp.verify import Staple

NOW = datetime.datetime(2026, 6, 1, 12, 0, tzinfo=datetime.UTC)


@dataclass(frozen=True)
class World:
    """A CA, a leaf of it, and how it answers about that leaf at NOW."""

    ca: Identity = field(default_factory=authority.make_ca)
    now: datetime.datetime = NOW

    def __post_init__(self) -> None:
        object.__setattr__(self, "leaf", authority.make_leaf(self.ca, now=self.now))

    leaf: Identity = field(init=False)

    @property
    def chain(self) -> list[x509.Certificate]:
        """Return the leaf's chain."""
        return [self.ca.certificate]

    def delegate(self, **options: Any) -> Identity:
        """Make a delegate whose validity is around NOW."""
        return authority.make_delegate(self.ca, **{"begin": self.now - DAY, "end": self.now + 30 * DAY, **options})

    def signer(
        self, *extensions: tuple[x509.ExtensionType, bool], issuer: Identity | None = None, **options: Any
    ) -> Identity:
        """Make a delegate with OCSPSigning and further extensions, each critical or not."""
        return authority.make_certificate(
            options.pop("name", "Test responder"),
            issuer or self.ca,
            extensions=[(x509.ExtendedKeyUsage([authority.OCSP_SIGNING]), False), *extensions],
            begin=self.now - DAY,
            end=self.now + 30 * DAY,
            **options,
        )

    def single(
        self,
        begin: datetime.timedelta = -HOUR,
        end: datetime.timedelta | None = 4 * DAY,
        *,
        about: authority.CertId | None = None,
        **options: Any,
    ) -> bytes:
        """Return a SingleResponse about the leaf, for a window given as distances from NOW."""
        about = about or authority.cert_id(self.leaf.certificate, self.ca.certificate)
        return authority.single(about, self.now + begin, None if end is None else self.now + end, **options)

    def respond(self, *singles: bytes, signer: Identity | None = None, **options: Any) -> bytes:
        """Return a response, good unless told otherwise, by the CA unless told otherwise."""
        return authority.respond(signer or self.ca, singles or [self.single()], self.now - HOUR, **options)

    def delegated(self, delegate: Identity, *before: Identity, **options: Any) -> bytes:
        """Return a delegate's response, with its certificate behind others in it."""
        return self.respond(signer=delegate, certificates=[*before, delegate], **options)

    def verify(self, response: bytes, now: datetime.datetime = NOW, **options: Any) -> Staple:
        """Verify a response about the leaf."""
        return verify.verify(response, self.leaf.certificate, self.chain, now, **options)

    def reasons(self, response: bytes, now: datetime.datetime = NOW, **options: Any) -> tuple[str, ...]:
        """Return why a response is refused."""
        with pytest.raises(errors.ResponseRefused) as refused:
            self.verify(response, now, **options)
        assert not isinstance(refused.value, errors.CertificateRevoked)
        assert all(reason and reason.isprintable() for reason in refused.value.reasons)
        return refused.value.reasons


@pytest.fixture(scope="module")
def world() -> World:
    """Make one CA and one leaf for the whole module: no test changes them."""
    return World()


tlv, sequence, integer, oid, NULL = authority.tlv, authority.sequence, authority.integer, authority.oid, authority.NULL
NONCE = authority.extension("1.3.6.1.5.5.7.48.1.2", b"\x04\x01a")
RESPONDERS = [authority.by_key, authority.by_name]
UNKNOWN_EXTENSION = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), authority.NULL)

# --- accepted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", authority.KEYS)
@pytest.mark.parametrize("responder", RESPONDERS)
def test_the_issuers_own_response_is_accepted(kind: str, responder: Callable[[Identity], bytes]) -> None:
    """Whatever kind of key the issuer has, and by whichever of the two ways it names itself."""
    world = World(authority.make_ca(key=authority.KEYS[kind]()))
    response = world.respond(responder=responder)
    assert world.verify(response) == Staple(
        response,
        world.leaf.certificate.serial_number,
        NOW - HOUR,
        NOW + 4 * DAY,
        end=NOW + 4 * DAY,
    )


@pytest.mark.parametrize("kind", authority.KEYS)
@pytest.mark.parametrize("responder", RESPONDERS)
def test_a_delegates_response_is_accepted(world: World, kind: str, responder: Callable[[Identity], bytes]) -> None:
    """The delegate's certificate is in the response, and the staple ends with it at the latest."""
    delegate = world.delegate(key=authority.KEYS[kind](), end=NOW + 3 * DAY)
    staple = world.verify(world.delegated(delegate, responder=responder))
    assert (staple.next_update, staple.end) == (NOW + 4 * DAY, NOW + 3 * DAY)


@pytest.mark.parametrize("responder", RESPONDERS)
def test_a_delegate_of_an_rsa_issuer_is_accepted(responder: Callable[[Identity], bytes]) -> None:
    """The issuer's and the delegate's signatures are each of their own kind."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    for delegate in (world.delegate(), world.delegate(key=authority.rsa_key(1))):
        assert world.verify(world.delegated(delegate, responder=responder)).end == NOW + 4 * DAY


def test_a_delegate_with_the_issuers_own_key_is_accepted(world: World) -> None:
    """Clients may take the one or the other for the signer, and come to the same verdict."""
    delegate = world.delegate(key=world.ca.key)
    for responder in RESPONDERS:
        assert world.verify(world.delegated(delegate, responder=responder)).end == NOW + 4 * DAY


GOOD: dict[str, Callable[[World], bytes]] = {
    "nonce": lambda w: w.respond(extensions=[NONCE]),
    "nonce of RFC 2560": lambda w: w.respond(extensions=[authority.extension("1.3.6.1.5.5.7.48.1.2", b"raw bytes")]),
    "unknown extension": lambda w: w.respond(extensions=[authority.extension("1.2.3.4", authority.NULL)]),
    "unknown single extension": lambda w: w.respond(
        w.single(extensions=[authority.extension("1.2.3.4", authority.NULL)])
    ),
    "no NULL in the CertID": lambda w: _assemble(w, hash=sequence(oid(authority.SHA1))),
    "delegate with critical extensions": lambda w: w.delegated(
        w.signer(
            (_usage(signature=True), True),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (x509.SubjectAlternativeName([x509.DNSName("ocsp.example.com")]), True),
            (x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.5"), None)]), True),
        )
    ),
    "delegate with critical purposes": lambda w: w.delegated(
        authority.make_certificate(
            "Critical", w.ca, extensions=[(x509.ExtendedKeyUsage([authority.OCSP_SIGNING]), True)]
        )
    ),
    "delegate that may commit": lambda w: w.delegated(w.signer((_usage(commitment=True), True))),
    "delegate that names its issuer in full": lambda w: _naming_issuer(w),
    "delegate without the issuer's key": lambda w: w.delegated(_without_extensions_but_purpose(w)),
    "delegate with nocheck": lambda w: w.delegated(w.signer((x509.OCSPNoCheck(), False))),
    "delegate with an unknown extension": lambda w: w.delegated(w.signer((UNKNOWN_EXTENSION, False))),
    "delegate with more purposes": lambda w: w.delegated(
        w.delegate(purposes=[authority.SERVER_AUTH, authority.OCSP_SIGNING])
    ),
    "second delegate of the name, by key": lambda w: w.delegated(w.delegate(), w.delegate()),
    "delegate before its namesake": lambda w: _first_of_two(w, responder=authority.by_name),
    "the issuer before its delegate": lambda w: w.delegated(w.delegate(), w.ca),
    "the issuer's, with its certificate": lambda w: w.respond(certificates=[w.ca], responder=authority.by_name),
    "the issuer's, with one that has no name either": lambda w: w.respond(
        certificates=[authority.make_leaf(authority.make_ca("Another CA"))]
    ),
    "the issuer's, with another's": lambda w: w.respond(certificates=[authority.make_ca("Stranger")]),
}


def _without_extensions_but_purpose(world: World) -> Identity:
    """Return a delegate that does not say which key of the issuer signed it."""
    signer = world.signer()
    fields = authority.elements(signer.certificate.tbs_certificate_bytes)
    purpose = authority.elements(authority.elements(fields[7])[0])[-1]
    signed = sequence(*fields[:7], tlv(0xA3, sequence(purpose)))
    how, signature = authority.sign(world.ca.key, signed)
    encoded = sequence(signed, how, tlv(0x03, b"\0", signature))
    return Identity(x509.load_der_x509_certificate(encoded), signer.key)


def _first_of_two(world: World, **options: Any) -> bytes:
    delegate, namesake = world.delegate(), world.delegate()
    return world.respond(signer=delegate, certificates=[delegate, namesake], **options)


@pytest.mark.parametrize("make", GOOD.values(), ids=GOOD)
def test_what_is_plainly_good_is_accepted(make: Callable[[World], bytes]) -> None:
    """Everything here is what responders do, and what every client takes."""
    world = World(now=datetime.datetime.now(datetime.UTC).replace(microsecond=0))
    assert world.verify(make(world), world.now).serial == world.leaf.certificate.serial_number


@pytest.mark.parametrize("by_delegate", [False, True])
def test_an_rsa_algorithm_without_null_is_accepted(by_delegate: bool) -> None:
    """RFC 4055 5 wants a NULL there, and clients take what lacks it."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    signer = world.delegate(key=authority.rsa_key(1)) if by_delegate else world.ca
    response = world.respond(
        signer=signer, signing=authority.sign_without_null, certificates=[signer] if by_delegate else []
    )
    assert world.verify(response).end == NOW + 4 * DAY


@pytest.mark.parametrize("serial", [1, 0x7F, 0x80, 2**159 - 1, 2**159 - 2**152], ids=hex)
def test_a_serial_number_of_any_length_is_accepted(world: World, serial: int) -> None:
    """From one byte to the twenty that RFC 5280 4.1.2.2 allows."""
    leaf = authority.make_leaf(world.ca, serial=serial, now=NOW).certificate
    response = world.respond(world.single(about=authority.cert_id(leaf, world.ca.certificate)))
    assert verify.verify(response, leaf, world.chain, NOW).serial == serial


def test_the_issuer_is_found_by_signature_among_cross_signed_and_namesake_certificates() -> None:
    """A CA of the same name but another key is not the issuer; a cross-signed twin with the same key is."""
    ca, other = authority.make_ca("Same name"), authority.make_ca("Old root")
    namesake, twin = authority.make_ca("Same name"), authority.make_ca("Same name", ca.key, signed_by=other)
    world = World(ca)
    chain = [other.certificate, namesake.certificate, twin.certificate]
    assert pkix.find_issuer(world.leaf.certificate, chain) == twin.certificate
    assert verify.verify(world.respond(), world.leaf.certificate, chain, NOW).end == NOW + 4 * DAY


@pytest.mark.parametrize("responder", RESPONDERS)
def test_the_order_of_the_chain_file_does_not_matter(responder: Callable[[Identity], bytes]) -> None:
    """Root before intermediate, a certificate twice, the leaf itself in between: the issuer is whoever signed."""
    root = authority.make_ca("Root")
    world = World(authority.make_ca("Intermediate", signed_by=root))
    chain = [root.certificate, world.leaf.certificate, world.ca.certificate, world.ca.certificate]
    delegate = world.delegate()
    for response in (world.respond(responder=responder), world.delegated(delegate, world.ca, responder=responder)):
        assert verify.verify(response, world.leaf.certificate, chain, NOW).end == NOW + 4 * DAY


@pytest.mark.parametrize("names_alike", [True, False])
def test_a_chain_without_the_issuer_is_refused(world: World, names_alike: bool) -> None:
    """Also where one of its certificates bears the issuer's name."""
    stranger = authority.make_ca("Test CA" if names_alike else "Another CA")
    with pytest.raises(errors.ResponseRefused, match="none of the chain's certificates signed") as refused:
        verify.verify(world.respond(), world.leaf.certificate, [stranger.certificate], NOW)
    assert ("has the issuer's name" in str(refused.value)) == names_alike


def test_superfluous_certificates_do_no_harm(world: World) -> None:
    """Some responders put the whole chain into each response."""
    delegate, stranger = world.delegate(), authority.make_ca("Stranger")
    response = world.respond(signer=delegate, certificates=[world.ca, stranger, delegate])
    assert world.verify(response).serial == world.leaf.certificate.serial_number


def test_a_response_made_by_cryptography_is_accepted(world: World) -> None:
    """An encoder that is not ours agrees with our reader."""
    begin, end = (moment.replace(tzinfo=None) for moment in (NOW - HOUR, NOW + 4 * DAY))
    builder = ocsp.OCSPResponseBuilder().add_response(
        world.leaf.certificate, world.ca.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, begin, end, None, None
    )  # fmt: skip
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, world.ca.certificate)
    signed = builder.sign(world.ca.key, hashes.SHA256())
    staple = world.verify(signed.public_bytes(Encoding.DER))
    assert (staple.this_update, staple.next_update) == (NOW - HOUR, NOW + 4 * DAY)


def test_the_window_is_ten_days_at_most(world: World) -> None:
    """The Baseline Requirements allow no longer one, so what says more is served for ten days."""
    staple = world.verify(world.respond(world.single(end=30 * DAY)))
    assert (staple.next_update, staple.end) == (NOW + 30 * DAY, NOW - HOUR + 10 * DAY)


def test_a_window_up_to_the_end_of_time_is_read(world: World) -> None:
    """The year 9999 plus ten days does not exist, and is not asked for."""
    far = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    assert world.verify(world.respond(authority.single(about, NOW, far))).end == NOW + 10 * DAY
    assert "holds only from 9999-12-31" in world.reasons(world.respond(authority.single(about, far, None)))[0]


# --- refused ---------------------------------------------------------------------------------------------------------


def _delegated(world: World, **options: Any) -> bytes:
    return world.delegated(world.delegate(**options))


def _of_another_issuer(world: World) -> bytes:
    """Return a response about the same serial number of another issuer."""
    other = authority.make_ca("Another CA")
    twin = authority.make_leaf(other, serial=world.leaf.certificate.serial_number)
    return world.respond(world.single(about=authority.cert_id(twin.certificate, other.certificate)))


def _of_another_serial(world: World) -> bytes:
    sibling = authority.make_leaf(world.ca)
    return world.respond(world.single(about=authority.cert_id(sibling.certificate, world.ca.certificate)))


def _with_sha256_id(world: World) -> bytes:
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate, authority.SHA256)
    return world.respond(world.single(about=about))


def _with_sha256_hashes_called_sha1(world: World) -> bytes:
    """Return a response whose CertID says SHA-1, and whose hashes are longer than that."""
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate, authority.SHA256)
    return world.respond(world.single(about=authority.CertId(about.name_hash, about.key_hash, about.serial)))


def _forged(world: World) -> bytes:
    """Return a response by a CA that calls itself like ours, and brings its own certificate along."""
    forger = authority.make_ca()
    return world.respond(signer=forger, responder=authority.by_name, certificates=[forger])


def _delegate_of_a_namesake(world: World) -> bytes:
    return world.delegated(authority.make_delegate(authority.make_ca(), begin=NOW - DAY, end=NOW + 30 * DAY))


def _delegate_of_another_issuer(world: World) -> bytes:
    other = authority.make_ca("Another CA")
    return world.delegated(authority.make_delegate(other, begin=NOW - DAY, end=NOW + 30 * DAY))


def _delegate_of_the_delegate(world: World) -> bytes:
    """Return a response by somebody to whom a delegate handed its right on."""
    first = world.delegate()
    second = authority.make_delegate(first, begin=NOW - DAY, end=NOW + 30 * DAY, name="Second")
    return world.delegated(second, first)


def _of_a_namesake(world: World) -> bytes:
    """Return a response about the same serial number of a CA with the same name but another key."""
    about = authority.cert_id(world.leaf.certificate, authority.make_ca().certificate)
    return world.respond(world.single(about=about))


def _delegate_not_named(world: World) -> bytes:
    """Return a response by a delegate that says that it is from somebody else."""
    delegate, other = world.delegate(), authority.by_key(world.delegate())
    return world.delegated(delegate, responder=lambda signer: other)


def _delegate_that_did_not_sign(world: World) -> bytes:
    return world.delegated(world.delegate(), damage=authority.flip)


def _by_the_leaf(world: World) -> bytes:
    """Return a response in which the certificate vouches for itself."""
    return world.respond(signer=world.leaf, responder=authority.by_name)


def _by_a_leaf_of_the_issuer(world: World) -> bytes:
    sibling = authority.make_leaf(world.ca, now=NOW)
    return world.delegated(sibling)


def _naming_issuer(
    world: World, key: bytes | None = None, serial: int | None = None, name: x509.Name | None = None
) -> bytes:
    """Return a response by a delegate that says by which certificate it is signed; what is not given is right."""
    issuer = world.ca.certificate
    identifier = x509.AuthorityKeyIdentifier(
        key or authority.sha1(authority.key_bits(issuer)),
        [x509.DirectoryName(name or issuer.issuer)],
        serial or issuer.serial_number,
    )
    extensions = [(x509.ExtendedKeyUsage([authority.OCSP_SIGNING]), False), (identifier, False)]
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test responder")]))
        .issuer_name(issuer.subject)
        .public_key(world.leaf.key.public_key())
        .serial_number(7)
        .not_valid_before(world.now - DAY)
        .not_valid_after(world.now + 30 * DAY)
    )
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return world.delegated(Identity(builder.sign(world.ca.key, hashes.SHA256()), world.leaf.key))


def _usage(*, signature: bool = False, commitment: bool = False, encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(signature, commitment, encipherment, False, False, False, False, False, False)


NOBODY = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Nobody")])
CRITICAL = authority.extension("1.2.3.4", authority.NULL, critical=True)
CRITICAL_NONCE = authority.extension("1.3.6.1.5.5.7.48.1.2", b"\x04\x01a", critical=True)
REFUSED: dict[str, tuple[Callable[[World], bytes], str]] = {
    "empty": (lambda w: b"", "it is empty"),
    "HTML": (lambda w: b"<html><body>Welcome</body></html>", "begins with b'<html><body>Welcome</bod'"),
    "truncated": (lambda w: w.respond()[:-1], "cannot be read"),
    "truncated to a byte": (lambda w: w.respond()[:1], "cannot be read"),
    "trailing byte": (lambda w: w.respond() + b"\0", "cannot be read"),
    "two responses": (lambda w: w.respond() * 2, "cannot be read"),
    "malformedRequest": (lambda w: authority.unsuccessful(1), "malformedRequest"),
    "internalError": (lambda w: authority.unsuccessful(2), "internalError"),
    "tryLater": (lambda w: authority.unsuccessful(3), "tryLater"),
    "sigRequired": (lambda w: authority.unsuccessful(5), "sigRequired"),
    "unauthorized": (lambda w: authority.unsuccessful(6), "unauthorized"),
    "a status that does not exist": (lambda w: authority.unsuccessful(4), "cannot be read"),
    "successful without anything": (lambda w: authority.unsuccessful(0), "cannot be read"),
    "successful with nothing in it": (lambda w: authority.successful(b""), "cannot be read"),
    "tryLater with a good response in it": (lambda w: _assemble(w, code=integer(3, 0x0A)), "tryLater"),
    "wrong serial": (_of_another_serial, "it is about the serial number"),
    "another issuer's": (_of_another_issuer, "of an issuer with another name"),
    "a namesake's": (_of_a_namesake, "of an issuer with another key"),
    "delegate not named": (_delegate_not_named, "names neither the issuer nor a certificate"),
    "delegate that did not sign": (_delegate_that_did_not_sign, "of a delegate, the signature is not from its key"),
    "SHA-256 CertID": (_with_sha256_id, "made with sha256, but clients look for SHA-1"),
    "SHA-256 CertID that says SHA-1": (_with_sha256_hashes_called_sha1, "of an issuer with another name"),
    "no SingleResponse": (lambda w: _assemble(w, single=b""), "0 SingleResponses instead of one"),
    "two SingleResponses": (lambda w: w.respond(w.single(), w.single()), "2 SingleResponses instead of one"),
    "forged CA": (_forged, "the signature is not from its key"),
    "no signer": (lambda w: w.respond(signer=w.delegate()), "names neither the issuer nor a certificate"),
    "by the certificate itself": (_by_the_leaf, "fits two certificates with different keys"),
    "by another certificate of the issuer": (_by_a_leaf_of_the_issuer, "OCSPSigning"),
    "flipped signature": (lambda w: w.respond(damage=authority.flip), "the signature is not from its key"),
    "no signature": (lambda w: w.respond(damage=lambda signature: b""), "the signature is not from its key"),
    "SHA-1 signature": (lambda w: w.respond(signing=authority.sign_with_sha1), "made with SHA-1, which proves nothing"),
    "delegate without EKU": (lambda w: _delegated(w, purposes=()), "lacks the extended key usage OCSPSigning"),
    "delegate for something else": (lambda w: _delegated(w, purposes=[authority.SERVER_AUTH]), "OCSPSigning"),
    "delegate for any purpose": (
        lambda w: _delegated(w, purposes=[x509.ObjectIdentifier("2.5.29.37.0")]),
        "lacks the extended key usage OCSPSigning",
    ),
    "delegate expired": (lambda w: _delegated(w, end=NOW - HOUR), "certificate expired on 2026-06-01 11:00:00"),
    "delegate not yet valid": (lambda w: _delegated(w, begin=NOW + HOUR), "certificate holds only from"),
    "delegate of a namesake": (_delegate_of_a_namesake, "the issuer did not make its certificate"),
    "delegate of another issuer": (_delegate_of_another_issuer, "it names another one"),
    "delegate of the delegate": (_delegate_of_the_delegate, "the issuer did not make its certificate"),
    "delegate ends soon": (lambda w: _delegated(w, end=NOW + 20 * HOUR), "it holds for 21 h only"),
    "delegate with an unknown critical extension": (
        lambda w: w.delegated(w.signer((UNKNOWN_EXTENSION, True))),
        "has the critical extension 1.2.3.4, which clients do not understand",
    ),
    "delegate with critical nocheck": (
        lambda w: w.delegated(w.signer((x509.OCSPNoCheck(), True))),
        "has the critical extension 1.3.6.1.5.5.7.48.1.5",
    ),
    "delegate of another key of the issuer": (lambda w: _naming_issuer(w, key=b"x" * 20), "another key of the issuer"),
    "delegate of another certificate of the issuer": (
        lambda w: _naming_issuer(w, serial=7),
        "another key of the issuer",
    ),
    "delegate of another's issuer": (lambda w: _naming_issuer(w, name=NOBODY), "another key of the issuer"),
    "delegate that may only encipher": (
        lambda w: w.delegated(w.signer((_usage(encipherment=True), True))),
        "key usage does not allow signatures",
    ),
    "delegate that may do nothing": (
        lambda w: w.delegated(w.signer((_usage(), False))),
        "key usage does not allow signatures",
    ),
    "delegate on a curve of its own": (
        lambda w: _delegated(w, key=ec.generate_private_key(ec.SECP256K1())),
        "on the curve secp256k1",
    ),
    "unknown": (lambda w: w.respond(w.single(status=authority.UNKNOWN)), "its status is unknown"),
    "expired": (lambda w: w.respond(w.single(-5 * DAY, -HOUR)), "it expired on 2026-06-01 11:00:00"),
    "from the future": (lambda w: w.respond(w.single(HOUR)), "it holds only from 2026-06-01 13:00:00"),
    "no nextUpdate": (lambda w: w.respond(w.single(end=None)), "it has no nextUpdate"),
    "nextUpdate before thisUpdate": (lambda w: w.respond(w.single(-HOUR, -2 * HOUR)), "not later than its thisUpdate"),
    "nextUpdate is thisUpdate": (lambda w: w.respond(w.single(-HOUR, -HOUR)), "not later than its thisUpdate"),
    "eleven days old": (lambda w: w.respond(w.single(-11 * DAY, 20 * DAY)), "it is too old: it ended on 2026-05-31"),
    "ends within 25 h": (lambda w: w.respond(w.single(-3 * DAY, 25 * HOUR)), "which is less than 25 h away"),
    "8 h window": (lambda w: w.respond(w.single(-HOUR, 7 * HOUR)), "it holds for 8 h only: up to 25 h may pass"),
    "16 h window": (lambda w: w.respond(w.single(-HOUR, 15 * HOUR)), "it holds for 16 h only: up to 25 h may pass"),
    "critical extension": (lambda w: w.respond(extensions=[CRITICAL]), "the critical extension 1.2.3.4"),
    "critical nonce": (lambda w: w.respond(extensions=[CRITICAL_NONCE]), "the critical extension 1.3.6.1.5.5.7.48.1.2"),
    "critical single extension": (lambda w: w.respond(w.single(extensions=[CRITICAL])), "critical extension 1.2.3.4"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_response_that_must_not_be_stapled_is_refused(
    world: World, make: Callable[[World], bytes], reason: str
) -> None:
    """The reason says which rule it breaks, whether or not an earlier one is known already."""
    response = make(world)
    assert reason in "; ".join(world.reasons(response))
    assert reason in "; ".join(world.reasons(response, known_update=NOW - 2 * HOUR))


ENDS_SOON = {"ends within 25 h", "8 h window", "16 h window", "delegate ends soon"}


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - ENDS_SOON))
def test_a_must_staple_certificate_relaxes_the_margin_only(world: World, name: str) -> None:
    """All that is refused for other reasons than a near end is refused for it too, and when it was stored."""
    make, reason = REFUSED[name]
    assert reason in "; ".join(world.reasons(make(world), must_staple=True))
    with pytest.raises(errors.ResponseRefused):
        verify.verify_stored(make(world), world.leaf.certificate, world.chain, NOW)


@pytest.mark.parametrize("hours", [1, 7, 15, 25])
def test_a_must_staple_certificate_takes_what_ends_soon(world: World, hours: int) -> None:
    """It is useless without a staple, and a stored one is used up to its end."""
    response = world.respond(world.single(end=hours * HOUR))
    assert world.verify(response, must_staple=True).end == NOW + hours * HOUR
    assert verify.verify_stored(response, world.leaf.certificate, world.chain, NOW).end == NOW + hours * HOUR
    with pytest.raises(errors.ResponseRefused):
        verify.verify_stored(response, world.leaf.certificate, world.chain, NOW + hours * HOUR)


def test_an_expired_certificate_is_not_stapled(world: World) -> None:
    """Whatever the responder says about it."""
    end = NOW + 60 * DAY
    response = world.respond(world.single(60 * DAY - HOUR, 64 * DAY))
    assert world.verify(response, end - HOUR / 60).end == NOW + 64 * DAY
    assert world.reasons(response, end) == ("the certificate itself expired on 2026-07-31 12:00:00 UTC",)
    with pytest.raises(errors.ResponseRefused, match="the certificate itself expired"):
        verify.verify_stored(response, world.leaf.certificate, world.chain, end)


def test_a_revoked_leaf_is_never_stapled(world: World) -> None:
    """An authentic response that says revoked is an error of its own, with times and reason as data."""
    status = authority.revoked(NOW - 2 * DAY, 1)
    for window in ({}, {"end": 7 * HOUR}, {"end": None}):
        with pytest.raises(errors.CertificateRevoked) as revoked:
            world.verify(world.respond(world.single(-2 * HOUR, status=status, **window)))
        assert (revoked.value.revoked_at, revoked.value.revocation_reason) == (NOW - 2 * DAY, "keyCompromise")
        assert revoked.value.this_update == NOW - 2 * HOUR
        assert revoked.value.this_update.tzinfo is not None


@pytest.mark.parametrize("verdict", [verify.verify, verify.verify_stored])
def test_a_delegate_can_say_revoked(world: World, verdict: Callable[..., Staple]) -> None:
    """Whoever may say good may say revoked, and a stored response may say it too."""
    response = world.delegated(world.delegate(), world.ca)
    assert verdict(response, world.leaf.certificate, world.chain, NOW).end == NOW + 4 * DAY
    delegate, single = world.delegate(), world.single(status=authority.revoked(NOW))
    response = authority.respond(delegate, [single], NOW, certificates=[delegate])
    with pytest.raises(errors.CertificateRevoked):
        verdict(response, world.leaf.certificate, world.chain, NOW)


REASONS = [
    (None, None), (0, "unspecified"), (1, "keyCompromise"), (2, "cACompromise"), (3, "affiliationChanged"),
    (4, "superseded"), (5, "cessationOfOperation"), (6, "certificateHold"), (8, "removeFromCRL"),
    (9, "privilegeWithdrawn"), (10, "aACompromise"),
]  # fmt: skip


@pytest.mark.parametrize(("code", "name"), [*REASONS, (7, None), (11, None), (127, None)])
def test_the_reason_of_a_revocation_has_its_name(world: World, code: int | None, name: str | None) -> None:
    """As RFC 5280 5.3.1 calls it; with a number that it does not know the leaf is revoked all the same."""
    with pytest.raises(errors.CertificateRevoked) as revoked:
        world.verify(world.respond(world.single(status=authority.revoked(NOW, code))))
    assert revoked.value.revocation_reason == name


def test_a_forged_revocation_is_not_believed(world: World) -> None:
    """Anybody could withdraw anybody's staple otherwise."""
    response = world.respond(world.single(status=authority.revoked(NOW)), damage=authority.flip)
    reasons = world.reasons(response)
    assert "not from its key" in reasons[0]
    assert "its status is revoked, since 2026-06-01 12:00:00 UTC" in reasons


def test_an_expired_revocation_is_not_believed(world: World) -> None:
    """It may be the replay of one that was lifted (certificateHold)."""
    status = authority.revoked(NOW - 9 * DAY, 6)
    assert "it expired on" in world.reasons(world.respond(world.single(-8 * DAY, -DAY, status=status)))[0]
    assert "too long ago" in world.reasons(world.respond(world.single(-11 * DAY, None, status=status)))[0]


def test_an_older_good_response_does_not_undo_a_revocation(world: World) -> None:
    """Its thisUpdate is remembered: a good response of the time before may come from a store, or from an attacker."""
    with pytest.raises(errors.CertificateRevoked) as revoked:
        world.verify(world.respond(world.single(-2 * HOUR, status=authority.revoked(NOW, 6))))
    known = revoked.value.this_update
    older, newer = world.respond(world.single(-3 * HOUR)), world.respond(world.single(-HOUR))
    assert "older than the newest known one" in world.reasons(older, known_update=known)[0]
    assert "older than the newest known one" in world.reasons(older, known_update=known, must_staple=True)[0]
    assert world.verify(newer, known_update=known).this_update == NOW - HOUR


def test_every_reason_is_listed(world: World) -> None:
    """A person can fix all of it at once."""
    forger, sibling = authority.make_ca("Forger"), authority.make_leaf(world.ca)
    about = authority.cert_id(sibling.certificate, world.ca.certificate)
    single = world.single(2 * HOUR, None, about=about, status=authority.UNKNOWN, extensions=[CRITICAL])
    reasons = world.reasons(world.respond(single, signer=forger, certificates=[forger]))
    fragments = [
        "the issuer did not make", "critical extension", "about the serial number", "holds only from",
        "is unknown", "no nextUpdate",
    ]  # fmt: skip
    assert len(reasons) == len(fragments)
    assert all(fragment in reason for fragment, reason in zip(fragments, reasons, strict=True))


# --- look-alikes: `certs` is not signed, so anybody on the way can put certificates there -----------------------------


def _named(name: str, *extensions: tuple[x509.ExtensionType, bool]) -> Callable[[World, Identity], Identity]:
    """Return how a stranger makes a certificate of that name, signed by itself."""
    return lambda world, signer: authority.make_certificate(name, extensions=extensions)


def _with_key_identifier(world: World, signer: Identity) -> Identity:
    """Return a stranger's certificate that says it has the signer's key: GnuTLS believes it."""
    identifier = x509.SubjectKeyIdentifier(authority.sha1(authority.key_bits(signer.certificate)))
    return authority.make_certificate("Stranger", extensions=[(identifier, False)])


def _issuers_twin(world: World, signer: Identity) -> Identity:
    """Return a certificate that bears the issuer's name and key, signed by somebody else."""
    return authority.make_ca("Test CA", world.ca.key, signed_by=authority.make_ca("Somebody"))


LOOK_ALIKES: dict[str, tuple[Callable[[World, Identity], Identity], Callable[[Identity], bytes]]] = {
    "the responder's name": (_named("Test responder"), authority.by_name),
    "the responder's name in capitals": (_named("TEST RESPONDER"), authority.by_name),
    "the responder's name with more spaces": (_named("  Test   responder "), authority.by_name),
    "the responder's key identifier": (_with_key_identifier, authority.by_key),
    "the issuer's name": (_named("Test CA"), authority.by_key),
    "the issuer's name in capitals": (_named("TEST CA"), authority.by_name),
    "the issuer's name and key": (_issuers_twin, authority.by_key),
}


@pytest.mark.parametrize(("make", "responder"), LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_a_look_alike_before_the_delegate_is_refused(
    world: World, make: Callable[[World, Identity], Identity], responder: Callable[[Identity], bytes]
) -> None:
    """OpenSSL or GnuTLS takes the first that fits, and refuses the staple."""
    delegate = world.delegate()
    look_alike = make(world, delegate)
    assert world.verify(world.delegated(delegate, responder=responder)).end == NOW + 4 * DAY
    assert world.reasons(world.delegated(delegate, look_alike, responder=responder))


@pytest.mark.parametrize("name", ["the issuer's name", "the issuer's name in capitals", "the issuer's name and key"])
def test_a_look_alike_of_the_issuer_is_refused_wherever_it_stands(world: World, name: str) -> None:
    """OpenSSL takes it when it looks for the delegate's issuer; GnuTLS, for the issuer that signed itself."""
    delegate = world.delegate()
    look_alike = LOOK_ALIKES[name][0](world, delegate)
    for response in (
        world.respond(signer=delegate, certificates=[delegate, look_alike]),
        world.respond(certificates=[look_alike]),
        world.respond(certificates=[look_alike], responder=authority.by_name),
        world.respond(certificates=[world.ca, look_alike], responder=authority.by_name),
    ):
        assert "looks like one of the chain" in world.reasons(response)[0]


def test_a_look_alike_of_a_higher_certificate_of_the_chain_is_refused() -> None:
    """OpenSSL takes it on the way from the delegate to the root."""
    root = authority.make_ca("Root")
    middle = authority.make_ca("Middle", signed_by=root)
    world = World(authority.make_ca("Lower", signed_by=middle))
    chain = [world.ca.certificate, middle.certificate]
    delegate = world.delegate()
    good = world.delegated(delegate, middle)
    assert verify.verify(good, world.leaf.certificate, chain, NOW).end == NOW + 4 * DAY
    response = world.delegated(delegate, authority.make_ca("Middle"))
    with pytest.raises(errors.ResponseRefused, match="looks like one of the chain"):
        verify.verify(response, world.leaf.certificate, chain, NOW)


def test_of_two_delegates_of_one_name_the_first_must_have_signed(world: World) -> None:
    """Clients look no further than at the first, though both are the issuer's."""
    first, second = world.delegate(), world.delegate()
    response = world.respond(signer=second, certificates=[first, second], responder=authority.by_name)
    assert "the signature is not from its key" in world.reasons(response)[0]
    response = world.respond(signer=first, certificates=[first, second], responder=authority.by_name)
    assert world.verify(response).end == NOW + 4 * DAY


def test_a_namesake_in_the_chain_before_the_issuer_must_not_be_named(world: World) -> None:
    """OpenSSL takes the first of the served chain that fits the name; the key's hash fits one only."""
    chain = [authority.make_ca().certificate, world.ca.certificate]
    leaf = world.leaf.certificate
    assert verify.verify(world.respond(), leaf, chain, NOW).end == NOW + 4 * DAY
    with pytest.raises(errors.ResponseRefused, match="fits two certificates with different keys"):
        verify.verify(world.respond(responder=authority.by_name), leaf, chain, NOW)


@pytest.mark.parametrize("responder", RESPONDERS)
def test_a_delegate_with_the_issuers_name_is_refused(world: World, responder: Callable[[Identity], bytes]) -> None:
    """OpenSSL takes it for the issuer, or the issuer for it."""
    delegate = world.signer(name="Test CA")
    assert "looks like one of the chain" in world.reasons(world.delegated(delegate, responder=responder))[0]


def test_the_responders_name_must_be_spelt_as_in_the_delegates_certificate(world: World) -> None:
    """OpenSSL folds names, GnuTLS compares their bytes."""
    delegate = world.delegate()
    spelt = tlv(0xA1, authority.make_certificate("test responder").certificate.subject.public_bytes())
    reasons = world.reasons(world.delegated(delegate, responder=lambda signer: spelt))
    assert reasons == ("as a response of a delegate, its responder ID is almost, but not quite, that of the signer",)


def test_a_key_identifier_that_is_not_the_keys_hash_does_not_name_the_delegate(world: World) -> None:
    """GnuTLS would take it, OpenSSL does not."""
    delegate = world.signer((x509.SubjectKeyIdentifier(b"x" * 20), False))
    reasons = world.reasons(world.delegated(delegate, responder=lambda signer: tlv(0xA2, tlv(0x04, b"x" * 20))))
    assert reasons == ("as a response of a delegate, its responder ID is almost, but not quite, that of the signer",)


# --- signatures and encodings that only the signer could make wrong --------------------------------------------------


def _pss(*, digest: bytes = b"", mask: str = "1.2.840.113549.1.1.8", salt: int = 32) -> Callable[[Any, bytes], Any]:
    """Return a way to sign that is right, and says other parameters. digest: empty means SHA-256."""

    def sign(key: authority.Key, data: bytes) -> authority.Signed:
        sha256 = digest or authority.algorithm(authority.SHA256, authority.NULL)
        parts = [sha256, authority.algorithm(mask, sha256), authority.integer(salt)]
        tagged = authority.sequence(*(authority.tlv(0xA0 + number, part) for number, part in enumerate(parts)))
        return authority.algorithm("1.2.840.113549.1.1.10", tagged), authority.sign_with_pss(key, data)[1]

    return sign


def _pss_without_parameters(key: authority.Key, data: bytes) -> authority.Signed:
    """Sign with RSASSA-PSS without saying how: absence means SHA-1 (RFC 4055 3.1)."""
    how = authority.algorithm("1.2.840.113549.1.1.10", authority.sequence())
    return how, authority.sign_with_pss(key, data)[1]


PSS: dict[str, Callable[[Any, bytes], Any]] = {
    "right": authority.sign_with_pss,
    "no parameters": _pss_without_parameters,
    "SHA-1": _pss(digest=authority.algorithm(authority.SHA1)),
    "another mask": _pss(mask="1.2.3.4"),
    "a negative salt": _pss(salt=-1),
    "an endless salt": _pss(salt=2**64),
    "another salt": _pss(salt=31),
}


@pytest.mark.parametrize("signing", PSS.values(), ids=PSS)
@pytest.mark.parametrize("by_delegate", [False, True])
def test_a_pss_signature_is_refused(signing: Callable[[Any, bytes], Any], by_delegate: bool) -> None:
    """RSASSA-PSS says in its parameters what it is made with, and those cannot be read everywhere."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    signer = world.delegate(key=authority.rsa_key(1)) if by_delegate else world.ca
    certificates = [signer] if by_delegate else []
    assert world.verify(world.respond(signer=signer, certificates=certificates)).end == NOW + 4 * DAY
    reasons = world.reasons(world.respond(signer=signer, certificates=certificates, signing=signing))
    assert any("none that is accepted" in reason or "cannot be read" in reason for reason in reasons)


def _like_ed25519(key: authority.Key, data: bytes) -> authority.Signed:
    return authority.algorithm("1.3.101.112"), authority.sign(key, data)[1]


def _like_rsa(key: authority.Key, data: bytes) -> authority.Signed:
    return authority.algorithm("1.2.840.113549.1.1.11", authority.NULL), authority.sign(key, data)[1]


def _like_nothing(key: authority.Key, data: bytes) -> authority.Signed:
    return authority.algorithm("1.2.3.4"), authority.sign(key, data)[1]


@pytest.mark.parametrize("signing", [_like_ed25519, _like_rsa, _like_nothing])
def test_a_signature_of_a_kind_that_does_not_fit_the_key_is_refused(
    world: World, signing: Callable[[Any, bytes], Any]
) -> None:
    """The algorithm is what the responder says, the key what the issuer has."""
    assert "is not one for its key" in world.reasons(world.respond(signing=signing))[0]


def _with_md5(key: authority.Key, data: bytes) -> authority.Signed:
    """Say MD5: whether the signature is right is not even looked at."""
    return authority.algorithm("1.2.840.113549.1.1.4", authority.NULL), authority.sign(key, data)[1]


@pytest.mark.parametrize(
    ("signing", "name"), [(_with_md5, "MD5"), (authority.sign_with_sha1, "SHA-1")], ids=["MD5", "SHA-1"]
)
def test_an_rsa_signature_with_a_broken_hash_is_refused(signing: Callable[[Any, bytes], Any], name: str) -> None:
    """Collisions can be made, so it proves nothing."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    assert f"made with {name}, which proves nothing" in world.reasons(world.respond(signing=signing))[0]


def _parts(world: World) -> dict[str, bytes]:
    """Return the pieces of a good response, each of which may be replaced."""
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    return {
        "hash": sequence(oid(authority.SHA1), NULL),
        "id": tlv(0x04, about.name_hash) + tlv(0x04, about.key_hash) + integer(about.serial),
        "status": authority.GOOD,
        "this": authority.time(world.now - HOUR),
        "next": tlv(0xA0, authority.time(world.now + 4 * DAY)),
        "single extra": b"",
        "version": b"",
        "responder": authority.by_key(world.ca),
        "produced": authority.time(world.now),
        "extensions": b"",
        "data extra": b"",
        "basic extra": b"",
        "kind": oid("1.3.6.1.5.5.7.48.1.1"),
        "bytes extra": b"",
        "outer extra": b"",
        "signature prefix": b"\0",
        "code": integer(0, 0x0A),
    }


def _assemble(world: World, **replaced: bytes) -> bytes:
    """Return a response of the pieces, signed after they were replaced; `single` and `how` replace larger ones."""
    part = _parts(world) | {name.replace("_", " "): value for name, value in replaced.items()}
    single = sequence(
        sequence(part["hash"], part["id"]), part["status"], part["this"], part["next"], part["single extra"]
    )
    data = sequence(
        part["version"],
        part["responder"],
        part["produced"],
        sequence(replaced.get("single", single)),
        part["extensions"],
        part["data extra"],
    )
    how, signature = authority.sign(world.ca.key, data)
    how = replaced.get("how", how)
    basic = sequence(data, how, tlv(0x03, part["signature prefix"], signature), part["basic extra"])
    holder = sequence(part["kind"], tlv(0x04, basic), part["bytes extra"])
    return sequence(part["code"], tlv(0xA0, holder), part["outer extra"])


def _extension_list(*extensions: bytes) -> bytes:
    return tlv(0xA1, sequence(*extensions))


REASON_WITH_MORE = tlv(0xA1, authority.time(NOW), tlv(0xA0, integer(1, 0x0A)), NULL)
ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"
MISENCODED: dict[str, dict[str, bytes]] = {
    "indefinite length": {"extensions": b"\xa1\x80\x30\x00\x00\x00"},
    "length too long by a byte": {"produced": b"\x18\x81\x0f20260601120000Z"},
    "length after a zero": {"extensions": b"\xa1\x82\x00\x02\x30\x00"},
    "constructed octet string": {"single_extra": tlv(0xA1, tlv(0x24, b""))},
    "primitive sequence": {"extensions": tlv(0xA1, b"\x10\x00")},
    "tag of many bytes": {"extensions": tlv(0xA1, b"\x1f\x81\x00\x00")},
    "tag of nothing": {"extensions": tlv(0xA1, b"\x00\x00")},
    "default version": {"version": tlv(0xA0, integer(0))},
    "critical that is neither": {"extensions": _extension_list(sequence(oid("1.2.3"), b"\x01\x01\x01", tlv(0x04)))},
    "extension twice": {"extensions": _extension_list(NONCE, NONCE)},
    "extension with more": {"extensions": _extension_list(sequence(oid("1.2.3"), tlv(0x04, b""), NULL))},
    "identifier padded": {"extensions": _extension_list(sequence(b"\x06\x03\x2a\x80\x01", tlv(0x04, b"")))},
    "identifier cut": {"extensions": _extension_list(sequence(b"\x06\x02\x2a\x81", tlv(0x04, b"")))},
    "good with content": {"status": b"\x80\x01\x00"},
    "status of no kind": {"status": b"\x83\x00"},
    "hash with content in NULL": {"hash": sequence(oid(authority.SHA1), b"\x05\x01\x00")},
    "hash with more": {"hash": sequence(oid(authority.SHA1), NULL, NULL)},
    "hash with other parameters": {"hash": sequence(oid(authority.SHA1), integer(1))},
    "hash that does not exist": {"hash": sequence(oid("1.2.3.4"), NULL)},
    "certID with more": {"id": tlv(0x04, b"") * 2 + integer(1) + NULL},
    "single with more": {"single_extra": NULL},
    "revoked with more": {"status": REASON_WITH_MORE},
    "data with more": {"data_extra": NULL},
    "basic with more": {"basic_extra": NULL},
    "bytes with more": {"bytes_extra": NULL},
    "outer with more": {"outer_extra": NULL},
    "another kind": {"kind": oid("1.2.3.4")},
    "signature of half bytes": {"signature_prefix": b"\1"},
    "signature without unused bits": {"signature_prefix": b""},
    "algorithm with other parameters": {"how": sequence(oid(ECDSA_WITH_SHA256), integer(1))},
    "algorithm with more": {"how": sequence(oid(ECDSA_WITH_SHA256), NULL, NULL)},
    "algorithm with content in NULL": {"how": sequence(oid(ECDSA_WITH_SHA256), b"\x05\x01\x00")},
    "code padded": {"code": b"\x0a\x02\x00\x00"},
    "time without Z": {"produced": tlv(0x18, b"20260601120000+0000")},
    "time with fractions": {"produced": tlv(0x18, b"20260601120000.5Z")},
    "time that does not exist": {"produced": tlv(0x18, b"20260231120000Z")},
    "time of the other kind": {"produced": tlv(0x17, b"260601120000Z")},
    "extensions of nothing": {"extensions": tlv(0xA1)},
    "nested 200 deep": {"single_extra": tlv(0xA1, b"\x30\x00") * 200},
}


@pytest.mark.parametrize("replaced", MISENCODED.values(), ids=MISENCODED)
def test_what_is_not_strict_der_is_refused_though_it_is_signed(world: World, replaced: dict[str, bytes]) -> None:
    """Every client reads DER; what each makes of anything else is its own affair (X.690 10, 11; RFC 6960 4.2.1)."""
    assert world.verify(_assemble(world)).end == NOW + 4 * DAY
    (reason,) = world.reasons(_assemble(world, **replaced))
    assert "cannot be read" in reason or "not in DER" in reason or "not in its only form" in reason


def _resigned(
    world: World,
    *,
    extra_key: bytes = b"",
    outer: bytes = b"",
    prefix: bytes = b"\0",
    how: Callable[[bytes], bytes] = bytes,
) -> bytes:
    """Return a delegate's response whose certificate the CA signed in a wrong form."""
    delegate = world.delegate()
    fields = authority.elements(delegate.certificate.tbs_certificate_bytes)
    key = sequence(*authority.elements(fields[6]), extra_key)
    signed = sequence(*fields[:2], how(fields[2]), *fields[3:6], key, *fields[7:])
    algorithm, signature = authority.sign(world.ca.key, signed)
    certificate = sequence(signed, outer or algorithm, tlv(0x03, prefix, signature))
    data = authority.response_data(delegate, [world.single()], NOW)
    algorithm, signature = authority.sign(delegate.key, data)
    return authority.successful(
        sequence(data, algorithm, tlv(0x03, b"\0", signature), tlv(0xA0, sequence(certificate)))
    )


WITH_SHA384 = authority.algorithm("1.2.840.10045.4.3.3")
WITH_NULL = authority.algorithm(ECDSA_WITH_SHA256, NULL)


@pytest.mark.parametrize(
    "replaced",
    [{"extra_key": NULL}, {"outer": WITH_SHA384}, {"outer": WITH_NULL}, {"prefix": b"\1"}, {"how": lambda _: NULL}],
    ids=["key with more", "another outer algorithm", "outer NULL", "unused bits", "inner algorithm of another kind"],
)
def test_a_delegates_certificate_is_held_to_strict_der_too(world: World, replaced: dict[str, Any]) -> None:
    """The algorithm stands in it twice (RFC 5280 4.1.1.2), once where it is not signed."""
    assert world.verify(_resigned(world)).end == NOW + 4 * DAY
    assert world.reasons(_resigned(world, **replaced))


def _altered_stranger(*, issuer: bytes = b"", extensions: bytes = b"", outer: bytes = b"") -> bytes:
    """Return a stranger's certificate with another part in it; nobody looks at its signature."""
    stranger = authority.make_ca("Stranger").certificate
    fields = authority.elements(stranger.tbs_certificate_bytes)
    signed = sequence(
        *fields[:3], issuer or fields[3], *fields[4:7], tlv(0xA3, extensions) if extensions else fields[7]
    )
    return sequence(signed, outer or fields[2], tlv(0x03, b"\0", stranger.signature))


NOT_UTF8 = sequence(tlv(0x31, sequence(oid("2.5.4.3"), tlv(0x0C, b"\xff\xfe"))))
STRANGERS = {
    "nothing in it": (sequence(), "cannot be read"),
    "something else": (sequence(NULL), "cannot be read"),
    "cut": (authority.make_certificate("Stranger").encoded[:-1], "cannot be read"),
    "a name that is no UTF-8": (_altered_stranger(issuer=NOT_UTF8), "cannot be read"),
    "an extension of another kind": (
        _altered_stranger(extensions=sequence(authority.extension("2.5.29.19", NULL))),
        "cannot be read",
    ),
    "two algorithms": (_altered_stranger(outer=WITH_SHA384), "two signature algorithms"),
}


@pytest.mark.parametrize("stands_before", [True, False])
@pytest.mark.parametrize(("stranger", "reason"), STRANGERS.values(), ids=STRANGERS)
def test_a_certificate_that_clients_cannot_read_is_refused(
    world: World, stranger: bytes, reason: str, stands_before: bool
) -> None:
    """OpenSSL or GnuTLS then reads nothing of the response, though nobody needs that certificate."""
    delegate = world.delegate()

    def respond(*certificates: bytes) -> bytes:
        data = authority.response_data(delegate, [world.single()], NOW)
        how, signature = authority.sign(delegate.key, data)
        return authority.successful(
            sequence(data, how, tlv(0x03, b"\0", signature), tlv(0xA0, sequence(*certificates)))
        )

    assert world.verify(respond(_altered_stranger(), delegate.encoded)).end == NOW + 4 * DAY
    pair = (stranger, delegate.encoded) if stands_before else (delegate.encoded, stranger)
    assert reason in world.reasons(respond(*pair))[0]


# --- the boundary ----------------------------------------------------------------------------------------------------


def test_the_callers_own_mistakes_are_not_taken_for_the_responders(world: World) -> None:
    """A naive time is a defect of ours, and must show itself."""
    naive = NOW.replace(tzinfo=None)
    with pytest.raises(TypeError):
        world.verify(world.respond(), naive)
    with pytest.raises(TypeError):
        world.verify(world.respond(), known_update=naive)


PanicException = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})


UNREADABLE: list[BaseException] = [
    PanicException("called `Option::unwrap()` on a `None` value"),
    ValueError(),
    TypeError(),
    KeyError("99"),
    OverflowError(),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    UnsupportedAlgorithm("signature algorithm"),
    InternalError("unknown OpenSSL error", []),
    x509.DuplicateExtension("twice", x509.ObjectIdentifier("1.2.3.4")),
    x509.UnsupportedGeneralNameType("x400Address", 3),
    x509.InvalidVersion("17 is not a valid version", 17),
]


@pytest.mark.parametrize("error", UNREADABLE, ids=lambda error: type(error).__name__)
def test_whatever_cryptography_cannot_read_becomes_a_refusal(error: BaseException) -> None:
    """A panic's class cannot be imported, and is no Exception; the versions at hand cannot be made to panic."""

    @pkix.boundary("the response")
    def panic() -> None:
        raise error

    with pytest.raises(errors.ResponseRefused, match="the response cannot be read") as refused:
        panic()
    assert refused.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), AttributeError(), errors.ResponseRefused(["x"])])
def test_nothing_else_becomes_a_refusal(error: BaseException) -> None:
    """Neither what a person does, nor a defect of ours, nor what is a refusal already."""

    @pkix.boundary("the response")
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error


def _certificate_with(world: World, extension: bytes) -> x509.Certificate:
    """Return a leaf whose only extension is that one, whatever it is."""
    fields = authority.elements(world.leaf.certificate.tbs_certificate_bytes)
    signed = sequence(*fields[:7], tlv(0xA3, sequence(extension)))
    how, signature = authority.sign(world.ca.key, signed)
    return x509.load_der_x509_certificate(sequence(signed, how, tlv(0x03, b"\0", signature)))


@pytest.mark.parametrize("value", [b"", NULL, b"\x30\x03abc", sequence(NULL)])
def test_a_leaf_whose_extensions_cannot_be_read_is_refused(world: World, value: bytes) -> None:
    """So that no lineage's certificate stops the others."""
    for read, dotted in (
        (pkix.ocsp_url, "1.3.6.1.5.5.7.1.1"),
        (pkix.is_must_staple, "1.3.6.1.5.5.7.1.24"),
    ):
        with pytest.raises(errors.ResponseRefused, match=r"the certificate's .* cannot be read"):
            read(_certificate_with(world, authority.extension(dotted, value)))


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "is_accepted"), [(0, True), (5, True), (6, False)])
def test_five_minutes_of_skew_are_allowed(world: World, minutes: int, is_accepted: bool) -> None:
    """A response that was made just now may be ahead of this machine's clock."""
    response = world.respond(world.single(minutes * HOUR / 60))
    if is_accepted:
        assert world.verify(response).this_update == NOW + minutes * HOUR / 60
    else:
        assert world.reasons(response) == ("it holds only from 2026-06-01 12:06:00 UTC on",)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_wrong_by_a_year_is_named(world: World, years: int) -> None:
    """It is the usual cause of a fresh response that is not valid."""
    clock = NOW + years * 365 * DAY
    then = World(world.ca, clock)  # Its leaf is valid at what the clock says.
    response = then.respond(then.single(NOW - clock - HOUR, NOW - clock + 4 * DAY))
    reasons = then.reasons(response, clock)
    assert len(reasons) == 1
    assert f"this machine's clock says {2026 + years}-06-01 12:00:00 UTC; is it right?" in reasons[0]


def test_the_time_zone_of_now_does_not_matter(world: World) -> None:
    """Times are compared, not their writing."""
    response = world.respond()
    local = NOW.astimezone(datetime.timezone(datetime.timedelta(hours=-7)))
    assert world.verify(response, local) == world.verify(response)
    assert world.verify(response, known_update=local - HOUR) == world.verify(response)


def test_an_older_response_does_not_replace_a_newer_one(world: World) -> None:
    """A replay of an old one is refused; the same one again, and a newer one, are welcome."""
    known = world.verify(world.respond(world.single(-2 * HOUR))).this_update
    older = world.respond(world.single(-3 * HOUR))
    (reason,) = world.reasons(older, known_update=known)
    assert reason.startswith(
        "it is of 2026-06-01 09:00:00 UTC, older than the newest known one, of 2026-06-01 10:00:00"
    )
    assert world.verify(world.respond(world.single(-2 * HOUR)), known_update=known).this_update == known
    assert world.verify(world.respond(world.single(-HOUR)), known_update=known).this_update == NOW - HOUR
    assert world.verify(older).this_update == NOW - 3 * HOUR


def test_an_older_revocation_is_not_believed_either(world: World) -> None:
    """The newer response may be the one that lifted it."""
    response = world.respond(world.single(-3 * HOUR, status=authority.revoked(NOW - 4 * HOUR, 6)))
    assert "older than the newest known one" in world.reasons(response, known_update=NOW - 2 * HOUR)[0]


def _staple(begin: datetime.timedelta, end: datetime.timedelta) -> Staple:
    return Staple(b"", 1, NOW + begin, NOW + end, NOW + end)


DUE = {
    "no staple": (None, -HOUR, True),
    "never fetched": (_staple(-HOUR, 4 * DAY), None, True),
    "just fetched": (_staple(-HOUR, 4 * DAY), datetime.timedelta(0), False),
    "almost 6 h ago": (_staple(-DAY, 4 * DAY), -6 * HOUR + HOUR / 60, False),
    "6 h ago": (_staple(-DAY, 4 * DAY), -6 * HOUR, True),
    "just before half": (_staple(-2 * HOUR + HOUR / 60, 2 * HOUR), -HOUR, False),
    "half": (_staple(-2 * HOUR, 2 * HOUR), -HOUR, True),
    "a success a moment ahead": (_staple(-HOUR, 4 * DAY), HOUR / 60, False),
    "a success in the future": (_staple(-HOUR, 4 * DAY), DAY, True),
}


@pytest.mark.parametrize(("stored", "success", "expected"), DUE.values(), ids=DUE)
def test_a_staple_is_due_after_half_of_its_window_or_six_hours(
    stored: Staple | None, success: datetime.timedelta | None, expected: bool
) -> None:
    """At once if there is none; a success in the future tells of a clock that was set back."""
    assert verify.is_due(stored, NOW, None if success is None else NOW + success) is expected


def test_half_way_is_in_the_middle_of_the_window_that_counts() -> None:
    """The end counts, which may come before nextUpdate."""
    staple = Staple(b"", 1, NOW, NOW + 30 * DAY, NOW + 10 * DAY)
    assert verify.due_at(staple, NOW + 30 * DAY) == NOW + 5 * DAY
    assert verify.due_at(staple, NOW) == NOW + 6 * HOUR


@pytest.mark.parametrize(("hours", "expected"), [(-1, True), (24, True), (25, True), (25.1, False), (90, False)])
def test_a_staple_is_withdrawn_25_hours_before_its_end(hours: float, expected: bool) -> None:
    """That is when the next run may come too late."""
    assert verify.must_withdraw(_staple(-DAY, hours * HOUR), NOW) is expected


def test_what_was_just_accepted_need_not_be_withdrawn(world: World) -> None:
    """Both rules have the same border, so a staple never comes and goes at once."""
    accepted = world.verify(world.respond(world.single(end=25 * HOUR + datetime.timedelta(seconds=1))))
    assert not verify.must_withdraw(accepted, NOW)
    assert "less than 25 h away" in world.reasons(world.respond(world.single(end=25 * HOUR)))[0]


# --- the certificate and the request ---------------------------------------------------------------------------------


URLS: dict[str, tuple[Sequence[str], str | None]] = {
    "none": ((), None),
    "one": (("http://ocsp.example.com/r3",), "http://ocsp.example.com/r3"),
    "the first of two": (("https://a.example.com", "http://b.example.com"), "https://a.example.com"),
    "not HTTP first": (("ldap://a.example.com", "HTTP://b.example.com"), "HTTP://b.example.com"),
    "not HTTP at all": (("ldap://a.example.com", "file:///etc/passwd"), None),
}


@pytest.mark.parametrize(("urls", "expected"), URLS.values(), ids=URLS)
def test_the_responder_is_the_first_that_speaks_http(world: World, urls: Sequence[str], expected: str | None) -> None:
    """A certificate without one is an everyday case."""
    assert pkix.ocsp_url(authority.make_leaf(world.ca, ocsp_urls=urls).certificate) == expected


def test_the_address_of_the_issuers_certificate_is_not_a_responder(world: World) -> None:
    """It stands in the same extension, for another purpose."""
    location = x509.AccessDescription(
        AuthorityInformationAccessOID.CA_ISSUERS, x509.UniformResourceIdentifier("http://ca.example.com/ca.crt")
    )
    leaf = authority.make_certificate(
        "Leaf", world.ca, extensions=[(x509.AuthorityInformationAccess([location]), False)]
    )
    assert pkix.ocsp_url(leaf.certificate) is None


FEATURES = {
    "none": ([], False),
    "status_request": ([x509.TLSFeatureType.status_request], True),
    "status_request_v2": ([x509.TLSFeatureType.status_request_v2], True),
    "both": ([x509.TLSFeatureType.status_request, x509.TLSFeatureType.status_request_v2], True),
}


@pytest.mark.parametrize(("features", "expected"), FEATURES.values(), ids=FEATURES)
def test_a_leaf_says_whether_it_must_be_stapled(
    world: World, features: list[x509.TLSFeatureType], expected: bool
) -> None:
    """RFC 7633: the TLS features that the certificate demands."""
    assert pkix.is_must_staple(authority.make_leaf(world.ca, features=features).certificate) is expected


def test_a_request_names_the_leaf_with_sha1_and_has_no_nonce(world: World) -> None:
    """So that responders can answer from a store, and with what clients look for."""
    request = ocsp.load_der_ocsp_request(verify.build_request(world.leaf.certificate, world.ca.certificate))
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    assert isinstance(request.hash_algorithm, hashes.SHA1)
    assert (request.issuer_name_hash, request.issuer_key_hash) == (about.name_hash, about.key_hash)
    assert request.serial_number == world.leaf.certificate.serial_number
    assert len(request.extensions) == 0
