"""Monitors the heartbeats of nodes, and applies their conditions to taints and pods (`pkg/controller/nodelifecycle`)."""

from __future__ import annotations

import asyncio
import time

from cumulet.common import clock
from cumulet.common.kubernetes import WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import LEASES, NODES, PODS, STRATEGIC_MERGE_PATCH
from cumulet.common.kubernetes.objects import Lease, Node, NodeCondition, Pod, PodCondition, Taint
from cumulet.controllers.conditions import condition_of, status_of
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.pods import is_ready

#: The seconds without a heartbeat after which a node is unknown, later and before its first heartbeat (upstream's).
GRACE = 50.0
_FIRST_GRACE = 60.0
#: The conditions that the node reports itself.
_REPORTED = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_LEASE_NAMESPACE = "kube-node-lease"
_PREFIX = "node.kubernetes.io/"
_BOTH = ("NoSchedule", "NoExecute")

#: The type and status of a condition, and the taint that it adds with its effects.
_TAINTS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("Ready", "False"): (f"{_PREFIX}not-ready", _BOTH),
    ("Ready", "Unknown"): (f"{_PREFIX}unreachable", _BOTH),
    ("MemoryPressure", "True"): (f"{_PREFIX}memory-pressure", ("NoSchedule",)),
    ("DiskPressure", "True"): (f"{_PREFIX}disk-pressure", ("NoSchedule",)),
    ("PIDPressure", "True"): (f"{_PREFIX}pid-pressure", ("NoSchedule",)),
    ("NetworkUnavailable", "True"): (f"{_PREFIX}network-unavailable", ("NoSchedule",)),
}
_UNSCHEDULABLE = f"{_PREFIX}unschedulable"
_MANAGED = {key for key, _ in _TAINTS.values()} | {_UNSCHEDULABLE}


