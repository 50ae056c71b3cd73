"""What nginx's lines for Seafile do not let through, by the id of the finding."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from certbot_seafile.doctor.findings import FAULT, WARNING
from host import Host

FILES = "rewrite ^/seafhttp(.*)$ $1 break; proxy_pass http://127.0.0.1:8082;"
WIDE = "client_max_body_size 0; proxy_read_timeout 36000s;"
HANDED = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection 'upgrade';"
SEAHUB = f"location / {{ proxy_pass http://127.0.0.1:8000; {WIDE} }}\n"
FILE_SERVER = f"location /seafhttp {{ {FILES} {WIDE} }}\n"


def files(lines: str) -> str:
    """Return a site with Seahub and these lines for the file server."""
    return f"{SEAHUB}location /seafhttp {{ {lines} }}\n"


def socket(location: str, lines: str) -> str:
    """Return a whole site with a further location that is passed on."""
    return f"{SEAHUB}{FILE_SERVER}location {location} {{ proxy_pass http://127.0.0.1:8083; {WIDE} {lines} }}\n"


#: The site, what stands above it, and what is told: id, severity, the line of the site, and what the sentence has.
SITES: Mapping[str, tuple[str, str, tuple[str, str, int, str] | None]] = {
    "the manual's": (SEAHUB + FILE_SERVER, "", None),
    "all in one container": (SEAHUB.replace("8000", "80"), "", None),
    "limits above the site": (
        files(FILES) + SEAHUB.replace("location /", "location /x"), WIDE, None,
    ),
    "not passed on": ("location / { root /srv; }", "", None),
    "SEAFHTTP-REWRITE as in the manual": (
        files(f"rewrite ^/seafhttp(.*)$1 break; proxy_pass http://127.0.0.1:8082; {WIDE}"), "",
        ("SEAFHTTP-REWRITE", FAULT, 2, "`rewrite ^/seafhttp(.*)$1 break;` at"),
    ),
    "SEAFHTTP-REWRITE without the last letter": (
        files(f"rewrite ^/seafhtt(?!p)(.*)$ $1 break; rewrite ^/seafhttp/x$ /y; proxy_pass http://a:8082; {WIDE}"), "",
        None,
    ),
    "UPLOAD-LIMIT of nginx": (
        files(f"{FILES} proxy_read_timeout 1h;"), "",
        ("UPLOAD-LIMIT", FAULT, 2, "uploads over 1 MB fail with 413; put `client_max_body_size 0;`"),
    ),
    "UPLOAD-LIMIT of nginx, in a container": (
        "location / { proxy_pass http://127.0.0.1:80; proxy_read_timeout 310s; }", "",
        ("UPLOAD-LIMIT", FAULT, 1, "uploads over 1 MB"),
    ),
    "UPLOAD-LIMIT of a person": (
        files(f"{FILES} proxy_read_timeout 1h; client_max_body_size 10g;"), "",
        ("UPLOAD-LIMIT", WARNING, 2, "is 10g for uploads"),
    ),
    "UPLOAD-LIMIT above the site": (
        files(f"{FILES} proxy_read_timeout 1h;"), "client_max_body_size 2m;",
        ("UPLOAD-LIMIT", WARNING, 2, "is 2m for uploads"),
    ),
    "SEAHUB-LIMIT": (
        "location / { proxy_pass http://127.0.0.1:8000; proxy_read_timeout 310s; }\n" + FILE_SERVER, "",
        ("SEAHUB-LIMIT", WARNING, 1, "over 1 MB"),
    ),
    "SEAHUB-LIMIT below a path": (
        "location /seafile { proxy_pass http://127.0.0.1:8000; proxy_read_timeout 310s; }\n" + FILE_SERVER, "",
        ("SEAHUB-LIMIT", WARNING, 1, "over 1 MB"),
    ),
    "PROXY-TIMEOUT of nginx": (
        files(f"{FILES} client_max_body_size 0;"), "", ("PROXY-TIMEOUT", WARNING, 2, "waits 60 s only"),
    ),
    "PROXY-TIMEOUT of a person": (
        files(f"{FILES} client_max_body_size 0; proxy_read_timeout 1m30s;"), "",
        ("PROXY-TIMEOUT", WARNING, 2, "waits 90 s only"),
    ),
    "websockets handed on": (socket("/notification", HANDED), "", None),
    "websockets by a map": (
        socket("/notification", HANDED.replace("'upgrade'", "$proxy_connection")), "", None,
    ),
    "websockets handed on above": (socket("/socket.io", ""), HANDED, None),
    "WEBSOCKET-NO-UPGRADE without anything": (
        socket("/socket.io", ""), "",
        ("WEBSOCKET-NO-UPGRADE", FAULT, 3, "put `proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"),
    ),
    "WEBSOCKET-NO-UPGRADE by an old version": (
        socket("/notification", HANDED.replace("1.1", "1.0")), "",
        ("WEBSOCKET-NO-UPGRADE", FAULT, 3, "put `proxy_http_version 1.1;` into it"),
    ),
    "WEBSOCKET-NO-UPGRADE where a level hides the one above": (
        socket("/notification/", "proxy_http_version 1.1; proxy_set_header Host $host;"), HANDED,
        ("WEBSOCKET-NO-UPGRADE", FAULT, 3, "Upgrade $http_upgrade; proxy_set_header Connection"),
    ),
}  # fmt: skip
IDS = {told[0] for _, _, told in SITES.values() if told}
#: How many lines of nginx.conf stand above those of the site.
ABOVE = 2


@pytest.mark.parametrize("name", SITES)
def test_what_does_not_get_through_nginx_is_told_with_its_line(tmp_path: Path, name: str) -> None:
    """The location is named, and the line that it lacks; what is as the manual has it is well."""
    lines, above, told = SITES[name]
    host = Host(tmp_path)
    found = [finding for finding in host.of_site(lines, above) if finding.id in IDS]
    assert [(each.id, each.severity, each.place) for each in found] == (
        [(told[0], told[1], f"{host.root}/etc/nginx/nginx.conf:{told[2] + ABOVE}")] if told else []
    )
    assert not told or told[3] in found[0].text


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a folder on a disk of 4 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_upload_no_space_where_nginx_keeps_whole_uploads_on_a_full_disk(tmp_path: Path, small: Path) -> None:
    """UPLOAD-NO-SPACE is told where nginx buffers uploads there, also in a folder that it has not made yet."""
    host = Host(tmp_path)

    def told(lines: str) -> list[str]:
        found = host.of_site(files(f"{FILES} {WIDE} {lines}"), f"client_body_temp_path {small}/body 1;")
        return [finding.text for finding in found if finding.id == "UPLOAD-NO-SPACE"]

    (text,) = told("")
    assert f"nginx keeps each upload in {small}/body until it is whole, where 4 MB are free" in text
    assert told("proxy_request_buffering off; proxy_http_version 1.0;")
    assert told("proxy_request_buffering off; proxy_http_version 1.1;") == []
