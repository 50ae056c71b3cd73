"""What is wrong, in sentences.

The law: nothing here changes anything; one validation file is written, fetched, and removed. A finding's id stands
beside its sentence, and is a heading of docs/troubleshooting.md. Advice is given only for what was looked at.
"""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from certbot_seafile import errors
from certbot_seafile.doctor import schedule, seahub
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import units, versions
from certbot_seafile.sealed.settings import Entry
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import model, plan
from certbot_seafile.site.config import Configuration
from certbot_seafile.system import challenge, files, handshake, journal, lineages, records, renewal, serving, webroot
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import deploy, status, undo
from certbot_seafile.usecases.boundary import Failure

JSON_SCHEMA = 1
#: What hurts people now or will with time; what may hurt them; what can be tidied up.
FAULT, WARNING, NOTE = "fault", "warning", "note"
#: Two runs of `certbot renew` are at most a day apart; a success that is older than this was missed.
MISSED_AFTER = timedelta(hours=25)
_UNSTAPLED = "clients ask the CA, or refuse the certificate where it demands a staple"
_STOPS_NGINX = re.compile(
    r"\bstop\b[^\n;&|]*\bnginx\b|\bnginx\b[^\n;&|]*\b(?:stop|quit)\b|\b(?:pkill|killall)\b[^\n;&|]*\bnginx\b"
)
_Jobs = Sequence[schedule.Job]
_CERTIFICATE_LINES = (b"ssl_certificate", b"ssl_certificate_key", b"ssl_trusted_certificate", b"ssl_stapling_file")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, told as `FACT, so EFFECT; FIX`.

    effect: what it does to people. fix: what to do, the command that ends it in backticks; "" where the fact says it.
    name: the certificate's. place: the file, with ":LINE" where there is one line. None: there is none.
    """

    id: str
    fact: str
    effect: str
    fix: str = ""
    severity: str = FAULT
    name: str | None = None
    place: str | None = None

    @property
    def is_fault(self) -> bool:
        """Tell whether it hurts people now, or will with time."""
        return self.severity == FAULT

    @property
    def command(self) -> str | None:
        """Return the first command of `fix`; None where no command ends it."""
        commands = re.findall("`(.+?)`", self.fix)
        return commands[0] if commands else None

    @property
    def text(self) -> str:
        """Return the whole sentence, with the certificate's name before it."""
        whose = f"{self.name}: " if self.name and not self.fact.startswith(self.name) else ""
        rest = f", so {self.effect}; {self.fix}" if self.fix else f"; until then {self.effect}"
        return f"{whose}{self.fact}{rest}."


def as_json(found: Iterable[Finding]) -> dict[str, Any]:
    """Return findings as docs/check.schema.json has them, which says what stays so within one "schema" number."""
    return {"schema": JSON_SCHEMA, "findings": [_fields(finding) for finding in found]}


def _fields(finding: Finding) -> dict[str, Any]:
    fields = {key: getattr(finding, key) for key in ("id", "severity", "name", "text", "effect", "command")}
    path, colon, line = (finding.place or "").rpartition(":")
    if not colon or not line.isdigit():
        return fields | {"file": finding.place, "line": None}
    return fields | {"file": path, "line": int(line)}


def of_failure(failure: Failure) -> Finding:
    """Return that the look at a certificate was stopped: it cannot be read, or there is a defect of this program."""
    effect = "this certificate is not checked, and nothing is done for it"
    return Finding("CERT-NOT-CHECKED", failure.reason, effect, name=failure.name)


def lineage_findings(context: Context, lineage: Lineage) -> list[Finding]:
    """Return what is wrong with a lineage, its site and its staple; [] where nothing is."""
    standing = status.standing(context, lineage)
    found = [*_clock(standing)]
    if not isinstance(lineage, Version):
        fix = f"run `certbot renew --cert-name {lineage.name}` and read what it says"
        found += _expiry(lineage, standing.renewal_due, standing.now, fix)
    if standing.record.is_undone:
        found += _obstacles(lineage)  # a person wants nothing more of it than renewals
    elif standing.site is None:
        found.append(Finding("SITE-NOT-FOUND", standing.failure or "", "nothing keeps the certificate served"))
        found += _renewal(lineage)
    else:
        found += _site_findings(context, standing, standing.site)
    found += _strangers(context, standing)
    return [replace(finding, name=lineage.name) for finding in found]


