"""Nobody but the names that were asked for is answered otherwise, whatever the sites look like."""

from __future__ import annotations

import fnmatch
from dataclasses import replace

import pytest

from certbot_seafile import errors
from certbot_seafile.site import edits, find, model, plan, proof
from certbot_seafile.site.config import Configuration, File
from certbot_seafile.site.model import Socket

A, B = "home.seafile.com", "blog.example.org"
CERTIFICATE = plan.Certificate("/live/fullchain.pem", "/live/privkey.pem", f"/OCSP/{A}.conf", is_stapled=False)
CHALLENGE = plan.Challenge("/var/www/letsencrypt")
HTTP = "http { include /sites/*; }\n"
SEAFILE = "    location /seafhttp { proxy_pass http://127.0.0.1:8082; }\n"
PAIR = "    ssl_certificate /old.pem;\n    ssl_certificate_key /old.key;\n"
REDIRECT = "    return 301 https://$host$request_uri;\n"

Files = dict[str, str]


def server(listen: str, name: str = "", lines: str = "") -> str:
    """Return a server block; listen: its listen lines, with ", " between them."""
    listens = "".join(f"    listen {each};\n" for each in listen.split(", "))
    return f"server {{\n{listens}{f'    server_name {name};' if name else ''}\n{lines}}}\n"


def configuration(contents: Files) -> Configuration:
    """Return the configuration of files by their paths."""
    files = {path: File(path, text.encode()) for path, text in contents.items()}
    return Configuration(
        files["nginx.conf"],
        lambda pattern: tuple(files[path] for path in sorted(fnmatch.filter(files, pattern.decode()))),
    )


def site_of(state: Configuration, *names: str) -> find.Site:
    """Return the site that answers for the names."""
    return find.site(model.http_servers(state.statements(names)), names)


def add_everything(planned: edits.Edits, site: find.Site) -> None:
    """Plan what a deployment writes."""
    for block, name in site.nameless:
        plan.add_name(planned, block, name)
    for block in site.plain:
        if not plan.has_challenge_location(block, CHALLENGE):
            plan.add_challenge_location(planned, block, CHALLENGE)
    if not site.plain:
        plan.add_plain_server(planned, site, site.tls[0], CHALLENGE, 80)
    for block in site.tls:
        plan.install(planned, block, CERTIFICATE)
    for block in find.serving(site):
        plan.add_tls(planned, site, block, CERTIFICATE, (80, 443), True)


def deployed(contents: Files, *names: str) -> Files:
    """Return the files with a certificate for the names deployed; nobody else is hurt, and it is so at once."""
    contents = {"nginx.conf": HTTP, **contents}
    before, asked = configuration(contents), names or (A,)
    planned = proof.plan_harmless(before, lambda state: site_of(state, *asked), add_everything)
    new = contents | {path: planned.after(path).decode() for path in planned.paths}
    assert not proof.compare(before, before.changed({path: text.encode() for path, text in new.items()}), asked).hurt
    assert not proof.plan_harmless(configuration(new), lambda state: site_of(state, *asked), add_everything)
    return new


def answering(contents: Files, socket: str, name: str | None) -> model.Server:
    """Return the server that answers on a socket, "ADDRESS:PORT", for a name."""
    servers = model.http_servers(configuration(contents).statements())
    address, port = socket.split(":")
    reached = model.socket_at(servers, Socket(address, int(port)))
    assert reached is not None
    chosen = model.choose(servers, reached, name)
    assert chosen is not None
    return chosen


def certificate(contents: Files, name: str | None, socket: str = "*:443") -> list[str]:
    """Return the certificates that a name is answered with."""
    return [line.arguments[0].decode() for line in answering(contents, socket, name).level(b"ssl_certificate")]


def has_challenge(contents: Files, name: str | None, socket: str = "*:80") -> bool:
    """Tell whether the block that answers for a name answers challenges."""
    return plan.has_challenge_location(answering(contents, socket, name), CHALLENGE)


NEW = ["/live/fullchain.pem"]
BLOG = server("80", B, "    root /srv/blog;\n")


def test_a_block_on_an_address_takes_no_clients_from_a_wildcard() -> None:
    """A block for port 80 goes where the others of port 80 are."""
    new = deployed({"/sites/a": server("192.0.2.1:443 ssl", A, PAIR + SEAFILE), "/sites/b": BLOG})
    assert answering(new, "192.0.2.1:80", B).path == "/sites/b"
    assert has_challenge(new, A, "192.0.2.1:80")


