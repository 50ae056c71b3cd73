"""What is written into a site for a sealed certificate, and for challenges."""

from __future__ import annotations

import contextlib
import fnmatch
from dataclasses import replace

import pytest

from certbot_seafile import errors
from certbot_seafile.site import edits, find, model, plan, proof
from certbot_seafile.site.config import Configuration, File
from certbot_seafile.site.plan import Challenge

NAME = "home.seafile.com"
SNIPPET = f"/etc/nginx/OCSP/{NAME}.conf"
SEALED = plan.Certificate("/live/fullchain.pem", "/live/privkey.pem", SNIPPET, is_stapled=True, is_sealed=True)
PLAIN = replace(SEALED, is_sealed=False)
INCLUDE = f"include /etc/nginx/OCSP/{NAME}[.]conf;"
VERSION = """\
ssl_certificate /etc/nginx/OCSP/V/fullchain.pem;
ssl_certificate_key /etc/nginx/OCSP/V/privkey.pem;
ssl_stapling on;
ssl_stapling_file /etc/nginx/OCSP/V/ocsp.response;
"""
HTTP = "http { include /sites/*; }\n"
OTHER = "server {\n    listen 443 ssl;\n    server_name other.example;\n    include /shared.conf;\n}\n"
CERTIFICATE = "    ssl_certificate /old.pem;\n    ssl_certificate_key /old.key;\n"

Files = dict[str, str]


def configuration(contents: Files, real: Files) -> Configuration:
    """Return the configuration of files by the path that names them; real: the real paths of those named by a link."""
    files = {path: File(real.get(path, path), text.encode()) for path, text in contents.items()}
    return Configuration(
        files["nginx.conf"],
        lambda pattern: tuple(files[path] for path in sorted(fnmatch.filter(files, pattern.decode()))),
    )


def site_of(contents: Files, real: Files | None = None) -> find.Site:
    """Return the site that answers for NAME."""
    chosen = configuration({"nginx.conf": HTTP, **contents}, real or {})
    return find_in(chosen)


def find_in(chosen: Configuration) -> find.Site:
    """Return the site that answers for NAME in a configuration."""
    return find.site(model.http_servers(chosen.statements([NAME])), [NAME])


def after(contents: Files, planned: edits.Edits) -> Files:
    """Return the files with the edits, which can be taken out again to the byte."""
    new = contents | {path: planned.after(path).decode() for path in planned.paths}
    for path in planned.paths:
        taken = edits.take_out(planned.before(path), planned.after(path), planned.after(path))
        assert taken == (contents[path].encode(), True)
    return new


def installed(contents: Files, wanted: plan.Certificate = SEALED, real: Files | None = None) -> Files:
    """Return the files once every TLS server of the site has the certificate."""

    def add_edits(planned: edits.Edits, site: find.Site) -> None:
        for server in site.tls:
            plan.install(planned, server, wanted)

    chosen = configuration({"nginx.conf": HTTP, **contents}, real or {})
    return after(contents, proof.plan_harmless(chosen, find_in, add_edits))


def tls(lines: str) -> str:
    """Return a TLS server of the site."""
    return f"server {{\n    listen 443 ssl;\n    server_name {NAME};\n{lines}}}\n"


def in_force(server: model.Server, *names: bytes) -> list[str]:
    """Return the arguments of the statements with these names at a server's level."""
    return [argument.decode() for statement in server.level(*names) for argument in statement.arguments]


