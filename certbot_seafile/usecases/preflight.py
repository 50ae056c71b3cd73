"""What is decided before the CA is asked.

The law: what cannot end well is refused here, where it costs nothing; no site is edited, but for the pin of one whose
certificate must be stapled.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.ocsp import verify
from certbot_seafile.sealed import pinning
from certbot_seafile.system import files, lineages, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy, refresh
from certbot_seafile.usecases.boundary import attempt_each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What certbot is about to ask the CA for. cert_name: the lineage that the person named. key_type: rsa or ecdsa."""

    names: tuple[str, ...]
    cert_name: str | None
    key_type: str
    is_key_type_chosen: bool
    must_staple: bool


def refuse_wildcards(names: Sequence[str]) -> None:
    """Refuse wildcard names, which HTTP-01 cannot prove (RFC 8555 8.3). Raises errors.RequestRefused."""
    if wildcards := [name for name in names if name.startswith("*.")]:
        raise errors.RequestRefused(
            f"{', '.join(wildcards)}: a wildcard certificate needs a DNS challenge, which a web server's plugin cannot "
            "answer; get it with one of certbot's DNS plugins (certbot-dns-...), then `certbot install -i seafile`"
        )


def why_rsa(context: Context, request: Request) -> str | None:
    """Return why the key must be RSA; None where certbot's type is good. Raises errors.SiteRefused, RequestRefused."""
    site = deploy.check_plan(context, request.names)
    reason = serving.why_no_ecdsa(context, site)
    if reason is None or request.key_type != "ecdsa":
        return None
    _refuse_key_change(context, request, reason)
    if request.is_key_type_chosen:
        raise errors.RequestRefused(
            f"the site cannot serve an ECDSA certificate: {reason}; leave out --key-type ecdsa, or change that line"
        )
    return reason


def _refuse_key_change(context: Context, request: Request, reason: str) -> None:
    """Refuse where a lineage for the names has an ECDSA key: certbot changes a key's type only when told twice."""
    for name in lineages.all_names(context.config_dir):
        with contextlib.suppress(errors.LineageRefused):
            lineage = lineages.load(context.config_dir, name)
            is_same = name == request.cert_name if request.cert_name else set(lineage.names) == set(request.names)
            if is_same and lineage.key_type == "ecdsa":
                raise errors.RequestRefused(
                    f"the certificate {name} has an ECDSA key, which the site cannot serve: {reason}; "
                    f"run again with --cert-name {name} --key-type rsa"
                )


def find_foreign(config_dir: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Return a lineage for just these names that another plugin made and would go on to renew, and that plugin."""
    for name in lineages.all_names(config_dir):
        with contextlib.suppress(errors.LineageRefused):
            lineage = lineages.load(config_dir, name)
            authenticator = lineage.renewal.get("authenticator", lineages.PLUGIN_NAME)
            if set(lineage.names) == set(names) and authenticator != lineages.PLUGIN_NAME:
                return name, authenticator
    return None


def refresh_before_renewal(config_dir: str, names: Sequence[str], context_for: Callable[[Options], Context]) -> None:
    """Refresh what is due now: where the CA turns out to be down, certbot calls nobody for this lineage again."""

    def refresh_if_for_names(name: str) -> None:
        lineage = lineages.load(config_dir, name)
        if set(lineage.names) == set(names):
            context = context_for(lineage.options)
            refresh.refresh_one(context, lineage).report(context.say)

    for failure in attempt_each(lineages.names_of_plugin(config_dir), refresh_if_for_names)[1]:
        logger.warning("no refreshed staple before the renewal: %s", failure)


def hold(context: Context, request: Request, release_later: Callable[[Lineage], object]) -> None:
    """Let sites that must be stapled keep what they serve, whoever reloads nginx before the deploy hook has run.

    release_later: hears of each lineage, before its site is held. Raises errors.Error.
    """
    for lineage in _to_hold(context, request):
        release_later(lineage)
        try:
            pinning.hold(context, lineage)
        except errors.FileRefused as refused:
            if os.geteuid() == 0:
                raise
            # Whoever may not write the site shall still be able to renew.
            logger.warning("%s: a reload before the deploy hook would come too early: %s", lineage.name, refused)


def _to_hold(context: Context, request: Request) -> Iterator[Lineage]:
    """Yield the lineages for the names that certbot may be about to renew and that must be stapled before or after."""
    for name in [request.cert_name] if request.cert_name else lineages.all_names(context.config_dir):
        with contextlib.suppress(errors.LineageRefused):  # certbot says so itself
            leaf = lineages.certificates(os.path.join(context.config_dir, "live", name, "cert.pem"))[0]
            is_meant = bool(request.cert_name) or set(lineages.certificate_names(leaf)) <= set(request.names)
            if is_meant and (request.must_staple or verify.is_must_staple(leaf)):
                yield lineages.load(context.config_dir, name, options=context.options)


def release(context: Context, lineage: Lineage) -> None:
    """Let a site that was held name the lineage's own certificate again, where no new one came."""
    context.nginx.changed()  # by the deploy hook, which is another process
    try:
        with files.lock(context.lock_path):
            pinning.release(context, lineage)
    except errors.Error as error:
        logger.warning("%s: the next `certbot renew` will put the site right: %s", lineage.name, error)
