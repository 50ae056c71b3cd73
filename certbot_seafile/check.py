"""What is wrong, in sentences: each says what is so, and what to do.

The law: nothing here changes anything. A fault is what hurts a client now or will with time; a note is what a person
may tidy up. Every sentence ends in something to do.
"""

from __future__ import annotations

import datetime
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from certbot_seafile import (
    errors,
    files,
    lineage,
    probe,
    report,
    schedule,
    seahub,
    servers,
    serving,
    site,
    staple,
    stapling,
)
from certbot_seafile.host import Host
from certbot_seafile.lineage import Lineage
from certbot_seafile.settings import Settings

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


def lineage_findings(host: Host, found: Lineage) -> list[Finding]:
    """Return what is wrong with a lineage, its site and its staple; [] where nothing is."""
    try:
        where = serving.find_site(host, found.names)
    except errors.Error as error:
        return [*_faults(found, _clock(host, found)), *_faults(found, [f"{error}."]), *_faults(found, _renewal(found))]
    one = report.standing(host, found)
    rules: Sequence[Callable[[], Iterator[str]]] = (
        lambda: _clock(host, found),
        lambda: _expiry(one),
        lambda: _served(one),
        lambda: _staple(host, one, where),
        lambda: _renewal(found),
        lambda: _challenge(host, found, where),
        lambda: _seafile(where),
    )
    return [finding for rule in rules for finding in _faults(found, rule())]


def _faults(found: Lineage, sentences: Iterator[str] | Sequence[str]) -> Iterator[Finding]:
    yield from (Finding(f"{found.name}: {sentence}") for sentence in sentences)


def _clock(host: Host, found: Lineage) -> Iterator[str]:
    """Yield that the machine's clock is behind: something that was made already lies in its future."""
    now = host.now()
    moments = {f"the certificate holds only from {found.not_before:%Y-%m-%d %H:%M} UTC on": found.not_before}
    for path in (os.path.join(found.folder, "cert.pem"), found.response_path):
        if os.path.exists(path):
            written = datetime.datetime.fromtimestamp(os.stat(path).st_mtime, datetime.UTC)
            moments[f"{path} was written at {written:%Y-%m-%d %H:%M} UTC"] = written
    ahead = [fact for fact, moment in moments.items() if moment - now > staple.MAX_SKEW]
    if ahead:
        yield (
            f"the clock of this machine is wrong: it says {now:%Y-%m-%d %H:%M} UTC, but {ahead[0]}; "
            "set it, for example with `timedatectl set-ntp true`."
        )


def _expiry(one: report.Standing) -> Iterator[str]:
    found = one.lineage
    left, whole = found.not_after - one.now, found.not_after - found.not_before
    mend = f"run `certbot renew --cert-name {found.name}` and read what it says"
    if left <= datetime.timedelta(0):
        yield f"the certificate expired on {found.not_after:%Y-%m-%d %H:%M} UTC; {mend}."
    elif left < whole / 6:  # certbot renews when a third is left (below 4.0: 30 of 90 days)
        yield f"the certificate expires on {found.not_after:%Y-%m-%d %H:%M} UTC and was not renewed; {mend}."


def _served(one: report.Standing) -> Iterator[str]:
    found = one.lineage
    if one.served.failure:
        yield f"clients get no certificate: {one.served.failure}; then run `{_deploy(found)}`."
    elif one.pinned is not None:
        yield (
            "the site keeps the certificate before, because the new one must be stapled and has no staple yet; that "
            f"holds until {one.pinned.not_after:%Y-%m-%d %H:%M} UTC, and each `certbot renew` tries again: run "
            f"`{_deploy(found)}` to see why it has none."
        )
    elif not one.served.is_current:
        yield f"the certificate on disk is not the one served; run `{_deploy(found)}`."


def _staple(host: Host, one: report.Standing, where: site.Site) -> Iterator[str]:
    found = one.lineage
    if stapling.why_unstapled(found) is not None or serving.why_paired(host, found, where) is not None:
        return
    if one.revocation is not None:
        yield f"{one.revocation}; get a new one with `certbot renew --force-renewal --cert-name {found.name}`."
        return
    if one.pinned is not None:
        return  # what is stored is for the certificate before; what misses is said already
    if one.staple is None:
        yield f"{_why_no_staple(host, found)}; run `certbot-seafile refresh --cert-name {found.name}`."
        return
    yield from _age(one)
    bare = [server for server in where.tls if not includes_snippet(server, found)]
    for server in bare:
        yield (
            f"the server block at {server} has no line `include {site.staple_include(found.snippet_path)};`, so the "
            f"staple is not served; run `{_deploy(found)}`."
        )
    if not bare and one.served.is_current and not one.served.is_stored:
        came = "another staple than" if one.served.is_stapled else "no staple in spite of"
        yield f"nginx serves {came} the stored one; reload nginx with `{reload_command(host)}`."


