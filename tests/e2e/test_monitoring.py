"""What docs/monitoring.md tells: the textfile and its alerts as Prometheus reads them, and status on a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e import road
from e2e.front import validity
from e2e.processes import find_tool
from e2e.world import Run, World

DOCS = Path(__file__).resolve().parents[2] / "docs"
ALERTS = DOCS / "monitoring" / "alerts.yml"
TEXTFILE = "/var/lib/prometheus/node-exporter/certbot-seafile.prom"
DAY = 86400


@pytest.fixture
def promtool() -> str:
    """Return the path of promtool; skip where it is not installed."""
    path = find_tool("promtool")
    if path is None:
        pytest.skip("no promtool, which tests/setup-environment takes from Debian's package prometheus")
    return path


def the_line() -> str:
    """Return the page's crontab line that writes the textfile."""
    (line,) = re.findall(r"^    (\*/15 .*--prometheus.*)$", (DOCS / "monitoring.md").read_text(), re.MULTILINE)
    assert TEXTFILE in line
    return str(line)


def write_textfile(world: World, check: bool = True) -> Run:
    """Run the page's line, with the world's folders."""
    program, *words = the_line().partition("root ")[2].split()
    assert program == "certbot-seafile"
    return world.seafile(*(str(world.path(word)) if word.startswith("/") else word for word in words), check=check)


def metric(text: str, name: str) -> int:
    """Return the value of the one sample of a metric about the lineage."""
    (value,) = re.findall(rf'^certbot_seafile_{name}{{name="{re.escape(road.NAME)}"}} (\d+)$', text, re.MULTILINE)
    return int(value)


