"""What whole commands cost, beside `nginx -t` and certbot's nginx plugin, measured in the same run.

The law: only commands are run, as users run them, so any version of this package can be measured (PYTHONPATH names
another one). A figure is CPU time, user and system, of a command and of all that it waited for; the least of some runs.
Lineages are minted: there is no CA.
"""

from __future__ import annotations

import argparse
import importlib.util
import ipaddress
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import authority
import lineages
from e2e import many
from e2e.world import World

NAME = "seafile.example.com"
SCRIPT = Path(sys.executable).parent / "certbot-seafile"
MOST_TIMES_NGINX = 4.0
UNDO_SECONDS = 1.0
SECONDS_PER_LINEAGE = 0.06
LINES_OF_BLOCKLIST = 200_000
LINES_OF_SITE = 20_000

SITE = """\
server {{
    listen {http};
    server_name {name};
    return 301 https://$host$request_uri;
}}
server {{
    listen {https} ssl;
    server_name {name};
    ssl_certificate {fullchain};
    ssl_certificate_key {key};
{more}    location / {{ proxy_pass http://127.0.0.1:8000; }}
    location /seafhttp {{ proxy_pass http://127.0.0.1:8082; }}
}}
"""
NEIGHBOUR = (
    "server {{\n    listen {http};\n    server_name {name} www.{name};\n"
    + "".join(
        f"    location /part{number}/ {{{{\n        proxy_pass http://127.0.0.1:800{number};\n"
        "        proxy_set_header Host $host;\n        proxy_set_header X-Real-IP $remote_addr;\n    }}\n"
        for number in range(9)
    )
    + "}}\n"
)

failures: list[str] = []


def main() -> int:
    """Print one line for each command; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=1000, help="neighbours of the site that is installed")
    parser.add_argument("--lineages", type=int, default=100, help="how many status, check and renew go over")
    chosen = parser.parse_args()
    start()
    install(chosen.sites)
    blocklist()
    large_site()
    fleet(chosen.lineages)
    print("\n".join(failures) or "every target is met")
    return 1 if failures else 0


def cpu(world: World, *words: str | Path, runs: int = 3, good: tuple[int, ...] = (0,)) -> float:
    """Return the least CPU seconds of some runs of a command. good: the exit codes that it may have."""
    return min(_cpu_once(world, words, good) for _ in range(runs))


def _cpu_once(world: World, words: tuple[str | Path, ...], good: tuple[int, ...]) -> float:
    log = world.folder / "output"
    with log.open("wb") as output:
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=world.environment(), cwd=world.folder
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in good:
        raise SystemExit(f"{' '.join(map(str, words))}\n{log.read_text()}exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime


def ours(world: World, *words: str) -> list[str | Path]:
    """Return a command line of certbot-seafile in this world."""
    return [SCRIPT, *world.folders, *words]


def report(what: str, seconds: float, most: float, other: tuple[str, float] | None = None) -> None:
    """Print a figure and its target, and as how many times something else."""
    line = f"  {what:58} {seconds:7.2f} s"
    if other is not None:
        line += f" {seconds / other[1]:7.1f} times {other[0]}"
    print(line + ("" if most == float("inf") else f", target {most:.2f} s"), flush=True)
    if seconds > most:
        failures.append(f"missed: {what}: {seconds:.2f} s, and not {most:.2f} s")


def start() -> None:
    """Measure what a command costs that does nothing."""
    print("a command that does nothing")
    with World() as world:
        peer = cpu(world, world.certbot_script, "--version", runs=5)
        own = cpu(world, SCRIPT, "--version", runs=5)
    report("certbot-seafile --version", own, peer, ("certbot --version", peer))


def mint(world: World, name: str, issuer: authority.Identity, key: authority.Key) -> None:
    """Write a lineage without an OCSP URL, which is not due."""
    leaf = authority.make_leaf(issuer, [name], ocsp_urls=(), key=key)
    options = {"seafile_ctl": world.nginx_ctl, "seafile_staple_dir": world.staple_dir, "server": world.acme_url,
               "http01_port": world.http_port, "https_port": world.https_port}  # fmt: skip
    lineages.make(world.config_dir, name, leaf, issuer, options)
    for folder in (world.work_dir, world.logs_dir):
        folder.mkdir(parents=True, exist_ok=True)


def prepare(world: World, name: str = NAME, more: str = "") -> bytes:
    """Write a Seafile site with a self-signed certificate, and mint a lineage for it; return the site's bytes."""
    issuer = authority.make_ca()
    mint(world, name, issuer, authority.rsa_key())
    own = authority.make_certificate(name, key=authority.rsa_key(1))
    (world.server_root / "own.pem").write_bytes(own.certificate_pem)
    (world.server_root / "own.key").write_bytes(own.key_pem)
    site = SITE.format(http=world.http_port, https=world.https_port, name=name, more=more,
                       fullchain="own.pem", key="own.key").encode()  # fmt: skip
    world.write_site(name, site)
    return site


