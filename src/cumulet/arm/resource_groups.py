"""Resource groups and generic lists of resources (`Microsoft.Resources`, REST reference 2024-03-01)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from cumulet.arm.access import Rights
from cumulet.arm.providers import Providers, Revoke
from cumulet.arm.store import Deletion, Group, Index, Tracked, no_group
from cumulet.common.arm import ArmError, authority, json_response, read_json, read_tags
from cumulet.common.ascii import fold
from cumulet.common.odata import FilterError, Term, conjunction, page
from cumulet.common.regions import read_location
from cumulet.common.tasks import TaskSet

log = logging.getLogger(__name__)

_TYPE = "Microsoft.Resources/resourceGroups"
GROUP_TYPE = "Microsoft.Resources/subscriptions/resourceGroups"

_NAME = re.compile(r"[-\w._()]{1,90}(?<!\.)")

#: Seconds that a deletion gets before its caller is told to ask again.
_AT_ONCE = 5.0


class Groups:
    """Serves `/resourceGroups` and `/resources` of the one subscription; `host` is the front door's own, with its port."""

    def __init__(
        self, index: Index, subscription: str, host: str, tasks: TaskSet, providers: Providers, revoke: Revoke
    ) -> None:
        self._index = index
        self._host = host
        self._subscription = f"/subscriptions/{subscription}"
        self._tasks = tasks
        self._providers = providers
        self._revoke = revoke
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Go on with the deletions that a stop broke off."""
        for deletion in self._index.deletions_under_way():
            self._go_on(deletion)

    async def handle(self, request: web.BaseRequest, name: str) -> web.Response:
        """A request on one resource group."""
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
                return await self._delete(request, name)
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not allowed on a resource group.")

    def existing(self, name: str) -> Group:
        """A resource group. Raises `ArmError` 404 `ResourceGroupNotFound`."""
        group = self._index.group(name)
        if group is None:
            raise no_group(name)
        return group

    def list_groups(self, request: web.BaseRequest, rights: Rights) -> web.Response:
        """Those that the caller may read, narrowed by `$filter` on a tag."""
        terms = _terms(request, {"tagname", "tagvalue", "name", "location"})
        shown = [self._show(group) for group in self._index.groups() if _fits(terms, group, "", group.name)]
        return self._page(request, [item for item in shown if rights.allow(f"{GROUP_TYPE}/read", item["id"])])

    def list_resources(self, request: web.BaseRequest, rights: Rights, group: str | None = None) -> web.Response:
        """The resources of a group, or of the subscription, that the caller may read, narrowed by `$filter`."""
        terms = _terms(request, {"resourcetype", "name", "location", "resourcegroup", "tagname", "tagvalue"})
        found = [
            resource
            for resource in self._index.resources(group)
            if _fits(terms, resource, resource.type, resource.id.split("/")[4])
            and rights.allow(f"{resource.type}/read", resource.id)
        ]
        return self._page(request, [msgspec.to_builtins(resource) for resource in found])

    async def operation(self, request: web.BaseRequest, deletion_id: str) -> web.Response:
        """Where a deletion stands: 202 while it goes on, then 200 or why it failed."""
        deletion = self._index.deletion(deletion_id)
        if deletion is None:
            raise ArmError(404, "NotFound", f"There is no operation '{deletion_id}'.")
        if deletion.status == "InProgress":
            return self._accepted(request, deletion)
        if deletion.error is not None:
            return json_response(deletion.error, 409)
        return web.Response(status=200)

    async def _put(self, name: str, body: dict[str, Any]) -> web.Response:
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "InvalidResourceGroup",
                f"The provided resource group name '{name}' has invalid characters, is too long or ends in a period.",
            )
        existing = self._index.group(name)
        if not body.get("location"):
            raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
        location = read_location(body, _TYPE)
        if existing is not None and existing.location != location:
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{location}'. The Resource group already exists in location "
                f"'{existing.location}'.",
            )
        group = Group(existing.name if existing else name, location, read_tags(body), "Succeeded")
        await self._index.put_group(group)
        return json_response(self._show(group), 200 if existing else 201)

    async def _patch(self, name: str, body: dict[str, Any]) -> web.Response:
        group = self.existing(name)
        if "tags" in body:
            group = msgspec.structs.replace(group, tags=read_tags(body))
            await self._index.put_group(group)
        return json_response(self._show(group))

    async def _delete(self, request: web.BaseRequest, name: str) -> web.Response:
        deletion = await self._index.start_deletion(self.existing(name).name)
        task = self._go_on(deletion)
        await asyncio.wait([task], timeout=_AT_ONCE)
        return await self.operation(request, deletion.id) if task.done() else self._accepted(request, deletion)

    def _go_on(self, deletion: Deletion) -> asyncio.Task[None]:
        task = self._under_way.get(deletion.id)
        if task is None:
            task = self._tasks.start(self._carry_out(deletion), f"delete {deletion.group}")
            self._under_way[deletion.id] = task
            task.add_done_callback(lambda _: self._under_way.pop(deletion.id))
        return task

    async def _carry_out(self, deletion: Deletion) -> None:
        """Nothing is written in the group from now on; what a write had begun is waited for, then deleted too."""
        await self._providers.quiet(deletion.group)
        try:
            for resource_id in self._index.everything_in(deletion.group):
                await self._providers.delete(resource_id)
        except ArmError as error:
            log.warning("resource group %s was not deleted: %s", deletion.group, error)
            await self._index.end_deletion(deletion, error.body())
            return
        await self._revoke(f"{self._subscription}/resourceGroups/{deletion.group}")
        await self._index.end_deletion(deletion)
        log.info("resource group %s deleted", deletion.group)

    def _accepted(self, request: web.BaseRequest, deletion: Deletion) -> web.Response:
        base = f"https://{authority(request.host, self._host)}"
        url = f"{base}{self._subscription}/operationresults/{deletion.id}?api-version=2024-03-01"
        return web.Response(status=202, headers={"Location": url, "Retry-After": "1"})

    def _show(self, group: Group) -> dict[str, Any]:
        return {
            "id": f"{self._subscription}/resourceGroups/{group.name}",
            "name": group.name,
            "type": _TYPE,
            "location": group.location,
            "tags": group.tags,
            "properties": {"provisioningState": group.state},
        }

    def _page(self, request: web.BaseRequest, items: Sequence[Any]) -> web.Response:
        shown, token = _understood(lambda: page(items, request.query))
        answer: dict[str, Any] = {"value": shown}
        if token is not None:
            answer["nextLink"] = (
                f"https://{authority(request.host, self._host)}{request.rel_url.update_query({'$skiptoken': token}).raw_path_qs}"
            )
        return json_response(answer)


def _terms(request: web.BaseRequest, known: set[str]) -> list[Term]:
    terms: list[Term] = _understood(lambda: conjunction(request.query.get("$filter", "")))
    for term in terms:
        if term.operator == "call" or term.name not in known:
            raise ArmError(400, "InvalidFilterInQueryString", f"A $filter on '{term.name}' is not supported here.")
    return terms


def _understood(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FilterError as error:
        raise ArmError(400, "InvalidFilterInQueryString", str(error)) from None


def _fits(terms: list[Term], item: Group | Tracked, kind: str, group: str) -> bool:
    values = {"name": item.name, "location": item.location, "resourcetype": kind, "resourcegroup": group}
    tags = {fold(key): value for key, value in item.tags.items()}
    wanted = {term.name: term for term in terms}
    if "tagname" in wanted:
        value = tags.get(fold(wanted["tagname"].value))
        if value is None or ("tagvalue" in wanted and not wanted["tagvalue"].holds(value)):
            return False
    return all(term.holds(values[term.name]) for term in terms if term.name in values)
