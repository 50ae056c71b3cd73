"""Where the certificate's names lead is asked of the system's resolver; each test is named by the finding's id.

The resolver is the real one, with an own /etc/hosts in a mount namespace; port 443 is taken on loopback addresses that
no other world has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e import road
from e2e.processes import tool
from e2e.world import World

INSIDE = (
    'mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/nsswitch.conf" /etc/nsswitch.conf && shift && exec "$@"'
)


@pytest.fixture
def issued(restored: World) -> World:
    """Give a test the world of this module, whose site is served at port 443 of its own address, too."""
    if os.geteuid() != 0 or subprocess.run([tool("unshare"), "-m", "true"], check=False).returncode:
        pytest.skip("only root has port 443 and mount namespaces, and not in every container")
    further = b" ssl http2;\n    listen %s:443 ssl http2;" % address(restored, 2).encode()
    own = road.site_bytes(restored).replace(b" ssl http2;", further)
    (restored.sites / road.SITE_NAME).write_bytes(own)
    ssl = restored.path("/etc/ssl/private")
    other = f"server {{ listen {address(restored, 3)}:443 ssl; ssl_certificate {ssl}/cacert.pem; "
    restored.write_site("other.conf", f"{other} ssl_certificate_key {ssl}/privkey.pem; }}".encode())
    restored.reload_nginx()
    return restored


def address(world: World, number: int) -> str:
    """Return a loopback address that no other world has."""
    return f"{world.seafile_address.rpartition('.')[0]}.{number}"


def told(world: World, *addresses: str) -> dict[str, str]:
    """Return what check tells of names, by id, where the site's name has these addresses."""
    folder = world.path("/etc/resolver")
    folder.mkdir()
    (folder / "hosts").write_text("".join(f"{each} {road.NAME}\n" for each in addresses))
    (folder / "nsswitch.conf").write_text("hosts: files\n")
    program: list[str | Path] = [Path(sys.executable).parent / "certbot-seafile", *world.folders, "check", "--json"]
    run = world.run(tool("unshare"), "-m", "sh", "-c", INSIDE, "sh", folder, *program, check=False)
    found = json.loads(run.stdout)["findings"]
    assert all(each["severity"] == "warning" for each in found if each["id"].startswith("NAME-"))
    return {each["id"]: each["text"] for each in found if each["id"].startswith("NAME-")}


#: The last numbers of the addresses, or whole ones; the finding, and what its sentence has.
CASES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "the site's": (("2",), "", ""),
    "NAME-UNKNOWN": ((), "NAME-UNKNOWN", "leads nowhere"),
    "NAME-ELSEWHERE": (("3",), "NAME-ELSEWHERE", "where another certificate is served"),
    "NAME-ELSEWHERE beside the site's": (("2", "3"), "NAME-ELSEWHERE", ".3, where another certificate is served"),
    "NAME-NOT-REACHED": (("4",), "NAME-NOT-REACHED", "SeaDoc and OnlyOffice, which fetch files by that name, fail"),
    "NAME-AAAA": (("2", "100::1"), "NAME-AAAA", "has the IPv6 address 100::1, where nobody answers"),
}


@pytest.mark.parametrize("name", CASES)
def test_names_are_followed_to_the_certificate(issued: World, name: str) -> None:
    """A name that leads to this certificate is well, whosever the address is; else a warning says where it leads."""
    numbers, finding, text = CASES[name]
    found = told(issued, *(each if ":" in each else address(issued, int(each)) for each in numbers))
    assert list(found) == [finding] * bool(finding)
    assert not finding or text in found[finding]


def test_names_are_not_asked_for_below_another_root(issued: World) -> None:
    """There only files are read: nothing is told of names, whatever the resolver has."""
    assert "the name" not in issued.seafile("check", "--root", issued.folder, check=False).stdout
