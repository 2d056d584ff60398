"""podman in its default configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Run
from tests.clients.logins import Login, Registry

pytestmark = pytest.mark.clients


def test_pushes_and_pulls(registry: Registry, login: Login, layout: Path, run: Run) -> None:
    image = f"{registry.address}/podman/pushed:v1"
    trust = ("--cert-dir", registry.certificates)
    run("podman", "login", *trust, "-u", login.user, "-p", login.password, registry.address)
    made = run("podman", "pull", "--quiet", f"oci:{layout}:it").strip()
    run("podman", "push", *trust, made, image)
    run("podman", "rmi", "--force", made)
    assert run("podman", "pull", "--quiet", *trust, image).strip() == made


def test_pulls_anonymously(registry: Registry, anonymous: None, layout: Path, run: Run) -> None:
    image = f"{registry.address}/podman/open:v1"
    trust = ("--cert-dir", registry.certificates)
    made = run("podman", "pull", "--quiet", f"oci:{layout}:it").strip()
    run("podman", "push", *trust, "--creds", registry.login("admin user").colon, made, image)
    run("podman", "rmi", "--force", made)
    assert run("podman", "pull", "--quiet", *trust, image).strip() == made
