"""What is wrong, in sentences: each says what is so, and what to do.

The law: nothing here changes anything. A fault is what hurts a client now or will with time; a note is what a person
may tidy up. Every sentence ends in something to do.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.doctor import schedule, seahub
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed.settings import Settings
from certbot_seafile.site import model, plan
from certbot_seafile.site.config import Statement
from certbot_seafile.system import files, handshake, lineages, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import status

#: Two runs of `certbot renew` are at most a day apart; a success that is older than this was missed.
MISSED_AFTER = datetime.timedelta(hours=25)
_ABSENT_TOKEN = "certbot-seafile-check"
_CERTIFICATE_LINES = (b"ssl_certificate", b"ssl_certificate_key", b"ssl_trusted_certificate", b"ssl_stapling_file")


@dataclass(frozen=True)
class Finding:
    """One sentence. is_fault: False for what may stay as it is."""

    text: str
    is_fault: bool = True

    def __str__(self) -> str:
        return self.text


def lineage_findings(context: Context, lineage: Lineage) -> list[Finding]:
    """Return what is wrong with a lineage, its site and its staple; [] where nothing is."""
    standing = status.standing(context, lineage)
    site = standing.site
    rules: Sequence[Iterator[str]]
    if site is None:
        rules = (_clock(standing), iter([f"{standing.served.failure}."]), _renewal(lineage))
    else:
        rules = (
            _clock(standing),
            _expiry(standing),
            _served(standing),
            _staple(context, standing, site),
            _renewal(lineage),
            _challenge(context, lineage, site),
            _seafile(site),
        )
    return [Finding(f"{lineage.name}: {sentence}") for rule in rules for sentence in rule]


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
    left, whole = lineage.not_after - standing.now, lineage.not_after - lineage.not_before
    fix = f"run `certbot renew --cert-name {lineage.name}` and read what it says"
    if left <= datetime.timedelta(0):
        yield f"the certificate expired on {lineage.not_after:%Y-%m-%d %H:%M} UTC; {fix}."
    elif left < whole / 6:  # certbot renews when a third is left (below 4.0: 30 of 90 days)
        yield f"the certificate expires on {lineage.not_after:%Y-%m-%d %H:%M} UTC and was not renewed; {fix}."


def _served(standing: status.Standing) -> Iterator[str]:
    lineage = standing.lineage
    if standing.served.failure:
        yield f"clients get no certificate: {standing.served.failure}; then run `{_deploy(lineage)}`."
    elif standing.pinned is not None:
        yield (
            "the site keeps the certificate before, because the new one must be stapled and has no staple yet; that "
            f"holds until {standing.pinned.not_after:%Y-%m-%d %H:%M} UTC, and each `certbot renew` tries again: run "
            f"`{_deploy(lineage)}` to see why it has none."
        )
    elif not standing.served.is_current:
        yield f"the certificate on disk is not the one served; run `{_deploy(lineage)}`."


def _staple(context: Context, standing: status.Standing, site: plan.Site) -> Iterator[str]:
    lineage = standing.lineage
    if store.why_unstapled(lineage) is not None or serving.why_paired(context, lineage, site) is not None:
        return
    if standing.record.revocation is not None:
        command = f"certbot renew --force-renewal --cert-name {lineage.name}"
        yield f"{standing.record.revocation}; get a new certificate with `{command}`."
        return
    if standing.pinned is not None:
        return  # what is stored is for the certificate before; what is missing is told already
    if standing.staple is None:
        yield f"{_why_no_staple(context, lineage)}; run `certbot-seafile refresh --cert-name {lineage.name}`."
        return
    yield from _age(standing)
    bare = [server for server in site.tls if not includes_snippet(server, lineage)]
    for server in bare:
        yield (
            f"the server block at {server} has no line `include {plan.staple_include(lineage.snippet_path)};`, so the "
            f"staple is not served; run `{_deploy(lineage)}`."
        )
    if not bare and standing.served.is_current and not standing.served.is_stored:
        seen = "another staple than" if standing.served.is_stapled else "no staple in spite of"
        yield f"nginx serves {seen} the stored one; reload nginx with `{reload_command(context)}`."


def _why_no_staple(context: Context, lineage: Lineage) -> str:
    try:
        response = files.read_if_present(lineage.response_path)
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
    lineage, staple = standing.lineage, standing.staple
    fix = f"run `certbot-seafile refresh --cert-name {lineage.name}` and see that `certbot renew` runs every day"
    if staple is not None and verify.must_withdraw(staple, standing.now):
        yield f"the staple is stale: it ends on {staple.end:%Y-%m-%d %H:%M} UTC and no newer one came; {fix}."
    elif (
        standing.record.last_success is not None
        and standing.now - standing.record.last_success > MISSED_AFTER
        and standing.due < standing.now
    ):
        yield f"the staple was last refreshed on {standing.record.last_success:%Y-%m-%d %H:%M} UTC; {fix}."


def includes_snippet(server: model.Server, lineage: Lineage) -> bool:
    """Tell whether the server's own level reads the lineage's snippet."""
    wanted = os.fsencode(plan.staple_include(lineage.snippet_path))
    return any(line.arguments[:1] == (wanted,) for line in _direct(server.statement, b"include"))


def _direct(block: Statement, name: bytes) -> list[Statement]:
    """Return the block's own statements with this name, through the includes of its level."""
    statements = []
    for statement in block.children or ():
        if statement.name == name:
            statements.append(statement)
        if statement.name == b"include":
            statements += _direct(statement, name)
    return statements


