"""What every type of resource below a registry has in common: list, get, put, patch and delete, by name."""

from __future__ import annotations

import asyncio
import re
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.registry.catalog.child_resources import Resource
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.provider import paths

R = TypeVar("R", bound=Resource)


class Children(Generic[R]):
    """One type; a subclass says how a resource is read from a request and shown."""

    kind: type[R]
    name: ClassVar[re.Pattern[str]] = re.compile(r"[a-zA-Z0-9_-]{5,50}")

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._resources = catalog.resources
        #: Held while a resource is read, changed and written.
        self._change = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        every = f"{paths.REGISTRY}/{paths.word(self.kind.segment, 'child_type')}"
        one = f"{every}/{{name}}"
        return [
            web.get(every, self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
        ]

    # Of each type.

    async def read(self, registry: Registry, name: str, body: Body, existing: R | None) -> R:
        """The resource that a request makes of the one that is there. Raises `ArmError` 400."""
        raise NotImplementedError

    def properties(self, registry: Registry, resource: R) -> dict[str, Any]:
        """Its properties, as they are shown to anybody who may read it."""
        raise NotImplementedError

    def tracked(self, resource: R) -> dict[str, Any]:
        """What is shown beside the properties, such as a location and tags."""
        return {}

    def all(self, registry: Registry) -> list[R]:
        """Those that there are."""
        return self._resources.list(registry.key, self.kind)

    def check_change(self, registry: Registry, name: str) -> None:
        """Raises `ArmError` where one may not be changed or deleted."""

    async def removed(self, registry: Registry, name: str) -> None:
        """One was deleted."""

    async def changed(self) -> None:
        """One was made, changed or deleted."""

    # Of all.

    def find(self, registry: Registry, name: str) -> R:
        """One of them. Raises `ArmError` 404."""
        found = next((item for item in self.all(registry) if fold(item.name) == fold(name)), None)
        if found is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.ContainerRegistry/registries/{registry.name}/{self.kind.segment}/{name}' was not found.",
            )
        return found

    def show(self, registry: Registry, resource: R) -> dict[str, Any]:
        """The resource in ARM's form."""
        segment = self.kind.segment
        return {
            "id": f"{registry.id}/{segment}/{resource.name}",
            "name": resource.name,
            "type": f"Microsoft.ContainerRegistry/registries/{segment}",
            **self.tracked(resource),
            "properties": {"provisioningState": "Succeeded", **self.properties(registry, resource)},
        }

    def existing(self, request: web.Request) -> tuple[Registry, R]:
        """The registry and the resource that a path names. Raises `ArmError` 404."""
        registry = paths.existing(self._catalog, request)
        return registry, self.find(registry, request.match_info["name"])

    async def _list(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        return json_response({"value": [self.show(registry, item) for item in self.all(registry)]})

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(self.show(*self.existing(request)))

    async def _put(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        name = request.match_info["name"]
        if not self.name.fullmatch(name):
            raise ArmError(400, "InvalidName", f"The name '{name[:100]}' is not {self.name.pattern}.", target="name")
        self.check_change(registry, name)
        document = await read_json(request)
        async with self._change:
            there = self._resources.find(registry.key, self.kind, name)
            made = await self.read(registry, there.name if there else name, Body(document), there)
            await self._resources.put(registry.key, made)
        await self.changed()
        return json_response(self.show(registry, made), 200 if there else 201)

    async def _patch(self, request: web.Request) -> web.Response:
        document = await read_json(request)
        async with self._change:
            registry, there = self.existing(request)
            self.check_change(registry, there.name)
            made = await self.read(registry, there.name, Body(document, changes=there), there)
            await self._resources.put(registry.key, made)
        await self.changed()
        return json_response(self.show(registry, made))

    async def _delete(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        self.check_change(registry, request.match_info["name"])
        gone = await self._resources.remove(registry.key, self.kind, request.match_info["name"])
        await self.removed(registry, request.match_info["name"])
        await self.changed()
        return web.Response(status=200 if gone else 204)


T = TypeVar("T")


class Body:
    """The `properties` of a request, read with their types; what a PATCH leaves out stays as it is."""

    def __init__(self, document: dict[str, Any], changes: Any = None) -> None:
        self.document = document
        properties = {} if document.get("properties") is None else document["properties"]
        if not isinstance(properties, dict):
            raise ArmError(400, "InvalidRequestContent", "properties must be an object.", target="properties")
        self._properties = properties
        self._changes = changes

    def get(self, name: str, kind: type[T], default: T, field: str = "") -> T:
        """A property. What is missing is `default`, or in a PATCH what `field` of the resource was.

        Raises `ArmError` 400 where it has another type.
        """
        value = self._properties.get(name)
        if value is None:
            return getattr(self._changes, field) if self._changes is not None and field else default
        try:
            return msgspec.convert(value, kind)
        except msgspec.ValidationError as error:
            raise ArmError(400, "InvalidRequestContent", f"{name}: {error}", target=f"properties.{name}") from None

    def has(self, name: str) -> bool:
        """Whether a property is given."""
        return self._properties.get(name) is not None
