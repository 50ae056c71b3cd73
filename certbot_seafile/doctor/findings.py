"""What is wrong, in sentences.

The law: nothing here changes anything; one validation file is written, fetched, and removed. A fault is what hurts a
client now or will with time; a note is what a person may tidy up. Each sentence says what is so, and what to do, and
advice is given only for what was looked at.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import glob
import os
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.doctor import schedule, seahub
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.settings import Entry
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import model, plan
from certbot_seafile.site.config import Configuration, Statement
from certbot_seafile.system import challenge, files, handshake, journal, lineages, records, renewal, serving, webroot
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import status, undo

#: Two runs of `certbot renew` are at most a day apart; a success that is older than this was missed.
MISSED_AFTER = datetime.timedelta(hours=25)
#: A run that is later than this was missed: two of Debian's timer's, which leaves at most a day between two.
_TWO_RUNS = datetime.timedelta(days=2)
_DAY = datetime.timedelta(days=1)
_INTERVAL_DAYS = {"hour": 1 / 24, "day": 1, "week": 7, "month": 30, "year": 365}
_STOPS_NGINX = re.compile(
    r"\bstop\b[^\n;&|]*\bnginx\b|\bnginx\b[^\n;&|]*\b(?:stop|quit)\b|\b(?:pkill|killall)\b[^\n;&|]*\bnginx\b"
)
_CERTIFICATE_LINES = (b"ssl_certificate", b"ssl_certificate_key", b"ssl_trusted_certificate", b"ssl_stapling_file")


@dataclass(frozen=True)
class Finding:
    """One sentence. is_fault: False for what may stay as it is."""

    text: str
    is_fault: bool = True


def lineage_findings(context: Context, lineage: Lineage) -> list[Finding]:
    """Return what is wrong with a lineage, its site and its staple; [] where nothing is."""
    standing = status.standing(context, lineage)
    faults, notes = [*_clock(standing)], list[str]()
    faults += () if isinstance(lineage, Version) else _expiry(standing)
    if standing.record.is_undone:
        faults += _obstacles(lineage)  # a person wants nothing more of it than renewals
    elif (site := standing.site) is None:
        faults += [f"{standing.failure}.", *_renewal(lineage)]
    else:
        life = _short_life(context, standing, site)
        notes += _short_staples(lineage, life) if life else ()
        faults += [*_served(standing), *_staple(context, standing, site, is_short=life is not None)]
        faults += [*_renewal(lineage), *_challenge(context, lineage, site), *_seafile(site)]
    faults += _strangers(context, standing)
    told = [(sentence, True) for sentence in faults] + [(sentence, False) for sentence in notes]
    return [Finding(f"{lineage.name}: {sentence}", is_fault) for sentence, is_fault in told]


def _clock(standing: status.Standing) -> Iterator[str]:
    """Yield that the machine's clock is behind: something that was made already lies in its future."""
    lineage, now = standing.lineage, standing.now
    moments = {f"the certificate holds only from {lineage.not_before:%Y-%m-%d %H:%M} UTC on": lineage.not_before}
    for path in (os.path.join(lineage.folder, "cert.pem"), lineage.response_path):
        if os.path.exists(path):
            written = datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.UTC)
            moments[f"{path} was written at {written:%Y-%m-%d %H:%M} UTC"] = written
    ahead = [fact for fact, moment in moments.items() if moment - now > verify.MAX_SKEW]
    if ahead:
        yield (
            f"the clock of this machine is wrong: it says {now:%Y-%m-%d %H:%M} UTC, but {ahead[0]}; "
            "set it, for example with `timedatectl set-ntp true`."
        )


def _expiry(standing: status.Standing) -> Iterator[str]:
    lineage = standing.lineage
    fix = f"run `certbot renew --cert-name {lineage.name}` and read what it says"
    if lineage.not_after <= standing.now:
        yield f"the certificate expired on {lineage.not_after:%Y-%m-%d %H:%M} UTC; {fix}."
    elif standing.now - _renewal_due(lineage) > _TWO_RUNS:
        yield f"the certificate expires on {lineage.not_after:%Y-%m-%d %H:%M} UTC and was not renewed; {fix}."


