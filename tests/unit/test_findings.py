"""What is found on a host that stands in a folder: expiry, who renews, what lets a renewal fail; and how it is told."""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from certbot_seafile.doctor import findings, renewing, rules
from certbot_seafile.doctor.findings import Finding
from certbot_seafile.usecases.boundary import Failure
from host import DAY, HOUR, NAME, NOW, Host

CERTBOT = f"#!{sys.executable}\n"
DEBIANS_LINE = "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && certbot -q renew\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Return a machine whose nginx, cron and certbot are there, and whose crontab renews every day."""
    made = Host(tmp_path)
    made.write("/usr/sbin/cron", "#!")
    made.write("/usr/bin/certbot", CERTBOT)
    made.write("/etc/cron.d/certbot", DEBIANS_LINE)
    made.write("/bin/certbot-seafile", CERTBOT)
    return made


# --- how it is told --------------------------------------------------------------------------------------------------

SCHEMA = json.loads((Path(__file__).resolve().parents[2] / "docs" / "check.schema.json").read_text(encoding="utf-8"))
TYPES: Mapping[str, type] = {"object": dict, "array": list, "string": str, "integer": int, "null": type(None)}

#: A finding, its sentence, and its command, file and line in the JSON.
TOLD: Mapping[str, tuple[Finding, str, tuple[str | None, str | None, int | None]]] = {
    "with a command": (
        Finding("A-B", "it is so", "that hurts", "run `x y` and see", name=NAME),
        f"{NAME}: it is so, so that hurts; run `x y` and see.",
        ("x y", None, None),
    ),
    "the fact says what to do": (
        Finding("A-B", "it is so; do this", "that hurts", severity=findings.WARNING),
        "it is so; do this; until then that hurts.",
        (None, None, None),
    ),
    "the fact begins with the name": (
        findings.of_failure(Failure(NAME, f"{NAME} is broken")),
        f"{NAME} is broken; until then this certificate is not checked, and nothing is done for it.",
        (None, None, None),
    ),
    "with a line": (
        Finding("A-B", "it is so", "nothing", "take it out", findings.NOTE, place="/etc/a:b.conf:12"),
        "it is so, so nothing; take it out.",
        (None, "/etc/a:b.conf", 12),
    ),
    "with a file": (
        Finding("A-B", "it is so", "nothing", "take it out", place="/etc/a:b.conf"),
        "it is so, so nothing; take it out.",
        (None, "/etc/a:b.conf", None),
    ),
}


def violations(value: object, schema: Mapping[str, Any], place: str = "") -> list[str]:
    """Return where a value departs from a schema, as far as the words go that check.schema.json has."""
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    is_wrong = (
        (kinds and type(value) not in [TYPES[kind] for kind in kinds])
        or ("const" in schema and value != schema["const"])
        or ("enum" in schema and value not in schema["enum"])
        or ("pattern" in schema and not re.search(schema["pattern"], str(value)))
    )
    wrong = [place or "the whole"] if is_wrong else []
    if isinstance(value, dict):
        wrong += sorted({*schema["required"]} ^ {*value})
        wrong += [at for key, part in schema["properties"].items() for at in violations(value.get(key), part, key)]
    if isinstance(value, list):
        wrong += [at for item in value for at in violations(item, schema["items"], place)]
    return wrong


@pytest.mark.parametrize("name", TOLD)
def test_a_finding_is_a_sentence_and_an_object(name: str) -> None:
    """What is so, what it does to people, what to do; for programs the same, with command, file and line apart."""
    finding, text, facts = TOLD[name]
    whole = findings.as_json([finding])
    (fields,) = whole["findings"]
    assert finding.text == fields["text"] == text
    assert (fields["command"], fields["file"], fields["line"]) == facts
    assert violations(whole, SCHEMA) == []


def test_the_schema_refuses_what_is_not_promised() -> None:
    """The test's reader of the schema sees a wrong type, a lost key, a foreign severity and an id in small letters."""
    assert violations(findings.as_json([]), SCHEMA) == []
    good = findings.as_json([TOLD["with a line"][0]])["findings"][0]
    bad = [good | {"line": "12"}, good | {"severity": "error"}, good | {"id": "a-b"}, {**good, "more": 1}]
    assert violations({"schema": 1, "findings": bad}, SCHEMA) == ["line", "severity", "id", "more"]
    assert violations({"schema": 2, "findings": None}, SCHEMA) == ["schema", "findings"]


# --- expiry ----------------------------------------------------------------------------------------------------------