PINNED = f"""\
#    ssl_certificate /live/fullchain.pem;
    ssl_certificate /archive/{NAME}/fullchain3.pem;
#    ssl_certificate_key /live/privkey.pem;
    ssl_certificate_key /archive/{NAME}/privkey3.pem;
#    {INCLUDE}
    ssl_stapling on;
    ssl_stapling_file /etc/nginx/OCSP/{NAME}/pinned.response;
"""
STAPLED = f"    ssl_certificate /live/fullchain.pem;\n    ssl_certificate_key /live/privkey.pem;\n    {INCLUDE}\n"
SITES: dict[str, Files] = {
    "the tutorial's": {"/sites/1": tls(CERTIFICATE + "    ssl_stapling on;\n    ssl_stapling_verify on;\n")},
    "no certificate at the server's level": {"/sites/1": tls("    location / { return 404; }\n")},
    "on one line": {
        "/sites/1": "server { listen 443 ssl; ssl_certificate /old.pem; ssl_certificate_key /old.key; server_name "
        f"{NAME}; ssl_stapling on; location / {{ return 404; }} }}\n"
    },
    "stapled": {"/sites/1": tls(STAPLED), SNIPPET: VERSION},
    "pinned": {"/sites/1": tls(PINNED)},
    "an RSA and an ECDSA certificate": {"/sites/1": tls(CERTIFICATE + CERTIFICATE.replace("old", "ecdsa"))},
    "its own included file": {"/sites/1": tls("    include /shared.conf;\n"), "/shared.conf": CERTIFICATE},
    "an included file that another site reads too": {
        "/sites/1": tls("    include /shared.conf;\n"),
        "/sites/2": OTHER,
        "/shared.conf": f"{CERTIFICATE}ssl_stapling on;\nssl_session_timeout 5m;\n",
    },
    "our include moved into a file that another site reads too": {
        "/sites/1": tls("    include /shared.conf;\n"),
        "/sites/2": OTHER,
        "/shared.conf": STAPLED,
        SNIPPET: VERSION,
    },
    "the include of another certificate in a file that another site reads too": {
        "/sites/1": tls("    include /shared.conf;\n"),
        "/sites/2": OTHER,
        "/shared.conf": "include /inner.conf;\n",
        "/inner.conf": "ssl_session_timeout 5m;\ninclude /etc/nginx/OCSP/old.example[.]conf;\n",
        "/etc/nginx/OCSP/old.example.conf": VERSION.replace("/V/", "/OLD/"),
    },
    "sealed under another name": {
        "/sites/1": tls("    include /etc/nginx/OCSP/old.example[.]conf;\n"),
        "/etc/nginx/OCSP/old.example.conf": VERSION.replace("/V/", "/OLD/"),
    },
}


@pytest.mark.parametrize("contents", SITES.values(), ids=SITES)
def test_a_sealed_certificate_is_the_only_one_of_the_site(contents: Files) -> None:
    """What the snippet says is in force, nothing else of its kind is, and a second run plans nothing."""
    new = {SNIPPET: VERSION} | installed(contents)
    (server,) = site_of(new).tls
    assert in_force(server, b"ssl_certificate") == ["/etc/nginx/OCSP/V/fullchain.pem"]
    assert in_force(server, b"ssl_certificate_key") == ["/etc/nginx/OCSP/V/privkey.pem"]
    assert in_force(server, b"ssl_stapling", b"ssl_stapling_file") == ["on", "/etc/nginx/OCSP/V/ocsp.response"]
    assert "/V/" not in new["/sites/1"]
    assert installed(new) == new


@pytest.mark.parametrize("title", [title for title in SITES if "another site" in title])
def test_a_file_that_another_site_reads_keeps_its_bytes(title: str) -> None:
    """What else it says to the Seafile site still applies there."""
    new = installed(SITES[title])
    assert [path for path in new if new[path] != SITES[title][path]] == ["/sites/1"]
    others = in_force(site_of(SITES[title]).tls[0], b"ssl_session_timeout")
    assert in_force(site_of(new).tls[0], b"ssl_session_timeout") == others


def test_the_include_stands_in_place_of_the_certificate() -> None:
    """Below the first line that it takes the place of, in its indentation; other lines stay as they are."""
    new = installed({"/sites/1": tls(f"    # here\n{CERTIFICATE}    ssl_stapling on; # why\n    gzip off;\n")})
    assert new["/sites/1"] == tls(
        f"    # here\n#    ssl_certificate /old.pem;\n    {INCLUDE}\n#    ssl_certificate_key /old.key;\n"
        "#    ssl_stapling on; # why\n    gzip off;\n"
    )


def test_an_include_that_stands_there_stays() -> None:
    """When a stapled certificate is sealed, only its own two lines are commented out."""
    new = installed(SITES["stapled"])
    assert new["/sites/1"] == tls(
        f"#    ssl_certificate /live/fullchain.pem;\n#    ssl_certificate_key /live/privkey.pem;\n    {INCLUDE}\n"
    )


