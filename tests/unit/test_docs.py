"""The pages for people say what the program says: every option, every command, every message."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from certbot import errors as certbot_errors

from certbot_seafile import cli, errors, plugin
from certbot_seafile.doctor import formats

PROJECT = Path(__file__).resolve().parents[2]
DOCS = PROJECT / "docs"
PACKAGE = PROJECT / "certbot_seafile"

GAP = "…"  # what differs from one occurrence of a message to the next
LEAST_LETTERS = 7

_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z0-9-]*")
_CODE = re.compile(r"(`+)(.+?)\1")
_TERM = re.compile(r"^(`.+)\n: ", re.MULTILINE)

#: Every class whose text a person may be shown.
ERRORS = {
    name
    for module in (errors, certbot_errors)
    for name, value in vars(module).items()
    if inspect.isclass(value) and issubclass(value, Exception)
}
#: What else takes a message or a part of one: (module, name of what is called) to the argument's place.
TAKERS = {
    ("boundary", "Failure"): 1,
    ("fetch", "ValueError"): 0,
    ("fetch", "OSError"): 0,
    ("files", "_explained"): 0,
    ("verify", "append"): 0,
    ("pkix", "append"): 0,
}
#: The rooms of the doctor's findings.
DOCTOR = sorted(path.stem for path in (PACKAGE / "doctor").glob("*.py"))
TAKERS |= {(room, "Finding"): 1 for room in DOCTOR}
#: Modules whose generators and functions give sentences or reasons to others.
TELLERS = {"verify", "pkix"}


def page(name: str) -> str:
    """Return the text of a page below docs/."""
    return (DOCS / name).read_text(encoding="utf-8")


# --- options and commands


def plugin_options() -> set[str]:
    """Return the plugin's options, as certbot's command line has them."""
    said: list[str] = []
    plugin.Plugin.add_parser_arguments(lambda name, **_: said.append(f"--seafile-{name}"))
    return set(said)


def console_parsers() -> dict[str, argparse.ArgumentParser]:
    """Return the console script's parser, as "", and those of its commands by name."""
    parser = cli._parser()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    return {"": parser, **commands.choices}


def console_options() -> set[str]:
    """Return every option of the console script and its commands."""
    return {word for one in console_parsers().values() for action in one._actions for word in action.option_strings}


def section(text: str, title: str) -> str:
    """Return what stands below a heading of a page, up to the next heading that is not below it."""
    found = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def first_cells(text: str) -> set[str]:
    """Return the code in the first cells of a page's tables."""
    cells = re.findall(r"^\| (`(?:[^|\\]|\\.)*) \|", text, re.MULTILINE)
    return {code for cell in cells for _, code in _CODE.findall(cell)}


def options_in(cells: set[str]) -> set[str]:
    """Return the options that table cells name, without their arguments."""
    return {word for cell in cells for word in _OPTION.findall(cell) if cell.startswith("-")}


def test_the_reference_has_every_option_of_the_plugin() -> None:
    """The table of plugin options names each, and no other."""
    assert options_in(first_cells(section(page("reference.md"), "Options of the plugin"))) == plugin_options()


def test_the_reference_has_every_option_of_the_console_script() -> None:
    """The tables below "The command certbot-seafile" name each option, and no other."""
    assert options_in(first_cells(section(page("reference.md"), "The command certbot-seafile"))) == console_options()


def test_the_reference_has_every_command_with_its_own_options() -> None:
    """Each command's row shows the options that this command alone takes."""
    parsers = console_parsers()
    common = {word for action in parsers[""]._actions for word in action.option_strings}
    cells = first_cells(section(page("reference.md"), "The command certbot-seafile"))
    rows = {cell.split()[0]: set(_OPTION.findall(cell)) for cell in cells if not cell.startswith("-")}
    offered = {
        name: {word for action in parser._actions for word in action.option_strings} - common
        for name, parser in parsers.items()
        if name
    }
    assert rows == offered


def test_the_manual_page_has_every_command_and_option() -> None:
    """What plugin and console script offer stands in certbot-seafile(1), which tests/docs holds to --help."""
    text = page("certbot-seafile.1").replace("\\-", "-")
    assert console_options() | plugin_options() <= set(_OPTION.findall(text.replace("\\fB", "")))
    assert set(re.findall(r"^\.SS \\fBcertbot-seafile ([a-z]+)", text, re.MULTILINE)) == set(console_parsers()) - {""}


@pytest.mark.parametrize("name", sorted(path.name for path in DOCS.glob("*.md")))
def test_no_page_names_an_option_of_ours_that_does_not_exist(name: str) -> None:
    """--seafile-... is one of the plugin's options, wherever it is written."""
    named = {word.rstrip("-") for word in re.findall(r"--seafile-[a-z-]+", page(name))}
    assert named - plugin_options() - console_options() == set()


# --- status --json


