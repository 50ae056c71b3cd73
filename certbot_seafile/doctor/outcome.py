"""Whether Seafile itself answers over https, at the addresses that lead to it, and lets people log in.

The law: what is judged is what a browser is answered. Nobody is logged in, and nothing is counted as a try to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.doctor import proxying
from certbot_seafile.doctor.findings import WARNING, Finding, listed
from certbot_seafile.site import routes
from certbot_seafile.site.routes import Route
from certbot_seafile.system.answers import Behind

_TOKEN = re.compile(rb"""name=["']csrfmiddlewaretoken["']\s+value=["']([^"']+)""")


def at_once(behind: Behind) -> list[Finding]:
    """Return what is told after each deployment already: what does not answer over https, and what cuts uploads."""
    rules = redirects_to_itself, no_answer, file_server_astray, proxying.upload_path, proxying.upload_limit
    return list(dict.fromkeys(finding for rule in rules if behind.site.tls for finding in rule(behind)))


def redirects_to_itself(behind: Behind) -> Iterator[Finding]:
    """Yield what leads people in circles: an address that redirects to itself, or to http."""
    for look in behind.looks:
        target = routes.split((look.answer and look.answer.location) or "https://")
        is_own = target.hostname == look.name.lower()
        if is_own and (target.scheme == "http" or (target.path or "/", target.query) == (look.sent.path, "")):
            fact = f"{look.url} redirects to {target.geturl()}"
            fix = (
                f"take out what redirects at {look.sent.place}, or hand on `proxy_set_header X-Forwarded-Proto "
                "$scheme;` there where Seahub does it"
            )
            yield Finding("SITE-REDIRECT-LOOP", fact, "browsers give up", fix, place=look.sent.place)


def no_answer(behind: Behind) -> Iterator[Finding]:
    """Yield where nothing of Seafile answers. It may be stopped for a backup, and https is well: so it is a warning."""
    silent = [look for look in behind.looks if look.answer is None or look.answer.status >= 500]
    if silent:
        reason = silent[0].failure or str(silent[0].answer)
        fact = f"Seafile does not answer at {listed(list(dict.fromkeys(look.url for look in silent)))}: {reason}"
        fix = "see whether all of Seafile runs, and what nginx's error log says"
        yield Finding("SEAFILE-NO-ANSWER", fact, "people cannot use that", fix, WARNING)


def file_server_astray(behind: Behind) -> Iterator[Finding]:
    """Yield that the file server does not know the path that it is asked for, as with /seafhttp still before it."""
    if any(proxying.upload_path(behind)):
        return  # which says why
    for look in behind.looks:
        if look.sent.path.startswith("/seafhttp/") and look.answer and look.answer.status == 404:
            fact = f"{look.url} answers with HTTP status 404"
            fix = f"let the location at {look.sent.place} have `rewrite ^/seafhttp(.*)$ $1 break;` before proxy_pass"
            effect = "uploads, downloads and sync clients fail"
            yield Finding("SEAFHTTP-ASTRAY", fact, effect, fix, place=look.sent.place)


def login_forbidden(behind: Behind) -> Iterator[Finding]:
    """Yield that Seahub takes its own form for a forgery (CSRF), by whose fault that is.

    The form's token goes back by PUT: Django guards that as it guards POST, and Seahub shows the form again, but counts
    no failed attempt, after a few of which people would have to solve captchas (seahub/auth/views.py).
    """
    for name, server, endpoint in behind.doors:
        if (root := routes.seahub_root(server)) is None:
            continue
        sent = routes.route(server, root + routes.LOGIN)
        try:
            form = behind.ask(endpoint, name, sent.path)
            token = _TOKEN.search(form.body)
            if form.status != 200 or token is None:
                continue
            url = f"https://{name}{sent.path}"
            headers = {"Cookie": "; ".join(form.cookies), "Referer": url, "Origin": f"https://{name}"}
            headers["X-CSRFToken"] = token[1].decode("ascii", "replace")
            answer = behind.ask(endpoint, name, sent.path, "PUT", headers)
        except errors.NotServed:
            continue
        if answer.status == 403 and b"CSRF" in answer.body:
            fact = f"Seahub at {url} refuses its own form as forged, with HTTP status 403"
            yield Finding("LOGIN-FORBIDDEN", fact, "nobody can log in", _fix_of_403(name, sent), place=sent.place)


def _fix_of_403(name: str, sent: Route) -> str:
    """Return what is to be done: Django compares the form's origin with scheme and host as nginx hands them on."""
    if "$" not in sent.headers.get("host", "") and sent.headers.get("host") != name:
        return f"put `proxy_set_header Host $http_host;` into the location at {sent.place}, then reload nginx"
    if sent.headers.get("x-forwarded-proto") not in ("https", "$scheme"):
        return f"put `proxy_set_header X-Forwarded-Proto $scheme;` into the location at {sent.place}, then reload nginx"
    return f"put CSRF_TRUSTED_ORIGINS = ['https://{name}'] into conf/seahub_settings.py, then restart Seahub"
