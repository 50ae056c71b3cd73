"""What the package does, step by step: wire the challenge, deploy, refresh, withdraw, undo.

The law: the order of writes is decided here and nowhere else. At every instant nginx can start from what is on disk:
a response is stored before the snippet that names it, the snippet is taken away before the response, and every edit
is tested before the next step and put back when a later one fails.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from certbot_seafile import edits, errors, files, journal, lineage, nginx, probe, servers, site, staple
from certbot_seafile.lineage import Lineage, Options

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.05
MUST_STAPLE_TRIES_SECONDS = (0, 5, 20)


class Checkpoints(Protocol):
    """certbot's reverter, as far as it is used."""

    def add(self, paths: set[str], notes: str) -> None:
        """Keep the files' present bytes for a rollback."""

    def finish(self, title: str) -> None:
        """Close the checkpoint: `certbot rollback` goes back behind it from now on."""

    def drop(self) -> None:
        """Forget the open checkpoint."""


@dataclass
class Host:
    """What a use case works with on this machine."""

    nginx: nginx.Nginx
    options: Options
    config_dir: str
    checkpoints: Checkpoints
    say: Callable[[str], None]
    now: Callable[[], datetime.datetime]
    hook_command: str = ""
    must_staple_tries: Sequence[float] = MUST_STAPLE_TRIES_SECONDS
    journal: journal.Journal = field(init=False)

    def __post_init__(self) -> None:
        self.journal = journal.Journal(os.path.join(self.config_dir, lineage.PLUGIN_NAME))

    @property
    def lock_path(self) -> str:
        """Return the file that keeps two runs from interleaving."""
        return os.path.join(self.config_dir, lineage.PLUGIN_NAME, ".lock")


# --- edits, safely ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def edited(host: Host, planned: edits.Edits, title: str, *, is_lasting: bool = True) -> Iterator[None]:
    """Write the planned edits and test them; keep them when the block ends well, else put everything back.

    is_lasting: False for edits that are taken out again when the block ends well, too (a dry run's).
    Raises errors.NginxRefused, errors.FileRefused.
    """
    records = {path: host.journal.entry(path) for path in planned.paths}
    written: list[str] = []
    keep = False
    try:
        for path in planned.paths:
            _write_edit(host, planned, path, title)
            written.append(path)
        host.nginx.test()
        yield
        keep = is_lasting
    finally:
        if keep:
            host.checkpoints.finish(title)
        else:
            _put_back(host, planned, written, records)
            host.checkpoints.drop()


def _write_edit(host: Host, planned: edits.Edits, path: str, title: str) -> None:
    before, after = planned.before(path), planned.after(path)
    host.checkpoints.add({path}, f"{title}: {path}\n")
    host.journal.record(path, before, after)
    files.replace(path, after, expected=before)
    logger.debug("%s: %s\n%s", title, path, diff(path, before, after))


def _put_back(
    host: Host, planned: edits.Edits, written: Sequence[str], records: dict[str, journal.Entry | None]
) -> None:
    for path in reversed(written):
        try:
            files.replace(path, planned.before(path), expected=planned.after(path))
        except errors.FileRefused as refused:
            logger.error("%s could not be put back: %s", path, refused)
    for path, entry in records.items():
        host.journal.restore(path, entry)
    if written:
        with contextlib.suppress(errors.NginxRefused):
            host.nginx.test()
            host.nginx.reload()


def diff(path: str, before: bytes, after: bytes) -> str:
    """Return the unified diff of an edit, as text."""
    old, new = (content.decode("utf-8", "replace").splitlines(keepends=True) for content in (before, after))
    return "".join(difflib.unified_diff(old, new, path, path))


def count_lines(planned: edits.Edits) -> str:
    """Return a phrase that says which files change by how many lines."""
    phrases = []
    for path in planned.paths:
        lines = diff(path, planned.before(path), planned.after(path)).splitlines()[2:]
        added, gone = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        phrases.append(f"{path} ({added - gone} lines added, {gone} commented out)")
    return ", ".join(phrases)


# --- the site --------------------------------------------------------------------------------------------------------


