"""What the node and its pods use, as a kubelet tells it (`stats/v1alpha1`, the summary)."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.node.aci import ContainerGroups
from cumulet.node.pods import Pods
from cumulet.node.translate import group_name

Object = dict[str, Any]

_AT_ONCE = 16


class Stats:
    """Asks the provider of container groups, group by group."""

    def __init__(self, pods: Pods, groups: ContainerGroups, node: str) -> None:
        self._pods = pods
        self._groups = groups
        self._node = node
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def summary(self) -> Object:
        """`/stats/summary`; what the provider says nothing of is left out."""
        running = [pod for pod in self._pods.pods if (pod.get("status") or {}).get("phase") == "Running"]
        pods = [found for found in await asyncio.gather(*map(self._pod, running)) if found is not None]
        return {"node": {"nodeName": self._node, **_sum(pods)}, "pods": pods}

    async def _pod(self, pod: Object) -> Object | None:
        async with self._turns:
            try:
                usage = await self._groups.usage(group_name(pod))
            except (ArmError, aiohttp.ClientError, TimeoutError):
                return None
        metadata = pod["metadata"]
        containers = [
            {"name": name, **_stats(values.get("CpuUsage", 0.0), values.get("MemoryUsage", 0.0))}
            for name, values in usage.items()
        ]
        reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
        return {"podRef": reference, "containers": containers, **_sum(containers)}


def _stats(millicores: float, memory: float) -> Object:
    moment = clock.rfc3339()
    return {
        "cpu": {"time": moment, "usageNanoCores": round(millicores * 1_000_000)},
        "memory": {"time": moment, "workingSetBytes": round(memory), "usageBytes": round(memory)},
    }


def _sum(parts: list[Object]) -> Object:
    cpu = sum(part["cpu"]["usageNanoCores"] for part in parts)
    return _stats(cpu / 1_000_000, sum(part["memory"]["workingSetBytes"] for part in parts))
