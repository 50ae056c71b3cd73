"""nginx as it is found, and its configuration as it is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import nginx


def binary(folder: Path, script: str, name: str = "nginx") -> str:
    """Write a program that stands for nginx and return its path."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def names(root: Path, matters: bool | None = None) -> list[str]:
    """Return the names of the statements that nginx would read from root/nginx.conf, in order."""
    found = nginx.Nginx("nginx", str(root)).statements(None if matters is None else lambda source: bool(matters))
    return [said.name.decode() for outer in found for said in (outer, *outer.walk()) if said.name != b"include"]


def test_nginx_is_found_where_cron_does_not_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short PATH, as cron has it, does not hide a program in sbin."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    seen = nginx.Nginx(binary(tmp_path, 'echo "path: $PATH" >&2')).test()
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
    assert older.conf_path == "/etc/nginx/nginx.conf"


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


def test_only_files_with_servers_that_matter_are_parsed(tmp_path: Path) -> None:
    """A file whose servers do not matter is left out, broken syntax and all; one without servers is read."""
    (tmp_path / "nginx.conf").write_text("http { include sites/*; }\n")
    (tmp_path / "sites").mkdir()
    (tmp_path / "sites" / "a").write_text("server { this is not closed\n")
    (tmp_path / "sites" / "b").write_text("ssl_protocols TLSv1.3;\n")
    assert names(tmp_path, matters=False) == ["http", "ssl_protocols"]
    with pytest.raises(errors.SyntaxRefused):
        names(tmp_path)


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