def find_site(host: Host, domains: Sequence[str]) -> site.Site:
    """Return the site that answers for the domains, from what nginx reads now.

    Raises errors.SiteNotFound, errors.SiteAmbiguous, errors.SiteRefused, errors.SyntaxRefused.
    """
    site_path = os.path.realpath(host.options.site) if host.options.site else None
    found = _find_in(host, host.nginx.statements(site.matters(domains, site_path)), domains, site_path)
    if found is None or found.nameless or found.spans_files:
        # Who answers by default, and who shares an included file, only the whole configuration tells.
        whole = servers.http_servers(host.nginx.statements())
        return site.find(whole, domains, site_path=site_path, http_port=host.options.http_port)
    return found


def _find_in(
    host: Host, statements: Sequence[servers.Statement], domains: Sequence[str], site_path: str | None
) -> site.Site | None:
    every = servers.http_servers(statements)
    if not all(any(servers.match_rank(server, name) for server in every) for name in domains):
        return None
    return site.find(every, domains, site_path=site_path, http_port=host.options.http_port)


def plan_challenge(host: Host, found: site.Site, *, only_unwired: bool) -> edits.Edits:
    """Plan what lets the site answer challenges."""
    planned = edits.Edits()
    for server, domain in found.nameless:
        if server in found.plain:
            site.add_name(planned, server, domain)
    for server in found.plain:
        if not (only_unwired and site.is_wired(server)):
            site.wire_challenge(planned, server, host.options.webroot)
    if not found.plain:
        site.add_plain_server(planned, found, found.tls[0], host.options.webroot, host.options.http_port)
    return planned


def plan_deploy(host: Host, found: site.Site, wanted: site.Certificate) -> edits.Edits:
    """Plan what lets the site answer challenges and use the certificate."""
    planned = plan_challenge(host, found, only_unwired=True)
    for server, domain in found.nameless:
        if server in found.tls and server not in found.plain:
            site.add_name(planned, server, domain)
    for server in found.tls:
        site.install(planned, found, server, wanted)
    if not found.tls:
        for server in found.plain:
            site.add_tls(planned, found, server, wanted, host.options.https_port)
    return planned


# --- the challenge ---------------------------------------------------------------------------------------------------


def challenge_folders(host: Host, found: site.Site) -> dict[str, list[servers.Server]]:
    """Return the folders whose files answer challenges, each with the servers that serve it."""
    own = host.options.webroot.rstrip("/") + site.CHALLENGE_PATH.rstrip("/")
    folders: dict[str, list[servers.Server]] = {}
    for server in found.plain:
        folders.setdefault(site.challenge_folder(server) or own, []).append(server)
    return folders or {own: []}


def fetch_challenges(host: Host, found: site.Site, expected: dict[tuple[str, str], bytes]) -> None:
    """Fetch each validation file as the CA will: expected maps (domain, token) to bytes.

    Raises errors.ChallengeUnreachable, which says what came instead.
    """
    port = host.options.http_port
    for endpoint in endpoints(found.plain, port) or [probe.Endpoint("127.0.0.1", port)]:
        for (domain, token), content in expected.items():
            answer = probe.fetch(endpoint, domain, site.CHALLENGE_PATH + token)
            if answer.status != 200 or answer.body.strip() != content.strip():
                came = f"{answer}" if answer.status != 200 else "HTTP status 200 with other content"
                raise errors.ChallengeUnreachable(
                    f"the challenge for {domain} does not come back from nginx at {endpoint}: {came} came instead; "
                    "the CA was not asked"
                )


def endpoints(chosen: Sequence[servers.Server], port: int | None = None, *, tls: bool = False) -> list[probe.Endpoint]:
    """Return where the servers can be looked at from this machine: their own listen addresses."""
    found: dict[probe.Endpoint, None] = {}
    for server in chosen:
        for listen in server.listens:
            if listen.socket.address.startswith("unix:") or server.is_tls(listen) != tls:
                continue
            if port is not None and listen.socket.port != port:
                continue
            address = {"*": "127.0.0.1", "::": "::1"}.get(listen.socket.address, listen.socket.address)
            found[probe.Endpoint(address, listen.socket.port, listen.has_proxy_protocol)] = None
    return list(found)


