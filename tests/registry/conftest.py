"""Registries with the front door and identity before them, for the whole suite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from tests.cloud import Cloud
from tests.registry.client import Registry

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The rooms, running."""
    made = Cloud(tmp_path_factory.mktemp("registry") / "data", "arm", "registry")
    group = f"{made.subscription}/resourceGroups/group"
    assert made.arm("PUT", f"{group}?api-version=2024-03-01", {"location": "eastus"}).status == 201
    yield made
    made.close()


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
