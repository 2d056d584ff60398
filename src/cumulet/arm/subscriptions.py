"""What a client asks before it does anything: the cloud's metadata, tenants, subscriptions, locations, providers."""

from __future__ import annotations

from typing import Any

from cumulet.common.config import Config
from cumulet.common.entra import ARM_AUDIENCE
from cumulet.common.regions import REGIONS

#: The namespaces that are provided, with their resource types and the API versions named to those who ask.
PROVIDERS: dict[str, dict[str, list[str]]] = {
    "Microsoft.Authorization": {"roleAssignments": ["2022-04-01"], "roleDefinitions": ["2022-04-01"]},
    "Microsoft.ContainerInstance": {"containerGroups": ["2024-05-01-preview", "2023-05-01"]},
    "Microsoft.ContainerRegistry": {"registries": ["2026-09-01-preview", "2023-07-01"]},
    "Microsoft.ManagedIdentity": {"userAssignedIdentities": ["2024-11-30", "2023-01-31"]},
    "Microsoft.Resources": {"resourceGroups": ["2024-03-01", "2021-04-01"]},
}


def metadata(config: Config, api_version: str) -> Any:
    """The cloud's description (`/metadata/endpoints`); versions up to 2019 answered with a list of clouds."""
    arm, identity = config.url("arm"), config.url("identity")
    cloud = {
        "name": "Cumulet",
        "resourceManager": arm,
        "authentication": {
            "loginEndpoint": identity,
            "audiences": [ARM_AUDIENCE, arm],
            "tenant": "common",
            "identityProvider": "AAD",
        },
        "portal": arm,
        "graph": identity,
        "graphAudience": identity,
        "microsoftGraphResourceId": identity,
        "suffixes": {
            "acrLoginServer": config.registry_suffix,
            "keyVaultDns": "vault.azure.net",
            "storage": "core.windows.net",
        },
    }
    return [cloud] if api_version.startswith("2019") else cloud


def tenants(config: Config) -> dict[str, Any]:
    """The one tenant."""
    tenant = {"id": f"/tenants/{config.tenant_id}", "tenantId": config.tenant_id, "displayName": "Cumulet"}
    return {"value": [{**tenant, "tenantCategory": "Home"}]}


def subscription(config: Config) -> dict[str, Any]:
    """The one subscription."""
    return {
        "id": f"/subscriptions/{config.subscription_id}",
        "subscriptionId": config.subscription_id,
        "tenantId": config.tenant_id,
        "displayName": "Cumulet",
        "state": "Enabled",
        "subscriptionPolicies": {"quotaId": "PayAsYouGo_2014-09-01", "spendingLimit": "Off"},
        "authorizationSource": "RoleBased",
    }


def locations(config: Config) -> dict[str, Any]:
    """The regions."""
    return {
        "value": [
            {
                "id": f"/subscriptions/{config.subscription_id}/locations/{name}",
                "name": name,
                "displayName": display,
                "regionalDisplayName": display,
                "type": "Region",
                "metadata": {"regionType": "Physical", "physicalLocation": display},
            }
            for name, display in REGIONS.items()
        ]
    }


def provider(config: Config, namespace: str) -> dict[str, Any]:
    """One resource provider, registered."""
    return {
        "id": f"/subscriptions/{config.subscription_id}/providers/{namespace}",
        "namespace": namespace,
        "registrationState": "Registered",
        "registrationPolicy": "RegistrationRequired",
        "resourceTypes": [
            {"resourceType": kind, "locations": list(REGIONS.values()), "apiVersions": versions}
            for kind, versions in PROVIDERS[namespace].items()
        ],
    }