def wait_for_challenges(host: Host, domains: Sequence[str], expected: dict[tuple[str, str], bytes]) -> None:
    """Wait until a reloaded nginx hands the validation files out. Raises errors.ChallengeUnreachable."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            fetch_challenges(host, find_site(host, domains), expected)
            return
        except errors.ChallengeUnreachable:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


# --- the staple ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What became of a lineage's staple: the staple to serve (None: none), why not, and whether files changed."""

    staple: staple.Staple | None
    reason: str | None = None
    is_revoked: bool = False


def stored_staple(found: Lineage, now: datetime.datetime) -> staple.Staple | None:
    """Return the stored staple where it is authentic, unexpired and for this very leaf; None otherwise."""
    try:
        response = files.read_if_present(found.response_path)
        return None if response is None else staple.recheck(response, found.leaf, found.chain, now)
    except (errors.ResponseRefused, errors.FileRefused):
        return None


def last_success(found: Lineage) -> datetime.datetime | None:
    """Return when the responder last gave a good answer: the time on the stored response."""
    try:
        return datetime.datetime.fromtimestamp(os.stat(found.response_path).st_mtime, datetime.UTC)
    except OSError:
        return None


def why_unstapled(found: Lineage) -> str | None:
    """Return why the lineage is not to be stapled at all; None where it is."""
    if found.options.stapling == "off":
        return "stapling is off (--seafile-stapling off)"
    if found.responder_url is None:
        return "its certificate names no OCSP responder, so there is nothing to staple"
    return None


def fetch_staple(found: Lineage, previous: staple.Staple | None, now: datetime.datetime) -> staple.Staple:
    """Ask the responder once and judge its answer. Raises errors.ResponderFailed, errors.ResponseRefused."""
    from certbot_seafile import responder  # requests takes longer to import than all the rest

    url = found.responder_url
    if url is None:
        raise errors.ResponseRefused(["the certificate names no OCSP responder"])
    request = staple.build_request(found.leaf, staple.find_issuer(found.leaf, found.chain))
    response = responder.fetch(url, request)
    return staple.judge(response, found.leaf, found.chain, now, must_staple=found.is_must_staple, previous=previous)


def obtain(host: Host, found: Lineage, *, force: bool = False, tries: Sequence[float] = (0,)) -> Outcome:
    """Return the staple that the lineage is to serve now: the stored one, or a new one where that is due."""
    if reason := why_unstapled(found):
        return Outcome(None, reason)
    now = host.now()
    stored = stored_staple(found, now)
    if not force and not staple.is_due(stored, now, last_success(found)):
        return Outcome(stored)
    failure = ""
    for pause in tries:
        time.sleep(pause)
        try:
            return Outcome(fetch_staple(found, stored, host.now()))
        except errors.CertificateRevoked as revoked:
            return Outcome(None, str(revoked), is_revoked=True)
        except (errors.ResponderFailed, errors.ResponseRefused) as refused:
            failure = str(refused)
    return _fall_back(found, stored, now, failure)


def _fall_back(found: Lineage, stored: staple.Staple | None, now: datetime.datetime, failure: str) -> Outcome:
    if stored is None or (staple.must_withdraw(stored, now) and not found.is_must_staple):
        return Outcome(None, failure)
    return Outcome(stored, failure)


def snippet_bytes(found: Lineage) -> bytes:
    """Return the snippet: the two directives that make nginx serve the stored response."""
    from certbot_seafile import syntax

    path = syntax.quote(os.fsencode(found.response_path))
    return (
        b"# The OCSP staple of the lineage " + found.name.encode() + b", kept by certbot-seafile: "
        b"this file comes and goes with it.\nssl_stapling on;\nssl_stapling_file " + path + b";\n"
    )


def store(host: Host, found: Lineage, outcome: Outcome) -> bool:
    """Bring response and snippet on disk in line with a staple that is there; return whether nginx must reload.

    Response first, then the snippet: nginx does not start when a named response is missing.
    """
    if outcome.staple is None:
        raise ValueError("nothing to store")
    files.make_folder(os.path.dirname(found.response_path))
    changed = False
    if files.read_if_present(found.response_path) != outcome.staple.response:
        files.replace(found.response_path, outcome.staple.response)
        changed = True
    elif outcome.reason is None and not changed:
        _note_success(host, found, outcome)
    wanted = snippet_bytes(found)
    if files.read_if_present(found.snippet_path) != wanted:
        files.replace(found.snippet_path, wanted)
        changed = True
    return changed


