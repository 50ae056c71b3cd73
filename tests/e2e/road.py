"""The road that most end-to-end tests take: the tutorial's own site, a CA, a responder, and one certificate.

The law of this module: steps and facts only; what is to be true is said in the tests.
"""

from __future__ import annotations

import configparser
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from e2e.world import Run, World

NAME = "home.seafile.com"
SITE_NAME = "seafile.conf"

REAL_SITES = Path(__file__).resolve().parents[3] / "shared" / "sites"

#: The shape of the tutorial's site: nameless servers, a redirect inside one location, TLS 1.2 without ECDSA.
TUTORIAL_SITE = b"""\
server {
    listen        80;
    server_name   _;
    server_tokens off;

    location /seafile {
      rewrite ^ https://$http_host$request_uri? permanent;    # everybody to https
    }
}

server {
    listen        443 ssl http2;
    server_name   _;
    server_tokens off;

    ssl_protocols TLSv1.2;
    ssl_certificate /etc/ssl/private/cacert.pem;
    ssl_certificate_key /etc/ssl/private/privkey.pem;
    ssl_dhparam /etc/ssl/private/dhparam2048.pem;
    ssl_ecdh_curve secp384r1;
    ssl_ciphers EECDH+AESGCM:EDH+AESGCM:EECDH:EDH:!MD5:!RC4:!LOW:!MEDIUM:!CAMELLIA:!ECDSA:!DES:!DSS:!3DES:!NULL;
    ssl_prefer_server_ciphers on;

    location /seafile {
        proxy_pass         http://127.0.0.1:8000;
        proxy_set_header   Host $host;
\t\tproxy_set_header   X-Forwarded-Proto https;
        proxy_read_timeout 36000s;
        client_max_body_size 0;
    }

    location /seafhttp {
        rewrite ^/seafhttp(.*)$ $1 break;
        proxy_pass http://127.0.0.1:8082;
        proxy_read_timeout 36000s;
        client_max_body_size 0;
    }

    location /seafmedia {
        rewrite ^/seafmedia(.*)$ /media$1 break;
        root /opt/seafile/seafile-server-latest/seahub;
    }
}
"""


def clock(world: World, hours: float) -> dict[str, str]:
    """Return the environment in which a command sees a clock that is this many hours ahead (libfaketime).

    Without its wrapper, which gives each run a semaphore, and stumbles over one that another run left.
    """
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketime.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": f"{hours:+g}h"}


def real_site(name: str) -> bytes:
    """Return a real site's bytes; skip where the folder of real sites is not there."""
    path = REAL_SITES / name
    if not path.exists():
        pytest.skip(f"no {path.name}: the real sites are kept beside the project, not in it")
    return path.read_bytes()


def start(world: World, site: bytes = TUTORIAL_SITE, *, ocsp: bool = True, authz_reuse: int = 0) -> bytes:
    """Start CA, responder, Seafile's place and nginx with the site; return the site's bytes as they stand on disk."""
    world.start_seafile()
    world.start_pebble(ocsp=ocsp, authz_reuse=authz_reuse)
    if ocsp:
        world.start_responder()
    adapted = world.adapt(site)
    world.write_site(SITE_NAME, adapted)
    world.start_nginx()
    return adapted


def restart_ca(world: World, *, ocsp: bool) -> None:
    """Start another CA, for certificates with or without an OCSP URL; certbot gets a new account there."""
    accounts = world.config_dir / "accounts"
    (old,) = (path.parent.name for path in accounts.rglob("regr.json"))
    shutil.rmtree(accounts)
    world.stop_pebble()
    world.start_pebble(ocsp=ocsp)
    world.certbot("register")
    (new,) = (path.parent.name for path in accounts.rglob("regr.json"))
    for path in (world.config_dir / "renewal").glob("*.conf"):
        path.write_text(path.read_text().replace(old, new))


def certonly(world: World, *words: str | Path, check: bool = True, env: dict[str, str] | None = None) -> Run:
    """Run the one line of the README."""
    return world.certbot("certonly", "-a", "seafile", "-d", NAME, *world.plugin_options, *words, check=check, env=env)


def take_out(world: World) -> None:
    """Bring the site back to what it was before this package, as if the lineage's deployment had never run."""
    renewal = world.config_dir / "renewal" / f"{NAME}.conf"
    before = renewal.read_bytes()
    world.seafile("undo", "--cert-name", NAME)
    renewal.write_bytes(before)
    (world.config_dir / "seafile" / "lineages" / f"{NAME}.json").unlink()


def site_bytes(world: World) -> bytes:
    """Return what the site's file holds now."""
    return (world.sites / SITE_NAME).read_bytes()