#: Lifetime in days, what stands in the renewal file, and after how many days a renewal is due.
DUE: Mapping[str, tuple[float, str, float]] = {
    "90 days": (90, "version = 5.8.0\n", 60),
    "64 days": (64, "version = 5.8.0\n", 64 * 2 / 3),
    "45 days": (45, "version = 5.8.0\n", 30),
    "6 days": (6, "version = 5.8.0\n", 3),
    "2 days": (2, "version = 5.8.0\n", 1),
    "397 days": (397, "version = 5.8.0\n", 397 * 2 / 3),
    "no version": (90, "", 60),
    "certbot 2.1, 90 days": (90, "version = 2.1.0\n", 60),
    "certbot 2.1, 45 days": (45, "version = 2.1.0\n", 15),
    "certbot 2.1, 397 days": (397, "version = 2.1.0\n", 367),
    "certbot 2.1, 6 days": (6, "version = 2.1.0\n", 0),
    "its comment": (90, "# renew_before_expiry = 5 days\nversion = 5.8.0\n", 60),
    "its own, 20 days": (90, "version = 5.8.0\nrenew_before_expiry = 20 days\n", 70),
    "its own, 2 weeks": (90, "renew_before_expiry = 2 weeks\n", 76),
    "its own, a number": (90, "renew_before_expiry = 10\n", 80),
}


@pytest.mark.parametrize("name", DUE)
def test_a_renewal_is_missed_when_half_of_the_time_for_it_is_over_or_two_days(host: Host, name: str) -> None:
    """By certbot's own setting, else by what the certbot does that wrote the file; the share that is left is told."""
    days, top, due = DUE[name]
    lineage = host.mint(NOW, days, top)
    late = due + min(2, (days - due) / 2)
    assert not [text for text in host.sentences(NOW + late * DAY - HOUR) if "was not renewed" in text]
    (told,) = (text for text in host.sentences(NOW + late * DAY + HOUR) if "was not renewed" in text)
    assert f"({(days - late - 1 / 24) / days:.0%} of its lifetime is left)" in told
    assert [text for text in host.sentences(lineage.not_after) if "the certificate expired on" in text]


# --- who renews ------------------------------------------------------------------------------------------------------


def test_a_fresh_host_is_judged_by_its_crontabs(host: Host) -> None:
    """Where `certbot renew` never came by, a daily line is well, and none, or one with a flaw, is a fault."""
    assert host.machine() == []
    line = host.write("/etc/cron.d/certbot", "1 2 * * * root certbot renew --dry-run\n")
    (fault,) = host.machine()
    assert fault.is_fault
    assert f"every day for {NAME} ({line}:1: with --dry-run, it renews nothing)" in fault.text
    line.unlink()
    assert "no timer and no crontab runs `certbot renew`" in host.machine()[0].text
    line.write_text("1 2 * * * root certbot renew --cert-name other\n")
    assert f"{line}:1: it is for other certificates" in host.machine()[0].text


def test_a_host_whose_last_run_is_young_is_healthy(host: Host) -> None:
    """Whatever its timers and crontabs look like, as in a container with a loop of its own."""
    (host.root / "etc/cron.d/certbot").unlink()
    host.remember(NOW - 47 * HOUR)
    assert host.machine() == []


def test_a_host_whose_last_run_is_old_is_sick(host: Host) -> None:
    """SCHEDULE-LATE: Also where a crontab promises better; where none does, that is named as the reason."""
    host.remember(NOW - 49 * HOUR)
    (fault,) = host.machine()
    assert fault.is_fault
    assert f"did not come by for {NAME} since {NOW - 49 * HOUR:%Y-%m-%d %H:%M} UTC, although" in fault.text
    (host.root / "etc/cron.d/certbot").unlink()
    (fault,) = host.machine()
    assert "no timer and no crontab runs `certbot renew`" in fault.text
    assert "none came by since" in fault.text


def test_a_timer_that_is_too_rare_shows_by_the_age_of_the_last_run(host: Host) -> None:
    """SCHEDULE-LATE names a weekly timer from the third day on; how often it is to run is not read."""
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.write("/etc/cron.d/certbot", "")
    timer = host.write("/etc/systemd/system/renew.timer", "[Timer]\nOnCalendar=weekly\n")
    host.write("/etc/systemd/system/renew.service", "[Service]\nExecStart=/usr/bin/certbot -q renew\n")
    host.write("/etc/systemd/system/timers.target.wants/renew.timer", "")
    host.remember(NOW - 47 * HOUR)
    assert host.machine() == []
    host.remember(NOW - 49 * HOUR)
    (fault,) = host.machine()
    assert (fault.id, fault.text.count(f"although {timer} is to run it, so")) == ("SCHEDULE-LATE", 1)