def _note_success(host: Host, found: Lineage, outcome: Outcome) -> None:
    """Put the time of the last good answer on the stored response, where it is an answer of just now."""
    if outcome.staple is not None and staple.is_due(outcome.staple, host.now(), last_success(found)):
        os.utime(found.response_path)


def withdraw_snippet(host: Host, found: Lineage) -> bool:
    """Take the snippet away and test; return whether nginx must reload. The response stays until it has."""
    if not files.remove(found.snippet_path):
        return False
    host.nginx.test()
    return True


def withdraw_response(host: Host, found: Lineage) -> None:
    """Remove the stored response, once nginx has reloaded; it stays where the configuration still names it."""
    named = os.fsencode(found.response_path)
    statements = host.nginx.statements(lambda source: named in source)
    everything = (inner for outer in statements for inner in (outer, *outer.walk()))
    if any(said.name == b"ssl_stapling_file" and said.arguments == (named,) for said in everything):
        return
    files.remove(found.response_path)
    files.remove_folder_if_empty(os.path.dirname(found.response_path))


def mend(found: Lineage) -> None:
    """Take away a snippet whose response is missing: nginx could not start from it (someone removed the response)."""
    if os.path.lexists(found.snippet_path) and not os.path.exists(found.response_path):
        files.remove(found.snippet_path)
        logger.warning("%s named a missing response and was removed", found.snippet_path)


# --- the use cases ---------------------------------------------------------------------------------------------------


def deploy(host: Host, found: Lineage) -> None:
    """Let the site use the lineage's certificate, with its staple: the whole of the deploy hook.

    Raises errors.Error; then the site is as it was, and nginx serves what it served.
    """
    with files.lock(host.lock_path):
        mend(found)
        host.nginx.test()
        where = find_site(host, found.names)
        reason = why_paired(host, found, where)
        outcome = Outcome(None, reason) if reason else obtain(host, found, tries=_tries(host, found))
        if outcome.staple is None and found.is_must_staple and not outcome.is_revoked and not reason:
            raise errors.ResponseRefused(
                [f"{found.name} must be stapled but cannot be, so the old certificate stays: {outcome.reason}"]
            )
        _deploy(host, found, where, outcome)
    if host.hook_command and lineage.complete_renewal(found, host.hook_command):
        logger.info("installer and deploy hook were added to %s", found.renewal_path)
    if outcome.is_revoked:
        raise errors.ResponseRefused([f"{outcome.reason}; get a new certificate with `certbot renew --force-renewal`"])


def _tries(host: Host, found: Lineage) -> Sequence[float]:
    return host.must_staple_tries if found.is_must_staple else (0,)


def _deploy(host: Host, found: Lineage, where: site.Site, outcome: Outcome) -> None:
    had_snippet = os.path.lexists(found.snippet_path)
    needs_reload = store(host, found, outcome) if outcome.staple else withdraw_snippet(host, found)
    has_stapling = why_unstapled(found) is None and why_paired(host, found, where) is None
    wanted = site.Certificate(
        found.fullchain_path, found.key_path, found.snippet_path, has_stapling, kept_pairs(host, found)
    )
    planned = plan_deploy(host, where, wanted)
    if planned:
        with edited(host, planned, f"certbot-seafile deploy {found.name}"):
            host.nginx.reload()
            look(host, found)
        host.say(f"Site edited: {count_lines(planned)}")
    elif needs_reload or not is_served(host, found, where):
        host.nginx.test()
        host.nginx.reload()
        look(host, found)
    if outcome.staple is None and had_snippet:
        withdraw_response(host, found)
    host.say(f"Served: the certificate of {found.name}, {staple_phrase(outcome)}")


def staple_phrase(outcome: Outcome) -> str:
    """Return what is to be said about a lineage's staple, in one phrase."""
    if outcome.staple is None:
        return f"without a staple: {outcome.reason}"
    until = f"with an OCSP staple that holds until {outcome.staple.end:%Y-%m-%d %H:%M} UTC"
    return until if outcome.reason is None else f"{until} (no newer one: {outcome.reason})"


