"""Which responses may be stapled: one case for each rule."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

import authority
from authority import DAY, HOUR, Identity
from certbot_seafile import errors
from certbot_seafile.ocsp import der, staple

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

    def judge(self, response: bytes, now: datetime.datetime = NOW, **options: Any) -> staple.Staple:
        """Judge a response about the leaf."""
        return staple.judge(response, self.leaf.certificate, self.chain, now, **options)

    def reasons(self, response: bytes, now: datetime.datetime = NOW, **options: Any) -> tuple[str, ...]:
        """Return why a response is refused."""
        with pytest.raises(errors.ResponseRefused) as refused:
            self.judge(response, now, **options)
        assert not isinstance(refused.value, errors.CertificateRevoked)
        return refused.value.reasons


@pytest.fixture(scope="module")
def world() -> World:
    """Make one CA and one leaf for the whole module: no test changes them."""
    return World()


# --- accepted --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", authority.KEYS)
@pytest.mark.parametrize("responder", [authority.by_key, authority.by_name])
def test_the_issuers_own_response_is_accepted(kind: str, responder: Callable[[Identity], bytes]) -> None:
    """Whatever kind of key the issuer has, and by whichever of the two ways it names itself."""
    world = World(authority.make_ca(key=authority.KEYS[kind]()))
    response = world.respond(responder=responder)
    found = world.judge(response)
    assert found == staple.Staple(
        response,
        world.leaf.certificate.serial_number,
        NOW - HOUR,
        NOW + 4 * DAY,
        produced_at=NOW - HOUR,
        end=NOW + 4 * DAY,
    )


@pytest.mark.parametrize("kind", authority.KEYS)
@pytest.mark.parametrize("responder", [authority.by_key, authority.by_name])
def test_a_delegates_response_is_accepted(world: World, kind: str, responder: Callable[[Identity], bytes]) -> None:
    """The delegate's certificate is in the response, and the staple ends with it at the latest."""
    delegate = world.delegate(key=authority.KEYS[kind](), end=NOW + 3 * DAY)
    response = world.respond(signer=delegate, responder=responder, certificates=[delegate])
    found = world.judge(response)
    assert (found.next_update, found.end) == (NOW + 4 * DAY, NOW + 3 * DAY)


def test_a_pss_signature_is_accepted() -> None:
    """RSASSA-PSS says in its parameters what it is made with."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    assert world.judge(world.respond(signing=authority.sign_with_pss)).end == NOW + 4 * DAY


def test_the_issuer_is_found_by_signature_among_cross_signed_and_namesake_certificates() -> None:
    """A CA of the same name but another key is not the issuer; a cross-signed twin with the same key is."""
    ca, other = authority.make_ca("Same name"), authority.make_ca("Old root")
    namesake, twin = authority.make_ca("Same name"), authority.make_ca("Same name", ca.key, signed_by=other)
    world = World(ca)
    chain = [other.certificate, namesake.certificate, twin.certificate]
    assert staple.find_issuer(world.leaf.certificate, chain) == twin.certificate
    assert staple.judge(world.respond(), world.leaf.certificate, chain, NOW).end == NOW + 4 * DAY


@pytest.mark.parametrize("names_alike", [True, False])
def test_a_chain_without_the_issuer_is_refused(world: World, names_alike: bool) -> None:
    """Also where one of its certificates bears the issuer's name."""
    stranger = authority.make_ca("Test CA" if names_alike else "Another CA")
    with pytest.raises(errors.ResponseRefused, match="none of the chain's certificates signed") as refused:
        staple.judge(world.respond(), world.leaf.certificate, [stranger.certificate], NOW)
    assert ("has the issuer's name" in str(refused.value)) == names_alike


def test_superfluous_certificates_do_no_harm(world: World) -> None:
    """Some responders put the whole chain into each response."""
    delegate, stranger = world.delegate(), authority.make_ca("Stranger")
    response = world.respond(signer=delegate, certificates=[world.ca, stranger, delegate])
    assert world.judge(response).serial == world.leaf.certificate.serial_number


