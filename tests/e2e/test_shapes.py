"""Every shape of site ends with the new certificate served, or is refused with nothing changed.

Here lineages are minted and the use cases called; `make test-long` does the same by certbot and its CA.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system.lineages import Options
from e2e import minted, road, shapes
from e2e.shapes import NAME, Shape
from e2e.world import Run, World, snapshot

REAL = sorted(path.name for path in road.REAL_SITES.glob("*.conf")) if road.REAL_SITES.is_dir() else []
NAMES_OF_REAL = {
    "community-subpath-http.conf": "home.seafile.com",
    "manual2024-subpath-proxy.conf": "www.example.com",
    "community-subpath-https.conf": "home.seafile.com",
    "community-subpath-https-final.conf": "home.seafile.com",
    "community-subpath-https-stapling.conf": "home.seafile.com",
}
#: What the CA itself refuses: it does not speak the PROXY protocol.
BY_THE_CA = "Some challenges have failed"
#: The OCSP response tryLater (RFC 6960 4.2.1): nginx starts with it.
TRY_LATER = b"\x30\x03\x0a\x01\x03"


def build(world: World, shape: Shape) -> None:
    """Write a shape's files and start the servers."""
    ports = {8080: world.other_http_port, 8443: world.other_https_port}
    for name, text in shape.snippets.items():
        (world.server_root / "snippets" / name).write_bytes(world.adapt(text.encode(), ports))
    for name, text in shape.others.items():
        world.write_site(name, world.adapt(text.encode(), ports))
    world.write_site(road.SITE_NAME, world.adapt(shape.content, ports))
    _provide_by_name(world)
    if starts(world):
        world.start_nginx()


def starts(world: World) -> bool:
    """Tell whether this machine's nginx can start with the sites that are there."""
    return world.run(world.nginx_ctl, "-t", check=False).exit_code == 0


def _provide_by_name(world: World) -> None:
    """Let a certificate path with a variable in it find a file."""
    folder = world.path("/etc/ssl")
    for ending, like in ((".pem", "cacert.pem"), (".key", "privkey.pem")):
        if (folder / like).exists():
            (folder / f"{NAME}{ending}").write_bytes((folder / like).read_bytes())


def certonly(world: World, name: str, *words: str | Path) -> Run:
    """Run the one line for a name."""
    return world.certbot("certonly", "-a", "seafile", "-d", name, *world.plugin_options, *words, check=False)


def assert_refused(world: World, run: Run, before: dict[str, tuple[int, bytes]], phrase: str) -> None:
    """Assert that a run was refused with the phrase, without a traceback, and with nothing changed."""
    assert run.exit_code == 1, run
    assert phrase in run.output
    assert "Traceback" not in run.output
    assert changed(before, snapshot(world.server_root)) == {}


def changed(before: dict[str, tuple[int, bytes]], now: dict[str, tuple[int, bytes]]) -> dict[str, object]:
    """Return what differs between two snapshots, by path, as short as can be."""
    return {path: (before.get(path), now.get(path)) for path in before | now if before.get(path) != now.get(path)}


def assert_served(world: World, run: Run, before: dict[str, tuple[int, bytes]], name: str, tls_port: int) -> None:
    """Assert that the certificate is served, a second run changes nothing, renewal works, and undo restores."""
    assert run.exit_code == 0, run
    told = [line for line in run.output.splitlines() if not line.endswith("[SEAFILE-NO-ANSWER]")]
    assert "error" not in "\n".join(told).lower(), run
    assert world.handshake(name, tls_port).certificate == world.leaf(name)
    after = snapshot(world.server_root)
    world.seafile("--https-port", str(world.https_port), "deploy", "--cert-name", name)
    assert changed(after, snapshot(world.server_root)) == {}
    world.certbot("renew", "--force-renewal")
    assert world.handshake(name, tls_port).certificate == world.leaf(name)
    assert changed(after, snapshot(world.server_root)) == {}
    world.seafile("undo")
    assert changed(before, snapshot(world.server_root)) == {}


def assert_deployed(world: World, chosen: Options, before: dict[str, tuple[int, bytes]], name: str, port: int) -> None:
    """Assert that a certificate is served, a second run changes nothing, a renewal is served, and undo restores."""
    minted.issue(world, name, chosen)
    assert world.handshake(name, port).certificate == world.leaf(name)
    after = snapshot(world.server_root)
    minted.renew(world, name, chosen)
    assert world.handshake(name, port).certificate == world.leaf(name)
    assert changed(after, snapshot(world.server_root)) == {}
    assert minted.take_back(world, chosen)
    assert changed(before, snapshot(world.server_root)) == {}


