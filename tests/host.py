"""A machine in a folder, as the doctor looks at it: one lineage, an nginx that accepts anything, and files by path.

The law of this module: nothing runs and nothing is asked; what is to be true is said in the tests.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cryptography import x509

import authority
import lineages as lineages_on_disk
from certbot_seafile import assembly
from certbot_seafile.doctor import findings, rules
from certbot_seafile.doctor.subject import Machine
from certbot_seafile.system import lineages, records
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.system.nginx import Nginx

NAME = "home.seafile.com"
HOUR, DAY = datetime.timedelta(hours=1), datetime.timedelta(days=1)
NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)


class Host:
    """A machine in a folder: one lineage, an nginx that accepts anything and reads nothing, and files by path."""

    def __init__(self, root: Path) -> None:
        self.root, self.config_dir = root, root / "etc/letsencrypt"
        self.write("/etc/nginx/nginx.conf", "")
        self.lineage = self.mint()

    def write(self, path: str, text: str) -> Path:
        """Write a file of the machine; scripts are executable."""
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(0o755 if text.startswith("#!") else 0o644)
        return place

    def mint(
        self,
        begin: datetime.datetime = NOW - 30 * DAY,
        days: float = 90,
        top: str = "",
        *,
        names: Sequence[str] = (NAME,),
        number: int = 1,
        **parameters: object,
    ) -> Lineage:
        """Write the lineage's certificate (number: its version) of so many days. top: above the file's section."""
        issuer, extension = authority.make_ca(), x509.SubjectAlternativeName(list(map(x509.DNSName, names)))
        end = begin + datetime.timedelta(days=days)
        leaf = authority.make_certificate(NAME, issuer, extensions=[(extension, False)], begin=begin, end=end)
        hook = {"renew_hook": f"{self.root}/bin/certbot-seafile deploy"}
        lineages_on_disk.make(self.config_dir, NAME, leaf, issuer, {**hook, **parameters}, number=number)
        path = self.config_dir / "renewal" / f"{NAME}.conf"
        path.write_text(top + path.read_text())
        os.utime(path, (begin.timestamp(), begin.timestamp()))
        self.lineage = lineages.load(str(self.config_dir), NAME)
        return self.lineage

    def remember(self, last_run: datetime.datetime | None) -> None:
        """Let `certbot renew` have come by at that time."""
        state_dir = lineages.state_dir(str(self.config_dir))
        records.write(state_dir, NAME, replace(records.load(state_dir, self.lineage), last_run=last_run))

    def context(self, now: datetime.datetime = NOW) -> Context:
        """Return what the doctor works with at a time."""
        nginx = Nginx("true", str(self.root / "etc/nginx"))
        options = Options(staple_dir=str(self.root / "etc/nginx/OCSP"))
        return Context(nginx, options, str(self.config_dir), assembly.Reverter(None), print, now=lambda: now)

    def whole(self, now: datetime.datetime = NOW) -> Machine:
        """Return the machine as the doctor looks at it."""
        return Machine(self.context(now), [self.lineage], {}, str(self.root))

    def machine(self, now: datetime.datetime = NOW) -> list[findings.Finding]:
        """Return what is said of the machine."""
        return rules.of_machine(self.whole(now))

    def sentences(self, now: datetime.datetime = NOW) -> list[str]:
        """Return what is said of the lineage, but for its site, which is not there."""
        told = rules.of_lineage(self.context(now), self.lineage, self.whole(now))
        return [finding.text for finding in told if "no Seafile site found" not in finding.text]

    def of_site(self, lines: str, http: str = "", port: int = 1) -> list[findings.Finding]:
        """Return what is said of the lineage and its site, which nobody serves.

        lines: what stands in its TLS server block. http: what stands above it. port: where it is to be served.
        """
        block = (
            f"listen 127.0.0.1:{port} ssl; server_name {NAME}; ssl_certificate {self.lineage.fullchain_path};\n{lines}"
        )
        self.write("/etc/nginx/nginx.conf", f"http {{ {http}\nserver {{ {block} }} }}")
        return rules.of_lineage(self.context(), self.lineage, self.whole())
