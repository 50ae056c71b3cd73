"""Undo goes by what nginx reads, and not by what was written down: our lines are gone, or they are named."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import authority
from certbot_seafile import errors
from certbot_seafile.system import challenge, serving, writing
from certbot_seafile.usecases import deploy, install, undo
from e2e import minted
from e2e.shapes import CERTIFICATE, NAME, PROXY, REDIRECT, SITE, plain, tls
from e2e.world import World

BLOG = "blog.example.com"


@pytest.fixture
def site(world: World) -> Path:
    """Return the site's file, in which a certificate is served."""
    path = world.write_site("seafile.conf", world.adapt(SITE.encode()))
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    return path


def before(world: World) -> bytes:
    """Return the site as it was."""
    return world.adapt(SITE.encode())


def undone(world: World, *, is_whole: bool = True, names: tuple[str, ...] = (NAME,)) -> list[str]:
    """Undo, and return what is left; nginx starts from what it finds."""
    context = minted.context(world, minted.options(world))
    left = undo.undo(context, names, is_whole=is_whole)
    context.nginx.test()
    return left


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_site_that_was_renamed_is_found(world: World, site: Path, is_whole: bool) -> None:
    """What nginx reads has our lines, under whatever name; also after the certificate was deleted."""
    renamed = site.rename(site.with_name("renamed.conf"))
    for folder in ("live", "archive"):
        shutil.rmtree(world.config_dir / folder / NAME)
    assert undone(world, is_whole=is_whole) == []
    assert renamed.read_bytes() == before(world)
    assert not site.exists()


def test_a_link_made_since_stays_one(world: World, site: Path) -> None:
    """The site is edited where it lies now."""
    real = site.rename(world.server_root / "elsewhere.conf")
    site.symlink_to(real)
    assert undone(world) == []
    assert site.is_symlink()
    assert real.read_bytes() == before(world)


def test_what_cannot_be_taken_out_is_named_each_time(world: World, site: Path) -> None:
    """File and line, until somebody has taken it out."""
    ours = f"{world.config_dir}/live/{NAME}/fullchain.pem;"
    site.write_text(site.read_text().replace(ours, f"{ours} # mine"))
    first = undone(world)
    line = next(number for number, text in enumerate(site.read_text().splitlines(), 1) if "# mine" in text)
    assert first == undone(world)
    assert f"{site}:{line}" in first
    site.write_bytes(before(world))
    assert undone(world) == []


def moved(site: Path) -> Path:
    """Move the TLS server into a file of its own."""
    first, _, second = site.read_text().rpartition("server {")
    site.write_text(first)
    return copied_to(site.with_name("site-tls"), "server {" + second)


def copied(site: Path) -> Path:
    """Copy the TLS server below itself, for another name."""
    text = site.read_text()
    return copied_to(site, text + text[text.rindex("server {") :].replace(f"server_name {NAME}", f"server_name {BLOG}"))


def copied_away(site: Path) -> Path:
    """Copy the TLS server into another file, for another name."""
    text = site.read_text()
    other = text[text.rindex("server {") :].replace(f"server_name {NAME}", f"server_name {BLOG}")
    return copied_to(site.with_name("blog.conf"), other)


def copied_to(path: Path, text: str) -> Path:
    """Write the text, and return where."""
    path.write_text(text)
    return path


@pytest.mark.parametrize("change", [moved, copied, copied_away])
def test_lines_that_were_moved_or_copied_are_named(world: World, site: Path, change: Callable[[Path], Path]) -> None:
    """nginx would not start without the certificate that they name: each time, until they are gone."""
    place, ours = change(site), re.compile(rf".*(/live/{NAME}/|/OCSP/{NAME}).*\n?")

    def naming() -> list[str]:
        lines = place.read_text().splitlines()
        return sorted(f"{place}:{number}" for number, line in enumerate(lines, 1) if ours.fullmatch(line))

    left = undone(world)
    assert len(left) == 3
    assert sorted(left) == naming()
    assert sorted(undone(world)) == naming()
    place.write_text(ours.sub("", place.read_text()).replace("#    ssl_c", "    ssl_c"))
    for _ in range(2):
        assert undone(world) == []