def keys(fields: str) -> set[str]:
    """Return the names of the string keys in the dictionaries that a function of formats.py returns."""
    tree = ast.parse(inspect.getsource(getattr(formats, fields)))
    return {
        key.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key in node.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    }


def test_the_reference_has_every_key_of_the_json() -> None:
    """The table of `status --json` names each key, and no other, and the schema's number."""
    text = section(page("reference.md"), "The JSON of status")
    every = keys("as_json") | keys("_fields")
    named = {part for cell in first_cells(text) for part in re.split(r"\[\]\.|\.", cell)}
    assert {part.removesuffix("[]") for part in named} == every
    assert f"`{formats.JSON_SCHEMA}`" in text


# --- messages


def messages() -> dict[str, str]:
    """Return every message of the package, with GAP for what differs, and where it is raised or said."""
    found: dict[str, str] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for part in said_by(path.stem, node):
                for template in templates(part):
                    if len(re.findall(r"[A-Za-z]", template)) >= LEAST_LETTERS:
                        found.setdefault(template, f"{path.name}:{part.lineno}")
    return found


def said_by(module: str, node: ast.AST) -> Iterator[ast.expr]:
    """Yield the expressions of a node that become a message, or a reason within one."""
    if isinstance(node, (ast.Yield, ast.Return)) and node.value is not None and module in TELLERS:
        yield from node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
    if isinstance(node, ast.AugAssign) and isinstance(node.value, ast.ListComp) and module in TELLERS:
        yield node.value.elt
    if isinstance(node, ast.FunctionDef) and node.name.startswith(("why_", "_reason", "_phrase")):
        yield from (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Return) and inner.value)
    if isinstance(node, ast.keyword) and node.arg == "failure":
        yield node.value
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("reason", "failure"):
        yield node.value
    if module in DOCTOR and (fact := fact_in(node)) is not None:
        yield fact
    if isinstance(node, ast.Call):
        yield from told_to(module, node)


def fact_in(node: ast.AST) -> ast.expr | None:
    """Return what an assignment gives the name `fact`, alone or as the first of several."""
    if not isinstance(node, ast.Assign) or not ast.unparse(node.targets[0]).lstrip("(").startswith("fact"):
        return None
    return node.value.elts[0] if isinstance(node.value, ast.Tuple) else node.value


