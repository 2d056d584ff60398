"""Resource groups and generic lists of resources (`Microsoft.Resources`, REST reference 2024-03-01)."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec
from aiohttp import web

from cumulet.arm.access import Rights
from cumulet.arm.providers import Providers, Revoke
from cumulet.arm.store import Deletion, Group, Index, Tracked, no_group
from cumulet.arm.subscriptions import ListResult
from cumulet.common.arm import ArmError, authority, checked_tags, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.odata import FilterError, Term, conjunction, page
from cumulet.common.regions import checked_location
from cumulet.common.tasks import TaskSet

log = logging.getLogger(__name__)

T = TypeVar("T")

_TYPE = "Microsoft.Resources/resourceGroups"
GROUP_TYPE = "Microsoft.Resources/subscriptions/resourceGroups"

_NAME = re.compile(r"[-\w._()]{1,90}(?<!\.)")

#: Seconds that a request waits for the deletion that it started. After that it returns 202.
_AT_ONCE = 5.0


class GroupRequest(msgspec.Struct, frozen=True):
    """The body of a request for a resource group; the readers check the types, with Azure's errors for each."""

    location: object = None
    tags: object = None


class GroupPatch(msgspec.Struct, frozen=True):
    """The body of a PATCH of a resource group; without `tags`, the tags stay."""

    tags: object = msgspec.UNSET


class GroupProperties(msgspec.Struct, rename="camel", frozen=True):
    """`ResourceGroupProperties`."""

    provisioning_state: str


class GroupResource(msgspec.Struct, rename="camel", frozen=True):
    """`ResourceGroup`."""

    id: str
    name: str
    type: str
    location: str
    tags: dict[str, str]
    properties: GroupProperties