def _site_findings(context: Context, standing: status.Standing, site: plan.Site) -> Iterator[Finding]:
    lineage = standing.lineage
    if (shared := _shared(context, standing, site)) is not None:
        yield shared
    else:
        yield from (*_served(standing), *_staple(context, standing, site))
    yield from (*_renewal(lineage), *_challenge(context, lineage, site), *_seafile(site))


def _clock(standing: status.Standing) -> Iterator[Finding]:
    """Yield that the machine's clock is behind: something that was made already lies in its future."""
    lineage, now = standing.lineage, standing.now
    moments = {f"the certificate holds only from {_time(lineage.not_before)} on": lineage.not_before}
    for path in (os.path.join(lineage.folder, "cert.pem"), lineage.response_path):
        if os.path.exists(path):
            written = datetime.fromtimestamp(os.stat(path).st_mtime, UTC)
            moments[f"{path} was written at {_time(written)}"] = written
    ahead = [fact for fact, moment in moments.items() if moment - now > verify.MAX_SKEW]
    if ahead:
        fact = f"the clock of this machine is wrong: it says {_time(now)}, but {ahead[0]}"
        fix = "set it, for example with `timedatectl set-ntp true`"
        yield Finding("CLOCK-WRONG", fact, "certificates and staples are judged wrongly", fix)


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _expiry(lineage: Lineage, due: datetime, now: datetime, fix: str) -> Iterator[Finding]:
    end = _time(lineage.not_after)
    if lineage.not_after <= now:
        yield Finding("CERT-EXPIRED", f"the certificate expired on {end}", "clients refuse it", fix)
    elif now - due > status.LATE_AFTER:
        fact = f"the certificate expires on {end} and was not renewed"
        yield Finding("CERT-NOT-RENEWED", fact, "clients will refuse it from then on", fix)


def _shared(context: Context, standing: status.Standing, site: plan.Site) -> Finding | None:
    """Return that nginx reads nothing of the lineage, because the site has another one for the same names."""
    lineage, used = standing.lineage, _servers_by_folder(context.nginx.configuration())
    if standing.is_current or used.keys() & {lineage.folder, (standing.served or lineage).folder}:
        return None
    if (owner := deploy.owner_of_site(context, lineage, site)) is None:
        return None
    fact = f"the site has the certificate {owner}, which is for the names of {lineage.name} too"
    fix = f"`certbot delete --cert-name {lineage.name}` removes it, or {_deploy(lineage)} to serve it instead"
    return Finding("CERT-SHARED", fact, f"{lineage.name} is renewed but not served", fix, WARNING)


def _served(standing: status.Standing) -> Iterator[Finding]:
    run, earlier = _deploy(standing.lineage), standing.earlier
    if standing.failure:
        fact = f"clients get no certificate: {standing.failure}"
        yield Finding("SITE-NO-TLS", fact, "they cannot come in over https", f"fix that, then {run}")
    elif earlier is not None:
        fact = "the site keeps the certificate before, because the new one must be stapled and has no staple yet"
        effect = f"clients notice nothing until {_time(earlier.not_after)}, and each `certbot renew` tries again"
        yield Finding("STAPLE-AWAITED", fact, effect, f"{run} to see why it has none")
    elif not standing.is_current:
        fact = "clients are handed another certificate"
        yield Finding("CERT-NOT-SERVED", fact, "the certificate on disk is not the one served", run)


def _staple(context: Context, standing: status.Standing, site: plan.Site) -> Iterator[Finding]:
    lineage = standing.lineage
    if store.why_unstapled(lineage) is not None or serving.why_paired(lineage, site) is not None:
        return
    if standing.record.revocation is not None:
        yield _revoked(lineage, standing.record.revocation)
        return
    if standing.earlier is not None:
        return  # what is stored is for the certificate before; what is missing is told already
    if (life := _short_life(context, standing)) is not None:
        yield _short_staples(lineage, life)
    if standing.staple is not None:
        yield from () if life or _is_handed(lineage) else _age(standing)
        yield from _staple_not_served(context, standing, site)
    elif not _is_handed(lineage) and (lineage.is_must_staple or not life):
        fact = _reason_without_staple(context, standing.served or lineage)
        run = f"run `certbot-seafile refresh --cert-name {lineage.name}`"
        yield Finding("STAPLE-MISSING", fact, _UNSTAPLED, run)