def test_a_tls_block_on_an_address_takes_no_clients_from_a_wildcard() -> None:
    """The mirror image on port 443."""
    blog = server("443 ssl", B, PAIR)
    new = deployed({"/sites/a": server("192.0.2.1:80", A, SEAFILE), "/sites/b": blog})
    assert answering(new, "192.0.2.1:443", B).path == "/sites/b"
    assert certificate(new, A, "192.0.2.1:443") == NEW


def test_a_wildcard_is_not_opened_beside_addresses() -> None:
    """A running nginx could not open it: the block goes to the addresses."""
    new = deployed({"/sites/a": server("443 ssl", A, PAIR + SEAFILE), "/sites/b": server("192.0.2.1:80", B)})
    assert "listen 192.0.2.1:80;" in new["/sites/a"]
    assert "listen 80;" not in new["/sites/a"]


def test_a_wildcard_beside_an_internal_address_is_refused() -> None:
    """The CA could not come by the internal one."""
    with pytest.raises(errors.SiteRefused, match="restart nginx"):
        deployed({"/sites/a": server("443 ssl", A, PAIR + SEAFILE), "/sites/b": server("127.0.0.1:80")})


@pytest.mark.parametrize("internal", ["127.0.0.1:8081", "unix:/run/seafile", "192.0.2.9:8081"])
def test_an_internal_address_gets_no_tls(internal: str) -> None:
    """Only what is reached at port 80 is reached by https."""
    new = deployed({"/sites/a": server(f"80, {internal}", A, SEAFILE)})
    assert new["/sites/a"].count("ssl;") == 1
    assert "listen 443 ssl;" in new["/sites/a"]


@pytest.mark.parametrize("listens", [("host.example.org:80", "192.0.2.1:443 ssl"), ("192.0.2.1:80", "host:443 ssl")])
def test_a_socket_that_may_be_another_is_refused(listens: tuple[str, str]) -> None:
    """Where a host's name stands for an address, nobody knows who else listens there."""
    site, blog = listens
    with pytest.raises(errors.SiteRefused, match="names a host"):
        deployed({"/sites/a": server(site, A, SEAFILE), "/sites/b": server(blog, B, PAIR)})
    alone = server("host:80", A, SEAFILE)
    assert "listen host:443 ssl;" in deployed({"/sites/a": alone})["/sites/a"]


def test_proxy_protocol_is_not_brought_to_a_socket_of_others() -> None:
    """Their clients do not speak it."""
    new = deployed({"/sites/a": server("443 ssl proxy_protocol", A, PAIR + SEAFILE), "/sites/b": BLOG})
    assert new["/sites/a"].count("proxy_protocol") == 1


def test_tls_is_not_brought_to_a_socket_of_others() -> None:
    """A neighbour that listens on port 443 in clear would lose its clients, so the run is refused."""
    with pytest.raises(errors.SiteRefused, match=rf"clients of {B} at \*:443 \(/sites/b:1\)"):
        deployed({"/sites/a": server("80", A, SEAFILE), "/sites/b": server("443", B)})


def test_a_bare_listen_speaks_tls_where_another_block_says_so() -> None:
    """What is said of a socket holds for each of its blocks."""
    new = deployed({
        "/sites/a": server("80", A, REDIRECT) + server("443", A, PAIR + SEAFILE),
        "/sites/b": server("443 ssl", B, PAIR),
    })  # fmt: skip
    assert certificate(new, A) == NEW
    assert certificate(new, B) == ["/old.pem"]
    assert not find.redirects_all(answering(new, "*:443", A))


SHARED: dict[str, tuple[str, str]] = {
    "the ACME location": ("location ^~ /.well-known/acme-challenge/ {\n    proxy_pass http://127.0.0.1:9;\n}\n", "80"),
    "the certificate": (PAIR, "443 ssl"),
    "the redirect": (REDIRECT, "80"),
}


@pytest.mark.parametrize(("lines", "listen"), SHARED.values(), ids=SHARED)
def test_a_file_of_several_sites_stays_as_it_is(lines: str, listen: str) -> None:
    """The site gets lines of its own."""
    both = {"80": SEAFILE, "443 ssl": PAIR + SEAFILE} | {listen: "    include /shared;\n" + SEAFILE}
    site = "".join(server(each, A, text) for each, text in both.items())
    contents = {"/sites/a": site, "/sites/b": server(listen, B, "    include /shared;\n"), "/shared": lines}
    new = deployed(contents)
    assert new["/shared"] == lines
    assert certificate(new, A) == NEW
    assert has_challenge(new, A)


