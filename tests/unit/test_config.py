"""Which of nginx's files are read, which are parsed, and what is known of the others."""

from __future__ import annotations

import fnmatch
import random

import pytest

from certbot_seafile import errors
from certbot_seafile.site import find, model, syntax
from certbot_seafile.site.config import Block, Configuration, File


class Memory:
    """Files that are nowhere on disk; patterns as in the shell."""

    def __init__(self, contents: dict[str, str]) -> None:
        self.files = {path: File(path, text.encode("latin-1")) for path, text in contents.items()}

    def targets(self, pattern: bytes) -> tuple[File, ...]:
        """Return the files whose path matches."""
        return tuple(self.files[path] for path in sorted(fnmatch.filter(self.files, pattern.decode())))


def configuration(contents: dict[str, str]) -> Configuration:
    """Return the configuration that starts with the file `nginx.conf`."""
    memory = Memory(contents)
    return Configuration(memory.files["nginx.conf"], memory.targets)


def parsed(chosen: Configuration) -> list[str]:
    """Return the files that were parsed so far."""
    return [path for path, file in chosen.files.items() if "directives" in vars(file)]


def servers(chosen: Configuration, *domains: str, site_path: str | None = None) -> list[str]:
    """Return the files of the server blocks that could take part in who answers for the domains."""
    every = model.http_servers(chosen.statements(domains, site_path=site_path))
    return list(dict.fromkeys(server.path for server in every))


HTTP = "http { include site.*; }"
FIRST = "server { listen 80; server_name first.example; }"


def wanted(text: str, domain: str = "a.example.com") -> bool:
    """Tell whether a file that is not the first on its sockets could take part in who answers for the domain."""
    chosen = configuration({"nginx.conf": HTTP, "site.0": FIRST, "site.1": text})
    found = servers(chosen, domain)
    assert parsed(chosen) == found
    return "site.1" in found


TAKES_PART = {
    "the name": "server { listen 80; server_name a.example.com; }",
    "in capitals": "server { listen 80; server_name A.EXAMPLE.com; }",
    "in quotes": "server { listen 80; 'server_name' \"a.example.com\"; }",
    "one of several, over lines": "server {\r\n\tlisten 80;\r\n\tserver_name b.org # c.org;\r\n\t\ta.example.com\r\n;}",
    "behind a string with signs": "server { listen 80; add_header X '# } ; {'; server_name 'x;y' a.example.com; }",
    "a second line of names": "server { listen 80; server_name b.org; server_name a.example.com; }",
    "a leading wildcard": "server { listen 80; server_name *.example.com; }",
    "a longer wildcard": "server { listen 80; server_name *.com; }",
    "a leading dot": "server { listen 80; server_name .example.com; }",
    "a leading dot is the name itself": "server { listen 80; server_name .a.example.com; }",
    "a trailing wildcard": "server { listen 80; server_name a.example.*; }",
    "a short trailing wildcard": "server { listen 80; server_name a.*; }",
    "a regular expression": "server { listen 80; server_name ~^b; }",
    "the default server": "server { listen 80 default_server; server_name b.org; }",
    "the default server, as once": "server { listen 80 default; server_name b.org; }",
    "the first of a socket": "server { listen 81; server_name b.org; }",
    "a socket that only a comment has before": "# listen 81;\nserver { listen 81; server_name b.org; }",
    "a nameless Seafile": "server { listen 80; server_name _; location /seafhttp { } }",
    "a Seafile without a name": "server { location /notification { if ($a) { } proxy_pass http://a:8083; } }",
    "a Seafile with an address": "server { listen 80; server_name 192.0.2.1; location /seafdav { } }",
    "two lines of names beside a Seafile without": (
        "server { listen 80; server_name b.org; server_name c.org; }\nserver { listen 80; location /sdoc-server { } }"
    ),
    "the name beside a fault": "server { listen 80; server_name a.example.com; }",
}


