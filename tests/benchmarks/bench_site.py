"""How long it takes to find and edit one site among a thousand, and to find each, beside certbot's own nginx plugin.

Prints CPU seconds, without `nginx -t`. The peer only reads the same files: its edit is not counted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from certbot_seafile.site import config, edits, find, model, plan
from certbot_seafile.system import nginx

NAME = "seafile.example.com"
TARGET_SECONDS = 0.3
TARGET_SECONDS_FOR_EACH = 0.005

NEIGHBOUR = """\
# site {number}
server {{
    listen 80;
    listen [::]:80;
    server_name site{number}.example.org www.site{number}.example.org;
    return 301 https://$host$request_uri;
}}

server {{
    listen 443 ssl http2;
    listen [::]:443 ssl http2;
    server_name site{number}.example.org www.site{number}.example.org;

    ssl_certificate /etc/letsencrypt/live/site{number}.example.org/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/site{number}.example.org/privkey.pem;
    ssl_protocols TLSv1.2 TLSv1.3;

    root /srv/www/site{number};
    index index.html;
    access_log /var/log/nginx/site{number}.access.log;
    error_log /var/log/nginx/site{number}.error.log;

    location / {{
        try_files $uri $uri/ =404;
    }}

    location /api/ {{
        proxy_pass http://127.0.0.1:9{number:03d};
        include proxy_params;
        proxy_read_timeout 60s;
    }}

    location ~* \\.(png|jpe?g|css|js)$ {{
        expires 7d;
        add_header Cache-Control "public, max-age=604800";
    }}

    # nothing else
}}
"""

SEAFILE = """\
server {{
    listen 80;
    server_name {name};
    return 301 https://$host$request_uri;
}}
server {{
    listen 443 ssl;
    server_name {name};
    ssl_certificate /etc/ssl/cacert.pem;
    ssl_certificate_key /etc/ssl/privkey.pem;
    location / {{ proxy_pass http://127.0.0.1:8000; }}
    location /seafhttp {{ proxy_pass http://127.0.0.1:8082; }}
}}
"""


def main() -> int:
    """Print the figures; exit code 1 where ours is above its target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=1000)
    count = parser.parse_args().sites
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        good = True
        for title, server_name in (("by its name", NAME), ("server_name _", "_")):
            lay_out(root, count, server_name)
            seconds = cpu_seconds(lambda: find_and_edit(root))
            print(f"ours, one site of {count} {title}: {seconds:.3f} s of CPU")
            good = good and seconds < TARGET_SECONDS
        every = cpu_seconds(lambda: find_each(root, count))
        print(f"ours, each site of {count}: {every:.3f} s of CPU, {every / count * 1000:.2f} ms each")
        good = good and every < count * TARGET_SECONDS_FOR_EACH
        peer = cpu_seconds(lambda: read_with_peer(root))
        print(f"certbot's nginx plugin, reading the same files: {peer:.1f} s of CPU, {peer / seconds:.0f} times ours")
    return 0 if good else 1


def lay_out(root: Path, count: int, server_name: str) -> None:
    """Write nginx.conf and the sites."""
    sites = root / "sites-enabled"
    sites.mkdir(exist_ok=True)
    (root / "proxy_params").write_text("proxy_set_header Context $http_host;\n")
    (root / "nginx.conf").write_text(f"events {{}}\nhttp {{\n    include {sites}/*;\n}}\n")
    for number in range(count):
        (sites / f"site{number:04d}").write_text(NEIGHBOUR.format(number=number))
    (sites / "000-seafile").write_text(SEAFILE.format(name=server_name))


def cpu_seconds(work: Callable[[], None]) -> float:
    """Return the least CPU time of three runs."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
        if taken[-1] > 5:
            break
    return min(taken)


def site_of(configuration: config.Configuration, name: str) -> find.Site:
    """Find the site of a name among all."""
    return find.site(model.http_servers(configuration.statements([name])), [name])


def find_and_edit(root: Path) -> None:
    """Read the configuration, find the site among all, plan its edits and make its new bytes."""
    site = site_of(nginx.Nginx("nginx", str(root)).configuration(), NAME)
    wanted = plan.Certificate("/live/fullchain.pem", "/live/privkey.pem", f"/etc/nginx/OCSP/{NAME}.conf", True)
    planned = edits.Edits()
    for server in site.plain:
        plan.add_challenge_location(planned, server, plan.Challenge("/var/www/letsencrypt"))
    for server in site.tls:
        plan.install(planned, server, wanted)
    (path,) = planned.paths
    if b"/live/fullchain.pem" not in planned.after(path):
        raise SystemExit("the edit is not there")


def find_each(root: Path, count: int) -> None:
    """Find the site of every neighbour, from one reading."""
    configuration = nginx.Nginx("nginx", str(root)).configuration()
    for number in range(count):
        site_of(configuration, f"site{number}.example.org")


def read_with_peer(root: Path) -> None:
    """Let certbot's nginx plugin read the configuration, as it does at each start. Its room moved between releases."""
    try:
        parser = importlib.import_module("certbot_nginx._internal.parser")
    except ImportError:
        parser = importlib.import_module("certbot._internal.plugins.nginx.parser")
    parser.NginxParser(str(root)).load()


if __name__ == "__main__":
    sys.exit(main())
