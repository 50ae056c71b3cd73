"""Which sets of chain and key may be served, and that whatever bytes come in, a Bundle or a refusal comes out."""

from __future__ import annotations

import base64
import contextlib
import datetime
import functools
import ipaddress
import random
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

import authority
from authority import DAY, Identity
from certbot_seafile import errors
from certbot_seafile.sealed import bundle
from certbot_seafile.sealed.bundle import Bundle

NOW = datetime.datetime(2026, 6, 1, 12, 0, tzinfo=datetime.UTC)
NAME = "seafile.example.com"
CA = authority.make_ca()
ISSUER = authority.make_ca("Test issuer", signed_by=CA)


def make_leaf(*names: str, issuer: Identity = ISSUER, **options: object) -> Identity:
    """Make a server's certificate that is valid at NOW."""
    return authority.make_leaf(issuer, names or (NAME,), **{"now": NOW, **options})  # type: ignore[arg-type]


def make(leaf: Identity, *issuers: Identity, key: authority.Key | None = None) -> Bundle:
    """Put a set together: by default with the leaf's own key and the intermediate CA."""
    chain = (leaf.certificate, *(issuer.certificate for issuer in issuers or (ISSUER,)))
    return Bundle(chain, key or leaf.key)  # type: ignore[arg-type]


def pem(label: str, encoded: bytes) -> bytes:
    """Return a PEM block."""
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(encoded) + f"-----END {label}-----\n".encode()


def reasons(bundle_or_bytes: Bundle | bytes, *names: str) -> tuple[str, ...]:
    """Return why a set is refused; () where it is fit."""
    try:
        if isinstance(bundle_or_bytes, bytes):
            bundle.parse(bundle_or_bytes)
        else:
            bundle.refuse_unfit(bundle_or_bytes, names or (NAME,), NOW)
    except errors.BundleRefused as error:
        return tuple(error.reasons)
    return ()


# --- reading ---------------------------------------------------------------------------------------------------------

LEAF = make_leaf()
CHAIN = LEAF.certificate_pem + ISSUER.certificate_pem


@pytest.mark.parametrize("response", [None, b"", b"DER" * 700])
@pytest.mark.parametrize("make_key", [authority.rsa_key, authority.ecdsa_key])
def test_a_handover_file_says_all_that_the_set_is(
    make_key: Callable[[], authority.Key], response: bytes | None
) -> None:
    """What was written is read again, with the leaf first and the response last."""
    leaf = make_leaf(key=make_key())
    written = Bundle((leaf.certificate, ISSUER.certificate), leaf.key, response)  # type: ignore[arg-type]
    again = bundle.parse(written.pem())
    assert again == written
    assert (again.leaf, again.issuers) == (leaf.certificate, (ISSUER.certificate,))
    assert (again.chain_pem, again.key_pem, again.pem()) == (written.chain_pem, leaf.key_pem, written.pem())


def test_certbots_own_files_are_read_in_a_row() -> None:
    """The other form of an RSA or ECDSA key is read too, and so are text and parameters between the blocks."""
    for leaf, label in ((make_leaf(key=authority.rsa_key()), "RSA"), (LEAF, "EC")):
        key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        assert f"BEGIN {label} PRIVATE KEY".encode() in key
        content = b"subject=\xff\n" + leaf.certificate_pem + ISSUER.certificate_pem + pem("EC PARAMETERS", b"") + key
        assert bundle.parse(content.replace(b"\n", b"\r\n")) == make(leaf)


def encrypted(form: PrivateFormat) -> bytes:
    """Return the leaf's key with a password."""
    return LEAF.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


