"""Microsoft's client of the data plane, logged in as a principal of the installation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.containerregistry import ContainerRegistryClient

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.microsoft import log_in
from tests.registry.login_server import AcrRegistry


@contextmanager
def data_plane(acr: AcrRegistry, who: Credential | None = None) -> Iterator[ContainerRegistryClient]:
    """The client of azure-containerregistry with a credential."""
    with (
        log_in(acr.cloud, who) as credential,
        ContainerRegistryClient(acr.endpoint, credential, audience=ARM_AUDIENCE) as client,
    ):
        yield client


@contextmanager
def anonymous(acr: AcrRegistry) -> Iterator[ContainerRegistryClient]:
    """The client of azure-containerregistry without a credential."""
    with ContainerRegistryClient(acr.endpoint, None, audience=ARM_AUDIENCE) as client:
        yield client
