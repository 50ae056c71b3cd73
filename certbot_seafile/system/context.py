"""What a use case works with on this machine.

The law: what the doors know and the rooms below need is handed over in one value; nothing here decides.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from certbot_seafile.system import journal, lineages
from certbot_seafile.system.lineages import Options
from certbot_seafile.system.nginx import Nginx


class Checkpoints(Protocol):
    """certbot's reverter, as far as it is used: assembly.Reverter tells what each does."""

    def close(self) -> None: ...
    def add(self, paths: set[str], notes: str) -> None: ...
    def finish(self, title: str) -> None: ...
    def drop(self) -> None: ...


@dataclass
class Context:
    """What a use case works with on this machine.

    renewer: the ordinary user that this run is, who hands certificates over to root's step; None where this run edits
    the sites and reloads nginx itself. silent: names and paths of Seafile's at which nothing answered in this run.
    """

    nginx: Nginx
    options: Options
    config_dir: str
    checkpoints: Checkpoints
    say: Callable[[str], None]
    now: Callable[[], datetime.datetime]
    hook_command: str = ""
    must_staple_tries: Sequence[float] = (0, 5, 20)  # seconds before each
    renewer: str | None = None
    journal: journal.Journal = field(init=False)
    silent: set[tuple[str, str]] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.journal = journal.Journal(self.state_dir)

    @property
    def state_dir(self) -> str:
        """Return the folder in which journal, records and lock are kept."""
        return lineages.state_dir(self.config_dir)

    @property
    def lock_path(self) -> str:
        """Return the file that keeps two runs from interleaving."""
        return os.path.join(self.state_dir, ".lock")