def kept_pairs(host: Host, found: Lineage) -> frozenset[str]:
    """Return the paths of other lineages of the other key type for the same names: their pair may stand beside ours."""
    kept: set[str] = set()
    for name in lineage.names_of_plugin(host.config_dir):
        if name == found.name:
            continue
        with contextlib.suppress(errors.LineageRefused):
            other = lineage.load(host.config_dir, name)
            if other.key_type != found.key_type and set(other.names) & set(found.names):
                kept |= {other.fullchain_path, other.key_path}
    return frozenset(kept)


def why_paired(host: Host, found: Lineage, where: site.Site) -> str | None:
    """Return why no staple can be served where a server has two certificates; None where none has."""
    kept = kept_pairs(host, found)
    for server in where.tls:
        for said in server.level(b"ssl_certificate"):
            if os.fsdecode(said.arguments[0]) in kept:
                return "its server has an RSA and an ECDSA certificate, and nginx would serve one's staple with both"
    return None


def look(host: Host, found: Lineage) -> None:
    """Wait until a TLS client is handed the lineage's leaf by every listen address. Raises errors.NotServed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            _look_once(host, found, find_site(host, found.names))
            return
        except errors.NotServed:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_SECONDS)


def _look_once(host: Host, found: Lineage, where: site.Site) -> None:
    looked = False
    paired = why_paired(host, found, where) is not None
    ciphers = {"rsa": b"aRSA", "ecdsa": b"aECDSA"}.get(found.key_type) if paired else None
    for name in found.names:
        for endpoint in endpoints(where.tls, tls=True):
            seen = probe.handshake(endpoint, name, ciphers=ciphers, tls12=ciphers is not None)
            looked = True
            if seen.leaf_der != found.leaf_der:
                raise errors.NotServed(
                    f"after the reload a TLS client that asks {endpoint} for {name} is handed another certificate than "
                    f"{found.name}'s: another server block answers there"
                )
    if not looked:
        raise errors.NotServed(f"no server block of the site speaks TLS for {', '.join(found.names)}")


def is_served(host: Host, found: Lineage, where: site.Site) -> bool:
    """Tell whether TLS clients are handed the lineage's leaf now."""
    try:
        _look_once(host, found, where)
    except errors.NotServed:
        return False
    return True


@dataclass(frozen=True)
class Refreshed:
    """What a refresh did for one lineage: failure (None: none) and whether nginx has to reload for it."""

    lineage: Lineage
    outcome: Outcome
    needs_reload: bool
    failure: str | None


def refresh(host: Host, found: Sequence[Lineage], *, force: bool = False) -> list[Refreshed]:
    """Refresh the staples that are due, store them, and reload nginx once where one changed."""
    results = [_refresh(host, one, force) for one in found]
    if any(result.needs_reload for result in results):
        host.nginx.test()
        host.nginx.reload()
    for result in results:
        if result.outcome.staple is None and result.needs_reload:
            withdraw_response(host, result.lineage)
    return results


def _refresh(host: Host, found: Lineage, force: bool) -> Refreshed:
    outcome = obtain(host, found, force=force)
    with files.lock(host.lock_path):
        mend(found)
        changed = store(host, found, outcome) if outcome.staple else withdraw_snippet(host, found)
    failed = outcome.reason if why_unstapled(found) is None else None
    return Refreshed(found, outcome, changed, failed)


def report(host: Host, results: Sequence[Refreshed]) -> bool:
    """Say what a refresh did, lineage by lineage; return whether each one has what it is to have."""
    for result in results:
        name, outcome = result.lineage.name, result.outcome
        if result.needs_reload and outcome.staple is not None:
            host.say(f"{name}: stored {staple_phrase(outcome).removeprefix('with ')}")
        elif result.needs_reload:
            host.say(f"{name}: stapling withdrawn: {outcome.reason}")
        if result.failure is not None:
            logger.warning("%s: %s", name, result.failure)
    return all(result.failure is None for result in results)


