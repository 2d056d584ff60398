"""buildah."""

from __future__ import annotations

from pathlib import Path

from tests.clients.conftest import Run
from tests.clients.logins import Login, Registry


def test_pushes_and_pulls(registry: Registry, login: Login, layout: Path, run: Run) -> None:
    image = f"{registry.address}/buildah/pushed:v1"
    trust = ("--cert-dir", registry.certificates, "--creds", login.colon)
    made = run("buildah", "pull", "--quiet", f"oci:{layout}:it").strip()
    run("buildah", "push", "--quiet", *trust, made, f"docker://{image}")
    run("buildah", "rmi", "--force", made)
    assert run("buildah", "pull", "--quiet", *trust, image).strip() == made
