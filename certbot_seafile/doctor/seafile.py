"""What Seafile's own settings say against what is served.

The law: settings are those of the installation that the site itself names, else those of containers that name the
certificate's names, or of the only installation. What the web interface saved is in Seafile's database, and not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from certbot_seafile.doctor import seahub
from certbot_seafile.doctor.findings import NOTE, WARNING, Finding
from certbot_seafile.doctor.subject import Subject
from certbot_seafile.site import routes

_URLS = ("SERVICE_URL", "FILE_SERVER_ROOT")
#: What browsers call themselves, from within a page that came over https.
_CALLED_BY_BROWSERS = ("SEADOC_SERVER_URL", "NOTIFICATION_SERVER_URL", "ONLYOFFICE_APIJS_URL")
_HOSTNAME = "SEAFILE_SERVER_HOSTNAME"
_FIRST_TO_COMPUTE = 12
_WINS = "in System Admin, Settings, whose values win"


def plain_http(subject: Subject) -> Iterator[Finding]:
    """Yield the settings that still say http."""
    tops = _tops(subject)
    settings = [setting for top in tops for setting in seahub.plain_http_settings(top)]
    own = {path for top in tops for path in seahub.own_env_files(top)}
    further = [path for path in _env_files(subject) if path not in own]
    for setting in settings + [setting for path in further for setting in seahub.plain_http_protocol(path)]:
        too = f", here and {_WINS}" if setting.name in _URLS else ""
        fix = f"make it {setting.wanted}{too}, then restart Seafile and Seahub"
        is_csrf = setting.name == "CSRF_TRUSTED_ORIGINS"
        effect = "logging in ends with 403" if is_csrf else "Seahub hands out links that fail over https"
        yield Finding("SEAFILE-PLAIN-HTTP", str(setting), effect, fix, place=f"{setting.path}:{setting.line}")


def mixed_content(subject: Subject) -> Iterator[Finding]:
    """Yield the addresses that browsers are to call over http from a page that came over https."""
    for place, name, value in _values(subject):
        if name in _CALLED_BY_BROWSERS and value.lower().startswith(("http://", "ws://")):
            fact = f"{place} calls for plain http: {name} = {value}"
            fix = "make it https, at an address that nginx passes on to it, then restart Seafile"
            yield Finding("SEAFILE-MIXED-CONTENT", fact, "browsers refuse to call it", fix, place=place)


def other_host(subject: Subject) -> Iterator[Finding]:
    """Yield the settings by which Seafile takes itself to be reached by a name that the certificate is not for."""
    for place, name, value in _values(subject):
        is_url = name in _URLS and value.lower().startswith("https://")
        host = routes.split(value).hostname or "" if is_url else value
        if (is_url or name == _HOSTNAME) and host and "$" not in host and not _covers(subject, host):
            fact = f"{place} has {name} = {value}, and the certificate is for {', '.join(subject.lineage.names)}"
            too = f" here and {_WINS}" if is_url else ""
            fix = f"correct it{too}, then restart Seafile, or get a certificate for that name, too"
            yield Finding("SEAFILE-HOSTNAME", fact, "Seafile's links lead elsewhere", fix, WARNING, place=place)


def url_left_over(subject: Subject) -> Iterator[Finding]:
    """Yield the addresses in seahub_settings.py that Seafile from 12 on computes from .env."""
    for top in _tops(subject):
        env = [name for path in seahub.own_env_files(top) for name in seahub.env_settings(path)]
        if (seahub.release(top) or 0) < _FIRST_TO_COMPUTE and _HOSTNAME not in env:
            continue
        for name, (line, value) in seahub.python_settings(top).items():
            if name in _URLS and isinstance(value, str) and value.lower().startswith("https://"):
                place = f"{seahub.settings_path(top)}:{line}"
                fact = f"{place} has {name}, which Seafile 12 and newer compute from {_HOSTNAME} in .env"
                fix = f"take it out here and {_WINS}, then restart Seahub"
                yield Finding("SEAFILE-URL-LEFT-OVER", fact, "it goes before .env", fix, NOTE, place=place)


def _tops(subject: Subject) -> list[str]:
    """Return the folders of the site's installation, as its own lines name it, else of the only one."""
    servers = subject.site.tls
    statements = [statement for server in servers for statement in server.statement.walk() if statement.arguments]
    folders = [os.fsdecode(root.arguments[0]) for root in statements if root.name in (b"root", b"alias")]
    if tops := list(dict.fromkeys(filter(None, map(seahub.top_folder, folders)))):
        return tops
    is_only = len(subject.machine.readable) == len(subject.machine.installations) == 1
    return subject.machine.installations if is_only else []


def _env_files(subject: Subject) -> list[str]:
    """Return the environment files that are about the site."""
    machine = subject.machine
    own = [path for top in _tops(subject) for path in seahub.own_env_files(top)]
    if own or len(machine.readable) == len(machine.env_files) == 1:
        return own or machine.env_files
    hosts = {path: seahub.env_settings(path).get(_HOSTNAME, (0, ""))[1] for path in machine.env_files}
    return [path for path, host in hosts.items() if _covers(subject, host)]


def _values(subject: Subject) -> Iterator[tuple[str, str, str]]:
    """Yield place, name and value of all plain settings that are about the site."""
    for top in _tops(subject):
        for name, (line, value) in seahub.python_settings(top).items():
            if isinstance(value, str):
                yield f"{seahub.settings_path(top)}:{line}", name, value
    for path in _env_files(subject):
        for name, (line, text) in seahub.env_settings(path).items():
            yield f"{path}:{line}", name, text


def _covers(subject: Subject, host: str) -> bool:
    names = subject.lineage.names
    return host.lower() in names or f"*.{host.lower().partition('.')[2]}" in names
