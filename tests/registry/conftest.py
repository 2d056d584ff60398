"""Registries with the front door and identity before them, for the whole suite."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cloud import Cloud
from tests.registry.acr import AcrRegistry
from tests.registry.client import Registry

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running, trusted by Microsoft's libraries too, which find login servers on this machine."""
    made = Cloud(tmp_path_factory.mktemp("registry") / "data", "arm", "registry")
    group = f"{made.subscription}/resourceGroups/group"
    assert made.arm("PUT", f"{group}?api-version=2024-03-01", {"location": "eastus"}).status == 201
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


@pytest.fixture(scope="session")
def make_registry(cloud: Cloud) -> Callable[[], Registry]:
    """Makes another registry, and speaks to it as its admin user."""

    def make() -> Registry:
        name = f"registry{next(_numbers)}"
        path = registry_id(cloud, name)
        body = {"location": "eastus", "sku": {"name": "Premium"}, "properties": {"adminUserEnabled": True}}
        assert cloud.arm("PUT", f"{path}?api-version=2023-07-01", body).status in (200, 201)
        answer = cloud.arm("POST", f"{path}/listCredentials?api-version=2023-07-01")
        return Registry(cloud, name, name, answer.body["passwords"][0]["value"])

    return make


@pytest.fixture(scope="session")
def registry(make_registry: Callable[[], Registry]) -> Registry:
    """A registry that the suite shares; each test has repositories of its own."""
    return make_registry()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """The name of a repository that no other test has."""
    return f"{request.node.originalname.replace('_', '-')}/{next(_numbers)}"


def registry_id(cloud: Cloud, name: str) -> str:
    """The id of a registry in Azure Resource Manager."""
    return f"{cloud.subscription}/resourceGroups/group/providers/Microsoft.ContainerRegistry/registries/{name}"
