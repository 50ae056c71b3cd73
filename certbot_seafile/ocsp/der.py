"""Strict DER, and what RFC 5280 and RFC 6960 put into it.

The law of this module: any bytes become a value or NotDer, never another exception; nothing is repaired, guessed or
skipped. cryptography's parsers accept, refuse or panic differently from version to version, so no byte that came over
the network reaches them before its signature has been verified.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID, ENUMERATED = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A
UTC_TIME, GENERALIZED_TIME, SEQUENCE, SET = 0x17, 0x18, 0x30, 0x31
CONSTRUCTED, CONTEXT = 0x20, 0x80

MAX_DEPTH = 40
_REMEMBERED = 256  # structures and names; the ones of a response and its certificates
MAX_INTEGER_BYTES = 64
MAX_ARC = 2**128  # UUIDs are the largest arcs in use (X.667)
_ALWAYS_CONSTRUCTED = {0x10, 0x11}
_UTC_TIME = re.compile(rb"(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")
_GENERALIZED_TIME = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


class NotDer(ValueError):
    """These bytes are not the strict DER of what should stand there; the text says where they part from it."""


class Element(NamedTuple):
    """One tag, its content, and both with the length between them as they were encoded."""

    tag: int
    content: bytes
    encoded: bytes

    @property
    def is_constructed(self) -> bool:
        """Tell whether the content is a row of elements."""
        return bool(self.tag & CONSTRUCTED)

    def children(self) -> tuple[Element, ...]:
        """Return the elements inside. Raises NotDer."""
        if not self.is_constructed:
            raise NotDer(f"a value with tag 0x{self.tag:02x} stands where a structure was expected")
        return read_all(self.content)

    def fields(self) -> Fields:
        """Return the elements inside, to be taken in order. Raises NotDer."""
        return Fields(self.children())

    def expect(self, tag: int, name: str) -> Element:
        """Return this element if it has the tag. Raises NotDer."""
        if self.tag != tag:
            raise NotDer(f"{name} has tag 0x{self.tag:02x} instead of 0x{tag:02x}")
        return self

    def only_child(self, tag: int, name: str) -> Element:
        """Return the one element inside, as an EXPLICIT tag holds it. Raises NotDer."""
        fields = self.fields()
        found = fields.take(tag, name)
        fields.end(name)
        return found

    def integer(self) -> int:
        """Return an INTEGER's or ENUMERATED's value (X.690 8.3.2: the shortest form). Raises NotDer.

        Serial numbers have 20 bytes at most (RFC 5280 4.1.2.2); Python refuses to print what has thousands.
        """
        if len(self.content) > MAX_INTEGER_BYTES:
            raise NotDer(f"an integer has more than {MAX_INTEGER_BYTES} bytes")
        if not self.content or (len(self.content) > 1 and self.content[0] in (0, 0xFF) and _is_padded(self.content)):
            raise NotDer("an integer is not in its shortest form")
        return int.from_bytes(self.content, "big", signed=True)

    def boolean(self) -> bool:
        """Return a BOOLEAN's value (X.690 11.1: 0x00 or 0xff). Raises NotDer."""
        if self.content not in (b"\x00", b"\xff"):
            raise NotDer("a boolean is neither 0x00 nor 0xff")
        return self.content == b"\xff"

    def oid(self) -> str:
        """Return an OBJECT IDENTIFIER in dotted form (X.690 8.19). Raises NotDer."""
        return _dotted(self.content)

    def bits(self) -> bytes:
        """Return a BIT STRING of whole bytes, as keys and signatures are. Raises NotDer."""
        if self.content[:1] != b"\x00":
            raise NotDer("a bit string does not consist of whole bytes")
        return self.content[1:]

    def time(self) -> datetime.datetime:
        """Return a time, aware, UTC (RFC 5280 4.1.2.5: with seconds, without fractions, ending in Z). Raises NotDer."""
        match = (_UTC_TIME if self.tag == UTC_TIME else _GENERALIZED_TIME).fullmatch(self.content)
        if self.tag not in (UTC_TIME, GENERALIZED_TIME) or match is None:
            raise NotDer("a time is not in the form that RFC 5280 prescribes")
        year, *rest = map(int, match.groups())
        if self.tag == UTC_TIME:
            year += 2000 if year < 50 else 1900
        try:
            return datetime.datetime(year, *rest, tzinfo=datetime.UTC)  # type: ignore[misc, arg-type]  # five numbers
        except ValueError as error:
            raise NotDer(f"a time does not exist: {error}") from error


