"""A simulated year: certbot, this package, the CA and its responders live by one calendar that a test moves on.

The law of this module: the clock is the only thing that is faked. Commands see it by libfaketime, run as forks of one
process (see `forks`); certificates are Pebble's, dated by its front; responses are dated by the responders.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.x509 import ocsp

import ocsp_server
from authority import DAY, HOUR
from e2e.front import validity
from e2e.world import Run, World

#: Between two runs of `certbot renew`.
STEP = 12 * HOUR
#: Validity of a CA's responses in days, and how often it publishes new ones: daily, and after half of the validity.
PUBLISHED_EVERY = {4: DAY, 7: 3.5 * DAY}

_SITE = """\
server {{
    listen 80;
    server_name {name};
    location / {{ proxy_pass http://127.0.0.1:8000; }}
}}
server {{
    listen 443 ssl;
    server_name {name};
    ssl_certificate /etc/ssl/private/cacert.pem;
    ssl_certificate_key /etc/ssl/private/privkey.pem;
    location / {{ proxy_pass http://127.0.0.1:8000; proxy_set_header X-Forwarded-Proto https; }}
}}
"""


@dataclass(frozen=True)
class Certificate:
    """One lineage of the year: how long its certificates and its responses hold, and whether it is must-staple."""

    lifetime_days: int
    staple_days: int
    must_staple: bool

    @property
    def name(self) -> str:
        """The lineage's name, which is its only domain."""
        kind = "must" if self.must_staple else "plain"
        return f"days{self.lifetime_days}.staple{self.staple_days}.{kind}.example.com"

    @property
    def profile(self) -> str:
        """The CA's profile of such certificates."""
        return f"days{self.lifetime_days}"


@dataclass(frozen=True)
class Served:
    """What a TLS handshake showed: the leaf's serial number and end, and the staple's window (None: no staple)."""

    serial: int
    expires: datetime.datetime
    staple_begins: datetime.datetime | None
    staple_ends: datetime.datetime | None


class Year:
    """A world in which it is `now`, with sites for all the certificates and a CA that has a profile for each lifetime.

    Use as a context manager. `move` turns the calendar to another day.
    """

    def __init__(self, world: World, certificates: Sequence[Certificate]) -> None:
        self.world, self.certificates = world, certificates
        self.now = self.begin = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
        self.responders: dict[int, ocsp_server.Server] = {}
        self._clock = world.folder / "run" / "clock"
        self._opened = contextlib.ExitStack()

    def __enter__(self) -> Year:
        world = self.world
        profiles = {each.profile: each.lifetime_days * DAY for each in self.certificates}
        world.start_pebble(profiles=profiles, must_staple=True, now=lambda: self.now)
        issuer = world.issuers()[0]
        for days, port in zip(PUBLISHED_EVERY, (world.ocsp_port, 0), strict=True):
            opened = ocsp_server.serve([ocsp_server.load(issuer.certificate, issuer.key)], port=port)
            self.responders[days] = self._opened.enter_context(opened)
        self.move(self.begin)
        for each in self.certificates:
            world.write_site(each.name, world.adapt(_SITE.format(name=each.name).encode()))
        world.start_nginx()
        world.start_forks(self._clock)
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def move(self, moment: datetime.datetime, is_responding: bool = True) -> None:
        """Let it be that moment; is_responding: whether the responders answer from now on."""
        self.now = moment
        ahead = moment - datetime.datetime.now(datetime.UTC)
        self._clock.write_text(f"{ahead.total_seconds():+.3f}")
        fault = "none" if is_responding else "hang-up"
        for days, responder in self.responders.items():
            responder.state = ocsp_server.State(fault, validity_hours=24 * days, this_update=self.published(days))

    def published(self, staple_days: int) -> datetime.datetime:
        """Return when the CA published its newest responses of that validity."""
        every = PUBLISHED_EVERY[staple_days]
        return self.begin + (self.now - self.begin) // every * every

    def certbot(self, *words: str | Path, check: bool = True) -> Run:
        """Run certbot, today. See `World.run` for errors."""
        program, *usual = self.world.certbot_command(*words, "--max-log-backups", "0")
        return self.world.run(self.world.folder / "bin" / Path(program).name, *usual, check=check)

    def get(self, certificate: Certificate) -> None:
        """Get the first certificate of a lineage."""
        url = f"http://127.0.0.1:{self.responders[certificate.staple_days].server_port}/"
        wanted = ["--required-profile", certificate.profile, "--seafile-ocsp-url", url]
        must = ["--must-staple"] if certificate.must_staple else []
        self.certbot("certonly", "-a", "seafile", "-d", certificate.name, *self.world.plugin_options, *wanted, *must)

    def asked(self) -> int:
        """Return how many requests of ours the responders have had; certbot asks them too, whether to renew at once."""
        requests = [request for responder in self.responders.values() for request in responder.requests]
        return sum("certbot-seafile/" in request.headers.get("User-Agent", "") for request in requests)

    def look(self, certificate: Certificate) -> Served:
        """Return what a client is handed now."""
        look = self.world.handshake(certificate.name)
        staple = ocsp.load_der_ocsp_response(look.staple) if look.staple else None
        window = (staple.this_update_utc, staple.next_update_utc) if staple else (None, None)
        return Served(look.certificate.serial_number, validity(look.certificate)[1], *window)