def _why_no_staple(host: Host, found: Lineage) -> str:
    try:
        response = files.read_if_present(found.response_path)
        if response is None:
            return f"there is no staple: {found.response_path} is missing"
        staple.recheck(response, found.leaf, found.chain, host.now())
    except errors.CertificateRevoked as revoked:
        return f"{revoked}: get a new certificate with `certbot renew --force-renewal --cert-name {found.name}`"
    except errors.ResponseRefused as refused:
        return f"the staple in {found.response_path} is no good: {'; '.join(refused.reasons)}"
    except errors.FileRefused as refused:
        return f"there is no staple: {refused}"
    return f"{found.response_path} has changed just now"


def _age(one: report.Standing) -> Iterator[str]:
    found, kept = one.lineage, one.staple
    mend = f"run `certbot-seafile refresh --cert-name {found.name}` and see that `certbot renew` runs every day"
    if kept is not None and staple.must_withdraw(kept, one.now):
        yield f"the staple is stale: it ends on {kept.end:%Y-%m-%d %H:%M} UTC and no newer one came; {mend}."
    elif one.last_success is not None and one.now - one.last_success > MISSED_AFTER and one.due < one.now:
        yield f"the staple was last refreshed on {one.last_success:%Y-%m-%d %H:%M} UTC; {mend}."


def includes_snippet(server: servers.Server, found: Lineage) -> bool:
    """Tell whether the server's own level reads the lineage's snippet."""
    wanted = os.fsencode(site.staple_include(found.snippet_path))
    return any(said.arguments[:1] == (wanted,) for said in _direct(server.statement, b"include"))


def _direct(block: servers.Statement, name: bytes) -> list[servers.Statement]:
    """Return the block's own statements with this name, through the includes of its level."""
    found = []
    for said in block.children or ():
        if said.name == name:
            found.append(said)
        if said.name == b"include":
            found += _direct(said, name)
    return found


def _renewal(found: Lineage) -> Iterator[str]:
    if found.renewal.get("installer") != lineage.PLUGIN_NAME:
        yield (
            f"{found.renewal_path} does not name the installer {lineage.PLUGIN_NAME}, so `certbot renew` will not "
            f"refresh the staple; run `{_deploy(found)}`."
        )
    if lineage.PLUGIN_COMMAND not in found.hooks:
        yield (
            f"{found.renewal_path} has no deploy hook of certbot-seafile, so a renewed certificate would not be "
            f"served; run `{_deploy(found)}`."
        )
    elif (program := _hook_program(found)) is not None and not os.access(program, os.X_OK):
        yield f"the deploy hook in {found.renewal_path} runs {program}, which is not there; run `{_deploy(found)}`."
    if not os.path.exists(found.key_path):
        yield (
            f"the key {found.key_path} is missing or cannot be seen by this user; run this as root, or "
            f"`certbot renew --force-renewal --cert-name {found.name}`."
        )


def _hook_program(found: Lineage) -> str | None:
    """Return our program's absolute path in the hook; None where the hook leaves that to PATH."""
    try:
        words = shlex.split(found.hooks)
    except ValueError:
        return None
    return next((word for word in words if os.path.isabs(word) and word.endswith(lineage.PLUGIN_COMMAND)), None)


def _challenge(host: Host, found: Lineage, where: site.Site) -> Iterator[str]:
    """Yield what stands between the CA and the next challenge, seen from this machine."""
    if found.renewal.get("authenticator") != lineage.PLUGIN_NAME:
        return
    port = host.options.http_port
    if not where.plain:
        yield f"no server block of the site answers on port {port}, where the CA looks; run `{_deploy(found)}`."
    for server in where.plain:
        if not site.is_wired(server):
            yield (
                f"the challenge location of the server block at {server} is missing or shadowed by other lines; "
                f"run `{_deploy(found)}`."
            )
            return
    for endpoint in serving.endpoints(where.plain, port):
        yield from _challenge_at(endpoint, found)


