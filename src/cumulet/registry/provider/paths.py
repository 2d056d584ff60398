"""The paths of the provider, matched without case, and the registry in a path."""

from __future__ import annotations

from aiohttp import web

from cumulet.common.arm import ArmError, ResourceId, fixed
from cumulet.common.ascii import fold
from cumulet.registry.catalog.store import Catalog, Registry

_TYPE = f"{fixed('providers', 'providers')}/{fixed('Microsoft.ContainerRegistry', 'namespace')}"
_SUBSCRIPTION = f"/{fixed('subscriptions', 'subscriptions')}/{{subscription}}"
SUBSCRIPTION = f"{_SUBSCRIPTION}/{_TYPE}"
GROUP = f"{_SUBSCRIPTION}/{fixed('resourceGroups', 'groups')}/{{group}}/{_TYPE}"
REGISTRIES = fixed("registries", "type")
REGISTRY = f"{GROUP}/{REGISTRIES}/{{registry}}"


def word(text: str, label: str = "verb") -> str:
    """A segment of a path, matched without case."""
    return fixed(text, label)


def by_key(catalog: Catalog, key: str) -> Registry | None:
    """The registry with a name in lower case, or `None`."""
    return next((registry for registry in catalog.registries() if registry.key == key), None)


def existing(catalog: Catalog, request: web.Request) -> Registry:
    """The registry in a path. Raises `ArmError` 404 `ResourceNotFound`."""
    name, group = request.match_info["registry"], request.match_info["group"]
    registry = by_key(catalog, fold(name))
    if registry is None or fold(ResourceId(registry.id).resource_group or "") != fold(group):
        raise ArmError(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.ContainerRegistry/registries/{name}' under resource group '{group}' was not found.",
        )
    return registry
