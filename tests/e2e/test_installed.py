"""The package as pip has installed it: certbot must start beside it, whatever certbot that is."""

from __future__ import annotations

from importlib import metadata

import pytest
from packaging.requirements import Requirement

import certbot_seafile
from e2e.world import World

pytestmark = pytest.mark.certbot


def test_certbot_starts_and_lists_the_plugin(world: World) -> None:
    """certbot prints its version, and the plugin among its plugins as authenticator and installer."""
    assert world.run(world.certbot_script, "--version").stdout.startswith("certbot ")
    listed = world.certbot("plugins").stdout.partition("* seafile")[2].partition("\n* ")[0]
    assert "Authenticator" in listed
    assert "Installer" in listed


def test_every_requirement_resolves_here() -> None:
    """Each requirement for this Python is met; certbot <= 2.6 runs no command at all where one is not."""
    requirements = [Requirement(line) for line in metadata.requires("certbot-seafile") or ()]
    asked = [one for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    unmet = [str(one) for one in asked if not one.specifier.contains(metadata.version(one.name), prereleases=True)]
    assert {"certbot", "acme", "cryptography", "urllib3", "configobj"} <= {one.name for one in asked}
    assert unmet == []


def test_neither_certbot_nor_acme_is_capped() -> None:
    """No requirement forbids a newer certbot or acme: a cap that bites stops every certbot command."""
    requirements = [Requirement(line) for line in metadata.requires("certbot-seafile") or ()]
    ours = [one for one in requirements if one.name in {"certbot", "acme"}]
    assert [one.name for one in ours if not one.specifier.contains("9999.0")] == []
    assert len(ours) == 2


def test_the_installed_version_is_the_one_the_package_states() -> None:
    """The version in the metadata is certbot_seafile.__version__."""
    assert metadata.version("certbot-seafile") == certbot_seafile.__version__
