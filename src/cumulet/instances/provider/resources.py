"""The resource provider `Microsoft.ContainerInstance` (REST reference 2023-05-01).

Extensions to ACI's API, for the virtual node; other clients are not affected. `GET …/containerGroups?watch=true&since=N`
returns when the revision is greater than N, at the latest after 25 s, with `instanceView`s and the new `revision`.
`PATCH` with `properties.volumes` replaces the files of these volumes. `DELETE …?gracePeriodSeconds=N`. Logs with `follow`,
`previous`, `sinceSeconds` and `limitBytes`, as plain text with `stream=true`. `exec` with a list as `command` and the
`protocol` `v5.channel.k8s.io`. `portForward` with a `port`. `locations/{l}/usageDetails`
returns the usage records.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, front_door_url, json_response, read_json, read_tags
from cumulet.common.ascii import fold, is_digits
from cumulet.common.kubernetes.objects import Object
from cumulet.common.regions import read_location
from cumulet.instances.groups.collection import Groups
from cumulet.instances.groups.group import Group
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.properties import shown
from cumulet.instances.model.regions import sheet
from cumulet.instances.provider.metrics import Metrics
from cumulet.instances.provider.websockets import Streams
from cumulet.instances.store.records import ContainerStatus
from cumulet.instances.streams import logs
from cumulet.instances.streams.changes import Changes
from cumulet.instances.validation.request import check_name, parse_group, parse_volumes

_TYPE = f"{fixed('providers', 'providers')}/{fixed('Microsoft.ContainerInstance', 'namespace')}"
_RESOURCE = "Microsoft.ContainerInstance/containerGroups"
_WATCH = 25.0
_LOG_LIMIT = 4 * 1024 * 1024
_LARGEST = 2**31 - 1


class Provider:
    """Serves container groups as resources."""

    def __init__(self, groups: Groups, meter: Meter, streams: Streams, metrics: Metrics, changes: Changes) -> None:
        self._groups = groups
        self._meter = meter
        self._streams = streams
        self._metrics = metrics
        self._changes = changes

    def routes(self) -> list[web.RouteDef]:
        """Return all routes; ids are compared without case."""
        subscription = f"/{fixed('subscriptions', 'subscriptions')}/{{subscription}}"
        locations = f"{subscription}/{_TYPE}/{fixed('locations', 'locations')}/{{location}}"
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
            web.get(f"{container}/{fixed('logs', 'verb')}", self._logs),
            web.post(f"{container}/{fixed('exec', 'verb')}", self._exec),
            web.post(f"{container}/{fixed('attach', 'verb')}", self._attach),
            web.post(f"{one}/{fixed('portForward', 'verb')}", self._forward),
            self._metrics.route(one),
            web.get(f"{locations}/{fixed('usageDetails', 'verb')}", self._usage_details),
            web.get(f"{locations}/{fixed('usages', 'verb')}", self._usages),
            web.get(f"{locations}/{fixed('operations', 'verb')}/{{operation}}", self._operation),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        watching = request.query.get("watch") == "true"
        if watching:
            since = request.query.get("since", "0")
            if not is_digits(since) or len(since) > 18:
                raise ArmError(400, "InvalidParameter", "since must be a revision.", target="since")
            # A greater revision is of another process: answer at once.
            if int(since) <= self._groups.revision:
                await self._groups.wait_for_change(int(since), _WATCH)
        group = fold(request.match_info.get("group", ""))
        resources = [
            _resource(item, view=watching)
            for item in self._groups.all()
            if not group or item.record.key.split("/")[4] == group
        ]
        return json_response({"value": resources, **({"revision": self._groups.revision} if watching else {})})

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(_resource(self._groups.get(request.path), view=True))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        check_name(name)
        body = await read_json(request)
        existing = self._groups.find(request.path)
        location = read_location(body, _RESOURCE, existing.record.location if existing is not None else None)
        properties = parse_group(name, location, body, sheet().region(location).maximum)
        group, new = await self._groups.put(request.path, location, read_tags(body), properties)
        headers = {}
        if new:
            subscription = request.match_info["subscription"]
            path = f"/subscriptions/{quote(subscription)}/providers/Microsoft.ContainerInstance/locations/{location}"
            operation = f"{path}/operations/{group.record.uid}?api-version=2023-05-01"
            headers = {"Azure-AsyncOperation": front_door_url(request) + operation, "Retry-After": "1"}
        return json_response(_resource(group, view=True), 201 if new else 200, headers)

    async def _patch(self, request: web.Request) -> web.Response:
        group = self._groups.get(request.path)
        body = await read_json(request)
        volumes = parse_volumes(request.match_info["name"], group.record.properties, body)
        await self._groups.patch(group, read_tags(body) if "tags" in body else None, volumes)
        return json_response(_resource(group, view=True))

    async def _delete(self, request: web.Request) -> web.Response:
        try:
            group = self._groups.get(request.path)
        except ArmError:
            return web.Response(status=204)
        grace = _number(request.query.get("gracePeriodSeconds"), "gracePeriodSeconds")
        if grace is None:
            grace = group.record.properties.termination_grace_period_seconds
        await self._groups.delete(group, grace)
        # The exit codes are those of the end.
        return json_response(_resource(group, view=True))

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
        if group.record.status.containers[name].current_state.state != "Running":
            raise ArmError(409, "ContainerNotRunning", f"The container '{name}' is not running.")
        return json_response(self._streams.offer_exec(group, name, await read_json(request)))

    async def _attach(self, request: web.Request) -> web.Response:
        group, name = self._container(request)
        body = await read_json(request) if request.can_read_body else {}
        return json_response(self._streams.offer_attach(group, name, body))

    async def _forward(self, request: web.Request) -> web.Response:
        group = self._groups.get(request.path.rsplit("/", 1)[0])
        return json_response(self._streams.offer_forward(group, await read_json(request)))

    async def _usage_details(self, request: web.Request) -> web.Response:
        return json_response({"value": [{"id": str(uuid.uuid4()), "properties": row} for row in self._meter.rows()]})

    async def _usages(self, request: web.Request) -> web.Response:
        usage = {"unit": "Count", "currentValue": len(self._groups.all()), "limit": 100}
        name = {"value": "ContainerGroups", "localizedValue": "Container Groups"}
        return json_response({"value": [{**usage, "name": name}]})

    async def _operation(self, request: web.Request) -> web.Response:
        operation = request.match_info["operation"]
        for group in self._groups.all():
            if group.record.uid == operation:
                state = group.record.status.provisioning_state
                ended = state in ("Succeeded", "Failed")
                headers = {} if ended else {"Retry-After": "1"}
                answer: Object = {"id": operation, "status": state if ended else "InProgress"}
                if state == "Failed":
                    events = group.record.status.events
                    message = events[-1].message if events else "The container group failed."
                    answer["error"] = {"code": "ContainerGroupFailed", "message": message}
                return json_response(answer, 200, headers)
        raise ArmError(404, "NotFound", f"There is no operation '{operation[:100]}'.")

    def _container(self, request: web.Request) -> tuple[Group, str]:
        group = self._groups.get(request.path.rsplit("/", 3)[0])  # without `containers`, the name and the action
        name = request.match_info["container"]
        if not group.attempts.has(name):
            raise ArmError(404, "ContainerNotFound", f"The container '{name}' is not a container of the group.")
        group.record.status.containers.setdefault(name, ContainerStatus())
        return group, name


def _resource(group: Group, *, view: bool) -> Object:
    """Return the resource of a group, with its instance views if `view`."""
    record = group.record
    properties = shown(record.properties)
    properties["provisioningState"] = record.status.provisioning_state
    if record.status.ip:
        address = properties.get("ipAddress") or {"ports": [], "type": "Public"}
        properties["ipAddress"] = {**address, "ip": record.status.ip}
    if view:
        for container in [*(properties.get("containers") or ()), *(properties.get("initContainers") or ())]:
            status = record.status.containers.get(container["name"])
            if status is not None:
                container["properties"]["instanceView"] = _without_internal(msgspec.to_builtins(status))
        events = msgspec.to_builtins(record.status.events)
        properties["instanceView"] = {"state": record.status.state, "events": events}
    return {
        "id": record.id,
        "name": record.id.rsplit("/", 1)[-1],
        "type": _RESOURCE,
        "location": record.location,
        "tags": record.tags,
        "properties": properties,
    }


def _without_internal(view: Object) -> Object:
    view.pop("numbered", None)
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
