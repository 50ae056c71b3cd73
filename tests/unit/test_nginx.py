"""nginx as it is found, and its configuration as it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.site import config
from certbot_seafile.system import nginx


def binary(folder: Path, script: str, name: str = "nginx") -> str:
    """Write a program that stands for nginx and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def names(root: Path) -> list[str]:
    """Return the names of the statements that nginx would read from root/nginx.conf, in order."""
    found = nginx.Nginx("nginx", str(root)).configuration().statements()
    return [said.name.decode() for outer in found for said in (outer, *outer.walk()) if said.name != b"include"]


def test_nginx_is_found_where_cron_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short PATH, as cron has it, does not hide a program in sbin."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    seen = nginx.Nginx(binary(tmp_path, 'echo "path: $PATH" >&2')).facts
    assert "/usr/sbin" in seen.split(":")[1:]


def test_a_missing_nginx_is_named(tmp_path: Path) -> None:
    """Where there is no such program, the option that names one is said."""
    with pytest.raises(errors.NginxMissing, match="--seafile-ctl"):
        nginx.Nginx(str(tmp_path / "nothing")).test()


def test_the_complaint_is_one_line_of_what_is_wrong(tmp_path: Path) -> None:
    """Warnings and the summary are left out; what nginx calls emerg stays."""
    said = 'nginx: [warn] x\\nnginx: [emerg] unknown directive \\"y\\" in z:3\\nnginx: test failed\\n'
    with pytest.raises(errors.NginxRefused) as refused:
        nginx.Nginx(binary(tmp_path, f'printf "{said}" >&2; exit 1')).test()
    assert 'nginx: [emerg] unknown directive "y" in z:3' in str(refused.value)
    assert "[warn]" not in str(refused.value)


def test_version_and_place_come_from_nginx_itself(tmp_path: Path) -> None:
    """What `nginx -V` says is used."""
    ctl = binary(tmp_path, 'echo "nginx version: nginx/1.26.3"; echo "arguments: --conf-path=/opt/n/nginx.conf"')
    found = nginx.Nginx(ctl)
    assert found.version == (1, 26, 3)
    assert found.conf_path == "/opt/n/nginx.conf"
    assert "TLSv1.3" in found.default_protocols
    older = nginx.Nginx(binary(tmp_path, 'echo "nginx version: nginx/1.22.1"', "old"))
    assert "TLSv1.3" not in older.default_protocols
    assert older.conf_path == "/usr/local/nginx/conf/nginx.conf"


def test_includes_are_sorted_nested_and_relative_to_nginx_conf(tmp_path: Path) -> None:
    """As in ngx_conf_include: patterns sorted by bytes, dot files left out, a pattern may match nothing."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "nginx.conf").write_text("first 1;\ninclude conf.d/*;\ninclude none/*.conf;\nlast 1;\n")
    (tmp_path / "conf.d" / "b").write_text("b 1;\n")
    (tmp_path / "conf.d" / "a").write_text("a 1;\ninclude deep/one.conf;\n")
    (tmp_path / "conf.d" / ".hidden").write_text("hidden 1;\n")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "one.conf").write_text("deep 1;\n")
    assert names(tmp_path) == ["first", "a", "deep", "b", "last"]


def test_http_in_an_included_file(tmp_path: Path) -> None:
    """The http block may stand in a file of its own."""
    (tmp_path / "nginx.conf").write_text("include http.conf;\n")
    (tmp_path / "http.conf").write_text("http { server { listen 80; } }\n")
    assert names(tmp_path) == ["http", "server", "listen"]


def test_a_file_that_includes_itself_is_refused(tmp_path: Path) -> None:
    """A loop of includes ends with a line that names the file."""
    (tmp_path / "nginx.conf").write_text("include nginx.conf;\n")
    with pytest.raises(errors.SyntaxRefused, match=r"nginx\.conf:1:1: it includes itself"):
        names(tmp_path)


def test_a_missing_include_is_refused_as_nginx_does(tmp_path: Path) -> None:
    """Without a pattern the file must be there."""
    (tmp_path / "nginx.conf").write_text("include nowhere.conf;\n")
    with pytest.raises(errors.FileRefused, match=r"nowhere\.conf"):
        names(tmp_path)


def test_includes_are_relative_to_the_folder_that_nginx_is_told(tmp_path: Path) -> None:
    """Where nginx.conf is a link, its includes are looked for beside the link (ngx_process_options)."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "opt").mkdir()
    (tmp_path / "etc" / "nginx.conf").symlink_to(tmp_path / "opt" / "nginx.conf")
    (tmp_path / "opt" / "nginx.conf").write_text("include more.conf;\n")
    (tmp_path / "opt" / "more.conf").write_text("far 1;\n")
    (tmp_path / "etc" / "more.conf").write_text("near 1;\n")
    assert names(tmp_path / "etc") == ["near"]


PATTERNS = {
    "*": ["a", "b.conf", "c#", "d1", "x]"],
    "[^.#]*": ["a", "b.conf", "c#", "d1", "x]"],
    "[!ac]*": ["b.conf", "d1", "x]"],
    "*[^#]": ["a", "b.conf", "d1", "x]"],
    "*[[:digit:]]": ["d1"],
    "?[[:alnum:]]": ["d1"],
    "*.conf": ["b.conf"],
    "*\\]": ["x]"],
    ".*": [".hidden"],
}


