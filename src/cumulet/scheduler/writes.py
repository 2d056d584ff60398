"""What the scheduler writes: bindings, the condition PodScheduled, evictions. Several at a time, never more than a bound."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes import Client, EventRecorder, KubernetesError
from cumulet.common.kubernetes.client import PERSISTENTVOLUMECLAIMS, PODS, STRATEGIC_MERGE_PATCH
from cumulet.scheduler.plugins.volumes import SELECTED_NODE
from cumulet.scheduler.requests import PodInfo

log = logging.getLogger(__name__)

Object = dict[str, Any]

FAILURES = (KubernetesError, aiohttp.ClientError, TimeoutError, OSError)


class Writer:
    """One scheduler's writes."""

    def __init__(self, client: Client, events: EventRecorder) -> None:
        self._client = client
        self._events = events

    async def bind(self, pod: PodInfo, node: str, claims: list[Object]) -> None:
        """Give a pod its node, after telling the provisioners of its claims. Raises `FAILURES`."""
        for claim in claims:
            metadata = {"annotations": {SELECTED_NODE: node}, "resourceVersion": claim["metadata"]["resourceVersion"]}
            name = claim["metadata"]["name"]
            await self._client.patch(PERSISTENTVOLUMECLAIMS, name, {"metadata": metadata}, pod.namespace)
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        await self._client.request("POST", PODS.path(pod.namespace, pod.name, "binding"), body=body)
        message = f"Successfully assigned {pod.namespace}/{pod.name} to {node}"
        self._events.event(pod.pod, "Normal", "Scheduled", message)

    async def tell(self, pod: PodInfo, reason: str, message: str, nominated: str | None = None) -> None:
        """Write why a pod has no node; `nominated` is the node that it waits for, empty for none any more."""
        status = pod.pod.get("status") or {}
        conditions = status.get("conditions") or ()
        known: Object = next((item for item in conditions if item["type"] == "PodScheduled"), {})
        changed: Object = {}
        if (known.get("status"), known.get("reason"), known.get("message")) != ("False", reason, message):
            since = known.get("lastTransitionTime") if known.get("status") == "False" else None
            condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}
            changed["conditions"] = [{**condition, "lastTransitionTime": since or clock.rfc3339()}]
        if nominated is not None and nominated != status.get("nominatedNodeName", ""):
            changed["nominatedNodeName"] = nominated or None
        if changed:
            await self._patch_status(pod, changed)

    async def evict(self, victim: PodInfo, preemptor: PodInfo, node: str) -> None:
        """Delete a pod that is less important. Raises `FAILURES`."""
        name = preemptor.spec.get("schedulerName", "default-scheduler")
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": clock.rfc3339(),
        }
        await self._patch_status(victim, {"conditions": [condition]})
        try:
            await self._client.delete(PODS, victim.name, victim.namespace, uid=victim.uid)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
            return
        message = f"Preempted by pod {preemptor.uid} on node {node}"
        self._events.event(victim.pod, "Normal", "Preempted", message)

    async def _patch_status(self, pod: PodInfo, status: Object) -> None:
        try:
            await self._client.patch(
                PODS,
                pod.name,
                {"metadata": {"uid": pod.uid}, "status": status},
                pod.namespace,
                subresource="status",
                content_type=STRATEGIC_MERGE_PATCH,
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


async def quietly(work: Any, what: str) -> None:
    """Do what is a courtesy to the user: where it fails it is logged, and done again with the next attempt."""
    try:
        await work
    except FAILURES as error:
        log.warning("%s: %s: %s", what, type(error).__name__, error)