@pytest.mark.parametrize("text", TAKES_PART.values(), ids=TAKES_PART)
def test_file_that_could_take_part_is_read_whole(text: str) -> None:
    """Its names match, or it is the default of a socket, or a Seafile that names nobody."""
    assert wanted(text)
    assert wanted("# gr\xfc\xdfe }\nmap $a $b { include '#x'; }\n" + text)


LEFT_OUT = {
    "another name": "server { listen 80; server_name b.org; }",
    "Seafile with another name": "server { listen 80; server_name b.org; location /seafhttp { } }",
    "nameless, with a port that many have": "server { listen 80; location / { proxy_pass http://127.0.0.1:8000; } }",
    "the name in a comment": "server { listen 80; server_name b.org; # a.example.com\n# server_name a.example.com;\n}",
    "the name in another directive": "server { listen 80; server_name b.org; return 301 https://a.example.com; }",
    "a wildcard beside it": "server { listen 80; server_name *.a.example.com b.* *.org; }",
    "nameless, but no Seafile": "server { listen 80; server_name _; root /srv; }",
    "default in another directive": "server { listen 80; server_name b.org; default_type text/plain; }",
    "the default port, said by nobody": "server { server_name b.org; root /srv; }",
    "a server of a stream": "server { listen 80; server_name b.org; } #",
}


@pytest.mark.parametrize("text", LEFT_OUT.values(), ids=LEFT_OUT)
def test_file_that_cannot_take_part_is_not_parsed(text: str) -> None:
    """Its server blocks are left out, whatever else it mentions."""
    assert not wanted(text)
    assert not wanted("# a.example.com\n" + text)


def test_names_and_sockets_of_an_included_file_count() -> None:
    """A server block's names may stand in a file that it includes."""
    chosen = configuration(
        {
            "nginx.conf": HTTP,
            "site.0": FIRST,
            "site.1": "server { include one.names; }",
            "site.2": "server { include two.names; }",
            "one.names": "listen 80; server_name a.example.com;",
            "two.names": "listen 80; server_name b.org;",
        }
    )
    assert servers(chosen, "a.example.com") == ["site.0", "site.1"]
    assert parsed(chosen) == ["site.0", "site.1", "one.names"]
    (server,) = [
        server for server in model.http_servers(chosen.statements(["a.example.com"])) if server.path == "site.1"
    ]
    assert server.names == ("a.example.com",)


def test_sockets_of_a_stream_make_nobody_the_first() -> None:
    """The first server of http on a socket is its default, whatever a stream listens on."""
    chosen = configuration({"nginx.conf": "stream { server { listen 81; } } " + HTTP, "site.0": FIRST})
    assert servers(chosen, "a.example.com") == ["site.0"]


def test_the_site_that_is_named_is_read_and_whoever_reads_it() -> None:
    """--seafile-site may name a file that server blocks include."""
    contents = {
        "nginx.conf": HTTP,
        "site.0": FIRST,
        "site.1": "server { listen 80; server_name b.org; include shared; }",
        "site.2": "server { listen 80; server_name c.org; }",
        "site.3": "server { listen 80; server_name d.org; }",
        "shared": "location /seafhttp { }",
    }
    assert servers(configuration(contents), "a.example.com", site_path="shared") == ["site.0", "site.1"]
    assert servers(configuration(contents), "a.example.com", site_path="site.2") == ["site.0", "site.2"]
    assert servers(configuration(contents), "a.example.com", site_path="elsewhere") == ["site.0"]


def test_readers_of_a_file_are_known_in_every_context() -> None:
    """Who reads an included file: server blocks, the http level, a stream; nothing is parsed for it."""
    chosen = configuration(
        {
            "nginx.conf": "include main; stream { server { include shared; } } http { include shared; include *.1; }",
            "main": "include shared;",
            "site.1": "server { location / { include shared; } }\nserver { include shared; }",
            "shared": "ssl_stapling on;",
        }
    )
    assert chosen.readers("shared") == {
        Block(b"", "nginx.conf", 0),
        Block(b"stream", "nginx.conf", 14),
        Block(b"http", "nginx.conf", 52),
        Block(b"server", "site.1", 0),
        Block(b"server", "site.1", 42),
    }
    assert chosen.readers("site.1") == {Block(b"http", "nginx.conf", 52)}
    assert list(chosen.readers("elsewhere")) == []
    assert parsed(chosen) == []


