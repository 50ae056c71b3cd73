"""What Seafile itself answers behind a site, at the addresses that lead to it.

The law: only the site's own listen addresses are asked, and with what a browser sends; for what is silent, a run waits
5 s in all. Nothing is changed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from certbot_seafile import errors
from certbot_seafile.site import find, model, routes
from certbot_seafile.site.model import Server
from certbot_seafile.site.routes import Route
from certbot_seafile.system import handshake, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.handshake import Answer, Endpoint

#: How long Seafile is asked behind one site, in all.
ASK_SECONDS = 5.0
_NO_SECONDS = 0.1


@dataclass(frozen=True)
class Look:
    """What a browser was answered that asked an endpoint, over TLS or in clear, for a path of a name.

    failure: why there is no answer.
    """

    name: str
    sent: Route
    endpoint: Endpoint
    tls: bool
    answer: Answer | None
    failure: str = ""

    @property
    def url(self) -> str:
        """Return what a person would type."""
        return f"https://{self.name}{self.sent.path}"


@dataclass(frozen=True)
class Behind:
    """What is behind a site: where nginx takes what is asked, and what comes back."""

    context: Context
    site: find.Site
    _asked: list[float] = field(default_factory=list, init=False, repr=False)  # when each question was

    def ask(
        self, endpoint: Endpoint, name: str, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask as a browser would that asks for https://NAME/PATH; in clear where the site has no TLS.

        Raises errors.NotServed, as soon as all questions together take too long; at once where this run knows already
        that nothing answers there.
        """
        self._asked.append(time.monotonic())
        left, tls = max(ASK_SECONDS - (self._asked[-1] - self._asked[0]), _NO_SECONDS), bool(self.site.tls)
        left = _NO_SECONDS if (name, path) in self.context.silent else left
        return handshake.get(endpoint, name, path, tls=tls, seconds=left, method=method, headers=headers)

    @cached_property
    def doors(self) -> list[tuple[str, Server, Endpoint]]:
        """Return a name of each server block of the site, with the block and each listen address to ask it at."""
        servers, tls = self.site.tls or self.site.plain, bool(self.site.tls)
        pairs = ((name, server) for server in servers for name in reversed(self.site.domains))
        names = {server: name for name, server in pairs if model.match_rank(server, name) is not None}
        named = [(names.get(server, self.site.domains[0]), server) for server in servers]
        return [(name, server, place) for name, server in named for place in serving.endpoints([server], tls=tls)]

    @cached_property
    def looks(self) -> list[Look]:
        """Return what is answered at the addresses that lead to Seafile, as far as the site has them."""
        sent = [(name, route, place) for name, server, place in self.doors for route in routes.addresses(server)]
        return [self._look(*each) for each in sent]

    def _look(self, name: str, sent: Route, endpoint: Endpoint) -> Look:
        how = name, sent, endpoint, bool(self.site.tls)
        try:
            return Look(*how, self.ask(endpoint, name, sent.path))
        except errors.NotServed as unreachable:
            return Look(*how, None, str(unreachable))


def see(context: Context, site: find.Site) -> list[Look]:
    """Return what is answered before an edit; what is silent then, the run does not wait for again."""
    looks = Behind(context, site).looks
    context.silent.update((look.name, look.sent.path) for look in looks if look.answer is None)
    return looks


def verify(context: Context, names: Sequence[str], before: Sequence[Look]) -> None:
    """Wait until the site answers over TLS as it did before an edit, and leads nobody in circles.

    before: what was answered then. Raises errors.NotServed.
    """
    site = serving.find_site(context, names)

    def check() -> None:
        for look in Behind(context, site).looks if site.tls else ():
            same = (known for known in before if (known.name, known.sent.path) == (look.name, look.sent.path))
            earlier = [(known.tls, known.answer.bare) for known in same if known.answer and known.answer.is_steady]
            if _is_worse(look, earlier):
                expected = f"not with {earlier[0][1]} as before" if earlier else "which leads nowhere else"
                raise errors.NotServed(
                    f"after the reload {look.url} answers at {look.endpoint} with {look.answer or 'nothing'}, "
                    f"{expected}, so the edits were taken out again: see what redirects the site has, and nginx's "
                    "error log"
                )

    serving.wait_for(context, check)


def _is_worse(look: Look, earlier: Sequence[tuple[bool, Answer]]) -> bool:
    """Tell whether an answer over TLS is a redirect to itself, or differs from each earlier one, which is as good."""
    if (answer := look.answer) is None or not answer.is_steady:
        is_busy = answer is not None and answer.status in (429, 503)
        return not is_busy and any(was.status < 400 for _, was in earlier)
    if (True, answer.bare) in earlier:
        return False
    if answer.location in (look.url, f"https://{look.name}:{look.endpoint.port}{look.sent.path}"):
        return True
    in_clear = [was for tls, was in earlier if not tls and (was.location or "").startswith("https://")]
    return bool(earlier) and not in_clear and all(was.status != answer.status for _, was in earlier)
