"""The static documents of a subscription: tenants, subscriptions, locations and provider registrations.

Source: the REST references of Subscriptions 2022-12-01 and Resources 2024-03-01.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from cumulet.common.config import Config
from cumulet.common.regions import REGIONS

T = TypeVar("T")

#: The provided namespaces, with their resource types and the API versions that are announced.
PROVIDERS: dict[str, dict[str, list[str]]] = {
    "Microsoft.Authorization": {"roleAssignments": ["2022-04-01"], "roleDefinitions": ["2022-04-01"]},
    "Microsoft.Compute": {"disks": ["2024-03-02", "2023-04-02"]},
    "Microsoft.ContainerInstance": {"containerGroups": ["2024-05-01-preview", "2023-05-01"]},
    "Microsoft.ContainerRegistry": {"registries": ["2026-09-01-preview", "2023-07-01"]},
    "Microsoft.ManagedIdentity": {"userAssignedIdentities": ["2024-11-30", "2023-01-31"]},
    "Microsoft.Resources": {"resourceGroups": ["2024-03-01", "2021-04-01"]},
}


class ListResult(msgspec.Struct, Generic[T], rename="camel", frozen=True, omit_defaults=True):
    """A page of a list; `next_link` is the address of the next page."""

    value: list[T]
    next_link: str | None = None


class Tenant(msgspec.Struct, rename="camel", frozen=True):
    """`TenantIdDescription`."""

    id: str
    tenant_id: str
    display_name: str
    tenant_category: str


class SubscriptionPolicies(msgspec.Struct, rename="camel", frozen=True):
    """`SubscriptionPolicies`."""

    quota_id: str
    spending_limit: str


class Subscription(msgspec.Struct, rename="camel", frozen=True):
    """`Subscription`."""

    id: str
    subscription_id: str
    tenant_id: str
    display_name: str
    state: str
    subscription_policies: SubscriptionPolicies
    authorization_source: str


class LocationMetadata(msgspec.Struct, rename="camel", frozen=True):
    """`LocationMetadata`."""

    region_type: str
    physical_location: str


class Location(msgspec.Struct, rename="camel", frozen=True):
    """`Location`."""

    id: str
    name: str
    display_name: str
    regional_display_name: str
    type: str
    metadata: LocationMetadata


class ResourceType(msgspec.Struct, rename="camel", frozen=True):
    """`ProviderResourceType`."""

    resource_type: str
    locations: list[str]
    api_versions: list[str]


class Provider(msgspec.Struct, rename="camel", frozen=True):
    """`Provider`."""

    id: str
    namespace: str
    registration_state: str
    registration_policy: str
    resource_types: list[ResourceType]


def tenants(config: Config) -> ListResult[Tenant]:
    """Return the list of tenants, which has one entry."""
    return ListResult([Tenant(f"/tenants/{config.tenant_id}", config.tenant_id, "Cumulet", "Home")])


def subscription(config: Config) -> Subscription:
    """Return the one subscription."""
    return Subscription(
        id=f"/subscriptions/{config.subscription_id}",
        subscription_id=config.subscription_id,
        tenant_id=config.tenant_id,
        display_name="Cumulet",
        state="Enabled",
        subscription_policies=SubscriptionPolicies("PayAsYouGo_2014-09-01", "Off"),
        authorization_source="RoleBased",
    )


def locations(config: Config) -> ListResult[Location]:
    """Return the list of regions."""
    return ListResult(
        [
            Location(
                id=f"/subscriptions/{config.subscription_id}/locations/{name}",
                name=name,
                display_name=display,
                regional_display_name=display,
                type="Region",
                metadata=LocationMetadata("Physical", display),
            )
            for name, display in REGIONS.items()
        ]
    )


def provider(config: Config, namespace: str) -> Provider:
    """Return a resource provider of `PROVIDERS`, registered."""
    return Provider(
        id=f"/subscriptions/{config.subscription_id}/providers/{namespace}",
        namespace=namespace,
        registration_state="Registered",
        registration_policy="RegistrationRequired",
        resource_types=[
            ResourceType(kind, list(REGIONS.values()), versions) for kind, versions in PROVIDERS[namespace].items()
        ],
    )