def test_files_stand_in_the_order_of_nginx() -> None:
    """Each once, where nginx comes to it first; what stands in comments and strings is no include."""
    chosen = configuration(
        {
            "nginx.conf": "events {}\n# include none;\nhttp { map $a $b { include b; } include 'a'; # include none;\n}",
            "a": "server { location / { if ($a) { include c; } } }",
            "b": "x 'include none;';",
            "c": "include b;",
            "none": "",
        }
    )
    assert list(chosen.files) == ["nginx.conf", "b", "a", "c"]


def test_a_file_that_includes_itself_is_refused() -> None:
    """As a loop, which nginx would follow until it has no more files."""
    with pytest.raises(errors.SyntaxRefused, match="a:1:1: it includes itself"):
        configuration({"nginx.conf": "include a;", "a": "http { include b; }", "b": "include a;"})


DEEP = "location / {" * 5000 + "}" * 5000
TOO_DEEP = {
    "blocks within a server": {"nginx.conf": HTTP, "site.1": f"server {{ {DEEP} }}"},
    "blocks within a block that means nothing": {"nginx.conf": f"http {{ {DEEP} }}"},
    "blocks behind an include": {"nginx.conf": "http { server { include deep; } }", "deep": DEEP},
    "files": {"nginx.conf": "include 0;"} | {str(n): f"include {n + 1};" for n in range(5000)} | {"5000": ""},
}


@pytest.mark.parametrize("contents", TOO_DEEP.values(), ids=TOO_DEEP)
def test_what_stands_too_deep_is_refused_with_its_place(contents: dict[str, str]) -> None:
    """Thousands of blocks or includes within each other, which no site has, are refused as any syntax that is wrong."""
    with pytest.raises(errors.SyntaxRefused, match=r":1:\d+: blocks and includes stand more than 100 deep"):
        configuration(contents).statements(["a.org"])


def test_no_site_stands_too_deep() -> None:
    """What people write is far from the limit: fifty locations within each other are read."""
    contents = {"nginx.conf": HTTP, "site.1": "server { server_name a.org; " + "location / {" * 50 + "}" * 51}
    (server,) = model.http_servers(configuration(contents).statements(["a.org"]))
    assert sum(1 for _ in server.statement.walk()) == 51


BLOCKLIST = (
    "geo $bad {\n    default 0;\n" + "    192.0.2.7 1; # a.example.com; server { listen 80; }\n" * 20_000 + "}\n"
)


def test_a_file_without_a_server_block_is_never_parsed() -> None:
    """A blocklist, however large and whatever its comments mention; what sites inherit is seen nevertheless."""
    chosen = configuration(
        {
            "nginx.conf": f"user www; include pid.conf; http {{ include conf.*; {FIRST} }}",
            "conf.blocklist": BLOCKLIST,
            "conf.tls": "ssl_protocols TLSv1.2; # ssl_protocols TLSv1;\nproxy_set_header Host $host;\n" + BLOCKLIST,
            "pid.conf": "pid /run/nginx.pid; # pid none;",
        }
    )
    (server,) = model.http_servers(chosen.statements(["a.example.com"]))
    for name, arguments in ((b"ssl_protocols", (b"TLSv1.2",)), (b"proxy_set_header", (b"Host", b"$host"))):
        inherited = server.effective(name)
        assert inherited is not None
        assert inherited.arguments == arguments
    pid, user = chosen.main(b"pid"), chosen.main(b"user")
    assert pid is not None
    assert (pid.path, pid.arguments) == ("pid.conf", (b"/run/nginx.pid",))
    assert user is not None
    assert user.arguments == (b"www",)
    assert chosen.main(b"daemon") is None
    assert parsed(chosen) == ["nginx.conf"]
    assert [one.path for one in chosen.mentioning(b"/run/nginx.pid")] == ["pid.conf"]
    assert parsed(chosen) == ["nginx.conf", "pid.conf"]


