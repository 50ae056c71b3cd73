"""A lineage's renewal file, which certbot writes: read, completed, and freed of what is ours.

The law: what a person has in it stays; it is replaced whole, and never where someone else changed it meanwhile. A file
that is damaged or cut off says nothing: its options are not guessed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import configobj

from certbot_seafile import errors
from certbot_seafile.system import files

PLUGIN_NAME = "seafile"
PLUGIN_COMMAND = "certbot-seafile"

#: certbot keeps the deploy hook under the one or the other.
HOOKS = ("deploy_hook", "renew_hook")
NO_REDIRECT = "--no-redirect"
_JOINT = " || trap 'exit 1' EXIT; "  # between our hook and a person's: both run, and it fails where either does


def parameters(path: str) -> dict[str, str]:
    """Return what the file says, above its sections and in them; a list is one text again.

    Raises errors.LineageRefused where it is not whole.
    """
    with _readable(path):
        return dict(_parameters(path, files.read(path)))


@functools.lru_cache(maxsize=1024)  # a run comes by several times: to see whose a lineage is, and at each of its steps
def _parameters(path: str, content: bytes) -> dict[str, str]:
    whole = _parsed(content)
    section = whole.get("renewalparams")
    if not isinstance(section, dict) or "authenticator" not in section:
        raise errors.LineageRefused(
            f"the renewal file {path} is cut off or empty, so nothing is done for its certificate; bring it back from "
            "a backup, or get the certificate again with `certbot certonly -a seafile`"
        )
    parts = [whole, *(part for part in whole.values() if isinstance(part, dict)), section]
    known = {key: value for part in parts for key, value in part.items() if not isinstance(value, dict)}
    return {key: value if isinstance(value, str) else ",".join(value) for key, value in known.items()}


def _read(path: str) -> tuple[bytes, configobj.ConfigObj]:
    with _readable(path):
        content = files.read(path)
        return content, _parsed(content)


def _parsed(content: bytes) -> configobj.ConfigObj:
    return configobj.ConfigObj(io.BytesIO(content), encoding="utf-8", default_encoding="utf-8", interpolation=False)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except (errors.FileRefused, configobj.ConfigObjError, UnicodeDecodeError) as error:
        refuse_forbidden(error, "renewal file")
        raise errors.LineageRefused(
            f"the renewal file {path} cannot be read ({error}); `certbot certificates` lists the lineages"
        ) from error


def refuse_forbidden(error: Exception, what: str) -> None:
    """Raise errors.LineageRefused where a file may not be read by this user: there is nothing wrong with it then."""
    if isinstance(error.__cause__, PermissionError):
        raise errors.LineageRefused(f"the {what} {error}") from error


def names_plugin(known: Mapping[str, str]) -> bool:
    """Tell whether a file's parameters name this plugin as authenticator or installer."""
    return PLUGIN_NAME in (known.get("authenticator"), known.get("installer"))


def is_whole(known: Mapping[str, str]) -> bool:
    """Tell whether parameters have what complete() writes last: of a file that is cut off, options may be missing."""
    return known.get("installer") == PLUGIN_NAME and bool(hook(known))


def hook(known: Mapping[str, str]) -> str:
    """Return the deploy hook of a file's parameters; "" without."""
    return next((command for key in HOOKS if (command := known.get(key)) and command != "None"), "")


def complete(path: str, hook_command: str, options: Mapping[str, Any]) -> bool:
    """Put installer, deploy hook and options into the file where they are missing; return whether it changed.

    options: by the name that they have in the file; older certbots refuse a file with a name that begins as a plugin's
    and is none of its options. A person's own deploy hook is kept behind ours.
    Raises errors.LineageRefused, errors.FileRefused.
    """
    before, renewal = _read(path)
    known = renewal.setdefault("renewalparams", {})
    key = next((key for key in HOOKS if key in known), HOOKS[-1])
    wanted = {**{name: str(value) for name, value in options.items()}, "installer": PLUGIN_NAME}
    wanted[key] = join_hooks(hook_command, known.get(key))
    if known.scalars[-1:] == ["installer"] and all(known.get(name) == value for name, value in wanted.items()):
        return False
    known.pop("installer", None)
    known.update(wanted)
    known["installer"] = known.pop("installer")  # the last one: is_whole() goes by it
    _write(path, renewal, before)
    return True


def take_out(path: str) -> None:
    """Take installer and deploy hook of ours out of the file, so that renewals leave the site alone.

    Raises errors.LineageRefused, errors.FileRefused.
    """
    before, renewal = _read(path)
    known = renewal.get("renewalparams", {})
    if known.get("installer") == PLUGIN_NAME:
        del known["installer"]
    for key in [key for key in HOOKS if our_words(known.get(key))]:
        own = known.pop(key).partition(_JOINT)[2]
        if own:
            known[key] = own
    _write(path, renewal, before)


def _write(path: str, renewal: configobj.ConfigObj, before: bytes) -> None:
    after = io.BytesIO()
    renewal.write(after)
    files.replace(path, after.getvalue(), expected=before)


def join_hooks(ours: str, present: str | None) -> str:
    """Return one shell command that runs our deploy hook, then the person's own; it fails where either fails.

    present: None or "" where there is none, or a command that may begin with ours already: that part is brought up to
    date.
    """
    if not present or present == "None":
        return ours
    _, joint, own = present.partition(_JOINT)
    return ours + joint + own if our_words(present) else ours + _JOINT + present


def our_words(command: str | None) -> list[str]:
    """Return the words, from the program on, of our deploy hook with which a shell command begins; [] without one.

    That is `certbot-seafile [OPTION...] deploy`; the program may be `env NAME=VALUE... PYTHON -m certbot_seafile`, too.
    """
    words = _words((command or "").partition(_JOINT)[0])
    if words[:1] == ["env"]:
        words = list(itertools.dropwhile(lambda word: "=" in word, words[1:]))
    is_program = words[:1] != [] and os.path.basename(words[0]) == PLUGIN_COMMAND
    is_module = words[1:3] == ["-m", "certbot_seafile"]
    return words if (is_program or is_module) and words[-1] == "deploy" else []


def is_without_redirect(command: str | None) -> bool:
    """Tell whether our hook in a person's command is told that the site gets no redirect: certbot forgets that too."""
    return NO_REDIRECT in (command or "") and NO_REDIRECT in our_words(command)


def https_port(command: str | None) -> int | None:
    """Return the port that our hook in a person's command is told; None without: certbot itself forgets it."""
    words = our_words(command)
    ports = [words[place + 1] for place, word in enumerate(words[:-1]) if word == "--https-port"]
    return int(ports[0]) if ports and ports[0].isdigit() else None


def _words(command: str) -> list[str]:
    """Return a command's words as a shell has them; [] where it is more than one command, or cannot be read."""
    split = shlex.shlex(command, posix=True, punctuation_chars=True)
    split.whitespace_split = True
    split.commenters = ""
    try:
        words = list(split)
    except ValueError:  # a quote that is not closed
        return []
    return [] if any(set(word) <= set("();<>|&") for word in words if word) else words
