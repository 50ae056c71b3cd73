"""What is decided before the CA is asked.

The law: what cannot end well is refused here, where it costs nothing; no site is edited, but for one whose certificate
must be stapled: what it serves is sealed.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.sealed import seal, versions
from certbot_seafile.site import edits, find, plan
from certbot_seafile.system import lineages, records, renewal, serving, writing
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage, Options, Paths
from certbot_seafile.usecases import deploy, install

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
    """Refuse wildcard names, which HTTP-01 cannot prove (RFC 8555 8.3). Raises errors.Error."""
    if wildcards := [name for name in names if name.startswith("*.")]:
        raise errors.Error(
            f"{', '.join(wildcards)}: a wildcard certificate needs a DNS challenge, which a web server's plugin cannot "
            "answer; get it with one of certbot's DNS plugins (certbot-dns-...), then `certbot install -i seafile`"
        )


def why_rsa(context: Context, request: Request) -> str | None:
    """Return why the key must be RSA; None where certbot's type is good. Raises errors.Error."""
    site = install.check_plan(context, request.names, request.cert_name, must_staple=request.must_staple)
    reason = serving.why_no_ecdsa(context, site)
    if reason is None or request.key_type != "ecdsa":
        return None
    for lineage in _same(context.config_dir, request):
        if lineage.key_type == "ecdsa":  # certbot changes a key's type only when told twice
            raise errors.Error(
                f"the certificate {lineage.name} has an ECDSA key, which the site cannot serve: {reason}; "
                f"run again with --cert-name {lineage.name} --key-type rsa"
            )
    if request.is_key_type_chosen:
        raise errors.Error(
            f"the site cannot serve an ECDSA certificate: {reason}; leave out --key-type ecdsa, or change that line"
        )
    return reason


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
    return any(records.is_undone(context.state_dir, lineage.name) for lineage in _same(context.config_dir, request)[:1])


def saved(config_dir: str, request: Request) -> dict[str, str]:
    """Return what the renewal file of the lineage says that certbot does not read again when it is asked for again."""
    known = next((lineage.renewal for lineage in _same(config_dir, request)), {})
    kept = {key: value for key, value in known.items() if key in _KEPT or key.startswith("seafile_")}
    kept |= dict.fromkeys(renewal.HOOKS, renewal.hook(known) or "None")  # certbot has one name in the file, one here
    if request.key_type != "rsa":
        kept.pop("rsa_key_size", None)
    return {key: value for key, value in kept.items() if value != "None"}


def _same(config_dir: str, request: Request, options: Options | None = None) -> list[Lineage]:
    """Return the lineage that is asked for again: that of the name, else each that is for just these names."""
    if request.cert_name is not None:
        return lineages.load_each(config_dir, [request.cert_name], options=options)
    return [each for each in lineages.sharing(config_dir, request.names) if set(each.names) == set(request.names)]


def begin_renewal(context: Context, request: Request) -> None:
    """Remember that certbot has not come to the end of the renewal that it begins; deploy.keep() says how it ended.

    Where the CA is down, or refuses, certbot calls nobody for the lineage again.
    """
    known = _same(context.config_dir, request)
    if len(known) == 1:  # certbot renew does not say which of several for the same names it is about
        deploy.remember(context, known[0], deploy.UNFINISHED)


def find_foreign(config_dir: str, request: Request) -> Lineage | None:
    """Return the lineage that is asked for again where another plugin made it, and would renew it."""
    ours = lineages.PLUGIN_NAME
    return next((each for each in _same(config_dir, request) if each.renewal.get("authenticator", ours) != ours), None)


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

    Raises errors.Error.
    """
    if not request.names:  # certbot asks for them later
        return
    named = serving.named_certificates(serving.find_site(context, request.names))
    beside = lineages.at_paths(context.config_dir, named, options=context.options)
    same = next((other.name for other in beside if set(other.names) == set(request.names)), None)
    for other in beside:
        served = versions.served(other) or other
        is_beside = served.fullchain_path in named and other.name != (request.cert_name or same)
        must_staple = request.must_staple or other.is_must_staple
        if is_beside and must_staple and other.key_type != request.key_type:
            raise errors.Error(
                f"the site has the certificate {other.name} with another type of key already, and nginx would serve "
                "one's staple with both, but one of the two must be stapled; delete it with "
                f"`certbot-seafile undo --cert-name {other.name}` and `certbot delete`, or leave out --must-staple"
            )


def refuse_unstaplable(context: Context, request: Request) -> None:
    """Refuse a must-staple certificate for a site in which nginx refuses to staple; that is tried, and taken back.

    Nothing is tried where what is served is sealed, so that nginx has taken it already. Raises errors.Error.
    """
    names = request.names
    if not (request.must_staple and names) or context.renewer is not None:
        return
    if versions.is_sealed(Paths(request.cert_name or names[0], context.config_dir, context.options)):
        return

    def add_edits(planned: edits.Edits, site: find.Site) -> None:
        for server in site.tls:
            plan.try_stapling(planned, server)

    if not (planned := serving.plan_edits(context, names, add_edits)):
        return
    try:
        with writing.edited(context, planned, "trial", names[0], is_lasting=False):
            pass
    except errors.SiteRefused as refused:
        if not isinstance(refused.__cause__, errors.ConfigurationRefused):
            raise
        raise errors.Error(
            f"nginx refuses to staple for {', '.join(names)}, so a must-staple certificate would be of no use: "
            f"{refused.__cause__.complaint}; take out what nginx names, or leave out --must-staple"
        ) from refused


def seal_present(context: Context, request: Request) -> None:
    """Seal what sites serve of certificates that must be stapled, before or after: certbot switches live/ too early.

    Raises errors.Error.
    """
    if request.cert_name:
        meant = _same(context.config_dir, request, context.options)
    else:
        others = lineages.sharing(context.config_dir, request.names, options=context.options)
        meant = [lineage for lineage in others if set(lineage.names) <= set(request.names)]
    for lineage in meant:
        if renewal.names_plugin(lineage.renewal) and (request.must_staple or lineage.is_must_staple):
            seal.seal_present(context, lineage)
