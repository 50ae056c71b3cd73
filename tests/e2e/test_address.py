"""Certificates for an IP address alone: served by the server block that answers clients who name nobody."""

from __future__ import annotations

import ipaddress
import re

import pytest

import authority
import lineages as lineages_on_disk
from certbot_seafile import errors
from certbot_seafile.system import challenge, lineages
from certbot_seafile.usecases import deploy, preflight
from e2e import looks, minted, road
from e2e.world import World

HERE, THERE = "127.0.0.1", "127.0.0.2"
SITE = """\
server {{
    listen {address}:80;
    server_name {name};
    return 301 https://$host$request_uri;
}}
server {{
    listen {address}:443 ssl;
    server_name {name};
    ssl_certificate /etc/ssl/cacert.pem;
    ssl_certificate_key /etc/ssl/privkey.pem;
    location / {{ proxy_pass http://127.0.0.1:8000; }}
    location /seafhttp {{ proxy_pass http://127.0.0.1:8082; }}
}}
"""


def write(world: World, address: str, name: str = "_") -> bytes:
    """Write a site that listens on one address; return its bytes."""
    site = world.adapt(SITE.format(address=address, name=name).encode())
    world.write_site(f"{address}.conf", site)
    return site


def mint(world: World, address: str) -> lineages.Lineage:
    """Write a lineage for one address, as certbot would, and load it."""
    leaf = authority.make_leaf(minted.issuer(), (), addresses=[ipaddress.ip_address(address)], ocsp_urls=())
    folders = {"seafile_ctl": world.nginx_ctl, "seafile_webroot": world.webroot, "seafile_staple_dir": world.staple_dir}
    ports = {"http01_port": world.http_port, "https_port": world.https_port}
    lineages_on_disk.make(world.config_dir, address, leaf, minted.issuer(), {**folders, **ports})
    return lineages.load(str(world.config_dir), address)


@pytest.mark.parametrize("address", [HERE, THERE])
def test_the_site_that_listens_on_the_address_serves_it(world: World, address: str) -> None:
    """Of two sites with an address of its own each; the other one stays as it is, and undo brings all back."""
    before = {each: write(world, each) for each in (HERE, THERE)}
    paths = {each: world.sites / f"{each}.conf" for each in (HERE, THERE)}
    world.start_nginx()
    chosen = minted.options(world)
    context = minted.context(world, chosen)
    request = preflight.Request((address,), None, "ecdsa", False, False)
    assert preflight.why_rsa(context, request) is None
    preflight.refuse_pairs(context, request)
    with challenge.answered(context, {(address, "token-of-the-ca"): b"what the CA expects"}):
        pass
    lineage = mint(world, address)
    deploy.deploy(context, lineage)
    other = THERE if address == HERE else HERE
    assert paths[other].read_bytes() == before[other]
    edited = paths[address].read_bytes()
    assert f"live/{address}/fullchain.pem".encode() in edited
    deploy.keep(context, lineages.load(str(world.config_dir), address))
    assert paths[address].read_bytes() == edited
    status = world.seafile("status")
    assert address in status.stdout
    check = world.seafile("check", "--root", str(world.folder), check=False).stdout
    assert re.findall(r"\[(?:CERT|SITE|STAPLE|CHALLENGE|RENEWAL)-", check) == []
    assert minted.take_back(world, chosen)
    assert {address: path.read_bytes() for address, path in paths.items()} == before


def test_the_nameless_site_serves_it(world: World) -> None:
    """The tutorial's site answers whoever names nobody, and gets no server_name for that."""
    world.write_site(road.SITE_NAME, world.adapt(road.TUTORIAL_SITE.replace(b"!ECDSA:", b"")))
    world.start_nginx()
    lineage = mint(world, HERE)
    deploy.deploy(minted.context(world, minted.options(world)), lineage)
    assert looks.handshake("", world.https_port).certificate == lineage.leaf
    assert road.site_bytes(world).count(b"server_name   _;") == 2


@pytest.mark.parametrize("others", ["blog.example.org", ""])
def test_clients_of_a_name_keep_its_certificate(world: World, others: str) -> None:
    """Whoever else is answered by the default server of the address is named, before the CA is asked."""
    site = write(world, HERE, "home.seafile.com")
    if others:
        blog = site.replace(b"home.seafile.com", others.encode()).replace(b"8082", b"7000").replace(b"8000", b"7000")
        world.write_site("0-blog.conf", blog)
    world.start_nginx()
    request = preflight.Request((HERE,), None, "ecdsa", False, False)
    with pytest.raises(errors.SiteRefused, match=f"change what others get: clients of {others or 'home.seafile.com'}"):
        preflight.why_rsa(minted.context(world, minted.options(world)), request)
    assert (world.sites / f"{HERE}.conf").read_bytes() == site
