"""A renewal file: hooks that are joined once, what is completed and taken out, and files that are not whole."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from certbot_seafile import errors
from certbot_seafile.system import renewal

OURS = "/usr/bin/certbot-seafile --https-port 8443 deploy"

JOINED = {
    "none": (None, OURS),
    "none, as certbot writes it": ("None", OURS),
    "ours": (OURS, OURS),
    "ours of an earlier place": ("/opt/venv/bin/certbot-seafile deploy", OURS),
    "ours of a place with a space": ("'/opt/my venv/bin/certbot-seafile' --config-dir '/a b' deploy", OURS),
    "theirs": ("systemctl reload postfix", f"{OURS} || trap 'exit 1' EXIT; systemctl reload postfix"),
    "ours, with words of a person's": ("certbot-seafile -q deploy", OURS),
    "ours, with an option in one word": ("certbot-seafile --config-dir=/x deploy", OURS),
    "ours as a module": ("/usr/bin/python3 -m certbot_seafile deploy", OURS),
    "ours as a module with folders": ("env PYTHONPATH=/a:/b /usr/bin/python3 -m certbot_seafile deploy", OURS),
    "ours with a quote in a folder": ("""certbot-seafile --config-dir '/o'"'"'neill' deploy""", OURS),
    "theirs mentions ours": (
        "echo certbot-seafile deploy", f"{OURS} || trap 'exit 1' EXIT; echo certbot-seafile deploy"
    ),
    "theirs is called nearly so": (
        "/usr/local/bin/my-certbot-seafile deploy",
        f"{OURS} || trap 'exit 1' EXIT; /usr/local/bin/my-certbot-seafile deploy",
    ),
    "theirs runs ours too": (
        "certbot-seafile deploy; logger deploy", f"{OURS} || trap 'exit 1' EXIT; certbot-seafile deploy; logger deploy"
    ),
    "both already": (f"{OURS} || trap 'exit 1' EXIT; x", f"{OURS} || trap 'exit 1' EXIT; x"),
    "both, ours of an earlier place": (
        "certbot-seafile deploy || trap 'exit 1' EXIT; x", f"{OURS} || trap 'exit 1' EXIT; x"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("theirs", "joined"), JOINED.values(), ids=JOINED)
def test_hooks_are_joined_once(theirs: str | None, joined: str) -> None:
    """A person's hook stays, ours stands before it once, and an old spelling of ours is brought up to date."""
    assert renewal.join_hooks(OURS, theirs) == joined
    assert renewal.join_hooks(OURS, joined) == joined


@pytest.mark.parametrize("ours", [0, 1])
@pytest.mark.parametrize("theirs", ["true", "false", "exit 3", "echo done # a comment"])
def test_both_hooks_run_and_either_failure_counts(tmp_path: Path, ours: int, theirs: str) -> None:
    """The shell runs the person's hook whatever became of ours, and fails where one of them failed."""
    script = tmp_path / "certbot-seafile"
    script.write_text(f"#!/bin/sh\nexit {ours}\n")
    script.chmod(0o755)
    mark = tmp_path / "mark"
    joined = renewal.join_hooks(f"{shlex.quote(str(script))} deploy", f"echo ran > {mark}; {theirs}")
    done = subprocess.run(["/bin/sh", "-c", joined], check=False)
    assert mark.read_text() == "ran\n"
    assert (done.returncode != 0) == (ours != 0 or theirs in ("false", "exit 3"))


WHOLE = """\
version = 5.8.0
[renewalparams]
account = 1
authenticator = seafile
installer = seafile
seafile_staple_dir = /srv/OCSP
renew_hook = certbot-seafile deploy
"""


def test_completing_and_taking_out_are_inverse(tmp_path: Path) -> None:
    """What a person has there stays; after undo neither hook nor installer is ours."""
    path = tmp_path / "x.conf"
    path.write_text(WHOLE.replace("certbot-seafile deploy", "echo mine").replace("installer = seafile\n", ""))
    assert renewal.complete(str(path), OURS, {"https_port": 8443})
    known = renewal.parameters(str(path))
    assert known["renew_hook"] == f"{OURS} || trap 'exit 1' EXIT; echo mine"
    assert (known["installer"], known["https_port"]) == ("seafile", "8443")
    assert not renewal.complete(str(path), OURS, {"https_port": 8443})
    renewal.take_out(str(path))
    known = renewal.parameters(str(path))
    assert known["renew_hook"] == "echo mine"
    assert "installer" not in known
    assert renewal.complete(str(path), OURS, {})


@pytest.mark.parametrize("content", ["", "version = 1\n", "renewalparams = 1\n", "[renewalparams]\na = 1\na = 2\n",
                                     "[renewalparams]\naccount = 1\nauthen", "[renewalparams", "\xff\x00"])  # fmt: skip
def test_a_file_that_is_not_whole_says_nothing(tmp_path: Path, content: str) -> None:
    """Empty after a full disk, cut off, with a key twice, a scalar in the section's place: refused, and named."""
    path = tmp_path / "x.conf"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(errors.LineageRefused, match=r"x\.conf"):
        renewal.parameters(str(path))


@pytest.mark.parametrize("end", range(len(WHOLE) - 1))
def test_a_cut_off_file_is_never_taken_for_a_whole_one(tmp_path: Path, end: int) -> None:
    """Wherever it is cut: it is refused, or is_whole() says no, or nothing but the hook's own words are missing."""
    path = tmp_path / "x.conf"
    path.write_text(WHOLE[:end])
    try:
        known = renewal.parameters(str(path))
    except errors.LineageRefused:
        return
    if renewal.is_whole(known):
        assert known["seafile_staple_dir"] == "/srv/OCSP"