def _renewal_due(lineage: Lineage) -> datetime.datetime:
    """Return from when on certbot renews: by its setting, else by what the certbot that wrote the file does."""
    stated = {} if isinstance(lineage, Version) else _settings(lineage.renewal_path)
    interval = re.match(r"(\d+)\s*([a-z]*?)s?\Z", stated.get("renew_before_expiry", ""))
    release = re.match(r"\d+", stated.get("version", ""))
    lifetime = lineage.not_after - lineage.not_before
    if interval:
        left = int(interval[1]) * _INTERVAL_DAYS.get(interval[2], 1) * _DAY
    elif release and int(release[0]) < 4:
        left = 30 * _DAY
    else:  # certbot's renewal._default_renewal_time()
        left = lifetime / 2 if lifetime < 10 * _DAY else lifetime / 3
    return max(lineage.not_after - left, lineage.not_before)


def _settings(path: str) -> dict[str, str]:
    """Return the lines `name = value` of a renewal file or a cli.ini, where it can be read; the last one counts."""
    pairs = (line.partition("=") for line in schedule.read_script(path).splitlines() if "=" in line)
    return {name.strip().replace("-", "_"): value.strip().strip("\"'") for name, _, value in pairs}


def _served(standing: status.Standing) -> Iterator[str]:
    lineage = standing.lineage
    if standing.failure:
        yield f"clients get no certificate: {standing.failure}; then run `{_deploy(lineage)}`."
    elif (earlier := standing.earlier) is not None:
        yield (
            "the site keeps the certificate before, because the new one must be stapled and has no staple yet; that "
            f"holds until {earlier.not_after:%Y-%m-%d %H:%M} UTC, and each `certbot renew` tries again: run "
            f"`{_deploy(lineage)}` to see why it has none."
        )
    elif not standing.is_current:
        yield f"the certificate on disk is not the one served; run `{_deploy(lineage)}`."


def _staple(context: Context, standing: status.Standing, site: plan.Site, *, is_short: bool) -> Iterator[str]:
    lineage = standing.lineage
    if store.why_unstapled(lineage) is not None or serving.why_paired(lineage, site) is not None:
        return
    if standing.record.revocation is not None:
        command = f"`certbot renew --force-renewal --cert-name {lineage.name}`"
        where = " where it is renewed" if _is_handed(lineage) else ""
        yield f"{standing.record.revocation}; get a new certificate with {command}{where}."
        return
    if standing.earlier is not None:
        return  # what is stored is for the certificate before; what is missing is told already
    if standing.staple is None:
        if not _is_handed(lineage) and (lineage.is_must_staple or not is_short):
            reason = _why_no_staple(context, standing.served or lineage)
            yield f"{reason}; run `certbot-seafile refresh --cert-name {lineage.name}`."
        return
    yield from () if is_short or _is_handed(lineage) else _age(standing)
    current = standing.served or lineage
    include = plan.staple_include(current.snippet_path)
    bare = [server for server in site.tls if not _includes(server.statement, os.fsencode(include))]
    for server in bare:
        yield (
            f"the server block at {server} has no line `include {include};`, so the staple is not served; "
            f"run `{_deploy(lineage)}`."
        )
    if not bare and standing.is_current and not standing.is_stored:
        served = "another staple than" if standing.is_stapled else "no staple in spite of"
        command = context.nginx.reload_command or shlex.join([context.nginx.ctl, "-s", "reload"])
        yield f"nginx serves {served} the stored one; reload nginx with `{command}`."


def _is_handed(lineage: Lineage) -> bool:
    """Tell whether root is handed it, so that sealed_findings() says what is late."""
    return isinstance(lineage, Version) and bool(lineage.for_names)


def _short_life(context: Context, standing: status.Standing, site: plan.Site) -> datetime.timedelta | None:
    """Return how long the CA's staples hold, where that is too short for two runs of `certbot renew`; None else.

    The responder is asked where no staple is stored, unless that is another machine's or user's matter.
    """
    current, staple = standing.served or standing.lineage, standing.staple
    if standing.record.revocation is not None or serving.why_paired(current, site) is not None:
        return None
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


def _short_staples(lineage: Lineage, life: datetime.timedelta) -> Iterator[str]:
    """Yield that the CA's staples are too short: served only where the certificate demands one."""
    hours, most = (f"{span / datetime.timedelta(hours=1):.3g} h" for span in (life, verify.MARGIN))
    fact = f"the CA's staples hold for {hours} only, and up to {most} may pass between two runs of `certbot renew`"
    if lineage.is_must_staple:
        yield f"{fact}: let a timer run `certbot-seafile refresh` every hour, since the certificate demands one."
    else:
        command = f"certbot install -i seafile --cert-name {lineage.name} --seafile-stapling off"
        yield f"{fact}, so none is served, which hurts nobody; `{command}` ends the tries."