class Groups:
    """Serves `/resourceGroups` and `/resources` of the one subscription.

    `host` is the front door's own, with its port: links have it if the request names no valid host.
    """

    def __init__(
        self, index: Index, subscription: str, host: str, tasks: TaskSet, providers: Providers, revoke: Revoke
    ) -> None:
        self._index = index
        self._host = host
        self._subscription = f"/subscriptions/{subscription}"
        self._tasks = tasks
        self._providers = providers
        self._revoke = revoke
        self._running: dict[str, asyncio.Task[None]] = {}

    def resume(self) -> None:
        """Resume the deletions that had not ended when the room stopped."""
        for deletion in self._index.running_deletions():
            self._run(deletion)

    async def handle(self, request: web.BaseRequest, name: str) -> web.Response:
        """Answer a request on one resource group. Raises `ArmError`."""
        match request.method:
            case "GET":
                return json_response(self._show(self.existing(name)))
            case "HEAD":
                return web.Response(status=204 if self._index.group(name) else 404)
            case "PUT":
                return await self._put(name, await read_body(request, GroupRequest))
            case "PATCH":
                return await self._patch(name, await read_body(request, GroupPatch))
            case "DELETE":
                return await self._delete(request, name)
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not allowed on a resource group.")

    def existing(self, name: str) -> Group:
        """Return a resource group. Raises `ArmError` 404 `ResourceGroupNotFound`."""
        group = self._index.group(name)
        if group is None:
            raise no_group(name)
        return group

    def list_groups(self, request: web.BaseRequest, rights: Rights) -> web.Response:
        """Return the resource groups that match `$filter` and that the caller may read."""
        terms = _terms(request, {"tagname", "tagvalue", "name", "location"})
        matching = [self._show(group) for group in self._index.groups() if _matches(terms, group, "", group.name)]
        return self._page(request, [item for item in matching if rights.allow(f"{GROUP_TYPE}/read", item.id)])

    def list_resources(self, request: web.BaseRequest, rights: Rights, group: str | None = None) -> web.Response:
        """Return the resources of a group, or of the subscription, that match `$filter` and that the caller may read."""
        terms = _terms(request, {"resourcetype", "name", "location", "resourcegroup", "tagname", "tagvalue"})
        readable = [
            resource
            for resource in self._index.resources(group)
            if _matches(terms, resource, resource.type, resource.id.split("/")[4])
            and rights.allow(f"{resource.type}/read", resource.id)
        ]
        return self._page(request, readable)

    async def operation(self, request: web.BaseRequest, deletion_id: str) -> web.Response:
        """Return the state of a deletion: 202 while it runs, then 200 or its error."""
        deletion = self._index.deletion(deletion_id)
        if deletion is None:
            raise ArmError(404, "NotFound", f"There is no operation '{deletion_id}'.")
        if deletion.status == "InProgress":
            return self._accepted(request, deletion)
        if deletion.error is not None:
            return json_response(deletion.error, 409)
        return web.Response(status=200)

    async def _put(self, name: str, body: GroupRequest) -> web.Response:
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "InvalidResourceGroup",
                f"The provided resource group name '{name}' has invalid characters, is too long or ends in a period.",
            )
        existing = self._index.group(name)
        if not body.location:
            raise ArmError(400, "LocationRequired", "The location property is required for this definition.")
        location = checked_location(body.location, _TYPE)
        if existing is not None and existing.location != location:
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{location}'. The Resource group already exists in location "
                f"'{existing.location}'.",
            )
        group = Group(existing.name if existing else name, location, checked_tags(body.tags), "Succeeded")
        await self._index.put_group(group)
        return json_response(self._show(group), 200 if existing else 201)

    async def _patch(self, name: str, body: GroupPatch) -> web.Response:
        group = self.existing(name)
        if body.tags is not msgspec.UNSET:
            group = msgspec.structs.replace(group, tags=checked_tags(body.tags))
            await self._index.put_group(group)
        return json_response(self._show(group))

    async def _delete(self, request: web.BaseRequest, name: str) -> web.Response:
        deletion = await self._index.start_deletion(self.existing(name).name)
        task = self._run(deletion)
        await asyncio.wait([task], timeout=_AT_ONCE)
        return await self.operation(request, deletion.id) if task.done() else self._accepted(request, deletion)

    def _run(self, deletion: Deletion) -> asyncio.Task[None]:
        """Return the task of a deletion, and start it if it does not run yet."""
        task = self._running.get(deletion.id)
        if task is None:
            task = self._tasks.start(self._delete_all(deletion), f"delete {deletion.group}")
            self._running[deletion.id] = task
            task.add_done_callback(lambda _: self._running.pop(deletion.id))
        return task

    async def _delete_all(self, deletion: Deletion) -> None:
        """Delete everything in a group that is closed to writes, after the writes that were running have ended."""
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

    def _show(self, group: Group) -> GroupResource:
        return GroupResource(
            id=f"{self._subscription}/resourceGroups/{group.name}",
            name=group.name,
            type=_TYPE,
            location=group.location,
            tags=group.tags,
            properties=GroupProperties(group.state),
        )

    def _page(self, request: web.BaseRequest, items: Sequence[T]) -> web.Response:
        try:
            shown, token = page(items, request.query)
        except FilterError as error:
            raise _invalid_filter(error) from None
        link = None
        if token is not None:
            next_page = request.rel_url.update_query({"$skiptoken": token})
            link = f"https://{authority(request.host, self._host)}{next_page.raw_path_qs}"
        return json_response(ListResult(list(shown), link))


def _terms(request: web.BaseRequest, known: set[str]) -> list[Term]:
    try:
        terms = conjunction(request.query.get("$filter", ""))
    except FilterError as error:
        raise _invalid_filter(error) from None
    for term in terms:
        if term.operator == "call" or term.name not in known:
            raise ArmError(400, "InvalidFilterInQueryString", f"A $filter on '{term.name}' is not supported here.")
    return terms


def _invalid_filter(error: FilterError) -> ArmError:
    return ArmError(400, "InvalidFilterInQueryString", str(error))


def _matches(terms: list[Term], item: Group | Tracked, kind: str, group: str) -> bool:
    values = {"name": item.name, "location": item.location, "resourcetype": kind, "resourcegroup": group}
    tags = {fold(key): value for key, value in item.tags.items()}
    by_name = {term.name: term for term in terms}
    if "tagname" in by_name:
        value = tags.get(fold(by_name["tagname"].value))
        if value is None or ("tagvalue" in by_name and not by_name["tagvalue"].holds(value)):
            return False
    return all(term.holds(values[term.name]) for term in terms if term.name in values)