def _revoked(lineage: Lineage, revocation: str) -> Finding:
    where = " where it is renewed" if _is_handed(lineage) else ""
    fix = f"get a new certificate with `certbot renew --force-renewal --cert-name {lineage.name}`{where}"
    return Finding("CERT-REVOKED", revocation, "clients that ask the CA refuse it", fix)


def _staple_not_served(context: Context, standing: status.Standing, site: plan.Site) -> Iterator[Finding]:
    lineage = standing.lineage
    include = plan.staple_include((standing.served or lineage).snippet_path)
    bare = [server for server in site.tls if include not in plan.used(server)]
    for server in bare:
        fact = f"the server block at {server} has no line `include {include};`"
        yield Finding("SITE-NO-INCLUDE", fact, "the staple is not served", _deploy(lineage), place=str(server))
    if not bare and standing.is_current and not standing.is_stored:
        served = "another staple than" if standing.is_stapled else "no staple in spite of"
        command = context.nginx.reload_command or shlex.join([context.nginx.ctl, "-s", "reload"])
        fact = f"nginx serves {served} the stored one"
        yield Finding("STAPLE-NOT-SERVED", fact, "clients do not get it", f"reload nginx with `{command}`")


def _is_handed(lineage: Lineage) -> bool:
    """Tell whether root is handed it, so that sealed_findings() says what is late."""
    return isinstance(lineage, Version) and bool(lineage.for_names)


def _short_life(context: Context, standing: status.Standing) -> timedelta | None:
    """Return how long the CA's staples hold, where that is too short for two runs of `certbot renew`; None else.

    The responder is asked where no staple is stored, unless that is another machine's or user's matter.
    """
    current, staple = standing.served or standing.lineage, standing.staple
    if staple is None:
        due = store.find_due(context, current)
        if isinstance(due, store.Outcome) or isinstance(standing.lineage, Version):
            return None
        try:
            staple = verify.verify(due.fetch(), current.leaf, current.chain, standing.now, must_staple=True)
        except (errors.ResponderFailed, errors.ResponseRefused):
            return None
    life = staple.end - staple.this_update
    return life if life <= verify.MARGIN else None


def _short_staples(lineage: Lineage, life: timedelta) -> Finding:
    """Return that the CA's staples are too short: served only where the certificate demands one."""
    hours, most = (f"{span / timedelta(hours=1):.3g} h" for span in (life, verify.MARGIN))
    fact = f"the CA's staples hold for {hours} only, and up to {most} may pass between two runs of `certbot renew`"
    if lineage.is_must_staple:
        fix = "let a timer run `certbot-seafile refresh` every hour"
        return Finding("STAPLE-SHORT", fact, "clients may refuse the certificate, which demands one", fix, WARNING)
    fix = f"`certbot install -i seafile --cert-name {lineage.name} --seafile-stapling off` ends the tries"
    return Finding("STAPLE-SHORT", fact, "none is served, which hurts nobody", fix, NOTE)


def _reason_without_staple(context: Context, lineage: Lineage) -> str:
    try:
        response = lineage.stored_response()
        if response is None:
            return f"there is no staple: {lineage.response_path} is missing"
        verify.verify_stored(response, lineage.leaf, lineage.chain, context.now())
    except errors.ResponseRefused as refused:
        return f"the staple in {lineage.response_path} is no good: {'; '.join(refused.reasons)}"
    except errors.FileRefused as refused:
        return f"there is no staple: {refused}"
    return f"{lineage.response_path} has changed just now"