def test_what_is_inherited_is_seen_in_the_file_of_another_site() -> None:
    """Statements of the http level stand in force for all, also beside server blocks that do not matter."""
    chosen = configuration(
        {"nginx.conf": HTTP, "site.0": FIRST, "site.1": "ssl_ciphers HIGH;\nserver { listen 80; server_name b.org; }"}
    )
    (server,) = model.http_servers(chosen.statements(["a.example.com"]))
    assert server.effective(b"ssl_ciphers") is not None
    assert parsed(chosen) == ["site.0"]


def test_mentions_are_found_in_every_context() -> None:
    """http, stream, the main level; in quotes and with escapes; each statement once, comments never."""
    chosen = configuration(
        {
            "nginx.conf": "load_module /x/y.so; stream { server { include site.*; } } http { include site.*; }",
            "site.1": "server { ssl_certificate '/x/live/a/fullchain.pem'; } # /x/y.so\n",
            "site.2": 'server { root "/x/\\"y\\".so"; include inner; }',
            "inner": "location /x/y.so { deny all; }",
        }
    )
    assert [(one.path, one.name, one.line) for one in chosen.mentioning(b"/x/y.so")] == [
        ("nginx.conf", b"load_module", 1),
        ("inner", b"location", 1),
    ]
    assert [one.path for one in chosen.mentioning(b'/x/"y".so')] == ["site.2"]
    assert [one.arguments for one in chosen.mentioning(b"/live/a/")] == [(b"/x/live/a/fullchain.pem",)]
    assert chosen.mentioning(b"/nowhere/") == []


def test_a_fault_is_told_only_where_it_matters() -> None:
    """A broken neighbour is left to `nginx -t`; a broken file that could matter is refused with its path."""
    contents = {"nginx.conf": HTTP, "site.0": FIRST, "site.1": "server { listen 80; server_name b.org; \n } }"}
    assert servers(configuration(contents), "a.example.com") == ["site.0"]
    with pytest.raises(errors.SyntaxRefused, match=r"site\.1:2:4"):
        configuration(contents).statements(["b.org"])
    with pytest.raises(errors.SyntaxRefused, match=r"site\.1:2:4"):
        configuration(contents).statements()
    with pytest.raises(errors.SyntaxRefused, match=r"nginx\.conf:1:24"):
        configuration(contents | {"nginx.conf": HTTP[:-1]}).statements(["a.example.com"])


def test_everything_is_read_where_no_domain_is_asked_for() -> None:
    """All files, whole; the outline has the same names and sockets without parsing one."""
    contents = {"nginx.conf": HTTP, "site.0": FIRST, "site.1": BLOCKLIST, "site.2": "server { server_name b.org; }"}
    chosen = configuration(contents)
    outlined = model.http_servers(chosen.outline())
    assert parsed(chosen) == []
    whole = model.http_servers(chosen.statements())
    assert parsed(chosen) == list(contents)
    assert [(one.names, list(one.sockets)) for one in outlined] == [(one.names, list(one.sockets)) for one in whole]
    assert [one.names for one in whole] == [("first.example",), ("b.org",)]


NAMES = ["a.example.com", "b.example.com", "*.example.com", ".example.com", "a.*", "~^a", "_", "", "x.org", "192.0.2.1",
         "*.cafe.de", "cafe.de"]  # fmt: skip
LISTENS = ["80", "80", "*:80", "443 ssl", "443 ssl default_server", "127.0.0.1:80", "localhost", "127.0.0.1:443 ssl",
           "192.0.2.1:80", "192.0.2.1:443 ssl", "[::]:80", "[::1]", "[0:0::1]:80", "unix:/x", ""]  # fmt: skip
BODIES = [
    "location / { proxy_pass http://127.0.0.1:8000; }",
    "location /notification { proxy_pass http://127.0.0.1:8083; }",
    "location /seafhttp { }",
    "root /srv;",
    "include body;",
    "",
]
COMMENTS = ["", "# server_name a.example.com; }\n", "# listen 80;\n", 'add_header X "} # ;";\n']


