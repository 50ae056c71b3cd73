"""OpenSSL and GnuTLS as the judges: what we would staple, both take.

The law of this module: neither our verdict nor our encoder is believed. `openssl ocsp` and `ocsptool` are shown the
same responses as we are, with the chain that a server sends and the root that a client trusts.
"""

from __future__ import annotations

import datetime
import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import authority
from authority import DAY, HOUR, Identity
from benchmarks.fuzz_verify import openssl_takes
from certbot_seafile import errors
from certbot_seafile.ocsp import verify

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)  # the programs read the clock
SEEDS, RESPONSES = 8, 40
pytestmark = pytest.mark.usefixtures("tools")


@dataclass
class Authority:
    """A root, an intermediate that answers for its leaf, and what both programs say about its responses."""

    folder: Path
    key: Callable[[], authority.Key] = authority.ecdsa_key
    root: Identity = field(init=False)
    issuer: Identity = field(init=False)
    leaf: Identity = field(init=False)

    def __post_init__(self) -> None:
        self.root = authority.make_ca("Root")
        self.issuer = authority.make_ca("Issuer", self.key(), signed_by=self.root)
        self.leaf = authority.make_leaf(self.issuer)
        self.folder.joinpath("issuer").write_bytes(self.issuer.certificate_pem)

    def respond(self, signer: Identity, certificates: list[Identity], **options: object) -> bytes:
        """Return a response that is good but for who signs it, and for what stands beside it."""
        about = authority.cert_id(self.leaf.certificate, self.issuer.certificate)
        single = authority.single(about, NOW - HOUR, NOW + 4 * DAY)
        return authority.respond(signer, [single], NOW - HOUR, certificates=certificates, **options)  # type: ignore[arg-type]

    def is_stapled(self, response: bytes) -> bool:
        """Tell whether we would staple a response."""
        try:
            verify.verify(response, self.leaf.certificate, [self.issuer.certificate], NOW)
        except errors.ResponseRefused:
            return False
        return True

    def is_taken(self, response: bytes) -> bool:
        """Tell whether both programs take a response."""
        chain, roots = [self.issuer.certificate], [self.root.certificate]
        return openssl_takes(response, self.leaf.certificate, chain, roots) and self._gnutls_takes(response)

    def _gnutls_takes(self, response: bytes) -> bool:
        path = self.folder / "response"
        path.write_bytes(response)
        command = ["ocsptool", "--verify-response", "--load-signer", str(self.folder / "issuer")]
        run = subprocess.run([*command, "--load-response", str(path)], capture_output=True, check=False)
        return run.returncode == 0 and b"Verifying OCSP Response: Success" in run.stdout + run.stderr


@pytest.fixture(params=["ECDSA P-256", "RSA"])
def ca(tmp_path: Path, request: pytest.FixtureRequest) -> Authority:
    """Give an authority, once with each kind of key that CAs have."""
    return Authority(tmp_path, authority.KEYS[request.param])


@pytest.mark.parametrize("responder", [authority.by_key, authority.by_name])
@pytest.mark.parametrize("key", [authority.ecdsa_key, lambda: authority.rsa_key(1)], ids=["ECDSA", "RSA"])
def test_what_is_plainly_good_is_stapled_and_taken(
    ca: Authority, responder: Callable[[Identity], bytes], key: Callable[[], authority.Key]
) -> None:
    """By the issuer and by a delegate, by name and by key, alone and with the issuer's certificate."""
    delegate = authority.make_delegate(ca.issuer, key=key())
    for signer, certificates in (
        (ca.issuer, []),
        (ca.issuer, [ca.issuer]),
        (delegate, [delegate]),
        (delegate, [ca.issuer, delegate]),
        (delegate, [authority.make_ca("Stranger"), delegate, ca.root]),
    ):
        response = ca.respond(signer, certificates, responder=responder)
        assert ca.is_stapled(response)
        assert ca.is_taken(response)


