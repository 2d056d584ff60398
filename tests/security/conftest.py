"""The rooms that stand behind the front door, for the whole suite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.cloud import Cloud

REGISTRY = "guardedregistry"


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Identity, the front door and a registry room, running."""
    made = Cloud(tmp_path_factory.mktemp("security") / "data", "arm", "registry")
    yield made
    made.close()


@pytest.fixture(scope="session")
def group(cloud: Cloud) -> str:
    """The id of a resource group."""
    path = f"{cloud.subscription}/resourceGroups/guarded"
    assert cloud.arm("PUT", path, {"location": "eastus"}).status == 201
    return path


@pytest.fixture(scope="session")
def registry(cloud: Cloud, group: str) -> str:
    """The id of a registry whose admin user is off."""
    path = f"{group}/providers/Microsoft.ContainerRegistry/registries/{REGISTRY}"
    answer = cloud.arm("PUT", path, {"location": "eastus", "sku": {"name": "Basic"}})
    assert answer.status == 201, answer.body
    return path


@pytest.fixture(scope="session")
def nobody(cloud: Cloud) -> Credential:
    """A principal without a role."""
    return cloud.principal("nobody")


@pytest.fixture(scope="session")
def foreign(cloud: Cloud) -> Callable[..., str]:
    """Makes tokens with the owner's claims, signed by an authority that is not ours."""
    key = rsa.generate_private_key(65537, 2048)

    def make(audience: str = ARM_AUDIENCE, **changed: Any) -> str:
        claims = jwt.decode(cloud.token(audience=audience), options={"verify_signature": False})
        return jwt.encode({**claims, **changed}, key, "RS256", headers={"kid": "foreign"})

    return make
