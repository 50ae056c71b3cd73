"""What Seafile's own settings say against what is served.

The law: only settings below the installation that the site itself names are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from certbot_seafile.doctor import seahub
from certbot_seafile.doctor.findings import Finding
from certbot_seafile.doctor.subject import Subject


def plain_http(subject: Subject) -> Iterator[Finding]:
    """Yield the settings that still say http."""
    servers = subject.site.tls
    statements = [statement for server in servers for statement in server.statement.walk() if statement.arguments]
    folders = [os.fsdecode(root.arguments[0]) for root in statements if root.name in (b"root", b"alias")]
    for top in dict.fromkeys(map(seahub.top_folder, folders)):
        for setting in seahub.plain_http_settings(top) if top else ():
            fix = f"make it {setting.wanted}, then restart Seafile and Seahub"
            is_csrf = setting.name == "CSRF_TRUSTED_ORIGINS"
            effect = "logging in ends with 403" if is_csrf else "Seahub hands out links that fail over https"
            yield Finding("SEAFILE-PLAIN-HTTP", str(setting), effect, fix, place=f"{setting.path}:{setting.line}")
