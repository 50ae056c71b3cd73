"""Sphinx's settings for `make docs`; the pages are Markdown and read well without it."""

import re
from pathlib import Path

from sphinx.application import Sphinx

_SOURCE = (Path(__file__).parent.parent / "certbot_seafile" / "__init__.py").read_text(encoding="utf-8")

project = "certbot-seafile"
copyright = "the authors of certbot-seafile"
version = release = re.search(r'^__version__ = "([^"]+)"$', _SOURCE, re.MULTILINE)[1]

extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "alabaster"
html_theme_options = {"description": "HTTPS for a Seafile server behind nginx", "page_width": "1080px"}
html_copy_source = False


def setup(app: Sphinx) -> None:
    """Let links to the README, which is none of the pages, lead to the file itself."""
    app.connect("source-read", hand_out_readme)


def hand_out_readme(app: Sphinx, page: str, source: list[str]) -> None:
    """Mark links to the README as links to a file for MyST; a forge's rendering follows them as they are written."""
    source[0] = re.sub(r"\]\(\.\./README\.md(?:#[^)]*)?\)", "](path:../README.md)", source[0])