def test_a_file_that_stream_reads_stays_as_it_is() -> None:
    """The certificate lines of a TLS stream are its own."""
    contents = {
        "nginx.conf": HTTP + "stream { server { listen 993 ssl; include /pair; } }\n",
        "/sites/a": server("80", A, REDIRECT) + server("443 ssl", A, "    include /pair;\n" + SEAFILE),
        "/pair": PAIR,
    }
    new = deployed(contents)
    assert new["/pair"] == PAIR
    assert certificate(new, A) == NEW


def test_other_names_of_an_http_only_block_stay_in_clear() -> None:
    """The name that was asked for gets a block of its own, with TLS and redirect."""
    new = deployed({"/sites/a": server("80", f"{A} {B}", SEAFILE)})
    assert [socket.port for socket in answering(new, "*:80", B).sockets] == [80]
    assert not has_challenge(new, B)
    assert not find.redirects_all(answering(new, "*:80", B))
    assert find.redirects_all(answering(new, "*:80", A))
    assert certificate(new, A) == NEW


@pytest.mark.parametrize("names", [f"{A} {B}", f"{B} .seafile.com", "*.seafile.com", r'"~^(home|wiki)\.seafile\.com$"'])
def test_other_names_of_a_tls_block_keep_their_certificate(names: str) -> None:
    """Further names, wildcards and regular expressions are answered as before."""
    other = B if B in names else "wiki.seafile.com"
    new = deployed({"/sites/a": server("80", names, REDIRECT) + server("443 ssl", names, PAIR + SEAFILE)})
    assert certificate(new, A) == NEW
    assert certificate(new, other) == ["/old.pem"]
    assert not has_challenge(new, other)


def test_a_block_that_has_the_certificate_stays_one() -> None:
    """What it is stapled with, or sealed as, changes for all of its names."""
    pair = PAIR.replace("/old", "/live/fullchain").replace("/live/fullchain.key", "/live/privkey.pem")
    contents = {"nginx.conf": HTTP, "/sites/a": server("443 ssl", f"{A} {B}", pair + SEAFILE)}
    stapled = replace(CERTIFICATE, is_stapled=True)

    def add_include(planned: edits.Edits, site: find.Site) -> None:
        plan.install(planned, site.tls[0], stapled)

    before, own = configuration(contents), [CERTIFICATE.fullchain]
    planned = proof.plan_harmless(before, lambda state: site_of(state, A), add_include, own)
    assert planned.after("/sites/a").decode().count("server {") == 1
    assert proof.plan_harmless(before, lambda state: site_of(state, A), add_include).names == (A,)


def test_a_wildcard_that_is_asked_for_gets_a_block_of_its_own() -> None:
    """The wildcard's certificate is for all names below it, and not for the other name of the block."""
    names = f"*.seafile.com {B}"
    site = server("80", names, REDIRECT) + server("443 ssl", names, PAIR + SEAFILE)
    new = deployed({"/sites/a": site}, "*.seafile.com")
    assert certificate(new, "wiki.seafile.com") == NEW
    assert certificate(new, B) == ["/old.pem"]


def test_all_names_of_a_block_are_asked_for() -> None:
    """Then the block stays one."""
    both = f"{A} {B}"
    new = deployed({"/sites/a": server("80", both, REDIRECT) + server("443 ssl", both, PAIR + SEAFILE)}, A, B)
    assert new["/sites/a"].count("server {") == 2


@pytest.mark.parametrize("name", ["_", "", "localhost", "192.0.2.1", r'"~^(?<sub>home)\.seafile\.com$"', A.upper()])
def test_a_block_of_nobody_else_stays_one(name: str) -> None:
    """Its own lines are edited."""
    new = deployed({"/sites/a": server("80", name, REDIRECT) + server("443 ssl", name, PAIR + SEAFILE)})
    assert new["/sites/a"].count("server {") == 2


def test_a_block_that_uses_what_its_names_have_found_is_refused() -> None:
    """A copy for one name has nothing found."""
    names = r'"~^(?<sub>.+)\.seafile\.com$"'
    with pytest.raises(errors.SiteRefused, match=r"\$sub"):
        deployed({"/sites/a": server("80", names, "    root /srv/$sub;\n" + SEAFILE)})


CATCH_ALL = server("443 ssl default_server", "_", PAIR + "    return 404;\n")


def test_a_catch_all_for_tls_is_not_the_site() -> None:
    """The named site beside it gets TLS."""
    new = deployed({"/sites/a": CATCH_ALL + server("80", A, SEAFILE)})
    assert certificate(new, A) == NEW
    assert certificate(new, None) == ["/old.pem"]


