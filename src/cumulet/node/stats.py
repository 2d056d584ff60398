"""What the node and its pods use, as a kubelet tells it: the summary (`stats/v1alpha1`) and its resource metrics.

The provider tells averages of the last minute. Processor time since the beginning, which the second way to ask is about, is
added up from them: since it was last asked for, a container is taken to have used what it uses now.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.node.aci import ContainerGroups
from cumulet.node.pods import Pods
from cumulet.node.translate import group_name

Object = dict[str, Any]
#: The uid of a pod and the name of a container, each empty where the whole is meant.
Key = tuple[str, str]

_AT_ONCE = 16


class Stats:
    """Asks the provider of container groups, group by group."""

    def __init__(self, pods: Pods, groups: ContainerGroups, node: str) -> None:
        self._pods = pods
        self._groups = groups
        self._node = node
        self._turns = asyncio.Semaphore(_AT_ONCE)
        #: Of each the moment of the last look, and the nanoseconds of processor time up to it.
        self._used: dict[Key, tuple[float, int]] = {}

    async def summary(self) -> Object:
        """`/stats/summary`; what the provider says nothing of is left out."""
        running = [pod for pod in self._pods.pods if (pod.get("status") or {}).get("phase") == "Running"]
        pods = [found for found in await asyncio.gather(*map(self._pod, running)) if found is not None]
        # Also those of which nothing was heard this time: what counts up must not begin anew.
        known = {"", *(pod["metadata"]["uid"] for pod in running)}
        self._used = {key: used for key, used in self._used.items() if key[0] in known}
        return {"node": {"nodeName": self._node, **self._sum(("", ""), pods)}, "pods": pods}

    async def metrics(self) -> bytes:
        """`/metrics/resource`, in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Resources(await self.summary()))
        return generate_latest(registry)

    async def _pod(self, pod: Object) -> Object | None:
        async with self._turns:
            try:
                usage = await self._groups.usage(group_name(pod))
            except (ArmError, aiohttp.ClientError, TimeoutError):
                return None
        metadata = pod["metadata"]
        uid = metadata["uid"]
        containers = [
            {"name": name, **self._stats((uid, name), values.get("CpuUsage", 0.0), values.get("MemoryUsage", 0.0))}
            for name, values in usage.items()
        ]
        reference = {key: metadata[key] for key in ("name", "namespace", "uid")}
        return {"podRef": reference, "containers": containers, **self._sum((uid, ""), containers)}

    def _stats(self, key: Key, millicores: float, memory: float) -> Object:
        moment, now = clock.rfc3339(), time.monotonic()
        then, used = self._used.get(key, (now, 0))
        used += round(millicores * 1_000_000 * (now - then))
        self._used[key] = now, used
        cpu = {"time": moment, "usageNanoCores": round(millicores * 1_000_000), "usageCoreNanoSeconds": used}
        return {
            "cpu": cpu,
            "memory": {"time": moment, "workingSetBytes": round(memory), "usageBytes": round(memory)},
        }

    def _sum(self, key: Key, parts: list[Object]) -> Object:
        cpu = sum(part["cpu"]["usageNanoCores"] for part in parts)
        return self._stats(key, cpu / 1_000_000, sum(part["memory"]["workingSetBytes"] for part in parts))


class _Resources(Collector):
    """The metrics of a summary, as upstream's kubelet names them (`ResourceMetrics`)."""

    def __init__(self, summary: Object) -> None:
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        """As `Collector`."""
        pods = self._summary["pods"]
        containers = [(pod["podRef"], container) for pod in pods for container in pod["containers"]]
        yield from _both("node", [], [([], self._summary["node"])])
        yield from _both("pod", ["namespace", "pod"], [(_named(pod["podRef"]), pod) for pod in pods])
        labels = ["container", "namespace", "pod"]
        yield from _both("container", labels, [([one["name"], *_named(pod)], one) for pod, one in containers])
        yield GaugeMetricFamily("resource_scrape_error", "1 if there was an error while getting container metrics", 0)


def _named(reference: Object) -> list[str]:
    return [reference["namespace"], reference["name"]]


def _both(what: str, labels: list[str], found: Iterable[tuple[list[str], Object]]) -> list[Metric]:
    cpu = CounterMetricFamily(
        f"{what}_cpu_usage_seconds", f"Processor time of the {what} in core-seconds", labels=labels
    )
    memory = GaugeMetricFamily(
        f"{what}_memory_working_set_bytes", f"Working set of the {what} in bytes", labels=labels
    )
    for values, stats in found:
        moment = clock.parse(stats["cpu"]["time"]).timestamp()
        cpu.add_metric(values, stats["cpu"]["usageCoreNanoSeconds"] / 1e9, timestamp=moment)
        memory.add_metric(values, stats["memory"]["workingSetBytes"], timestamp=moment)
    return [cpu, memory]
