"""What a use case works with on this machine.

The law: what the doors know and the rooms below need is handed over in one value; nothing here decides.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from certbot_seafile.site.config import Configuration
from certbot_seafile.system import journal, lineages
from certbot_seafile.system.lineages import Options
from certbot_seafile.system.nginx import Nginx

MUST_STAPLE_TRIES_SECONDS = (0, 5, 20)


class Checkpoints(Protocol):
    """certbot's reverter, as far as it is used."""

    def close(self) -> None:
        """Close a checkpoint that a killed run left open; certbot's recovery would put its files back some day."""

    def add(self, paths: set[str], notes: str) -> None:
        """Keep the files' present bytes for a rollback."""

    def finish(self, title: str) -> None:
        """Close the checkpoint: `certbot rollback` goes back behind it from now on."""

    def drop(self) -> None:
        """Forget the open checkpoint."""


@dataclass
class Context:
    """What a use case works with on this machine.

    catalog: every lineage of this plugin, each loaded once. state_dir: where journal, records and lock are kept ("": in
    certbot's configuration folder). renewer: the ordinary user that this run is, for whom root edits the sites and
    stores staples; None where this run may do so itself.
    """

    nginx: Nginx
    options: Options
    config_dir: str
    catalog: lineages.Catalog
    checkpoints: Checkpoints
    say: Callable[[str], None]
    now: Callable[[], datetime.datetime]
    hook_command: str = ""
    must_staple_tries: Sequence[float] = MUST_STAPLE_TRIES_SECONDS
    state_dir: str = ""
    renewer: str | None = None
    journal: journal.Journal = field(init=False)

    def __post_init__(self) -> None:
        self.state_dir = self.state_dir or lineages.state_dir(self.config_dir)
        self.journal = journal.Journal(self.state_dir)

    @property
    def configuration(self) -> Configuration:
        """Return nginx's configuration as it is on disk now: read once for each state that it has."""
        return self.nginx.configuration()

    @property
    def lock_path(self) -> str:
        """Return the file that keeps two runs from interleaving."""
        return os.path.join(self.state_dir, ".lock")
