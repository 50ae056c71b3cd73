"""What is found out, and decided, before the CA is asked.

The law: what cannot end well is refused here, where it costs nothing; no site is edited, but for the pin of one whose
certificate must be stapled.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from certbot_seafile import errors
from certbot_seafile.sealed import pinning
from certbot_seafile.system import lineages, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options
from certbot_seafile.usecases import deploy, refresh
from certbot_seafile.usecases.boundary import Failure, attempt

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What certbot is about to ask the CA for.

    cert_name: the lineage that the person named, None without. key_type: certbot's word, "rsa" or "ecdsa".
    is_key_type_chosen: whether the person chose it.
    """

    names: tuple[str, ...]
    cert_name: str | None
    key_type: str
    is_key_type_chosen: bool
    must_staple: bool


def refuse_wildcards(names: Sequence[str]) -> None:
    """Refuse wildcard names, which HTTP-01 cannot prove (RFC 8555 8.3). Raises errors.ChallengeImpossible."""
    wildcards = [name for name in names if name.startswith("*.")]
    if wildcards:
        raise errors.ChallengeImpossible(
            f"{', '.join(wildcards)}: a wildcard certificate needs a DNS challenge, which a web server's plugin cannot "
            "answer; get it with one of certbot's DNS plugins (certbot-dns-...), then `certbot install -i seafile`"
        )


def why_rsa(context: Context, request: Request) -> str | None:
    """Return why the request must be for an RSA key; None where the key type that certbot has is good.

    Raises errors.SiteRefused and its kinds, errors.KeyTypeRefused.
    """
    site = deploy.check_plan(context, request.names)
    reason = serving.why_no_ecdsa(context, site)
    if reason is None or request.key_type != "ecdsa":
        return None
    _refuse_key_change(context, request, reason)
    if request.is_key_type_chosen:
        raise errors.KeyTypeRefused(
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
                raise errors.KeyTypeRefused(
                    f"the certificate {name} has an ECDSA key, which the site cannot serve: {reason}; "
                    f"run again with --cert-name {name} --key-type rsa"
                )


def find_foreign(config_dir: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Return a lineage for exactly these names that another plugin made, and that plugin; None without one.

    certbot would find such a certificate not due, and would go on renewing it by the other plugin.
    """
    for name in lineages.all_names(config_dir):
        authenticator = lineages.authenticator_for(config_dir, name, names)
        if authenticator not in (None, lineages.PLUGIN_NAME):
            return name, authenticator
    return None


def refresh_before_renewal(config_dir: str, names: Sequence[str], context_for: Callable[[Options], Context]) -> None:
    """Refresh what is due now: where the CA turns out to be down, certbot calls nobody for this lineage again."""
    for name in lineages.names_of_plugin(config_dir):
        failure = attempt(name, partial(_refresh_if_for, config_dir, name, names, context_for))
        if isinstance(failure, Failure):
            logger.warning("no refreshed staple before the renewal: %s", failure)


def _refresh_if_for(
    config_dir: str, name: str, names: Sequence[str], context_for: Callable[[Options], Context]
) -> None:
    lineage = lineages.load(config_dir, name)
    if set(lineage.names) == set(names):
        context = context_for(lineage.options)
        refresh.refresh_one(context, lineage).report(context.say)


def hold(context: Context, request: Request, release_later: Callable[[Lineage], None]) -> None:
    """Let sites that must be stapled keep what they serve, whoever reloads nginx before the deploy hook has run.

    release_later: hears of each lineage, before its site is held. Raises errors.Error.
    """
    held = pinning.to_hold(
        context.config_dir, request.names, request.cert_name, context.options, must_staple=request.must_staple
    )
    for lineage in held:
        release_later(lineage)
        try:
            pinning.hold(context, lineage)
        except errors.FileRefused as refused:
            if os.geteuid() == 0:
                raise
            # Whoever may not write the site shall still be able to renew.
            logger.warning("%s: a reload before the deploy hook would come too early: %s", lineage.name, refused)


def release(context: Context, lineage: Lineage) -> None:
    """Let a site that was held name the lineage's own certificate again, where no new one came."""
    try:
        pinning.release(context, lineage)
    except errors.Error as error:
        logger.warning("%s: the next `certbot renew` will put the site right: %s", lineage.name, error)
