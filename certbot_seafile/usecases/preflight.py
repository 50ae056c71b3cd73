"""What is decided before the CA is asked.

The law: what cannot end well is refused here, where it costs nothing; no site is edited, but for one whose certificate
must be stapled: what it serves is sealed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.sealed import seal, versions
from certbot_seafile.system import lineages, records, renewal, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import install

logger = logging.getLogger(__name__)

_KEPT = (
    "pre_hook", "post_hook", "rsa_key_size", "elliptic_curve", "reuse_key",
    "preferred_chain", "preferred_profile", "required_profile",
)  # fmt: skip


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
    site = install.check_plan(context, request.names, request.cert_name, must_staple=request.must_staple)
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


def refuse_former(config_dir: str) -> None:
    """Refuse to work in folders that version 0.0 gave to an ordinary user: root would do what stands there.

    Raises errors.FileRefused.
    """
    if os.path.exists(lineages.former_mark(config_dir)):
        raise errors.FileRefused(
            f"an earlier version made an ordinary user the owner of {config_dir}, which root cannot trust; run "
            "`sudo certbot-seafile setup --user USER -d NAME` once, then let that user run certbot"
        )


def refuse_name(request: Request) -> None:
    """Refuse names of lineages that must not be written into nginx's files. Raises errors.LineageRefused."""
    for name in filter(None, [request.cert_name, *request.names[:1]]):
        lineages.check_name(name.removeprefix("*."))


def is_undone(context: Context, request: Request) -> bool:
    """Tell whether `undo` took the lineage's certificate out of the site, which renewals leave alone then."""
    lineage = _same(context.config_dir, request)
    return lineage is not None and records.is_undone(context.state_dir, lineage.name)


def saved(config_dir: str, request: Request) -> dict[str, str]:
    """Return what the renewal file of the lineage says that certbot does not read again when it is asked for again."""
    lineage = _same(config_dir, request)
    known = lineage.renewal if lineage is not None else {}
    kept = {key: value for key, value in known.items() if key in _KEPT or key.startswith("seafile_")}
    kept |= dict.fromkeys(renewal.HOOKS, renewal.hook(known) or "None")  # certbot has one name in the file, one here
    if request.key_type != "rsa":
        kept.pop("rsa_key_size", None)
    return {key: value for key, value in kept.items() if value != "None"}


def _same(config_dir: str, request: Request) -> Lineage | None:
    """Return the lineage that is asked for again: that of the name, else that for just these names."""
    for name in [request.cert_name] if request.cert_name else lineages.all_names(config_dir):
        with contextlib.suppress(errors.LineageRefused):
            lineage = lineages.load(config_dir, name)
            if request.cert_name or set(lineage.names) == set(request.names):
                return lineage
    return None


def find_foreign(config_dir: str, names: Sequence[str]) -> tuple[str, str] | None:
    """Return a lineage for just these names that another plugin made and would go on to renew, and that plugin."""
    for name in lineages.all_names(config_dir):
        with contextlib.suppress(errors.LineageRefused):
            lineage = lineages.load(config_dir, name)
            authenticator = lineage.renewal.get("authenticator", lineages.PLUGIN_NAME)
            if set(lineage.names) == set(names) and authenticator != lineages.PLUGIN_NAME:
                return name, authenticator
    return None


def answered(context: Context, names: Sequence[str]) -> tuple[str, ...]:
    """Return the names for which there is a site; all where there is none for any, so that the refusal names them."""
    here = []
    for name in names:
        with contextlib.suppress(errors.SiteRefused):
            serving.find_site(context, [name])
            here.append(name)
    return tuple(here or names)


def refuse_pairs(context: Context, request: Request) -> None:
    """Refuse a must-staple certificate beside one of the other key type in the same server: nginx has one staple file.

    Raises errors.RequestRefused.
    """
    known = list(_lineages(context))
    same = next((lineage.name for lineage in known if set(lineage.names) == set(request.names)), None)
    site = serving.find_site(context, request.names)
    named = {line.arguments[:1] for server in site.tls for line in server.level(b"ssl_certificate")}
    for other in known:
        served = versions.served(other) or other
        is_beside = (os.fsencode(served.fullchain_path),) in named and other.name != (request.cert_name or same)
        must_staple = request.must_staple or other.is_must_staple
        if is_beside and must_staple and other.key_type != request.key_type:
            raise errors.RequestRefused(
                f"the site has the certificate {other.name} with another type of key already, and nginx would serve "
                "one's staple with both, but one of the two must be stapled; delete it with "
                f"`certbot-seafile undo --cert-name {other.name}` and `certbot delete`, or leave out --must-staple"
            )


def _lineages(context: Context) -> Iterator[Lineage]:
    """Yield the plugin's lineages that can be read; certbot itself says so of others."""
    for name in lineages.names_of_plugin(context.config_dir):
        with contextlib.suppress(errors.LineageRefused):
            yield lineages.load(context.config_dir, name, options=context.options)


def seal_present(context: Context, request: Request) -> None:
    """Seal what sites serve of certificates that must be stapled, before or after: certbot switches live/ too early.

    Raises errors.Error.
    """
    for lineage in _lineages(context):
        is_meant = lineage.name == request.cert_name if request.cert_name else set(lineage.names) <= set(request.names)
        if is_meant and (request.must_staple or lineage.is_must_staple):
            seal.seal_present(context, lineage)