def _age(standing: status.Standing) -> Iterator[Finding]:
    staple, success, now = standing.staple, standing.record.last_success, standing.now
    fix = (
        f"run `certbot-seafile refresh --cert-name {standing.lineage.name}` and see that `certbot renew` runs every day"
    )
    if staple is not None and verify.must_withdraw(staple, now):
        fact = f"the staple is stale: it ends on {_time(staple.end)} and no newer one came"
        yield Finding("STAPLE-STALE", fact, "clients refuse it from then on", fix)
    elif success is not None and now - success > MISSED_AFTER and standing.due < now:
        fact = f"the staple was last refreshed on {_time(success)}"
        yield Finding("STAPLE-NOT-REFRESHED", fact, "it will end before a newer one comes", fix)


def _renewal(lineage: Lineage) -> Iterator[Finding]:
    if isinstance(lineage, Version):  # another user or machine renews it, or nobody does
        return
    path, run, unserved = lineage.renewal_path, _deploy(lineage), "a renewed certificate would not be served"
    if lineage.renewal.get("installer") != lineages.PLUGIN_NAME:
        fact = f"{path} does not name the installer {lineages.PLUGIN_NAME}"
        yield Finding("RENEWAL-NO-INSTALLER", fact, "`certbot renew` will not refresh the staple", run, place=path)
    if not renewal.begins_with_ours(lineage.hooks):
        fact = f"{path} has no deploy hook of certbot-seafile"
        yield Finding("RENEWAL-NO-HOOK", fact, unserved, run, place=path)
    elif (program := renewal.program(lineage.renewal)) and not os.access(program, os.X_OK):
        fact = f"the deploy hook in {path} runs {program}, which is not there"
        yield Finding("RENEWAL-HOOK-GONE", fact, unserved, run, place=path)
    yield from _obstacles(lineage)


def _obstacles(lineage: Lineage) -> Iterator[Finding]:
    """Yield what lets the lineage's next renewal fail, as far as its own files tell."""
    for path in filter(_is_gone, (lineage.key_path, lineage.fullchain_path)):
        yield _file_gone(lineage, path)
    stated, path, fix = status.stated(lineage.renewal_path), lineage.renewal_path, "take that line out"
    if stated.get("autorenew", "").lower() == "false":
        fact = f"{path} has autorenew = False"
        yield Finding("RENEWAL-OFF", fact, "`certbot renew` passes it over", fix, place=path)
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    if "http" not in stated.get("pref_challs", "http"):
        fact = f"{path} has pref_challs without http-01"
        yield Finding("RENEWAL-NO-HTTP", fact, "this plugin, which knows no other, cannot renew", fix, place=path)
    if _STOPS_NGINX.search(stated.get("pre_hook", "")):
        yield _stops_nginx(f"pre_hook in {path}", path)


def _file_gone(lineage: Lineage, path: str) -> Finding:
    name, asked = lineage.name, " ".join(f"-d {domain}" for domain in lineage.names) or "-d NAME"
    fix = (
        f"run `certbot-seafile undo --cert-name {name}` for the site as it was, `certbot delete --cert-name {name}`, "
        f"and get a new one with `certbot certonly -a seafile --cert-name {name} {asked}`"
    )
    return Finding("CERT-FILE-GONE", f"the file {path} is gone", "certbot cannot renew any more", fix, place=path)


def _stops_nginx(place: str, path: str) -> Finding:
    fact, fix = f"{place} stops nginx before a renewal", "take that out, because this plugin needs nginx to run"
    return Finding("HOOK-STOPS-NGINX", fact, "nobody answers the CA then", fix, place=path)


def _is_gone(path: str) -> bool:
    """Tell whether there is certainly no such file: not one that this user cannot see."""
    try:
        os.stat(path)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def _challenge(context: Context, lineage: Lineage, site: plan.Site) -> Iterator[Finding]:
    """Yield what stands between the CA and the next challenge: a validation file is written and fetched.

    Where this user cannot write it, or challenges are passed on, only the configuration and the port are looked at.
    """
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    port, wanted = context.options.http_port, challenge.wanted_challenge(context.options)
    if not site.plain:
        fact = f"no server block of the site answers on port {port}, where the CA looks"
        yield Finding("CHALLENGE-NO-PORT", fact, "the next renewal fails", _deploy(lineage))
    token = f"certbot-seafile-check-{os.getpid()}"
    with contextlib.ExitStack() as opened:
        is_written = wanted.forward is None and bool(site.plain)
        try:
            for folder in challenge.folders(context, site) if is_written else ():
                opened.enter_context(webroot.published(folder, {token: token.encode()}))
        except errors.FileRefused as refused:
            is_written = False
            if os.geteuid() == 0:
                yield Finding("CHALLENGE-NOT-WRITTEN", str(refused), "the next renewal fails")
        found = [finding for each in serving.endpoints(site.plain, port) for finding in _answers(each, lineage, token)]
    shadowed = [finding for finding in found if finding.id == "CHALLENGE-SHADOWED"]
    yield from (finding for finding in found if finding not in shadowed)
    bare = [server for server in site.plain if not plan.is_wired(server, wanted)]
    if bare and (shadowed or not is_written):
        fact = f"the challenge location of the server block at {bare[0]} is missing or shadowed by other lines"
        yield Finding("CHALLENGE-SHADOWED", fact, "the next renewal may fail", _deploy(lineage), place=str(bare[0]))
    elif is_written:
        yield from shadowed


