"""Azure Monitor's metrics of a container group (Microsoft.Insights, REST reference 2018-01-01).

`CpuUsage` is in millicores, on average since the last request or the container's start; `MemoryUsage` is in bytes.
"""

from __future__ import annotations

from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, json_response
from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.index import GroupIndex
from cumulet.instances.metering.usage import Usage, memory

_METRICS = {"CpuUsage": ("CPU Usage", "Count"), "MemoryUsage": ("Memory Usage", "Bytes")}


class Metrics:
    """Serves the metrics of groups."""

    def __init__(self, index: GroupIndex, location: str) -> None:
        self._index = index
        self._location = location
        self._usage = Usage()

    def route(self, group: str) -> web.RouteDef:
        """Return the route of the metrics of the group at a path."""
        extension = f"{fixed('providers', 'extended')}/{fixed('Microsoft.Insights', 'insights')}"
        return web.get(f"{group}/{extension}/{fixed('metrics', 'verb')}", self._metrics)

    async def _metrics(self, request: web.Request) -> web.Response:
        known = {fold(name): name for name in _METRICS}
        asked = [name for name in request.query.get("metricnames", ",".join(_METRICS)).split(",") if name]
        for name in asked:
            if fold(name) not in known:
                raise ArmError(400, "BadRequest", f"Failed to find metric configuration for metric: {name[:100]}")
        names = [known[fold(name)] for name in asked]
        group = self._index.get(request.path[: fold(request.path).rindex("/providers/")])
        values = self._measure(group)
        now = clock.rfc3339(clock.now())
        base = f"{group.record.id}/providers/Microsoft.Insights/metrics"
        answer = {
            "cost": 0,
            "timespan": f"{now}/{now}",
            "interval": "PT1M",
            "value": [_metric(base, name, values[name], now) for name in names],
            "namespace": "Microsoft.ContainerInstance/containerGroups",
            "resourceregion": self._location,
        }
        return json_response(answer)

    def _measure(self, group: Group) -> dict[str, dict[str, float | None]]:
        """Return, by metric, the value of each running container."""
        processor: dict[str, float | None] = {}
        used: dict[str, float | None] = {}
        for name, status in group.record.status.containers.items():
            if status.current_state.state == "Running":
                control_group = f"{group.control_group}/{group.attempts.cid(name)}"
                start = status.current_state.start_time
                started = clock.parse(start).timestamp() if start else None
                processor[name] = self._usage.millicores(control_group, started)
                used[name] = memory(control_group)
        return {"CpuUsage": processor, "MemoryUsage": used}


def _metric(base: str, name: str, values: dict[str, float | None], moment: str) -> Object:
    shown, unit = _METRICS[name]
    return {
        "id": f"{base}/{name}",
        "type": "Microsoft.Insights/metrics",
        "name": {"value": name, "localizedValue": shown},
        "unit": unit,
        "timeseries": [
            {
                "metadatavalues": [{"name": {"value": "containername"}, "value": container}],
                "data": [{"timeStamp": moment, "average": value}],
            }
            for container, value in values.items()
            if value is not None
        ],
        "errorCode": "Success",
    }
