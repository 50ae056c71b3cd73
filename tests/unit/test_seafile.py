"""What Seafile's settings say against what is served, and compose files and lines of sites, by the finding's id."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from certbot_seafile.doctor import findings, listeners
from certbot_seafile.doctor.findings import FAULT, NOTE, WARNING
from host import NAME, Host

SITE = "location /media {{ root {root}/opt/seafile/seafile-server-latest/seahub; }}"
PYTHON, ENV = "/opt/seafile/conf/seahub_settings.py", "/opt/seafile/conf/.env"
DOCKER_ENV, VOLUME = "/opt/docker/.env", "/opt/seafile-data/seafile/conf/seahub_settings.py"
NAMED = f"SEAFILE_SERVER_HOSTNAME={NAME}\nSEAFILE_SERVER_PROTOCOL=https\n"

#: Seafile's files, and what is told: id, severity, file and line, and what the sentence has.
FILES: Mapping[str, tuple[dict[str, str], tuple[str, str, str, str] | None]] = {
    "as in the manual": ({ENV: NAMED, PYTHON: "TIME_ZONE = 'UTC'\n"}, None),
    "before Seafile 12": ({PYTHON: f"SERVICE_URL = 'https://{NAME}'\n"}, None),
    "SEAFILE-PLAIN-HTTP in the old place": (
        {"/opt/seafile/conf/ccnet.conf": f"[General]\nSERVICE_URL = http://{NAME}\n"},
        ("SEAFILE-PLAIN-HTTP", FAULT, "/opt/seafile/conf/ccnet.conf:2", "make it https://"),
    ),
    "the old place, which Seafile 9 and newer do not read": (
        {"/opt/seafile/conf/ccnet.conf": f"SERVICE_URL = http://{NAME}\n", "/opt/seafile/seafile-server-9.0.1/x": ""},
        None,
    ),
    "SEAFILE-PLAIN-HTTP that the web interface may have, too": (
        {PYTHON: f"\nFILE_SERVER_ROOT = 'http://{NAME}/seafhttp'\n"},
        ("SEAFILE-PLAIN-HTTP", FAULT, f"{PYTHON}:2", "here and in System Admin, Settings, whose values win"),
    ),
    "SEAFILE-PLAIN-HTTP of a container": (
        {DOCKER_ENV: NAMED.replace("https", "http")},
        ("SEAFILE-PLAIN-HTTP", FAULT, f"{DOCKER_ENV}:2", "make it https, then"),
    ),
    "a container for another site, beside this one's": (
        {DOCKER_ENV: "SEAFILE_SERVER_HOSTNAME=a.org\nSEAFILE_SERVER_PROTOCOL=http\n", ENV: NAMED}, None,
    ),
    "SEAFILE-HOSTNAME": (
        {ENV: NAMED.replace("home", "www")},
        ("SEAFILE-HOSTNAME", WARNING, f"{ENV}:1", f"www.seafile.com, and the certificate is for {NAME}"),
    ),
    "SEAFILE-HOSTNAME of the only container": (
        {DOCKER_ENV: NAMED.replace(NAME, "seafile.example.com")},
        ("SEAFILE-HOSTNAME", WARNING, f"{DOCKER_ENV}:1", "SEAFILE_SERVER_HOSTNAME = seafile.example.com"),
    ),
    "SEAFILE-HOSTNAME in an address": (
        {PYTHON: "SERVICE_URL = 'https://10.0.0.1/'\n"},
        ("SEAFILE-HOSTNAME", WARNING, f"{PYTHON}:1", "whose values win"),
    ),
    "an address that is none": ({PYTHON: "SERVICE_URL = 'https://['\n"}, None),
    "a name that the shell fills in": ({DOCKER_ENV: "SEAFILE_SERVER_HOSTNAME=$NAME\n"}, None),
    "SEAFILE-URL-LEFT-OVER by .env": (
        {ENV: NAMED, PYTHON: f"SERVICE_URL = 'https://{NAME}'\n"},
        ("SEAFILE-URL-LEFT-OVER", NOTE, f"{PYTHON}:1", "take it out here and in System Admin, Settings"),
    ),
    "SEAFILE-URL-LEFT-OVER by the version": (
        {PYTHON: f"\nSERVICE_URL = 'https://{NAME}'\n", "/opt/seafile/seafile-pro-server-12.0.7/x": ""},
        ("SEAFILE-URL-LEFT-OVER", NOTE, f"{PYTHON}:2", "which Seafile 12 and newer compute"),
    ),
    "SEAFILE-MIXED-CONTENT in Python": (
        {PYTHON: "ONLYOFFICE_APIJS_URL = 'http://10.0.0.1/web-apps/apps/api/documents/api.js'\n"},
        ("SEAFILE-MIXED-CONTENT", FAULT, f"{PYTHON}:1", "browsers refuse to call it"),
    ),
    "SEAFILE-MIXED-CONTENT in .env": (
        {ENV: f"{NAMED}SEADOC_SERVER_URL=http://{NAME}:8888\nINNER_NOTIFICATION_SERVER_URL=http://n:8083\n"},
        ("SEAFILE-MIXED-CONTENT", FAULT, f"{ENV}:3", "SEADOC_SERVER_URL = http://"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_seafiles_settings_are_compared_with_what_is_served(tmp_path: Path, name: str) -> None:
    """Each finding has the setting's line; a release is told from the folder that seafile-server-latest leads to."""
    texts, told = FILES[name]
    host = Host(tmp_path)
    paths = [host.write(path, text) for path, text in texts.items()]
    for folder in [path.parent for path in paths if "server-" in path.parent.name]:
        (folder.parent / "seafile-server-latest").symlink_to(folder.name)
    site = SITE.format(root=host.root) if any("/opt/seafile/" in path for path in texts) else ""
    found = [each for each in host.of_site(site) if each.id.startswith("SEAFILE-")]
    assert [(each.id, each.severity, each.place) for each in found] == (
        [(told[0], told[1], f"{host.root}{told[2]}")] if told else []
    )
    assert not told or told[3] in found[0].text


