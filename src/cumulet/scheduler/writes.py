"""The writes of the scheduler: bindings, the condition PodScheduled, evictions."""

from __future__ import annotations

import logging
from collections.abc import Awaitable

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes import Client, EventRecorder, KubernetesError, suppress_stale
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PODS
from cumulet.common.kubernetes.objects import Binding, Object, PersistentVolumeClaim, PodCondition
from cumulet.scheduler.plugins.volumes import SELECTED_NODE
from cumulet.scheduler.requests import PodInfo

log = logging.getLogger(__name__)

FAILURES = (KubernetesError, aiohttp.ClientError, TimeoutError, OSError)


class Writer:
    """Writes the results of one scheduler."""

    def __init__(self, client: Client, events: EventRecorder) -> None:
        self._client = client
        self._events = events

    async def bind(self, pod: PodInfo, node: str, claims: list[PersistentVolumeClaim]) -> None:
        """Bind a pod to a node, after writing the node to its claims for their provisioners. Raises `FAILURES`."""
        for claim in claims:
            metadata = {"annotations": {SELECTED_NODE: node}, "resourceVersion": claim["metadata"]["resourceVersion"]}
            name = claim["metadata"]["name"]
            await self._client.patch(PERSISTENTVOLUMECLAIMS, name, {"metadata": metadata}, pod.namespace)
        binding: Binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._client.request("POST", PODS.path(pod.namespace, pod.name, "binding"), body=binding)
        message = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
        self._events.event(pod.pod, "Normal", "Scheduled", message)

    async def report(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """Write the reason why a pod has no node. An empty `nominated` clears the nominated node, `None` keeps it."""
        status = pod.pod.get("status") or {}
        known: PodCondition = {"type": "PodScheduled", "status": "Unknown"}
        known = next((item for item in status.get("conditions") or () if item["type"] == "PodScheduled"), known)
        changed: Object = {}
        if (known["status"], known.get("reason"), known.get("message")) != ("False", reason, message):
            since = known.get("lastTransitionTime") if known["status"] == "False" else None
            condition: PodCondition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": reason,
                "message": message,
                "lastTransitionTime": since or clock.rfc3339(),
            }
            changed["conditions"] = [condition]
        if nominated is not None and nominated != status.get("nominatedNodeName", ""):
            changed["nominatedNodeName"] = nominated or None
        if changed:
            with suppress_stale():
                await self._client.patch_pod_status(pod.pod, changed)

    async def evict(self, victim: PodInfo, preemptor: PodInfo, node: str) -> None:
        """Evict a pod of a lower priority. Raises `FAILURES`."""
        name = preemptor.spec.get("schedulerName", "default-scheduler")
        condition: PodCondition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": clock.rfc3339(),
        }
        message = f"Preempted by pod {preemptor.uid} on node {node}"
        with suppress_stale():
            await self._client.patch_pod_status(victim.pod, {"conditions": [condition]})
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
            self._events.event(victim.pod, "Normal", "Preempted", message)


async def quietly(work: Awaitable[None], name: str) -> None:
    """Do optional work. A failure is logged, and the next attempt to schedule repeats the work."""
    try:
        await work
    except FAILURES as error:
        log.warning("%s: %s: %s", name, type(error).__name__, error)
