"""Nodes: whether they are heard of, and what becomes of the pods of those that are not."""

from __future__ import annotations

from typing import Any

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import LEASES, NODES, PODS
from cumulet.common.kubernetes.selection import tolerates
from cumulet.controllers.controller import Context, Key, Object, key_of

#: Seconds without a heartbeat after which a node is not known to be well (upstream's default).
_GRACE = 50.0
_UNREACHABLE = "node.kubernetes.io/unreachable"
_EFFECTS = ("NoSchedule", "NoExecute")
_NOT_READY = "node.kubernetes.io/not-ready"
_LEASE_NAMESPACE = "kube-node-lease"


class NodeLifecycleController:
    """Taints a node by its condition Ready, and evicts pods that do not tolerate that for longer."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("node-controller")
        self._nodes = context.informer(NODES)
        self._leases = context.informer(LEASES)
        self._pods = context.informer(PODS)
        self._nodes.add_handler(self._node_changed)
        self._leases.add_handler(self._lease_changed)

    def _node_changed(self, change: str, node: Object, old: Object | None) -> None:
        self.queue.add(key_of(node))
        if change == "ADDED":
            name = node["metadata"]["name"]
            message = f"Node {name} event: Registered Node {name} in Controller"
            self._events.event(node, "Normal", "RegisteredNode", message)

    def _lease_changed(self, change: str, lease: Object, old: Object | None) -> None:
        if lease["metadata"]["namespace"] == _LEASE_NAMESPACE:
            self.queue.add_after(("", lease["metadata"]["name"]), _GRACE + 1)
            node = self._nodes.get(lease["metadata"]["name"])
            if node is not None and _taints(node):
                self.queue.add(key_of(node))

    async def reconcile(self, key: Key) -> None:
        """Bring condition and taints in line with the last heartbeat, then see to the pods."""
        node = self._nodes.get(key[1])
        if node is None:
            return
        silent = self._silence(node)
        ready = _ready(node)
        if silent > _GRACE and ready.get("status") != "Unknown":
            await self._mark_unknown(node)
            return
        wanted = {"False": _NOT_READY, "Unknown": _UNREACHABLE}.get(ready.get("status", ""))
        if ready and _taints(node) != ({(wanted, effect) for effect in _EFFECTS} if wanted else set()):
            await self._set_taint(node, wanted)
        if wanted is not None:
            await self._evict(key, node, wanted, ready.get("lastTransitionTime"))
        self.queue.add_after(key, max(_GRACE - silent, 1) + 1)

    def _silence(self, node: Object) -> float:
        """Seconds since the node was last heard of, by its lease or its status."""
        moments = [ready["lastHeartbeatTime"]] if (ready := _ready(node)).get("lastHeartbeatTime") else []
        lease = self._leases.get(node["metadata"]["name"], _LEASE_NAMESPACE)
        if lease is not None and (lease.get("spec") or {}).get("renewTime"):
            moments.append(lease["spec"]["renewTime"])
        moments = moments or [node["metadata"]["creationTimestamp"]]
        return (clock.now() - max(clock.parse(moment) for moment in moments)).total_seconds()

    async def _mark_unknown(self, node: Object) -> None:
        condition = {
            **_ready(node),
            "type": "Ready",
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": clock.rfc3339(),
        }
        name = node["metadata"]["name"]
        await self._client.patch(
            NODES,
            name,
            {"status": {"conditions": [condition]}},
            subresource="status",
            content_type="application/strategic-merge-patch+json",
        )
        self._events.event(node, "Normal", "NodeNotReady", f"Node {name} status is now: NodeNotReady")

    async def _set_taint(self, node: Object, wanted: str | None) -> None:
        ours = (_UNREACHABLE, _NOT_READY)
        taints = [taint for taint in (node.get("spec") or {}).get("taints") or () if taint["key"] not in ours]
        if wanted is not None:
            now = clock.rfc3339()
            taints += [{"key": wanted, "effect": effect, "timeAdded": now} for effect in _EFFECTS]
        patch = {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": taints}}
        try:
            await self._client.patch(NODES, node["metadata"]["name"], patch)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _evict(self, key: Key, node: Object, taint: str, since: str | None) -> None:
        """Delete the pods whose toleration has run out; come back for those whose has not."""
        waited = (clock.now() - clock.parse(since)).total_seconds() if since else 0.0
        for pod in self._pods:
            if pod["spec"].get("nodeName") != key[1] or pod["metadata"].get("deletionTimestamp"):
                continue
            tolerations: list[Any] = pod["spec"].get("tolerations") or []
            full = {"key": taint, "effect": "NoExecute"}
            matching = [item for item in tolerations if tolerates([item], full)]
            limits = [item["tolerationSeconds"] for item in matching if "tolerationSeconds" in item]
            if matching and not limits:
                continue
            left = (min(limits) if limits else 0) - waited
            if left > 0:
                self.queue.add_after(key, left)
                continue
            metadata = pod["metadata"]
            self._events.event(
                pod,
                "Normal",
                "TaintManagerEviction",
                f"Marking for deletion Pod {metadata['namespace']}/{metadata['name']}",
            )
            try:
                await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
            except KubernetesError as error:
                if error.code not in (404, 409):
                    raise


def _ready(node: Object) -> Object:
    for condition in (node.get("status") or {}).get("conditions") or ():
        if condition["type"] == "Ready":
            found: Object = condition
            return found
    return {}


def _taints(node: Object) -> set[tuple[str, str]]:
    """Key and effect of our taints of a node; an API server gives a new one the first of them, with one effect."""
    taints = (node.get("spec") or {}).get("taints") or ()
    return {(taint["key"], taint["effect"]) for taint in taints if taint["key"] in (_UNREACHABLE, _NOT_READY)}
