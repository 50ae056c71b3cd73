"""The order of writes: what is written down before what, so that a killed run leaves an nginx that starts."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import authority
import lineages as lineages_on_disk
from certbot_seafile import errors
from certbot_seafile.ocsp import store
from certbot_seafile.sealed import handover, seal, versions
from certbot_seafile.site import edits, syntax
from certbot_seafile.site.config import Configuration, File, Statement
from certbot_seafile.system import files, lineages, records, serving, writing
from certbot_seafile.system.journal import Journal
from certbot_seafile.system.lineages import Lineage
from certbot_seafile.usecases import install

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
        test=lambda: "", reload=lambda *_: None, changed=lambda: None, foresee=lambda _: None,
        refuse_unseen=lambda _: None, wait_seconds=0.0, settles_at=0.0,
        configuration=lambda: Configuration(File("nginx.conf", b""), lambda pattern: ()),
    )  # fmt: skip
    return SimpleNamespace(
        nginx=nginx, options=lineages.Options(), renewer=None,
        state_dir=str(tmp_path / "state"), journal=Journal(str(tmp_path / "state")),
        checkpoints=SimpleNamespace(close=lambda: None, add=lambda *_: None, finish=lambda _: None, drop=lambda: None),
    )  # fmt: skip


def mark(tmp_path: Path) -> records.Mark:
    """Return whether the context's nginx must reload."""
    return records.Mark(str(tmp_path / "state"), "nginx", None)


def test_a_staple_is_stored_before_what_names_it(tmp_path: Path, lineage: Lineage, written: list[str]) -> None:
    """That nginx must reload is written down, then comes the response, then the snippet; a reload ends the round."""
    record = replace(records.load(str(tmp_path / "state"), lineage), last_success=datetime.datetime.now(datetime.UTC))
    staple = SimpleNamespace(response=b"a response")
    loading = store.Round(context(tmp_path))
    assert loading.write(lineage, store.Outcome(staple, record))  # type: ignore[arg-type]
    assert written == ["+reload.json", f"+{NAME}.json", "+ocsp.response", f"+{NAME}.conf"]
    assert mark(tmp_path).is_set
    loading.finish()
    assert written[4:] == ["-reload.json"]
    assert not mark(tmp_path).is_set


def test_of_many_staples_the_first_marks_and_any_later_round_reloads(tmp_path: Path, written: list[str]) -> None:
    """Two files are written for each; what a killed round left, the next one loads, of whichever lineage that is."""
    names, state_dir, config = ["a.example.com", "b.example.com"], str(tmp_path / "state"), tmp_path / "config"
    for name in names:
        options = {"seafile_staple_dir": tmp_path / "OCSP"}
        lineages_on_disk.make(config, name, authority.make_leaf(ISSUER, [name]), ISSUER, options)
    loaded = [lineages.load(str(config), name) for name in names]

    def begin(response: bytes, *lineages: Lineage) -> store.Round:
        loading = store.Round(context(tmp_path))
        for each in lineages:
            record = replace(records.load(state_dir, each), last_success=datetime.datetime.now(datetime.UTC))
            staple = SimpleNamespace(response=response)
            loading.write(each, store.Outcome(staple, record))  # type: ignore[arg-type]
        return loading

    begin(b"a response", *loaded).finish()
    written.clear()
    begin(b"a newer response", *loaded)
    assert written == ["+reload.json", *(file for name in names for file in (f"+{name}.json", "+ocsp.response"))]
    later = begin(b"a newer response", loaded[1])
    assert later.must_reload
    later.finish()
    assert not begin(b"a newer response", loaded[0]).must_reload


def test_a_staple_is_withdrawn_after_what_names_it(tmp_path: Path, lineage: Lineage, written: list[str]) -> None:
    """The snippet goes first, nginx reloads, and only then goes the response."""
    record = records.load(str(tmp_path / "state"), lineage)
    first = store.Round(context(tmp_path))
    first.write(lineage, store.Outcome(SimpleNamespace(response=b"a response"), record))  # type: ignore[arg-type]
    first.finish()
    written.clear()
    loading = store.Round(context(tmp_path))
    assert loading.write(lineage, store.Outcome(None, records.load(str(tmp_path / "state"), lineage), "none"))
    assert written == ["+reload.json", f"-{NAME}.conf"]
    loading.finish()
    assert written[2:] == ["-reload.json", "-ocsp.response"]


