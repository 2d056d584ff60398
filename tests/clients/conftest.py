"""A registry to which third-party clients push and from which they pull, with each kind of credential."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from cumulet.demo.engine import private_settings
from tests.clients.logins import Login, Registry
from tests.cloud import Cloud
from tests.instances.images import busybox_layer, layer, write_layout

KINDS = ("service principal", "admin user", "repository token", "refresh token")

#: Runs a command with its own environment and returns its output. The command must succeed.
Run = Callable[..., str]


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The registry, with the rooms that authenticate and authorize its callers."""
    folder = tmp_path_factory.mktemp("clients")
    cloud = Cloud(folder / "data", "arm", "registry")
    try:
        yield Registry(cloud, folder)
    finally:
        cloud.close()


@pytest.fixture(params=KINDS)
def login(request: pytest.FixtureRequest, registry: Registry) -> Login:
    """Each kind of credential."""
    return registry.login(request.param)


@pytest.fixture
def anonymous(registry: Registry) -> Iterator[None]:
    """Allow anonymous pull during the test."""
    registry.allow_anonymous_pull(True)
    yield
    registry.allow_anonymous_pull(False)


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An OCI image layout with one image, `it`."""
    folder = tmp_path_factory.mktemp("image") / "layout"
    write_layout(folder, [busybox_layer(), layer()], {"Cmd": ["/bin/true"]})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run commands that keep images and credentials in the test's folder, separate from the user's."""
    settings = {**os.environ, **private_settings(tmp_path / "settings")}

    def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            [str(word) for word in command],
            env={**settings, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        return done.stdout

    return run