def _answers(endpoint: handshake.Endpoint, lineage: Lineage, token: str) -> Iterator[Finding]:
    """Yield that the endpoint gives no answer, or for which names it does not hand out the file."""
    try:
        for name in [name for name in lineage.names if "*" not in name]:
            answer = handshake.get(endpoint, name, plan.CHALLENGE_PATH + token)
            if (answer.status, answer.body) != (200, token.encode()):
                got = str(answer) if answer.status != 200 else "HTTP status 200 and other content"
                fact = f"the challenge location for {name} is shadowed: {endpoint} answers a file's path with {got}"
                fix = "take out the rule that does so"
                yield Finding("CHALLENGE-SHADOWED", fact, "the CA would not get its file either", fix)
    except errors.ChallengeUnreachable as unreachable:
        fact, fix = f"port {endpoint.port} is not reachable: {unreachable}", "start nginx, and look at firewall rules"
        yield Finding("CHALLENGE-NO-ANSWER", fact, "the CA gets no answer", fix)


def _strangers(context: Context, standing: status.Standing) -> Iterator[Finding]:
    """Yield the server blocks, of the site or not, that use the certificate for names that it has lost or never had.

    A name beside others of the certificate's was its owner's choice, unless an earlier certificate was for it.
    """
    try:
        used = _servers_by_folder(context.nginx.configuration())
    except errors.Error:
        return  # nginx itself says it better
    lineage = standing.lineage
    folders = {current.folder for current in (lineage, standing.served) if current is not None}
    for server in dict.fromkeys(server for folder in sorted(folders) for server in used.get(folder, ())):
        names = [name for name in plan.strangers(server, lineage.names) if not _covers(lineage.names, name)]
        is_covered = any(_covers(lineage.names, name) for name in server.names)
        if lost := [name for name in names if not is_covered or name in _earlier_names(lineage)]:
            fact = f"the server block at {server} uses this certificate for {', '.join(lost)}, and it is not for that"
            get = f"get one for all names with `certbot certonly -a seafile --cert-name {lineage.name} -d NAME...`"
            fix = f"{get}, or give the block another certificate"
            yield Finding("CERT-OTHER-NAMES", fact, "clients that ask for that are warned", fix, place=str(server))


@functools.lru_cache(maxsize=1)
def _servers_by_folder(configuration: Configuration) -> dict[str, list[model.Server]]:
    """Return the server blocks that use a certificate, by the folder that it lies in."""
    servers = defaultdict(list)
    for server in model.http_servers(configuration.outline()):
        for line in server.level(b"ssl_certificate") or server.http.named(b"ssl_certificate"):
            servers[os.path.dirname(os.fsdecode(line.arguments[0]))].append(server)
    return servers


def _covers(names: Sequence[str], name: str) -> bool:
    return name.lower() in names or f"*.{name.lower().partition('.')[2]}" in names


def _earlier_names(lineage: Lineage) -> set[str]:
    """Return the names of all certificates that certbot keeps of the lineage."""
    names: set[str] = set()
    for path in glob.glob(os.path.join(glob.escape(lineage.config_dir), "archive", lineage.name, "cert*.pem")):
        with contextlib.suppress(errors.LineageRefused):
            names.update(lineages.certificate_names(lineages.certificates(path)[0]))
    return names


