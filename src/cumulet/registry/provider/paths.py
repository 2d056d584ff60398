"""The paths of the provider, compared without case, and the registry that one names."""

from __future__ import annotations

import re

from aiohttp import web

from cumulet.common.arm import ArmError, ResourceId
from cumulet.registry.store import Catalog, Registry

_TYPE = r"providers/{namespace:(?i:Microsoft\.ContainerRegistry)}"
SUBSCRIPTION = f"/{{subscriptions:(?i:subscriptions)}}/{{subscription}}/{_TYPE}"
GROUP = f"/{{subscriptions:(?i:subscriptions)}}/{{subscription}}/{{groups:(?i:resourceGroups)}}/{{group}}/{_TYPE}"
REGISTRIES = "{type:(?i:registries)}"
REGISTRY = f"{GROUP}/{REGISTRIES}/{{registry}}"


def word(text: str, label: str = "verb") -> str:
    """A segment of a path, without case."""
    return f"{{{label}:(?i:{re.escape(text)})}}"


def by_key(catalog: Catalog, key: str) -> Registry | None:
    """The registry of a name in lower case."""
    return next((registry for registry in catalog.registries() if registry.key == key), None)


def existing(catalog: Catalog, request: web.Request) -> Registry:
    """The registry that a path names. Raises `ArmError` 404 `ResourceNotFound`."""
    name, group = request.match_info["registry"], request.match_info["group"]
    registry = by_key(catalog, name.lower())
    if registry is None or (ResourceId(registry.id).resource_group or "").lower() != group.lower():
        raise ArmError(
            404,
            "ResourceNotFound",
            f"The Resource 'Microsoft.ContainerRegistry/registries/{name}' under resource group '{group}' was not found.",
        )
    return registry
