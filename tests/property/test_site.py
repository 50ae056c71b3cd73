"""Any Seafile site that nginx accepts is edited into one that nginx accepts, and editing it again changes nothing."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.site import edits, find, model, plan
from certbot_seafile.system import nginx

NAME = "seafile.example.com"
SITES = int(os.environ.get("SEAFILE_FUZZ", "60"))

if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
    pytest.skip("nginx is not installed", allow_module_level=True)

NAMES = [NAME, "_", "", f'"{NAME}"', f"{NAME} files.example.com", "*.example.com", ".example.com",
         '"~^seafile\\.example\\.com$"', "Seafile.EXAMPLE.com", "192.0.2.1"]  # fmt: skip
# Ports above 1024: `nginx -t` binds what it can, and an ordinary user could not.
HTTP, HTTPS = 8080, 8443
LISTEN_PLAIN = ["80", "127.0.0.1:80", "*:80", "80; listen [::]:80", "80 default_server", "[::]:80 ipv6only=off"]
LISTEN_TLS = ["443 ssl", "127.0.0.1:443 ssl", "443 ssl; listen [::]:443 ssl", "443 ssl default_server", "8443 ssl"]
PLAIN_BODIES = [
    "return 301 https://$host$request_uri;",
    "rewrite ^ https://$http_host$request_uri? permanent; # away {",
    "if ($host = x) { return 404; } location / { return 301 https://$host$request_uri; }",
    "location /seafile { rewrite ^ https://$http_host$request_uri? permanent; }",
    "location ~ /\\. { deny all; } location / { return 301 https://$host$request_uri; }",
    "location /.well-known/acme-challenge/ { root /tmp; } location / { return 404; }",
    "location /.well-known/acme-challenge { alias /tmp/x; }",
    "location ^~ /.well-known/ { return 404; }",
    "set $a b; error_page 404 @x; location @x { return 302 /; }",
    'auth_basic "x } ; {"; auth_basic_user_file /tmp/x; deny all;',
    "include {folder}/redirect.conf;",
    "",
]
PROXIES = [
    "location /sdoc-server { proxy_pass http://127.0.0.1:8888/; proxy_set_header Host $host; }",
    "location /seafhttp { rewrite ^/seafhttp(.*)$ $1 break; proxy_pass http://127.0.0.1:8082; }",
    "location /seafdav { proxy_pass http://127.0.0.1:8080/seafdav; }",
    "location /seafmedia { rewrite ^/seafmedia(.*)$ /media$1 break; root /opt; }",
]
EXTRAS = [
    "server_tokens off;", "client_max_body_size 0;", "add_header X-A 'b; }' always;", "ssl_session_timeout 5m;",
    "# just a comment with { and ;", "ssl_stapling on;", "ssl_stapling_verify on;", "include {folder}/shared.conf;",
    "resolver 192.0.2.53;", "ssl_protocols TLSv1.2 TLSv1.3;", "proxy_set_header X-Real-IP $remote_addr;",
]  # fmt: skip
CERTIFICATES = [
    "ssl_certificate {folder}/a.pem; ssl_certificate_key {folder}/a.key;",
    "ssl_certificate     {folder}/a.pem;   # the old one\nssl_certificate_key {folder}/a.key;\t# its key",
    "ssl_certificate {folder}/a.pem; ssl_certificate_key {folder}/a.key; "
    "ssl_certificate {folder}/e.pem; ssl_certificate_key {folder}/e.key;",
    "ssl_certificate\n  # where?\n  '{folder}/a.pem'\n;\nssl_certificate_key {folder}/a.key;",
    "include {folder}/certificate.conf;",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with certificates and snippets, below which nginx keeps all that it writes."""
    made = tmp_path_factory.mktemp("sites")
    for name, kind in (("a", ["rsa:2048"]), ("e", ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"])):
        command = ["openssl", "req", "-x509", "-nodes", "-days", "9", "-subj", "/CN=x", "-newkey", *kind]
        pair = ["-keyout", str(made / f"{name}.key"), "-out", str(made / f"{name}.pem")]
        subprocess.run([*command, *pair], capture_output=True, check=True)
    shutil.copy(made / "a.pem", made / "new.pem")
    shutil.copy(made / "a.key", made / "new.key")
    (made / "certificate.conf").write_text(f"ssl_certificate {made}/a.pem;\nssl_certificate_key {made}/a.key;\n")
    (made / "shared.conf").write_text("ssl_session_tickets off;\nssl_stapling on;\n")
    (made / "redirect.conf").write_text("return 301 https://$host$request_uri;\n")
    return made


def layout(rng: random.Random, text: str) -> bytes:
    """Lay a site's text out in one of the ways that people have."""
    way = rng.randrange(5)
    if way == 0 and "#" not in text:
        text = " ".join(text.split())
    elif way == 1:
        text = text.replace("\n", "\r\n")
    elif way == 2:
        text = text.replace("    ", "\t").rstrip("\n")
    elif way == 3:
        text = "    " + text.replace("\n", "\n    ").rstrip(" ")
    return text.encode()


def block(rng: random.Random, listen: str, name: str, parts: list[str]) -> str:
    """Return a server block with its parts in random order, on lines of their own or together."""
    said = [f"listen {listen};", *([f"server_name {name};"] if name else []), *parts]
    rng.shuffle(said)
    lines: list[str] = []
    for part in said:
        if lines and "#" not in lines[-1] and rng.random() < 0.2:
            lines[-1] += " " + part
        else:
            lines.append(part)
    head = rng.choice(["server {", "server\n{", "server # x {\n{"])
    return head + "\n" + "".join("    " + line.replace("\n", "\n    ") + "\n" for line in lines) + "}\n"


def some_site(rng: random.Random, folder: Path) -> bytes:
    """Return a random site: plain and TLS servers, one for both, or only one of them."""
    name = rng.choice(NAMES)
    proxies = rng.sample(PROXIES, rng.randint(1, 3))
    extras = rng.sample(EXTRAS, rng.randint(0, 3))
    plain = block(rng, rng.choice(LISTEN_PLAIN), name, [rng.choice(PLAIN_BODIES)])
    tls = block(rng, rng.choice(LISTEN_TLS), name, [*proxies, *extras, rng.choice(CERTIFICATES)])
    both = block(rng, "80; listen 443 ssl", name, [*proxies, *extras, rng.choice(CERTIFICATES)])
    only_plain = block(rng, rng.choice(LISTEN_PLAIN), name, proxies)
    chosen = rng.choice([plain + tls, tls + plain, plain + "\n" + tls, both, only_plain, tls])
    chosen = chosen.replace("8443 ssl", "9443 ssl").replace("{folder}", str(folder))
    return layout(rng, re.sub(r"\b(80|443)(?=[ ;])", lambda port: str({"80": HTTP, "443": HTTPS}[port[0]]), chosen))


def complaint(folder: Path) -> str | None:
    """Return what nginx says against the configuration, None where it accepts it."""
    try:
        nginx.Nginx("nginx", str(folder)).test()
    except errors.NginxRefused as refused:
        return str(refused)
    return None


def write(folder: Path, content: bytes) -> None:
    """Write the site below nginx.conf."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    head = f"error_log stderr; pid {folder}/pid; events {{}} http {{ access_log off; {temporary}"
    (folder / "nginx.conf").write_text(f"{head} include {folder}/site; }}\n")
    (folder / "site").write_bytes(content)


def planned(folder: Path) -> edits.Edits:
    """Plan the whole deployment of a new certificate from what is on disk, as deploy.plan does it."""
    configuration = nginx.Nginx("nginx", str(folder)).configuration()
    every = model.http_servers(configuration.statements([NAME]))
    found = find.site(every, [NAME], http_port=HTTP)
    made = edits.Edits()
    for server, domain in found.nameless:
        plan.add_name(made, server, domain)
    challenge = plan.Challenge(str(folder))
    for server in found.plain:
        if not plan.has_challenge_location(server, challenge):
            plan.add_challenge_location(made, server, challenge)
    if not found.plain:
        plan.add_plain_server(made, found, found.tls[0], challenge, HTTP)
    wanted = plan.Certificate(str(folder / "new.pem"), str(folder / "new.key"), f"{folder}/OCSP/x.conf", True)
    for server in found.tls:
        plan.install(made, server, wanted)
    if not found.tls:
        for server in found.plain:
            plan.add_tls(made, found, server, wanted, (HTTP, HTTPS), True)
    return made


def in_force(folder: Path) -> list[tuple[bytes, ...]]:
    """Return every statement that nginx reads from the site, name and arguments."""
    statements = nginx.Nginx("nginx", str(folder)).configuration().statements()
    return [(said.name, *said.arguments) for outer in statements for said in outer.walk()]


REPLACED = (b"ssl_certificate", b"ssl_certificate_key", b"ssl_stapling", b"ssl_stapling_verify")


@pytest.mark.parametrize("seed", range(SITES))
def test_an_accepted_site_stays_accepted(folder: Path, seed: int) -> None:
    """nginx accepts the edited site, every other statement stays in force in its order, and a second plan is empty."""
    rng = random.Random(seed)
    write(folder, before := some_site(rng, folder))
    if complaint(folder) is not None:
        pytest.skip("nginx does not accept this one")
    statements = in_force(folder)
    snippets = {path: path.read_bytes() for path in folder.glob("*.conf")}
    try:
        made = planned(folder)
        for path in made.paths:
            Path(path).write_bytes(made.after(path))
        assert complaint(folder) is None, before + b"\n=====>\n" + (folder / "site").read_bytes()
        remaining = iter(in_force(folder))
        kept = [said for said in statements if said[0] not in REPLACED and said[0] != b"include"]
        lost = [said for said in kept if said not in remaining]
        assert lost == []
        assert not planned(folder), (folder / "site").read_bytes()
    finally:
        for snippet, content in snippets.items():
            snippet.write_bytes(content)
