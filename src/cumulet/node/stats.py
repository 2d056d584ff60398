"""The resource usage of the node and its pods: the kubelet's summary (`stats/v1alpha1`) and its resource metrics.

The provider reports averages of the last minute. Total processor time, which resource metrics need, is summed from them:
between two requests, a container is assumed to have used what it uses at the second.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypedDict

import aiohttp
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cumulet.common import clock
from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Pod
from cumulet.node.aci import ContainerGroups
from cumulet.node.pods import Pods
from cumulet.node.translate import group_name

#: The uid of a pod and the name of a container; an empty name is the whole pod, an empty uid the node.
Key = tuple[str, str]

_AT_ONCE = 16


class CpuStats(TypedDict):
    """Processor use at a time (RFC 3339)."""

    time: str
    usageNanoCores: int
    usageCoreNanoSeconds: int


class MemoryStats(TypedDict):
    """Memory in use at a time, in bytes."""

    time: str
    workingSetBytes: int
    usageBytes: int


class Measurement(TypedDict):
    """The usage of a node, pod or container."""

    cpu: CpuStats
    memory: MemoryStats


class ContainerStats(Measurement):
    """The usage of a container."""

    name: str


class PodReference(TypedDict):
    """The identity of a pod."""

    name: str
    namespace: str
    uid: str


class PodStats(Measurement):
    """The usage of a pod."""

    podRef: PodReference
    containers: list[ContainerStats]


class NodeStats(Measurement):
    """The usage of the node."""

    nodeName: str


class Summary(TypedDict):
    """The usage of the node and its pods."""

    node: NodeStats
    pods: list[PodStats]


class Stats:
    """Queries the provider of container groups, group by group."""

    def __init__(self, pods: Pods, groups: ContainerGroups, node: str) -> None:
        self._pods = pods
        self._groups = groups
        self._node = node
        self._turns = asyncio.Semaphore(_AT_ONCE)
        #: The time of the last measurement, and the nanoseconds of processor time up to it.
        self._used: dict[Key, tuple[float, int]] = {}

    async def summary(self) -> Summary:
        """Return the body of `/stats/summary`, without pods that the provider does not report."""
        running = [pod for pod in self._pods.pods if (pod.get("status") or {}).get("phase") == "Running"]
        pods = [pod for pod in await asyncio.gather(*map(self._pod, running)) if pod is not None]
        # Pods that are missing this time are kept: a counter must not restart.
        known = {"", *(pod["metadata"]["uid"] for pod in running)}
        self._used = {key: used for key, used in self._used.items() if key[0] in known}
        return {"node": {"nodeName": self._node, **self._sum(("", ""), pods)}, "pods": pods}

    async def metrics(self) -> bytes:
        """Return the body of `/metrics/resource`, in Prometheus' text format."""
        registry = CollectorRegistry()
        registry.register(_Resources(await self.summary()))
        return generate_latest(registry)

    async def _pod(self, pod: Pod) -> PodStats | None:
        async with self._turns:
            try:
                usage = await self._groups.usage(group_name(pod))
            except (ArmError, aiohttp.ClientError, TimeoutError):
                return None
        metadata = pod["metadata"]
        uid = metadata["uid"]
        containers: list[ContainerStats] = [
            {"name": name, **self._stats((uid, name), values.get("CpuUsage", 0.0), values.get("MemoryUsage", 0.0))}
            for name, values in usage.items()
        ]
        reference: PodReference = {"name": metadata["name"], "namespace": metadata["namespace"], "uid": uid}
        return {"podRef": reference, "containers": containers, **self._sum((uid, ""), containers)}

    def _stats(self, key: Key, millicores: float, memory: float) -> Measurement:
        moment, now = clock.rfc3339(), time.monotonic()
        then, used = self._used.get(key, (now, 0))
        used += round(millicores * 1_000_000 * (now - then))
        self._used[key] = now, used
        cpu: CpuStats = {
            "time": moment,
            "usageNanoCores": round(millicores * 1_000_000),
            "usageCoreNanoSeconds": used,
        }
        return {
            "cpu": cpu,
            "memory": {"time": moment, "workingSetBytes": round(memory), "usageBytes": round(memory)},
        }

    def _sum(self, key: Key, parts: Sequence[Measurement]) -> Measurement:
        cpu = sum(part["cpu"]["usageNanoCores"] for part in parts)
        return self._stats(key, cpu / 1_000_000, sum(part["memory"]["workingSetBytes"] for part in parts))


class _Resources(Collector):
    """The metrics of a summary, as upstream's kubelet names them (`ResourceMetrics`)."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        """As `Collector`."""
        pods = self._summary["pods"]
        containers = [(pod["podRef"], container) for pod in pods for container in pod["containers"]]
        yield from _families("node", [], [([], self._summary["node"])])
        yield from _families("pod", ["namespace", "pod"], [(_names(pod["podRef"]), pod) for pod in pods])
        labels = ["container", "namespace", "pod"]
        yield from _families("container", labels, [([one["name"], *_names(pod)], one) for pod, one in containers])
        yield GaugeMetricFamily("resource_scrape_error", "1 if there was an error while getting container metrics", 0)


def _names(reference: PodReference) -> list[str]:
    return [reference["namespace"], reference["name"]]


def _families(what: str, labels: list[str], measured: Iterable[tuple[list[str], Measurement]]) -> list[Metric]:
    cpu = CounterMetricFamily(
        f"{what}_cpu_usage_seconds", f"Processor time of the {what} in core-seconds", labels=labels
    )
    memory = GaugeMetricFamily(
        f"{what}_memory_working_set_bytes", f"Working set of the {what} in bytes", labels=labels
    )
    for values, stats in measured:
        moment = clock.parse(stats["cpu"]["time"]).timestamp()
        cpu.add_metric(values, stats["cpu"]["usageCoreNanoSeconds"] / 1e9, timestamp=moment)
        memory.add_metric(values, stats["memory"]["workingSetBytes"], timestamp=moment)
    return [cpu, memory]
