"""What a finding is, and how it is told.

The law: whatever `check` tells is a Finding. Its id is made in one function only, beside the sentence that goes with
it, and is a heading of docs/troubleshooting.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from certbot_seafile.usecases.boundary import Failure

JSON_SCHEMA = 1
#: What hurts people now or will with time; what may hurt them; what can be tidied up.
FAULT, WARNING, NOTE = "fault", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, told as `FACT, so EFFECT; FIX`.

    effect: what it does to people. fix: what to do, the command that ends it in backticks; "" where the fact says it.
    name: the certificate's. place: the file, with ":LINE" where there is one line. None: there is none.
    """

    id: str
    fact: str
    effect: str
    fix: str = ""
    severity: str = FAULT
    name: str | None = None
    place: str | None = None

    @property
    def is_fault(self) -> bool:
        """Tell whether it hurts people now, or will with time."""
        return self.severity == FAULT

    @property
    def command(self) -> str | None:
        """Return the first command of `fix`; None where no command ends it."""
        commands = re.findall("`(.+?)`", self.fix)
        return commands[0] if commands else None

    @property
    def text(self) -> str:
        """Return the whole sentence, with the certificate's name before it."""
        whose = f"{self.name}: " if self.name and not self.fact.startswith(self.name) else ""
        rest = f", so {self.effect}; {self.fix}" if self.fix else f"; until then {self.effect}"
        return f"{whose}{self.fact}{rest}."

    def __str__(self) -> str:
        return f"{self.text} [{self.id}]"


def as_json(results: Iterable[Finding]) -> dict[str, Any]:
    """Return findings as docs/check.schema.json has them, which says what stays so within one "schema" number."""
    return {"schema": JSON_SCHEMA, "findings": [_fields(finding) for finding in results]}


def _fields(finding: Finding) -> dict[str, Any]:
    fields = {key: getattr(finding, key) for key in ("id", "severity", "name", "text", "effect", "command")}
    path, colon, line = (finding.place or "").rpartition(":")
    if not colon or not line.isdigit():
        return fields | {"file": finding.place, "line": None}
    return fields | {"file": path, "line": int(line)}


def of_failure(failure: Failure) -> Finding:
    """Return that the look at a certificate was stopped: it cannot be read, or there is a defect of this program."""
    effect = "this certificate is not checked, and nothing is done for it"
    return Finding("CERT-NOT-CHECKED", failure.reason, effect, name=failure.name)


def moment(at: datetime) -> str:
    """Return a time (UTC) as sentences have it."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def listed(names: Sequence[str]) -> str:
    """Return the first three of some names, and how many more there are."""
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")
