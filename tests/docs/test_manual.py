"""The manual page is made from what --help is made from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_manual_page_is_made_from_the_parser() -> None:
    """The committed page is what docs/manual.py prints: `make manual` writes it."""
    run = subprocess.run([sys.executable, DOCS / "manual.py"], check=True, capture_output=True)
    assert (DOCS / "certbot-seafile.1").read_bytes() == run.stdout
