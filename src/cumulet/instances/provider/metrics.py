"""What containers use: Azure Monitor's metrics of a container group (Microsoft.Insights, REST reference 2018-01-01).

`CpuUsage` is in millicores, on average since it was last asked for or else since the container started; `MemoryUsage`
is in bytes, without the cached files that the kernel would give back.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, fixed, json_response
from cumulet.common.ascii import fold
from cumulet.instances.groups.collection import Groups
from cumulet.instances.groups.group import Group

Object = dict[str, Any]

_CGROUPS = Path("/sys/fs/cgroup")
_NAMES = {"CpuUsage": ("CPU Usage", "Count"), "MemoryUsage": ("Memory Usage", "Bytes")}
#: Seconds after which an older look at the clock is of no use.
_OLD = 120.0
_LEAST = 1.0


class Usage:
    """Looks at control groups; of each container it remembers the last two looks at its processor time."""

    def __init__(self, groups: Groups, location: str) -> None:
        self._groups = groups
        self._location = location
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def route(self, group: str) -> web.RouteDef:
        """Where the metrics of the group at a path are."""
        extension = f"{fixed('providers', 'extended')}/{fixed('Microsoft.Insights', 'insights')}"
        return web.get(f"{group}/{extension}/{fixed('metrics', 'verb')}", self._metrics)

    async def _metrics(self, request: web.Request) -> web.Response:
        wanted = [name for name in request.query.get("metricnames", ",".join(_NAMES)).split(",") if name]
        for name in wanted:
            if name not in _NAMES:
                raise ArmError(400, "BadRequest", f"Failed to find metric configuration for metric: {name[:100]}")
        path = request.path[: fold(request.path).rindex("/providers/")]
        group = self._groups.get(path)
        now = clock.now()
        running = [
            (name, group.attempts.cid(name))
            for name, status in group.record.status.containers.items()
            if status.current_state.state == "Running"
        ]
        values = {
            "CpuUsage": {name: self._cpu(group, name, cid) for name, cid in running},
            "MemoryUsage": {name: _memory(group, cid) for name, cid in running},
        }
        base = f"{group.record.id}/providers/Microsoft.Insights/metrics"
        answer = {
            "cost": 0,
            "timespan": f"{clock.rfc3339(now)}/{clock.rfc3339(now)}",
            "interval": "PT1M",
            "value": [_metric(base, name, values[name], clock.rfc3339(now)) for name in wanted],
            "namespace": "Microsoft.ContainerInstance/containerGroups",
            "resourceregion": self._location,
        }
        return json_response(answer)

    def _cpu(self, group: Group, name: str, cid: str) -> float | None:
        used = _processor_time(group, cid)
        if used is None:
            return None
        now = time.time()
        looks = [look for look in self._seen.get(cid, []) if now - look[0] < _OLD]
        started = group.record.status.containers[name].current_state.start_time
        before = next((look for look in reversed(looks) if now - look[0] >= _LEAST), None)
        if before is None:
            before = (clock.parse(started).timestamp() if started else now, 0)
        self._seen[cid] = [*looks[-1:], (now, used)]
        if len(self._seen) > 10_000:
            self._seen.clear()
        return max(used - before[1], 0) / max(now - before[0], 0.001) / 1_000_000


def _metric(base: str, name: str, values: dict[str, float | None], moment: str) -> Object:
    shown, unit = _NAMES[name]
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


def _processor_time(group: Group, cid: str) -> int | None:
    """Nanoseconds that a container has run, by either version of control groups."""
    folder = f"{group.control_group}/{cid}"
    if (text := _read(_CGROUPS / folder / "cpu.stat")) is not None:
        return int(dict(line.split() for line in text.splitlines())["usage_usec"]) * 1000
    text = _read(_CGROUPS / "cpuacct" / folder / "cpuacct.usage")
    return int(text) if text is not None else None


def _memory(group: Group, cid: str) -> float | None:
    folder = f"{group.control_group}/{cid}"
    for used, stat, idle in (
        (_CGROUPS / folder / "memory.current", _CGROUPS / folder / "memory.stat", "inactive_file"),
        (
            _CGROUPS / "memory" / folder / "memory.usage_in_bytes",
            _CGROUPS / "memory" / folder / "memory.stat",
            "total_inactive_file",
        ),
    ):
        whole, detail = _read(used), _read(stat)
        if whole is not None:
            cached = dict(line.split() for line in (detail or "").splitlines()).get(idle, "0")
            return max(int(whole) - int(cached), 0)
    return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None
