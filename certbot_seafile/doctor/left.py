"""What is wrong with nginx as a whole, and what was left behind: by `certbot delete`, or by version 0.0.

The law: what names a certificate that is gone is told with the way back.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from certbot_seafile import errors
from certbot_seafile.doctor.findings import NOTE, Finding
from certbot_seafile.doctor.subject import Machine, certificate_lines
from certbot_seafile.sealed import versions
from certbot_seafile.system import journal, lineages
from certbot_seafile.usecases import undo


def nginx_refuses(machine: Machine) -> Iterator[Finding]:
    """Yield why `nginx -t` fails, unless this user may only not read what nginx reads."""
    try:
        machine.context.nginx.test()
    except errors.NginxRefused as refused:
        if os.geteuid() == 0 or "Permission denied" not in str(refused):
            place = re.search(r" in (/.+?:\d+)", str(refused))
            effect = "nginx would not start again"
            yield Finding("NGINX-REFUSES", str(refused), effect, place=place[1] if place else None)


def orphans(machine: Machine) -> Iterator[Finding]:
    """Yield the site's lines that name the files of a lineage that is no longer there, as after `certbot delete`."""
    live, known = os.path.join(machine.context.config_dir, "live"), lineages.all_names(machine.context.config_dir)
    for folder, uses in certificate_lines(machine.context).items():
        name, line = os.path.basename(folder), uses[0][1]
        if os.path.dirname(folder) != live or name in known or os.path.exists(os.fsdecode(line.arguments[0])):
            continue
        place = f"{line.path}:{line.line}"
        fact = f"{place} names a certificate of {name}, which was deleted"
        fix = (
            f"run `certbot-seafile undo --cert-name {name}` for the site as it was; then `certbot certonly -a seafile "
            f"--cert-name {name} -d NAME` gets a new one"
        )
        yield Finding("SITE-CERT-DELETED", fact, "nginx will not start again", fix, place=place)


def staple_left_over(machine: Machine) -> Iterator[Finding]:
    """Yield the files of staples whose certificate was deleted."""
    context, staple_dir = machine.context, machine.context.options.staple_dir
    known = {*lineages.all_names(context.config_dir), *versions.names(staple_dir)}
    for name in undo.stapled_names(context):
        if name not in known:
            folder = os.path.join(staple_dir, name)
            fact = f"{folder} and {name}.conf beside it are the staple of {name}, which was deleted"
            fix = f"`certbot-seafile undo --cert-name {name}` removes them"
            yield Finding("STAPLE-LEFT-OVER", fact, "nobody needs them", fix, NOTE)


def pinned(machine: Machine) -> Iterator[Finding]:
    """Yield the sites that version 0.0 left with an earlier certificate."""
    context = machine.context
    owners = {step.owner for entry in context.journal.entries() for step in entry.steps}
    names = [owner.removeprefix(journal.PINNED) for owner in owners if owner.startswith(journal.PINNED)]
    for name in sorted(name for name in names if not versions.is_sealed(undo.paths(context, name))):
        fact = "an earlier version of this program left the site with an earlier certificate"
        fix = f"run `certbot-seafile deploy --cert-name {name}`"
        yield Finding("HOST-PINNED", fact, "the new one is not served", fix, name=name)


def handed_over(machine: Machine) -> Iterator[Finding]:
    """Yield that version 0.0 gave certbot's folders to a user."""
    config_dir = machine.context.config_dir
    if os.path.exists(mark := lineages.former_mark(config_dir)):
        fact = f"{mark}: an earlier version of this program made an ordinary user the owner of {config_dir}"
        fix = "run `sudo certbot-seafile setup --user USER -d NAME` once"
        yield Finding("HOST-HANDED-OVER", fact, "root cannot trust what is in it", fix, place=mark)
