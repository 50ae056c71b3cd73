"""What holds for any bytes, with nginx itself as the judge.

nginx says how it read a word when that word is part of a duplicate in "types": it prints extension and content
type byte for byte. So one run of `nginx -t` compares every word of a file. SEAFILE_FUZZ=N sets the number of
files for each property (100 unless set).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from certbot_seafile import errors
from certbot_seafile.site import syntax

Statements = tuple[syntax.Directive, ...]
FILES = int(os.environ.get("SEAFILE_FUZZ", "100"))
with_nginx = settings(max_examples=FILES, deadline=None)

ESCAPES = [b'\\"', b"\\'", b"\\\\", b"\\t", b"\\r", b"\\n", b"\\d", b"\\ ", b"\\;", b"\\\n"]
FRAGMENTS = [
    *(bytes([byte]) for byte in b" \t\r\n;{}#\"'\\$()=~/:.abntr\x00\x0b\x0c\xe9\xef"),
    *(b"\r\n", b"${", b"$a", b"${a}", b"# c\n", b"#c}\r\n", b" {\n", b"}\n", b";\n", b" a", b" b c;\n"),
    *(b"'a b'", b'"a;b"', b'"a\\"{"', b'")', b"')", *ESCAPES),
]
SPACES = [b" ", b"\t", b"\n", b"\r\n", b"  \n ", b" # it's; a } comment {\n", b" #\n#\n ", b" #\xe9\r\n"]


def soup(fragments: list[bytes], most: int) -> st.SearchStrategy[bytes]:
    """Return files made of fragments in any order."""
    return st.lists(st.sampled_from(fragments), max_size=most).map(b"".join)


# Words of every spelling that can stand anywhere.
IN_BARE_WORD = [b"a", b"B", b"9", b"/", b"\\.", b"$a", b"${a}", b"\\{", b"}", b"#", *ESCAPES]
IN_QUOTED_WORD = [b"a", b" ", b";", b"{", b"}", b"#", b"\n", b"$", b"${", b"\xe9", b"\x00", *ESCAPES]
WORD = st.one_of(
    soup(IN_BARE_WORD, 6).map(lambda rest: b"x" + rest),
    soup(IN_QUOTED_WORD, 8).map(lambda inside: b'"' + inside + b'"'),
    soup(IN_QUOTED_WORD, 8).map(lambda inside: b"'" + inside + b"'"),
)
ANY_WORD = st.one_of(st.binary(max_size=20), soup(FRAGMENTS, 6))


class Verdict(NamedTuple):
    """What nginx said: an error and its line (0 if it named none), and the extensions that it met twice.

    A duplicate is extension, content type, previous content type, line.
    """

    error: bytes | None
    line: int
    duplicates: list[tuple[bytes, bytes, bytes, int]]

    @property
    def is_about_syntax(self) -> bool:
        """Whether the tokenizer, not a directive (as in: unexpected "=" in condition), refused."""
        told = rb'unexpected "."|unexpected end of file, .*|too long parameter.*'
        return self.error is not None and re.fullmatch(told, self.error, re.DOTALL) is not None


class Nginx:
    """nginx's own reader, with files of its own in a folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "nginx.conf"
        kinds = (b"client_body", b"proxy", b"fastcgi", b"uwsgi", b"scgi")
        temporary = b" ".join(b"%s_temp_path %s/%s;" % (kind, bytes(folder), kind) for kind in kinds)
        self.head = b"error_log stderr; pid %s/pid; events {} http { access_log off; %s " % (bytes(folder), temporary)

    def reads(self, source: bytes) -> Verdict:
        """Return what `nginx -t` says about this file."""
        self.path.write_bytes(source)
        command = ["nginx", "-t", "-q", "-e", "stderr", "-c", str(self.path), "-p", str(self.path.parent)]
        said = subprocess.run(command, capture_output=True, timeout=30, check=False).stderr
        place = rb" in " + re.escape(bytes(self.path)) + rb":(\d+)\n"
        warning, error = rb"^\S+ \S+ \[warn\] \d+#\d+: ", rb"^\S+ \S+ \[emerg\] \d+#\d+: "
        words = rb'duplicate extension "(.*?)", content type: "(.*?)", previous content type: "(.*?)"'
        warned = re.findall(warning + words + place, said, re.DOTALL | re.MULTILINE)
        duplicates = [(extension, kind, before, int(line)) for extension, kind, before, line in warned]
        if refused := re.search(error + rb"(.*?)" + place, said, re.DOTALL | re.MULTILINE):
            return Verdict(refused[1], int(refused[2]), duplicates)
        # Some errors are found at the end of a block and name no line; this one at the end of the file.
        misfit = re.search(error + rb"(?!no .events. section)(.*)", said, re.MULTILINE)
        return Verdict(misfit[1] if misfit else None, 0, duplicates)


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Nginx:
    """Return the nginx of this machine."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed (Debian: nginx-light); it is the judge here")
    return Nginx(tmp_path_factory.mktemp("nginx"))


def verdict(source: bytes) -> Statements | errors.SyntaxRefused:
    """Return the statements, or the error instead of raising it."""
    try:
        return syntax.parse(source)
    except errors.SyntaxRefused as refused:
        return refused


def line_of(source: bytes, offset: int) -> int:
    """Return the line, from 1, of an offset."""
    return source.count(b"\n", 0, offset) + 1


def agreed(source: bytes, judge: Verdict) -> Statements | errors.SyntaxRefused:
    """Return our verdict, which must name the same syntax error in the same line as nginx, or none."""
    ours = verdict(source)
    # No block may stand within "types"; that is not the tokenizer's error, although it sounds like one.
    misplaced_block = judge.error == b'unexpected "{"' and b"types {" in source
    if judge.error is None:
        assert isinstance(ours, tuple), ours
    elif isinstance(ours, tuple):
        assert misplaced_block or not judge.is_about_syntax, judge
    elif judge.is_about_syntax and not misplaced_block:
        assert (ours.line, ours.reason[:12].encode("latin-1")) == (judge.line, judge.error[:12])
    else:
        # nginx stopped at a directive, before it could see what is refused here.
        assert ours.line >= judge.line
    return ours


def duplicates_in(source: bytes, directives: Statements) -> list[tuple[bytes, bytes, bytes, int]]:
    """Return what ngx_http_core_type() must warn of if it reads the first "types" as we do."""
    known: dict[bytes, bytes] = {}
    found = []
    types = next(directive for directive in syntax.walk(directives) if directive.name == b"types")
    for directive in types.block or ():
        for extension in map(bytes.lower, directive.arguments):
            # nginx compares extensions by strcmp(), which sees nothing past a NUL, and prints them whole.
            key, _, _ = extension.partition(b"\0")
            if key in known:
                line = line_of(source, directive.end - 1)
                found.append((extension, directive.name, known[key], line))
            known[key] = directive.name
    return found


#: What may stand between statements.
GAP = re.compile(rb"(?:[ \t\r\n]|#[^\n]*+)*+")


def assert_tiles(source: bytes, directives: Sequence[syntax.Directive]) -> None:
    """Check that statements, and space and comments between them, make up the source."""
    pending = [(0, len(source), directives)]
    while pending:
        position, end, siblings = pending.pop()
        for directive in siblings:
            assert GAP.fullmatch(source, position, directive.start)
            position = directive.end
            assert directive.start < directive.sign < directive.end
            signs = source[directive.sign : directive.sign + 1] + source[directive.end - 1 : directive.end]
            assert signs == (b";;" if directive.block is None else b"{}")
            if directive.block is not None and not directive.name.endswith(b"_by_lua_block"):
                pending.append((directive.sign + 1, directive.end - 1, directive.block))
        assert GAP.fullmatch(source, position, end)


LUA = [b"a_by_lua_block {", b"--[[", b"]]", b"[=[", b"]=]", b"--"]


@given(st.one_of(st.binary(max_size=200), soup(FRAGMENTS, 60), soup(LUA + FRAGMENTS, 30)))
@settings(deadline=None, max_examples=max(FILES, 500))
def test_any_bytes_are_tiled_or_refused_with_a_place(source: bytes) -> None:
    """They are statements and what may stand between them, or our own error with a place in the file; nothing else."""
    ours = verdict(source)
    if isinstance(ours, tuple):
        assert_tiles(source, ours)
    else:
        lines = source.split(b"\n")
        assert 1 <= ours.line <= len(lines)
        assert 1 <= ours.column <= len(lines[ours.line - 1]) + 1


@given(st.lists(ANY_WORD, min_size=1), st.sampled_from([b";", b" {}"]))
@settings(deadline=None, max_examples=max(FILES, 300))
def test_quoted_words_are_read_back(words: list[bytes], after: bytes) -> None:
    """Any words survive being written and read."""
    (directive,) = syntax.parse(b" ".join(map(syntax.quote, words)) + after)
    assert [directive.name, *directive.arguments] == words


# However it is quoted, `include` is a directive in this block, too (ngx_http_core_type).
@given(st.lists(ANY_WORD.filter(lambda word: word != b"include"), min_size=1, max_size=20))
@example([b"", b"\\", b"\\t", b'"', b"'", b"$", b"${", b"a${b}", b"}", b"#", b"\n", b"\x00", b"(a)", b")"])
@with_nginx
def test_nginx_reads_quoted_words_back(nginx: Nginx, words: list[bytes]) -> None:
    """What quote() writes, nginx reads as the same bytes."""
    written = b"".join(syntax.quote(word) + b" x;\n" for word in words)
    said = nginx.reads(nginx.head + b"types { first x;" + written + b"}}")
    assert said.error is None
    assert [kind for _, kind, _, _ in said.duplicates] == words


def spaced(words: list[bytes], spaces: list[bytes], end: bytes) -> bytes:
    """Return a statement: words, space after each, and what ends it."""
    return b"".join(word + space for word, space in zip(words, spaces, strict=False)) + end


STATEMENT = st.builds(
    spaced,
    st.lists(WORD, min_size=2, max_size=4),
    st.lists(st.sampled_from(SPACES), min_size=4, max_size=4),
    st.sampled_from([b";", b"; ", b";#c\n", b"\n;\n", b";\r\n"]),
)


@given(st.lists(STATEMENT, max_size=8).map(b"".join))
@with_nginx
def test_nginx_reads_the_words_that_we_read(nginx: Nginx, body: bytes) -> None:
    """Correct statements: nginx accepts them, and every word has the same bytes for nginx and for us."""
    source = nginx.head + b"types {" + body + body + b"}}"
    said = nginx.reads(source)
    assert said.error is None
    ours = agreed(source, said)
    assert isinstance(ours, tuple)
    assert_tiles(source, ours)
    assert duplicates_in(source, ours) == said.duplicates


@given(soup(FRAGMENTS, 30))
@with_nginx
def test_nginx_and_we_refuse_the_same_soup(nginx: Nginx, body: bytes) -> None:
    """Fragments in any order, within "types": the same verdict, and the same words as far as nginx read."""
    source = nginx.head + b"types { first x;\n" + body + b" x;\n" + body + b" x;\n}}"
    said = nginx.reads(source)
    ours = agreed(source, said)
    if isinstance(ours, tuple):
        assert duplicates_in(source, ours)[: len(said.duplicates)] == said.duplicates


@given(soup(FRAGMENTS, 20))
@example(b"\xef\xbb\xbfserver {}")
@with_nginx
def test_nginx_reads_the_same_first_statement(nginx: Nginx, source: bytes) -> None:
    """Fragments in any order as a whole file: nginx stops at the first statement and names it as we do."""
    said = nginx.reads(source)
    ours = agreed(source, said)
    if isinstance(ours, tuple) and ours:
        first = ours[0]
        name, _, _ = first.name.partition(b"\0")
        assert said.error == b'unknown directive "%s"' % name
        assert said.line == line_of(source, first.sign)


SITE = b"""
upstream seahub { server 127.0.0.1:8000; server '127.0.0.1:8001'; }
server { # one
    listen 127.0.0.1:8080;
    server_name _ "two words" ~^x\\.y$;
    rewrite ^ https://$http_host$request_uri? permanent; # ; }
}
server
{
    listen 127.0.0.1:8443;
    location / {
        if ($request_method = "POST") { return 405; }
        proxy_pass http://seahub;
        proxy_set_header Host $host;
    }
    location ~ \\.(a|b)$ { rewrite ^/seafhttp(.*)$ ${uri}$1 break; }
    location /seafmedia { root '/opt/sea file'; limit_except GET { deny all; } }
}
"""
EDIT = st.tuples(st.integers(0, len(SITE)), st.integers(0, 3), st.sampled_from([b"", *FRAGMENTS]))


def edited(edits: list[tuple[int, int, bytes]]) -> bytes:
    """Return the site with some bytes (offset, number) replaced by others."""
    site = SITE
    for offset, number, put in edits:
        site = site[:offset] + put + site[offset + number :]
    return site


@given(st.lists(EDIT, max_size=3).map(edited))
@with_nginx
def test_nginx_and_we_refuse_the_same_damaged_site(nginx: Nginx, site: bytes) -> None:
    """A site with a few bytes lost or added: the same verdict in the same line."""
    source = nginx.head + site + b"}"
    ours = agreed(source, nginx.reads(source))
    if isinstance(ours, tuple):
        assert_tiles(source, ours)


def test_nginx_accepts_the_site_that_is_damaged_above(nginx: Nginx) -> None:
    """Else the damage would prove nothing."""
    assert nginx.reads(nginx.head + SITE + b"}").error is None


BUFFER_FORMS = [b"%s y;", b"x %s;", b"'%s' y;", b'x "%s";', b"x '%s' ;", b"#%s\nx y;", b"x #%s\n;", b"x '%s"]


@pytest.mark.parametrize("before", [b"", b" " * 2000, b"a b;\n" * 700])
@pytest.mark.parametrize("form", BUFFER_FORMS)
def test_nginx_finds_the_same_words_too_long(nginx: Nginx, before: bytes, form: bytes) -> None:
    """The limit of nginx's buffer is met to the byte, wherever in the file the word or comment begins."""
    for length in range(4091, 4099):
        source = nginx.head + b"types {" + before + form % (b"a" * length) + b"}}"
        agreed(source, nginx.reads(source))
