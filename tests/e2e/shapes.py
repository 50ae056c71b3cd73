"""Shapes of sites, each with what is to become of it.

The law of this module: data only. Ports 80 and 443 and the system's paths are mapped into the test's world; further
ports are 8080 and 8443.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NAME = "seafile.example.com"

PROXY = """\
    location / {
        proxy_pass http://127.0.0.1:8000;
        proxy_set_header Host $http_host;
    }
    location /seafhttp {
        rewrite ^/seafhttp(.*)$ $1 break;
        proxy_pass http://127.0.0.1:8082;
        client_max_body_size 0;
    }
"""
CERTIFICATE = """\
    ssl_certificate /etc/ssl/cacert.pem;
    ssl_certificate_key /etc/ssl/privkey.pem;
"""
REDIRECT = "    return 301 https://$host$request_uri;\n"


def plain(body: str = REDIRECT, listen: str = "80", names: str = NAME) -> str:
    """Return a port-80 server."""
    return f"server {{\n    listen {listen};\n    server_name {names};\n{body}}}\n"


def tls(body: str = PROXY, listen: str = "443 ssl", names: str = NAME, certificate: str = CERTIFICATE) -> str:
    """Return a TLS server."""
    return f"server {{\n    listen {listen};\n    server_name {names};\n{certificate}{body}}}\n"


SITE = plain() + tls()


@dataclass(frozen=True)
class Shape:
    """A site. refused: a phrase of the refusal ("" where it is to end served); snippets: files beside it.

    others: further sites. words: further options. is_old: newer nginx refuses it.
    """

    site: str | bytes
    refused: str = ""
    snippets: dict[str, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    is_old: bool = False

    @property
    def content(self) -> bytes:
        """Return the site's bytes."""
        return self.site if isinstance(self.site, bytes) else self.site.encode()


DOTFILES = "    location ~ /\\. { deny all; }\n"
ECDSA_CERTIFICATE = """\
    ssl_certificate /etc/ssl/ecdsa-cacert.pem;
    ssl_certificate_key /etc/ssl/ecdsa-privkey.pem;
"""
OTHER_TLS = tls("    root /var/www/html;\n", names="other.example.org")

