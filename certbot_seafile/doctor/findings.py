"""What is wrong, in sentences.

The law: nothing here changes anything. A fault is what hurts a client now or will with time; a note is what a person
may tidy up. Each sentence says what is so, and what to do.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from certbot_seafile import errors
from certbot_seafile.doctor import schedule, seahub
from certbot_seafile.ocsp import store, verify
from certbot_seafile.sealed import versions
from certbot_seafile.sealed.settings import Entry
from certbot_seafile.sealed.versions import Version
from certbot_seafile.site import plan
from certbot_seafile.site.config import Statement
from certbot_seafile.system import challenge, files, handshake, journal, lineages, records, serving
from certbot_seafile.system.context import Context
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import status, undo

#: Two runs of `certbot renew` are at most a day apart; a success that is older than this was missed.
MISSED_AFTER = datetime.timedelta(hours=25)
_CERTIFICATE_LINES = (b"ssl_certificate", b"ssl_certificate_key", b"ssl_trusted_certificate", b"ssl_stapling_file")


@dataclass(frozen=True)
class Finding:
    """One sentence. is_fault: False for what may stay as it is."""

    text: str
    is_fault: bool = True


def lineage_findings(context: Context, lineage: Lineage) -> list[Finding]:
    """Return what is wrong with a lineage, its site and its staple; [] where nothing is."""
    standing = status.standing(context, lineage)
    sentences = list(_clock(standing))
    if (site := standing.site) is None:
        sentences += [f"{standing.failure}.", *_renewal(lineage)]
    else:
        sentences += [*_expiry(standing), *_served(standing), *_staple(context, standing, site), *_renewal(lineage)]
        sentences += [*_challenge(context, lineage, site), *_seafile(site)]
    return [Finding(f"{lineage.name}: {sentence}") for sentence in sentences]


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


def _staple(context: Context, standing: status.Standing, site: plan.Site) -> Iterator[str]:
    lineage = standing.lineage
    if store.why_unstapled(lineage) is not None or serving.why_paired(lineage, site) is not None:
        return
    if standing.record.revocation is not None:
        command = f"certbot renew --force-renewal --cert-name {lineage.name}"
        yield f"{standing.record.revocation}; get a new certificate with `{command}`."
        return
    if standing.earlier is not None:
        return  # what is stored is for the certificate before; what is missing is told already
    if standing.staple is None:
        reason = _why_no_staple(context, standing.served or lineage)
        yield f"{reason}; run `certbot-seafile refresh --cert-name {lineage.name}`."
        return
    yield from _age(standing)
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
    if lineages.PLUGIN_COMMAND not in lineage.hooks:
        yield (
            f"{lineage.renewal_path} has no deploy hook of certbot-seafile, so a renewed certificate would not be "
            f"served; run `{_deploy(lineage)}`."
        )
    elif (program := _hook_program(lineage)) and not os.access(program, os.X_OK):
        yield f"the deploy hook in {lineage.renewal_path} runs {program}, which is not there; run `{_deploy(lineage)}`."
    if not os.path.exists(lineage.key_path):
        yield (
            f"the key {lineage.key_path} is missing or cannot be seen by this user; run this as root, or "
            f"`certbot renew --force-renewal --cert-name {lineage.name}`."
        )


def _hook_program(lineage: Lineage) -> str | None:
    """Return our program's absolute path in the hook; None where the hook leaves that to PATH."""
    with contextlib.suppress(ValueError):  # a quote that is not closed
        words = filter(os.path.isabs, shlex.split(lineage.hooks))
        return next((word for word in words if word.endswith(lineages.PLUGIN_COMMAND)), None)
    return None


def _challenge(context: Context, lineage: Lineage, site: plan.Site) -> Iterator[str]:
    """Yield what stands between the CA and the next challenge, seen from this machine."""
    if lineage.renewal.get("authenticator") != lineages.PLUGIN_NAME:
        return
    port, wanted = context.options.http_port, challenge.wanted_challenge(context.options)
    if not site.plain:
        yield f"no server block of the site answers on port {port}, where the CA looks; run `{_deploy(lineage)}`."
    if bare := [server for server in site.plain if not plan.is_wired(server, wanted)]:
        yield (
            f"the challenge location of the server block at {bare[0]} is missing or shadowed by other lines; "
            f"run `{_deploy(lineage)}`."
        )
        return
    for endpoint in serving.endpoints(site.plain, port):
        try:
            for name in lineage.names:
                answer = handshake.get(endpoint, name, f"{plan.CHALLENGE_PATH}certbot-seafile-check")
                if answer.status != 404:
                    yield (
                        f"the challenge location for {name} is shadowed: {endpoint} answers {plan.CHALLENGE_PATH} with "
                        f"{answer} instead of 404 for a file that is not there; take out the rule that does so."
                    )
        except errors.ChallengeUnreachable as unreachable:
            yield f"port {endpoint.port} is not reachable: {unreachable}; start nginx, and look at firewall rules."


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


def machine_findings(context: Context, has_lineages: bool, root: str = "/") -> Iterator[Finding]:
    """Yield what is wrong with nginx, deleted lineages, and the timers and crontabs below the folder root."""
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
    if has_lineages:
        jobs = schedule.jobs(root)
        yield from _scheduler(jobs, root)
        yield from _superseded(jobs)


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
        failure = records.load(context.state_dir, version).last_failure
        if version.name in entries and failure:
            yield Finding(f"{version.name}: {failure}.")
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
            f"`certbot-seafile undo --cert-name {name}` for the site as it was, or get a new certificate with "
            f"`certbot certonly -a seafile --cert-name {name}`."
        )


def stapled_names(context: Context) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    names = []
    for path in sorted(glob.glob(os.path.join(glob.escape(context.options.staple_dir), "*.conf"))):
        with contextlib.suppress(errors.FileRefused):
            if b"kept by certbot-seafile" in files.read(path, at_most_bytes=65536):
                names.append(os.path.basename(path).removesuffix(".conf"))
    return names


def _scheduler(jobs: Sequence[schedule.Job], root: str) -> Iterator[Finding]:
    renewing = [job for job in jobs if job.renews]
    daily = [job for job in renewing if job.is_daily]
    fix = "enable certbot's own timer with `systemctl enable --now certbot.timer`, or let cron run `certbot -q renew`"
    if not renewing:
        yield Finding(f"no timer and no crontab runs `certbot renew`; {fix} twice a day.")
    elif not daily:
        places = ", ".join(job.place for job in renewing)
        yield Finding(
            f"`certbot renew` runs less than once a day ({places}), too rarely for a staple; {fix} twice a day."
        )
    elif not any(job.is_timer for job in daily) and not schedule.has_cron(root):
        yield Finding(
            f"{daily[0].place} runs `certbot renew`, but no cron was found that would read it; install one.",
            is_fault=False,
        )


def _superseded(jobs: Sequence[schedule.Job]) -> Iterator[Finding]:
    """Yield the scripts and cron lines of the tutorial whose work is done by the plugin and certbot's own scheduler."""
    own = [job for job in jobs if job.renews and job.is_daily and job.is_packaged]
    for job in [job for job in jobs if not job.is_packaged]:
        things = " and ".join(dict.fromkeys([job.place, *job.scripts]))
        if job.staples:
            yield Finding(
                f"{things} can go: it stores OCSP responses without verifying them, over the plugin's own; "
                "remove it, `certbot renew` does that work now."
            )
        elif job.renews and own:
            yield Finding(
                f"{things} can go: `certbot renew` is run by {own[0].place} already; remove it.", is_fault=False
            )
