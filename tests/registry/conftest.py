"""The registry with identity and the front door before it, for the whole suite."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.registry.acr import AcrRegistry


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running, trusted by Microsoft's libraries too, which find login servers on this machine."""
    made = Cloud(tmp_path_factory.mktemp("registry") / "data", "arm", "registry")
    group = made.arm("PUT", f"{made.subscription}/resourceGroups/registries", {"location": "eastus"})
    assert group.status == 201
    resolve = socket.getaddrinfo

    def here(host: Any, *more: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if str(host).endswith(".azurecr.io") else host, *more, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REQUESTS_CA_BUNDLE", str(made.config.ca_file))
        patch.setattr(socket, "getaddrinfo", here)
        yield made
    made.close()


@pytest.fixture(scope="session")
def acr(cloud: Cloud) -> AcrRegistry:
    """A registry with its admin user and an image `base/image:v1`."""
    made = AcrRegistry(cloud, "acrsuite", adminUserEnabled=True)
    made.push("base/image", "v1")
    return made