def test_a_response_made_by_cryptography_is_accepted(world: World) -> None:
    """An encoder that is not ours agrees with our reader."""
    begin, end = (moment.replace(tzinfo=None) for moment in (NOW - HOUR, NOW + 4 * DAY))
    builder = ocsp.OCSPResponseBuilder().add_response(
        world.leaf.certificate, world.ca.certificate, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, begin, end, None, None
    )  # fmt: skip
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.NAME, world.ca.certificate)
    signed = builder.sign(world.ca.key, hashes.SHA256())
    found = world.judge(signed.public_bytes(Encoding.DER))
    assert (found.this_update, found.next_update) == (NOW - HOUR, NOW + 4 * DAY)


def test_the_window_is_ten_days_at_most(world: World) -> None:
    """The Baseline Requirements allow no longer one, so what says more is served for ten days."""
    found = world.judge(world.respond(world.single(end=30 * DAY)))
    assert (found.next_update, found.end) == (NOW + 30 * DAY, NOW - HOUR + 10 * DAY)


def test_a_window_up_to_the_end_of_time_is_read(world: World) -> None:
    """The year 9999 plus ten days does not exist, and is not asked for."""
    far = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    assert world.judge(world.respond(authority.single(about, NOW, far))).end == NOW + 10 * DAY
    assert "holds only from 9999-12-31" in world.reasons(world.respond(authority.single(about, far, None)))[0]


# --- refused ---------------------------------------------------------------------------------------------------------


def _delegated(world: World, **options: Any) -> bytes:
    delegate = world.delegate(**options)
    return world.respond(signer=delegate, certificates=[delegate])


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


def _forged(world: World) -> bytes:
    """Return a response by a CA that calls itself like ours, and brings its own certificate along."""
    forger = authority.make_ca()
    return world.respond(signer=forger, responder=authority.by_name, certificates=[forger])


def _delegate_of_a_namesake(world: World) -> bytes:
    forger = authority.make_ca()
    delegate = authority.make_delegate(forger, begin=NOW - DAY, end=NOW + 30 * DAY)
    return world.respond(signer=delegate, certificates=[delegate])


def _delegate_of_another_issuer(world: World) -> bytes:
    delegate = authority.make_delegate(authority.make_ca("Another CA"), begin=NOW - DAY, end=NOW + 30 * DAY)
    return world.respond(signer=delegate, certificates=[delegate])


def _of_a_namesake(world: World) -> bytes:
    """Return a response about the same serial number of a CA with the same name but another key."""
    about = authority.cert_id(world.leaf.certificate, authority.make_ca().certificate)
    return world.respond(world.single(about=about))


def _delegate_not_named(world: World) -> bytes:
    """Return a response by a delegate that says that it is from somebody else."""
    delegate, other = world.delegate(), authority.by_key(world.delegate())
    return world.respond(signer=delegate, certificates=[delegate], responder=lambda signer: other)


def _delegate_that_did_not_sign(world: World) -> bytes:
    delegate = world.delegate()
    return world.respond(signer=delegate, certificates=[delegate], damage=authority.flip)


