"""The pictures say what the program does, and can be read in a browser."""

from __future__ import annotations

import html
import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PICTURES = sorted((PROJECT / "docs" / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"

#: What a browser measures: texts that leave the box in which they begin, or the picture, and texts that overlap.
MEASURE = """
const svg = document.querySelector("svg"), flaws = [];
const boxes = [...svg.querySelectorAll("rect")].map(each => each.getBBox());
const texts = [...svg.querySelectorAll("text")].map(each => [each.textContent, each.getBBox()]);
const holds = (box, x, y) => box.x <= x && x <= box.x + box.width && box.y <= y && y <= box.y + box.height;
texts.forEach(([text, own], index) => {
  const around = boxes.filter(box => holds(box, own.x, own.y + own.height / 2));
  if (!around.length || !around.every(box => holds(box, own.x + own.width, own.y + own.height / 2)))
    flaws.push(text + ": leaves its box");
  for (const [other, its] of texts.slice(index + 1))
    if (own.x < its.x + its.width && its.x < own.x + own.width && own.y + 2 < its.y + its.height - 2 &&
        its.y + 2 < own.y + own.height - 2) flaws.push(text + ": overlaps " + other);
});
document.title = JSON.stringify([texts.length, flaws]);
"""


def texts(picture: Path) -> list[str]:
    """Return the lines of text in a picture."""
    return ["".join(each.itertext()) for each in ElementTree.parse(picture).iter(f"{SVG}text")]


def test_there_are_pictures() -> None:
    """The tests below look at something."""
    assert {picture.name for picture in PICTURES} == {"edits.svg", "floors.svg", "road.svg", "who-writes.svg"}


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_picture_says_in_words_what_it_shows(picture: Path) -> None:
    """It has a title and a description for those who cannot see it, and asks nothing of other hosts."""
    root = ElementTree.parse(picture).getroot()
    assert root.findtext(f"{SVG}title")
    assert len(root.findtext(f"{SVG}desc") or "") > 60
    assert "href" not in picture.read_text(encoding="utf-8")


def test_the_picture_of_the_floors_has_every_room() -> None:
    """Each module of the package stands in it, and none that is gone."""
    rooms = {path.stem for path in (PROJECT / "certbot_seafile").rglob("*.py")} - {"__init__"}
    root = ElementTree.parse(PROJECT / "docs" / "pictures" / "floors.svg").getroot()
    assert rooms == {each.text for each in root.iter(f"{SVG}text") if "monospace" in each.get("font-family", "")}


@pytest.mark.long
@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_a_browser_shows_every_text_in_its_box(picture: Path, tmp_path: Path) -> None:
    """Rendered without a screen, no text leaves its box or the picture, and none lies on another."""
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{picture.read_text()}<script>{MEASURE}</script>", "utf-8")
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is missing: `make test-docs` installs it")
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"]
    run = subprocess.run([browser, *words, page.as_uri()], check=True, capture_output=True, text=True, timeout=60)
    title = run.stdout.partition("<title>")[2].partition("</title>")[0]
    count, flaws = json.loads(html.unescape(title))
    assert count == len(texts(picture))
    assert flaws == []
