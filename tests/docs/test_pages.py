"""The pages lead to each other, and each begins with what it is for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted({*PROJECT.glob("*.md"), *(PROJECT / "docs").glob("*.md")})
_FENCE = re.compile(r"^(```+).*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges and MyST make them."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(page)))
    return {heading.strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    """The file is there, and where a heading is named, it has that heading."""
    for link in _LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "docs"], ids=lambda page: page.name)
def test_a_page_begins_with_its_title_and_what_it_is_for(page: Path) -> None:
    """After the title comes a paragraph, before any list, table, command or further heading."""
    title, _, first = page.read_text(encoding="utf-8").split("\n", 2)
    assert re.fullmatch(r"# \S.*", title)
    assert re.match(r"[A-Za-z`]", first)


def test_the_index_leads_to_every_page() -> None:
    """Each page of docs/ is linked from the index, and stands in its table of contents."""
    index = (PROJECT / "docs" / "index.md").read_text(encoding="utf-8")
    names = {page.name for page in PAGES if page.parent.name == "docs"} - {"index.md"}
    (contents,) = re.findall(r"```\{toctree\}\n(?::.*\n)*\n(.*?)```", index, re.DOTALL)
    assert names - set(_LINK.findall(index)) == set()
    assert {f"{name}.md" for name in contents.split()} == names
