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
from certbot_seafile import errors, staple

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
