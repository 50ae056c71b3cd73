"""What lets the next renewal fail: certbot's renewal files and settings, hooks, files that are gone, nobody who renews.

The law: certbot's files are read as certbot reads them, and never written here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

from certbot_seafile.doctor import schedule
from certbot_seafile.doctor.findings import NOTE, WARNING, Finding, listed, moment
from certbot_seafile.doctor.subject import Machine, Subject
from certbot_seafile.sealed import units
from certbot_seafile.system import lineages, records, renewal
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import deploy, status

_UNSERVED = "a renewed certificate would not be served"
_TAKE_OUT = "take that line out"

# --- one certificate's renewal file ----------------------------------------------------------------------------------


def no_installer(subject: Subject) -> Iterator[Finding]:
    """Yield that the renewal file does not name this plugin's installer."""
    path = subject.lineage.renewal_path
    if subject.lineage.renewal.get("installer") != lineages.PLUGIN_NAME:
        fact = f"{path} does not name the installer {lineages.PLUGIN_NAME}"
        effect = "`certbot renew` will not refresh the staple"
        yield Finding("RENEWAL-NO-INSTALLER", fact, effect, subject.fix("deploy"), place=path)


def no_hook(subject: Subject) -> Iterator[Finding]:
    """Yield that the renewal file has no deploy hook of this program."""
    path = subject.lineage.renewal_path
    if not renewal.our_words(renewal.hook(subject.lineage.renewal)):
        fact = f"{path} has no deploy hook of certbot-seafile"
        yield Finding("RENEWAL-NO-HOOK", fact, _UNSERVED, subject.fix("deploy"), place=path)


def hook_gone(subject: Subject) -> Iterator[Finding]:
    """Yield that the deploy hook runs a program that is not there."""
    path = subject.lineage.renewal_path
    words = renewal.our_words(renewal.hook(subject.lineage.renewal))
    if words and os.path.isabs(words[0]) and not os.access(words[0], os.X_OK):
        fact = f"the deploy hook in {path} runs {words[0]}, which is not there"
        yield Finding("RENEWAL-HOOK-GONE", fact, _UNSERVED, subject.fix("deploy"), place=path)


def failed(subject: Subject) -> Iterator[Finding]:
    """Yield that certbot tried to renew the certificate, and could not."""
    record, lineage = subject.standing.record, subject.lineage
    if record.last_failure == deploy.UNFINISHED and record.last_run is not None:
        fact = f"`certbot renew` could not renew the certificate on {moment(record.last_run)}"
        fix = f"run `certbot renew --cert-name {lineage.name}` and read what it says"
        effect = f"clients are warned from {moment(lineage.not_after)} on, unless a later run can"
        yield Finding("RENEWAL-FAILED", fact, effect, fix, WARNING)


def file_gone(subject: Subject) -> Iterator[Finding]:
    """Yield the files that certbot needs to renew the certificate, and that somebody removed."""
    lineage, name = subject.lineage, subject.lineage.name
    for path in filter(_is_gone, (lineage.key_path, lineage.fullchain_path)):
        asked = " ".join(f"-d {domain}" for domain in lineage.names) or "-d NAME"
        fix = (
            f"run `certbot-seafile undo --cert-name {name}` for the site as it was, `certbot delete --cert-name "
            f"{name}`, and get a new one with `certbot certonly -a seafile --cert-name {name} {asked}`"
        )
        fact = f"the file {path} is gone"
        yield Finding("CERT-FILE-GONE", fact, "certbot cannot renew any more", fix, place=path)


def _is_gone(path: str) -> bool:
    """Tell whether there is certainly no such file: not one that this user cannot see."""
    try:
        os.stat(path)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    return False


def off(subject: Subject) -> Iterator[Finding]:
    """Yield that certbot is told to pass the certificate over."""
    path = subject.lineage.renewal_path
    if subject.lineage.renewal.get("autorenew", "").lower() == "false":
        fact = f"{path} has autorenew = False"
        yield Finding("RENEWAL-OFF", fact, "`certbot renew` passes it over", _TAKE_OUT, place=path)


def no_http(subject: Subject) -> Iterator[Finding]:
    """Yield that certbot is told not to take the one challenge that this plugin answers."""
    path = subject.lineage.renewal_path
    if "http" not in subject.lineage.renewal.get("pref_challs", "http"):
        fact = f"{path} has pref_challs without http-01"
        effect = "this plugin, which knows no other, cannot renew"
        yield Finding("RENEWAL-NO-HTTP", fact, effect, _TAKE_OUT, place=path)


def hook_stops_nginx(subject: Subject) -> Iterator[Finding]:
    """Yield that the renewal file's own hook stops nginx."""
    path = subject.lineage.renewal_path
    if schedule.stops_nginx(subject.lineage.renewal.get("pre_hook", "")):
        yield _stops_nginx(f"pre_hook in {path}", path)


def _stops_nginx(place: str, path: str) -> Finding:
    fact, fix = f"{place} stops nginx before a renewal", "take that out, because this plugin needs nginx to run"
    return Finding("HOOK-STOPS-NGINX", fact, "nobody answers the CA then", fix, place=path)


