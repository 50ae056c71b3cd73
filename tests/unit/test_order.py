"""The order of writes: what is written down before what, so that a killed run leaves an nginx that starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import authority
import lineages as lineages_on_disk
from certbot_seafile.ocsp import store
from certbot_seafile.site import edits, syntax
from certbot_seafile.site.config import Configuration, File, Statement
from certbot_seafile.system import files, lineages, records, writing
from certbot_seafile.system.journal import Journal
from certbot_seafile.system.lineages import Lineage

NAME = "seafile.example.com"
ISSUER = authority.make_ca()


@pytest.fixture
def lineage(tmp_path: Path) -> Lineage:
    """Give a lineage whose staples are kept below the test's folder."""
    options = {"seafile_staple_dir": tmp_path / "OCSP"}
    lineages_on_disk.make(tmp_path / "config", NAME, authority.make_leaf(ISSUER, [NAME]), ISSUER, options)
    return lineages.load(str(tmp_path / "config"), NAME)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of files in the order in which they are replaced or removed."""
    order: list[str] = []

    def noting(function: Callable[..., Any], sign: str) -> Callable[..., Any]:
        def noted(path: str, *arguments: Any, **options: Any) -> Any:
            result = function(path, *arguments, **options)
            if sign == "+" or result:
                order.append(sign + Path(path).name)
            return result

        return noted

    monkeypatch.setattr(files, "replace", noting(files.replace, "+"))
    monkeypatch.setattr(files, "remove", noting(files.remove, "-"))
    return order


def context(tmp_path: Path) -> Any:
    """Return a context whose nginx loads whatever it is told to, and names nothing."""
    nginx = SimpleNamespace(
        test=lambda: "", reload=lambda: None, changed=lambda: None,
        configuration=lambda: Configuration(File("nginx.conf", b""), lambda pattern: ()),
    )  # fmt: skip
    return SimpleNamespace(
        nginx=nginx, state_dir=str(tmp_path / "state"), journal=Journal(str(tmp_path / "state")), renewer=None,
        checkpoints=SimpleNamespace(close=lambda: None, add=lambda *_: None, finish=lambda _: None, drop=lambda: None),
    )  # fmt: skip


def test_a_staple_is_stored_before_what_names_it(tmp_path: Path, lineage: Lineage, written: list[str]) -> None:
    """The record says that nginx must reload, then comes the response, then the snippet; the record ends the round."""
    record = records.load(str(tmp_path / "state"), lineage)
    staple = SimpleNamespace(response=b"a response")
    loading = store.Round(context(tmp_path))
    assert loading.write(lineage, store.Outcome(staple, record))  # type: ignore[arg-type]
    assert written == [f"+{NAME}.json", "+ocsp.response", f"+{NAME}.conf"]
    assert records.load(str(tmp_path / "state"), lineage).needs_reload
    loading.finish()
    assert written[3:] == [f"+{NAME}.json"]
    assert not records.load(str(tmp_path / "state"), lineage).needs_reload


def test_a_staple_is_withdrawn_after_what_names_it(tmp_path: Path, lineage: Lineage, written: list[str]) -> None:
    """The snippet goes first, nginx reloads, and only then goes the response."""
    record = records.load(str(tmp_path / "state"), lineage)
    first = store.Round(context(tmp_path))
    first.write(lineage, store.Outcome(SimpleNamespace(response=b"a response"), record))  # type: ignore[arg-type]
    first.finish()
    written.clear()
    loading = store.Round(context(tmp_path))
    assert loading.write(lineage, store.Outcome(None, records.load(str(tmp_path / "state"), lineage), "none"))
    assert written == [f"+{NAME}.json", f"-{NAME}.conf"]
    loading.finish()
    assert written[2:] == [f"+{NAME}.json", "-ocsp.response"]


def test_an_edit_is_in_the_journal_before_it_is_in_the_file(tmp_path: Path, written: list[str]) -> None:
    """So undo can take it out again however the run ended."""
    site = tmp_path / "site.conf"
    site.write_bytes(b"listen 80;\n")
    tree = syntax.parse(site.read_bytes())
    planned = edits.Edits()
    planned.insert_after(Statement(str(site), tree.directives[0]), [b"listen 443;"])
    with writing.edited(context(tmp_path), planned, f"test {NAME}"):
        assert site.read_bytes() == b"listen 80;\nlisten 443;\n"
    assert written[0].endswith(".json")
    assert written[1] == "+site.conf"
