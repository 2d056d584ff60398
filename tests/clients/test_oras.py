"""The Python library of oras."""

from __future__ import annotations

from pathlib import Path

import pytest
from oras.client import OrasClient

from tests.clients.logins import Login, Registry


@pytest.fixture
def client(registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> OrasClient:
    """A client that trusts the CA and keeps credentials in the test's folder.

    It uses Basic authentication: with tokens it requests one for pull only, also for a push.
    """
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(registry.ca))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return OrasClient(hostname=registry.address, tls_verify=True, auth_backend="basic")


def test_pushes_and_pulls_an_artifact(client: OrasClient, registry: Registry, login: Login, tmp_path: Path) -> None:
    client.auth.set_basic_auth(login.user, login.password)
    (tmp_path / "artifact.txt").write_text("an artifact")
    target = f"{registry.address}/oras/pushed:v1"
    assert client.push(target=target, files=["artifact.txt"]).status_code == 201
    (pulled,) = client.pull(target=target, outdir=str(tmp_path / "back"))
    assert Path(pulled).read_text() == "an artifact"
    assert client.get_tags(target) == ["v1"]


def test_pulls_anonymously(client: OrasClient, registry: Registry, anonymous: None, tmp_path: Path) -> None:
    login = registry.login("admin user")
    client.auth.set_basic_auth(login.user, login.password)
    (tmp_path / "artifact.txt").write_text("for all")
    target = f"{registry.address}/oras/open:v1"
    client.push(target=target, files=["artifact.txt"])
    nobody = OrasClient(hostname=registry.address, tls_verify=True)
    (pulled,) = nobody.pull(target=target, outdir=str(tmp_path / "back"))
    assert Path(pulled).read_text() == "for all"