@functools.cache
def large_rsa_key(bits: int) -> rsa.RSAPrivateKey:
    """Make an RSA key that is not of 2048 bits."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def key_of(*numbers: int, suffix: bytes = b"") -> bytes:
    """Return the PEM of an RSA key (RFC 8017 A.1.2) with these numbers."""
    return pem("RSA PRIVATE KEY", authority.sequence(*map(authority.integer, numbers)) + suffix)


def with_attributes(key: authority.Key) -> bytes:
    """Return a key that works, and that has what an RSA key may have (RFC 5958 2), but never has."""
    encoded = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    return pem("PRIVATE KEY", authority.sequence(*authority.elements(encoded), b"\xa0\0"))


MERSENNE = 2**19937 - 1  # a prime, at which OpenSSL computes for minutes
SLOW = (0, 35, 65537, 3, MERSENNE, 2**127 - 1, 1, 1, 1)
ED25519 = make_leaf(key=authority.KEYS["Ed25519"]())
SLOW_PKCS8 = authority.sequence(
    authority.integer(0),
    authority.algorithm("1.2.840.113549.1.1.1", authority.NULL),
    authority.tlv(0x04, authority.sequence(*map(authority.integer, SLOW))),
)

UNREADABLE: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it holds 0 certificates instead of 1 to 10|it holds 0 private keys instead of one"),
    "no certificate": (LEAF.key_pem, "it holds 0 certificates instead of 1 to 10"),
    "no key": (CHAIN, "it holds 0 private keys instead of one"),
    "two keys": (CHAIN + LEAF.key_pem * 2, "it holds 2 private keys instead of one"),
    "11 certificates": (LEAF.certificate_pem * 11 + LEAF.key_pem, "it holds 11 certificates instead of 1 to 10"),
    "3,000 certificates": (
        pem("CERTIFICATE", b"") * 3000 + LEAF.key_pem,
        "it holds 3000 certificates instead of 1 to 10",
    ),
    "two responses": (
        CHAIN + LEAF.key_pem + pem("OCSP RESPONSE", b"0") * 2,
        "it holds 2 OCSP responses instead of one at most",
    ),
    "a response that is not base64": (
        CHAIN + LEAF.key_pem + b"-----BEGIN OCSP RESPONSE-----\n\xff\n-----END OCSP RESPONSE-----\n",
        "the OCSP response cannot be read",
    ),
    "a file that is being written": ((CHAIN + LEAF.key_pem)[:-30], "a PEM block in it has no end"),
    "encrypted, PKCS #8": (CHAIN + encrypted(PrivateFormat.PKCS8), "the private key is encrypted"),
    "encrypted, OpenSSL": (CHAIN + encrypted(PrivateFormat.TraditionalOpenSSL), "the private key is encrypted"),
    "Ed25519": (ED25519.certificate_pem + ED25519.key_pem, "the private key is neither RSA nor ECDSA"),
    "RSA-8192, by its size": (CHAIN + pem("PRIVATE KEY", bytes(4700)), "the private key is larger than 4096 bytes"),
    "a prime of 19,937 bits": (CHAIN + key_of(*SLOW), "the private key is larger than RSA-4096"),
    "the same in PKCS #8": (CHAIN + pem("PRIVATE KEY", SLOW_PKCS8), "the private key is larger than RSA-4096"),
    "the same, and more behind it": (
        CHAIN + key_of(*SLOW, suffix=b"\x30\x00"),
        "the private key is larger than RSA-4096",
    ),
    "the same in BER": (
        CHAIN + pem("RSA PRIVATE KEY", b"\x30\x80" + b"".join(map(authority.integer, (0, 35, *[3] * 90))) + b"\0\0"),
        "the private key cannot be read",
    ),
    "an octet string in parts": (CHAIN + pem("PRIVATE KEY", b"\x24" + bytes(300)), "the private key cannot be read"),
    "a part that no key has": (CHAIN + with_attributes(authority.rsa_key()), "the private key cannot be read"),
    "a key that is cut off": (CHAIN + pem("PRIVATE KEY", SLOW_PKCS8[:300]), "the private key is larger than RSA-4096"),
    "a key without content": (CHAIN + pem("PRIVATE KEY", b""), "the private key cannot be read"),
    "depth": (CHAIN + pem("PRIVATE KEY", b"\x30\x82\xff\xff" * 700), "the private key cannot be read"),
    "no DER": (pem("CERTIFICATE", b"\x1b[31m") + LEAF.key_pem, "a certificate cannot be read"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_what_is_no_set_is_refused_before_it_costs_anything(case: str) -> None:
    """Counts and sizes are looked at first, and nothing of the content is quoted."""
    content, expected = UNREADABLE[case]
    assert reasons(content) == tuple(expected.split("|"))


@pytest.mark.parametrize(("make_key", "times"), [(authority.ecdsa_key, 600), (authority.rsa_key, 30)])
def test_whatever_is_read_is_a_bundle_or_a_refusal(make_key: Callable[[], authority.Key], times: int) -> None:
    """Bytes changed at random, in the text and in the DER within, never end in another error."""
    chance = random.Random(14)
    leaf = make_leaf(key=make_key())
    encoded_key = base64.b64decode(b"".join(leaf.key_pem.splitlines()[1:-1]))
    for _ in range(times):
        parts = [bytearray(part) for part in (leaf.encoded, ISSUER.encoded, encoded_key)]
        changed = chance.choice(parts)
        for _ in range(chance.choice((1, 1, 2, 8))):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        labels = ("CERTIFICATE", "CERTIFICATE", "PRIVATE KEY")
        content = bytearray(b"".join(pem(label, bytes(part)) for label, part in zip(labels, parts, strict=True)))
        if chance.random() < 0.3:
            content[chance.randrange(len(content))] = chance.randrange(256)
        with contextlib.suppress(errors.BundleRefused):
            bundle.refuse_unfit(bundle.parse(bytes(content)), (NAME,), NOW)


# --- the judgement ---------------------------------------------------------------------------------------------------


def resigned(
    identity: Identity, issuer: Identity, signing: Callable[[authority.Key, bytes], authority.Signed]
) -> Identity:
    """Return a certificate that its issuer signed in another way."""
    version, serial, _, *rest = authority.elements(identity.certificate.tbs_certificate_bytes)
    algorithm, _ = signing(issuer.key, b"")
    signed = authority.sequence(version, serial, algorithm, *rest)
    encoded = authority.sequence(signed, algorithm, authority.tlv(0x03, b"\0" + signing(issuer.key, signed)[1]))
    return Identity(x509.load_der_x509_certificate(encoded), identity.key)


def sign_with_md5(key: authority.Key, data: bytes) -> authority.Signed:
    """Name MD5; nobody looks at the signature."""
    return authority.algorithm("1.2.840.113549.1.1.4", authority.NULL), authority.sign(key, data)[1]


SHA1, RSA_CA = authority.sign_with_sha1, authority.make_ca("RSA CA", authority.rsa_key())
MD5_LEAF = resigned(make_leaf(issuer=RSA_CA), RSA_CA, sign_with_md5)
TWIN = authority.make_ca("Test issuer", signed_by=CA)  # the same name, another key
SHA1_ISSUER = resigned(ISSUER, CA, SHA1)
WRONG_KEY = "the private key does not belong to the certificate"


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (lambda: make(LEAF), ""),
        (lambda: make(LEAF, ISSUER, CA), ""),
        (lambda: make(make_leaf(issuer=CA), CA), ""),
        (lambda: Bundle((LEAF.certificate,), make(LEAF).key), ""),
        (lambda: make(LEAF, ISSUER, resigned(CA, CA, SHA1)), ""),
        (lambda: make(make_leaf(key=authority.rsa_key())), ""),
        (lambda: make(make_leaf(key=large_rsa_key(4096))), ""),
        (lambda: make(make_leaf(key=authority.KEYS["ECDSA P-384"]())), ""),
        (lambda: make(LEAF, key=authority.ecdsa_key()), WRONG_KEY),
        (lambda: make(LEAF, key=authority.rsa_key()), WRONG_KEY),
        (
            lambda: make(make_leaf(key=large_rsa_key(1024))),
            "the private key is RSA with 1024 bits instead of 2048 to 4096",
        ),
        (
            lambda: make(make_leaf(key=large_rsa_key(4104))),
            "the private key is RSA with 4104 bits instead of 2048 to 4096",
        ),
        (
            lambda: make(make_leaf(key=ec.generate_private_key(ec.SECP256K1()))),
            "the private key is on the curve secp256k1 instead of P-256 or P-384",
        ),
        (
            lambda: make(make_leaf(key=ec.generate_private_key(ec.SECP521R1()))),
            "the private key is on the curve secp521r1 instead of P-256 or P-384",
        ),
        (lambda: make(make_leaf("example.com")), f"the certificate is not for {NAME}"),
        (lambda: make(LEAF, CA), "certificate 1 of its chain is not signed by the next one"),
        (lambda: make(LEAF, TWIN), "certificate 1 of its chain is not signed by the next one"),
        (lambda: make(LEAF, ISSUER, TWIN), "certificate 2 of its chain is not signed by the next one"),
        (lambda: make(resigned(LEAF, ISSUER, SHA1)), "certificate 1 of its chain is signed with SHA-1"),
        (lambda: make(MD5_LEAF, RSA_CA), "certificate 1 of its chain is signed with MD5"),
        (lambda: make(LEAF, SHA1_ISSUER), "certificate 2 of its chain is signed with SHA-1"),
        (lambda: make(LEAF, SHA1_ISSUER, CA), "certificate 2 of its chain is signed with SHA-1"),
        (lambda: make(make_leaf(now=NOW + 31 * DAY)), "the certificate holds only from 2026-06-02 12:00 UTC on"),
        (lambda: make(make_leaf(now=NOW - 60 * DAY)), "the certificate expired on 2026-06-01 12:00 UTC"),
        (
            lambda: make(make_leaf("example.com", now=NOW - 61 * DAY), CA, key=authority.rsa_key()),
            f"the certificate is not for {NAME}|{WRONG_KEY}|certificate 1 of its chain is not signed by the next one"
            "|the certificate expired on 2026-05-31 12:00 UTC",
        ),
    ],
)
def test_a_set_is_served_only_where_clients_take_it(case: Callable[[], Bundle], expected: str) -> None:
    """Every reason is named, in plain words and with the time where it is about one."""
    assert reasons(case()) == tuple(expected.split("|") if expected else ())


@pytest.mark.parametrize(
    ("name", "names", "is_covered"),
    [
        (NAME, ("SeaFile.Example.COM",), True),
        (NAME, ("other.example.com", NAME), True),
        (NAME, ("*.example.com",), True),
        ("a.seafile.example.com", ("*.example.com",), False),
        ("example.com", ("*.example.com",), False),
        (NAME, ("sea*.example.com",), False),
        (NAME, ("seafile.*.com",), False),
        (NAME, ("*",), False),
        ("192.0.2.1", (), True),
        ("2001:DB8:0::1", (), True),
        ("192.0.2.2", ("192.0.2.2", "*.0.2.2"), False),
    ],
)
def test_a_name_is_covered_as_clients_see_it(name: str, names: tuple[str, ...], is_covered: bool) -> None:
    """A wildcard is a whole left-most label (RFC 6125 6.4.3); an address is no DNS name."""
    addresses = [ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")]
    leaf = authority.make_leaf(ISSUER, names, addresses=addresses, now=NOW)
    assert reasons(make(leaf), name) == (() if is_covered else (f"the certificate is not for {name}",))


def test_a_certificate_without_names_is_for_nobody() -> None:
    """The subject's common name does not count (RFC 6125 6.4.4)."""
    leaf = authority.make_certificate(NAME, ISSUER, begin=NOW - DAY, end=NOW + DAY)
    assert reasons(make(leaf), NAME, "192.0.2.1") == (
        f"the certificate is not for {NAME}",
        "the certificate is not for 192.0.2.1",
    )


def test_a_part_that_is_broken_within_is_a_refusal() -> None:
    """cryptography reads extensions late; what it raises then is no other failure than at once."""
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"\x30\x03\x82\x01\xff")
    leaf = authority.make_certificate(NAME, ISSUER, extensions=[(broken, False)], begin=NOW - DAY, end=NOW + DAY)
    assert reasons(make(leaf)) == ("a certificate cannot be read",)


def test_a_naive_time_is_the_callers_mistake() -> None:
    """It is not taken for a fault of the set."""
    with pytest.raises(TypeError, match="naive"):
        bundle.refuse_unfit(make(LEAF), (NAME,), NOW.replace(tzinfo=None))
