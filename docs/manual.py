"""Print the manual page: from the parser whose --help it repeats, and from manual.inc for what --help does not say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from argparse_manpage.manpage import Manpage

from certbot_seafile import __version__, cli, plugin

DOCS = Path(__file__).resolve().parent


def page() -> str:
    """Return certbot-seafile(1) in man(7)'s macros."""
    os.environ["COLUMNS"] = "1000"  # man(1) breaks the lines
    parser = cli._parser()
    parser.description = None  # manual.inc has a longer one
    options = parser.add_argument_group(
        "options of the plugin",
        "These belong to certbot's command line, beside -a seafile or -i seafile. What differs from the default is "
        "saved in the certificate's renewal file.",
    )
    known = parser._option_string_actions  # --seafile-ctl stands here and there
    for name in list(known):
        if name.startswith("--seafile-"):
            del known[name]
    plugin.Plugin.add_parser_arguments(lambda name, **about: options.add_argument(f"--seafile-{name}", **about))
    released = re.search(r"^## \[\d[^]]*\] - (\S+)$", (DOCS.parent / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert released is not None
    data = {
        "description": "certificate and OCSP staple of a Seafile server behind nginx", "version": __version__,
        "date": released[1], "manual_title": "User Commands", "include": str(DOCS / "manual.inc"),
    }  # fmt: skip
    return str(Manpage(parser, data, format="single-commands-section"))


if __name__ == "__main__":
    sys.stdout.write(page())
