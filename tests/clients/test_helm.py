"""Helm charts as OCI artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.conftest import Run
from tests.clients.logins import Login, Registry


@pytest.fixture
def helm(run: Run, tmp_path: Path) -> Run:
    """helm with its files in the test's folder."""
    folders = {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    (tmp_path / "back").mkdir()
    folders["HELM_REGISTRY_CONFIG"] = str(tmp_path / "registry.json")

    def helm(*command: str | Path) -> str:
        return run("helm", *command, environment=folders)

    return helm


@pytest.fixture
def chart(helm: Run, tmp_path: Path) -> Path:
    """A packaged chart."""
    helm("create", tmp_path / "web")
    helm("package", tmp_path / "web", "--destination", tmp_path)
    return tmp_path / "web-0.1.0.tgz"


def test_pushes_and_pulls(registry: Registry, login: Login, helm: Run, chart: Path, tmp_path: Path) -> None:
    trust = ("--ca-file", registry.ca)
    helm("registry", "login", *trust, "-u", login.user, "-p", login.password, registry.address)
    helm("push", *trust, chart, f"oci://{registry.address}/helm")
    helm("pull", *trust, f"oci://{registry.address}/helm/web", "--version", "0.1.0", "-d", tmp_path / "back")
    assert (tmp_path / "back" / chart.name).read_bytes() == chart.read_bytes()
    assert "name: web" in helm("show", "chart", *trust, f"oci://{registry.address}/helm/web")
    helm("registry", "logout", registry.address)


def test_pulls_anonymously(registry: Registry, anonymous: None, helm: Run, chart: Path, tmp_path: Path) -> None:
    login = registry.login("admin user")
    trust = ("--ca-file", registry.ca)
    helm("registry", "login", *trust, "-u", login.user, "-p", login.password, registry.address)
    helm("push", *trust, chart, f"oci://{registry.address}/open")
    helm("registry", "logout", registry.address)
    helm("pull", *trust, f"oci://{registry.address}/open/web", "-d", tmp_path / "back")
    assert (tmp_path / "back" / chart.name).read_bytes() == chart.read_bytes()
