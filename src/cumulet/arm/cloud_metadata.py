"""The description of the cloud at `/metadata/endpoints`, from which az and the SDKs configure themselves."""

from __future__ import annotations

import msgspec

from cumulet.common.config import Config
from cumulet.common.entra import ARM_AUDIENCE


class Authentication(msgspec.Struct, rename="camel", frozen=True):
    """The authority that issues tokens, and the audiences that Resource Manager accepts."""

    login_endpoint: str
    audiences: list[str]
    tenant: str = "common"
    identity_provider: str = "AAD"


class Suffixes(msgspec.Struct, rename="camel", frozen=True):
    """The domains of services whose host names start with the name of a resource."""

    acr_login_server: str
    key_vault_dns: str = "vault.azure.net"
    storage: str = "core.windows.net"


class Cloud(msgspec.Struct, rename="camel", frozen=True):
    """A cloud: its name, and the base URLs and audiences of its services."""

    name: str
    resource_manager: str
    authentication: Authentication
    portal: str
    graph: str
    graph_audience: str
    microsoft_graph_resource_id: str
    suffixes: Suffixes


def metadata(config: Config, api_version: str) -> Cloud | list[Cloud]:
    """Return the cloud, in a list for API versions up to 2019."""
    arm, identity = config.url("arm"), config.url("identity")
    cloud = Cloud(
        name="Cumulet",
        resource_manager=arm,
        authentication=Authentication(identity, [ARM_AUDIENCE, arm]),
        portal=arm,
        graph=identity,
        graph_audience=identity,
        microsoft_graph_resource_id=identity,
        suffixes=Suffixes(config.registry_suffix),
    )
    return [cloud] if api_version.startswith("2019") else cloud