def _seafile(site: plan.Site) -> Iterator[Finding]:
    statements = [statement for server in site.tls for statement in server.statement.walk() if statement.arguments]
    folders = [os.fsdecode(root.arguments[0]) for root in statements if root.name in (b"root", b"alias")]
    for top in dict.fromkeys(map(seahub.top_folder, folders)):
        for setting in seahub.plain_http_settings(top) if top else ():
            fix = f"make it {setting.wanted}, then restart Seafile and Seahub"
            is_csrf = setting.name == "CSRF_TRUSTED_ORIGINS"
            effect = "logging in ends with 403" if is_csrf else "Seahub hands out links that fail over https"
            yield Finding("SEAFILE-PLAIN-HTTP", str(setting), effect, fix, place=f"{setting.path}:{setting.line}")


def _deploy(lineage: Lineage) -> str:
    return f"run `certbot-seafile deploy --cert-name {lineage.name}`"


def machine_findings(context: Context, readable: Sequence[Lineage], root: str = "/") -> Iterator[Finding]:
    """Yield what is wrong with nginx, deleted lineages, and what is to renew the readable ones.

    root: the folder of the system whose timers, crontabs and cli.ini count.
    """
    yield from _nginx(context)
    known = set(lineages.all_names(context.config_dir))
    yield from _orphans(context, known)
    known |= set(versions.names(context.options.staple_dir))
    yield from (_leftover(context, name) for name in stapled_names(context) if name not in known)
    own = [lineage for lineage in readable if not isinstance(lineage, Version)]
    renewed = [lineage for lineage in own if not records.is_undone(context.state_dir, lineage.name)]
    if renewed:
        jobs = schedule.jobs(root, context.config_dir)
        yield from _scheduler(context, renewed, jobs, root)
        yield from _superseded(context, renewed, jobs, root)
        yield from _machine_obstacles(context, renewed, jobs, root)


def _nginx(context: Context) -> Iterator[Finding]:
    try:
        context.nginx.test()
    except errors.NginxRefused as refused:
        if os.geteuid() == 0 or "Permission denied" not in str(refused):
            place = re.search(r" in (/.+?:\d+)", str(refused))
            effect = "nginx would not start again"
            yield Finding("NGINX-REFUSES", str(refused), effect, place=place[1] if place else None)


def _leftover(context: Context, name: str) -> Finding:
    folder = os.path.join(context.options.staple_dir, name)
    fact = f"{folder} and {name}.conf beside it are the staple of {name}, which was deleted"
    fix = f"`certbot-seafile undo --cert-name {name}` removes them"
    return Finding("STAPLE-LEFT-OVER", fact, "nobody needs them", fix, NOTE)


def sealed_findings(context: Context, readable: Sequence[Lineage], entries: Mapping[str, Entry]) -> Iterator[Finding]:
    """Yield what is wrong with sealed certificates: unknown to certbot, refused by root's step, or left by version 0.0.

    entries: what root is handed, by name.
    """
    known = {*lineages.all_names(context.config_dir), *entries}
    for version in [lineage for lineage in readable if isinstance(lineage, Version)]:
        if version.name not in known:
            yield _deleted(version)
        if version.name in entries:
            found = _handed(context, version, entries[version.name].path)
            yield from (replace(finding, name=version.name) for finding in found)
    yield from _former(context)


def _deleted(version: Version) -> Finding:
    fact, name = "nginx serves a sealed copy of this certificate, but certbot knows it no more", version.name
    fix = (
        f"get a new one with `certbot certonly -a seafile --cert-name {name}`, or take it out with "
        f"`certbot-seafile undo --cert-name {name}`"
    )
    return Finding("CERT-DELETED", fact, f"it is never renewed and ends on {_time(version.not_after)}", fix, name=name)


