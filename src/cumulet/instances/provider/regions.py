"""What the provider serves for a region: operations, quotas, capabilities, cached images and the usage records.

`usageDetails` is an extension to ACI's API. It returns the usage records, of a period between `since` and `until` (RFC 3339)
if they are given, and split by day (UTC) with `granularity=Daily`.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from urllib.parse import quote

from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, front_door_url, json_response
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.kubernetes.objects import Object
from cumulet.instances.groups.admission import cores
from cumulet.instances.groups.collection import Groups
from cumulet.instances.metering.meter import Meter, Period
from cumulet.instances.model.regions import sheet
from cumulet.instances.provider.images import CachedImages

_NAMESPACE = "Microsoft.ContainerInstance"
_API = "2023-05-01"


class Regions:
    """Serves `…/providers/Microsoft.ContainerInstance/locations/{location}/…`."""

    def __init__(self, groups: Groups, meter: Meter, config: Config) -> None:
        self._groups = groups
        self._meter = meter
        self._limits = config.instance_limits

    def routes(self) -> list[web.RouteDef]:
        """Return all routes; ids are compared without case."""
        namespace = f"{fixed('providers', 'providers')}/{fixed(_NAMESPACE, 'namespace')}"
        subscription = f"/{fixed('subscriptions', 'subscriptions')}/{{subscription}}"
        one = f"{subscription}/{namespace}/{fixed('locations', 'locations')}/{{location}}"
        return [
            *CachedImages(self._groups).routes(one),
            web.get(f"{one}/{fixed('usageDetails', 'verb')}", self._usage_details),
            web.get(f"{one}/{fixed('usages', 'verb')}", self._usages),
            web.get(f"{one}/{fixed('capabilities', 'verb')}", self._capabilities),
            web.get(f"{one}/{fixed('operations', 'verb')}/{{operation}}", self._operation),
            web.get(f"{one}/{fixed('operationResults', 'verb')}/{{operation}}", self._operation_result),
        ]

    async def _usage_details(self, request: web.Request) -> web.Response:
        query = request.query
        period = Period(
            _moment(query.get("since"), "since"),
            _moment(query.get("until"), "until"),
            fold(query.get("granularity", "")) == "daily",
        )
        rows = self._meter.rows(period)
        return json_response({"value": [{"id": str(uuid.uuid4()), "properties": row} for row in rows]})

    async def _usages(self, request: web.Request) -> web.Response:
        location = fold(request.match_info["location"])
        records = [group.record for group in self._groups.index.all() if group.record.location == location]
        spot = [record for record in records if record.wanted.priority == "Spot"]
        regular = [record for record in records if record.wanted.priority != "Spot"]
        usages = [
            _usage("ContainerGroups", "Container Groups", len(records), self._limits.container_groups),
            _usage("StandardCores", "Standard Cores", cores(regular), self._limits.cores),
            _usage("StandardSpotCores", "Standard Spot Cores", cores(spot), self._limits.cores),
        ]
        return json_response({"value": usages})

    async def _capabilities(self, request: web.Request) -> web.Response:
        location = fold(request.match_info["location"])
        most = sheet().region(location).maximum
        limits = {"maxMemoryInGB": most.gb, "maxCpu": most.vcpu, "maxGpuCount": 0}
        capabilities = [
            {
                "resourceType": "containerGroups",
                "osType": "Linux",
                "location": location,
                "ipAddressType": kind,
                "gpu": "None",
                "capabilities": limits,
            }
            for kind in ("Public", "Private")
        ]
        return json_response({"value": capabilities})

    async def _operation(self, request: web.Request) -> web.Response:
        operation = request.match_info["operation"]
        found = self._groups.operations.find(operation)
        if found is None:
            raise ArmError(404, "NotFound", f"There is no operation '{operation[:100]}'.")
        answer: Object = {
            "id": operation_path(request, "operations", operation),
            "name": operation,
            "status": found.status,
            "startTime": found.started,
        }
        if found.ended is not None:
            answer["endTime"] = found.ended
        if found.code is not None:
            answer["error"] = {"code": found.code, "message": found.message or ""}
        return json_response(answer, 200, {} if found.ended is not None else {"Retry-After": "1"})

    async def _operation_result(self, request: web.Request) -> web.Response:
        operation = request.match_info["operation"]
        found = self._groups.operations.find(operation)
        if found is None:
            raise ArmError(404, "NotFound", f"There is no operation '{operation[:100]}'.")
        if found.ended is None:
            location = (
                front_door_url(request)
                + operation_path(request, "operationResults", operation)
                + f"?api-version={_API}"
            )
            return web.Response(status=202, headers={"Location": location, "Retry-After": "1"})
        if found.code is not None:
            status = 400 if found.code == "InaccessibleImage" else 409
            raise ArmError(status, found.code, found.message or "")
        return web.Response(status=204)


def operation_path(request: web.Request, kind: str, operation: str, location: str | None = None) -> str:
    """Return the path of an operation, `kind` is `operations` or `operationResults`."""
    subscription = quote(request.match_info["subscription"])
    place = quote(location or request.match_info["location"])
    return f"/subscriptions/{subscription}/providers/{_NAMESPACE}/locations/{place}/{kind}/{operation}"


def operation_headers(request: web.Request, location: str, operation: str) -> dict[str, str]:
    """Return the headers of an answer that starts an operation (Resource Provider Contract)."""
    door, query = front_door_url(request), f"?api-version={_API}"
    return {
        "Azure-AsyncOperation": door + operation_path(request, "operations", operation, location) + query,
        "Location": door + operation_path(request, "operationResults", operation, location) + query,
        "Retry-After": "1",
    }


def _usage(name: str, shown: str, value: float, limit: int) -> Object:
    kept = int(value) if value == int(value) else value
    return {
        "id": None,
        "unit": "Count",
        "currentValue": kept,
        "limit": limit,
        "name": {"value": name, "localizedValue": shown},
    }


def _moment(text: str | None, name: str) -> datetime | None:
    """Parse the time of a query parameter. Raises `ArmError` 400."""
    if text is None:
        return None
    try:
        moment = clock.parse(text)
    except (ValueError, OverflowError):
        raise ArmError(400, "InvalidParameter", f"{name} must be an RFC 3339 time.", target=name) from None
    return moment