SEALED_SITES: dict[str, tuple[Files, Files]] = {
    "its own include": ({"/sites/1": tls(f"    {INCLUDE}\n"), SNIPPET: VERSION}, {}),
    "the folder of snippets is a link": (
        {"/sites/1": tls(f"    {INCLUDE}\n"), SNIPPET: VERSION},
        {SNIPPET: f"/srv/OCSP/{NAME}.conf"},
    ),
    "the include in a file of its own": (
        {"/sites/1": tls("    include /tls.conf;\n"), "/tls.conf": f"{INCLUDE}\n", SNIPPET: VERSION},
        {},
    ),
    "the snippet is missing": ({"/sites/1": tls(f"    {INCLUDE}\n")}, {}),
}


@pytest.mark.parametrize(("contents", "real"), SEALED_SITES.values(), ids=SEALED_SITES)
def test_in_a_sealed_site_nothing_is_planned(contents: Files, real: Files) -> None:
    """A renewal edits no site, and never the snippet."""
    assert installed(contents, real=real) == contents


def test_a_plain_certificate_does_not_touch_the_snippet_of_another() -> None:
    """Only the include of that snippet is commented out."""
    contents = SITES["sealed under another name"]
    new = installed(contents, PLAIN)
    assert {path for path in new if new[path] != contents[path]} == {"/sites/1"}
    assert in_force(site_of(new).tls[0], b"ssl_certificate", b"ssl_certificate_key") == [PLAIN.fullchain, PLAIN.key]
    assert installed(new, PLAIN) == new


def test_a_foreign_pair_stays_beside_a_plain_certificate_only() -> None:
    """Beside a sealed one, a client could be handed the other without its staple."""
    contents = {"/sites/1": tls(CERTIFICATE)}
    kept = frozenset({"/old.pem", "/old.key"})
    beside = in_force(site_of(installed(contents, replace(PLAIN, kept=kept))).tls[0], b"ssl_certificate")
    assert sorted(beside) == [PLAIN.fullchain, "/old.pem"]
    sealed = installed(contents, replace(SEALED, kept=kept))
    assert in_force(site_of(sealed).tls[0], b"ssl_certificate", b"ssl_certificate_key") == []


ELSEWHERE_TOO = {
    "a unix socket": ("443 ssl;\n    listen unix:/run/seafile.sock", "", False),
    "another port in clear": ("443 ssl;\n    listen 8080", "", False),
    "a block of its own for a unix socket": ("443 ssl", "unix:/run/seafile.sock", False),
    "a block of its own for another port": ("443 ssl", "8080", True),
}


@pytest.mark.parametrize(("listens", "beside", "is_refused"), ELSEWHERE_TOO.values(), ids=ELSEWHERE_TOO)
def test_what_a_site_with_tls_listens_on_beside(listens: str, beside: str, is_refused: bool) -> None:
    """Only a block in clear may be what a router forwards port 80 to, which people have to say."""
    block = tls(CERTIFICATE).replace("443 ssl", listens)
    clear = f"server {{\n    listen {beside};\n    server_name {NAME};\n}}\n" if beside else ""
    with pytest.raises(errors.SiteRefused, match="8080, not on port 80") if is_refused else contextlib.nullcontext():
        assert site_of({"/sites/1": block + clear}).plain == ()


def test_a_port_of_tls_in_clear_speaks_tls_from_then_on() -> None:
    """nginx refuses a second listen line for the same socket; the redirect is for port 80 then."""
    listens = "    listen 443;\n    listen [::]:443 http2;\n"
    new = with_tls({"/sites/1": plain(listens + SEAHUB)})["/sites/1"]
    assert [line.strip() for line in new.splitlines() if line.strip().startswith("listen")] == [
        "listen 80;", "listen 443 ssl;", "listen [::]:443 http2 ssl;",
    ]  # fmt: skip


def test_a_socket_for_both_families_is_shared() -> None:
    """A running nginx could not open another for IPv4; the words for the socket itself stand once."""
    other = OTHER.replace("443 ssl", "[::]:443 ssl ipv6only=off")
    new = with_tls({"/sites/0": other, "/sites/1": plain("    listen [::]:80;\n" + SEAHUB), "/shared.conf": ""})
    assert "    listen [::]:443 ssl;\n" in new["/sites/1"]
    assert new["/sites/1"].count("443") == 1