def _challenge_at(endpoint: probe.Endpoint, found: Lineage) -> Iterator[str]:
    for name in found.names:
        try:
            answer = probe.fetch(endpoint, name, site.CHALLENGE_PATH + _ABSENT_TOKEN)
        except errors.ChallengeUnreachable as unreachable:
            yield f"port {endpoint.port} is not reachable: {unreachable}; start nginx, and look at firewall rules."
            return
        if answer.status != 404:
            yield (
                f"the challenge location for {name} is shadowed: {endpoint} answers {site.CHALLENGE_PATH} with "
                f"{answer} instead of 404 for a file that is not there; take out the rule that does so."
            )


def _seafile(where: site.Site) -> Iterator[str]:
    tops: dict[str, None] = {}
    for server in where.tls:
        for said in server.statement.walk():
            if said.name in (b"root", b"alias") and said.arguments:
                top = seahub.top_folder(os.fsdecode(said.arguments[0]))
                if top:
                    tops[top] = None
    for top in tops:
        for setting in seahub.plain_http_settings(top):
            yield (
                f"{setting}, so Seahub hands out links that fail over https: make it {setting.wanted}, then restart "
                "Seafile and Seahub."
            )


def _deploy(found: Lineage) -> str:
    return f"certbot-seafile deploy --cert-name {found.name}"


def reload_command(host: Host) -> str:
    """Return the command with which a person reloads nginx."""
    return host.nginx.reload_command or shlex.join([host.nginx.ctl, "-s", "reload"])


# --- the machine -----------------------------------------------------------------------------------------------------


def machine_findings(host: Host, found: Sequence[Lineage], root: str = "/") -> list[Finding]:
    """Return what is wrong with the machine as a whole: nginx, deleted lineages, and who runs `certbot renew`.

    root: the folder below which timers and crontabs are looked for.
    """
    jobs = schedule.jobs(root)
    findings = [Finding(text) for text in _nginx(host)]
    findings += [Finding(text) for text in _orphans(host)]
    findings += [Finding(text, is_fault=False) for text in _left_behind(host)]
    if found:
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


def _nginx(host: Host) -> Iterator[str]:
    try:
        host.nginx.test()
    except errors.NginxRefused as refused:
        if os.geteuid() == 0 or "Permission denied" not in str(refused):
            yield f"{refused}: until then nginx would not start again."


def _orphans(host: Host) -> Iterator[str]:
    """Yield the site's lines that name the files of a lineage that is no longer there, as after `certbot delete`."""
    live = os.path.join(host.config_dir, "live") + "/"
    known = set(lineage.all_names(host.config_dir))
    named = os.fsencode(live)
    try:
        statements = host.nginx.statements(lambda source: named in source)
    except errors.Error:
        return  # nginx itself says it better
    gone: dict[str, str] = {}
    for said in (inner for outer in statements for inner in (outer, *outer.walk())):
        path = os.fsdecode(said.arguments[0]) if said.arguments else ""
        if said.name in _CERTIFICATE_LINES and path.startswith(live) and not os.path.exists(path):
            name = path[len(live) :].split("/")[0]
            if name not in known:
                gone.setdefault(name, f"{said.path}:{said.line}")
    for name, place in gone.items():
        yield (
            f"{place} names a certificate of {name}, which was deleted, so nginx will not start again: run "
            f"`certbot-seafile undo --cert-name {name}` for the site as it was, or get {name} anew with "
            f"`certbot certonly -a seafile --cert-name {name}`."
        )


def _left_behind(host: Host) -> Iterator[str]:
    """Yield the staples of lineages that are no longer there."""
    known = set(lineage.all_names(host.config_dir))
    for name in stapled_names(host):
        if name not in known:
            yield (
                f"{os.path.join(host.options.staple_dir, name)} and {name}.conf beside it are the staple of {name}, "
                f"which was deleted; `certbot-seafile undo --cert-name {name}` removes them."
            )


def stapled_names(host: Host) -> list[str]:
    """Return the names of the lineages whose snippet lies in the folder of staples, sorted."""
    folder = host.options.staple_dir
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
    mend = "enable certbot's own timer with `systemctl enable --now certbot.timer`, or let cron run `certbot -q renew`"
    if not renewing:
        yield f"no timer and no crontab runs `certbot renew`; {mend} twice a day."
    elif not any(job.is_daily for job in renewing):
        places = ", ".join(job.place for job in renewing)
        yield f"`certbot renew` runs less than once a day ({places}), too rarely for a staple; {mend} twice a day."


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
