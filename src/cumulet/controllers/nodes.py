"""Nodes: whether they are heard of, and what their conditions mean for pods (`pkg/controller/nodelifecycle`)."""

from __future__ import annotations

import asyncio
import time

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import LEASES, NODES, PODS, STRATEGIC_MERGE_PATCH
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.pods import condition_of, is_ready

#: Seconds without a heartbeat after which a node is not known to be well, and those for the first (upstream's).
GRACE = 50.0
_FIRST_GRACE = 60.0
#: The conditions that only the node itself knows.
_TOLD = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")
_LEASE_NAMESPACE = "kube-node-lease"
_PREFIX = "node.kubernetes.io/"
_BOTH = ("NoSchedule", "NoExecute")

#: The condition's type and status, and the taint that it brings with its effects.
_TAINTS: dict[tuple[str, str], tuple[str, tuple[str, ...]]] = {
    ("Ready", "False"): (f"{_PREFIX}not-ready", _BOTH),
    ("Ready", "Unknown"): (f"{_PREFIX}unreachable", _BOTH),
    ("MemoryPressure", "True"): (f"{_PREFIX}memory-pressure", ("NoSchedule",)),
    ("DiskPressure", "True"): (f"{_PREFIX}disk-pressure", ("NoSchedule",)),
    ("PIDPressure", "True"): (f"{_PREFIX}pid-pressure", ("NoSchedule",)),
    ("NetworkUnavailable", "True"): (f"{_PREFIX}network-unavailable", ("NoSchedule",)),
}
_UNSCHEDULABLE = f"{_PREFIX}unschedulable"
_OURS = {key for key, _ in _TAINTS.values()} | {_UNSCHEDULABLE}


