"""The resource provider `Microsoft.ContainerInstance` (REST reference 2023-05-01).

Extensions to ACI's API, for the virtual node; other clients are not affected. `GET …/containerGroups?watch=true&since=N`
returns when the revision is greater than N, at the latest after 25 s, with `instanceView`s and the new `revision`: the groups
that changed after N, and the ids of the `removed`; or all groups, without `removed`, if N is 0 or too old. `PATCH` with
`properties` changes files of volumes, and processes and resources of containers. `DELETE …?gracePeriodSeconds=N&wait=true` returns when
the group is gone. Logs with `follow`, `previous`, `sinceSeconds` and `limitBytes`, as plain text with `stream=true`. `exec`
with a list as `command` and the `protocol` `v5.channel.k8s.io`. `portForward` with a `port`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, json_response, read_json, read_tags
from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.objects import Object
from cumulet.common.regions import read_location
from cumulet.instances.groups.collection import Answer, Groups
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.identities import Identities
from cumulet.instances.groups.updates import GroupRequest
from cumulet.instances.model.defaults import with_defaults
from cumulet.instances.model.dns_names import domain_name
from cumulet.instances.model.envelope import Envelope, GroupIdentity, client_of
from cumulet.instances.model.properties import CONTAINER_LISTS, GroupProperties, shown
from cumulet.instances.model.regions import sheet
from cumulet.instances.provider.metrics import Metrics
from cumulet.instances.provider.regions import operation_headers
from cumulet.instances.provider.websockets import Streams
from cumulet.instances.store.records import ContainerStatus, GroupRecord
from cumulet.instances.streams import logs
from cumulet.instances.streams.changes import Changes
from cumulet.instances.validation.request import check_name, parse_changes, parse_group, parse_zones
from cumulet.instances.validation.text import quoted

_TYPE = f"{fixed('providers', 'providers')}/{fixed('Microsoft.ContainerInstance', 'namespace')}"
_RESOURCE = "Microsoft.ContainerInstance/containerGroups"
_WATCH = 25.0
#: Fields of the status of a container that no client sees.
_INTERNAL = ("numbered", "stage", "stopSignal", "backOff", "backOffLeft")
_LOG_LIMIT = 4 * 1024 * 1024
_LARGEST = 2**31 - 1


class Provider:
    """Serves container groups as resources."""

    def __init__(
        self,
        groups: Groups,
        identities: Identities,
        streams: Streams,
        metrics: Metrics,
        changes: Changes,
        disk_pressure: Callable[[], bool],
    ) -> None:
        self._groups = groups
        self._identities = identities
        self._streams = streams
        self._metrics = metrics
        self._changes = changes
        self._disk_pressure = disk_pressure

    def routes(self) -> list[web.RouteDef]:
        """Return all routes; ids are compared without case."""
        subscription = f"/{fixed('subscriptions', 'subscriptions')}/{{subscription}}"
        groups = fixed("containerGroups", "type")
        many = f"{subscription}/{fixed('resourceGroups', 'groups')}/{{group}}/{_TYPE}/{groups}"
        one = f"{many}/{{name}}"
        container = f"{one}/{fixed('containers', 'containers')}/{{container}}"
        return [
            web.get(f"{subscription}/{_TYPE}/{groups}", self._list),
            web.get(many, self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
            web.post(f"{one}/{fixed('start', 'verb')}", self._start),
            web.post(f"{one}/{fixed('stop', 'verb')}", self._stop),
            web.post(f"{one}/{fixed('restart', 'verb')}", self._restart),
            web.get(f"{one}/{fixed('outboundNetworkDependenciesEndpoints', 'verb')}", self._dependencies),
            web.get(f"{container}/{fixed('logs', 'verb')}", self._logs),
            web.post(f"{container}/{fixed('exec', 'verb')}", self._exec),
            web.post(f"{container}/{fixed('attach', 'verb')}", self._attach),
            web.post(f"{one}/{fixed('portForward', 'verb')}", self._forward),
            self._metrics.route(one),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        watching = request.query.get("watch") == "true"
        if watching:
            since = request.query.get("since", "0")
            if not is_digits(since) or len(since) > 18:
                raise ArmError(400, "InvalidParameter", "since must be a revision.", target="since")
            return json_response(await self._watch(int(since), fold(request.match_info.get("group", ""))))
        group = fold(request.match_info.get("group", ""))
        found = [_resource(item, view=False) for item in self._groups.index.all() if _is_in(item.record.key, group)]
        return json_response({"value": found})

    async def _watch(self, since: int, group: str) -> Object:
        """Wait for changes in a resource group, or in all for an empty name, and return them."""
        revisions = self._groups.index.revisions
        if since <= revisions.newest:  # a greater revision is of another process: answer at once
            await revisions.wait(since, _WATCH)
        changed = revisions.after(since)
        items = self._groups.index.all() if changed is None else self._groups.index.these(changed.keys)
        found = [_resource(item, view=True, defaults=False) for item in items if _is_in(item.record.key, group)]
        answer: Object = {"value": found, "revision": revisions.newest, "diskPressure": self._disk_pressure()}
        if changed is not None:
            answer["removed"] = changed.removed
        return answer

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(_resource(self._groups.index.get(request.path), view=True))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        check_name(name)
        body = await read_json(request)
        existing = self._groups.index.find(request.path)
        location = read_location(body, _RESOURCE, existing.record.location if existing is not None else None)
        properties = parse_group(name, location, body, sheet().region(location).maximum)
        tags, zones = read_tags(body), parse_zones(body.get("zones"))
        if body.get("zones") is None and existing is not None:
            zones = existing.record.envelope.zones
        # A client that has gone away does not leave a group half-way.
        group, is_new, operation = await asyncio.shield(
            self._put_group(request.path, location, tags, properties, body.get("identity"), zones)
        )
        headers = operation_headers(request, location, operation) if operation is not None else {}
        headers.pop("Location", None)
        return json_response(_resource(group, view=True), 201 if is_new else 200, headers)

    async def _put_group(
        self,
        path: str,
        location: str,
        tags: dict[str, str],
        properties: GroupProperties,
        identity: object,
        zones: list[str],
    ) -> Answer:
        existing = self._groups.index.find(path)
        before = existing.record.envelope.identity if existing is not None else None
        assigned = await self._identities.assign(path, location, identity, before)
        _check_identities(properties, assigned)
        try:
            answer = await self._groups.put(GroupRequest(path, location, tags, properties, Envelope(assigned, zones)))
            if before is not None and before.is_system_assigned and not (assigned and assigned.is_system_assigned):
                await self._identities.discard(path)
            return answer
        except ArmError:
            if existing is None and assigned is not None and assigned.is_system_assigned:
                await self._identities.discard(path)
            raise

    async def _patch(self, request: web.Request) -> web.Response:
        group = self._groups.index.get(request.path)
        body = await read_json(request)
        for name in ("identity", "zones"):
            if body.get(name) is not None:
                raise ArmError(
                    400,
                    "InvalidRequestContent",
                    f"A PATCH does not change the {name} of a group: use PUT.",
                    target=name,
                )
        name, record = request.match_info["name"], group.record
        maximum = sheet().region(record.location).maximum
        properties = parse_changes(name, record.location, record.properties, body, maximum)
        await self._groups.patch(group, read_tags(body) if "tags" in body else None, properties)
        return json_response(_resource(group, view=True))

    async def _delete(self, request: web.Request) -> web.Response:
        grace = _number(request.query.get("gracePeriodSeconds"), "gracePeriodSeconds")
        waits = fold(request.query.get("wait", "")) == "true"
        group = self._groups.index.find(request.path)
        if group is None:
            return web.Response(status=204)
        record = group.record
        if grace is None:
            grace = record.properties.termination_grace_period_seconds
        operation = await asyncio.shield(self._groups.delete(group, grace, wait=waits))
        if operation is None:
            # The exit codes are those of the end.
            return json_response(_resource(group, view=True))
        headers = operation_headers(request, record.location, operation)
        return json_response(_resource(group, view=True), 202, headers)

    async def _start(self, request: web.Request) -> web.Response:
        group = self._group_of_action(request)
        operation = await asyncio.shield(self._groups.start(group))
        if operation is None:
            return web.Response(status=204)
        return web.Response(status=202, headers=operation_headers(request, group.record.location, operation))

    async def _stop(self, request: web.Request) -> web.Response:
        await asyncio.shield(self._groups.stop(self._group_of_action(request)))
        return web.Response(status=204)

    async def _restart(self, request: web.Request) -> web.Response:
        group = self._group_of_action(request)
        operation = await asyncio.shield(self._groups.restart(group))
        headers = operation_headers(request, group.record.location, operation)
        headers.pop("Location")
        return web.Response(status=204, headers=headers)

    async def _dependencies(self, request: web.Request) -> web.Response:
        self._group_of_action(request)
        # Nothing outside this machine is needed to run a group.
        return json_response([])

    def _group_of_action(self, request: web.Request) -> Group:
        return self._groups.index.get(request.path.rsplit("/", 1)[0])

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        group, name = self._container(request)
        query = request.query
        selection = logs.Query(
            tail=_number(query.get("tail"), "tail"),
            since=_since(query),
            timestamps=fold(query.get("timestamps", "")) == "true",
            limit=_number(query.get("limitBytes"), "limitBytes"),
        )
        previous = query.get("previous") == "true"
        log = group.attempts.readable_log(name, previous=previous)
        if previous and not log.exists():
            raise ArmError(404, "PreviousContainerNotFound", f'previous terminated container "{name}" was not found')
        if query.get("stream") != "true":
            content = await logs.end_of(log, selection, _LOG_LIMIT)
            return json_response({"content": content.decode(errors="replace")})
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        if query.get("follow") == "true" and not previous and log.exists():
            chunks = logs.follow(log, selection, self._changes, group.ended(name))
        else:
            chunks = logs.read(log, selection)
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                await response.write(chunk)
        await response.write_eof()
        return response

    async def _exec(self, request: web.Request) -> web.Response:
        group, name = self._container(request)
        _demand_running(group, name)
        return json_response(self._streams.offer_exec(group, name, await read_json(request)))

    async def _attach(self, request: web.Request) -> web.Response:
        group, name = self._container(request)
        _demand_running(group, name)
        body = await read_json(request) if request.can_read_body else {}
        return json_response(self._streams.offer_attach(group, name, body))

    async def _forward(self, request: web.Request) -> web.Response:
        group = self._groups.index.get(request.path.rsplit("/", 1)[0])
        return json_response(self._streams.offer_forward(group, await read_json(request)))

    def _container(self, request: web.Request) -> tuple[Group, str]:
        group = self._groups.index.get(
            request.path.rsplit("/", 3)[0]
        )  # without `containers`, the name and the action
        name = request.match_info["container"]
        if not group.attempts.has(name):
            raise ArmError(404, "ContainerNotFound", f"The container '{name}' is not a container of the group.")
        group.record.status.containers.setdefault(name, ContainerStatus())
        return group, name


def _is_in(key: str, group: str) -> bool:
    """Return whether the key of a container group is in a resource group; an empty name stands for all."""
    return not group or key.split("/")[4] == group


def _demand_running(group: Group, container: str) -> None:
    """Raise `ArmError` 409 unless a container runs."""
    if group.record.status.containers[container].current_state.state != "Running":
        raise ArmError(409, "ContainerNotRunning", f"The container '{container}' is not running.")


def _resource(group: Group, *, view: bool, defaults: bool = True) -> Object:
    """Return the resource of a group, with its instance views if `view`, and with all defaults if `defaults`."""
    record, status = group.record, group.record.status
    properties = shown(record.wanted)
    if defaults:
        properties = with_defaults(properties)
    properties["provisioningState"] = _provisioning_state(record)
    if properties.get("subnetIds") and properties.get("ipAddress") is None and status.ip:
        # A group in a subnet has an address there, also when it asks for none.
        properties["ipAddress"] = {"type": "Private", "ports": []}
    if (address := properties.get("ipAddress")) is not None:
        if status.ip:
            address["ip"] = status.ip
        name = domain_name(record.wanted.ip_address, record.id, record.location)
        if name is not None:
            address["fqdn"] = name
    if view:
        for container in (item for kind in CONTAINER_LISTS for item in properties.get(kind) or ()):
            found = status.containers.get(container["name"])
            if found is not None:
                container["properties"]["instanceView"] = _without_internal(msgspec.to_builtins(found))
        events = msgspec.to_builtins(status.events)
        properties["instanceView"] = {"state": status.state, "events": events}
        if status.reason:
            properties["instanceView"] |= {"reason": status.reason, "message": status.message}
    resource: Object = {
        "id": record.id,
        "name": record.id.rsplit("/", 1)[-1],
        "type": _RESOURCE,
        "location": record.location,
        "tags": record.tags,
        "properties": properties,
    }
    if (identity := record.envelope.identity) is not None:
        resource["identity"] = msgspec.to_builtins(msgspec.structs.replace(identity, client_id=None))
    if record.envelope.zones:
        resource["zones"] = record.envelope.zones
    return resource


def _provisioning_state(record: GroupRecord) -> str:
    status = record.status
    if status.delete_by is not None:
        return "Deleting"
    if status.action is not None and not status.action.is_cleared:
        return "Updating"
    return status.provisioning_state


def _check_identities(properties: GroupProperties, identity: GroupIdentity | None) -> None:
    """Raise `ArmError` for the credential of a registry whose identity is none of the group's."""
    for number, credential in enumerate(properties.image_registry_credentials):
        if credential.identity is not None and client_of(credential.identity, identity) is None:
            raise ArmError(
                400,
                "InvalidImageRegistryCredentialIdentity",
                f"The identity '{quoted(credential.identity)}' for '{credential.server}' is not an identity of the container "
                "group: add it to the group's identity.",
                target=f"properties.imageRegistryCredentials[{number}].identity",
            )


def _without_internal(view: Object) -> Object:
    for name in _INTERNAL:
        view.pop(name, None)
    for name in ("resources", "resizeError", "user"):
        if not view.get(name):
            view.pop(name, None)
    return view


def _number(text: str | None, name: str) -> int | None:
    """Parse the number of a query parameter. Raises `ArmError` 400."""
    if text is None:
        return None
    if not is_digits(text) or len(text) > 18 or int(text) > _LARGEST:
        raise ArmError(400, "InvalidParameter", f"{name} must be a number from 0 to {_LARGEST}.", target=name)
    return int(text)


def _since(query: Mapping[str, str]) -> datetime | None:
    """Return the start time of logs. Raises `ArmError` 400."""
    seconds = _number(query.get("sinceSeconds"), "sinceSeconds")
    if seconds is not None:
        return clock.now() - timedelta(seconds=seconds)
    if text := query.get("sinceTime"):
        try:
            return clock.parse(text)
        except ValueError:
            raise ArmError(
                400, "InvalidParameter", "sinceTime must be an RFC 3339 time.", target="sinceTime"
            ) from None
    return None
