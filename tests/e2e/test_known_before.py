"""What can be known before the CA is asked is known before: no certificate is spent on what cannot be served."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import lineages
from certbot_seafile.usecases import preflight, status
from e2e import minted
from e2e.shapes import NAME, PROXY, SITE, plain, tls
from e2e.world import World, snapshot

REQUEST = preflight.Request((NAME,), None, "ecdsa", False, False)


def start(world: World, text: str, **others: str) -> Path:
    """Start nginx with the site, and with others by their names."""
    path = world.write_site("seafile.conf", world.adapt(text.encode()))
    for name, other in others.items():
        world.write_site(name, world.adapt(other.encode()))
    world.start_nginx()
    return path


@pytest.mark.parametrize("text", [plain(PROXY), tls()], ids=["https", "http"])
def test_a_port_that_another_program_holds_is_refused(world: World, text: str) -> None:
    """Whether the missing half of the site is for TLS or in clear."""
    port = world.https_port if text == plain(PROXY) else world.http_port
    start(world, text)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(errors.SiteRefused, match=rf"listen .*{port};"):
        preflight.why_rsa(minted.context(world, minted.options(world)), REQUEST)
    preflight.why_rsa(minted.context(world, minted.options(world)), REQUEST)


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    """Mount a file or folder over itself."""
    if subprocess.run(["mount", "--bind", path, path], capture_output=True).returncode:
        pytest.skip("only root may mount, and not everywhere")
    try:
        for option in options:
            subprocess.run(["mount", "-o", f"remount,bind,{option}", path], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


FIXED: dict[str, tuple[Callable[[Path], AbstractContextManager[None]], str]] = {
    "mounted as a single file": (mounted, "mount the folder that holds it"),
    "read-only": (lambda path: mounted(path.parent, "ro"), "mount its file system writable"),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
@pytest.mark.parametrize(("fix", "sentence"), FIXED.values(), ids=FIXED)
def test_a_file_that_cannot_be_replaced_is_refused(
    world: World, fix: Callable[[Path], AbstractContextManager[None]], sentence: str
) -> None:
    """With what to change; a site that needs no edit is left in peace."""
    path = start(world, SITE)
    with fix(path), pytest.raises(errors.FileRefused, match=sentence):
        preflight.why_rsa(minted.context(world, minted.options(world)), REQUEST)
    minted.issue(world, NAME, minted.options(world))
    with fix(path):
        preflight.why_rsa(minted.context(world, minted.options(world)), REQUEST)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_must_staple_certificate_needs_a_folder_for_its_versions(world: World) -> None:
    """On a read-only file system it is refused; a plain one, which may have no staple, is not."""
    start(world, SITE)
    parent = world.staple_dir.parent / "read-only"
    parent.mkdir()
    context = minted.context(world, minted.options(world, staple_dir=str(parent / "OCSP")))
    with mounted(parent, "ro"):
        with pytest.raises(errors.FileRefused, match="read-only/OCSP cannot be written: Read-only file system; mount"):
            preflight.why_rsa(context, replace(REQUEST, must_staple=True))
        preflight.why_rsa(context, REQUEST)


OLD = "ssl_protocols TLSv1.2;\n"
NO_ECDSA = "ssl_ciphers HIGH:!aNULL:!ECDSA;\n"
OTHER = tls("    return 404;\n    ssl_protocols TLSv1.2;\n", names="other.example.org")
RSA_ONLY = {
    "said at http level, for a site without TLS": (OLD + NO_ECDSA + plain(PROXY), ""),
    "another site decides on versions": (plain() + tls(PROXY + NO_ECDSA + "ssl_protocols TLSv1.2 TLSv1.3;\n"), OTHER),
    "the same, for a site without TLS": (NO_ECDSA + plain(PROXY), OTHER),
}


@pytest.mark.parametrize(("text", "other"), RSA_ONLY.values(), ids=RSA_ONLY)
def test_a_key_is_asked_for_that_the_site_can_serve(world: World, text: str, other: str) -> None:
    """Versions of TLS are those of the socket's default server, ciphers those of the site."""
    start(world, text, **{"000-other": other})
    minted.issue(world, NAME, minted.options(world))
    assert lineages.load(str(world.config_dir), NAME).key_type == "rsa"
    assert world.handshake(NAME).certificate == world.leaf(NAME)


def test_tokens_go_where_nginx_reads_them(world: World) -> None:
    """A relative root in the site's own challenge location starts at nginx's prefix."""
    own = "    location ^~ /.well-known/acme-challenge/ { root acme; }\n"
    path = start(world, plain(f"{own}    location / {{ return 301 https://$host$request_uri; }}\n") + tls())
    minted.issue(world, NAME, minted.options(world))
    assert b"root acme;" in path.read_bytes()
    assert b"letsencrypt;" not in path.read_bytes()
    assert list(snapshot(world.server_root / "acme")) == []


FRONTS = [
    PROXY + "    if ($http_x_forwarded_proto = http) { return 301 https://$host$request_uri; }\n",
    PROXY.replace("Host $http_host;", "Host $http_host;\n        proxy_set_header X-Forwarded-Proto https;"),
]


@pytest.mark.parametrize("body", FRONTS, ids=["it is told", "it says so"])
def test_tls_in_front_of_nginx_is_respected(world: World, body: str) -> None:
    """No TLS and no redirect by `$scheme` is added; deployment, status and check agree that all is well."""
    start(world, plain(body))
    context = minted.issue(world, NAME, minted.options(world))
    lineage = minted.load(world, NAME)
    assert b"ssl" not in (world.sites / "seafile.conf").read_bytes()
    assert b"$scheme" not in (world.sites / "seafile.conf").read_bytes()
    standing = status.standing(context, lineage)
    assert (standing.failure, standing.is_current) == (None, True)
    words = ("--seafile-ctl", str(world.nginx_ctl), "--seafile-staple-dir", str(world.staple_dir))
    assert "TLS" not in world.seafile(*words, "check", check=False).stdout
    assert "in front" in world.seafile(*words, "status").stdout


def test_a_fault_that_only_our_edit_brings_up_is_not_told_as_the_persons(world: World) -> None:
    """Names too long for nginx's table: what was edited is taken out, and the sentence does not say "fix that line"."""
    long = f"{'a' * 60}.example.com"
    text = "server_names_hash_bucket_size 32;\n" + plain(PROXY, names="_")
    site = start(world, text, **{"000-other": plain(names="b.example.org") + tls(names="b.example.org")})
    before = site.read_bytes()
    with pytest.raises(errors.SiteRefused, match="your own lines are not at fault") as refused:
        minted.issue(world, long, minted.options(world))
    assert "hash" in str(refused.value)
    assert "fix that line" not in str(refused.value)
    assert site.read_bytes() == before


def test_a_fault_that_was_there_before_the_edit_is_told_as_the_persons(world: World) -> None:
    """Another file is broken by the time of the deployment: nginx's words, what to do, and the site as it was."""
    site = start(world, SITE)
    before = site.read_bytes()
    lineage = minted.mint(world, NAME, minted.options(world))
    world.write_site("broken.conf", b"server { listen 80; no_such_line; }\n")
    run = world.seafile("deploy", "--cert-name", NAME, check=False)
    assert run.exit_code == 1
    assert re.search(
        r'refuses its configuration: .*"no_such_line".*broken.conf:1; fix that line, and run again', run.stderr
    )
    assert "not at fault" not in run.stderr
    assert site.read_bytes() == before
    (world.sites / "broken.conf").unlink()
    world.seafile("deploy", "--cert-name", NAME)
    assert world.handshake(NAME).certificate == lineage.leaf