def test_seafile_url_left_over_in_the_only_containers_volume(tmp_path: Path) -> None:
    """SEAFILE-URL-LEFT-OVER and the others are found below SEAFILE_VOLUME, too, where the site names no folder."""
    host = Host(tmp_path)
    host.write(DOCKER_ENV, f"{NAMED}SEAFILE_VOLUME=/opt/seafile-data\n")
    host.write(VOLUME, "SERVICE_URL = 'http://10.0.0.1'\n")
    (fault,) = [each for each in host.of_site("") if each.id.startswith("SEAFILE-")]
    assert (fault.id, fault.place) == ("SEAFILE-PLAIN-HTTP", f"{host.root}{VOLUME}:1")


def test_the_folder_that_the_site_names_counts_wherever_it_is(tmp_path: Path) -> None:
    """SEAFILE-PLAIN-HTTP is found in an installation outside of /opt."""
    host = Host(tmp_path)
    path = host.write("/srv/x/conf/.env", NAMED.replace("https", "http"))
    found = host.of_site(f"location /media {{ root {host.root}/srv/x/seafile-server-latest/seahub; }}")
    assert [each.place for each in found if each.id.startswith("SEAFILE-")] == [f"{path}:2"]


# --- what holds the ports --------------------------------------------------------------------------------------------

COMPOSE = """\
services:
  caddy:
    image: ${SEAFILE_CADDY_IMAGE:-lucaslorentz/caddy-docker-proxy:2.12-alpine}
"""


def test_compose_caddy_is_a_warning_with_its_line(tmp_path: Path) -> None:
    """COMPOSE-CADDY: the file that .env lists is named, and not one that it does not list."""
    host = Host(tmp_path)
    host.write(DOCKER_ENV, f"{NAMED}COMPOSE_FILE='seafile-server.yml,caddy.yml'\nCOMPOSE_PATH_SEPARATOR=','\n")
    host.write("/opt/docker/seafile-server.yml", "services:\n  seafile:\n    image: seafileltd/seafile-mc\n")
    host.write("/opt/docker/caddy.yml", COMPOSE)
    (warning,) = [each for each in host.machine() if each.id == "COMPOSE-CADDY"]
    assert (warning.severity, warning.place) == (WARNING, f"{host.root}/opt/docker/caddy.yml:3")
    assert warning.command == "docker compose up -d --remove-orphans"
    host.write(DOCKER_ENV, f"{NAMED}COMPOSE_FILE='seafile-server.yml'\n")
    assert [each for each in host.machine() if each.id == "COMPOSE-CADDY"] == []


def test_port_taken_names_who_listens_where_nginx_is_to(tmp_path: Path) -> None:
    """PORT-TAKEN: this process listens on the site's port; a program's name that could be anything is not shown."""
    host = Host(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as stream:
        stream.settimeout(10)
        answering = threading.Thread(target=lambda: stream.accept()[0].close())
        answering.start()
        port = stream.getsockname()[1]
        found = [each for each in host.of_site("", port=port) if each.id == "PORT-TAKEN"]
        (listener,) = listeners.by_port()[port]
        answering.join()
    assert listener.process == os.getpid()
    assert [each.severity for each in found] == [FAULT]
    assert f"{listener.program} (process {os.getpid()}) listens on port {port}" in found[0].text
    assert [each for each in host.of_site("", port=port) if each.id == "PORT-TAKEN"] == []


# --- the certificate itself ------------------------------------------------------------------------------------------


def told(host: Host, name: str) -> list[findings.Finding]:
    """Return what is said of the machine under an id."""
    return [each for each in host.machine() if each.id == name]


def test_cert_from_archive_names_the_line_and_the_live_path(tmp_path: Path) -> None:
    """CERT-FROM-ARCHIVE: by the path itself, and by a link that somebody made to one version; live/ is well."""
    host = Host(tmp_path)
    archive = host.config_dir / "archive" / NAME / "fullchain1.pem"
    by_hand = host.root / "etc/ssl/seafile.pem"
    by_hand.parent.mkdir()
    by_hand.symlink_to(archive)
    live = host.config_dir / "live" / NAME / "fullchain.pem"
    good = host.root / "etc/ssl/good.pem"
    good.symlink_to(live)
    for path, is_told in ((archive, True), (by_hand, True), (live, False), (good, False)):
        conf = host.write("/etc/nginx/nginx.conf", f"http {{ server {{\nssl_certificate {path};\n}} }}")
        found = told(host, "CERT-FROM-ARCHIVE")
        assert [each.place for each in found] == [f"{conf}:2"] * is_told
        assert not is_told or f"make it {live} (with the key beside it)" in found[0].text


def test_cert_no_must_staple_where_the_ca_left_it_out(tmp_path: Path) -> None:
    """CERT-NO-MUST-STAPLE is a warning: the renewal file asks for it, and the certificate came without."""
    host = Host(tmp_path)
    host.mint(must_staple=True)
    assert [text for text in host.sentences() if "asks for must-staple, and the certificate came without" in text]
    host.mint()
    assert not [text for text in host.sentences() if "must-staple" in text]