CRITICAL = authority.extension("1.2.3.4", authority.NULL, critical=True)
REFUSED: dict[str, tuple[Callable[[World], bytes], str]] = {
    "empty": (lambda w: b"", "it is empty"),
    "HTML": (lambda w: b"<html><body>Welcome</body></html>", "begins with b'<html><body>Welcome</bod'"),
    "truncated": (lambda w: w.respond()[:-1], "cut short: 1 bytes are missing"),
    "truncated to a byte": (lambda w: w.respond()[:1], "cut short before a length"),
    "trailing byte": (lambda w: w.respond() + b"\0", "1 bytes follow the end"),
    "two responses": (lambda w: w.respond() * 2, "bytes follow the end"),
    "malformedRequest": (lambda w: authority.unsuccessful(1), "malformedRequest"),
    "internalError": (lambda w: authority.unsuccessful(2), "internalError"),
    "tryLater": (lambda w: authority.unsuccessful(3), "tryLater"),
    "sigRequired": (lambda w: authority.unsuccessful(5), "sigRequired"),
    "unauthorized": (lambda w: authority.unsuccessful(6), "unauthorized"),
    "a status that does not exist": (lambda w: authority.unsuccessful(4), "its status is 4"),
    "successful without anything": (lambda w: authority.unsuccessful(0), "responseBytes is missing"),
    "wrong serial": (_of_another_serial, "it is about the serial number"),
    "another issuer's": (_of_another_issuer, "of an issuer with another name"),
    "a namesake's": (_of_a_namesake, "of an issuer with another key"),
    "delegate not named": (_delegate_not_named, "names neither the issuer nor a certificate"),
    "delegate that did not sign": (_delegate_that_did_not_sign, "of a delegate, the signature is not from its key"),
    "SHA-256 CertID": (_with_sha256_id, "made with sha256, but clients look for SHA-1"),
    "two SingleResponses": (lambda w: w.respond(w.single(), w.single()), "2 SingleResponses instead of one"),
    "forged CA": (_forged, "the signature is not from its key"),
    "no signer": (lambda w: w.respond(signer=w.delegate()), "names neither the issuer nor a certificate"),
    "flipped signature": (lambda w: w.respond(damage=authority.flip), "the signature is not from its key"),
    "no signature": (lambda w: w.respond(damage=lambda signature: b""), "the signature is not from its key"),
    "SHA-1 signature": (lambda w: w.respond(signing=authority.sign_with_sha1), "made with SHA-1, which proves nothing"),
    "delegate without EKU": (lambda w: _delegated(w, purposes=()), "lacks the extended key usage OCSPSigning"),
    "delegate for something else": (lambda w: _delegated(w, purposes=[authority.SERVER_AUTH]), "OCSPSigning"),
    "delegate expired": (lambda w: _delegated(w, end=NOW - HOUR), "its certificate expired on 2026-06-01 11:00:00"),
    "delegate not yet valid": (lambda w: _delegated(w, begin=NOW + HOUR), "its certificate holds only from"),
    "delegate of a namesake": (_delegate_of_a_namesake, "the issuer did not make its certificate"),
    "delegate of another issuer": (_delegate_of_another_issuer, "it names another one"),
    "delegate ends soon": (lambda w: _delegated(w, end=NOW + 20 * HOUR), "it holds for 21 h only"),
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
    "critical single extension": (lambda w: w.respond(w.single(extensions=[CRITICAL])), "critical extension 1.2.3.4"),
}