def test_a_site_without_tls_gets_the_include_alone() -> None:
    """A sealed certificate has no other line."""
    contents = {"/sites/1": f"server {{\n    listen 80;\n    server_name {NAME};\n}}\n"}
    site, planned = site_of(contents), edits.Edits()
    plan.add_tls(planned, site, site.plain[0], SEALED, (80, 443), True)
    new = after(contents, planned)["/sites/1"]
    assert INCLUDE in new
    assert "ssl_certificate" not in new


# --- challenges

HERE = Challenge("/var/www/letsencrypt")
USERS = replace(HERE, is_users=True)
THERE = replace(HERE, forward="http://192.0.2.7")
ELSEWHERE = replace(HERE, forward="http://[2001:db8::7]:8080")
NO_LINKS = "disable_symlinks on from=$document_root;"
OWN = "    location ^~ /.well-known/acme-challenge/ {\n        root /var/www/letsencrypt;\n    }\n"
ACME = "location ^~ /.well-known/acme-challenge/ {\n    root /var/www/acme;\n}\n"


def plain(lines: str, name: str = NAME) -> str:
    """Return a port-80 server."""
    return f"server {{\n    listen 80;\n    server_name {name};\n{lines}}}\n"


def with_challenge(contents: Files, challenge: Challenge) -> Files:
    """Return the files once every plain server of the site answers challenges in this way."""

    def add_edits(planned: edits.Edits, site: find.Site) -> None:
        for server in site.plain:
            if not plan.has_challenge_location(server, challenge):
                plan.add_challenge_location(planned, server, challenge)

    new = after(contents, proof.plan_harmless(configuration({"nginx.conf": HTTP, **contents}, {}), find_in, add_edits))
    assert all(plan.has_challenge_location(server, challenge) for server in site_of(new).plain)
    return new


UNWIRED = {
    "nothing": plain(""),
    "a redirect": plain("    return 301 https://$host$request_uri;\n"),
    "a location of another kind": plain("    location /.well-known/acme-challenge/ { return 404; }\n"),
    "on one line": f"server {{ listen 80; server_name {NAME}; location / {{ return 404; }} }}\n",
    "a person's folder": plain("    location ^~ /.well-known/acme-challenge { root /var/www/html; }\n"),
    "ours": plain(OWN),
}


@pytest.mark.parametrize("site", UNWIRED.values(), ids=UNWIRED)
def test_every_site_can_answer_in_every_way(site: str) -> None:
    """Each way is known again, and one takes the place of the other."""
    contents = {"/sites/1": site}
    for challenge in (USERS, THERE, ELSEWHERE, HERE, THERE, USERS):
        contents = with_challenge(contents, challenge)
        location = model.locations_for(site_of(contents).plain[0], "/.well-known/acme-challenge/x")[-1]
        passed = [text for statement in location.named(b"proxy_pass") for text in statement.arguments]
        assert passed == ([challenge.forward.encode()] if challenge.forward else [])
        assert not challenge.is_users or NO_LINKS in contents["/sites/1"]


FOLLOWING_LINKS = {
    "ours": OWN,
    "a person's": "    location ^~ /.well-known/acme-challenge/ {\n        alias /srv/acme/;\n    }\n",
}


@pytest.mark.parametrize("location", FOLLOWING_LINKS.values(), ids=FOLLOWING_LINKS)
def test_a_folder_that_a_user_writes_is_served_without_its_links(location: str) -> None:
    """The location stays, and gets the line."""
    new = with_challenge({"/sites/1": plain(location)}, USERS)
    assert new["/sites/1"] == plain(location.replace("    }\n", f"        {NO_LINKS}\n    }}\n"))


def test_a_person_who_lets_links_be_followed_is_overruled() -> None:
    """nginx takes the directive once at each level, so the other line is commented out."""
    line = "        disable_symlinks off;\n"
    new = with_challenge({"/sites/1": plain(OWN.replace("    }\n", f"{line}    }}\n"))}, USERS)
    assert new["/sites/1"] == plain(OWN.replace("    }\n", f"#{line}        {NO_LINKS}\n    }}\n"))


