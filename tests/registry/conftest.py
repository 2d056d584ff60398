"""Registries with the front door and identity, shared by the suite."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cumulet.common.limits import RegistryLimits
from tests.cloud import Cloud
from tests.registry.client import Registry
from tests.registry.login_server import AcrRegistry

_numbers = itertools.count()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """The running rooms. Microsoft's libraries trust them and resolve login servers to this machine."""
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
    """Creates another registry, called as its admin user."""
    return lambda: new_registry(cloud)


@pytest.fixture(scope="session")
def registry(make_registry: Callable[[], Registry]) -> Registry:
    """A registry that the suite shares. Each test uses its own repositories."""
    return make_registry()


@pytest.fixture(scope="session")
def pusher(registry: Registry) -> Registry:
    """The shared registry, called as a service principal that may pull and push."""
    principal = registry.cloud.principal("pusher", AcrPush=registry.id)
    return registry.seen_by(principal.client_id, principal.client_secret)


@pytest.fixture(scope="session")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry in a room with low limits and short grace periods."""
    limits = RegistryLimits(
        manifest_bytes=5000,
        blob_bytes=100_000,
        page_entries=3,
        upload_stall=0.5,
        upload_idle=0,
        collection_grace=0,
        login_wait=2.0,
    )
    made = Cloud(tmp_path_factory.mktemp("strict") / "data", "arm", "registry", registry_limits=limits)
    group = f"{made.subscription}/resourceGroups/group"
    assert made.arm("PUT", f"{group}?api-version=2024-03-01", {"location": "eastus"}).status == 201
    yield new_registry(made)
    made.close()


@pytest.fixture
def repository(request: pytest.FixtureRequest) -> str:
    """The name of a repository for this test alone."""
    return f"{request.node.originalname.replace('_', '-')}/{next(_numbers)}"


def new_registry(cloud: Cloud) -> Registry:
    """A new registry, called as its admin user."""
    made = Registry(cloud, f"registry{next(_numbers)}", None)
    body = {"location": "eastus", "sku": {"name": "Premium"}, "properties": {"adminUserEnabled": True}}
    assert cloud.arm("PUT", f"{made.id}?api-version=2023-07-01", body).status == 201
    answer = cloud.arm("POST", f"{made.id}/listCredentials?api-version=2023-07-01")
    return made.seen_by(made.name, answer.body["passwords"][0]["value"])