def test_the_pages_line_writes_what_node_exporter_reads(restored: World, promtool: str) -> None:
    """The file is whole, for everybody to read, alone in its folder, and promtool has nothing to say about it."""
    path = restored.path(TEXTFILE)
    path.parent.mkdir(parents=True, exist_ok=True)
    restored.certbot("renew")
    assert write_textfile(restored).output == ""
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    checked = subprocess.run([promtool, "check", "metrics"], input=path.read_bytes(), capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    text = path.read_text()
    assert metric(text, "served_matches") == metric(text, "last_run_success") == 1
    end = int(validity(restored.leaf(road.NAME))[1].timestamp())
    assert metric(text, "certificate_not_after_timestamp_seconds") == end
    assert metric(text, "served_not_after_timestamp_seconds") == end


def test_a_hyphen_is_stdout(restored: World) -> None:
    """The same text, and what is wrong shows in it: another certificate is served."""
    assert metric(restored.seafile("status", "--prometheus", "-").stdout, "served_matches") == 1
    ssl, live = restored.path("/etc/ssl/private"), restored.lineage(road.NAME)
    by_hand = road.site_bytes(restored).replace(b"%s/fullchain" % bytes(live), b"%s/cacert" % bytes(ssl))
    (restored.sites / road.SITE_NAME).write_bytes(by_hand.replace(bytes(live), bytes(ssl)))
    restored.reload_nginx()
    text = restored.seafile("status", "--prometheus", "-").stdout
    assert metric(text, "served_matches") == 0
    assert metric(text, "served_not_after_timestamp_seconds") > time.time()
    assert re.search(r'^certbot_seafile_findings{severity="fault"} [1-9]', text, re.MULTILINE)


def test_a_textfile_that_cannot_be_written_is_told(restored: World) -> None:
    """One line, exit 1; what was there before stays."""
    shutil.rmtree(restored.path(TEXTFILE).parent, ignore_errors=True)
    run = write_textfile(restored, check=False)
    assert run.exit_code == 1
    assert run.stdout == ""
    assert f"{restored.path(TEXTFILE)} cannot be written" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_one_form_at_a_time(restored: World) -> None:
    """JSON and textfile at once is wrong usage."""
    assert restored.seafile("status", "--json", "--prometheus", "-", check=False).exit_code == 2


def test_the_pages_line_is_no_renewal(restored: World) -> None:
    """check takes the crontab line neither for a renewal, nor for what can go."""
    restored.path("/etc/cron.d/certbot-seafile-status").write_text(f"{the_line()}\n")
    run = restored.seafile("check", "--root", restored.folder)
    assert run.stdout == "All is well.\n"


# --- the alerts -------------------------------------------------------------------------------------------------------

#: What a certificate of 90 days in its 10th day says; promtool's clock begins at 0.
WELL: Mapping[str, int] = {
    "certificate_not_before_timestamp_seconds": -10 * DAY,
    "certificate_not_after_timestamp_seconds": 80 * DAY,
    "served_not_after_timestamp_seconds": 80 * DAY,
    "served_matches": 1,
    "staple_next_update_timestamp_seconds": 3 * DAY,
    "renewal_due_timestamp_seconds": 50 * DAY,
    "last_run_timestamp_seconds": 0,
    "last_run_success": 1,
}
#: What differs, when to look, and what is to be alerted.
SICK: Mapping[str, tuple[Mapping[str, int], int, set[str]]] = {
    "well": ({}, 2 * DAY, set()),
    "due, and a week is left": ({"renewal_due_timestamp_seconds": 0}, 2 * DAY, set()),
    "not renewed": ({"renewal_due_timestamp_seconds": -28 * DAY}, 2 * DAY, {"CertificateNotRenewed"}),
    "six days, not renewed": (
        {
            "certificate_not_before_timestamp_seconds": -4 * DAY,
            "certificate_not_after_timestamp_seconds": 2 * DAY,
            "served_not_after_timestamp_seconds": 2 * DAY,
            "renewal_due_timestamp_seconds": -1 * DAY,
        },
        DAY // 2,
        {"CertificateNotRenewed"},
    ),
    "near its end": (
        {
            "certificate_not_before_timestamp_seconds": -86 * DAY,
            "certificate_not_after_timestamp_seconds": 4 * DAY,
            "renewal_due_timestamp_seconds": -26 * DAY,
        },
        DAY,
        {"CertificateNotRenewed", "CertificateExpires"},
    ),
    "no run for two days": ({}, 2 * DAY + 60, {"NoRenewalRun"}),
    "runs fail": ({"last_run_success": 0}, 2 * DAY, {"RenewalRunFailed"}),
    "another is served": ({"served_matches": 0}, 2 * DAY, {"ServedIsNotStored"}),
    "the served one ends": (
        {"served_not_after_timestamp_seconds": 3 * DAY - 60},
        2 * DAY,
        {"ServedCertificateExpires"},
    ),
    "staple not refreshed": ({"staple_next_update_timestamp_seconds": DAY}, 2 * DAY, {"StapleNotRefreshed"}),
}
NAMES = re.findall(r"alert: (\w+)", ALERTS.read_text())


def test_the_alerts_are_rules(promtool: str) -> None:
    """promtool takes the file as it is."""
    checked = subprocess.run([promtool, "check", "rules", ALERTS], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert f"{len(NAMES)} rules found" in checked.stdout


@pytest.mark.parametrize("name", SICK)
def test_each_alert_comes_for_its_reason_alone(name: str, promtool: str, tmp_path: Path) -> None:
    """Of a machine that is well but for one thing, Prometheus itself says which alerts fire."""
    changes, seconds, wanted = SICK[name]
    series = [
        {"series": f'certbot_seafile_{metric}{{name="home",instance="host"}}', "values": f"{value}x{seconds // 60}"}
        for metric, value in {**WELL, **changes}.items()
    ]
    queries = [
        {"expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)', "eval_time": f"{seconds}s",
         "exp_samples": [{"labels": "{}", "value": int(alert in wanted)}]}
        for alert in NAMES
    ]  # fmt: skip
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": queries}]
    shutil.copy(ALERTS, tmp_path)
    content = {"rule_files": [ALERTS.name], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "test.yml").write_text(json.dumps(content))
    command = [promtool, "test", "rules", "test.yml"]
    tested = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert tested.returncode == 0, tested.stdout + tested.stderr


# --- status -----------------------------------------------------------------------------------------------------------


def on_a_terminal(world: World, **environment: str) -> str:
    """Return what `status` prints on a terminal."""
    here, there = os.openpty()
    command = [str(Path(sys.executable).parent / "certbot-seafile"), *world.folders, "status"]
    with open(there, "wb") as terminal:
        env = world.environment({"TERM": "xterm", **environment})
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=terminal, env=env, check=True)
    with open(here, "rb") as printed:
        return os.read(printed.fileno(), 65536).decode()


def test_colour_is_for_terminals_only(restored: World) -> None:
    """What is wrong is red on a terminal, and never elsewhere; what is well has no colour."""
    assert "\x1b" not in on_a_terminal(restored)
    restored.stop_nginx()
    try:
        assert "\x1b[31mNOTHING\x1b[0m" in on_a_terminal(restored)
        assert "NOTHING" in on_a_terminal(restored, NO_COLOR="1")
        assert "\x1b" not in on_a_terminal(restored, NO_COLOR="1")
        assert "\x1b" not in on_a_terminal(restored, TERM="dumb")
        assert "\x1b" not in restored.seafile("status").stdout
    finally:
        restored.start_nginx()


def test_a_row_and_its_details_say_how_renewals_go(restored: World) -> None:
    """After a run with nothing due; with ARI, as certbot keeps it, the details say when the CA is asked again."""
    restored.certbot("renew")
    renewal = restored.config_dir / "renewal" / f"{road.NAME}.conf"
    text = re.sub(r"(?s)\[acme_renewal_info\].*?(?=\[|\Z)", "", renewal.read_text())
    renewal.write_text(text.rstrip() + "\n[acme_renewal_info]\nari_retry_after = 2031-01-02T03:04:05\n")
    env = {"TZ": "UTC"}
    header, row, *details = restored.seafile("status", "--cert-name", road.NAME, env=env).stdout.splitlines()
    assert max(map(len, [header, row, *details])) <= 80
    assert re.search(r"  ok 0 h ago  3 d +yes, stapled$", row)
    assert "asked again from 2031-01-02 03:04 UTC on" in " ".join(" ".join(details).split())
    (fields,) = json.loads(restored.seafile("status", "--json", env=env).stdout)["lineages"]
    assert fields["ca_asked_from"] == "2031-01-02T03:04:05Z"
    assert fields["last_run"] is not None
    assert fields["last_failure"] is None
    assert fields["begins"] < fields["renewal_due"] < fields["expires"] == fields["served_until"]