def test_what_named_the_certificate_before_us_is_not_named(world: World) -> None:
    """As after certbot's nginx plugin: the site that was edited, and another one that was not."""
    folder = world.config_dir / "live" / NAME
    own = f"    ssl_certificate {folder}/fullchain.pem;\n    ssl_certificate_key {folder}/privkey.pem;\n"
    site = world.write_site("seafile.conf", world.adapt((plain() + tls(certificate=own)).encode()))
    blog = tls('    return 200 "blog";\n', names=BLOG, certificate=own)
    world.write_site("blog.conf", world.adapt(blog.encode()))
    bare, chosen = site.read_bytes(), minted.options(world)
    lineage = minted.mint(world, NAME, chosen)
    world.start_nginx()
    deploy.deploy(minted.context(world, chosen), lineage)
    assert site.read_bytes() != bare
    for _ in range(2):
        assert undone(world) == []
        assert site.read_bytes() == bare


ECDSA = f"{NAME}-ecdsa"
SHARED = {
    "one site, two certificates": (SITE.replace(NAME, f"{NAME} {BLOG}"), {BLOG: BLOG}),
    "a site with TLS alone": (SITE + tls(names=BLOG), {BLOG: BLOG}),
    "an RSA and an ECDSA one": (SITE, {ECDSA: NAME}),
}


@pytest.mark.parametrize(("text", "other"), SHARED.values(), ids=SHARED)
def test_edits_that_others_stand_on_go_after_those(world: World, text: str, other: dict[str, str]) -> None:
    """Before, nothing is taken out, and the command that is first to be run is told."""
    site, chosen = world.write_site("seafile.conf", world.adapt(text.encode())), minted.options(world)
    bare, ((name, domain),) = site.read_bytes(), other.items()
    world.start_nginx()
    deploy.deploy(minted.context(world, chosen), minted.mint(world, NAME, chosen))
    first, key = site.read_bytes(), authority.ecdsa_key() if name == ECDSA else None
    deploy.deploy(minted.context(world, chosen), minted.mint(world, name, chosen, names=[domain], key=key))
    both = site.read_bytes()
    with pytest.raises(errors.SiteRefused, match=f"`certbot-seafile undo --cert-name {name}` first, or"):
        undone(world, is_whole=False)
    assert site.read_bytes() == both
    assert undone(world, is_whole=False, names=(name,)) == []
    assert site.read_bytes() == first
    assert undone(world, is_whole=False) == []
    assert site.read_bytes() == bare


def test_all_that_stand_on_each_other_are_undone_at_once(world: World) -> None:
    """Two certificates that took turns in one server: the command that is told for both takes them out."""
    site, chosen = world.write_site("seafile.conf", world.adapt(SITE.encode())), minted.options(world)
    bare = site.read_bytes()
    world.start_nginx()
    for name in ("a", "b", "a"):
        deploy.deploy(minted.context(world, chosen), minted.mint(world, name, chosen, names=[NAME]))
    for name in ("a", "b"):
        with pytest.raises(errors.SiteRefused, match=r"`certbot-seafile undo --cert-name \w --cert-name \w`"):
            undone(world, is_whole=False, names=(name,))
    assert undone(world, is_whole=False, names=("a", "b")) == []
    assert site.read_bytes() == bare


def test_the_file_that_a_line_of_before_names_is_gone(world: World, site: Path) -> None:
    """It is told as what it is: the line is a comment today, and nginx's configuration of today has no fault."""
    old, now = world.path("/etc/ssl/cacert.pem"), site.read_bytes()
    kept = old.rename(old.with_suffix(".kept"))
    run = world.seafile("undo", check=False)
    assert run.exit_code == 1
    assert f"nothing was taken out of {site}" in run.stderr
    assert "bring back the file that such a line names" in run.stderr
    assert "fix that line" not in run.stderr
    assert site.read_bytes() == now
    kept.rename(old)
    assert undone(world) == []
    assert site.read_bytes() == before(world)