def test_a_host_where_renew_never_came_by_is_sick_after_two_days(host: Host) -> None:
    """As where Debian's certbot, which has no plugin, is run beside the one that has: not before this was installed."""
    installed = datetime.datetime.fromtimestamp(os.stat(renewing.__file__).st_ctime, datetime.UTC)
    assert host.machine(installed + 47 * HOUR) == []
    assert "did not come by" in host.machine(installed + 49 * HOUR)[0].text


# --- what can go -----------------------------------------------------------------------------------------------------


def test_a_second_renewal_can_go_only_where_the_first_was_seen_to_have_this_plugin(host: Host) -> None:
    """Debian's certbot beside another one with the plugin is no reason to remove that one's line."""
    line = host.write("/etc/crontab", "1 2 * * * root /usr/bin/certbot renew\n")
    (note,) = host.machine()
    assert (note.is_fault, note.text.startswith(f"{line}:1 can go")) == (False, True)
    host.write("/usr/bin/certbot", "#!/usr/lib/debian/python3\n")
    assert host.machine() == []
    host.write("/usr/bin/certbot", CERTBOT)
    host.write("/etc/cron.d/certbot", DEBIANS_LINE.replace("-q renew", "-q renew --config-dir /srv/le"))
    assert host.machine() == []


def test_our_own_units_are_no_second_renewal(host: Host) -> None:
    """What `setup` wrote for another user is not advised away, though certbot's own timer runs here."""
    (host.root / "run/systemd/system").mkdir(parents=True)
    host.write("/etc/cron.d/certbot", "")
    for folder, stem in (("lib", "certbot"), ("etc", "certbot-seafile-renew"), ("etc", "own")):
        host.write(f"/{folder}/systemd/system/{stem}.timer", "[Timer]\nOnCalendar=daily\n")
        host.write(f"/{folder}/systemd/system/{stem}.service", "[Service]\nExecStart=/usr/bin/certbot -q renew\n")
        host.write(f"/etc/systemd/system/timers.target.wants/{stem}.timer", "")
    (note,) = host.machine()
    assert (note.id, note.severity) == ("SCHEDULE-TWICE", findings.NOTE)
    assert note.text.startswith(f"{host.root}/etc/systemd/system/own.timer can go")


OCSP_SCRIPT = "#!/bin/sh\nopenssl ocsp -issuer a -cert b -respout {folder}/x/ocsp.response\n"


@pytest.mark.parametrize(("folder", "is_told"), [("/etc/nginx/OCSP", True), ("/etc/haproxy/ocsp", False)])
def test_a_script_that_stores_staples_can_go_only_where_they_are_ours(host: Host, folder: str, is_told: bool) -> None:
    """The tutorial's script writes over verified staples; HAProxy's is its own matter, and so is a backup of ours.

    OCSP-SCRIPT.
    """
    host.write("/etc/cron.daily/ocsp", OCSP_SCRIPT.format(folder=folder))
    host.write("/etc/cron.daily/backup", "#!/bin/sh\ntar cf /srv/a.tar /etc/nginx/OCSP/x/ocsp.response\n")
    told = [finding for finding in host.machine() if finding.is_fault and "can go" in finding.text]
    assert bool(told) == is_told


# --- what lets a renewal fail ----------------------------------------------------------------------------------------

STOPS = ("systemctl stop nginx", "service nginx stop", "/etc/init.d/nginx stop", "nginx -s quit", "pkill -x nginx")


@pytest.mark.parametrize("command", STOPS)
def test_a_pre_hook_that_stops_nginx_is_a_fault(host: Host, command: str) -> None:
    """HOOK-STOPS-NGINX: In the folder of pre-hooks, in the renewal file, in a crontab's line and in cli.ini."""
    hook = host.write("/etc/letsencrypt/renewal-hooks/pre/stop", f"#!/bin/sh\n{command}\n")
    assert f"{hook} stops nginx before a renewal" in host.machine()[0].text
    hook.chmod(0o644)  # certbot passes it over
    assert host.machine() == []
    host.mint(pre_hook=command)
    assert f"pre_hook in {host.lineage.renewal_path} stops nginx" in host.sentences()[0]
    settings = host.write("/etc/letsencrypt/cli.ini", f"pre-hook = {command}\n")
    assert f"{settings} stops nginx" in host.machine()[0].text
    settings.unlink()
    line = host.write("/etc/cron.d/certbot", f"1 2 * * * root certbot renew --pre-hook '{command}'\n")
    assert f"{line}:1 stops nginx" in host.machine()[0].text


def test_other_pre_hooks_are_no_fault(host: Host) -> None:
    """One that reloads nginx, stops another server, or only speaks of stopping in a comment."""
    host.write("/etc/letsencrypt/renewal-hooks/pre/own", "#!/bin/sh\n# stop nginx\nnginx -s reload\nsystemctl stop x\n")
    assert host.machine() == []


