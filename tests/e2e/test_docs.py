"""The commands of the pages are run, one after another, in the order in which a person reads them."""

from __future__ import annotations

import difflib
import re
import shlex
from pathlib import Path
from xml.etree import ElementTree

import pytest

from e2e import road
from e2e.world import Run, World

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: The pages whose commands are run here, in this order; those of without-root.md are in test_without_root.py.
READ = ("first-certificate.md", "renewal.md", "staples.md", "undo.md")
PAGES = (*READ, "index.md", "without-root.md", "reference.md", "troubleshooting.md")

#: The names on these pages: the tutorial's site, one without TLS, and two by certbot's webroot plugin.
HOME, OFFICE, BY_HAND, PHOTOS = "home.seafile.com", "office.seafile.com", "files.seafile.com", "photos.seafile.com"

_FENCE = re.compile(r"^(```+)(\S*)[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
_SYSTEM_PATH = re.compile(r"/(?:etc|var|opt|usr)/")

_PLAIN = b"""\
server {
    listen 80;
    server_name %s;
    location /.well-known/ { root /var/www/letsencrypt; }
    location / {
        proxy_pass http://127.0.0.1:8000;
        proxy_set_header Host $host;
        client_max_body_size 0;
        proxy_read_timeout 1200s;
    }
}
"""


def blocks(page: str) -> list[tuple[str, str]]:
    """Return language and text of the fenced blocks of a page."""
    return [(kind, text) for _, kind, text in _FENCE.findall((DOCS / page).read_text(encoding="utf-8"))]


def commands(page: str) -> list[str]:
    """Return the commands of a page's console blocks, without prompt and sudo."""
    lines = [line for kind, text in blocks(page) if kind == "console" for line in text.splitlines()]
    return [re.sub(r"^[$#] (?:sudo )?", "", line) for line in lines if line.startswith(("$ ", "# "))]


def run(world: World, command: str) -> Run:
    """Run a command of a page with the world's paths and ports; it is expected to exit 0."""
    program, *words = shlex.split(command)
    words = [str(world.path(word)) if _SYSTEM_PATH.match(word) else word for word in words]
    if program == "certbot":
        # What gets or installs a certificate says where this world is; after that the renewal file remembers it.
        verb = next((word for word in words if not word.startswith("-")), "")
        chosen = world.plugin_options if verb in ("certonly", "run", "install") else []
        return world.certbot(*words, *chosen)
    assert program == "certbot-seafile", command
    places = ["--seafile-ctl", str(world.nginx_ctl), "--seafile-staple-dir", str(world.staple_dir)]
    return world.seafile(*places, *words, *(["--root", str(world.folder)] if words[0] == "check" else []))


@pytest.fixture
def at_home(world: World) -> World:
    """Return a world with the sites that these pages are about, before its first command."""
    world.start_pebble(must_staple=True)
    world.start_responder()
    world.start_seafile()
    world.write_site("default", world.adapt(road.TUTORIAL_SITE))
    available = world.server_root / "sites-available"
    available.mkdir()
    (available / "office").write_bytes(world.adapt(_PLAIN % OFFICE.encode()))
    (world.sites / "office").symlink_to(available / "office")
    for name in (BY_HAND, PHOTOS):
        world.write_site(name, world.adapt(_PLAIN % name.encode()))
    world.webroot.mkdir(parents=True, exist_ok=True)
    world.start_nginx()
    road.give_scheduler(world)
    for name in (BY_HAND, PHOTOS):
        world.certbot("certonly", "--webroot", "-w", world.webroot, "-d", name)
    return world


@pytest.mark.long
def test_the_commands_of_the_pages_work_in_their_order(at_home: World) -> None:
    """Each exits 0, and at the end every site is as it was before the first."""
    sites = {path: path.read_bytes() for path in at_home.sites.iterdir()}
    every = [command for page in READ for command in commands(page)]
    for command in every:
        run(at_home, command)
        if command == f"certbot certonly -a seafile -d {HOME}":
            assert road.staples_lineage(at_home)
        if command == "certbot-seafile undo":
            assert {path: path.read_bytes() for path in sites} == sites
    assert every.count("certbot-seafile undo") == 1


@pytest.mark.parametrize("page", PAGES)
def test_no_command_hides_in_another_kind_of_block(page: str) -> None:
    """Commands stand in console blocks, where they are found; only pages whose commands are run have them."""
    is_run = page in (*READ, "without-root.md")
    assert {kind for kind, _ in blocks(page)} <= ({"console"} if is_run else {"{toctree}"})


def test_the_picture_of_the_edits_is_what_the_command_does(world: World) -> None:
    """Each added and each taken line of the tutorial's site stands in the README's picture, in order, and no other."""
    before = road.start(world)
    road.certonly(world)
    old, new = (
        content.decode().replace(str(world.folder), "").splitlines() for content in (before, road.site_bytes(world))
    )
    lines = difflib.unified_diff(old, new, n=0, lineterm="")
    edits = [line for line in lines if not line.startswith(("@@", "---", "+++"))]
    picture = ElementTree.parse(DOCS / "pictures" / "edits.svg")
    shown = ["".join(text.itertext()) for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert [line for line in shown if line.startswith(("+", "-"))] == edits