def told_to(module: str, call: ast.Call) -> Iterator[ast.expr]:
    """Yield the arguments of a call that become a message: an error's, the log's, standard error's."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    is_base = module == "errors" and name == "__init__"
    is_logged = name in ("warning", "error") and ast.unparse(call.func).startswith("logger.")
    words = {word.arg: ast.unparse(word.value) for word in call.keywords}
    is_printed = name == "print" and words.get("file") == "sys.stderr" and "end" not in words
    if name in ERRORS or is_base or is_logged or is_printed:
        yield from call.args
    elif (module, name) in TAKERS:
        yield call.args[TAKERS[module, name]]
    elif name == "boundary" and module in TELLERS:  # it writes the rest behind its argument
        yield ast.copy_location(ast.BinOp(call.args[0], ast.Add(), ast.Constant(" cannot be read: ")), call)


def templates(part: ast.expr) -> list[str]:
    """Return what an expression can read as; no command lines, and no advice that is put behind another message."""
    texts = (plain(text).removeprefix("certbot-seafile: ") for text in readings(part))
    return [text for text in texts if not text.startswith((f"{GAP}; ", " ", "certbot-seafile deploy "))]


def plain(text: str) -> str:
    """Return a message without backticks, and with one GAP for a place or a name before its reason."""
    return re.sub(f"{GAP}(?::? ?{GAP})*", GAP, text.replace("`", ""))


def readings(part: ast.expr) -> list[str]:
    """Return the texts of an expression; GAP for an expression that is none."""
    if isinstance(part, ast.Constant) and isinstance(part.value, str):
        return [re.sub(r"%[sdr]", GAP, part.value)]
    if isinstance(part, ast.JoinedStr):
        parts = [GAP if isinstance(value, ast.FormattedValue) else readings(value)[0] for value in part.values]
        return ["".join(parts)]
    choices: list[ast.expr] = [part.body, part.orelse] if isinstance(part, ast.IfExp) else []
    choices += part.values if isinstance(part, ast.BoolOp) else []
    choices += part.elts if isinstance(part, (ast.List, ast.Tuple)) else []
    if choices:
        return [text for choice in choices for text in readings(choice)]
    if isinstance(part, ast.BinOp) and isinstance(part.op, ast.Add):
        return [left + right for left in readings(part.left) for right in readings(part.right)]
    return [GAP]


def entries(text: str | None = None) -> list[str]:
    """Return the messages that troubleshooting.md, or a part of it, explains: the code in the terms of its lists."""
    terms = _TERM.findall(page("troubleshooting.md") if text is None else text)
    return [plain(code.strip()) for term in terms for _, code in _CODE.findall(term)]


def explains(entry: str, template: str) -> bool:
    """Tell whether the entry is the beginning of the message."""
    return template.startswith(entry.rstrip(f"{GAP} "))


def test_every_message_has_its_entry() -> None:
    """Whatever the package can complain of stands in troubleshooting.md by its beginning."""
    known = entries()
    assert {
        text: place for text, place in messages().items() if not any(explains(entry, text) for entry in known)
    } == {}


def test_every_entry_is_a_message() -> None:
    """No entry explains what the program no longer says, and none is too short to be found by."""
    said = messages()
    assert [entry for entry in entries() if not any(explains(entry, text) for text in said)] == []
    assert [entry for entry in entries() if len(re.findall(r"[A-Za-z]", entry)) < LEAST_LETTERS] == []
    assert sorted(entries()) == sorted(set(entries()))


def test_a_message_is_short_and_names_nothing_of_the_code() -> None:
    """Three lines of a terminal hold it, with what it names; no class, no function and no repr is in it."""
    of_code = {name for name in ERRORS if re.search(r"[a-z][A-Z]", name)} | {"Error(", "None", "self.", "()"}
    assert {text: place for text, place in messages().items() if len(text.replace(GAP, GAP * 15)) > 3 * 120} == {}
    assert {text: place for text, place in messages().items() if any(word in text for word in of_code)} == {}


def test_certbot_prints_the_sentence_of_a_failure() -> None:
    """certbot prints the repr of what prepare() raises ("The error was: ..."): it is the sentence, without a class."""
    assert repr(errors.SiteNotFound("no Seafile site")) == "no Seafile site"


# --- findings of check


def finding_calls() -> Iterator[tuple[str, ast.expr, str]]:
    """Yield id, fact and severity of every finding that the doctor can make; a fact in a variable is its last value."""
    trees = [ast.parse((PACKAGE / "doctor" / f"{room}.py").read_text(encoding="utf-8")) for room in DOCTOR]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    for function in [node for node in nodes if isinstance(node, ast.FunctionDef)]:
        fact: ast.expr = ast.Constant(None)
        parts = [node for node in ast.walk(function) if isinstance(node, (ast.Assign, ast.Call))]
        for node in sorted(parts, key=lambda node: node.lineno):
            fact = fact_in(node) or fact
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Finding":
                named, told = node.args[:2]
                words = [ast.unparse(word) for word in node.args[4:]]
                severity = next((word.lower() for word in words if word in ("WARNING", "NOTE")), "fault")
                yield ast.literal_eval(named), fact if ast.unparse(told) == "fact" else told, severity


def finding_sections() -> dict[str, str]:
    """Return the text below each heading of troubleshooting.md that is an id."""
    parts = re.split(r"^### ([A-Z]+(?:-[A-Z]+)+)\n", page("troubleshooting.md"), flags=re.MULTILINE)
    texts = [re.split(r"^##? ", part, flags=re.MULTILINE)[0] for part in parts[2::2]]
    assert len(set(parts[1::2])) == len(parts[1::2])
    return dict(zip(parts[1::2], texts, strict=True))


def test_every_finding_has_its_section_with_its_words() -> None:
    """The headings are the ids, no more and no fewer; each section has the beginning of the sentence."""
    sections = finding_sections()
    assert set(sections) == {name for name, _, _ in finding_calls()}
    for name, fact, severity in finding_calls():
        known = entries(sections[name])
        told = [text for text in templates(fact) if len(re.findall(r"[A-Za-z]", text)) >= LEAST_LETTERS]
        assert [text for text in told if not any(explains(entry, text) for entry in known)] == [], name
        assert severity == "fault" or f"a {severity}" in sections[name], name


def test_every_finding_has_a_test_under_its_id() -> None:
    """Each id stands in a test's name, table or docstring, so that it is found from there."""
    tests = "".join(path.read_text(encoding="utf-8") for path in (PROJECT / "tests").rglob("test_*.py"))
    assert {name for name, _, _ in finding_calls()} - set(re.findall(r"\b[A-Z]+(?:-[A-Z]+)+\b", tests)) == set()


def test_a_message_is_found_wherever_it_is_made() -> None:
    """The collector sees raised errors, reasons, sentences of check, warnings of the log, defects, and stderr."""
    said = messages()
    places = {
        "nginx could not be reloaded by ": "nginx", "it is empty": "verify", "the answer is larger": "fetch",
        "no timer and no crontab runs certbot renew": "renewing", f"{GAP}: what was served": "seal",
        "lines of ours": "commands", f"the OCSP responder {GAP} gave no answer": "errors", "stored, but": "refresh",
        f"as a response of a delegate, {GAP}": "verify", "the response cannot be read: ": "verify",
        "the site cannot serve an ECDSA certificate": "preflight", "no certificate in ": "commands",
        "certbot-seafile has a defect": "boundary", "no whole answer within": "fetch", "its name has no": "fetch",
    }  # fmt: skip
    for beginning, module in places.items():
        place = next(place for text, place in said.items() if text.startswith(beginning))
        assert place.startswith(f"{module}.py:")