def test_a_location_that_passes_on_to_elsewhere_is_replaced() -> None:
    """The old one is commented out whole."""
    old = with_challenge({"/sites/1": plain("")}, ELSEWHERE)
    new = with_challenge(old, THERE)["/sites/1"]
    assert "#        proxy_pass http://[2001:db8::7]:8080;\n" in new
    assert "\n        proxy_pass http://192.0.2.7;\n" in new


def test_a_location_that_passes_on_without_end_is_replaced() -> None:
    """A person's own one may go round and round."""
    line = "    location ^~ /.well-known/acme-challenge/ { proxy_pass http://192.0.2.7; }\n"
    assert "{ return 508; }" in with_challenge({"/sites/1": plain(line)}, THERE)["/sites/1"]


def test_the_challenges_of_another_site_are_answered_as_before() -> None:
    """A file with the location for several sites stays as it is, and the other site too."""
    contents = {
        "/sites/1": plain("    include /acme.conf;\n"),
        "/sites/2": plain("    include /acme.conf;\n", "other.example"),
        "/acme.conf": f"gzip off;\n{ACME}",
    }
    new = with_challenge(contents, THERE)
    assert {path for path in new if new[path] != contents[path]} == {"/sites/1"}
    assert in_force(site_of(new).plain[0], b"gzip") == ["off"]


def test_a_login_for_everything_that_nginx_serves_is_not_asked_of_the_ca() -> None:
    """The location says so, wherever the login is asked for."""
    contents = {"/sites/0": "auth_request /auth;\n", "/sites/1": plain("")}
    assert "auth_request off;" in with_challenge(contents, HERE)["/sites/1"]
    assert "auth_request" not in with_challenge({"/sites/1": plain("")}, HERE)["/sites/1"]


def test_a_made_server_passes_challenges_on() -> None:
    """The port-80 server of an HTTPS-only site does what other servers do."""
    contents = {"/sites/1": tls(CERTIFICATE)}
    site, planned = site_of(contents), edits.Edits()
    plan.add_plain_server(planned, site, site.tls[0], THERE, 80)
    (server,) = site_of(after(contents, planned)).plain
    assert plan.has_challenge_location(server, THERE)
    assert not plan.has_challenge_location(server, HERE)


# --- TLS in front, redirects and headers

PARTIAL = "    rewrite ^/blog https://blog.example.org permanent;\n"
GUARD = r"rewrite ^(/\.well-known/acme-challenge/.*)$ $1"
SEAHUB = "    location / { proxy_pass http://127.0.0.1:8000; }\n"


def with_tls(contents: Files) -> Files:
    """Return the files once the HTTP-only site speaks TLS."""
    site, planned = site_of(contents), edits.Edits()
    plan.add_tls(planned, site, site.plain[0], PLAIN, (80, 443), True)
    return after(contents, planned)


def redirected(contents: Files) -> Files:
    """Return the files once the site redirects to https."""
    site, planned = site_of(contents), edits.Edits()
    plan.redirect(planned, site.plain[0], (80, 443))
    return after(contents, planned)


MAPS = (
    "map $http_x_forwarded_proto $told { default $http_x_forwarded_proto; '' $scheme; }\n"
    "map $told $scheme_there { https https; default http; }\n"
    "map $http_upgrade $connection_upgrade { default upgrade; '' close; }\n"
)
FRONTS = {
    "it reads what it was told": plain("    proxy_set_header X-Forwarded-Proto $http_x_forwarded_proto;\n" + SEAHUB),
    "it says https itself": plain(
        "    location / { proxy_pass http://127.0.0.1:8000; proxy_set_header x-forwarded-proto https; }\n"
    ),
    "Cloudflare's word": plain(
        "    if ($http_cf_visitor ~ http:) { return 301 https://$host$request_uri; }\n" + SEAHUB
    ),
    "another program's word": plain("    proxy_set_header X-Forwarded-Proto ${HTTP_X_Forwarded_Scheme};\n" + SEAHUB),
    "it reads it through maps": MAPS + plain("    proxy_set_header X-Forwarded-Proto $scheme_there;\n" + SEAHUB),
    "a map's value": 'map $server_port $way { 8443 https; default "$http_x_forwarded_ssl"; }\n'
    + plain("    fastcgi_param HTTPS $way;\n" + SEAHUB),
}