def _handed(context: Context, version: Version, path: str) -> Iterator[Finding]:
    """Yield why root's step refused what it was handed, and what was not handed over in time."""
    record, now = records.load(context.state_dir, version), context.now()
    if record.last_failure is not None:
        yield Finding("HANDOVER-REFUSED", record.last_failure, "nginx goes on with what it served before", place=path)
    fix = f"see why no newer one came in {path}, and look at the machine or user that renews"
    yield from _expiry(version, status.renewal_due(version, {}), now, fix)
    if record.revocation is not None:
        return  # which is told already
    staple = store.stored_staple(version, now)
    if staple is None and store.why_unstapled(version) is None:
        yield Finding("STAPLE-MISSING", "there is no good staple", _UNSTAPLED, fix)
    elif staple is not None and verify.must_withdraw(staple, now) and staple.end - staple.this_update > verify.MARGIN:
        fact = f"the staple ends on {_time(staple.end)} and no newer one came"
        yield Finding("STAPLE-STALE", fact, "clients refuse it from then on", fix)


def _former(context: Context) -> Iterator[Finding]:
    """Yield what version 0.0 left: sites with a pinned certificate, and folders that it gave to a user."""
    owners = {step.owner for entry in context.journal.entries() for step in entry.steps}
    pinned = [owner.removeprefix(journal.PINNED) for owner in owners if owner.startswith(journal.PINNED)]
    for name in sorted(name for name in pinned if not versions.is_sealed(undo.paths(context, name))):
        fact = "an earlier version of this program left the site with an earlier certificate"
        fix = f"run `certbot-seafile deploy --cert-name {name}`"
        yield Finding("HOST-PINNED", fact, "the new one is not served", fix, name=name)
    if os.path.exists(mark := lineages.former_mark(context.config_dir)):
        fact = f"{mark}: an earlier version of this program made an ordinary user the owner of {context.config_dir}"
        fix = "run `sudo certbot-seafile setup --user USER -d NAME` once"
        yield Finding("HOST-HANDED-OVER", fact, "root cannot trust what is in it", fix, place=mark)


def _orphans(context: Context, known: Collection[str]) -> Iterator[Finding]:
    """Yield the site's lines that name the files of a lineage that is no longer there, as after `certbot delete`."""
    live = os.path.join(context.config_dir, "live") + "/"
    try:
        statements = context.nginx.configuration().mentioning(os.fsencode(live))
    except errors.Error:
        return  # nginx itself says it better
    places: dict[str, str] = {}
    for statement in statements:
        path = os.fsdecode(statement.arguments[0])
        if statement.name in _CERTIFICATE_LINES and path.startswith(live) and not os.path.exists(path):
            places.setdefault(path[len(live) :].split("/")[0], f"{statement.path}:{statement.line}")
    for name, place in [(name, place) for name, place in places.items() if name not in known]:
        fact = f"{place} names a certificate of {name}, which was deleted"
        fix = (
            f"run `certbot-seafile undo --cert-name {name}` for the site as it was; then `certbot certonly -a seafile "
            f"--cert-name {name} -d NAME` gets a new one"
        )
        yield Finding("SITE-CERT-DELETED", fact, "nginx will not start again", fix, place=place)


def stapled_names(context: Context) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    names = []
    for path in sorted(glob.glob(os.path.join(glob.escape(context.options.staple_dir), "*.conf"))):
        with contextlib.suppress(errors.FileRefused):
            if b"kept by certbot-seafile" in files.read(path, at_most_bytes=65536):
                names.append(os.path.basename(path).removesuffix(".conf"))
    return names


def _scheduler(context: Context, renewed: Sequence[Lineage], jobs: _Jobs, root: str) -> Iterator[Finding]:
    """Yield that nobody runs `certbot renew`: by when it last came by; by timers and crontabs where it never did."""
    runs = {lineage.name: records.load(context.state_dir, lineage).last_run for lineage in renewed}
    since = {lineage.name: runs[lineage.name] or _known_since(lineage) for lineage in renewed}
    late = [name for name, moment in since.items() if context.now() - moment > status.LATE_AFTER]
    names = late or [name for name, run in runs.items() if run is None]
    daily = [job for job in jobs if any(job.renews_daily(name) for name in names)]
    bare = [name for name in names if not any(job.renews_daily(name) for job in daily)]
    last = _time(min((since[name] for name in late), default=context.now()))
    effect = "certificates and staples will end"
    if bare:
        flaws = [f"{job.place}: {job.flaw or 'it is for other certificates'}" for job in jobs if job.renews]
        seen = f" ({'; '.join(flaws)})" if flaws else ""
        missed = f", and none came by since {last}" if late else ""
        fact = f"no timer and no crontab runs `certbot renew` every day for {_listed(bare)}{seen}{missed}"
        timer = "enable certbot's own timer with `systemctl enable --now certbot.timer`"
        fix = f"{timer}, or let cron run `certbot -q renew` twice a day"
        yield Finding("SCHEDULE-NONE", fact, effect, fix)
    elif late:
        place = f"although {daily[0].place} is to run it"
        fact = f"`certbot renew` did not come by for {_listed(late)} since {last}, {place} every day"
        yield Finding("SCHEDULE-LATE", fact, effect, "run `certbot renew` and read what it says")
    elif daily and not any(job.is_timer for job in daily) and not schedule.has_cron(root):
        fact = f"{daily[0].place} runs `certbot renew`, but no cron was found that would read it"
        yield Finding("SCHEDULE-NO-CRON", fact, "nothing may be renewed", "install one", WARNING)