class NodeLifecycleController:
    """Keeps the taints of each node consistent with its conditions, and its conditions with its heartbeats."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("node-controller")
        self._nodes = context.informer(NODES)
        self._leases = context.informer(LEASES)
        self._pods = context.informer(PODS)
        self._pods.add_index("node", lambda pod: (pod["spec"].get("nodeName") or "",))
        self._registered: set[str] = set()
        #: By UID, the last heartbeat and the local time of its arrival, because the clocks of nodes can differ.
        self._heartbeats: dict[str, tuple[object, float]] = {}
        self._nodes.add_handler(self._node_changed)
        self._leases.add_handler(self._lease_changed)

    def _node_changed(self, change: str, node: Node, old: Node | None) -> None:
        if change == "DELETED":
            self._registered.discard(node["metadata"]["uid"])
            self._heartbeats.pop(node["metadata"]["uid"], None)
        else:
            self._record_heartbeat(node)
            self.queue.add(key_of(node))

    def _lease_changed(self, change: str, lease: Lease, old: Lease | None) -> None:
        if lease["metadata"]["namespace"] == _LEASE_NAMESPACE:
            node = self._nodes.get(lease["metadata"]["name"])
            if node is not None:
                self._record_heartbeat(node)
            if node is not None and status_of(node, "Ready") == "Unknown":
                self.queue.add(key_of(node))

    async def reconcile(self, key: Key) -> None:
        """Bring conditions and taints in line with the last heartbeat."""
        node = self._nodes.get(key[1])
        if node is None:
            return
        self._report_new(node)
        ready = condition_of(node, "Ready")
        grace = GRACE if ready is not None else _FIRST_GRACE
        silent = self._silence(node)
        if silent > grace and any(status_of(node, kind) != "Unknown" for kind in _REPORTED):
            await self._mark_unknown(node)
            return
        desired, present = _desired(node), _present(node)
        if desired != present and (ready is not None or any(key == _UNSCHEDULABLE for key, _ in desired ^ present)):
            await self._set_taints(node, desired)
        if ready is not None and ready["status"] in ("False", "Unknown"):
            await self._unready(node)
        self.queue.add_after(key, max(grace - silent, 0) + 1)

    def _report_new(self, node: Node) -> None:
        """Record one event for each node that this process discovers, as upstream's controller manager does."""
        name, uid = node["metadata"]["name"], node["metadata"]["uid"]
        if uid not in self._registered:
            self._registered.add(uid)
            message = f"Node {name} event: Registered Node {name} in Controller"
            self._events.event(node, "Normal", "RegisteredNode", message)

    def _record_heartbeat(self, node: Node) -> None:
        """Record the time of a change of the lease or the status of a node."""
        lease = self._leases.get(node["metadata"]["name"], _LEASE_NAMESPACE)
        renewed = (lease.get("spec") or {}).get("renewTime") if lease is not None else None
        ready = condition_of(node, "Ready")
        beat = renewed, (ready.get("lastHeartbeatTime"), ready["status"]) if ready is not None else None
        uid = node["metadata"]["uid"]
        if uid not in self._heartbeats or self._heartbeats[uid][0] != beat:
            self._heartbeats[uid] = beat, time.monotonic()

    def _silence(self, node: Node) -> float:
        """The seconds since the last heartbeat of a node, or since its creation without any heartbeat."""
        beat, arrived = self._heartbeats[node["metadata"]["uid"]]
        if beat == (None, None):
            return (clock.now() - clock.parse(node["metadata"]["creationTimestamp"])).total_seconds()
        return time.monotonic() - arrived

    async def _mark_unknown(self, node: Node) -> None:
        now = clock.rfc3339()
        changed: list[NodeCondition] = []
        for kind in _REPORTED:
            old = condition_of(node, kind)
            if old is not None and old["status"] == "Unknown":
                continue
            unknown: NodeCondition = {"type": kind, "status": "Unknown", "lastTransitionTime": now}
            if old is None:
                unknown["lastHeartbeatTime"] = node["metadata"]["creationTimestamp"]
                unknown["reason"] = "NodeStatusNeverUpdated"
                unknown["message"] = "Kubelet never posted node status."
            else:
                if "lastHeartbeatTime" in old:
                    unknown["lastHeartbeatTime"] = old["lastHeartbeatTime"]
                unknown["reason"] = "NodeStatusUnknown"
                unknown["message"] = "Kubelet stopped posting node status."
            changed.append(unknown)
        name = node["metadata"]["name"]
        patch = {"status": {"conditions": changed}}
        await self._client.patch(NODES, name, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH)
        if status_of(node, "Ready") == "True":
            self._events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _set_taints(self, node: Node, desired: set[tuple[str, str]]) -> None:
        now = clock.rfc3339()
        taints = (node.get("spec") or {}).get("taints") or ()
        kept: list[Taint] = [
            taint for taint in taints if taint["key"] not in _MANAGED or (taint["key"], taint["effect"]) in desired
        ]
        missing = sorted(desired - _present(node))
        kept += [{"key": key, "effect": effect, "timeAdded": now} for key, effect in missing]
        version = node["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
        with suppress_stale():
            await self._client.patch(NODES, node["metadata"]["name"], patch)

    async def _unready(self, node: Node) -> None:
        """Mark the pods of an unhealthy node as not ready."""
        pods = [pod for pod in self._pods.indexed("node", node["metadata"]["name"]) if is_ready(pod)]
        await asyncio.gather(*(self._mark_unready(pod) for pod in pods))

    async def _mark_unready(self, pod: Pod) -> None:
        condition: PodCondition = {"type": "Ready", "status": "False", "lastTransitionTime": clock.rfc3339()}
        with suppress_stale():
            await self._client.patch_pod_status(pod, {"conditions": [condition]})
            self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def _desired(node: Node) -> set[tuple[str, str]]:
    """The keys and effects of the managed taints that a node should have."""
    desired: set[tuple[str, str]] = set()
    for condition in (node.get("status") or {}).get("conditions") or ():
        key, effects = _TAINTS.get((condition["type"], condition["status"]), ("", ()))
        desired |= {(key, effect) for effect in effects}
    if (node.get("spec") or {}).get("unschedulable"):
        desired.add((_UNSCHEDULABLE, "NoSchedule"))
    return desired


def _present(node: Node) -> set[tuple[str, str]]:
    """The managed taints that a node has. An API server adds the first of them to a new node."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return {(taint["key"], taint["effect"]) for taint in taints if taint["key"] in _MANAGED}