@pytest.mark.parametrize(("make", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_response_that_must_not_be_stapled_is_refused(
    world: World, make: Callable[[World], bytes], reason: str
) -> None:
    """The reason says which rule it breaks, whether or not something is stored already."""
    response = make(world)
    assert reason in "; ".join(world.reasons(response))
    stored = world.judge(world.respond(world.single(-2 * HOUR)))
    assert reason in "; ".join(world.reasons(response, previous=stored))


ENDS_SOON = {"ends within 25 h", "8 h window", "16 h window", "delegate ends soon"}


@pytest.mark.parametrize("name", sorted(REFUSED.keys() - ENDS_SOON))
def test_a_must_staple_certificate_relaxes_the_margin_only(world: World, name: str) -> None:
    """All that is refused for other reasons than a near end is refused for it too, and when it was stored."""
    make, reason = REFUSED[name]
    assert reason in "; ".join(world.reasons(make(world), must_staple=True))
    with pytest.raises(errors.ResponseRefused):
        staple.recheck(make(world), world.leaf.certificate, world.chain, NOW)


@pytest.mark.parametrize("hours", [1, 7, 15, 25])
def test_a_must_staple_certificate_takes_what_ends_soon(world: World, hours: int) -> None:
    """It is useless without a staple, and a stored one is used up to its end."""
    response = world.respond(world.single(end=hours * HOUR))
    assert world.judge(response, must_staple=True).end == NOW + hours * HOUR
    assert staple.recheck(response, world.leaf.certificate, world.chain, NOW).end == NOW + hours * HOUR
    with pytest.raises(errors.ResponseRefused):
        staple.recheck(response, world.leaf.certificate, world.chain, NOW + hours * HOUR)


def test_a_revoked_leaf_is_never_stapled(world: World) -> None:
    """An authentic response that says revoked is an error of its own, with time and reason as data."""
    status = authority.revoked(NOW - 2 * DAY, 1)
    for window in ({}, {"end": 7 * HOUR}, {"end": None}):
        with pytest.raises(errors.CertificateRevoked) as revoked:
            world.judge(world.respond(world.single(status=status, **window)))
        assert (revoked.value.revoked_at, revoked.value.revocation_reason) == (NOW - 2 * DAY, "keyCompromise")


@pytest.mark.parametrize(("code", "name"), [(None, None), (4, "superseded"), (6, "certificateHold"), (7, "7")])
def test_the_reason_of_a_revocation_has_its_name(world: World, code: int | None, name: str | None) -> None:
    """As RFC 5280 5.3.1 calls it; a number that it does not know stays a number."""
    with pytest.raises(errors.CertificateRevoked) as revoked:
        world.judge(world.respond(world.single(status=authority.revoked(NOW, code))))
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


def test_every_reason_is_listed(world: World) -> None:
    """A person can mend all of it at once."""
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


PSS = {
    "no parameters": (_pss_without_parameters, "made with SHA-1"),
    "SHA-1": (_pss(digest=authority.algorithm(authority.SHA1)), "made with SHA-1"),
    "another mask": (_pss(mask="1.2.3.4"), "mask generation function is not MGF1"),
    "a negative salt": (_pss(salt=-1), "salt or trailer"),
    "an endless salt": (_pss(salt=2**64), "salt or trailer"),
    "another salt": (_pss(salt=31), "the signature is not from its key"),
}


@pytest.mark.parametrize(("signing", "reason"), PSS.values(), ids=PSS)
def test_parameters_of_pss_are_held_to_rfc_4055(signing: Callable[[Any, bytes], Any], reason: str) -> None:
    """What is signed is right each time; what is said about how is not."""
    world = World(authority.make_ca(key=authority.rsa_key()))
    assert world.judge(world.respond(signing=_pss())).end == NOW + 4 * DAY
    assert reason in world.reasons(world.respond(signing=signing))[0]


def _like_ed25519(key: authority.Key, data: bytes) -> authority.Signed:
    return authority.algorithm("1.3.101.112"), authority.sign(key, data)[1]


def test_a_signature_of_a_kind_that_does_not_fit_the_key_is_refused(world: World) -> None:
    """The algorithm is what the responder says, the key what the issuer has."""
    assert "is not one for its key" in world.reasons(world.respond(signing=_like_ed25519))[0]


tlv, sequence, integer, oid, NULL = authority.tlv, authority.sequence, authority.integer, authority.oid, authority.NULL


def _parts(world: World) -> dict[str, bytes]:
    """Return the pieces of a good response, each of which may be replaced."""
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    return {
        "hash": sequence(oid(authority.SHA1), NULL),
        "id": tlv(0x04, about.name_hash) + tlv(0x04, about.key_hash) + integer(about.serial),
        "status": authority.GOOD,
        "this": authority.time(NOW - HOUR),
        "next": tlv(0xA0, authority.time(NOW + 4 * DAY)),
        "single extra": b"",
        "version": b"",
        "responder": authority.by_key(world.ca),
        "produced": authority.time(NOW),
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
    """Return a response of the pieces, signed after they were replaced."""
    part = _parts(world) | {name.replace("_", " "): value for name, value in replaced.items()}
    single = sequence(
        sequence(part["hash"], part["id"]), part["status"], part["this"], part["next"], part["single extra"]
    )
    data = sequence(
        part["version"], part["responder"], part["produced"], sequence(single), part["extensions"], part["data extra"]
    )
    how, signature = authority.sign(world.ca.key, data)
    basic = sequence(data, how, tlv(0x03, part["signature prefix"], signature), part["basic extra"])
    holder = sequence(part["kind"], tlv(0x04, basic), part["bytes extra"])
    return sequence(part["code"], tlv(0xA0, holder), part["outer extra"])


def _extension_list(*extensions: bytes) -> bytes:
    return tlv(0xA1, sequence(*extensions))


NONCE = authority.extension("1.3.6.1.5.5.7.48.1.2", b"\x04\x01a")
REASON_WITH_MORE = tlv(0xA1, authority.time(NOW), tlv(0xA0, integer(1, 0x0A)), NULL)
MISENCODED: dict[str, tuple[dict[str, bytes], str]] = {
    "indefinite length": ({"extensions": b"\xa1\x80\x30\x00\x00\x00"}, "a length is indefinite"),
    "length too long by a byte": ({"produced": b"\x18\x81\x0f20260601120000Z"}, "a length is not in its shortest form"),
    "length after a zero": ({"extensions": b"\xa1\x82\x00\x02\x30\x00"}, "a length is not in its shortest form"),
    "constructed octet string": ({"single_extra": tlv(0xA1, tlv(0x24, b""))}, "tag 0x24 is not allowed"),
    "primitive sequence": ({"extensions": tlv(0xA1, b"\x10\x00")}, "tag 0x10 is not allowed"),
    "tag of many bytes": ({"extensions": tlv(0xA1, b"\x1f\x81\x00\x00")}, "tag 0x1f is not allowed"),
    "tag of nothing": ({"extensions": tlv(0xA1, b"\x00\x00")}, "tag 0x00 is not allowed"),
    "default version": ({"version": tlv(0xA0, integer(0))}, "responderID has tag 0xa0"),
    "critical that is neither": (
        {"extensions": _extension_list(sequence(oid("1.2.3"), b"\x01\x01\x01", tlv(0x04, b"")))},
        "a boolean is neither",
    ),
    "extension twice": ({"extensions": _extension_list(NONCE, NONCE)}, "an extension occurs twice"),
    "extension with more": (
        {"extensions": _extension_list(sequence(oid("1.2.3"), tlv(0x04, b""), NULL))},
        "an extension holds more",
    ),
    "identifier padded": (
        {"extensions": _extension_list(sequence(b"\x06\x03\x2a\x80\x01", tlv(0x04, b"")))},
        "an object identifier is not in its shortest form",
    ),
    "identifier cut": (
        {"extensions": _extension_list(sequence(b"\x06\x02\x2a\x81", tlv(0x04, b"")))},
        "an object identifier is cut short",
    ),
    "good with content": ({"status": b"\x80\x01\x00"}, "a NULL is not empty"),
    "status of no kind": ({"status": b"\x83\x00"}, "certStatus has tag 0x83"),
    "hash with content in NULL": ({"hash": sequence(oid(authority.SHA1), b"\x05\x01\x00")}, "a NULL is not empty"),
    "hash with more": ({"hash": sequence(oid(authority.SHA1), NULL, NULL)}, "AlgorithmIdentifier holds more"),
    "certID with more": ({"id": tlv(0x04, b"") * 2 + integer(1) + NULL}, "certID holds more"),
    "single with more": ({"single_extra": NULL}, "a SingleResponse holds more"),
    "revoked with more": ({"status": REASON_WITH_MORE}, "revoked holds more"),
    "data with more": ({"data_extra": NULL}, "tbsResponseData holds more"),
    "basic with more": ({"basic_extra": NULL}, "BasicOCSPResponse holds more"),
    "bytes with more": ({"bytes_extra": NULL}, "responseBytes holds more"),
    "outer with more": ({"outer_extra": NULL}, "an OCSP response holds more"),
    "another kind": ({"kind": oid("1.2.3.4")}, "responseType is 1.2.3.4"),
    "signature of half bytes": ({"signature_prefix": b"\1"}, "a bit string does not consist of whole bytes"),
    "code padded": ({"code": b"\x0a\x02\x00\x00"}, "an integer is not in its shortest form"),
    "time without Z": ({"produced": tlv(0x18, b"20260601120000+0000")}, "a time is not in the form"),
    "time with fractions": ({"produced": tlv(0x18, b"20260601120000.5Z")}, "a time is not in the form"),
    "time that does not exist": ({"produced": tlv(0x18, b"20260231120000Z")}, "a time does not exist"),
    "time of the other kind": ({"produced": tlv(0x17, b"260601120000Z")}, "producedAt has tag 0x17"),
    "extensions of nothing": ({"extensions": tlv(0xA1)}, "extensions is missing"),
}


@pytest.mark.parametrize(("replaced", "reason"), MISENCODED.values(), ids=MISENCODED)
def test_what_is_not_strict_der_is_refused_though_it_is_signed(
    world: World, replaced: dict[str, bytes], reason: str
) -> None:
    """Every client reads DER; what each makes of anything else is its own affair (X.690 10, 11; RFC 6960 4.2.1)."""
    assert world.judge(_assemble(world)).end == NOW + 4 * DAY
    (found,) = world.reasons(_assemble(world, **replaced))
    assert found.startswith("it is not an OCSP response in strict DER: ")
    assert reason in found


def test_what_is_nested_too_deep_is_refused(world: World) -> None:
    """Forty floors are more than any response has."""
    nested = b""
    for _ in range(der.MAX_DEPTH + 1):
        nested = sequence(nested)
    assert "nested more than 40 deep" in world.reasons(_assemble(world, single_extra=tlv(0xA1, nested)))[0]


def _resigned(world: World, *, extra_key: bytes = b"", outer: bytes = b"") -> bytes:
    """Return a response with a delegate's certificate that the CA signed in a wrong form."""
    delegate = world.delegate()
    fields = list(der.read(delegate.certificate.tbs_certificate_bytes).children())
    key = sequence(*(one.encoded for one in fields[6].children()), extra_key)
    signed = sequence(*(one.encoded for one in fields[:6]), key, *(one.encoded for one in fields[7:]))
    how, signature = authority.sign(world.ca.key, signed)
    certificate = sequence(signed, outer or how, tlv(0x03, b"\0", signature))
    return _assemble(world, basic_extra=tlv(0xA0, sequence(certificate)))


def test_an_embedded_certificate_is_held_to_strict_der_too(world: World) -> None:
    """Even one that nobody needs: clients read it before they know."""
    assert world.judge(_resigned(world)).end == NOW + 4 * DAY
    assert "subjectPublicKeyInfo holds more" in world.reasons(_resigned(world, extra_key=NULL))[0]
    two = "names two signature algorithms (RFC 5280 4.1.1.2)"
    assert two in world.reasons(_resigned(world, outer=authority.algorithm("1.2.840.10045.4.3.3")))[0]


@pytest.mark.parametrize(("text", "year"), [(b"491231235959Z", 2049), (b"500101000000Z", 1950)])
def test_a_year_of_two_digits_is_read_as_rfc_5280_says(text: bytes, year: int) -> None:
    """From 1950 to 2049 (RFC 5280 4.1.2.5.1)."""
    assert der.read(tlv(0x17, text)).time().year == year


# --- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("minutes", "is_accepted"), [(0, True), (5, True), (6, False)])
def test_five_minutes_of_skew_are_allowed(world: World, minutes: int, is_accepted: bool) -> None:
    """A response that was made just now may be ahead of this machine's clock."""
    response = world.respond(world.single(minutes * HOUR / 60))
    if is_accepted:
        assert world.judge(response).this_update == NOW + minutes * HOUR / 60
    else:
        assert world.reasons(response) == ("it holds only from 2026-06-01 12:06:00 UTC on",)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_wrong_by_a_year_is_named(world: World, years: int) -> None:
    """It is the usual cause of a fresh response that is not valid."""
    reasons = world.reasons(world.respond(), NOW + years * 365 * DAY)
    assert len(reasons) == 1
    assert f"this machine's clock says {2026 + years}-06-01 12:00:00 UTC; is it right?" in reasons[0]


def test_the_time_zone_of_now_does_not_matter(world: World) -> None:
    """Times are compared, not their writing."""
    response = world.respond()
    local = NOW.astimezone(datetime.timezone(datetime.timedelta(hours=-7)))
    assert world.judge(response, local) == world.judge(response)


def test_an_older_response_does_not_replace_the_stored_one(world: World) -> None:
    """A replay of an old one is refused; the same one again, and a newer one, are welcome."""
    stored = world.judge(world.respond(world.single(-2 * HOUR)))
    assert "older than the stored one" in world.reasons(world.respond(world.single(-3 * HOUR)), previous=stored)[0]
    assert world.judge(world.respond(world.single(-2 * HOUR)), previous=stored).this_update == stored.this_update
    assert world.judge(world.respond(world.single(-HOUR)), previous=stored).this_update == NOW - HOUR


def test_the_stored_staple_of_another_certificate_holds_nothing_up(world: World) -> None:
    """After a renewal the old certificate's staple may be newer than the first one of the new certificate."""
    renewed = World(world.ca)
    stored = renewed.judge(renewed.respond(renewed.single(-HOUR)))
    assert world.judge(world.respond(world.single(-3 * HOUR)), previous=stored).this_update == NOW - 3 * HOUR


def _staple(begin: datetime.timedelta, end: datetime.timedelta) -> staple.Staple:
    return staple.Staple(b"", 1, NOW + begin, NOW + end, NOW + begin, NOW + end)


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
    stored: staple.Staple | None, success: datetime.timedelta | None, expected: bool
) -> None:
    """At once if there is none; a success in the future tells of a clock that was set back."""
    assert staple.is_due(stored, NOW, None if success is None else NOW + success) is expected


def test_half_way_is_in_the_middle_of_the_window_that_counts() -> None:
    """The end counts, which may come before nextUpdate."""
    found = staple.Staple(b"", 1, NOW, NOW + 30 * DAY, NOW, NOW + 10 * DAY)
    assert staple.half_way(found) == NOW + 5 * DAY


@pytest.mark.parametrize(("hours", "expected"), [(-1, True), (24, True), (25, True), (25.1, False), (90, False)])
def test_a_staple_is_withdrawn_25_hours_before_its_end(hours: float, expected: bool) -> None:
    """That is when the next run may come too late."""
    assert staple.must_withdraw(_staple(-DAY, hours * HOUR), NOW) is expected


def test_what_was_just_accepted_need_not_be_withdrawn(world: World) -> None:
    """Both rules have the same border, so a staple never comes and goes at once."""
    accepted = world.judge(world.respond(world.single(end=25 * HOUR + datetime.timedelta(seconds=1))))
    assert not staple.must_withdraw(accepted, NOW)
    assert "less than 25 h away" in world.reasons(world.respond(world.single(end=25 * HOUR)))[0]


# --- the certificate and the request ---------------------------------------------------------------------------------


URLS = {
    "none": ((), None),
    "one": (("http://ocsp.example.com/r3",), "http://ocsp.example.com/r3"),
    "the first of two": (("https://a.example.com", "http://b.example.com"), "https://a.example.com"),
    "not HTTP first": (("ldap://a.example.com", "HTTP://b.example.com"), "HTTP://b.example.com"),
    "not HTTP at all": (("ldap://a.example.com", "file:///etc/passwd"), None),
}


@pytest.mark.parametrize(("urls", "expected"), URLS.values(), ids=URLS)
def test_the_responder_is_the_first_that_speaks_http(world: World, urls: tuple[str, ...], expected: str | None) -> None:
    """A certificate without one is an everyday case."""
    assert staple.ocsp_url(authority.make_leaf(world.ca, ocsp_urls=urls).certificate) == expected


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
    assert staple.is_must_staple(authority.make_leaf(world.ca, features=features).certificate) is expected


def test_a_request_names_the_leaf_with_sha1_and_has_no_nonce(world: World) -> None:
    """So that responders can answer from a store, and with what clients look for."""
    request = ocsp.load_der_ocsp_request(staple.build_request(world.leaf.certificate, world.ca.certificate))
    about = authority.cert_id(world.leaf.certificate, world.ca.certificate)
    assert isinstance(request.hash_algorithm, hashes.SHA1)
    assert (request.issuer_name_hash, request.issuer_key_hash) == (about.name_hash, about.key_hash)
    assert request.serial_number == world.leaf.certificate.serial_number
    assert len(request.extensions) == 0
