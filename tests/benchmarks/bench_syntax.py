"""How fast nginx files are read: MB/s, and ms for a site of 40 lines, beside what else can read them.

Run it as a script. Peers (crossplane; certbot's nginxparser) are measured in the same run where they can be
imported; the last column is their time over ours.
"""

from __future__ import annotations

import importlib
import os
import tempfile
import time
from collections.abc import Callable

from certbot_seafile.site import syntax

SITE = b"""\
# The Seafile site
server {
    listen 80;
    server_name seafile.example.com;
    rewrite ^ https://$http_host$request_uri? permanent;    # to HTTPS
    server_tokens off;
}
server {
    listen 443 ssl;
    ssl_certificate /etc/ssl/cacert.pem;        # path to your cacert.pem
    ssl_certificate_key /etc/ssl/privkey.pem;   # path to your privkey.pem
    server_name seafile.example.com;
    ssl_session_timeout 5m;
    ssl_session_cache shared:SSL:5m;
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_ciphers 'ECDHE-RSA-AES128-GCM-SHA256:HIGH:!aNULL:!eNULL:!EXPORT:!MD5';
    ssl_prefer_server_ciphers on;
    add_header Strict-Transport-Security "max-age=31536000; includeSubdomains";
    server_tokens off;

    location / {
        proxy_pass         http://127.0.0.1:8000;
        proxy_set_header   Host $host;
        proxy_set_header   X-Real-IP $remote_addr;
        proxy_set_header   X-Forwarded-For $proxy_add_x_forwarded_for;
        proxy_set_header   X-Forwarded-Proto https;
        proxy_read_timeout 1200s;
        client_max_body_size 0;
    }
    location /seafhttp {
        rewrite ^/seafhttp(.*)$ $1 break;
        proxy_pass http://127.0.0.1:8082;
        client_max_body_size 0;
        proxy_request_buffering off;
        send_timeout 36000s;
    }
    location /media {
        root /opt/seafile/seahub;
    }
}
"""


def everything(source: bytes) -> None:
    """Read a file and ask for every word as well."""
    for directive in syntax.walk(syntax.parse(source)):
        directive.arguments  # noqa: B018


def crossplane() -> Callable[[bytes], object]:
    """Return crossplane's reader, which wants a path; writing the file is not measured as its own."""
    module = importlib.import_module("crossplane")

    def read(source: bytes) -> object:
        descriptor, path = tempfile.mkstemp()
        try:
            os.write(descriptor, source)
            os.close(descriptor)
            return module.parse(path, single=True, catch_errors=False, check_ctx=False, check_args=False)
        finally:
            os.unlink(path)

    return read


def nginxparser() -> Callable[[bytes], object]:
    """Return the reader of certbot's nginx plugin, which has lived in two places."""
    try:
        module = importlib.import_module("certbot_nginx._internal.nginxparser")
    except ImportError:
        module = importlib.import_module("certbot._internal.plugins.nginx.nginxparser")
    return lambda source: module.loads(source.decode())


def seconds(read: Callable[[bytes], object], source: bytes, budget_seconds: float = 1.0) -> float:
    """Return the least time of a run, over as many runs as fit in the budget, and three at least."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < budget_seconds:
        start = time.perf_counter()
        read(source)
        times.append(time.perf_counter() - start)
    return min(times)


def report_blocklist(lines: int) -> None:
    """Print how long a generated file without a server takes."""
    source = b"geo $bad {\n    default 0;\n" + b"    192.0.2.7 1; # was seen on our mail server\n" * lines + b"}\n"
    wanted = syntax.wanted([b"server", b"listen", b"server_name", b"http"], [b"ssl"])
    parsed, skimmed = seconds(syntax.parse, source), seconds(lambda source: syntax.skim(source, wanted), source)
    print(f"a blocklist of {lines} lines: parsed in {parsed * 1e3:.0f} ms, skimmed in {skimmed * 1e3:.0f} ms")


def main() -> None:
    """Print one line for each reader."""
    ours = seconds(syntax.parse, SITE)
    print(f"{'reader':34} {'ms per site':>12} {'MB/s':>8} {'times ours':>11}   ({SITE.count(10)} lines)")

    def row(name: str, per_site: float) -> None:
        print(f"{name:34} {per_site * 1e3:12.3f} {len(SITE) / per_site / 1e6:8.2f} {per_site / ours:11.1f}")

    row("syntax.parse", ours)
    row("syntax.parse, every word", seconds(everything, SITE))
    large = SITE * 1000
    row("syntax.parse, 1000 sites in a file", seconds(syntax.parse, large) / 1000)
    wanted = syntax.wanted([b"server", b"listen", b"server_name", b"http"], [b"ssl"])
    row("syntax.skim", seconds(lambda source: syntax.skim(source, wanted), SITE))
    for name, peer in (("crossplane", crossplane), ("certbot's nginxparser", nginxparser)):
        try:
            read = peer()
        except ImportError:
            print(f"{name:34} (not installed)")
        else:
            row(name, seconds(read, SITE))
    report_blocklist(200_000)


if __name__ == "__main__":
    main()