def tls_port(world: World, shape: Shape) -> int:
    """Return the port on which the shape's site speaks TLS."""
    return world.other_https_port if "8443" in shape.content.decode("latin-1") else world.https_port


MINTED = {title: shape for title, shape in shapes.SHAPES.items() if shape.refused != BY_THE_CA}


@pytest.mark.parametrize("shape", MINTED.values(), ids=list(MINTED))
def test_shape(world: World, shape: Shape) -> None:
    """The shape ends served or refused, as its row says."""
    build(world, shape)
    before = snapshot(world.server_root)
    chosen = minted.options(world, **({"site": str(world.sites / road.SITE_NAME)} if "SITE" in shape.words else {}))
    could_start = starts(world)
    assert could_start or shape.refused or shape.is_old
    if could_start and not shape.refused:
        assert_deployed(world, chosen, before, NAME, tls_port(world, shape))
        return
    with pytest.raises(errors.Error) as refused:
        minted.issue(world, NAME, chosen)
    assert (shape.refused or "unknown directive") in str(refused.value)
    assert changed(before, snapshot(world.server_root)) == {}


def build_real(world: World, file_name: str) -> str:
    """Write a real site and what it names; return the name that it is asked for by."""
    content = road.real_site(file_name)
    world.write_site(road.SITE_NAME, world.adapt(content, stand_in_lineages=True))
    name = NAMES_OF_REAL.get(file_name, NAME)
    if b"ssl_stapling_file" in content:
        staple = world.staple_dir / name / "ocsp.response"
        staple.parent.mkdir(parents=True)
        staple.write_bytes(TRY_LATER)
    if b"letsencrypt/live" in content:
        _move_lineage_away(world)
    assert starts(world) or file_name.startswith(("xfail-", "manual2020-"))
    return name


@pytest.mark.parametrize("file_name", REAL)
def test_real_site(world: World, file_name: str) -> None:
    """A real site as people have it ends served; one that nginx refuses is refused."""
    name = build_real(world, file_name)
    before = snapshot(world.server_root)
    if starts(world):
        world.start_nginx()
        assert_deployed(world, minted.options(world), before, name, world.https_port)
        return
    with pytest.raises(errors.NginxRefused, match="unknown directive"):
        minted.issue(world, name, minted.options(world))
    assert changed(before, snapshot(world.server_root)) == {}


@pytest.mark.long
@pytest.mark.parametrize("shape", shapes.SHAPES.values(), ids=list(shapes.SHAPES))
def test_shape_by_certbot(world: World, shape: Shape) -> None:
    """certbot and its CA see the shape as the minted lineages do."""
    build(world, shape)
    world.start_pebble(ocsp=False)
    before = snapshot(world.server_root)
    words = [str(world.sites / road.SITE_NAME) if word == "SITE" else word for word in shape.words]
    could_start = starts(world)
    run = certonly(world, NAME, *words)
    if shape.refused or not could_start:
        assert_refused(world, run, before, shape.refused or "unknown directive")
    else:
        assert_served(world, run, before, NAME, tls_port(world, shape))


@pytest.mark.long
@pytest.mark.parametrize("file_name", REAL)
def test_real_site_by_certbot(world: World, file_name: str) -> None:
    """certbot and its CA see a real site as the minted lineages do."""
    name = build_real(world, file_name)
    could_start = starts(world)
    world.start_pebble(ocsp=False)
    if could_start:
        world.start_nginx()
    before = snapshot(world.server_root)
    run = certonly(world, name)
    if not could_start:
        assert_refused(world, run, before, "unknown directive")
    else:
        assert_served(world, run, before, name, world.https_port)


def _move_lineage_away(world: World) -> None:
    """Let the site name a self-signed pair elsewhere: certbot refuses a lineage whose folder exists."""
    site = world.sites / road.SITE_NAME
    stand_in = world.config_dir / "live"
    stand_in.rename(world.config_dir / "stand-in")
    site.write_bytes(site.read_bytes().replace(b"/etc/letsencrypt/live/", b"/etc/letsencrypt/stand-in/"))