def test_a_rollback_does_not_bring_back_what_was_undone(world: World, site: Path) -> None:
    """No undo would know of it: the site stays as undo left it, and the run says why."""
    world.certbot("enhance", "-i", "seafile", "--cert-name", NAME, "--hsts", *world.plugin_options)
    assert undone(world) == []
    run = world.certbot("rollback", "--checkpoints", "1", "-i", "seafile", *world.plugin_options, check=False)
    assert run.exit_code == 1
    assert f"the checkpoint has the certificate of {NAME}, which `undo` took out since" in run.output
    assert site.read_bytes() == before(world)
    assert undone(world) == []


def test_a_deployment_while_the_ca_is_asked_is_undone(world: World) -> None:
    """What was edited for the challenge goes; what the other run wrote meanwhile stays known."""
    text = plain(listen="80") + tls() + plain(names=BLOG, listen="80") + tls(PROXY, names=BLOG)
    site = world.write_site("seafile.conf", world.adapt(text.encode()))
    bare = site.read_bytes()
    world.start_nginx()
    context, other = (minted.context(world, minted.options(world)) for _ in range(2))
    with challenge.answered(context, {(NAME, "token"): b"content"}):
        deploy.deploy(other, minted.mint(world, BLOG, minted.options(world)))
    assert f"live/{BLOG}".encode() in site.read_bytes()
    assert undone(world, names=(BLOG,)) == []
    assert site.read_bytes() == bare


def test_an_edit_that_could_not_be_put_back_is_known(world: World) -> None:
    """As on a disk that fails meanwhile: the next undo takes it out."""
    site = world.write_site("seafile.conf", world.adapt(SITE.encode()))
    world.start_nginx()
    context, elsewhere = minted.context(world, minted.options(world)), world.sites.with_name("elsewhere")
    lineage = minted.mint(world, NAME, minted.options(world))
    planned = install.plan_for(context, lineage, serving.find_site(context, lineage.names))
    with contextlib.suppress(errors.NotServed), writing.edited(context, planned, "deploy", NAME):
        world.sites.rename(elsewhere)
        raise errors.NotServed("not served")
    elsewhere.rename(world.sites)
    assert site.read_bytes() != before(world)
    assert undone(world) == []
    assert site.read_bytes() == before(world)


def test_a_neighbour_that_lives_by_our_lines_is_named(world: World) -> None:
    """Undo goes on, and says whose clients get another answer."""
    world.write_site("seafile.conf", world.adapt(plain(PROXY).encode()))
    world.start_nginx()
    minted.issue(world, NAME, minted.options(world))
    blog = plain('    return 200 "blog";\n' + CERTIFICATE, "443", BLOG) + plain(REDIRECT, "80", BLOG)
    world.write_site("zz-blog.conf", world.adapt(blog.encode()))
    world.reload_nginx()
    told: list[str] = []
    context = minted.context(world, minted.options(world))
    context.say = told.append
    assert undo.undo(context, [NAME], is_whole=True) == []
    assert any(f"clients of {BLOG}" in sentence for sentence in told), told


def test_a_name_that_leads_elsewhere_removes_nothing(world: World, site: Path) -> None:
    """What is not ours is no certificate's, whatever name is given for it."""
    now = site.read_bytes()
    name = os.path.relpath(site.with_suffix(""), world.staple_dir)
    run = world.seafile("--seafile-staple-dir", str(world.staple_dir), "undo", "--cert-name", name, check=False)
    assert run.exit_code == 1
    assert "must not be called" in run.stderr
    assert site.read_bytes() == now
