"""A world with many lineages, made without a CA server, and a responder for them."""

from __future__ import annotations

import authority
import lineages
from e2e.world import Issuer, World


def names(count: int) -> list[str]:
    """Return the lineages' names, sorted."""
    return [f"site{number:04d}.example.org" for number in range(count)]


def make_lineages(world: World, count: int) -> None:
    """Make the lineages, and start the responder of their CA."""
    ca = authority.make_ca("CA of many")
    issuer = Issuer(*lineages.write_identity(world.folder / "ca", ca))
    options = {
        "seafile_ctl": world.nginx_ctl,
        "seafile_staple_dir": world.staple_dir,
        "http01_port": world.http_port,
        "https_port": world.https_port,
    }
    lineages.make_many(world.config_dir, names(count), ca, world.ocsp_url, options)
    for folder in (world.work_dir, world.logs_dir):
        folder.mkdir(parents=True, exist_ok=True)
    world.start_responder(issuer)
