"""What holds for any bytes: a verdict of ours, and a good one only for what the CA signed.

SEAFILE_FUZZ=N sets the number of examples for each property (100 unless set).
"""

from __future__ import annotations

import datetime
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import authority
from benchmarks import fuzz_staple
from certbot_seafile import errors
from certbot_seafile.ocsp import der

TARGETS = {target.name: target for target in fuzz_staple.make_targets()}
EXAMPLES = settings(max_examples=int(os.environ.get("SEAFILE_FUZZ", "100")), deadline=None)
target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@target
def test_any_changed_byte_is_refused_or_outside_of_what_is_signed_and_harmless(target: fuzz_staple.Target) -> None:
    """Each byte of a good response in turn, with one bit turned over, with another one, and with all of them."""
    verdicts = [
        target.verdict(_changed(target.response, position, mask))
        for position in range(len(target.response))
        for mask in (1, 0x80, 0xFF)
    ]
    assert verdicts.count("refused") >= 3 * len(target.signed)


def test_any_changed_byte_of_an_issuers_own_response_is_refused() -> None:
    """Where nothing is there that nobody needs, nothing is harmless."""
    target = TARGETS["issuer, ECDSA P-256"]
    for position in range(len(target.response)):
        assert target.verdict(_changed(target.response, position, 1)) == "refused"


def _changed(response: bytes, position: int, mask: int) -> bytes:
    return response[:position] + bytes([response[position] ^ mask]) + response[position + 1 :]


def test_a_few_thousand_mutations_are_refused_or_harmless() -> None:
    """Cut, doubled, nudged, spliced; also when the CA itself signed the result. The nightly run takes 100,000."""
    verdicts = fuzz_staple.run(3000, 20260601, list(TARGETS.values()))
    assert verdicts["refused"] > 2000
    assert verdicts["signed by the CA: refused"] > 500


@target
def test_every_beginning_of_a_response_is_refused(target: fuzz_staple.Target) -> None:
    """However much of it came before the connection ended."""
    for length in range(len(target.response)):
        assert target.verdict(target.response[:length]) == "refused"


@EXAMPLES
@given(st.binary(max_size=300))
@example(b"\x30\x80\x0a\x01\x00\x00\x00")
@example(b"\x30\x03\x0a\x01\x00\x30")
@example(b"0\x82" * 30_000)
@example(b"\x30\x84\xff\xff\xff\xff")
def test_any_bytes_are_refused_by_one_of_our_errors(response: bytes) -> None:
    """No bytes that a network may bring lead to another exception."""
    with pytest.raises(errors.ResponseRefused):
        TARGETS["delegate by name"].judge(response)


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
    with pytest.raises(errors.ResponseRefused, match="not an OCSP response in strict DER"):
        TARGETS["delegate by name"].judge(response)


@EXAMPLES
@given(st.recursive(st.binary(max_size=200), lambda inner: st.lists(inner, max_size=4), max_leaves=20))
def test_what_was_encoded_is_read_back(value: object) -> None:
    """Octet strings and sequences of any size and shape, as an independent encoder writes them."""

    def encode(value: object) -> bytes:
        if isinstance(value, bytes):
            return authority.tlv(0x04, value)
        assert isinstance(value, list)
        return authority.sequence(*map(encode, value))

    def decode(element: der.Element) -> object:
        return [decode(child) for child in element.children()] if element.tag == 0x30 else element.content

    element = der.read(encode(value))
    der.check(element)
    assert decode(element) == value


@EXAMPLES
@given(st.integers(-(2**500), 2**500))
def test_an_integer_is_read_back(value: int) -> None:
    """Of either sign, in its shortest form; with a byte of padding it is refused."""
    content = value.to_bytes((value + (value < 0)).bit_length() // 8 + 1, "big", signed=True)
    assert der.read(authority.tlv(0x02, content)).integer() == value
    padding = b"\xff" if value < 0 else b"\x00"
    with pytest.raises(der.NotDer, match=r"shortest form|more than 64 bytes"):
        der.read(authority.tlv(0x02, padding + content)).integer()


@EXAMPLES
@given(st.lists(st.integers(0, 2**128 - 1), min_size=1, max_size=8), st.integers(0, 2), st.integers(0, 39))
def test_an_object_identifier_is_read_back(rest: list[int], first: int, second: int) -> None:
    """With arcs up to the size of a UUID."""
    dotted = ".".join(map(str, (first, second, *rest)))
    assert der.read(authority.oid(dotted)).oid() == dotted


@EXAMPLES
@given(st.datetimes(timezones=st.just(datetime.UTC)))
def test_a_time_is_read_back(moment: datetime.datetime) -> None:
    """To the second, in any year that has four digits."""
    moment = moment.replace(microsecond=0)
    text = f"{moment.year:04}{moment:%m%d%H%M%S}Z".encode()
    assert der.read(authority.tlv(0x18, text)).time() == moment
