"""Where nginx takes a request to the site: the locations around it, and what applies there.

The law: inheritance is decided here as nginx decides it, with nginx's source named; nothing here knows what is wrong.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from certbot_seafile.site import model
from certbot_seafile.site.config import Statement, text
from certbot_seafile.site.model import Server

_UNITS_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
_UNITS_BYTES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_SEAHUB_PORT = re.compile(r":8000(?:/|\Z)")
LOGIN = "/accounts/login/"
#: What of Seafile answers where, besides Seahub, in the sites that have it: by where its location begins.
_COMPONENTS = {
    "/seafhttp": "/seafhttp/protocol-version", "/notification": "/notification/ping", "/sdoc-server": "/sdoc-server/",
    "/seafdav": "/seafdav/",
}  # fmt: skip


@dataclass(frozen=True)
class Route:
    """A request for a path to a server block. locations: those around it, the one that nginx chooses last."""

    server: Server
    path: str
    locations: tuple[Statement, ...]

    @property
    def target(self) -> str | None:
        """Return the argument of the proxy_pass that takes it, which no level inherits; None where none does."""
        passes = self.locations[-1].named(b"proxy_pass") if self.locations else []
        return text(passes[-1].arguments[0]) if passes and passes[-1].arguments else None

    @property
    def location(self) -> str:
        """Return the path of the location that nginx chooses; "" where it chooses none."""
        return model.location_path(self.locations[-1])[1] if self.locations else ""

    @property
    def place(self) -> str:
        """Return file and line of the location that nginx chooses, else of the server block."""
        return f"{self.locations[-1].path}:{self.locations[-1].line}" if self.locations else str(self.server)

    def effective(self, name: bytes) -> str | None:
        """Return the first argument of a directive that applies to it; None where none stands at any level around it.

        Of directives that take the place of those above (ngx_conf_merge_value).
        """
        for level in reversed(self.locations):
            if statements := [each for each in level.named(name) if each.arguments]:
                return text(statements[-1].arguments[0])
        statement = self.server.effective(name)
        return text(statement.arguments[0]) if statement and statement.arguments else None

    @property
    def headers(self) -> dict[str, str]:
        """Return what it is handed on with, by names in small letters; those of a level hide the ones of all above.

        (ngx_http_proxy_init_headers)
        """
        levels = [*reversed(self.locations), self.server.statement, self.server.http]
        lines = next(filter(None, (level.named(b"proxy_set_header") for level in levels)), [])
        return {text(line.arguments[0]).lower(): text(line.arguments[1]) for line in lines if len(line.arguments) == 2}

    @property
    def most_body_bytes(self) -> int | None:
        """Return what client_max_body_size allows, 0 for all; None where no level says anything (nginx: 1 MB)."""
        written = re.fullmatch(r"(\d+)([kmg]?)", (self.effective(b"client_max_body_size") or "").lower())
        return int(written[1]) * _UNITS_BYTES[written[2]] if written else None

    @property
    def read_timeout_seconds(self) -> float:
        """Return how long the next bytes of the answer are waited for: 60 s where no level says anything."""
        parts = re.findall(r"(\d+)(ms|[smhdwMy]?)", self.effective(b"proxy_read_timeout") or "60s")
        return sum(int(number) * _UNITS_SECONDS[unit] for number, unit in parts)


def route(server: Server, path: str) -> Route:
    """Return where nginx takes a request for a path of a server block."""
    return Route(server, path, tuple(model.locations_for(server, path)))


def split(url: str) -> SplitResult:
    """Return the parts of an address; none of them where it is no address."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def seahub_root(server: Server) -> str | None:
    """Return the path below which a server block proxies Seahub: "" for all, "/seafile"; None where it does not."""
    if route(server, LOGIN).target:
        return ""
    for location in [each for each in server.statement.walk() if each.name == b"location" and each.arguments]:
        modifier, path = model.location_path(location)
        targets = [text(each.arguments[0]) for each in location.named(b"proxy_pass") if each.arguments]
        if modifier in ("", "^~") and any(map(_SEAHUB_PORT.search, targets)):
            return path.rstrip("/")
    return None


def addresses(server: Server) -> list[Route]:
    """Return the addresses that lead to Seafile, as far as a server block has them: Seahub's, and its components'."""
    root = seahub_root(server) or ""
    components = {beginning: route(server, path) for beginning, path in _COMPONENTS.items()}
    present = [sent for beginning, sent in components.items() if sent.target and sent.location.startswith(beginning)]
    return [route(server, f"{root}/"), route(server, f"{root}/api2/ping/"), *present]
