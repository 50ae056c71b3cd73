"""nginx's configuration is read once for each state that it has, and nginx runs no more often than writes need."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

import authority
from e2e import killing, minted, road
from e2e.processes import find_tool, tool
from e2e.world import World

NAMES = [f"home{number}.example.com" for number in range(3)]
SITE = """\
server {{ listen 80; server_name {name}; return 301 https://$host$request_uri; }}
server {{
    listen 443 ssl;
    server_name {name};
    ssl_certificate /etc/ssl/cacert.pem;
    ssl_certificate_key /etc/ssl/privkey.pem;
    location / {{ proxy_pass http://127.0.0.1:8000; }}
}}
"""

traced = pytest.mark.skipif(find_tool("strace") is None, reason="strace counts what is opened")


@pytest.fixture
def deployed(world: World) -> World:
    """Give a world in which three minted lineages are deployed, each into a site of its own."""
    for name in NAMES:
        world.write_site(f"{name}.conf", world.adapt(SITE.format(name=name).encode()))
    world.start_nginx()
    for name in NAMES:
        minted.issue(world, name, minted.options(world))
    world.nginx_calls_log.unlink()
    return world


def openings(world: World, command: list[str]) -> Counter[str]:
    """Run the command; return how often it opened each of nginx's files itself, the nginx that it runs left out."""
    log = world.folder / "strace.log"
    world.run(tool("strace"), "-o", log, "-e", "trace=openat", *command, check=False)
    opened = re.findall(r'openat\(AT_FDCWD, "([^"]+)", O_RDONLY[^)]*\) = \d', log.read_text())
    return Counter(path for path in opened if path.startswith(str(world.server_root)) and Path(path).is_file())


@traced
@pytest.mark.parametrize("words", [["status"], ["check"], ["refresh"]])
def test_a_command_reads_each_file_once_for_all_lineages(deployed: World, words: list[str]) -> None:
    """Three lineages, one reading."""
    opened = openings(deployed, killing.seafile(deployed, *words))
    configuration = {path: count for path, count in opened.items() if path.endswith(".conf")}
    assert {f"{name}.conf" for name in NAMES} <= {Path(path).name for path in configuration} or words == ["refresh"]
    assert {path: count for path, count in configuration.items() if count > 1} == {}


@traced
def test_an_idle_renew_reads_each_file_once_for_all_lineages(deployed: World) -> None:
    """certbot calls the plugin for each lineage; nginx is neither tested nor reloaded."""
    opened = openings(deployed, deployed.certbot_command("renew"))
    configuration = {Path(path).name: count for path, count in opened.items() if path.endswith(".conf")}
    assert {f"{name}.conf" for name in NAMES} <= set(configuration)
    assert {path: count for path, count in configuration.items() if count > 1} == {}
    assert {call for call in deployed.nginx_calls() if call != "-V"} == set()
    assert all(road.record(deployed, name)["last_failure"] is None for name in NAMES)


def file_calls(world: World, count: int, *words: str) -> int:
    """Run certbot in a world with so many served lineages; return how often it asked for a file of nginx's or its own.

    What ever was there before, such as Python's own files, and what nginx asks for do not count.
    """
    chosen = minted.options(world)
    for number in range(count):
        name = f"site{number:02d}.example.com"
        minted.mint(world, name, chosen, ocsp_urls=(), key=authority.ecdsa_key())
        site = SITE.format(name=name).replace("/etc/ssl/cacert.pem", f"/etc/letsencrypt/live/{name}/fullchain.pem")
        site = site.replace("/etc/ssl/privkey.pem", f"/etc/letsencrypt/live/{name}/privkey.pem")
        include = f"    include {world.staple_dir}/{name}[.]conf;\n    location / {{"
        world.write_site(f"{name}.conf", world.adapt(site.replace("    location / {", include).encode()))
    world.start_nginx()
    log = world.folder / "strace.log"
    trace: list[str | Path] = [tool("strace"), "-o", log, "-e", "trace=%file,getdents64"]
    run = world.run(*trace, *world.certbot_command(*words), check=False)
    assert "Traceback" not in run.output
    world.stop_nginx()
    return sum(log.read_text().count(f'"{folder}/') for folder in (world.server_root, world.config_dir))


@traced
def test_an_idle_renew_looks_no_more_often_at_a_lineage_among_many(tools: None) -> None:
    """What certbot and the plugin look at for each of twelve is not more than for each of three."""
    shares = []
    for count in (3, 12):
        with World() as made:
            shares.append(file_calls(made, count, "renew") / count)
    assert shares[1] <= shares[0]


@traced
def test_a_due_lineage_is_not_compared_with_each_other_one(tools: None) -> None:
    """Without a CA, each is prepared for, and no file of a lineage is read more often where there are more."""
    shares = []
    for count in (3, 12):
        with World() as made:
            file_calls(made, count, "renew", "--force-renewal")
            log = (made.folder / "strace.log").read_text()
            opened = re.findall(rf'openat\(AT_FDCWD, "{made.config_dir}/(?:live|archive|renewal)/', log)
            shares.append(len(opened) / count)
            assert sum(call == "-t" for call in made.nginx_calls()) == 1
    assert shares[1] <= shares[0]


def test_a_deployment_runs_nginx_four_times(world: World) -> None:
    """A test before the edit, once for its facts, a test after the edit, one reload."""
    world.write_site("home.conf", world.adapt(SITE.format(name=NAMES[0]).encode()))
    world.start_nginx()
    minted.mint(world, NAMES[0], minted.options(world), ocsp_urls=())
    world.seafile("deploy", "--cert-name", NAMES[0])
    assert world.nginx_calls() == ["-t", "-V", "-t", "-s reload"]


def test_an_installation_runs_nginx_no_more_often(world: World) -> None:
    """certbot's restart() after it has nothing left to load."""
    world.write_site("home.conf", world.adapt(SITE.format(name=NAMES[0]).encode()))
    world.start_nginx()
    minted.mint(world, NAMES[0], minted.options(world), ocsp_urls=())
    world.certbot("install", "-i", "seafile", "--cert-name", NAMES[0], *world.plugin_options)
    assert world.nginx_calls() == ["-V", "-t", "-t", "-s reload"]
    assert world.handshake(NAMES[0]).certificate == world.leaf(NAMES[0])