@pytest.mark.parametrize("site", FRONTS.values(), ids=FRONTS)
def test_tls_in_front_is_noticed(site: str) -> None:
    """The line that shows it is named; with TLS in nginx itself, it shows nothing."""
    assert find.front(site_of({"/sites/1": site})) is not None
    assert find.front(site_of({"/sites/1": site + tls(CERTIFICATE)})) is None


def test_a_site_in_clear_has_nothing_in_front() -> None:
    """A scheme that nginx has seen itself shows nothing."""
    assert find.front(site_of({"/sites/1": plain("    proxy_set_header X-Forwarded-Proto $scheme;\n")})) is None
    other = "    proxy_set_header Connection $connection_upgrade;\n"
    assert find.front(site_of({"/sites/1": MAPS + plain(other)})) is None


def test_the_map_of_the_manual_for_onlyoffice_shows_nothing() -> None:
    """Seafile's manual has it for every site with OnlyOffice, whether anything stands in front or not."""
    office = "    location /onlyofficeds/ { proxy_set_header X-Forwarded-Proto $scheme_there; }\n"
    assert find.front(site_of({"/sites/1": MAPS + plain(SEAHUB + office)})) is None


REDIRECTING = {
    "return": ("    return 301 https://$host$request_uri;\n", True),
    "rewrite of all": ("    rewrite ^/(.*)$ https://$host/$1 permanent;\n", True),
    "rewrite of a part": (PARTIAL, False),
    "what comes in clear": ("    if ($scheme = http) { return 301 https://$host$request_uri; }\n", True),
    "some browsers": ("    if ($http_user_agent ~ x) { return 301 https://old.example.org/; }\n", False),
    "in the location for all": ("    location / { return 301 https://$host$request_uri; }\n", True),
    "its one name": (f"    if ($host = {NAME}) {{ return 301 https://$host$request_uri; }} return 404;\n", True),
    "another name": (f"    if ($host = www.{NAME}) {{ return 301 https://{NAME}$request_uri; }}\n", False),
    "in another location": ("    location /blog { return 301 https://$host$request_uri; }\n", False),
}


@pytest.mark.parametrize(("lines", "is_whole"), REDIRECTING.values(), ids=REDIRECTING)
def test_a_redirect_of_a_part_is_no_redirect(lines: str, is_whole: bool) -> None:
    """Only where all that comes in clear is redirected, nothing is left to do."""
    assert find.redirects_all(site_of({"/sites/1": plain(lines)}).plain[0]) == is_whole


def test_redirects_of_each_name_are_a_redirect_of_all() -> None:
    """One of the names is not all; the names that a question is about may be fewer than the server has."""
    www = f"    if ($host = www.{NAME}) {{ return 301 https://{NAME}$request_uri; }}\n"
    own = f"    if ($host = '{NAME}') {{ return 301 https://{NAME}$request_uri; }}\n"
    (some,) = site_of({"/sites/1": plain(www, f"{NAME} www.{NAME}")}).plain
    (every,) = site_of({"/sites/1": plain(www + own, f"{NAME} WWW.{NAME}")}).plain
    assert (find.redirects_all(some), find.redirects_all(every)) == (False, True)
    assert find.redirects_all(some, [f"www.{NAME}"])


def test_a_redirect_stands_below_the_guard() -> None:
    """Above it, challenges would be redirected."""
    new = redirected({"/sites/1": plain(f"    {GUARD} break;\n{PARTIAL}{OWN}")})
    assert plan.has_challenge_location(site_of(new).plain[0], HERE)
    assert new["/sites/1"].index("return 301") < new["/sites/1"].index("/blog")


def test_challenges_answered_by_an_alias_pass_by_the_redirect() -> None:
    """nginx has no alias where a break ended the rewriting; a guard of an earlier version is replaced."""
    alias = "    location ^~ /.well-known/acme-challenge/ { alias /srv/acme/; }\n"
    assert f"    {GUARD} last;\n" in redirected({"/sites/1": plain(alias)})["/sites/1"]
    old = {"/sites/1": plain(f"    {GUARD} break;\n    return 301 https://$host$request_uri;\n{alias}")}
    assert not plan.has_challenge_location(site_of(old).plain[0], HERE)
    assert f"    {GUARD} last;\n" in with_challenge(old, HERE)["/sites/1"]


