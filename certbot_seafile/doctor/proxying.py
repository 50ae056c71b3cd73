"""What of nginx's lines for Seafile does not let everything through: uploads, long requests, websockets.

The law: only what nginx itself passes on to Seafile is judged, by what the lines say. An unusual limit that somebody
chose is no fault.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator

from certbot_seafile.doctor.findings import WARNING, Finding
from certbot_seafile.site import model
from certbot_seafile.site.config import text
from certbot_seafile.site.routes import Route, route, seahub_root
from certbot_seafile.system.answers import Behind

#: Where Seafile's file server is sent the pieces of an upload.
UPLOAD = "/seafhttp/upload-api/"
#: The shortest that Seafile's manual has anywhere is 310 s.
_LEAST_TIMEOUT_SECONDS = 300
#: What is less than this fills up with one large upload.
_LEAST_FREE_BYTES = 1024**3
#: From this version on, nginx proxies by HTTP/1.1 without being told to.
_HTTP_1_1_SINCE = (1, 29, 7)
_WEBSOCKETS = {
    "/notification": "clients do not hear of changes at once",
    "/socket.io": "documents in SeaDoc cannot be edited by several people",
}


def upload_path(behind: Behind) -> Iterator[Finding]:
    """Yield that uploads reach the file server with /seafhttp still before their path, which it does not know.

    As by the error in Seafile's own manual, `rewrite ^/seafhttp(.*)$1 break;`, with which nginx is content.
    """
    for sent in _routes(behind, UPLOAD):
        rewrites = [line for line in sent.locations[-1].named(b"rewrite") if len(line.arguments) > 1]
        idle = [line for line in rewrites if not model.matches(text(line.arguments[0]), UPLOAD)]
        if rewrites and idle == rewrites and rewrites[0].arguments[0].lstrip(b"^").startswith(b"/seafhttp"):
            line = " ".join(map(text, rewrites[0].arguments))
            place = f"{rewrites[0].path}:{rewrites[0].line}"
            fact = f"`rewrite {line};` at {place} never matches"
            fix = "make it `rewrite ^/seafhttp(.*)$ $1 break;`, then reload nginx"
            yield Finding("SEAFHTTP-REWRITE", fact, "every upload and download fails", fix, place=place)


def upload_limit(behind: Behind) -> Iterator[Finding]:
    """Yield what limits uploads: nginx's own 1 MB, or a limit that somebody wrote."""
    for sent in _routes(behind, UPLOAD):
        limit, fix = sent.most_body_bytes, "put `client_max_body_size 0;` into it, then reload nginx"
        if limit is None:
            fact = f"the location at {sent.place} has no client_max_body_size"
            yield Finding("UPLOAD-LIMIT", fact, "uploads over 1 MB fail with 413", fix, place=sent.place)
        elif limit:
            fact = f"client_max_body_size is {sent.effective(b'client_max_body_size')} for uploads ({sent.place})"
            yield Finding("UPLOAD-LIMIT", fact, "larger uploads fail with 413", fix, WARNING, place=sent.place)


def seahub_limit(behind: Behind) -> Iterator[Finding]:
    """Yield that what is sent to Seahub itself is limited to nginx's 1 MB."""
    uploads = {sent.place for sent in _routes(behind, UPLOAD)}
    for sent in _seahub_routes(behind):
        if sent.most_body_bytes is None and sent.place not in uploads:
            fact = f"the location of Seahub at {sent.place} has no client_max_body_size"
            effect = "office documents over 1 MB that are edited in the browser are not saved (413)"
            fix = "put `client_max_body_size 0;` into it, then reload nginx"
            yield Finding("SEAHUB-LIMIT", fact, effect, fix, WARNING, place=sent.place)


def timeout(behind: Behind) -> Iterator[Finding]:
    """Yield that nginx gives up on Seafile much sooner than the manual has it."""
    for sent in _by_place([*_routes(behind, UPLOAD), *_seahub_routes(behind)]):
        if sent.read_timeout_seconds < _LEAST_TIMEOUT_SECONDS:
            fact = f"nginx waits {sent.read_timeout_seconds:g} s only for answers at {sent.place}"
            fix = "put `proxy_read_timeout 36000s;` into the location, then reload nginx"
            effect = "large uploads and folders may end with 504"
            yield Finding("PROXY-TIMEOUT", fact, effect, fix, WARNING, place=sent.place)


def buffer_space(behind: Behind) -> Iterator[Finding]:
    """Yield that nginx keeps each upload until it is whole, where there is hardly any space for that."""
    nginx = behind.context.nginx
    for sent in _routes(behind, UPLOAD):
        if sent.effective(b"proxy_request_buffering") == "off" and _speaks_http_1_1(behind, sent):
            continue
        folder = os.path.join(nginx.body_path, "..", sent.effective(b"client_body_temp_path") or nginx.body_path)
        free = _free_bytes(folder := os.path.normpath(folder))
        if free is not None and free < _LEAST_FREE_BYTES:
            fact = f"nginx keeps each upload in {folder} until it is whole, where {free // 1024**2} MB are free"
            fix = "put `proxy_request_buffering off; proxy_http_version 1.1;` into the location, then reload nginx"
            effect = "larger uploads fail with 500"
            yield Finding("UPLOAD-NO-SPACE", fact, effect, fix, WARNING, place=sent.place)


def _free_bytes(folder: str) -> int | None:
    """Return what is free for others than root in a folder, or in the one that it will be made in; None: not known."""
    while not os.path.exists(folder) and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
    with contextlib.suppress(OSError):
        return shutil.disk_usage(folder).free
    return None


def websockets(behind: Behind) -> Iterator[Finding]:
    """Yield the locations of websockets that do not hand on what makes a connection one (RFC 6455 4.1)."""
    for beginning, effect in _WEBSOCKETS.items():
        for sent in _routes(behind, f"{beginning}/"):
            if not sent.location.startswith(beginning):
                continue  # it is not at this address
            connection = sent.headers.get("connection", "").lower()
            wanted = {
                "proxy_http_version 1.1;": _speaks_http_1_1(behind, sent),
                "proxy_set_header Upgrade $http_upgrade;": "$" in sent.headers.get("upgrade", ""),
                'proxy_set_header Connection "upgrade";': connection == "upgrade" or "$" in connection,
            }
            lacks = [line for line, is_there in wanted.items() if not is_there]
            if lacks:
                fact = f"the location {sent.location} at {sent.place} hands no websockets on"
                fix = f"put `{' '.join(lacks)}` into it, then reload nginx"
                yield Finding("WEBSOCKET-NO-UPGRADE", fact, effect, fix, place=sent.place)


def _speaks_http_1_1(behind: Behind, sent: Route) -> bool:
    version = sent.effective(b"proxy_http_version")
    return version != "1.0" if version else behind.context.nginx.version >= _HTTP_1_1_SINCE


def _routes(behind: Behind, path: str) -> list[Route]:
    """Return where the site's server blocks pass a request for a path on, each location once."""
    return _by_place([sent for server in behind.site.tls if (sent := route(server, path)).target])


def _seahub_routes(behind: Behind) -> list[Route]:
    roots = [(server, seahub_root(server)) for server in behind.site.tls]
    return _by_place([route(server, f"{root}/") for server, root in roots if root is not None])


def _by_place(routes: list[Route]) -> list[Route]:
    return list({sent.place: sent for sent in routes}.values())