@functools.lru_cache(maxsize=_REMEMBERED)
def _dotted(content: bytes) -> str:
    first, *rest = _arcs(content)
    root = min(first // 40, 2)
    return ".".join(map(str, (root, first - 40 * root, *rest)))


def _is_padded(content: bytes) -> bool:
    return (content[0] == 0) == (content[1] < 0x80)


def _arcs(content: bytes) -> Iterator[int]:
    if not content or content[-1] & 0x80:
        raise NotDer("an object identifier is cut short")
    value = 0
    for byte in content:
        if value == 0 and byte == 0x80:
            raise NotDer("an object identifier is not in its shortest form")
        value = value << 7 | byte & 0x7F
        if value >= MAX_ARC << 7:
            raise NotDer("an object identifier has an arc that is too large")
        if not byte & 0x80:
            yield value
            value = 0


class Fields:
    """A structure's elements, taken in order; what is optional may be absent, what is left over is an error."""

    def __init__(self, elements: tuple[Element, ...]) -> None:
        self._elements, self._next = elements, 0

    def take_any(self, name: str) -> Element:
        """Return the next element, whatever its tag. Raises NotDer where none is left."""
        if self._next == len(self._elements):
            raise NotDer(f"{name} is missing")
        self._next += 1
        return self._elements[self._next - 1]

    def take(self, tag: int, name: str) -> Element:
        """Return the next element, which must have the tag. Raises NotDer."""
        return self.take_any(name).expect(tag, name)

    def take_optional(self, tag: int) -> Element | None:
        """Return the next element if it has the tag; None otherwise, and it stays."""
        if self._next == len(self._elements) or self._elements[self._next].tag != tag:
            return None
        return self.take_any("")

    def end(self, name: str) -> None:
        """Say that nothing may be left. Raises NotDer."""
        if self._next != len(self._elements):
            raise NotDer(f"{name} holds more than it may")


def read(data: bytes) -> Element:
    """Return the one element that `data` is. Raises NotDer, also where anything follows it."""
    element = _read_one(data, 0)
    if len(element.encoded) != len(data):
        raise NotDer(f"{len(data) - len(element.encoded)} bytes follow the end")
    return element


@functools.lru_cache(maxsize=_REMEMBERED)
def read_all(data: bytes) -> tuple[Element, ...]:
    """Return the elements that `data` is a row of. Raises NotDer.

    Remembered, since what was read once to check it is read again for what it holds.
    """
    found: list[Element] = []
    position = 0
    while position < len(data):
        found.append(_read_one(data, position))
        position += len(found[-1].encoded)
    return tuple(found)


def check(element: Element) -> None:
    """Read everything inside an element, so that no length in it breaks the rules. Raises NotDer.

    X.690 10.2: strings are never constructed; sequences and sets always are.
    """
    _check(element.tag, element.content, 0, len(element.content), 0)


def _check(tag: int, data: bytes, start: int, end: int, depth: int) -> None:
    """Check the element with that tag whose content is data[start:end], without copying anything."""
    if depth > MAX_DEPTH:
        raise NotDer(f"it is nested more than {MAX_DEPTH} deep")
    if not tag & 0xC0 and bool(tag & CONSTRUCTED) != (tag & 0x1F in _ALWAYS_CONSTRUCTED):
        raise NotDer(f"tag 0x{tag:02x} is not allowed")
    if tag & CONSTRUCTED:
        while start < end:
            inner, begin, start = _read_head(data, start, end)
            _check(inner, data, begin, start, depth + 1)


def _read_one(data: bytes, start: int) -> Element:
    tag, begin, end = _read_head(data, start, len(data))
    return Element(tag, data[begin:end], data[start:end])


def _read_head(data: bytes, start: int, limit: int) -> tuple[int, int, int]:
    """Return the tag of the element at start, and where its content begins and ends, which is not beyond limit."""
    tag = data[start]
    if tag == 0 or tag & 0x1F == 0x1F:
        raise NotDer(f"tag 0x{tag:02x} is not allowed")
    length, begin = _read_length(data, start + 1, limit)
    end = begin + length
    if end > limit:
        raise NotDer(f"it is cut short: {end - limit} bytes are missing")
    return tag, begin, end


def _read_length(data: bytes, start: int, limit: int) -> tuple[int, int]:
    """Return a length and where the content begins (X.690 10.1: definite and in the shortest form)."""
    if start >= limit:
        raise NotDer("it is cut short before a length")
    first = data[start]
    if first < 0x80:
        return first, start + 1
    count = first & 0x7F
    octets = data[start + 1 : min(start + 1 + count, limit)]
    if count == 0:
        raise NotDer("a length is indefinite")
    if len(octets) < count:
        raise NotDer("it is cut short within a length")
    length = int.from_bytes(octets, "big")
    if octets[0] == 0 or length < 0x80:
        raise NotDer("a length is not in its shortest form")
    return length, start + 1 + count


# --- RFC 5280 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Extension:
    """One extension: its identifier, whether it is critical, and the DER of its value."""

    oid: str
    is_critical: bool
    value: bytes


@dataclass(frozen=True)
class Certificate:
    """The fields of a certificate that OCSP is about; names and keys as they were encoded, times aware, UTC."""

    encoded: bytes
    signed: bytes
    algorithm: Element
    signature: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime.datetime
    not_after: datetime.datetime
    public_key_info: bytes
    key_bits: bytes
    extensions: tuple[Extension, ...]

    @cached_property
    def key_hash(self) -> bytes:
        """Return the SHA-1 of the public key's bits, without tag, length and unused bits (RFC 6960 4.1.1)."""
        return sha1(self.key_bits)

    def extension(self, oid: str) -> Element | None:
        """Return an extension's value; None where the certificate does not have it. Raises NotDer."""
        return next((read(one.value) for one in self.extensions if one.oid == oid), None)


def sha1(data: bytes) -> bytes:
    """Return the SHA-1 of `data`: here it names things (RFC 6960 4.1.1, RFC 5019 2.1.1) and protects nothing."""
    return hashlib.sha1(data, usedforsecurity=False).digest()


def certificate(encoded: bytes) -> Certificate:
    """Return the fields of a certificate (RFC 5280 4.1). Raises NotDer."""
    outer = read(encoded).expect(SEQUENCE, "a certificate").fields()
    signed = outer.take(SEQUENCE, "tbsCertificate")
    algorithm = outer.take(SEQUENCE, "signatureAlgorithm")
    signature = outer.take(BIT_STRING, "the certificate's signature").bits()
    outer.end("a certificate")
    fields = signed.fields()
    fields.take_optional(CONTEXT | CONSTRUCTED)  # version
    serial = fields.take(INTEGER, "serialNumber").integer()
    if fields.take(SEQUENCE, "signature").encoded != algorithm.encoded:
        raise NotDer("a certificate names two signature algorithms (RFC 5280 4.1.1.2)")
    issuer = fields.take(SEQUENCE, "issuer").encoded
    validity = fields.take(SEQUENCE, "validity").fields()
    not_before, not_after = validity.take_any("notBefore").time(), validity.take_any("notAfter").time()
    subject, public_key_info = fields.take(SEQUENCE, "subject").encoded, fields.take(SEQUENCE, "subjectPublicKeyInfo")
    for unique_id in (1, 2):
        fields.take_optional(CONTEXT | unique_id)
    found = extensions(fields.take_optional(CONTEXT | CONSTRUCTED | 3))
    fields.end("tbsCertificate")
    return Certificate(
        encoded, signed.encoded, algorithm, signature, serial, issuer, subject, not_before, not_after,
        public_key_info.encoded, _key_bits(public_key_info), found,
    )  # fmt: skip


def _key_bits(public_key_info: Element) -> bytes:
    fields = public_key_info.fields()
    fields.take(SEQUENCE, "the public key's algorithm")
    bits = fields.take(BIT_STRING, "the public key").bits()
    fields.end("subjectPublicKeyInfo")
    return bits


def extensions(explicit: Element | None) -> tuple[Extension, ...]:
    """Return the extensions inside an EXPLICIT tag, none where that is absent (RFC 5280 4.1). Raises NotDer."""
    if explicit is None:
        return ()
    found = tuple(_extension(one) for one in explicit.only_child(SEQUENCE, "extensions").children())
    if len({one.oid for one in found}) != len(found):
        raise NotDer("an extension occurs twice (RFC 5280 4.2)")
    return found


def _extension(element: Element) -> Extension:
    fields = element.expect(SEQUENCE, "an extension").fields()
    oid = fields.take(OID, "extnID").oid()
    critical = fields.take_optional(BOOLEAN)
    value = fields.take(OCTET_STRING, "extnValue").content
    fields.end("an extension")
    return Extension(oid, critical is not None and critical.boolean(), value)


# --- RFC 6960 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SingleResponse:
    """What a response says about one certificate (RFC 6960 4.2.1).

    hash_oid, name_hash, key_hash, serial: the CertID. status: "good", "revoked" or "unknown". Times aware, UTC.
    """

    hash_oid: str
    name_hash: bytes
    key_hash: bytes
    serial: int
    status: str
    revoked_at: datetime.datetime | None
    revocation_reason: int | None
    this_update: datetime.datetime
    next_update: datetime.datetime | None
    extensions: tuple[Extension, ...]


@dataclass(frozen=True)
class BasicResponse:
    """A BasicOCSPResponse (RFC 6960 4.2.1). responder_name or responder_key_hash: the one of both that is there."""

    signed: bytes
    responder_name: bytes | None
    responder_key_hash: bytes | None
    produced_at: datetime.datetime
    singles: tuple[SingleResponse, ...]
    extensions: tuple[Extension, ...]
    algorithm: Element
    signature: bytes
    certificates: tuple[Certificate, ...]


_BASIC_RESPONSE_OID = "1.3.6.1.5.5.7.48.1.1"
_STATUS_TAGS = {CONTEXT: "good", CONTEXT | CONSTRUCTED | 1: "revoked", CONTEXT | 2: "unknown"}


def response(encoded: bytes) -> tuple[int, BasicResponse | None]:
    """Return an OCSPResponse's status (0 is successful), and what it holds if that is successful. Raises NotDer."""
    element = read(encoded).expect(SEQUENCE, "an OCSP response")
    check(element)
    fields = element.fields()
    status = fields.take(ENUMERATED, "responseStatus").integer()
    holder = fields.take_optional(CONTEXT | CONSTRUCTED)
    fields.end("an OCSP response")
    if status != 0:
        return status, None
    if holder is None:
        raise NotDer("responseBytes is missing")
    inner = holder.only_child(SEQUENCE, "responseBytes").fields()
    if (kind := inner.take(OID, "responseType").oid()) != _BASIC_RESPONSE_OID:
        raise NotDer(f"responseType is {kind}, not id-pkix-ocsp-basic")
    octets = inner.take(OCTET_STRING, "response").content
    inner.end("responseBytes")
    return status, _basic_response(octets)


def _basic_response(encoded: bytes) -> BasicResponse:
    element = read(encoded).expect(SEQUENCE, "BasicOCSPResponse")
    check(element)
    outer = element.fields()
    signed = outer.take(SEQUENCE, "tbsResponseData")
    algorithm = outer.take(SEQUENCE, "signatureAlgorithm")
    signature = outer.take(BIT_STRING, "the response's signature").bits()
    embedded = outer.take_optional(CONTEXT | CONSTRUCTED)
    outer.end("BasicOCSPResponse")
    certificates = () if embedded is None else embedded.only_child(SEQUENCE, "certs").children()
    fields = signed.fields()
    name, key_hash = _responder_id(fields.take_any("responderID"))
    produced_at = fields.take(GENERALIZED_TIME, "producedAt").time()
    singles = tuple(_single_response(one) for one in fields.take(SEQUENCE, "responses").children())
    found = extensions(fields.take_optional(CONTEXT | CONSTRUCTED | 1))
    fields.end("tbsResponseData")
    return BasicResponse(
        signed.encoded, name, key_hash, produced_at, singles, found, algorithm, signature,
        tuple(certificate(one.encoded) for one in certificates),
    )  # fmt: skip


def _responder_id(element: Element) -> tuple[bytes | None, bytes | None]:
    """Return the responder's name or its key's hash. The version before it is v1, and DER does not encode a default."""
    if element.tag == CONTEXT | CONSTRUCTED | 1:
        return element.only_child(SEQUENCE, "byName").encoded, None
    element.expect(CONTEXT | CONSTRUCTED | 2, "responderID")
    return None, element.only_child(OCTET_STRING, "byKey").content


def _single_response(element: Element) -> SingleResponse:
    fields = element.expect(SEQUENCE, "a SingleResponse").fields()
    hash_oid, name_hash, key_hash, serial = _cert_id(fields.take(SEQUENCE, "certID").fields())
    status, revoked_at, reason = _cert_status(fields.take_any("certStatus"))
    this_update = fields.take(GENERALIZED_TIME, "thisUpdate").time()
    following = fields.take_optional(CONTEXT | CONSTRUCTED)
    next_update = None if following is None else following.only_child(GENERALIZED_TIME, "nextUpdate").time()
    found = extensions(fields.take_optional(CONTEXT | CONSTRUCTED | 1))
    fields.end("a SingleResponse")
    return SingleResponse(
        hash_oid, name_hash, key_hash, serial, status, revoked_at, reason, this_update, next_update, found
    )


def _cert_id(fields: Fields) -> tuple[str, bytes, bytes, int]:
    hash_oid = algorithm_oid(fields.take(SEQUENCE, "hashAlgorithm"))
    name_hash = fields.take(OCTET_STRING, "issuerNameHash").content
    key_hash = fields.take(OCTET_STRING, "issuerKeyHash").content
    serial = fields.take(INTEGER, "serialNumber").integer()
    fields.end("certID")
    return hash_oid, name_hash, key_hash, serial


def algorithm_oid(algorithm: Element) -> str:
    """Return the OID of an AlgorithmIdentifier without parameters: absent, or NULL. Raises NotDer."""
    fields = algorithm.fields()
    oid = fields.take(OID, "algorithm").oid()
    nothing = fields.take_optional(NULL)
    if nothing is not None and nothing.content:
        raise NotDer("a NULL is not empty")
    fields.end("AlgorithmIdentifier")
    return oid


def _cert_status(element: Element) -> tuple[str, datetime.datetime | None, int | None]:
    status = _STATUS_TAGS.get(element.tag)
    if status is None:
        raise NotDer(f"certStatus has tag 0x{element.tag:02x}")
    if status != "revoked":
        if element.content:
            raise NotDer("a NULL is not empty")
        return status, None, None
    fields = element.fields()
    revoked_at = fields.take(GENERALIZED_TIME, "revocationTime").time()
    reason = fields.take_optional(CONTEXT | CONSTRUCTED)
    fields.end("revoked")
    code = None if reason is None else reason.only_child(ENUMERATED, "revocationReason").integer()
    return status, revoked_at, code