def served_is_lineage(world: World, name: str = NAME) -> bool:
    """Tell whether a TLS client is handed the lineage's leaf."""
    return world.handshake(name).certificate == world.leaf(name)


def served_staple(world: World, name: str = NAME) -> ocsp.OCSPResponse | None:
    """Return the staple that comes with the next connection, parsed; None where none comes."""
    staple = world.handshake(name).staple
    return ocsp.load_der_ocsp_response(staple) if staple else None


def staples_lineage(world: World, name: str = NAME) -> bool:
    """Tell whether the next connection carries a good staple for the lineage's leaf."""
    staple = served_staple(world, name)
    return (
        staple is not None
        and staple.certificate_status == ocsp.OCSPCertStatus.GOOD
        and staple.serial_number == world.leaf(name).serial_number
    )


def response_path(world: World, name: str = NAME) -> Path:
    """Return where the lineage's staple is stored: where its snippet says, in a sealed version or in its folder."""
    snippet = world.staple_dir / f"{name}.conf"
    named = re.search(r"ssl_stapling_file (\S+);", snippet.read_text()) if snippet.exists() else None
    return Path(named[1]) if named else world.staple_dir / name / "ocsp.response"


def versions(world: World, name: str = NAME) -> list[str]:
    """Return the IDs of the lineage's sealed versions, oldest first; the folder holds nothing else but .gitignore."""
    folder = world.staple_dir / name
    names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [each for each in names if each != ".gitignore"]


def ocsp_requests(world: World) -> int:
    """Return how many requests of ours the responder has had; certbot asks it too, whether to renew at once."""
    lines = world.ocsp_log.read_text().splitlines() if world.ocsp_log.exists() else []
    return sum("certbot-seafile/" in line for line in lines)


def renewal(world: World, name: str = NAME) -> dict[str, str]:
    """Return the parameters of the lineage's renewal file."""
    text = (world.config_dir / "renewal" / f"{name}.conf").read_text()
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",), strict=False)
    parser.read_string("[top]\n" + text)
    return dict(parser["renewalparams"])


def leaf_der(world: World, name: str = NAME) -> bytes:
    """Return the lineage's leaf as DER."""
    return world.leaf(name).public_bytes(Encoding.DER)


def give_scheduler(world: World) -> None:
    """Put cron and a crontab that runs `certbot renew` twice a day into the world's folder; nothing runs them."""
    for path, text in (("/usr/sbin/cron", ""), ("/etc/cron.d/certbot", "0 */12 * * * root certbot -q renew\n")):
        world.path(path).parent.mkdir(parents=True, exist_ok=True)
        world.path(path).write_text(text)


def ask_responder(world: World, name: str = NAME) -> bytes:
    """Return what the responder answers for the lineage now, unjudged."""
    issuer = x509.load_pem_x509_certificate((world.lineage(name) / "chain.pem").read_bytes())
    request = ocsp.OCSPRequestBuilder().add_certificate(world.leaf(name), issuer, hashes.SHA1()).build()
    posted = urllib.request.Request(world.ocsp_url, request.public_bytes(Encoding.DER))
    posted.add_header("Content-Type", "application/ocsp-request")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(posted, timeout=10) as answer:
        response: bytes = answer.read()
    return response


def names(world: World, name: str = NAME) -> list[str]:
    """Return the DNS names of the lineage's leaf."""
    found = world.leaf(name).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return found.get_values_for_type(x509.DNSName)


def records(world: World) -> list[dict[str, Any]]:
    """Return what is remembered of each lineage between runs."""
    return [json.loads(path.read_text()) for path in (world.config_dir / "seafile" / "lineages").glob("*.json")]


def record(world: World, name: str = NAME) -> dict[str, Any]:
    """Return what is remembered of the lineage between runs."""
    (found,) = (record for record in records(world) if record["lineage"] == name)
    return found


def change_record(world: World, name: str = NAME, **fields: object) -> None:
    """Let other things be remembered of the lineage."""
    path = world.config_dir / "seafile" / "lineages" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def on_terminal(world: World, *words: str) -> tuple[int, str]:
    """Run the console script in a terminal; return its exit code, and all that was written there."""
    master, slave = pty.openpty()
    program = Path(sys.executable).parent / "certbot-seafile"
    command = [str(word) for word in (program, *world.folders, *words)]
    environment = world.environment() | {"TERM": "xterm"}
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        shown = b""
        while block := _read(master):
            shown += block
    os.close(master)
    return process.returncode, shown.decode()


def _read(terminal: int) -> bytes:
    """Return what was written to a terminal since; nothing when all that had it open have ended."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
