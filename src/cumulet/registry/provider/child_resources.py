"""The common base of the types of child resources of a registry: list, get, put, patch and delete, by name."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.registry.catalog.child_resources import Resource
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.provider import paths
from cumulet.registry.provider.bodies import ArmResource, Properties, ValueList, read_properties

R = TypeVar("R", bound=Resource)
P = TypeVar("P", bound=msgspec.Struct)


@dataclass(frozen=True)
class Body(Generic[P]):
    """The body of a PUT or PATCH: the document of the resource, and its `properties` as a struct."""

    document: dict[str, Any]
    properties: P
    is_patch: bool


class Children(Generic[R, P]):
    """A type of child resources. A subclass reads requests into records and shows records in responses."""

    kind: type[R]
    #: The `properties` of requests.
    request: type[P]
    name: ClassVar[re.Pattern[str]] = re.compile(r"[a-zA-Z0-9_-]{5,50}")

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._resources = catalog.resources
        #: The lock around reading, changing and writing a resource.
        self._change = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        """The routes of the type."""
        every = f"{paths.REGISTRY}/{paths.word(self.kind.segment, 'child_type')}"
        one = f"{every}/{{name}}"
        return [
            web.get(every, self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
        ]

    # For subclasses.

    async def read(self, registry: Registry, name: str, body: Body[P], existing: R | None) -> R:
        """The record for a request that creates a resource or changes `existing`. Raises `ArmError` 400, 409."""
        raise NotImplementedError

    def properties(self, registry: Registry, resource: R) -> Properties:
        """The properties in responses to callers that may read the resource."""
        raise NotImplementedError

    def all(self, registry: Registry) -> list[R]:
        """All resources of the type."""
        return self._resources.list(registry.key, self.kind)

    def check_change(self, registry: Registry, name: str) -> None:
        """Raises `ArmError` where a resource must not be changed or deleted."""

    async def removed(self, registry: Registry, name: str) -> None:
        """A hook after the deletion of a resource."""

    async def changed(self) -> None:
        """A hook after every change of a resource."""

    # For all types.

    def find(self, registry: Registry, name: str) -> R:
        """A resource by its name. Raises `ArmError` 404."""
        resource = next((item for item in self.all(registry) if fold(item.name) == fold(name)), None)
        if resource is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.ContainerRegistry/registries/{registry.name}/{self.kind.segment}/{name}' was not found.",
            )
        return resource

    def show(self, registry: Registry, resource: R) -> ArmResource:
        """The resource in ARM's form."""
        segment = self.kind.segment
        return ArmResource(
            id=f"{registry.id}/{segment}/{resource.name}",
            name=resource.name,
            type=f"Microsoft.ContainerRegistry/registries/{segment}",
            properties=self.properties(registry, resource),
        )

    def existing(self, request: web.Request) -> tuple[Registry, R]:
        """The registry and the resource in a path. Raises `ArmError` 404."""
        registry = paths.existing(self._catalog, request)
        return registry, self.find(registry, request.match_info["name"])

    async def _list(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        return json_response(ValueList([self.show(registry, item) for item in self.all(registry)]))

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
            existing = self._resources.find(registry.key, self.kind, name)
            body = Body(document, read_properties(document, self.request), is_patch=False)
            resource = await self.read(registry, existing.name if existing else name, body, existing)
            await self._resources.put(registry.key, resource)
        await self.changed()
        return json_response(self.show(registry, resource), 200 if existing else 201)

    async def _patch(self, request: web.Request) -> web.Response:
        document = await read_json(request)
        async with self._change:
            registry, existing = self.existing(request)
            self.check_change(registry, existing.name)
            body = Body(document, read_properties(document, self.request), is_patch=True)
            resource = await self.read(registry, existing.name, body, existing)
            await self._resources.put(registry.key, resource)
        await self.changed()
        return json_response(self.show(registry, resource))

    async def _delete(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        self.check_change(registry, request.match_info["name"])
        existed = await self._resources.remove(registry.key, self.kind, request.match_info["name"])
        await self.removed(registry, request.match_info["name"])
        await self.changed()
        return web.Response(status=200 if existed else 204)
