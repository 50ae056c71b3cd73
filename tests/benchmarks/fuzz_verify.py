"""Mutations of good OCSP responses by the hundred thousand: python tests/benchmarks/fuzz_verify.py [COUNT [SEED]]

What holds for each: it is refused by one of our errors, or what the CA signed is unchanged in it and the verdict is
the same. And what the CA itself signed in a mutated form is refused, or keeps the rules. What is accepted, `openssl
ocsp` takes too. Whatever breaks this ends the run with the response in hexadecimal. The property tests run a few
thousand of the same.
"""

from __future__ import annotations

import dataclasses
import datetime
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import authority
from authority import DAY, HOUR, Identity
from certbot_seafile import errors
from certbot_seafile.ocsp import verify
from certbot_seafile.ocsp.verify import Staple

NOW = datetime.datetime(2026, 6, 1, 12, 0, tzinfo=datetime.UTC)


class Violation(AssertionError):
    """A mutation was accepted although it changes what is served or what was signed, or clients refuse it."""


def openssl_takes(
    response: bytes,
    leaf: x509.Certificate,
    chain: Sequence[x509.Certificate],
    roots: Sequence[x509.Certificate],
    *options: str,
) -> bool:
    """Tell whether `openssl ocsp` says that a response verifies and is good; its window is not looked at.

    chain: the issuer, and what else is served; roots: what the client trusts; options: further ones of the command.
    """
    with tempfile.TemporaryDirectory() as folder:
        response_path = Path(folder, "response")
        response_path.write_bytes(response)
        command = ["openssl", "ocsp", "-respin", str(response_path), "-no-CApath", "-no_nonce", *options]
        for option, certificates in (
            ("-issuer", chain[:1]),
            ("-cert", [leaf]),
            ("-verify_other", chain),
            ("-CAfile", roots),
        ):
            path = Path(folder, option)
            path.write_bytes(b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates))
            command += [option, str(path)]
        run = subprocess.run(command, capture_output=True, check=False)
    is_good = any(line.rpartition(b": ")[2] == b"good" for line in run.stdout.splitlines())
    return run.returncode == 0 and b"Response verify OK" in run.stderr and is_good


@dataclass(frozen=True)
class Target:
    """A good response, what the CA signed in it, and the verdict on it."""

    name: str
    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    response: bytes
    signed: bytes
    respond: Callable[[bytes], bytes]  # around other bytes instead of what was signed
    expected: Staple

    def verify(self, response: bytes) -> Staple:
        """Verify a mutation."""
        return verify.verify(response, self.leaf, self.chain, NOW)

    def verdict(self, response: bytes) -> str:
        """Return "refused" or "harmless". Raises Violation."""
        try:
            staple = self.verify(response)
        except errors.ResponseRefused as refused:
            return _worded(refused)
        if self.signed not in response or dataclasses.replace(staple, response=self.response) != self.expected:
            raise Violation(f"accepted as {staple}")
        self._ask_openssl(response)
        return "harmless"

    def verdict_on_signed(self, signed: bytes) -> str:
        """Return "refused" or "kept the rules" for other bytes that the CA signed. Raises Violation."""
        response = self.respond(signed)
        try:
            staple = self.verify(response)
        except errors.ResponseRefused as refused:
            return _worded(refused)
        age, left = NOW - staple.this_update, staple.end - NOW
        if staple.serial != self.leaf.serial_number or not (
            -HOUR / 12 <= age < 10 * DAY and left > 25 * HOUR and staple.end <= staple.next_update
        ):
            raise Violation(f"accepted as {staple}")
        self._ask_openssl(response)
        return "kept the rules"

    def _ask_openssl(self, response: bytes) -> None:
        if not openssl_takes(response, self.leaf, self.chain, self.chain, "-no_check_time"):
            raise Violation("accepted, but not by openssl ocsp")


def _worded(refused: errors.ResponseRefused) -> str:
    if not refused.reasons or not all(reason and reason.isprintable() for reason in refused.reasons):
        raise Violation(f"refused without printable words: {refused.reasons!r}")
    return "refused"