def _why_no_staple(context: Context, lineage: Lineage) -> str:
    try:
        response = lineage.stored_response()
        if response is None:
            return f"there is no staple: {lineage.response_path} is missing"
        verify.verify_stored(response, lineage.leaf, lineage.chain, context.now())
    except errors.CertificateRevoked as revoked:
        return f"{revoked}: get a new certificate with `certbot renew --force-renewal --cert-name {lineage.name}`"
    except errors.ResponseRefused as refused:
        return f"the staple in {lineage.response_path} is no good: {'; '.join(refused.reasons)}"
    except errors.FileRefused as refused:
        return f"there is no staple: {refused}"
    return f"{lineage.response_path} has changed just now"


def _age(standing: status.Standing) -> Iterator[str]:
    name, staple, success, now = standing.lineage.name, standing.staple, standing.record.last_success, standing.now
    fix = f"run `certbot-seafile refresh --cert-name {name}` and see that `certbot renew` runs every day"
    if staple is not None and verify.must_withdraw(staple, now):
        yield f"the staple is stale: it ends on {staple.end:%Y-%m-%d %H:%M} UTC and no newer one came; {fix}."
    elif success is not None and now - success > MISSED_AFTER and standing.due < now:
        yield f"the staple was last refreshed on {success:%Y-%m-%d %H:%M} UTC; {fix}."


def _includes(block: Statement, pattern: bytes) -> bool:
    """Tell whether the block's own level includes the pattern, itself or through another include."""
    includes = [child for child in block.children or () if child.name == b"include"]
    return any(include.arguments[:1] == (pattern,) or _includes(include, pattern) for include in includes)


def _renewal(lineage: Lineage) -> Iterator[str]:
    if isinstance(lineage, Version):  # another user or machine renews it, or nobody does
        return
    if lineage.renewal.get("installer") != lineages.PLUGIN_NAME:
        yield (
            f"{lineage.renewal_path} does not name the installer {lineages.PLUGIN_NAME}, so `certbot renew` will not "
            f"refresh the staple; run `{_deploy(lineage)}`."
        )
    if not renewal.begins_with_ours(lineage.hooks):
        yield (
            f"{lineage.renewal_path} has no deploy hook of certbot-seafile, so a renewed certificate would not be "
            f"served; run `{_deploy(lineage)}`."
        )
    elif (program := renewal.program(lineage.renewal)) and not os.access(program, os.X_OK):
        yield f"the deploy hook in {lineage.renewal_path} runs {program}, which is not there; run `{_deploy(lineage)}`."
    yield from _obstacles(lineage)


def _obstacles(lineage: Lineage) -> Iterator[str]:
    """Yield what lets the lineage's next renewal fail, as far as its own files tell."""
    for path in filter(_is_gone, (lineage.key_path, lineage.fullchain_path)):
        yield (
            f"{path} is gone, so certbot cannot renew the certificate any more: "
            f"{_start_over(lineage.name, *lineage.names)}."
        )
    stated, path = _settings(lineage.renewal_path), lineage.renewal_path
    if stated.get("autorenew", "").lower() == "false":
        yield f"{path} has autorenew = False, so `certbot renew` passes it over: take that line out."
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    if "http" not in stated.get("pref_challs", "http"):
        yield f"{path} has pref_challs without http-01, which is what this plugin answers: take that line out."
    if _STOPS_NGINX.search(stated.get("pre_hook", "")):
        yield _stops_nginx(f"pre_hook in {path}")


def _stops_nginx(place: str) -> str:
    return (
        f"{place} stops nginx before a renewal, and then nobody answers the CA: take that out, because this plugin "
        "needs nginx to run."
    )