class NodeLifecycleController:
    """Keeps each node's taints in line with its conditions, and its condition Ready with its heartbeats."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("node-controller")
        self._nodes = context.informer(NODES)
        self._leases = context.informer(LEASES)
        self._pods = context.informer(PODS)
        self._pods.add_index("node", lambda pod: (pod["spec"].get("nodeName") or "",))
        self._told: set[str] = set()
        #: By uid, the last heartbeat and when it was seen: clocks of nodes may differ from this one.
        self._heard: dict[str, tuple[object, float]] = {}
        self._nodes.add_handler(self._node_changed)
        self._leases.add_handler(self._lease_changed)

    def _node_changed(self, change: str, node: Object, old: Object | None) -> None:
        if change == "DELETED":
            self._told.discard(node["metadata"]["uid"])
            self._heard.pop(node["metadata"]["uid"], None)
        else:
            self._listen(node)
            self.queue.add(key_of(node))

    def _lease_changed(self, change: str, lease: Object, old: Object | None) -> None:
        if lease["metadata"]["namespace"] == _LEASE_NAMESPACE:
            node = self._nodes.get(lease["metadata"]["name"])
            if node is not None:
                self._listen(node)
            if node is not None and condition_of(node, "Ready").get("status") == "Unknown":
                self.queue.add(key_of(node))

    async def reconcile(self, key: Key) -> None:
        """Bring condition and taints in line with the last heartbeat."""
        node = self._nodes.get(key[1])
        if node is None:
            return
        self._tell_of_new(node)
        ready = condition_of(node, "Ready")
        grace = GRACE if ready else _FIRST_GRACE
        silent = self._silence(node)
        if silent > grace and any(condition_of(node, kind).get("status") != "Unknown" for kind in _TOLD):
            await self._mark_unknown(node)
            return
        wanted = _wanted(node)
        if wanted != _present(node) and (ready or any(key == _UNSCHEDULABLE for key, _ in wanted ^ _present(node))):
            await self._set_taints(node, wanted)
        if ready.get("status") in ("False", "Unknown"):
            await self._unready(node)
        self.queue.add_after(key, max(grace - silent, 0) + 1)

    def _tell_of_new(self, node: Object) -> None:
        """Once for each node that this process sees, as upstream's controller manager does."""
        name, uid = node["metadata"]["name"], node["metadata"]["uid"]
        if uid not in self._told:
            self._told.add(uid)
            message = f"Node {name} event: Registered Node {name} in Controller"
            self._events.event(node, "Normal", "RegisteredNode", message)

    def _listen(self, node: Object) -> None:
        """Note when the node's lease or status was last another than before."""
        lease = self._leases.get(node["metadata"]["name"], _LEASE_NAMESPACE) or {}
        ready = condition_of(node, "Ready")
        beat = (lease.get("spec") or {}).get("renewTime"), ready and (ready.get("lastHeartbeatTime"), ready["status"])
        uid = node["metadata"]["uid"]
        if uid not in self._heard or self._heard[uid][0] != beat:
            self._heard[uid] = beat, time.monotonic()

    def _silence(self, node: Object) -> float:
        """Seconds since the node was last heard of; a node that was never heard of is as old as its object."""
        beat, seen = self._heard[node["metadata"]["uid"]]
        if beat == (None, {}):
            return (clock.now() - clock.parse(node["metadata"]["creationTimestamp"])).total_seconds()
        return time.monotonic() - seen

    async def _mark_unknown(self, node: Object) -> None:
        now = clock.rfc3339()
        changed = []
        for kind in _TOLD:
            old = condition_of(node, kind)
            if not old:
                reason, message = "NodeStatusNeverUpdated", "Kubelet never posted node status."
                old = {"lastHeartbeatTime": node["metadata"]["creationTimestamp"]}
            elif old.get("status") != "Unknown":
                reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
            else:
                continue
            unknown = {"type": kind, "status": "Unknown", "reason": reason, "message": message}
            changed.append({**old, **unknown, "lastTransitionTime": now})
        name = node["metadata"]["name"]
        patch = {"status": {"conditions": changed}}
        await self._client.patch(NODES, name, patch, subresource="status", content_type=STRATEGIC_MERGE_PATCH)
        if condition_of(node, "Ready").get("status") == "True":
            self._events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _set_taints(self, node: Object, wanted: set[tuple[str, str]]) -> None:
        now = clock.rfc3339()
        taints = (node.get("spec") or {}).get("taints") or ()
        kept = [taint for taint in taints if taint["key"] not in _OURS or (taint["key"], taint["effect"]) in wanted]
        missing = sorted(wanted - _present(node))
        kept += [{"key": key, "effect": effect, "timeAdded": now} for key, effect in missing]
        version = node["metadata"]["resourceVersion"]
        patch = {"metadata": {"resourceVersion": version}, "spec": {"taints": kept or None}}
        try:
            await self._client.patch(NODES, node["metadata"]["name"], patch)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _unready(self, node: Object) -> None:
        """Pods of a node that is not well serve nobody."""
        pods = [pod for pod in self._pods.indexed("node", node["metadata"]["name"]) if is_ready(pod)]
        await asyncio.gather(*(self._mark_unready(pod) for pod in pods))

    async def _mark_unready(self, pod: Object) -> None:
        metadata = pod["metadata"]
        condition = {"type": "Ready", "status": "False", "lastTransitionTime": clock.rfc3339()}
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
        try:
            await self._client.patch(
                PODS,
                metadata["name"],
                patch,
                metadata["namespace"],
                subresource="status",
                content_type=STRATEGIC_MERGE_PATCH,
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
            return
        self._events.event(pod, "Warning", "NodeNotReady", "Node is not ready")


def _wanted(node: Object) -> set[tuple[str, str]]:
    """Key and effect of the taints that a node should have from us."""
    found: set[tuple[str, str]] = set()
    for condition in (node.get("status") or {}).get("conditions") or ():
        key, effects = _TAINTS.get((condition["type"], condition["status"]), ("", ()))
        found |= {(key, effect) for effect in effects}
    if (node.get("spec") or {}).get("unschedulable"):
        found.add((_UNSCHEDULABLE, "NoSchedule"))
    return found


def _present(node: Object) -> set[tuple[str, str]]:
    """Those that it has; an API server gives a new node the first of them."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return {(taint["key"], taint["effect"]) for taint in taints if taint["key"] in _OURS}
