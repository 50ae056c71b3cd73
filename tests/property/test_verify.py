"""What holds for any bytes: a verdict of ours, and a good one only for what the CA signed and `openssl ocsp` takes.

SEAFILE_FUZZ=N sets the number of examples for each property (100 unless set).
"""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import authority
from benchmarks import fuzz_verify
from certbot_seafile import errors

TARGETS = {target.name: target for target in fuzz_verify.make_targets()}
EXAMPLES = settings(max_examples=int(os.environ.get("SEAFILE_FUZZ", "100")), deadline=None)
target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
MASKS = (1, 0x80, 0xFF)


@target
def test_openssl_takes_the_good_response(target: fuzz_verify.Target) -> None:
    """Otherwise its silence about the changed ones would mean nothing."""
    assert target.verdict(target.response) == "harmless"


@target
def test_any_changed_byte_is_refused_or_openssl_takes_it_too(target: fuzz_verify.Target) -> None:
    """Each byte of a good response in turn, with one bit turned over, with another one, and with all of them."""
    verdicts = [
        target.verdict(_changed(target.response, position, mask))
        for position in range(len(target.response))
        for mask in MASKS
    ]
    assert verdicts.count("refused") >= 3 * len(target.signed)


@pytest.mark.parametrize("name", sorted(TARGETS.keys() - {"delegate by key, whole chain"}))
def test_any_changed_byte_is_refused_where_nothing_is_needless(name: str) -> None:
    """Where every certificate is needed, nothing is harmless, also around the signature."""
    target = TARGETS[name]
    for position in range(len(target.response)):
        assert target.verdict(_changed(target.response, position, 1)) == "refused"


def _changed(response: bytes, position: int, mask: int) -> bytes:
    return response[:position] + bytes([response[position] ^ mask]) + response[position + 1 :]


def test_a_few_thousand_mutations_are_refused_or_harmless() -> None:
    """Cut, doubled, nudged, spliced; also when the CA itself signed the result. The nightly run takes 100,000."""
    verdicts = fuzz_verify.run(3000, 20260601, list(TARGETS.values()))
    assert verdicts["refused"] > 2000
    assert verdicts["signed by the CA: refused"] > 500


@target
def test_every_beginning_of_a_response_is_refused(target: fuzz_verify.Target) -> None:
    """However much of it came before the connection ended."""
    for length in range(len(target.response)):
        assert target.verdict(target.response[:length]) == "refused"


@EXAMPLES
@given(st.binary(max_size=300))
@example(b"\x30\x80\x0a\x01\x00\x00\x00")
@example(b"\x30\x03\x0a\x01\x00\x30")
@example(b"0\x82" * 30_000)
@example(b"\x30\x84\xff\xff\xff\xff")
@example(authority.successful(b""))
def test_any_bytes_are_refused_by_one_of_our_errors(response: bytes) -> None:
    """No bytes that a network may bring lead to another exception."""
    with pytest.raises(errors.ResponseRefused):
        TARGETS["delegate by name"].verify(response)


@EXAMPLES
@given(st.integers(0, 255), st.recursive(st.binary(max_size=40), lambda inner: st.lists(inner, max_size=4)))
def test_any_elements_that_the_ca_signed_are_refused_by_one_of_our_errors(tag: int, value: object) -> None:
    """Octet strings and sequences of any shape where tbsResponseData should stand, under any tag."""
    target = TARGETS["delegate by name"]
    response = target.respond(authority.tlv(tag, _encoded(value)))
    with pytest.raises(errors.ResponseRefused):
        target.verify(response)


def _encoded(value: object) -> bytes:
    if isinstance(value, bytes):
        return authority.tlv(0x04, value)
    assert isinstance(value, list)
    return authority.sequence(*map(_encoded, value))


def nested(depth: int) -> bytes:
    """Return sequences in sequences."""
    return b"" if depth == 0 else authority.sequence(nested(depth - 1))


AWKWARD = {
    "a status that Python refuses to print": authority.sequence(authority.tlv(0x0A, b"\x01" + bytes(5000))),
    "a serial that Python refuses to print": authority.successful(
        authority.sequence(authority.sequence(authority.tlv(0x02, b"\x01" + bytes(5000))))
    ),
    "an identifier of one large arc": authority.sequence(
        authority.integer(0, 0x0A),
        authority.tlv(0xA0, authority.sequence(authority.tlv(0x06, b"\xff" * 60_000 + b"\1"))),
    ),
    "deep": nested(900),
    "deep inside": authority.successful(nested(900)),
    "wide": authority.sequence(authority.NULL * 30_000),
}


@pytest.mark.parametrize("response", AWKWARD.values(), ids=AWKWARD)
def test_what_is_awkward_for_python_is_refused(response: bytes) -> None:
    """Integers of thousands of digits, deep nesting, many elements."""
    assert len(response) < 2**16
    with pytest.raises(errors.ResponseRefused, match="the response cannot be read"):
        TARGETS["delegate by name"].verify(response)


@pytest.mark.parametrize("size", [21, 64, 5000])
def test_a_serial_number_of_any_size_is_refused_in_few_words(size: int) -> None:
    """A responder writes what it likes, and a person reads it in one line."""
    target = TARGETS["issuer, ECDSA P-256"]
    about = authority.CertId(bytes(20), bytes(20), 2 ** (8 * size - 2))
    single = authority.single(about, fuzz_verify.NOW, fuzz_verify.NOW + authority.DAY)
    data = authority.sequence(
        authority.tlv(0xA2, authority.tlv(0x04, bytes(20))), authority.time(fuzz_verify.NOW), authority.sequence(single)
    )
    with pytest.raises(errors.ResponseRefused) as refused:
        target.verify(target.respond(data))
    assert len(str(refused.value)) < 1000
