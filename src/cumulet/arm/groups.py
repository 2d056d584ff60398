"""Resource groups and generic lists of resources (`Microsoft.Resources`, REST reference 2021-04-01)."""

from __future__ import annotations

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import web

from cumulet.arm.store import Group, Index, Tracked
from cumulet.common.arm import ArmError, front_door_url, json_response, read_json
from cumulet.common.tasks import TaskSet

log = logging.getLogger(__name__)

_NAME = re.compile(r"[-\w._()]{1,90}(?<!\.)")
_FILTER = re.compile(r"(resourceType|name|location) eq '([^']*)'", re.IGNORECASE)

#: Seconds that a deletion gets before its caller is told to ask again.
_AT_ONCE = 5.0


class Groups:
    """`delete_resource` deletes one resource, by its id, at its provider."""

    def __init__(
        self, index: Index, subscription: str, tasks: TaskSet, delete_resource: Callable[[str], Awaitable[None]]
    ) -> None:
        self._index = index
        self._subscription = f"/subscriptions/{subscription}"
        self._tasks = tasks
        self._delete_resource = delete_resource
        self._operations: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Go on with the deletions that a stop broke off."""
        for group in self._index.groups():
            if group.state == "Deleting":
                self._tasks.start(self._delete(group))

    async def handle(self, request: web.BaseRequest, name: str | None, rest: list[str]) -> web.Response:
        """A request on `/resourceGroups[/{name}[/resources]]`."""
        if name is None:
            return json_response({"value": [self._show(group) for group in self._index.groups()]})
        if rest == ["resources"] and request.method == "GET":
            self.existing(name)
            return self.resources(request, name)
        if rest:
            raise ArmError(404, "NotFound", f"There is nothing at '{request.path}'.")
        match request.method:
            case "GET":
                return json_response(self._show(self.existing(name)))
            case "HEAD":
                return web.Response(status=204 if self._index.group(name) else 404)
            case "PUT":
                return await self._put(name, await read_json(request))
            case "PATCH":
                return await self._patch(name, await read_json(request))
            case "DELETE":
                return await self._start_delete(request, name)
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not allowed on a resource group.")

    def existing(self, name: str) -> Group:
        """A resource group. Raises `ArmError` `ResourceGroupNotFound`."""
        group = self._index.group(name)
        if group is None:
            raise ArmError(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")
        return group

    def resources(self, request: web.BaseRequest, group: str | None = None) -> web.Response:
        """The resources of a group, or of the subscription, narrowed by `$filter`."""
        text = request.query.get("$filter", "")
        wanted = {match[1].lower(): match[2].lower() for match in _FILTER.finditer(text)}
        if text and not wanted:
            raise ArmError(
                400, "InvalidFilterInQueryString", f"Invalid $filter '{text}' specified in the query string."
            )
        found = [
            _show_resource(resource)
            for resource in self._index.resources(group)
            if wanted.get("resourcetype", resource.type.lower()) == resource.type.lower()
            and wanted.get("name", resource.name.lower()) == resource.name.lower()
            and wanted.get("location", resource.location.lower()) == resource.location.lower()
        ]
        return json_response({"value": found})

    async def operation(self, operation: str) -> web.Response:
        """Where a deletion stands: 202 while it goes on, then 200. One that is not known has ended."""
        task = self._operations.get(operation)
        if task is not None and not task.done():
            return web.Response(status=202, headers={"Retry-After": "1"})
        return web.Response(status=200)

    async def _put(self, name: str, body: dict[str, Any]) -> web.Response:
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "InvalidResourceGroup",
                f"The provided resource group name '{name}' has invalid characters, is too long or ends in a period.",
            )
        existing = self._index.group(name)
        location = body.get("location")
        if not isinstance(location, str) or not location:
            raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
        if existing is not None and existing.state == "Deleting":
            raise ArmError(409, "ResourceGroupBeingDeleted", f"The resource group '{name}' is being deleted.")
        if existing is not None and existing.location != _location(location):
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"The resource group '{name}' already exists in location '{existing.location}'.",
            )
        group = Group(existing.name if existing else name, _location(location), _tags(body), "Succeeded")
        await self._index.put_group(group)
        return json_response(self._show(group), 200 if existing else 201)

    async def _patch(self, name: str, body: dict[str, Any]) -> web.Response:
        group = self.existing(name)
        if "tags" in body:
            group = msgspec.structs.replace(group, tags=_tags(body))
            await self._index.put_group(group)
        return json_response(self._show(group))

    async def _start_delete(self, request: web.BaseRequest, name: str) -> web.Response:
        group = msgspec.structs.replace(self.existing(name), state="Deleting")
        await self._index.put_group(group)
        operation = str(uuid.uuid4())
        task = self._tasks.start(self._delete(group), f"delete {name}")
        self._operations[operation] = task
        await asyncio.wait([task], timeout=_AT_ONCE)
        if task.done():
            del self._operations[operation]
            task.result()
            return web.Response(status=200)
        url = f"{front_door_url(request)}{self._subscription}/operationresults/{operation}?api-version=2021-04-01"
        return web.Response(status=202, headers={"Location": url, "Retry-After": "1"})

    async def _delete(self, group: Group) -> None:
        for resource in self._index.resources(group.name):
            await self._delete_resource(resource.id)
        await self._index.remove_group(group.name)
        log.info("resource group %s deleted", group.name)

    def _show(self, group: Group) -> dict[str, Any]:
        return {
            "id": f"{self._subscription}/resourceGroups/{group.name}",
            "name": group.name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": group.location,
            "tags": group.tags,
            "properties": {"provisioningState": group.state},
        }


def _show_resource(resource: Tracked) -> dict[str, Any]:
    return msgspec.to_builtins(resource)  # type: ignore[no-any-return]


def _location(text: str) -> str:
    """`East US` is `eastus`."""
    return text.replace(" ", "").lower()


def _tags(body: dict[str, Any]) -> dict[str, str]:
    try:
        return msgspec.convert(body.get("tags") or {}, dict[str, str])
    except msgspec.ValidationError as error:
        raise ArmError(400, "InvalidRequestContent", f"tags: {error}", target="tags") from None
