"""Whether Seafile itself answers over https, at the addresses that lead to it, and lets people log in.

The law: only the site's own listen addresses are asked, for 5 s in all a certificate, and with what a browser sends.
Nobody is logged in, and nothing is counted as a try to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.doctor import proxying, routes
from certbot_seafile.doctor.findings import WARNING, Finding, listed
from certbot_seafile.doctor.routes import Route
from certbot_seafile.doctor.subject import Subject

_TOKEN = re.compile(rb"""name=["']csrfmiddlewaretoken["']\s+value=["']([^"']+)""")


def redirects_to_itself(subject: Subject) -> Iterator[Finding]:
    """Yield what leads people in circles: an address that redirects to itself, or to http."""
    for look in subject.looks:
        target = routes.split((look.answer and look.answer.location) or "https://")
        is_own = target.hostname == look.name.lower()
        if is_own and (target.scheme == "http" or (target.path or "/", target.query) == (look.sent.path, "")):
            fact = f"{look.url} redirects to {target.geturl()}"
            fix = (
                f"take out what redirects at {look.sent.place}, or hand on `proxy_set_header X-Forwarded-Proto "
                "$scheme;` there where Seahub does it"
            )
            yield Finding("SITE-REDIRECT-LOOP", fact, "browsers give up", fix, place=look.sent.place)


def no_answer(subject: Subject) -> Iterator[Finding]:
    """Yield where nothing of Seafile answers. It may be stopped for a backup, and https is well: so it is a warning."""
    silent = [look for look in subject.looks if look.answer is None or look.answer.status >= 500]
    if silent:
        reason = silent[0].failure or str(silent[0].answer)
        fact = f"Seafile does not answer at {listed([look.url for look in silent])}: {reason}"
        fix = "see whether all of Seafile runs, and what nginx's error log says"
        yield Finding("SEAFILE-NO-ANSWER", fact, "people cannot use that", fix, WARNING)


def file_server_astray(subject: Subject) -> Iterator[Finding]:
    """Yield that the file server does not know the path that it is asked for, as with /seafhttp still before it."""
    if any(proxying.upload_path(subject)):
        return  # which says why
    for look in subject.looks:
        if look.sent.path.startswith("/seafhttp/") and look.answer and look.answer.status == 404:
            fact = f"{look.url} answers with HTTP status 404"
            fix = f"let the location at {look.sent.place} have `rewrite ^/seafhttp(.*)$ $1 break;` before proxy_pass"
            effect = "uploads, downloads and sync clients fail"
            yield Finding("SEAFHTTP-ASTRAY", fact, effect, fix, place=look.sent.place)


def login_forbidden(subject: Subject) -> Iterator[Finding]:
    """Yield that Seahub takes its own form for a forgery (CSRF), by whose fault that is.

    The form's token goes back by PUT: Django guards that as it guards POST, and Seahub shows the form again, but counts
    no failed attempt, after a few of which people would have to solve captchas (seahub/auth/views.py).
    """
    for name, sent in subject.logins:
        try:
            form = subject.ask(name, sent.path)
            token = _TOKEN.search(form.body)
            if form.status != 200 or token is None:
                continue
            url = f"https://{name}{sent.path}"
            headers = {"Cookie": "; ".join(form.cookies), "Referer": url, "Origin": f"https://{name}"}
            headers["X-CSRFToken"] = token[1].decode("ascii", "replace")
            answer = subject.ask(name, sent.path, "PUT", headers)
        except errors.ChallengeUnreachable:
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
