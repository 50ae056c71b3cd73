"""Seafile's running containers, as the labels that `docker compose` gave them tell where its files lie.

The law: docker is only asked what runs; nothing is started or changed. Where it is absent, slow or fails, nothing runs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import subprocess
from dataclasses import dataclass

ASK_SECONDS = 5
_LABELS = ("working_dir", "config_files", "environment_file")
_FIELDS = (".Image", *(f'(.Label "com.docker.compose.project.{name}")' for name in _LABELS))
_FORMAT = "[" + ",".join(f"{{{{json {field}}}}}" for field in _FIELDS) + "]"


@dataclass(frozen=True)
class Project:
    """What `docker compose` was run with: its compose files and its environment files."""

    compose_files: tuple[str, ...]
    env_files: tuple[str, ...]


@functools.lru_cache(maxsize=1)  # one run asks once: a daemon that hangs would make each question take its time
def projects() -> tuple[Project, ...]:
    """Return the compose projects of which a container of a Seafile image runs, each once; none where docker fails."""
    try:
        done = subprocess.run(
            ["docker", "ps", "--no-trunc", "--format", _FORMAT],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found: dict[Project, None] = {}
    for line in done.stdout.decode("utf-8", "replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, AttributeError):  # the line is none of ours
            image, folder, *files = json.loads(line)
            compose, env = ([os.path.join(folder, name) for name in names.split(",") if name] for names in files)
            if "seafile" in image.lower() and folder:
                found[Project(tuple(compose), tuple(env or [os.path.join(folder, ".env")]))] = None
    return tuple(found)