# --- who renews ------------------------------------------------------------------------------------------------------


def nobody_renews(machine: Machine) -> Iterator[Finding]:
    """Yield that nobody runs `certbot renew`: by when it last came by; by timers and crontabs where it never did."""
    context, jobs = machine.context, machine.jobs
    runs = {lineage.name: records.load(context.state_dir, lineage).last_run for lineage in machine.renewed}
    since = {lineage.name: runs[lineage.name] or _known_since(lineage) for lineage in machine.renewed}
    late = [name for name, at in since.items() if context.now() - at > status.LATE_AFTER]
    names = late or [name for name, run in runs.items() if run is None]
    daily = [job for job in jobs if any(job.renews_daily(name) for name in names)]
    bare = [name for name in names if not any(job.renews_daily(name) for job in daily)]
    last = moment(min((since[name] for name in late), default=context.now()))
    effect = "certificates and staples will end"
    if bare:
        flaws = [f"{job.place}: {job.flaw or 'it is for other certificates'}" for job in jobs if job.renews]
        seen = f" ({'; '.join(flaws)})" if flaws else ""
        missed = f", and none came by since {last}" if late else ""
        fact = f"no timer and no crontab runs `certbot renew` every day for {listed(bare)}{seen}{missed}"
        timer = "enable certbot's own timer with `systemctl enable --now certbot.timer`"
        fix = f"{timer}, or let cron run `certbot -q renew` twice a day"
        yield Finding("SCHEDULE-NONE", fact, effect, fix)
    elif late:
        place = f"although {daily[0].place} is to run it"
        fact = f"`certbot renew` did not come by for {listed(late)} since {last}, {place}"
        yield Finding("SCHEDULE-LATE", fact, effect, "run `certbot renew` and read what it says")
    elif daily and not any(job.place.endswith(".timer") for job in daily) and not schedule.has_cron(machine.root):
        fact = f"{daily[0].place} runs `certbot renew`, but no cron was found that would read it"
        yield Finding("SCHEDULE-NO-CRON", fact, "nothing may be renewed", "install one", WARNING)


def _known_since(lineage: Lineage) -> datetime:
    """Return from when on a run for the lineage could have been remembered: by this version of this program."""
    changes = os.stat(lineage.renewal_path).st_mtime, os.stat(__file__).st_ctime
    return max(lineage.not_before, datetime.fromtimestamp(max(changes), UTC))


def superseded(machine: Machine) -> Iterator[Finding]:
    """Yield the scripts and cron lines of the tutorial whose work is done by the plugin and another scheduler."""
    jobs, staple_dir = machine.jobs, machine.context.options.staple_dir
    folders = {staple_dir, "/" + os.path.relpath(staple_dir, machine.root)}
    names = [lineage.name for lineage in machine.renewed]
    proven = [job for job in jobs if job.is_packaged and job.has_plugin and all(map(job.renews_daily, names))]
    ours = units.RENEW, units.APPLY
    for job in [job for job in jobs if not job.is_packaged and not os.path.basename(job.place).startswith(ours)]:
        things = " and ".join(dict.fromkeys([job.place, *job.scripts]))
        if any(map(job.stores_staples, folders)):
            fact = f"{things} can go: it stores OCSP responses without verifying them, over the plugin's own"
            yield Finding("OCSP-SCRIPT", fact, "clients may be handed a staple that they refuse", "remove it")
        elif job.renews and proven:
            fact = f"{things} can go: `certbot renew` is run by {proven[0].place} already"
            yield Finding("SCHEDULE-TWICE", fact, "the work is done twice", "remove it", NOTE)


# --- certbot's own settings and hooks --------------------------------------------------------------------------------


def certbot_settings(machine: Machine) -> Iterator[Finding]:
    """Yield the lines of certbot's cli.ini that win over the renewal files, and let this plugin renew nothing."""
    plugins = {lineage.renewal.get(key) for lineage in machine.renewed for key in ("authenticator", "installer")}
    for path, stated in schedule.cli_settings(machine.root).items() if machine.renewed else ():
        chosen = {name: stated[name] for name in ("authenticator", "installer", "configurator") if name in stated}
        stronger: dict[str, str] = {name: value for name, value in chosen.items() if value not in plugins}
        if "http" not in stated.get("preferred_challenges", "http"):
            stronger["preferred-challenges"] = stated["preferred_challenges"]
        for name, value in stronger.items():
            fact = f"{path} has {name} = {value}, which certbot takes instead of what its renewal files say"
            yield Finding("CERTBOT-SETTING", fact, "this plugin does not renew", _TAKE_OUT, place=path)


def hooks_stop_nginx(machine: Machine) -> Iterator[Finding]:
    """Yield the hooks for all certificates that stop nginx: in certbot's folder, its cli.ini, and in what runs it."""
    if any(lineage.is_authenticated for lineage in machine.renewed):
        for place in schedule.places_that_stop_nginx(machine.jobs, machine.context.config_dir, machine.root):
            yield _stops_nginx(place, place)