def some_block(rng: random.Random) -> str:
    """Return a random server block."""
    names = " ".join(rng.sample(NAMES, rng.randint(1, 2)))
    parts = [
        *(f"listen {listen};" for listen in rng.sample(LISTENS, rng.randint(0, 2)) if listen),
        *([f"server_name {names};"] if names.strip() else []),
        rng.choice(BODIES),
        "\n" + rng.choice(COMMENTS),
    ]
    rng.shuffle(parts)
    return "server {" + rng.choice([" ", "\n", "\r\n"]).join(parts) + "\n}\n"


def outcome(chosen: Configuration, domain: str, *, of_all: bool) -> object:
    """Return where the site of the domain is found, or why not."""
    every = model.http_servers(chosen.statements(None if of_all else [domain]))
    try:
        site = find.site(every, [domain])
    except errors.SiteNotFound:
        return "not found"
    except errors.Error as refused:
        return str(refused)
    return [[str(server) for server in servers] for servers in (site.tls, site.plain)], [
        (str(server), name) for server, name in site.nameless
    ]


@pytest.mark.parametrize("seed", range(200))
def test_leaving_out_changes_no_answer(seed: int) -> None:
    """For random sites, the files that could matter tell the same as all files."""
    rng = random.Random(seed)
    contents = {f"site.{number}": "".join(some_block(rng) for _ in range(rng.randint(1, 2))) for number in range(6)}
    contents |= {"nginx.conf": HTTP, "body": rng.choice(BODIES[:3]) + rng.choice(["", " server_name a.example.com;"])}
    for domain in ("a.example.com", "b.example.com", "c.example.com", "a.org", "192.0.2.1", "dead.cafe.de"):
        assert outcome(configuration(contents), domain, of_all=False) == outcome(
            configuration(contents), domain, of_all=True
        )


SKIMMED = syntax.wanted([b"server", b"keep"], [b"keep_"])


def test_an_outline_holds_what_is_wanted_and_nothing_twice() -> None:
    """Statements and blocks by name, includes at any depth, in their order, with the spans of the whole tree."""
    source = (
        b"a 1; keep 1; # keep 2;\nb { c 1; d { e; } }\nf { include x; }\n'keep_it' \"; }\" ;\n"
        b"server { a 1; g { h 1; } keep 3; }\nkeeper 1; content_by_lua_block { keep } } keep 4;"
    ).replace(b"{ keep }", b"{ -- }\n keep = '}'\n")
    whole = {directive.start: directive for directive in syntax.walk(syntax.parse(source))}
    outline, is_sound = syntax.skim(source, SKIMMED)
    assert is_sound
    skimmed = list(syntax.walk(outline))
    assert all(whole[one.start].end == one.end and whole[one.start].name == one.name for one in skimmed)
    names = [one.name for one in skimmed]
    assert [name for name in names if name not in (b"b", b"d", b"content_by_lua_block")] == [
        *(b"keep", b"f", b"include", b"keep_it", b"server", b"keep", b"keep")
    ]


@pytest.mark.parametrize("source", [b"keep 1; }", b"keep 1; server { a 1;", b"keep 1; 'x", b"keep 1; a", b"keep 1; ;"])
def test_an_outline_of_a_faulty_file_ends_at_the_fault(source: bytes) -> None:
    """It never raises; that the file is not sound is told."""
    outline, is_sound = syntax.skim(source, SKIMMED)
    assert not is_sound
    assert outline[0].arguments == (b"1",)


def test_what_only_comments_and_arguments_mention_is_no_statement() -> None:
    """Then nothing is looked at any closer, a fault neither."""
    assert syntax.skim(b"a server; # keep\n# server {\nb 'keep_' keep; c", SKIMMED) == ((), True)
    assert syntax.skim(b"a server; # keep\n\t\r'keep' 1;", SKIMMED)[0][0].name == b"keep"
    assert syntax.skim(b"keep;", SKIMMED)[0][0].name == b"keep"
