"""A deployment without certbot: the use cases are called, lineages are minted, nginx is real.

The law of this module: what certbot and its CA do around a deployment is done by a few lines here, so that a test of
what is written into a site takes a second; where certbot's own behaviour is the point, tests run certbot.
"""

from __future__ import annotations

import argparse
import functools
import os
from collections.abc import Sequence
from typing import Any

import authority
import lineages as lineages_on_disk
from authority import Identity, Key
from certbot_seafile import assembly
from certbot_seafile.system import challenge, lineages
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy, preflight, undo
from e2e.world import World


@functools.cache
def issuer() -> Identity:
    """Return the CA of all minted lineages."""
    return authority.make_ca()


def options(world: World, **chosen: Any) -> Options:
    """Return the options that make the plugin work in this world instead of in the system."""
    folders = {"ctl": str(world.nginx_ctl), "webroot": str(world.webroot), "staple_dir": str(world.staple_dir)}
    return Options(**{**folders, **chosen}, http_port=world.http_port, https_port=world.https_port)


def context(world: World, chosen: Options) -> Context:
    """Return what use cases work with in this world; what they say is not shown."""
    from certbot import configuration

    folders = argparse.Namespace(
        config_dir=str(world.config_dir), work_dir=str(world.work_dir), logs_dir=str(world.logs_dir),
        http01_port=world.http_port, https_port=world.https_port, strict_permissions=False, domains=[], server="",
    )  # fmt: skip
    return assembly.context_for(
        configuration.NamespaceConfig(folders), chosen, lambda text: None, must_staple_tries=(0,)
    )


def mint(
    world: World,
    name: str,
    chosen: Options,
    *,
    names: Sequence[str] = (),
    key: Key | None = None,
    number: int = 1,
    **leaf: Any,
) -> Lineage:
    """Write a lineage as certbot would, with a leaf of its own (number: its version), and load it."""
    made = authority.make_leaf(issuer(), list(names) or [name], key=key or authority.rsa_key(), **leaf)
    saved = {f"seafile_{one}": value for one in ("site", "ctl", "webroot", "staple_dir", "stapling", "ocsp_url")
             if (value := getattr(chosen, one)) != getattr(Options(), one)}  # fmt: skip
    ports = {"http01_port": chosen.http_port, "https_port": chosen.https_port}
    lineages_on_disk.make(world.config_dir, name, made, issuer(), saved | ports, number=number)
    return load(world, name)


def load(world: World, name: str) -> Lineage:
    """Return a lineage that was minted."""
    return lineages.load(str(world.config_dir), name)


def issue(world: World, name: str, chosen: Options) -> Context:
    """Do what `certbot certonly -a seafile -d NAME` does: refuse, show the challenge, get a certificate, deploy it.

    Raises the package's errors.
    """
    working = context(world, chosen)
    working.nginx.test()
    request = preflight.Request((name,), None, "ecdsa", False, False)
    key = authority.rsa_key() if preflight.why_rsa(working, request) else authority.ecdsa_key()
    with challenge.answered(working, {(name, "token-of-the-ca"): b"what the CA expects"}):
        pass
    deploy.deploy(working, mint(world, name, chosen, key=key))
    return working


def renew(world: World, name: str, chosen: Options) -> Context:
    """Do what `certbot renew` does for a lineage that is due: the next version, deployed."""
    working = context(world, chosen)
    number = len(os.listdir(world.config_dir / "archive" / name)) // 4 + 1
    key = authority.rsa_key() if lineages.load(str(world.config_dir), name).key_type == "rsa" else None
    deploy.deploy(working, mint(world, name, chosen, key=key or authority.ecdsa_key(), number=number))
    return working


def take_back(world: World, chosen: Options) -> bool:
    """Do what `certbot-seafile undo` does; return whether all was taken out."""
    names = lineages.names_of_plugin(str(world.config_dir))
    return not undo.undo(context(world, chosen), names, is_whole=True)
