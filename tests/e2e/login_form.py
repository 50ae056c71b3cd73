"""A form to log in that Django's own middleware guards against forgery, as it does Seahub's.

Run as `python login_form.py ADDRESS PORT [ORIGIN...]`: it listens there until it is ended, behind a proxy that says in
X-Forwarded-Proto how people came, and trusts the origins. Settings are Seahub's where they matter.
"""

from __future__ import annotations

import sys
from wsgiref.simple_server import make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.urls import re_path

settings.configure(
    SECRET_KEY="of a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    CSRF_COOKIE_NAME="sfcsrftoken",
    CSRF_TRUSTED_ORIGINS=sys.argv[3:],
)


def log_in(request: HttpRequest) -> HttpResponse:
    """Show the form, and end with 500 where somebody tries to log in, which Seahub would count."""
    if request.method == "POST":
        return HttpResponse(status=500)
    field = f'<input type="hidden" name="csrfmiddlewaretoken" value="{get_token(request)}">'
    return HttpResponse(f'<form method="post">{field}<input name="login"></form>')


urlpatterns = [re_path(r".*/accounts/login/$", log_in), re_path("", lambda request: HttpResponse("Seafile"))]

if __name__ == "__main__":
    make_server(sys.argv[1], int(sys.argv[2]), get_wsgi_application()).serve_forever()