SHAPES: dict[str, Shape] = {
    "the manual's": Shape(SITE),
    "CRLF": Shape(SITE.replace("\n", "\r\n")),
    "Latin-1 in a comment": Shape(SITE.encode() + "# für Zürich\n".encode("latin-1")),
    "several directives on one line": Shape(
        SITE.replace(";\n    ssl_certificate_key", "; ssl_certificate_key").replace(
            ";\n    server_name", "; server_name"
        )
    ),
    "a directive over several lines with a comment between": Shape(
        SITE.replace(
            "    ssl_certificate /etc/ssl/cacert.pem;",
            "    ssl_certificate # the old one;\n        /etc/ssl/cacert.pem\n    ;",
        )
    ),
    "quoted paths with spaces": Shape(
        SITE.replace("/etc/ssl/cacert.pem", '"/etc/ssl/my certs/cacert.pem"').replace(
            "/etc/ssl/privkey.pem", "'/etc/ssl/my certs/privkey.pem'"
        )
    ),
    "braces and semicolons in strings and comments": Shape(
        SITE.replace("    location / {", '    add_header X-Odd "} ; { # not a comment";   # } ; {\n    location / {')
    ),
    "an RSA and ECDSA pair": Shape(plain() + tls(certificate=CERTIFICATE + ECDSA_CERTIFICATE)),
    "certificate in an included snippet of its own": Shape(
        plain() + tls(certificate="    include /etc/nginx/snippets/seafile-cert.conf;\n"),
        snippets={"seafile-cert.conf": CERTIFICATE},
    ),
    "certificate in an included snippet that others share": Shape(
        plain() + tls(certificate="    include /etc/nginx/snippets/shared.conf;\n"),
        snippets={"shared.conf": CERTIFICATE + "    ssl_session_timeout 7m;\n"},
        others={
            "other.conf": tls(
                "    root /var/www/html;\n",
                names="other.example.org",
                certificate="    include /etc/nginx/snippets/shared.conf;\n",
            )
        },
    ),
    "stapling in a shared snippet": Shape(
        plain() + tls("    include /etc/nginx/snippets/params.conf;\n" + PROXY),
        snippets={"params.conf": "ssl_stapling on;\nssl_stapling_verify on;\nssl_session_timeout 7m;\n"},
        others={"other.conf": tls("    include /etc/nginx/snippets/params.conf;\n", names="other.example.org")},
    ),
    "certificate at http level": Shape(
        "ssl_certificate /etc/ssl/cacert.pem;\nssl_certificate_key /etc/ssl/privkey.pem;\n"
        + plain()
        + tls(certificate="")
    ),
    "certificate with a variable": Shape(
        plain()
        + tls(
            certificate="    ssl_certificate /etc/ssl/$ssl_server_name.pem;\n"
            "    ssl_certificate_key /etc/ssl/$ssl_server_name.key;\n"
        )
    ),
    "certificate with a variable for several names": Shape(
        plain()
        + tls(
            names=f"{NAME} files.example.com",
            certificate="    ssl_certificate /etc/ssl/$ssl_server_name.pem;\n"
            "    ssl_certificate_key /etc/ssl/$ssl_server_name.key;\n",
        )
    ),
    "another name in the same server block": Shape(plain() + tls(names=f"{NAME} files.example.com")),
    "both families on one socket": Shape(
        plain(listen="[::]:80 ipv6only=off") + tls(listen="[::]:443 ssl ipv6only=off")
    ),
    "server-level rewrite": Shape(plain("    rewrite ^ https://$http_host$request_uri? permanent;\t# away\n") + tls()),
    "server-level if": Shape(
        plain(
            "    if ($host = seafile.example.com) {\n        return 301 https://$host$request_uri;\n    }\n    return 404;\n"
        )
        + tls()
    ),
    "one server for both ports": Shape(tls(listen="80;\n    listen 443 ssl")),
    "dotfiles denied by a regular expression": Shape(
        plain(DOTFILES + "    location / { return 301 https://$host$request_uri; }\n") + tls()
    ),
    "an ACME location that works": Shape(
        plain(
            "    location ^~ /.well-known/acme-challenge/ { root /var/www/acme; }\n    location / { return 301 https://$host$request_uri; }\n"
        )
        + tls()
    ),
    "an ACME location that is proxied away": Shape(
        plain("    location /.well-known/acme-challenge/ { proxy_pass http://127.0.0.1:1; }\n" + REDIRECT) + tls()
    ),
    "a shorter location ^~ /.well-known/": Shape(
        plain(
            "    location ^~ /.well-known/ { return 404; }\n    location / { return 301 https://$host$request_uri; }\n"
        )
        + tls()
    ),
    "location ^~ /": Shape(plain("    location ^~ / { return 301 https://$host$request_uri; }\n") + tls()),
    "no server_name": Shape(SITE.replace(f"    server_name {NAME};\n", "")),
    "server_name _": Shape(plain(names="_") + tls(names="_")),
    "server_name _ default_server": Shape(
        plain(listen="80 default_server", names="_") + tls(listen="443 ssl default_server", names="_")
    ),
    "server_name _ behind another site's default": Shape(
        plain(names="_") + tls(names="_"),
        others={
            "000-default": plain("    root /var/www/html;\n", "80 default_server", "default.example.org")
            + tls("    root /var/www/html;\n", "443 ssl default_server", "default.example.org")
        },
    ),
    "server_name _ beside Debian's own default site": Shape(
        plain(names="_") + tls(names="_"),
        others={
            "default": "server {\n    listen 80 default_server;\n    listen [::]:80 default_server;\n    root /var/www/html;\n"
            "    index index.html;\n    server_name _;\n    location / {\n        try_files $uri $uri/ =404;\n    }\n}\n"
        },
    ),
    "TLS without a name, plain with one": Shape(plain() + tls(names="_")),
    "regular expression as name": Shape(
        plain(names=r'"~^(?<sub>seafile)\.example\.com$"') + tls(names=r'"~^(?<sub>seafile)\.example\.com$"')
    ),
    "wildcard name": Shape(plain(names="*.example.com") + tls(names="*.example.com")),
    "leading dot name": Shape(plain(names=".example.com") + tls(names=".example.com")),
    "mixed case": Shape(plain(names="Seafile.Example.COM") + tls(names="Seafile.Example.COM")),
    "quoted names": Shape(plain(names=f'"{NAME}"') + tls(names=f"'{NAME}'")),
    "a comment before the brace": Shape(SITE.replace("server {", "server # here it comes {\n{")),
    "the brace on the next line": Shape(SITE.replace("server {", "server\n{")),
    "the whole site on one line": Shape(" ".join(line.strip() for line in SITE.splitlines())),
    "no final newline": Shape(SITE.rstrip("\n")),
    "a commented-out old server": Shape("".join(f"#{line}\n" for line in SITE.splitlines()) + SITE),
    "listen 443; ssl on;": Shape(plain() + tls("    ssl on;\n" + PROXY, listen="443"), is_old=True),
    "server lines in an upstream and a map": Shape(
        "upstream seahub { server 127.0.0.1:8000; }\nmap $host $server { default 1; server 2; }\n"
        + SITE.replace("http://127.0.0.1:8000", "http://seahub")
    ),
    "listen *:80": Shape(plain(listen="*:80") + tls(listen="*:443 ssl")),
    "IPv6 beside IPv4": Shape(
        plain(listen="80;\n    listen [::]:80") + tls(listen="443 ssl;\n    listen [::]:443 ssl")
    ),
    "HTTPS only": Shape(tls()),
    "HTTPS only, with a unix socket and another port in clear": Shape(
        tls(listen="443 ssl;\n    listen 8080;\n    listen unix:/run/seafile.sock")
    ),
    "HTTP only": Shape(plain(PROXY)),
    "HTTP only, with port 443 in clear": Shape(plain(PROXY, listen="80;\n    listen 443")),
    "a login for all that nginx serves": Shape(SITE, others={"login.conf": "auth_request /login;\n"}),
    "tabs": Shape(SITE.replace("    ", "\t")),
    "auth_basic and deny all": Shape(
        plain('    auth_basic "keep out";\n    auth_basic_user_file /etc/nginx/proxy_params;\n    deny all;\n' + PROXY)
        + tls()
    ),
    "stapling lines already there": Shape(
        plain()
        + tls(
            "    ssl_stapling on;\n    ssl_stapling_verify on;\n    ssl_trusted_certificate /etc/ssl/cacert.pem;\n"
            + PROXY
        )
    ),
    "ssl_reject_handshake in a default server": Shape(
        SITE, others={"000-reject": "server {\n    listen 443 ssl default_server;\n    ssl_reject_handshake on;\n}\n"}
    ),
    "proxy_protocol": Shape(
        plain(listen="80 proxy_protocol") + tls(listen="443 ssl proxy_protocol"), refused="Some challenges have failed"
    ),
    "a TLS port other than 443": Shape(plain() + tls(listen="8443 ssl")),
    "locations in an included file": Shape(
        plain() + tls("    include /etc/nginx/snippets/locations.conf;\n"), snippets={"locations.conf": PROXY}
    ),
    "a redirect in an included file": Shape(
        plain("    include /etc/nginx/snippets/to-https.conf;\n") + tls(), snippets={"to-https.conf": REDIRECT}
    ),
    "a site that nginx refuses": Shape(SITE + "server { no_such_thing; }\n", refused="no_such_thing"),
    "two files with the same name": Shape(SITE, refused="--seafile-site", others={"zz-copy.conf": SITE}),
    "two files with the same name, one named": Shape(
        SITE, others={"zz-copy.conf": OTHER_TLS}, words=("--seafile-site", "SITE")
    ),
    "a neighbour that listens on an address of its own": Shape(SITE, others={"other.conf": OTHER_TLS}),
}