def _renewal(lineage: Lineage) -> Iterator[str]:
    if lineage.renewal.get("installer") != lineages.PLUGIN_NAME:
        yield (
            f"{lineage.renewal_path} does not name the installer {lineages.PLUGIN_NAME}, so `certbot renew` will not "
            f"refresh the staple; run `{_deploy(lineage)}`."
        )
    if lineages.PLUGIN_COMMAND not in lineage.hooks:
        yield (
            f"{lineage.renewal_path} has no deploy hook of certbot-seafile, so a renewed certificate would not be "
            f"served; run `{_deploy(lineage)}`."
        )
    elif (program := _hook_program(lineage)) is not None and not os.access(program, os.X_OK):
        yield f"the deploy hook in {lineage.renewal_path} runs {program}, which is not there; run `{_deploy(lineage)}`."
    if not os.path.exists(lineage.key_path):
        yield (
            f"the key {lineage.key_path} is missing or cannot be seen by this user; run this as root, or "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`."
        )


def _hook_program(lineage: Lineage) -> str | None:
    """Return our program's absolute path in the hook; None where the hook leaves that to PATH."""
    try:
        words = shlex.split(lineage.hooks)
    except ValueError:
        return None
    return next((word for word in words if os.path.isabs(word) and word.endswith(lineages.PLUGIN_COMMAND)), None)


def _challenge(context: Context, lineage: Lineage, site: plan.Site) -> Iterator[str]:
    """Yield what stands between the CA and the next challenge, seen from this machine."""
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    port = context.options.http_port
    if not site.plain:
        yield f"no server block of the site answers on port {port}, where the CA looks; run `{_deploy(lineage)}`."
    for server in site.plain:
        if not plan.is_wired(server):
            yield (
                f"the challenge location of the server block at {server} is missing or shadowed by other lines; "
                f"run `{_deploy(lineage)}`."
            )
            return
    for endpoint in serving.endpoints(site.plain, port):
        yield from _challenge_at(endpoint, lineage)


def _challenge_at(endpoint: handshake.Endpoint, lineage: Lineage) -> Iterator[str]:
    for name in lineage.names:
        try:
            answer = handshake.get(endpoint, name, plan.CHALLENGE_PATH + _ABSENT_TOKEN)
        except errors.ChallengeUnreachable as unreachable:
            yield f"port {endpoint.port} is not reachable: {unreachable}; start nginx, and look at firewall rules."
            return
        if answer.status != 404:
            yield (
                f"the challenge location for {name} is shadowed: {endpoint} answers {plan.CHALLENGE_PATH} with "
                f"{answer} instead of 404 for a file that is not there; take out the rule that does so."
            )


def _seafile(site: plan.Site) -> Iterator[str]:
    tops: dict[str, None] = {}
    for server in site.tls:
        for statement in server.statement.walk():
            if statement.name in (b"root", b"alias") and statement.arguments:
                top = seahub.top_folder(os.fsdecode(statement.arguments[0]))
                if top:
                    tops[top] = None
    for top in tops:
        for setting in seahub.plain_http_settings(top):
            yield (
                f"{setting}, so Seahub hands out links that fail over https: make it {setting.wanted}, then restart "
                "Seafile and Seahub."
            )


def _deploy(lineage: Lineage) -> str:
    return f"certbot-seafile deploy --cert-name {lineage.name}"


def reload_command(context: Context) -> str:
    """Return the command with which a person reloads nginx."""
    return context.nginx.reload_command or shlex.join([context.nginx.ctl, "-s", "reload"])


# --- the machine -----------------------------------------------------------------------------------------------------


def machine_findings(context: Context, has_lineages: bool, root: str = "/") -> list[Finding]:
    """Return what is wrong with the machine as a whole: nginx, deleted lineages, and who runs `certbot renew`.

    root: the folder below which timers and crontabs are looked for.
    """
    jobs = schedule.jobs(root)
    findings = [Finding(text) for text in _nginx(context)]
    findings += [Finding(text) for text in _orphans(context)]
    findings += [Finding(text, is_fault=False) for text in _left_behind(context)]
    if has_lineages:
        findings += [Finding(text) for text in _scheduler(jobs)]
        findings += [Finding(text, is_fault=False) for text in _cron(jobs, root)]
        findings += _superseded(jobs)
    return findings


def handover_findings(chosen: Settings) -> list[Finding]:
    """Return what is wrong with renewals that an ordinary user runs: files that are not the user's, no root's step."""
    return [Finding(text) for text in (*_foreign(chosen), *_no_step(chosen))]


def _foreign(chosen: Settings) -> Iterator[str]:
    """Yield the folders in which a run of root's left files: the next run of the user's stumbles over them."""
    for folder in chosen.folders:
        if files.has_owned(folder, 0):
            yield (
                f"there are files of root's in {folder}, which {chosen.user} cannot write; "
                f"run `sudo certbot-seafile setup --user {chosen.user}`, which hands them over."
            )


def _no_step(chosen: Settings) -> Iterator[str]:
    if chosen.socket is not None and not os.path.exists(chosen.socket):
        yield (
            f"nobody listens at {chosen.socket}, so nginx is not told of what {chosen.user} renews; "
            "run `sudo systemctl enable --now certbot-seafile.socket`."
        )


def _nginx(context: Context) -> Iterator[str]:
    try:
        context.nginx.test()
    except errors.NginxRefused as refused:
        if os.geteuid() == 0 or "Permission denied" not in str(refused):
            yield f"{refused}: until then nginx would not start again."


def _orphans(context: Context) -> Iterator[str]:
    """Yield the site's lines that name the files of a lineage that is no longer there, as after `certbot delete`."""
    live = os.path.join(context.config_dir, "live") + "/"
    known = set(lineages.all_names(context.config_dir))
    named = os.fsencode(live)
    try:
        statements = context.configuration.mentioning(named)
    except errors.Error:
        return  # nginx itself says it better
    gone: dict[str, str] = {}
    for statement in statements:
        path = os.fsdecode(statement.arguments[0])
        if statement.name in _CERTIFICATE_LINES and path.startswith(live) and not os.path.exists(path):
            name = path[len(live) :].split("/")[0]
            if name not in known:
                gone.setdefault(name, f"{statement.path}:{statement.line}")
    for name, place in gone.items():
        yield (
            f"{place} names a certificate of {name}, which was deleted, so nginx will not start again: run "
            f"`certbot-seafile undo --cert-name {name}` for the site as it was, or get {name} anew with "
            f"`certbot certonly -a seafile --cert-name {name}`."
        )


def _left_behind(context: Context) -> Iterator[str]:
    """Yield the staples of lineages that are no longer there."""
    known = set(lineages.all_names(context.config_dir))
    for name in stapled_names(context):
        if name not in known:
            yield (
                f"{os.path.join(context.options.staple_dir, name)} and {name}.conf beside it are the staple of {name}, "
                f"which was deleted; `certbot-seafile undo --cert-name {name}` removes them."
            )


def stapled_names(context: Context) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    folder = context.options.staple_dir
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".conf"))
    except OSError:
        return []
    return [name.removesuffix(".conf") for name in names if _is_snippet(os.path.join(folder, name))]


def _is_snippet(path: str) -> bool:
    try:
        return b"kept by certbot-seafile" in files.read(path, at_most_bytes=65536)
    except errors.FileRefused:
        return False


def _scheduler(jobs: Sequence[schedule.Job]) -> Iterator[str]:
    renewing = [job for job in jobs if job.renews]
    fix = "enable certbot's own timer with `systemctl enable --now certbot.timer`, or let cron run `certbot -q renew`"
    if not renewing:
        yield f"no timer and no crontab runs `certbot renew`; {fix} twice a day."
    elif not any(job.is_daily for job in renewing):
        places = ", ".join(job.place for job in renewing)
        yield f"`certbot renew` runs less than once a day ({places}), too rarely for a staple; {fix} twice a day."


def _cron(jobs: Sequence[schedule.Job], root: str) -> Iterator[str]:
    daily = [job for job in jobs if job.renews and job.is_daily]
    if daily and not any(job.is_timer for job in daily) and not schedule.has_cron(root):
        yield f"{daily[0].place} runs `certbot renew`, but no cron was found that would read it; install one."


def _superseded(jobs: Sequence[schedule.Job]) -> Iterator[Finding]:
    """Yield the scripts and cron lines of the tutorial whose work is done by the plugin and certbot's own scheduler."""
    own = [job for job in jobs if job.renews and job.is_daily and job.is_packaged]
    for job in jobs:
        if job.is_packaged:
            continue
        scripts = [path for path in job.scripts if path != job.place]
        things = " and ".join([job.place, *scripts])
        if job.staples:
            yield Finding(
                f"{things} can go: it stores OCSP responses without verifying them, over the plugin's own; "
                "remove it, `certbot renew` does that work now."
            )
        elif job.renews and own:
            yield Finding(
                f"{things} can go: `certbot renew` is run by {own[0].place} already; remove it.", is_fault=False
            )