def _known_since(lineage: Lineage) -> datetime:
    """Return from when on a run for the lineage could have been remembered: by this version of this program."""
    changes = os.stat(lineage.renewal_path).st_mtime, os.stat(__file__).st_ctime
    return max(lineage.not_before, datetime.fromtimestamp(max(changes), UTC))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _superseded(context: Context, renewed: Sequence[Lineage], jobs: _Jobs, root: str) -> Iterator[Finding]:
    """Yield the scripts and cron lines of the tutorial whose work is done by the plugin and another scheduler."""
    staple_dir = context.options.staple_dir
    folders = {staple_dir, "/" + os.path.relpath(staple_dir, root)}
    proven = [job for job in jobs if job.has_plugin and all(job.renews_daily(lineage.name) for lineage in renewed)]
    ours = units.RENEW, units.APPLY
    for job in [job for job in jobs if not job.is_packaged and not os.path.basename(job.place).startswith(ours)]:
        things = " and ".join(dict.fromkeys([job.place, *job.scripts]))
        others = [other for other in proven if other is not job and other.is_packaged]
        if any(map(job.stores_staples, folders)):
            fact = f"{things} can go: it stores OCSP responses without verifying them, over the plugin's own"
            yield Finding("OCSP-SCRIPT", fact, "clients may be handed a staple that they refuse", "remove it")
        elif job.renews and others:
            fact = f"{things} can go: `certbot renew` is run by {others[0].place} already"
            yield Finding("SCHEDULE-TWICE", fact, "the work is done twice", "remove it", NOTE)


def _machine_obstacles(context: Context, renewed: Sequence[Lineage], jobs: _Jobs, root: str) -> Iterator[Finding]:
    """Yield what lets every renewal by this plugin fail: hooks that stop nginx, and certbot's own settings."""
    plugins = {lineage.renewal.get(key) for lineage in renewed for key in ("authenticator", "installer")}
    hooks = {job.place: job.pre_hooks for job in jobs}
    for path in glob.glob(os.path.join(glob.escape(context.config_dir), "renewal-hooks", "pre", "*")):
        if os.access(path, os.X_OK) and not path.endswith("~"):  # certbot's hooks.list_hooks()
            hooks[path] = schedule.read_script(path)
    for folder in ("/etc", os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")):
        path = os.path.join(root, folder.lstrip("/"), "letsencrypt", "cli.ini")
        stated = status.stated(path)
        hooks[path] = stated.get("pre_hook", "")
        chosen = {name: stated[name] for name in ("authenticator", "installer", "configurator") if name in stated}
        stronger: dict[str, str] = {name: value for name, value in chosen.items() if value not in plugins}
        if "http" not in stated.get("preferred_challenges", "http"):
            stronger["preferred-challenges"] = stated["preferred_challenges"]
        for name, value in stronger.items():
            fact = f"{path} has {name} = {value}, which certbot takes instead of what its renewal files say"
            yield Finding("CERTBOT-SETTING", fact, "this plugin does not renew", "take that line out", place=path)
    if lineages.PLUGIN_NAME in {lineage.renewal.get("authenticator") for lineage in renewed}:
        for place in [place for place, hook in hooks.items() if _STOPS_NGINX.search(hook)]:
            yield _stops_nginx(place, place)