def test_a_redirect_leads_to_the_nameless_site() -> None:
    """The block that serves Seafile gets the certificate, in whichever file it is."""
    new = deployed({"/sites/a": server("80", A, REDIRECT), "/sites/b": server("443 ssl", "", PAIR + SEAFILE)})
    assert certificate(new, A) == NEW
    assert "ssl" not in new["/sites/a"]


def test_a_redirect_that_leads_nowhere_is_refused() -> None:
    """TLS in it would redirect to itself."""
    with pytest.raises(errors.SiteRefused, match="only redirects to https"):
        deployed({"/sites/a": server("80", A, REDIRECT)})


WWW = f"www.{A}"
OTHER = server("443 ssl", B, PAIR)
TO_A = f"    return 301 https://{A}$request_uri;\n"
PAIRED = server("80", A, REDIRECT) + server("443 ssl", A, PAIR + SEAFILE)


def test_each_name_gets_tls_where_it_has_none() -> None:
    """That another name of the certificate has TLS is of no help to it."""
    new = deployed({"/sites/a": PAIRED, "/sites/b": server("80", B, SEAFILE)}, A, B)
    assert certificate(new, A) == certificate(new, B) == NEW
    assert answering(new, "*:443", B).path == "/sites/b"
    assert find.redirects_all(answering(new, "*:80", B))
    assert B not in new["/sites/a"]


@pytest.mark.parametrize("www", [server("80", WWW, TO_A), server("80", f"{A} {WWW}", TO_A)])
def test_a_name_that_is_only_redirected_is_answered_where_it_leads(www: str) -> None:
    """The block that has its target over TLS gets the name."""
    new = deployed({"/sites/0": OTHER, "/sites/a": www + PAIRED}, A, WWW)
    assert certificate(new, WWW) == NEW
    assert new["/sites/a"].count("ssl;") == 1
    assert certificate(new, B) == ["/old.pem"]


def test_a_name_that_is_redirected_to_itself_is_answered_by_whom_nginx_chooses() -> None:
    """The site itself, by default: nothing is to be added. Another site: refused, and the advice works."""
    alone = server("80", WWW, REDIRECT)
    new = deployed({"/sites/a": alone + PAIRED}, A, WWW)
    assert certificate(new, WWW) == NEW
    assert new["/sites/a"].count(WWW) == 1
    with pytest.raises(errors.SiteRefused, match=f"put {WWW} into the server_name of .*, instead of this one's"):
        deployed({"/sites/0": OTHER, "/sites/a": alone + PAIRED}, A, WWW)
    new = deployed({"/sites/0": OTHER, "/sites/a": PAIRED.replace(f"{A};", f"{A} {WWW};")}, A, WWW)
    assert certificate(new, WWW) == NEW


BOTH = server("80, 443 ssl", A, PAIR + SEAFILE)


@pytest.mark.parametrize("apex", [BOTH, server("80", A, SEAFILE)])
def test_a_redirect_to_another_name_speaks_tls_itself(apex: str) -> None:
    """Where its target cannot have the name, for two blocks would have it in clear; it leads in no circle."""
    new = deployed({"/sites/0": OTHER, "/sites/a": server("80", WWW, TO_A) + apex}, A, WWW)
    assert certificate(new, A) == certificate(new, WWW) == NEW
    assert answering(new, "*:443", WWW).names == (WWW,)
    assert "$host" not in new["/sites/a"].partition(f"server_name {A};")[0]


def test_a_redirect_of_one_name_to_itself_is_refused() -> None:
    """With TLS, it would go on without end."""
    lines = f"    if ($host = {A}) {{ return 301 https://$host$request_uri; }}\n"
    with pytest.raises(errors.SiteRefused, match="only redirects to https"):
        deployed({"/sites/a": server("80", f"{A} {WWW}", lines + SEAFILE)}, A, WWW)


def test_an_address_is_answered_by_the_default_server_for_tls() -> None:
    """Its clients name no server, so a block of its own would not be chosen."""
    new = deployed({"/sites/a": PAIRED, "/sites/b": server("80 default_server", "_", SEAFILE)}, A, "192.0.2.1")
    assert certificate(new, None) == NEW
    assert "ssl" not in new["/sites/b"]