def make_targets() -> list[Target]:
    """Make a response by an issuer with each kind of key, one by a delegate, and one with a needless certificate."""
    targets = [_target(f"issuer, {kind}", authority.make_ca(key=make())) for kind, make in authority.KEYS.items()]
    ca, rsa = authority.make_ca(), authority.make_ca("RSA CA", authority.rsa_key())
    delegate, rsa_delegate = (
        authority.make_delegate(issuer, key=key, begin=NOW - DAY, end=NOW + 60 * DAY)
        for issuer, key in ((ca, None), (rsa, authority.rsa_key(1)))
    )
    return [
        *targets,
        _target("RSA delegate", rsa, rsa_delegate),
        _target("delegate by name", ca, delegate, responder=authority.by_name),
        _target("delegate by key, whole chain", ca, delegate, certificates=[ca, delegate]),
    ]


def _target(
    name: str,
    ca: Identity,
    delegate: Identity | None = None,
    *,
    responder: Callable[[Identity], bytes] = authority.by_key,
    certificates: list[Identity] | None = None,
) -> Target:
    leaf = authority.make_leaf(ca, now=NOW).certificate
    signer, embedded = delegate or ca, certificates or ([delegate] if delegate else [])
    single = authority.single(authority.cert_id(leaf, ca.certificate), NOW - HOUR, NOW + 4 * DAY)
    extension = authority.extension("1.3.6.1.5.5.7.48.1.2", b"\x04\x04abcd")
    signed = authority.response_data(signer, [single], NOW, responder=responder, extensions=[extension])

    def respond(data: bytes) -> bytes:
        return authority.signed_response(signer.key, data, certificates=embedded)

    response = respond(signed)
    expected = verify.verify(response, leaf, [ca.certificate], NOW)
    return Target(name, leaf, (ca.certificate,), response, signed, respond, expected)


# --- mutations -------------------------------------------------------------------------------------------------------


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Return `data` with one to three things done to it; never `data` itself."""
    mutated = data
    while mutated == data:
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            mutated = chance.choice(_MUTATIONS)(mutated, chance)
    return mutated


def _turn_bit(data: bytes, chance: random.Random) -> bytes:
    return _replace(data, chance, lambda old: old ^ 1 << chance.randrange(8))


def _set_byte(data: bytes, chance: random.Random) -> bytes:
    return _replace(data, chance, lambda old: chance.choice((0, 1, 0x7F, 0x80, 0x81, 0xFF, chance.randrange(256))))


def _nudge(data: bytes, chance: random.Random) -> bytes:
    return _replace(data, chance, lambda old: (old + chance.choice((-1, 1))) % 256)


def _replace(data: bytes, chance: random.Random, change: Callable[[int], int]) -> bytes:
    if not data:
        return data
    at = chance.randrange(len(data))
    return data[:at] + bytes([change(data[at])]) + data[at + 1 :]


def _cut(data: bytes, chance: random.Random) -> bytes:
    begin, end = _range(data, chance)
    return data[:begin] + data[end:]


def _double(data: bytes, chance: random.Random) -> bytes:
    begin, end = _range(data, chance)
    return data[:end] + data[begin:]


def _insert(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at:]


def _end_early(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _range(data: bytes, chance: random.Random) -> tuple[int, int]:
    begin = chance.randrange(len(data) + 1)
    return begin, min(len(data), begin + chance.choice((1, 2, 5, 20, 100)))


_MUTATIONS = (_turn_bit, _turn_bit, _set_byte, _set_byte, _nudge, _cut, _double, _insert, _end_early)


def run(count: int, seed: int, targets: list[Target]) -> Counter[str]:
    """Verify `count` mutations; return how many had which verdict. Raises what breaks the law, with a note."""
    chance, verdicts = random.Random(seed), Counter[str]()
    for number in range(count):
        target = targets[number % len(targets)]
        is_signed = number // len(targets) % 4 == 3
        mutated = mutate(target.signed if is_signed else target.response, chance)
        try:
            verdict = target.verdict_on_signed(mutated) if is_signed else target.verdict(mutated)
        except Exception as error:
            error.add_note(f"{target.name}, seed {seed}, mutation {number}, signed: {is_signed}: {mutated.hex()}")
            raise
        verdicts[f"{'signed by the CA: ' if is_signed else ''}{verdict}"] += 1
    return verdicts


def main() -> None:
    """Run, and print seed, verdicts and speed."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"{count} mutations, seed {seed}", flush=True)
    start = time.perf_counter()
    for verdict, number in run(count, seed, make_targets()).most_common():
        print(f"{verdict:32} {number:8}")
    print(f"{(time.perf_counter() - start) / max(count, 1) * 1e6:.0f} microseconds for each, signing included")


if __name__ == "__main__":
    main()
