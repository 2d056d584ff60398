"""Evicts pods from nodes whose taints they do not tolerate, at once or after a time (`pkg/controller/tainteviction`)."""

from __future__ import annotations

from datetime import datetime

from cumulet.common import clock
from cumulet.common.kubernetes import WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import NODES, PODS
from cumulet.common.kubernetes.objects import Node, Pod, PodCondition, PodSpec, Taint, Toleration
from cumulet.common.kubernetes.selection import tolerates
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.pods import is_terminating, phase_of


class TaintEvictionController:
    """The controller of taint-based evictions. Its keys are those of pods."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("taint-eviction-controller")
        self._nodes = context.informer(NODES)
        self._pods = context.informer(PODS)
        #: The first observation of taints without `timeAdded`, by node, key and value.
        self._seen: dict[tuple[str, str, str], datetime] = {}
        self._pods.add_index("node", lambda pod: (pod["spec"].get("nodeName") or "",))
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)

    def _node_changed(self, change: str, node: Node, old: Node | None) -> None:
        name = node["metadata"]["name"]
        present = (
            {(name, taint["key"], taint.get("value", "")) for taint in _taints(node)}
            if change != "DELETED"
            else set()
        )
        for gone in [known for known in self._seen if known[0] == name and known not in present]:
            del self._seen[gone]
        if change != "DELETED" and (old is None or old is node or _taints(old) != _taints(node)) and _taints(node):
            for pod in self._pods.indexed("node", node["metadata"]["name"]):
                self.queue.add(key_of(pod))

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        if change != "DELETED" and node is not None and _taints(node):
            before: PodSpec = old["spec"] if old is not None else {}
            now = pod["spec"]
            if (before.get("nodeName"), before.get("tolerations")) != (now.get("nodeName"), now.get("tolerations")):
                self.queue.add(key_of(pod))

    async def reconcile(self, key: Key) -> None:
        """Evict a pod whose toleration has expired, or queue it again for that time."""
        pod = self._pods.get(key[1], key[0])
        if pod is None or is_terminating(pod) or phase_of(pod) in ("Succeeded", "Failed"):
            return
        node = self._nodes.get(pod["spec"].get("nodeName") or "")
        taints = _taints(node) if node is not None else []
        if not taints:
            return
        left = self._left(pod["spec"].get("tolerations") or [], taints, pod["spec"]["nodeName"])
        if left is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        await self._evict(pod)

    def _left(self, tolerations: list[Toleration], taints: list[Taint], node: str) -> float | None:
        """The seconds for which a pod can stay, or `None` without a limit."""
        lefts = []
        for taint in taints:
            tolerating = [item for item in tolerations if tolerates([item], taint)]
            if not tolerating:
                return 0.0
            limits = [item["tolerationSeconds"] for item in tolerating if item.get("tolerationSeconds") is not None]
            if len(limits) == len(tolerating):
                lefts.append(min(limits) - (clock.now() - self._since(taint, node)).total_seconds())
        return min(lefts) if lefts else None

    def _since(self, taint: Taint, node: str) -> datetime:
        if taint.get("timeAdded"):
            return clock.parse(taint["timeAdded"])
        return self._seen.setdefault((node, taint["key"], taint.get("value", "")), clock.now())

    async def _evict(self, pod: Pod) -> None:
        metadata = pod["metadata"]
        condition: PodCondition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
            "lastTransitionTime": clock.rfc3339(),
        }
        message = f"Marking for deletion Pod {metadata['namespace']}/{metadata['name']}"
        with suppress_stale():
            await self._client.patch_pod_status(pod, {"conditions": [condition]})
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
            self._events.event(pod, "Normal", "TaintManagerEviction", message)


def _taints(node: Node) -> list[Taint]:
    taints = (node.get("spec") or {}).get("taints") or ()
    return [taint for taint in taints if taint.get("effect") == "NoExecute"]