def test_what_only_a_wildcard_covers_stays_in_clear() -> None:
    """Nobody has asked for TLS there, unless it is Seafile."""
    wiki, second = server("80", "wiki.seafile.com", "    root /srv;\n"), server("80", "new.seafile.com", SEAFILE)
    site = site_of(configuration({"nginx.conf": HTTP, "/sites/a": PAIRED + wiki + second}), A, "wiki.seafile.com",
                   "new.seafile.com")  # fmt: skip
    site = replace(site, wildcards=("*.seafile.com",))
    assert [block.names for block in find.serving(site)] == [("new.seafile.com",)]


def test_a_named_file_with_several_sites_and_none_for_the_name_is_refused() -> None:
    """No blog is taken for Seafile."""
    state = configuration({"nginx.conf": HTTP, "/sites/a": BLOG + server("80", "wiki.example.org", SEAFILE)})
    servers = model.http_servers(state.statements([A], site_path="/sites/a"))
    with pytest.raises(errors.SiteRefused, match="several sites"):
        find.site(servers, [A], site_path="/sites/a")


def test_a_redirect_for_all_leads_others_where_it_led_them() -> None:
    """A site that is only there over TLS keeps its own challenges, which come by the default server's redirect."""
    contents = {
        "/sites/a": server("80", A, REDIRECT) + server("443 ssl", A, PAIR + SEAFILE),
        "/sites/b": server("443 ssl", B, PAIR),
    }
    new = deployed(contents)
    assert has_challenge(new, A)
    assert not has_challenge(new, B)
    assert find.redirects_all(answering(new, "*:80", B))


def test_a_default_for_tls_keeps_the_certificate_for_others() -> None:
    """A site whose redirect leads to the default server's certificate."""
    contents = {
        "/sites/a": server("443 ssl", "_", PAIR + SEAFILE) + server("80", A, REDIRECT),
        "/sites/b": server("80", B, REDIRECT),
    }
    new = deployed(contents)
    assert certificate(new, A) == NEW
    assert certificate(new, B) == ["/old.pem"]


def test_port_443_in_clear_gets_tls_where_a_certificate_is_for_it() -> None:
    """A listen line that lost its `ssl`, with `ssl on` or without."""
    new = deployed({"/sites/a": server("80", A, REDIRECT) + server("443, [::]:443", A, PAIR + SEAFILE)})
    assert "listen 443 ssl;\n" in new["/sites/a"]
    assert "listen [::]:443 ssl;\n" in new["/sites/a"]
    assert certificate(new, A) == NEW


def test_a_nameless_site_is_chosen_beside_another_with_tls() -> None:
    """It gets the name, because it is not the default there."""
    new = deployed({"/sites/a": BLOG + server("443 ssl", B, PAIR), "/sites/b": server("80", "_", SEAFILE)})
    assert certificate(new, A) == NEW
    assert certificate(new, B) == ["/old.pem"]


def test_other_names_of_a_block_are_not_redirected() -> None:
    """What `enhance --redirect` writes is proved as a deployment is."""
    contents = {
        "nginx.conf": HTTP,
        "/sites/a": server("80", f"{A} {B}", SEAFILE) + server("443 ssl", A, PAIR + SEAFILE),
    }

    def add_redirect(planned: edits.Edits, site: find.Site) -> None:
        for block in site.plain:
            plan.redirect(planned, block, (80, 443))

    planned = proof.plan_harmless(configuration(contents), lambda state: site_of(state, A), add_redirect)
    new = contents | {path: planned.after(path).decode() for path in planned.paths}
    assert find.redirects_all(answering(new, "*:80", A))
    assert not find.redirects_all(answering(new, "*:80", B))


def test_edits_that_nothing_can_make_harmless_are_refused() -> None:
    """Each write is judged, however it was planned."""
    before = configuration({"nginx.conf": HTTP, "/sites/a": server("80", f"{A} {B}", SEAFILE)})
    planned = edits.Edits((A,))
    plan.redirect(planned, site_of(before, A).plain[0], (80, 443))
    with pytest.raises(errors.SiteRefused, match=f"clients of {B} at"):
        proof.judge(before, planned)


def test_two_blocks_that_come_before_a_default_leave_it_so() -> None:
    """Its listen line is marked once."""
    contents = {
        "/sites/a": server("192.0.2.1:80", A, SEAFILE) + server("80", A, SEAFILE),
        "/sites/b": server("443 ssl", B, PAIR),
    }
    assert deployed(contents)["/sites/b"].count("default_server;") == 1


def test_what_comes_to_an_internal_port_is_not_redirected() -> None:
    """Only what comes to port 80 is."""
    new = deployed({"/sites/a": server("80, 127.0.0.1:8081", A, SEAFILE)})
    assert "if ($server_port = 80) {" in new["/sites/a"]
