"""Real sites made to run in a test's folder.

The law of this module: bytes in, bytes out. Only the addresses of `listen` and the paths of the system's folders
change; comments, indentation and line ends stay as they are, so that what the package does to the result is what it
would do to the original.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

#: Comment, quoted word, listen directive, or a system path; nginx starts comments and quotes at a word's start only.
_PIECE = re.compile(
    rb"""(?P<comment> (?<![^\s;{}]) \# [^\r\n]*)
       | (?P<listen>  (?<![^\s;{}]) listen (?=\s)) (?P<gap> \s+) (?P<address> [^\s;]+)
       | (?P<quoted>  (?<![^\s;{}]) (?: "(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' ))
       | (?P<path>    (?<![^\s;{}]) / (?:etc|var|opt|srv|home|run|usr/share) / [^\s;{}]*)""",
    re.VERBOSE | re.DOTALL,
)
_SYSTEM_PATH = re.compile(rb"""(["'])/(?:etc|var|opt|srv|home|run|usr/share)/""")
_ADDRESS = re.compile(rb"(?:(?P<host>\[[^\]]*\]|[^:]*):)?(?P<port>\d+)\Z")


def adapt(site: bytes, folder: Path, ports: Mapping[int, int]) -> bytes:
    """Return the site with ports mapped by `ports` (80 is nginx's own default) and system paths put below `folder`.

    Servers without a `listen` stay as they are; so do ports that `ports` does not name.
    """

    def replaced(match: re.Match[bytes]) -> bytes:
        if match["listen"] is not None:
            rest = site[match.end() : site.find(b";", match.end())]
            return match["listen"] + match["gap"] + _listen_address(match["address"], rest, ports)
        if match["path"] is not None:
            return bytes(folder) + match["path"]
        if match["quoted"] is not None and _SYSTEM_PATH.match(match["quoted"]):
            return match["quoted"][:1] + bytes(folder) + match["quoted"][1:]
        return match[0]

    return _PIECE.sub(replaced, site)


def _listen_address(address: bytes, parameters: bytes, ports: Mapping[int, int]) -> bytes:
    """Map one `listen` address onto loopback.

    `[::]` with ipv6only=off serves IPv4 as well; the IPv4-mapped loopback address keeps that. Anything else that
    names all addresses, or none, becomes the loopback address of its family.
    """
    if address.startswith(b"unix:"):
        return address
    match = _ADDRESS.match(address)
    host, port = (match["host"], int(match["port"])) if match else (address, 80)
    if host == b"[::]":
        host = b"[::ffff:127.0.0.1]" if b"ipv6only=off" in parameters else b"[::1]"
    elif host in (None, b"*", b"0.0.0.0"):
        host = b"127.0.0.1"
    return host + b":%d" % ports.get(port, port)


def named_files(site: bytes) -> dict[str, list[Path]]:
    """Return the paths that TLS and log directives name, by directive name; comments and variables left out.

    Directives: ssl_certificate, ssl_certificate_key, ssl_trusted_certificate, ssl_dhparam, access_log, error_log, root.
    """
    plain = _PIECE.sub(lambda match: b"" if match["comment"] is not None else match[0], site)
    directive = rb"(?<![^\s;{}])(ssl_(?:(?:trusted_)?certificate|certificate_key|dhparam)|(?:access|error)_log|root)"
    found: dict[str, list[Path]] = {}
    for name, quoted, bare in re.findall(directive + rb"""\s+(?:["']([^"']+)["']|([^\s;"']+))""", plain):
        word = (quoted or bare).decode("utf-8", "surrogateescape")
        if "$" not in word and word != "off" and not word.startswith(("syslog:", "data:", "engine:")):
            found.setdefault(name.decode(), []).append(Path(word))
    return found
