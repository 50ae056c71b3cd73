"""Certificates that a DNS plugin has got: served on the server blocks whose names they cover, without challenges."""

from __future__ import annotations

from certbot_seafile.system import lineages
from certbot_seafile.usecases import deploy
from e2e import minted, road
from e2e.world import World

WILDCARD = "*.seafile.com"


def test_a_wildcard_is_served_where_it_covers_the_name(world: World) -> None:
    """The site gets certificate and staple's include, no location for challenges; upkeep leaves it so, undo too."""
    site = world.adapt(road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name home.seafile.com;"))
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    chosen = minted.options(world)
    context = minted.context(world, chosen)
    lineage = minted.mint(world, "seafile.com", chosen, names=[WILDCARD], ocsp_urls=())
    renewal = world.config_dir / "renewal" / "seafile.com.conf"
    renewal.write_text(renewal.read_text().replace("authenticator = seafile", "authenticator = dns-cloudflare"))
    deploy.deploy(context, lineages.load(str(world.config_dir), "seafile.com"))
    edited = road.site_bytes(world)
    assert world.handshake(road.NAME).certificate == lineage.leaf
    assert b"acme-challenge" not in edited
    assert b"server_name home.seafile.com;" in edited
    deploy.keep(context, lineages.load(str(world.config_dir), "seafile.com"))
    assert road.site_bytes(world) == edited
    assert minted.take_back(world, chosen)
    assert road.site_bytes(world) == site


def test_a_wildcard_of_the_server_block_is_covered_too(world: World) -> None:
    """A block that has the wildcard as its name answers for any name below it."""
    site = world.adapt(road.TUTORIAL_SITE.replace(b"server_name   _;", b"server_name *.seafile.com;"))
    world.write_site(road.SITE_NAME, site)
    world.start_nginx()
    chosen = minted.options(world)
    lineage = minted.mint(world, "seafile.com", chosen, names=[WILDCARD], ocsp_urls=())
    deploy.deploy(minted.context(world, chosen), lineage)
    assert world.handshake("anything.seafile.com").certificate == lineage.leaf