def install(count: int) -> None:
    """Measure `certbot install` on one site among many, beside certbot's own nginx plugin on the same files."""
    print(f"one site among {count} others, each with nine proxy_pass")
    with World() as world:
        site = prepare(world)
        for number in range(count):
            name = f"other{number:04d}.example.org"
            world.write_site(name, NEIGHBOUR.format(http=world.http_port, name=name).encode())
        (world.server_root / "conf.d" / "hash.conf").write_text("server_names_hash_max_size 8192;\n")
        world.start_nginx()
        nginx = cpu(world, world.nginx_ctl, "-t")
        nothing = cpu(world, world.certbot_script, "--version")
        report("nginx -t", nginx, float("inf"))
        words = ["install", "--cert-name", NAME, "-i"]
        costs = []
        for _ in range(3):
            costs.append(cpu(world, *world.certbot_command(*words, "seafile", *world.plugin_options), runs=1))
            _expect(world, b"fullchain.pem")
            cpu(world, *ours(world, "undo"), runs=1)
        own = min(costs) - nothing
        report(
            "certbot install -i seafile, without certbot --version", own, MOST_TIMES_NGINX * nginx, ("nginx -t", nginx)
        )
        if not any(map(importlib.util.find_spec, ("certbot_nginx", "certbot._internal.plugins.nginx"))):
            print("  (certbot's nginx plugin is not installed)")
            return
        world.write_site(NAME, site)
        options = ["nginx", "--nginx-server-root", str(world.server_root), "--nginx-ctl", str(world.nginx_ctl)]
        peer = cpu(world, *world.certbot_command(*words, *options), runs=1) - nothing
        report("certbot install -i nginx, likewise", peer, float("inf"), ("ours", own))


def _expect(world: World, text: bytes) -> None:
    if text not in (world.sites / NAME).read_bytes():
        raise SystemExit(f"the site does not hold {text.decode()} after the edit")


def blocklist() -> None:
    """Measure commands beside a generated file that holds no server."""
    print(f"a blocklist of {LINES_OF_BLOCKLIST} lines in conf.d")
    with World() as world:
        prepare(world)
        # Scattered over the whole address space, as attackers are.
        addresses = (ipaddress.IPv4Address(n * 2654435761 % 2**32) for n in range(LINES_OF_BLOCKLIST))
        notes = ["", "", "", " # was seen on our mail server; listen for more"]
        lines = "".join(f"    {address} 1;{notes[n % len(notes)]}\n" for n, address in enumerate(addresses))
        (world.server_root / "conf.d" / "blocklist.conf").write_text(f"geo $bad {{\n    default 0;\n{lines}}}\n")
        world.start_nginx()
        nginx = cpu(world, world.nginx_ctl, "-t")
        report("nginx -t", nginx, float("inf"))
        for title, words, start, good in (
            ("certbot-seafile deploy", ours(world, "deploy", "--cert-name", NAME), ours(world, "--version"), (0,)),
            ("certbot-seafile check", ours(world, "check"), ours(world, "--version"), (0, 1)),
            ("certbot renew, nothing due", world.certbot_command("renew"), [world.certbot_script, "--version"], (0,)),
        ):
            cost = cpu(world, *words, good=good) - cpu(world, *start)
            report(f"{title}, without --version", cost, MOST_TIMES_NGINX * nginx, ("nginx -t", nginx))


def large_site() -> None:
    """Measure `undo` on a large site, one line of which its owner changed after the deployment."""
    print(f"a site of {LINES_OF_SITE} lines, one of which its owner changed")
    with World() as world:
        prepare(world, more="".join(f"    deny 10.0.{n >> 8}.{n & 255};\n" for n in range(LINES_OF_SITE)))
        world.start_nginx()
        nginx = cpu(world, world.nginx_ctl, "-t")
        report("nginx -t", nginx, float("inf"))
        costs: list[float] = []
        for _ in range(3):
            cpu(world, *ours(world, "deploy", "--cert-name", NAME), runs=1)
            path = world.sites / NAME
            path.write_bytes(path.read_bytes().replace(b"deny 10.0.39.16;", b"deny 10.0.39.16; # mine", 1))
            costs.append(cpu(world, *ours(world, "undo"), runs=1))
            if not costs[1:] and b"# mine" not in path.read_bytes():
                raise SystemExit("the owner's line is gone")
            if b"fullchain.pem" in path.read_bytes():
                raise SystemExit("the edits were not taken out")
        report("certbot-seafile undo", min(costs), UNDO_SECONDS, ("nginx -t", nginx))


def fleet(count: int) -> None:
    """Measure what goes over all lineages, with a fresh staple each, where nothing is due."""
    print(f"{count} lineages with fresh staples, nothing due")
    with World() as world:
        many.make_lineages(world, count)
        for name in many.names(count):
            include = f"    include {world.staple_dir}/{name}[.]conf;\n"
            live = world.lineage(name)
            site = SITE.format(http=world.http_port, https=world.https_port, name=name, more=include,
                               fullchain=live / "fullchain.pem", key=live / "privkey.pem")  # fmt: skip
            world.write_site(name, site.encode())
        (world.server_root / "conf.d" / "hash.conf").write_text("server_names_hash_max_size 8192;\n")
        world.start_nginx()
        first = cpu(world, *ours(world, "refresh"), runs=1)
        nginx = cpu(world, world.nginx_ctl, "-t")
        report("nginx -t", nginx, float("inf"))
        report("certbot-seafile refresh, the first", first, float("inf"), ("nginx -t", nginx))
        commands: dict[str, Callable[[], list[str | Path]]] = {
            "certbot-seafile status": lambda: ours(world, "status"),
            "certbot-seafile check": lambda: ours(world, "check"),
            "certbot renew": lambda: [*world.certbot_command("renew")],
            "certbot renew, all due, no CA": lambda: [*world.certbot_command("renew", "--force-renewal")],
        }
        for title, command in commands.items():
            cost = cpu(world, *command(), runs=1, good=(0, 1))
            is_due = "all due" in title  # certbot makes an RSA key for each, for the account that it cannot register
            report(title, cost, (2 if is_due else 1) * SECONDS_PER_LINEAGE * count, ("nginx -t", nginx))


if __name__ == "__main__":
    sys.exit(main())