@pytest.mark.parametrize("responder", [authority.by_key, authority.by_name])
def test_a_look_alike_put_first_is_not_stapled_because_it_is_not_taken(
    ca: Authority, responder: Callable[[Identity], bytes]
) -> None:
    """Anybody on the way can do that; our refusal is what keeps the site reachable."""
    delegate = authority.make_delegate(ca.issuer)
    name = x509.SubjectKeyIdentifier(authority.sha1(authority.key_bits(delegate.certificate)))
    look_alike = authority.make_certificate("Test responder", extensions=[(name, False)])
    response = ca.respond(delegate, [look_alike, delegate], responder=responder)
    assert not ca.is_taken(response)
    assert not ca.is_stapled(response)


def random_delegate(rng: random.Random, issuer: Identity) -> Identity:
    """Make a delegate with or without the purpose and further extensions, critical or not."""
    purposes = rng.choice([[authority.OCSP_SIGNING]] * 6 + [[], [authority.SERVER_AUTH]])
    curves: list[type[ec.EllipticCurve]] = [ec.SECP256R1, ec.SECP256R1, ec.SECP384R1, ec.SECP256K1]
    key = ec.generate_private_key(rng.choice(curves)())
    signs, commits, enciphers = (rng.random() < chance for chance in (0.8, 0.3, 0.3))
    further: list[x509.ExtensionType] = [
        x509.KeyUsage(signs, commits, enciphers, False, False, False, False, False, False),
        x509.BasicConstraints(ca=False, path_length=None),
        x509.OCSPNoCheck(),
        x509.SubjectAlternativeName([x509.DNSName("ocsp.example.com")]),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3.5"), None)]),
        x509.NameConstraints([x509.DNSName("example.com")], None),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), authority.NULL),
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()),
        x509.SubjectKeyIdentifier(b"q" * 20),
    ]
    chosen = {extension.oid: extension for extension in rng.sample(further, rng.randrange(3))}
    usages: list[x509.ExtensionType] = [x509.ExtendedKeyUsage(purposes)] if purposes else []
    extensions = [(extension, rng.random() < 0.5) for extension in [*usages, *chosen.values()]]
    return authority.make_certificate(
        rng.choice(["Responder", "Responder", "RESPONDER", "Issuer"]),
        rng.choice([issuer] * 8 + [authority.make_ca("Issuer")]),
        key=key,
        extensions=extensions,
        end=NOW + rng.choice([30, 30, 30, -1]) * DAY,
    )


def random_response(rng: random.Random, ca: Authority) -> bytes:
    """Make a response by the issuer or a delegate, with look-alikes and strangers before and behind it."""
    delegate = random_delegate(rng, ca.issuer)
    signer = rng.choice([ca.issuer, delegate, delegate])
    identifier = x509.SubjectKeyIdentifier(authority.sha1(authority.key_bits(signer.certificate)))
    others = [
        ca.issuer,
        ca.root,
        ca.leaf,
        delegate,
        authority.make_delegate(ca.issuer, name="Responder"),
        authority.make_certificate(rng.choice(["Responder", "responder", "Issuer", "ISSUER", "Root"])),
        authority.make_certificate("Stranger", extensions=[(identifier, False)]),
        authority.make_certificate("Thief", key=signer.key),
        authority.make_ca("Issuer", ca.issuer.key, signed_by=authority.make_ca("Old root")),
    ]
    certificates = rng.sample(others, rng.choice([0, 0, 1, 1, 2]))
    if signer is delegate and rng.random() < 0.97:
        certificates.insert(rng.randint(0, len(certificates)), delegate)
    responder = rng.choice([authority.by_key, authority.by_name])
    if rng.random() < 0.1:
        name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, rng.choice(["Responder", "Issuer", "issuer", "Nobody"]))]
        )
        return ca.respond(signer, certificates, responder=lambda _: authority.tlv(0xA1, name.public_bytes()))
    return ca.respond(signer, certificates, responder=responder)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_we_staple_is_taken_by_both(tmp_path: Path, seed: int) -> None:
    """For random delegates, look-alikes and names; most of what is not taken is refused by us for the same reason."""
    rng = random.Random(seed)
    ca = Authority(tmp_path)
    responses = [random_response(rng, ca) for _ in range(RESPONSES)]
    stapled = [response for response in responses if ca.is_stapled(response)]
    assert [response.hex() for response in stapled if not ca.is_taken(response)] == []
    assert 0 < len(stapled) < RESPONSES