def test_headers_of_an_included_file_are_added_to() -> None:
    """The line stands below the include, and the file stays as it is."""
    contents = {
        "/sites/1": plain(
            "    location / {\n        include /headers;\n        proxy_pass http://127.0.0.1:8000;\n    }\n"
        ),
        "/headers": "proxy_set_header Host $http_host;\n",
    }
    new = with_tls(contents)
    assert new["/headers"] == contents["/headers"]
    added = f"        {FOR}\n        {PROTO}\n"
    assert f"include /headers;\n{added}" in new["/sites/1"]


PROXY_PASS = "proxy_pass http://127.0.0.1:8000;"
HOST = "proxy_set_header Host $http_host;"
FOR = "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"
PROTO = "proxy_set_header X-Forwarded-Proto $scheme;"
#: A server's lines, and its headers afterwards: those of its own level, then those of each location.
TOLD = {
    "no header anywhere": (f"    location / {{ {PROXY_PASS} }}\n", [[HOST, FOR, PROTO], []]),
    "headers of a location": (f"    location / {{ {PROXY_PASS} {HOST} }}\n", [[], [HOST, FOR, PROTO]]),
    "headers of the server": (f"    {FOR}\n    location / {{ {PROXY_PASS} }}\n", [[FOR, HOST, PROTO], []]),
    "both, one hides the other": (
        f"    {HOST}\n    location / {{ {PROXY_PASS} }}\n    location /api2 {{ {PROXY_PASS} {FOR} }}\n",
        [[HOST, FOR, PROTO], [], [FOR, HOST, PROTO]],
    ),
    "all there, in other words": (
        f"    location / {{ {PROXY_PASS} proxy_set_header host $host; proxy_set_header x-forwarded-for $remote_addr; "
        "proxy_set_header X-Forwarded-Proto $the_scheme; }\n",
        [
            [],
            [
                "proxy_set_header host $host;",
                "proxy_set_header x-forwarded-for $remote_addr;",
                "proxy_set_header X-Forwarded-Proto $the_scheme;",
            ],
        ],
    ),
    "a container's name": ("    location / { proxy_pass http://seafile; }\n", [[HOST, FOR, PROTO], []]),
    "an IPv6 address": ("    location / { proxy_pass http://[::1]:8000; }\n", [[HOST, FOR, PROTO], []]),
    "another host by its name": ("    location / { proxy_pass https://wiki.example.org/; }\n", [[FOR, PROTO], []]),
}


@pytest.mark.parametrize(("lines", "expected"), TOLD.values(), ids=TOLD)
def test_seahub_is_told_who_came_for_what_and_how(lines: str, expected: list[list[str]]) -> None:
    """Each level that sets headers gets what it lacks, since it hides those above; other hosts keep their Host."""
    (server,) = site_of(with_tls({"/sites/1": plain(lines)})).tls
    levels = [server.statement, *server.level(b"location")]
    headers = [[line.written.decode() for line in level.named(b"proxy_set_header")] for level in levels]
    assert [row for level, row in zip(levels, headers, strict=True) if b"acme" not in level.written[:60]] == expected


RECOGNISED = {
    "the file server's path": "location /seafhttp { }",
    "media": "location /seafmedia { alias /opt/seafile/seafile-server-latest/seahub/media; } location / { proxy_pass "
    "http://127.0.0.1:8000; }",
    "WebDAV": "location /seafdav { }",
    "a regular expression": "location ~ ^/(?:a|b)/seafhttp(.*)$ { }",
    "SeaDoc": "location /sdoc-server/ { proxy_pass http://127.0.0.1:8888/; }",
    "notifications": "location /notification { proxy_pass http://127.0.0.1:8083; }",
    "OnlyOffice": "location /onlyofficeds/ { proxy_pass http://127.0.0.1:6233/; }",
    "OnlyOffice beside SeaDoc": "location /onlyofficeds/ { } location /socket.io { }",
    "SeaDoc's sockets": "location /socket.io { proxy_pass http://127.0.0.1:8888; }",
}
STRANGERS = {
    "Seahub's port alone, which Django has": "location / { proxy_pass http://127.0.0.1:8000; }",
    "SeaDoc's port alone": "location / { proxy_pass http://127.0.0.1:8888; }",
    "notifications of others": "location /notification { proxy_pass http://127.0.0.1:9000; }",
    "sockets of others": "location /socket.io { proxy_pass http://127.0.0.1:3000; }",
    "OnlyOffice alone": "location /onlyofficeds/ { proxy_pass http://127.0.0.1:8081/; }",
    "a longer path": "location /sdoc-serverless { } location /notifications { proxy_pass http://127.0.0.1:8000; }",
}


