"""What Seafile's own settings say against what is served.

The law: settings are those of the installation that the site itself names, else those of containers that name the
certificate's names, or of the only installation. What the web interface saved is in Seafile's database, and not read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from certbot_seafile.doctor import seahub
from certbot_seafile.doctor.findings import NOTE, WARNING, Finding
from certbot_seafile.doctor.seahub import Setting
from certbot_seafile.doctor.subject import Subject
from certbot_seafile.site import model, routes

#: What browsers call themselves, from within a page that came over https.
_CALLED_BY_BROWSERS = ("SEADOC_SERVER_URL", "NOTIFICATION_SERVER_URL", "ONLYOFFICE_APIJS_URL")
_HOSTNAME = "SEAFILE_SERVER_HOSTNAME"
_FIRST_TO_COMPUTE = 12
_WINS = "in System Admin, Settings, whose values win"


def plain_http(subject: Subject) -> Iterator[Finding]:
    """Yield the settings that still say http."""
    for setting in _settings(subject):
        if wanted := setting.over_https:
            fact = f"{setting.place} has {setting.name} = {setting.written(setting.value)}"
            too = f", here and {_WINS}" if setting.name in seahub.URLS else ""
            fix = f"make it {wanted}{too}, then restart Seafile and Seahub"
            is_csrf = setting.name == "CSRF_TRUSTED_ORIGINS"
            effect = "logging in ends with 403" if is_csrf else "Seahub hands out links that fail over https"
            yield Finding("SEAFILE-PLAIN-HTTP", fact, effect, fix, place=setting.place)


def mixed_content(subject: Subject) -> Iterator[Finding]:
    """Yield the addresses that browsers are to call over http from a page that came over https."""
    for setting in _settings(subject):
        if setting.name in _CALLED_BY_BROWSERS and setting.text.lower().startswith(("http://", "ws://")):
            fact = f"{setting.place} calls for plain http: {setting.name} = {setting.text}"
            fix = "make it https, at an address that nginx passes on to it, then restart Seafile"
            yield Finding("SEAFILE-MIXED-CONTENT", fact, "browsers refuse to call it", fix, place=setting.place)


def other_host(subject: Subject) -> Iterator[Finding]:
    """Yield the settings by which Seafile takes itself to be reached by a name that the certificate is not for."""
    names = subject.lineage.names
    for setting in _settings(subject):
        is_url = setting.name in seahub.URLS and setting.text.lower().startswith("https://")
        host = routes.split(setting.text).hostname or "" if is_url else setting.text
        if (is_url or setting.name == _HOSTNAME) and host and "$" not in host and not model.covers(names, host):
            fact = f"{setting.place} has {setting.name} = {setting.text}, and the certificate is for {', '.join(names)}"
            too = f" here and {_WINS}" if is_url else ""
            fix = f"correct it{too}, then restart Seafile, or get a certificate for that name, too"
            yield Finding("SEAFILE-HOSTNAME", fact, "Seafile's links lead elsewhere", fix, WARNING, place=setting.place)


def url_left_over(subject: Subject) -> Iterator[Finding]:
    """Yield the addresses in seahub_settings.py that Seafile from 12 on computes from .env."""
    for top in _tops(subject):
        is_named = any(seahub.value_in(path, _HOSTNAME) for path in seahub.own_env_files(top))
        is_computed = is_named or seahub.release(top) >= _FIRST_TO_COMPUTE
        for setting in seahub.settings(top) if is_computed else ():
            is_url = setting.is_of_seahub and setting.name in seahub.URLS
            if is_url and setting.text.lower().startswith("https://"):
                place, name = setting.place, setting.name
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
    installations = subject.machine.seafile.installations
    return installations if len(subject.machine.readable) == len(installations) == 1 else []


def _env_files(subject: Subject) -> list[str]:
    """Return the environment files that are about the site."""
    known, names = subject.machine.seafile.env_files, subject.lineage.names
    own = [path for top in _tops(subject) for path in seahub.own_env_files(top)]
    if own or len(subject.machine.readable) == len(known) == 1:
        return own or known
    return [path for path in known if model.covers(names, seahub.value_in(path, _HOSTNAME))]


def _settings(subject: Subject) -> Iterator[Setting]:
    """Yield all settings that are about the site."""
    for top in _tops(subject):
        yield from seahub.settings(top)
    for path in _env_files(subject):
        yield from seahub.line_settings(path).values()