def keep(host: Host, found: Lineage) -> None:
    """Do what every `certbot renew` is to do for a lineage: refresh its staple, and serve it where it is not served.

    Raises errors.Error where a client would be hurt: revoked, must-staple without a staple, or not served.
    """
    if not is_served(host, found, find_site(host, found.names)):
        deploy(host, found)
        return
    (result,) = results = refresh(host, [found])
    report(host, results)
    if result.outcome.is_revoked or (found.is_must_staple and result.failure):
        raise errors.ResponseRefused([f"{found.name}: {result.failure}"])


def why_no_ecdsa(host: Host, found: site.Site) -> str | None:
    """Return why a TLS client could not be served an ECDSA certificate by the site; None where one could."""
    for server in found.tls:
        ciphers = server.effective(b"ssl_ciphers")
        protocols = server.effective(b"ssl_protocols")
        spoken = {os.fsdecode(word) for word in protocols.arguments} if protocols else host.nginx.default_protocols
        if "TLSv1.3" in spoken or ciphers is None:
            continue
        if not nginx.ciphers_allow_ecdsa(os.fsdecode(ciphers.arguments[0])):
            return f"{ciphers.path}:{ciphers.line} has ssl_ciphers without ECDSA, and there is no TLSv1.3"
    return None


def enhance(host: Host, domain: str, enhancement: str, options: object = None) -> None:
    """Add certbot's enhancement to the domain's site: redirect, ensure-http-header (HSTS) or staple-ocsp.

    Raises errors.EnhancementPresent where it stands there already.
    """
    with files.lock(host.lock_path):
        host.nginx.test()
        where = find_site(host, [domain])
        planned = edits.Edits()
        if enhancement == "redirect":
            _plan_redirect(host, planned, where)
        elif enhancement == "ensure-http-header":
            _plan_header(planned, where, options)
        if planned:
            with edited(host, planned, f"certbot-seafile {enhancement} {domain}"):
                host.nginx.reload()
            host.say(f"Site edited: {count_lines(planned)}")
    if enhancement == "staple-ocsp":
        _enhance_staple(host, domain)


def _plan_redirect(host: Host, planned: edits.Edits, where: site.Site) -> None:
    missing = [server for server in where.plain if not site.redirects_all(server)]
    if not missing:
        raise errors.EnhancementPresent("the site redirects to https already")
    for server in missing:
        is_shared = any(server.is_tls(listen) for listen in server.listens)
        site.redirect(planned, server, host.options.https_port, is_shared=is_shared)


def _plan_header(planned: edits.Edits, where: site.Site, options: object) -> None:
    if options != "Strict-Transport-Security":
        raise errors.EnhancementUnknown(f"the header {options} cannot be ensured; only Strict-Transport-Security can")
    missing = [server for server in where.tls if not site.has_hsts(server)]
    if not missing:
        raise errors.EnhancementPresent("the site sends Strict-Transport-Security already")
    for server in missing:
        site.add_hsts(planned, server)


def _enhance_staple(host: Host, domain: str) -> None:
    for name in lineage.all_names(host.config_dir):
        found = lineage.load(host.config_dir, name, options=host.options)
        if domain in found.names:
            deploy(host, found)
            return
    raise errors.LineageRefused(
        f"no certificate is for {domain}; get one with `certbot certonly -a seafile -d {domain}`"
    )


def undo(host: Host, found: Sequence[Lineage]) -> bool:
    """Take our edits out of every file, then the staples; return whether all could be taken out.

    Raises errors.NginxRefused where nginx would refuse the result; then nothing was changed.
    """
    with files.lock(host.lock_path):
        clean = _undo_edits(host)
        for one in found:
            if withdraw_snippet(host, one):
                withdraw_response(host, one)
    return clean


def _undo_edits(host: Host) -> bool:
    clean, written = True, []
    done = False
    try:
        for entry in host.journal.entries():
            now = files.read_if_present(entry.path)
            if now is None:
                continue
            without, complete = entry.without_edits(now)
            clean = clean and complete
            files.replace(entry.path, without, expected=now)
            written.append((entry.path, now, without))
        host.nginx.test()
        if written:
            host.nginx.reload()
        done = True
    finally:
        if not done:
            for path, now, without in reversed(written):
                files.replace(path, now, expected=without)
    for entry in host.journal.entries():
        host.journal.forget(entry.path)
    return clean