def nameless(lines: str) -> Files:
    """Return a site that names nobody, beside one that is the default of its socket."""
    other = "server { listen 80 default_server; server_name other.example; }\n"
    return {"/sites/0": other, "/sites/1": f"server {{ listen 80; server_name _; {lines} }}\n"}


@pytest.mark.parametrize("lines", RECOGNISED.values(), ids=RECOGNISED)
def test_seafile_is_recognised_without_a_name(lines: str) -> None:
    """A path of Seafile alone is enough; a path that others have, too, counts with one of Seafile's ports."""
    assert [server.path for server in site_of(nameless(lines)).plain] == ["/sites/1"]


@pytest.mark.parametrize("lines", STRANGERS.values(), ids=STRANGERS)
def test_another_application_is_not_taken_for_seafile(lines: str) -> None:
    """Nothing but a port or a path that many have: the site is not guessed."""
    with pytest.raises(errors.SiteNotFound, match="--seafile-site"):
        site_of(nameless(lines))


def test_hsts_repeats_what_it_would_hide() -> None:
    """The http level's headers are sent as before."""
    contents = {
        "nginx.conf": "http { add_header X-Frame-Options DENY; include /sites/*; }",
        "/sites/1": tls(CERTIFICATE),
    }
    site, planned = site_of(contents), edits.Edits()
    plan.add_hsts(planned, site.tls[0])
    (server,) = site_of(after(contents, planned)).tls
    assert [line.arguments[0] for line in server.level(b"add_header")] == [
        b"X-Frame-Options",
        b"Strict-Transport-Security",
    ]


def test_hsts_of_the_http_level_is_enough() -> None:
    """It may be a stronger one."""
    http = "http { add_header strict-transport-security max-age=63072000; include /sites/*; }"
    planned = edits.Edits()
    plan.add_hsts(planned, site_of({"nginx.conf": http, "/sites/1": tls(CERTIFICATE)}).tls[0])
    assert not planned


LINE = 'add_header Strict-Transport-Security "max-age=31536000" always;'
OWN_HEADER = "add_header X-Frame-Options DENY;"


def with_hsts(contents: Files) -> Files:
    """Return the files once the site sends Strict-Transport-Security; a second time, nothing is planned."""
    planned, again = edits.Edits(), edits.Edits()
    plan.add_hsts(planned, site_of(contents).tls[0])
    new = after(contents, planned)
    plan.add_hsts(again, site_of(new).tls[0])
    assert not again
    return new


def test_hsts_is_sent_by_each_level_that_has_headers_of_its_own() -> None:
    """They would hide the server's line; a level without any inherits it."""
    inner = f"        if ($arg_x) {{\n            {OWN_HEADER}\n        }}\n"
    lines = f"    location / {{\n        {OWN_HEADER}\n{inner}    }}\n    location /b {{\n        expires 1d;\n    }}\n"
    new = with_hsts({"/sites/1": tls(CERTIFICATE + lines)})["/sites/1"]
    assert f"        {OWN_HEADER}\n        {LINE}\n" in new
    assert f"            {OWN_HEADER}\n            {LINE}\n" in new
    assert new.count(LINE) == 3


def test_hsts_that_a_person_wrote_is_repeated_as_it_is() -> None:
    """Where a location hides it, in a file that the location includes as well, which stays as it is."""
    stronger = "add_header Strict-Transport-Security max-age=63072000;"
    location = "    location / {\n        include /headers;\n    }\n"
    new = with_hsts({"/sites/1": tls(f"{CERTIFICATE}    {stronger}\n{location}"), "/headers": f"{OWN_HEADER}\n"})
    assert f"        include /headers;\n        {stronger}\n" in new["/sites/1"]
    assert (new["/sites/1"].count("Strict"), new["/headers"]) == (2, f"{OWN_HEADER}\n")
