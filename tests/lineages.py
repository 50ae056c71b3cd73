"""Lineages as certbot lays them out, made without a CA server: for tests and benchmarks of many at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

import authority
from authority import Identity


def make(
    config_dir: Path, name: str, leaf: Identity, issuer: Identity, options: Mapping[str, object], *, number: int = 1
) -> None:
    """Write archive/, live/ and the renewal file of one lineage.

    options: further parameters of the renewal file. number: the version; live/ names it from then on.
    """
    archive, live = config_dir / "archive" / name, config_dir / "live" / name
    for folder in (archive, live, config_dir / "renewal"):
        folder.mkdir(parents=True, exist_ok=True)
    chain = issuer.certificate_pem
    kinds = {"cert": leaf.certificate_pem, "chain": chain, "fullchain": leaf.certificate_pem + chain,
             "privkey": leaf.key_pem}  # fmt: skip
    for kind, content in kinds.items():
        (archive / f"{kind}{number}.pem").write_bytes(content)
        (live / f"{kind}.pem").unlink(missing_ok=True)
        (live / f"{kind}.pem").symlink_to(f"../../archive/{name}/{kind}{number}.pem")
    lines = [f"{kind} = {live / kind}.pem" for kind in kinds]
    hook = {"renew_hook": "certbot-seafile deploy"}  # certbot writes it last
    parameters = {"authenticator": "seafile", "installer": "seafile", **options, **hook}
    lines += ["[renewalparams]", *(f"{key} = {value}" for key, value in parameters.items())]
    (config_dir / "renewal" / f"{name}.conf").write_text("\n".join(lines) + "\n")


def make_many(
    config_dir: Path, names: list[str], issuer: Identity, ocsp_url: str, options: Mapping[str, object]
) -> list[Identity]:
    """Write a lineage for each name, with a leaf of its own and one key for all; return the leaves."""
    key = authority.ecdsa_key()
    leaves = [authority.make_leaf(issuer, [name], ocsp_urls=[ocsp_url], key=key) for name in names]
    for name, leaf in zip(names, leaves, strict=True):
        make(config_dir, name, leaf, issuer, options)
    return leaves


def write_identity(folder: Path, identity: Identity) -> tuple[Path, Path]:
    """Write certificate and key as PEM; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate, key = folder / "issuer.pem", folder / "issuer.key"
    certificate.write_bytes(identity.certificate.public_bytes(Encoding.PEM))
    key.write_bytes(identity.key_pem)
    return certificate, key