@pytest.mark.parametrize(
    "line", ["authenticator = nginx", "installer = nginx", "configurator = apache", "preferred-challenges = dns"]
)
def test_certbots_own_settings_that_win_over_the_renewal_files_are_faults(host: Host, line: str) -> None:
    """CERTBOT-SETTING: certbot takes them for the person's own choice at each renewal."""
    settings = host.write("/etc/letsencrypt/cli.ini", f"# authenticator = x\nrsa-key-size = 4096\n{line}\n")
    (fault,) = host.machine()
    assert f"{settings} has {line}" in fault.text
    settings.write_text("authenticator = seafile\npreferred-challenges = http, dns\n")
    assert host.machine() == []


PARAMETERS: Mapping[str, dict[str, Any]] = {
    "autorenew = False": {"autorenew": False},
    "pref_challs without http-01": {"pref_challs": "dns-01,"},
}


@pytest.mark.parametrize("fact", PARAMETERS)
def test_a_renewal_file_that_prevents_renewals_is_a_fault(host: Host, fact: str) -> None:
    """certbot passes the lineage over, or asks for a challenge that this plugin does not answer.

    RENEWAL-OFF, RENEWAL-NO-HTTP.
    """
    host.mint(**PARAMETERS[fact])
    assert [text for text in host.sentences() if fact in text]
    host.mint(autorenew=True, pref_challs="http-01,")
    assert host.sentences() == []


@pytest.mark.parametrize("name", ["privkey.pem", "fullchain.pem"])
def test_a_file_that_is_gone_is_named_with_the_way_back(host: Host, name: str) -> None:
    """CERT-FILE-GONE: certbot itself renews such a lineage no more, so no renewal is advised."""
    (host.config_dir / "live" / NAME / name).resolve().unlink()
    (sentence,) = host.sentences()
    assert f"live/{NAME}/{name} is gone" in sentence
    assert f"certbot-seafile undo --cert-name {NAME}" in sentence
    assert "renew --force-renewal" not in sentence


# --- who else uses the certificate -----------------------------------------------------------------------------------

#: The names of a server block, those of the certificate and of the one before, and those that are told.
BLOCKS: Mapping[str, tuple[str, Sequence[str], Sequence[str], str]] = {
    "its own name": (NAME, [NAME], [NAME], ""),
    "a name that it never had, beside its own": (f"{NAME} www.seafile.com", [NAME], [NAME], ""),
    "a name that it has lost": (f"{NAME} www.seafile.com", [NAME], [NAME, "www.seafile.com"], "www.seafile.com"),
    "another site's names": ("a.seafile.com b.seafile.com", [NAME], [NAME], "a.seafile.com, b.seafile.com"),
    "a name that a wildcard covers": ("a.seafile.com", ["*.seafile.com"], [NAME], ""),
    "a name that a wildcard does not cover": ("a.b.seafile.com", ["*.seafile.com"], [NAME], "a.b.seafile.com"),
    "no name": ("_", [NAME], [NAME], ""),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_every_server_block_that_uses_the_certificate_is_looked_at(host: Host, name: str) -> None:
    """A block whose clients are handed a certificate for somebody else is named with its names."""
    served, names, before, told = BLOCKS[name]
    host.mint(names=before)
    host.mint(names=names, number=2)
    site = f"listen 127.0.0.1:1 ssl; server_name {NAME};"
    block = f"listen 127.0.0.1:1 ssl;\nserver_name {served};\nssl_certificate {host.lineage.fullchain_path};"
    conf = host.write("/etc/nginx/nginx.conf", f"http {{ server {{ {site} }}\nserver {{ {block} }} }}")
    sentences = [text for text in host.sentences() if "uses this certificate for" in text]
    assert len(sentences) == bool(told)
    assert not told or f"the server block at {conf}:2 uses this certificate for {told}, and" in sentences[0]


# --- the site --------------------------------------------------------------------------------------------------------


def test_site_not_found_says_what_nginx_lacks(host: Host) -> None:
    """SITE-NOT-FOUND: no server block is for the certificate's names."""
    found = rules.of_lineage(host.context(), host.lineage, host.whole())
    assert [(each.id, each.is_fault) for each in found] == [("SITE-NOT-FOUND", True)]


def test_challenge_no_port_where_the_site_answers_by_tls_only(host: Host) -> None:
    """CHALLENGE-NO-PORT: the CA looks at port 80, and the command that follows makes a server block for it."""
    (fault,) = [each for each in host.of_site("") if each.id.startswith("CHALLENGE")]
    assert (fault.id, fault.command) == ("CHALLENGE-NO-PORT", f"certbot-seafile deploy --cert-name {NAME}")
