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

    state_dir: where journal, records and lock are kept ("": in certbot's configuration folder). renewer: the ordinary
    user that this run is, for whom root edits the sites and stores staples; None where this run may do so itself.
    """

    nginx: Nginx
    options: Options
    config_dir: str
    checkpoints: Checkpoints
    say: Callable[[str], None]
    now: Callable[[], datetime.datetime]
    hook_command: str = ""
    must_staple_tries: Sequence[float] = (0, 5, 20)  # seconds before each
    state_dir: str = ""
    renewer: str | None = None
    journal: journal.Journal = field(init=False)

    def __post_init__(self) -> None:
        self.state_dir = self.state_dir or lineages.state_dir(self.config_dir)
        self.journal = journal.Journal(self.state_dir)

    @property
    def lock_path(self) -> str:
        """Return the file that keeps two runs from interleaving."""
        return os.path.join(self.state_dir, ".lock")