def _is_gone(path: str) -> bool:
    """Tell whether there is certainly no such file: not one that this user cannot see."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _start_over(name: str, *domains: str) -> str:
    """Return the commands that bring a site back into service whose certificate has lost files."""
    asked = " ".join(f"-d {domain}" for domain in domains) or "-d NAME"
    return (
        f"run `certbot-seafile undo --cert-name {name}` for the site as it was, `certbot delete --cert-name {name}`, "
        f"and get a new one with `certbot certonly -a seafile --cert-name {name} {asked}`"
    )


def _challenge(context: Context, lineage: Lineage, site: plan.Site) -> Iterator[str]:
    """Yield what stands between the CA and the next challenge: a validation file is written and fetched.

    Where this user cannot write it, or challenges are passed on, only the configuration and the port are looked at.
    """
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    port, wanted = context.options.http_port, challenge.wanted_challenge(context.options)
    if not site.plain:
        yield f"no server block of the site answers on port {port}, where the CA looks; run `{_deploy(lineage)}`."
    token = f"certbot-seafile-check-{os.getpid()}"
    with contextlib.ExitStack() as opened:
        is_written = wanted.forward is None and bool(site.plain)
        try:
            for folder in challenge.folders(context, site) if is_written else ():
                opened.enter_context(webroot.published(folder, {token: token.encode()}))
        except errors.FileRefused as refused:
            is_written = False
            if os.geteuid() == 0:
                yield f"{refused}."
        answers = [_answers(each, lineage.names, token) for each in serving.endpoints(site.plain, port)]
    yield from (failure for failure, _ in answers if failure)
    wrong = [sentence for _, sentences in answers for sentence in sentences] if is_written else []
    bare = [server for server in site.plain if not plan.is_wired(server, wanted)]
    if bare and (wrong or not is_written):
        yield (
            f"the challenge location of the server block at {bare[0]} is missing or shadowed by other lines; "
            f"run `{_deploy(lineage)}`."
        )
    else:
        yield from wrong


def _answers(endpoint: handshake.Endpoint, names: Sequence[str], token: str) -> tuple[str | None, list[str]]:
    """Return why the endpoint gives no answer (None: it does), and for which names it does not hand out the file."""
    wrong = []
    try:
        for name in [name for name in names if "*" not in name]:
            answer = handshake.get(endpoint, name, plan.CHALLENGE_PATH + token)
            if (answer.status, answer.body) != (200, token.encode()):
                instead = str(answer) if answer.status != 200 else "HTTP status 200 and other content"
                wrong.append(
                    f"the challenge location for {name} is shadowed: {endpoint} answers {plan.CHALLENGE_PATH} with "
                    f"{instead} instead of the file that was put there; take out the rule that does so."
                )
    except errors.ChallengeUnreachable as unreachable:
        return f"port {endpoint.port} is not reachable: {unreachable}; start nginx, and look at firewall rules.", wrong
    return None, wrong


def _strangers(context: Context, standing: status.Standing) -> Iterator[str]:
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
            yield (
                f"the server block at {server} uses this certificate for {', '.join(lost)}, and it is not for that: "
                f"get one for all names with `certbot certonly -a seafile --cert-name {lineage.name} -d NAME...`, or "
                "give the block another certificate."
            )


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


def _seafile(site: plan.Site) -> Iterator[str]:
    statements = [statement for server in site.tls for statement in server.statement.walk() if statement.arguments]
    folders = [os.fsdecode(root.arguments[0]) for root in statements if root.name in (b"root", b"alias")]
    for top in dict.fromkeys(map(seahub.top_folder, folders)):
        for setting in seahub.plain_http_settings(top) if top else ():
            yield (
                f"{setting}, so Seahub hands out links that fail over https: make it {setting.wanted}, then restart "
                "Seafile and Seahub."
            )


def _deploy(lineage: Lineage) -> str:
    return f"certbot-seafile deploy --cert-name {lineage.name}"


def machine_findings(context: Context, readable: Sequence[Lineage], root: str = "/") -> Iterator[Finding]:
    """Yield what is wrong with nginx, deleted lineages, and what is to renew the readable ones.

    root: the folder of the system whose timers, crontabs and cli.ini count.
    """
    try:
        context.nginx.test()
    except errors.NginxRefused as refused:
        if os.geteuid() == 0 or "Permission denied" not in str(refused):
            yield Finding(f"{refused}: until then nginx would not start again.")
    known = set(lineages.all_names(context.config_dir))
    yield from _orphans(context, known)
    known |= set(versions.names(context.options.staple_dir))
    for name in [name for name in stapled_names(context) if name not in known]:
        yield Finding(
            f"{os.path.join(context.options.staple_dir, name)} and {name}.conf beside it are the staple of {name}, "
            f"which was deleted; `certbot-seafile undo --cert-name {name}` removes them.",
            is_fault=False,
        )
    own = [lineage for lineage in readable if not isinstance(lineage, Version)]
    renewed = [lineage for lineage in own if not records.is_undone(context.state_dir, lineage.name)]
    if renewed:
        jobs = schedule.jobs(root, context.config_dir)
        yield from _scheduler(context, renewed, jobs, root)
        yield from _superseded(context, renewed, jobs, root)
        yield from map(Finding, _machine_obstacles(context, renewed, jobs, root))


def sealed_findings(context: Context, readable: Sequence[Lineage], entries: Mapping[str, Entry]) -> Iterator[Finding]:
    """Yield what is wrong with sealed certificates: unknown to certbot, refused by root's step, or left by version 0.0.

    entries: what root is handed, by name.
    """
    known = {*lineages.all_names(context.config_dir), *entries}
    for version in [lineage for lineage in readable if isinstance(lineage, Version)]:
        if version.name not in known:
            yield Finding(
                f"{version.name}: nginx serves a sealed copy of this certificate, but certbot knows it no more, so it "
                f"is never renewed and ends on {version.not_after:%Y-%m-%d}: get a new one with `certbot certonly -a "
                f"seafile --cert-name {version.name}`, or take it out with "
                f"`certbot-seafile undo --cert-name {version.name}`."
            )
        if version.name in entries:
            record = records.load(context.state_dir, version)
            late = _late(version, record, entries[version.name].path, context.now())
            sentences = filter(None, [record.last_failure, *late])
            yield from (Finding(f"{version.name}: {sentence}.") for sentence in sentences)
    pinned = {
        step.owner.removeprefix(journal.PINNED)
        for entry in context.journal.entries()
        for step in entry.steps
        if step.owner.startswith(journal.PINNED)
    }
    for name in sorted(name for name in pinned if not versions.is_sealed(undo.paths(context, name))):
        yield Finding(
            f"{name}: an earlier version of this program left the site with an earlier certificate; run "
            f"`certbot-seafile deploy --cert-name {name}`."
        )
    if os.path.exists(mark := lineages.former_mark(context.config_dir)):
        yield Finding(
            f"{mark}: an earlier version of this program made an ordinary user the owner of {context.config_dir}, "
            "which root cannot trust; run `sudo certbot-seafile setup --user USER -d NAME` once."
        )


def _late(version: Version, record: records.Record, path: str, now: datetime.datetime) -> Iterator[str]:
    """Yield what was not handed over in time: a newer certificate, or a newer staple."""
    fix = f"see why no newer one came in {path}, and look at the machine or user that renews"
    if version.not_after <= now:
        yield f"the certificate expired on {version.not_after:%Y-%m-%d %H:%M} UTC; {fix}"
    elif now - _renewal_due(version) > _TWO_RUNS:
        yield f"the certificate expires on {version.not_after:%Y-%m-%d %H:%M} UTC; {fix}"
    if record.revocation is not None:
        return  # which is told already
    staple = store.stored_staple(version, now)
    if staple is None and store.why_unstapled(version) is None:
        yield f"there is no good staple; {fix}"
    elif staple is not None and verify.must_withdraw(staple, now) and staple.end - staple.this_update > verify.MARGIN:
        yield f"the staple ends on {staple.end:%Y-%m-%d %H:%M} UTC; {fix}"


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
    for name in [name for name in places if name not in known]:
        yield Finding(
            f"{places[name]} names a certificate of {name}, which was deleted, so nginx will not start again: run "
            f"`certbot-seafile undo --cert-name {name}` for the site as it was; then `certbot certonly -a seafile "
            f"--cert-name {name} -d NAME` gets a new one."
        )


def stapled_names(context: Context) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    names = []
    for path in sorted(glob.glob(os.path.join(glob.escape(context.options.staple_dir), "*.conf"))):
        with contextlib.suppress(errors.FileRefused):
            if b"kept by certbot-seafile" in files.read(path, at_most_bytes=65536):
                names.append(os.path.basename(path).removesuffix(".conf"))
    return names


def _scheduler(
    context: Context, renewed: Sequence[Lineage], jobs: Sequence[schedule.Job], root: str
) -> Iterator[Finding]:
    """Yield that nobody runs `certbot renew`: by when it last came by; by timers and crontabs where it never did."""
    runs = {lineage.name: records.load(context.state_dir, lineage).last_run for lineage in renewed}
    since = {lineage.name: runs[lineage.name] or _known_since(lineage) for lineage in renewed}
    late = [name for name, moment in since.items() if context.now() - moment > _TWO_RUNS]
    names = late or [name for name, run in runs.items() if run is None]
    daily = [job for job in jobs if any(job.renews_daily(name) for name in names)]
    bare = [name for name in names if not any(job.renews_daily(name) for job in daily)]
    last = f"{min((since[name] for name in late), default=context.now()):%Y-%m-%d %H:%M} UTC"
    if bare:
        flaws = [f"{job.place}: {job.flaw or 'it is for other certificates'}" for job in jobs if job.renews]
        seen = f" ({'; '.join(flaws)})" if flaws else ""
        missed = f", and none came by since {last}" if late else ""
        yield Finding(
            f"no timer and no crontab runs `certbot renew` every day for {_listed(bare)}{seen}{missed}; enable "
            "certbot's own timer with `systemctl enable --now certbot.timer`, or let cron run `certbot -q renew` twice "
            "a day."
        )
    elif late:
        yield Finding(
            f"`certbot renew` did not come by for {_listed(late)} since {last}, although {daily[0].place} is to run it "
            "every day: run `certbot renew` and read what it says."
        )
    elif daily and not any(job.is_timer for job in daily) and not schedule.has_cron(root):
        yield Finding(
            f"{daily[0].place} runs `certbot renew`, but no cron was found that would read it; install one.",
            is_fault=False,
        )


def _known_since(lineage: Lineage) -> datetime.datetime:
    """Return from when on a run for the lineage could have been remembered: by this version of this program."""
    changes = os.stat(lineage.renewal_path).st_mtime, os.stat(__file__).st_ctime
    return max(lineage.not_before, datetime.datetime.fromtimestamp(max(changes), datetime.UTC))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


def _superseded(
    context: Context, renewed: Sequence[Lineage], jobs: Sequence[schedule.Job], root: str
) -> Iterator[Finding]:
    """Yield the scripts and cron lines of the tutorial whose work is done by the plugin and another scheduler."""
    staple_dir = context.options.staple_dir
    folders = {staple_dir, "/" + os.path.relpath(staple_dir, root)}
    proven = [job for job in jobs if job.has_plugin and all(job.renews_daily(lineage.name) for lineage in renewed)]
    for job in [job for job in jobs if not job.is_packaged]:
        things = " and ".join(dict.fromkeys([job.place, *job.scripts]))
        others = [other for other in proven if other is not job and other.is_packaged]
        if any(map(job.stores_staples, folders)):
            yield Finding(
                f"{things} can go: it stores OCSP responses without verifying them, over the plugin's own; "
                "remove it, `certbot renew` does that work now."
            )
        elif job.renews and others:
            yield Finding(
                f"{things} can go: `certbot renew` is run by {others[0].place} already; remove it.", is_fault=False
            )


def _machine_obstacles(
    context: Context, renewed: Sequence[Lineage], jobs: Sequence[schedule.Job], root: str
) -> Iterator[str]:
    """Yield what lets every renewal by this plugin fail: hooks that stop nginx, and certbot's own settings."""
    plugins = {lineage.renewal.get(key) for lineage in renewed for key in ("authenticator", "installer")}
    hooks = {job.place: job.pre_hooks for job in jobs}
    for path in glob.glob(os.path.join(glob.escape(context.config_dir), "renewal-hooks", "pre", "*")):
        if os.access(path, os.X_OK) and not path.endswith("~"):  # certbot's hooks.list_hooks()
            hooks[path] = schedule.read_script(path)
    for folder in ("/etc", os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")):
        path = os.path.join(root, folder.lstrip("/"), "letsencrypt", "cli.ini")
        stated = _settings(path)
        hooks[path] = stated.get("pre_hook", "")
        for name in filter(stated.__contains__, ("authenticator", "installer", "configurator")):
            if stated[name] not in plugins:
                yield _overrides(path, name, stated[name])
        if "http" not in stated.get("preferred_challenges", "http"):
            yield _overrides(path, "preferred-challenges", stated["preferred_challenges"])
    if lineages.PLUGIN_NAME in {lineage.renewal.get("authenticator") for lineage in renewed}:
        yield from (_stops_nginx(place) for place, hook in hooks.items() if _STOPS_NGINX.search(hook))


def _overrides(path: str, name: str, value: str) -> str:
    return (
        f"{path} has {name} = {value}, which certbot takes instead of what its renewal files say, so this plugin does "
        "not renew: take that line out."
    )