@pytest.mark.parametrize(("pattern", "expected"), PATTERNS.items(), ids=list(PATTERNS))
def test_patterns_are_those_of_glob(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    """As in glob(3), by which nginx finds them."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / ".hidden").write_text("named .hidden;\n")
    for name in ("a", "b.conf", "c#", "d1", "x]"):
        (tmp_path / "sites" / name).write_text(f"named {name};\n")
    (tmp_path / "nginx.conf").write_text(f"include sites/{pattern};\n")
    (include,) = nginx.Nginx("nginx", str(tmp_path)).configuration().statements()
    assert [os.fsdecode(said.arguments[0]) for said in include.children] == expected


def test_a_configuration_is_read_once_for_each_state(tmp_path: Path) -> None:
    """It is the same object until a file comes, goes or changes, and that is told; unchanged files are kept."""
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a").write_text("server { listen 80; }\n")
    (tmp_path / "sites" / "b").write_text("server { listen 81; }\n")
    (tmp_path / "nginx.conf").write_text("http { include sites/*; }\n")
    chosen = nginx.Nginx(binary(tmp_path, "true"), str(tmp_path))

    def after_a_change() -> config.Configuration:
        chosen.changed()
        return chosen.configuration()

    first = chosen.configuration()
    assert after_a_change() is first
    (tmp_path / "sites" / "b").write_text("server { listen 8100; }\n")
    assert chosen.configuration() is first
    second = after_a_change()
    a, b = (str(tmp_path / "sites" / name) for name in "ab")
    assert second.files[a] is first.files[a]
    assert second.files[b] is not first.files[b]
    assert chosen.configuration() is second
    (tmp_path / "sites" / "c").symlink_to("a")
    third = after_a_change()
    assert third is not second
    assert len(third.files) == 3
    (tmp_path / "sites" / "c").unlink()
    (tmp_path / "sites" / "a").unlink()
    assert list(after_a_change().files) == [str(tmp_path / "nginx.conf"), b]
    (tmp_path / "nginx.conf").unlink()
    for _ in range(2):
        with pytest.raises(errors.FileRefused):
            after_a_change()
        with pytest.raises(errors.FileRefused):
            chosen.configuration()


def test_nginx_stays_comparable(tmp_path: Path) -> None:
    """What was read makes no difference between two that are called the same way."""
    (tmp_path / "nginx.conf").write_text("events {}\n")
    one, other = (nginx.Nginx("nginx", str(tmp_path)) for _ in range(2))
    one.configuration()
    assert one == other
    assert len({one, other}) == 1


def test_users_are_read_from_the_main_level(tmp_path: Path) -> None:
    """What `user` says there counts, includes followed; else the user that nginx was built with."""
    ctl = binary(tmp_path, 'echo "configure arguments: --user=built"')
    (tmp_path / "nginx.conf").write_text("include user.conf;\nhttp { map $a $b { user nobody; } }\n")
    (tmp_path / "user.conf").write_text("# user old;\nuser  'www-data' www;\n")
    assert nginx.Nginx(ctl, str(tmp_path)).user == "www-data"
    (tmp_path / "user.conf").write_text("")
    assert nginx.Nginx(ctl, str(tmp_path)).user == "built"


def test_no_file_is_too_large(tmp_path: Path) -> None:
    """nginx reads a file of any size, so we do too; 70 MB of comments here."""
    (tmp_path / "nginx.conf").write_text("include large.conf;\nlast 1;\n")
    with (tmp_path / "large.conf").open("w") as stream:
        stream.write("first 1;\n")
        stream.writelines(["# nothing but comments\n" * 100_000] * 31)
    assert (tmp_path / "large.conf").stat().st_size > 64 * 1024 * 1024
    assert names(tmp_path) == ["first", "last"]


def test_a_syntax_error_names_file_line_and_column(tmp_path: Path) -> None:
    """The place is told as people look it up."""
    (tmp_path / "nginx.conf").write_text("good 1;\n  } bad\n")
    with pytest.raises(errors.SyntaxRefused, match=rf"{os.path.basename(tmp_path)}/nginx\.conf:2:3"):
        names(tmp_path)


def test_ciphers_tell_whether_ecdsa_can_be_served() -> None:
    """The tutorial's cipher string leaves none for an ECDSA certificate; OpenSSL's default does."""
    tutorial = "EECDH+AESGCM:EDH+AESGCM:EECDH:EDH:!MD5:!RC4:!LOW:!MEDIUM:!CAMELLIA:!ECDSA:!DES:!DSS:!3DES:!NULL"
    assert not nginx.ciphers_allow_ecdsa(tutorial)
    assert nginx.ciphers_allow_ecdsa("HIGH:!aNULL:!MD5")


def test_without_a_built_in_path_the_prefix_has_the_configuration(tmp_path: Path) -> None:
    """What nginx is called with -p counts, which only nginx itself knows; no left-over /etc/nginx is meant."""
    script = (
        'case "$1" in -V) echo "nginx version: openresty/1.21.4";; *) echo "open() \\"/srv/n/$3\\" failed" >&2;; esac'
    )
    found = nginx.Nginx(binary(tmp_path, script))
    assert found.conf_path == "/srv/n/conf/nginx.conf"
    assert found.place("html") == "/srv/n/html"
    assert found.version == (1, 21, 4)
