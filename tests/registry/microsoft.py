"""Microsoft's own clients, logged in as one of our principals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.containerregistry import ContainerRegistryClient
from azure.identity import ClientSecretCredential
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.cloud import Cloud
from tests.registry.acr import AcrRegistry


def _credential(cloud: Cloud, who: Credential | None) -> ClientSecretCredential:
    who = who or cloud.owner
    return ClientSecretCredential(
        who.tenant_id,
        who.client_id,
        who.client_secret,
        authority=cloud.config.url("identity"),
        disable_instance_discovery=True,
    )


@contextmanager
def management(cloud: Cloud, who: Credential | None = None) -> Iterator[ContainerRegistryManagementClient]:
    """azure-mgmt-containerregistry."""
    with (
        _credential(cloud, who) as credential,
        ContainerRegistryManagementClient(
            credential,
            cloud.config.subscription_id,
            base_url=cloud.config.url("arm"),
            credential_scopes=[f"{ARM_AUDIENCE}/.default"],
        ) as client,
    ):
        yield client


@contextmanager
def data_plane(acr: AcrRegistry, who: Credential | None = None) -> Iterator[ContainerRegistryClient]:
    """azure-containerregistry."""
    with (
        _credential(acr.cloud, who) as credential,
        ContainerRegistryClient(acr.endpoint, credential, audience=ARM_AUDIENCE) as client,
    ):
        yield client


@contextmanager
def anonymous(acr: AcrRegistry) -> Iterator[ContainerRegistryClient]:
    """azure-containerregistry without a credential."""
    with ContainerRegistryClient(acr.endpoint, None, audience=ARM_AUDIENCE) as client:
        yield client