def test_an_edit_is_in_the_journal_before_it_is_in_the_file(tmp_path: Path, written: list[str]) -> None:
    """So undo can take it out again however the run ended."""
    site = tmp_path / "site.conf"
    site.write_bytes(b"listen 80;\n")
    directives = syntax.parse(site.read_bytes())
    planned = edits.Edits()
    planned.insert_after(Statement(str(site), directives[0]), [b"listen 443;"])
    with writing.edited(context(tmp_path), planned, "test", NAME):
        assert site.read_bytes() == b"listen 80;\nlisten 443;\n"
    assert written[0].endswith(".json")
    assert written[1] == "+site.conf"


@pytest.fixture
def sealing(tmp_path: Path, written: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a context in which a version can be served: nginx's part is noted beside the files."""
    working = context(tmp_path)
    working.now = lambda: datetime.datetime.now(datetime.UTC)
    working.nginx = SimpleNamespace(**vars(working.nginx) | {
        "test_alone": lambda lines, folder: written.append("trial"), "test": lambda: written.append("test"),
        "reload": lambda: written.append("reload"),
    })  # fmt: skip
    make = files.make_whole_folder

    def noted(path: str, contents: Any) -> None:
        make(path, contents)
        written.append("+version")

    monkeypatch.setattr(files, "make_whole_folder", noted)
    monkeypatch.setattr(serving, "find_site", lambda *_: SimpleNamespace(paths=()))
    monkeypatch.setattr(install, "put_into_site", lambda *_: False)
    monkeypatch.setattr(serving, "verify_served", lambda *_: written.append("look"))
    return working


def serve(working: Any, lineage: Lineage, response: bytes | None = b"a response") -> versions.Version:
    """Seal what the lineage has now."""
    bundle = handover.read_bundle(lineage, response)
    return seal.serve(working, lineage, bundle, records.load(working.state_dir, lineage))


def test_a_version_is_whole_and_tried_before_the_snippet_names_it(
    sealing: Any, lineage: Lineage, written: list[str]
) -> None:
    """Then it is written down that nginx must read it, the snippet switches, nginx reads, a client looks."""
    serve(sealing, lineage)
    order = [step for step in written if step != "+.gitignore"]
    record = f"+{NAME}.json"
    assert order[:8] == ["+version", "trial", record, f"+{NAME}.conf", "test", "reload", "look", record]


def test_what_a_client_refuses_is_taken_back(
    sealing: Any, lineage: Lineage, written: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The snippet names the version before again and nginx reads that; then the refused one goes, its key first."""
    first = serve(sealing, lineage)
    snippet = Path(lineage.snippet_path).read_bytes()

    def refuse(*_: object) -> None:
        raise errors.NotServed("another certificate")

    monkeypatch.setattr(serving, "verify_served", refuse)
    written.clear()
    with pytest.raises(errors.NotServed):
        serve(sealing, lineage)
    assert Path(lineage.snippet_path).read_bytes() == snippet
    assert versions.served(lineage) == first
    assert [path.name for path in Path(lineage.own_folder).iterdir() if path.is_dir()] == [first.id]
    back = len(written) - 1 - written[::-1].index(f"+{NAME}.conf")
    assert written[back:] == [f"+{NAME}.conf", "test", "reload", f"+{NAME}.json", "-privkey.pem"]


@pytest.fixture
def killed(sealing: Any, lineage: Lineage) -> list[versions.Version]:
    """Give two versions, the second of which nginx is still to read, as a killed run leaves them."""
    both = [serve(sealing, lineage), serve(sealing, lineage)]
    record = replace(records.load(sealing.state_dir, lineage), needs_reload=True)
    records.write(sealing.state_dir, lineage.name, record)
    return both


def fail_at(sealing: Any, step: str, monkeypatch: pytest.MonkeyPatch, is_to_fail: Callable[[], bool]) -> None:
    """Let nginx refuse its configuration (step "test"), not reload, or serve something else ("look") at times."""
    failures = {
        "test": errors.ConfigurationRefused("no such thing"),
        "reload": errors.NginxRefused("it is off"),
        "look": errors.NotServed("another certificate"),
    }

    def fail(*_: object) -> None:
        if is_to_fail():
            raise failures[step]

    monkeypatch.setattr(serving if step == "look" else sealing.nginx, "verify_served" if step == "look" else step, fail)


@pytest.mark.parametrize("step", ["test", "reload", "look"])
def test_a_version_that_is_not_to_blame_stays(
    sealing: Any, lineage: Lineage, killed: list[versions.Version], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version before does no better, or nginx is off: the error is raised, and the next run serves this version."""
    snippet = Path(lineage.snippet_path).read_bytes()
    with monkeypatch.context() as patched:
        fail_at(sealing, step, patched, lambda: True)
        with pytest.raises((errors.NginxRefused, errors.NotServed)):
            seal.resume(sealing, lineage)
    assert Path(lineage.snippet_path).read_bytes() == snippet
    assert all(Path(version.key_path).exists() for version in killed)
    assert records.load(sealing.state_dir, lineage).needs_reload
    assert seal.resume(sealing, lineage) == killed[1]


@pytest.mark.parametrize("step", ["test", "look"])
def test_a_version_that_is_to_blame_makes_way_for_the_one_before(
    sealing: Any, lineage: Lineage, killed: list[versions.Version], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx or a client refuses the one and not the other: that is served, and then the refused one goes."""
    first, second = killed
    fail_at(sealing, step, monkeypatch, lambda: versions.served(lineage) == second)
    assert seal.resume(sealing, lineage) == versions.served(lineage) == first
    assert not Path(second.folder).exists()
    assert not records.load(sealing.state_dir, lineage).needs_reload


def test_nginx_can_start_with_what_comes_back_while_it_is_off(
    sealing: Any, lineage: Lineage, killed: list[versions.Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would not start with the newer version: the snippet names the one before, and neither goes until it loads."""
    first, second = killed
    fail_at(sealing, "test", monkeypatch, lambda: versions.served(lineage) == second)
    with monkeypatch.context() as patched:
        fail_at(sealing, "reload", patched, lambda: True)
        with pytest.raises(errors.NginxRefused, match="it is off"):
            seal.resume(sealing, lineage)
        assert versions.served(lineage) == first
        assert Path(second.key_path).exists()
    assert seal.resume(sealing, lineage) == first


def test_the_version_before_is_kept_and_older_keys_go_first(sealing: Any, lineage: Lineage, written: list[str]) -> None:
    """Two are there after the third; of what goes, the key is the first."""
    first, second, third = (serve(sealing, lineage) for _ in range(3))
    assert versions.before(third) == second
    assert not Path(first.folder).exists()
    assert written[-1] == "-privkey.pem"


def test_a_version_that_the_snippet_names_is_never_removed(sealing: Any, lineage: Lineage) -> None:
    """nginx could not start without it."""
    version = serve(sealing, lineage)
    versions.remove(version)
    assert Path(version.key_path).exists()


def test_a_lost_snippet_is_written_from_the_newest_whole_version(sealing: Any, lineage: Lineage) -> None:
    """And where none is whole, nginx can start all the same: it rejects handshakes."""
    serve(sealing, lineage)
    snippet = Path(lineage.snippet_path)
    content = snippet.read_bytes()
    snippet.unlink()
    versions.repair(lineage)
    assert snippet.read_bytes() == content
    for key in Path(lineage.own_folder).glob("*/privkey.pem"):
        key.unlink()
    assert seal.resume(sealing, lineage) is None
    assert b"ssl_reject_handshake on;" in snippet.read_bytes()
