"""Deletes pods of nodes that are gone, and the oldest of too many ended pods (`pkg/controller/podgc`)."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import NODES, PODS
from cumulet.common.kubernetes.objects import Node, Pod, PodCondition
from cumulet.controllers.controller import Context, Key
from cumulet.controllers.pods import is_terminating, phase_of

#: The seconds for which a node can be missing before its pods are lost.
QUARANTINE = 40.0
#: The number of ended pods that are kept.
KEPT = 12_500
_ENDED: Key = ("ended", "")
_INTERVAL = 20.0
_OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class PodGarbageCollector:
    """The garbage collector of pods. Its keys are ("node", name), ("pod", "namespace/name"), and one for all ended pods."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._nodes = context.informer(NODES)
        self._pods = context.informer(PODS)
        self._pods.add_index("node", lambda pod: (pod["spec"].get("nodeName") or "",))
        self._nodes.add_handler(self._node_changed)
        self._pods.add_handler(self._pod_changed)
        self.queue.add(_ENDED)

    def _node_changed(self, change: str, node: Node, old: Node | None) -> None:
        key = "node", node["metadata"]["name"]
        if change == "DELETED":
            self.queue.add_after(key, QUARANTINE)
        elif _is_out_of_service(node):
            self.queue.add(key)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change == "DELETED":
            return
        node = pod["spec"].get("nodeName")
        if not node:
            if is_terminating(pod):
                self.queue.add(("pod", f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"))
        elif self._nodes.get(node) is None:
            self.queue.add_after(("node", node), QUARANTINE)

    async def reconcile(self, key: Key) -> None:
        """Delete the lost pods of one key."""
        kind, name = key
        if kind == "ended":
            await self._ended()
        elif kind == "pod":
            namespace, _, name = name.partition("/")
            pod = self._pods.get(name, namespace)
            if pod is not None and is_terminating(pod) and not pod["spec"].get("nodeName"):
                await self._delete(pod, "unscheduled pod is deleted")
        else:
            await self._node(name)

    async def _node(self, name: str) -> None:
        node = self._nodes.get(name)
        if node is None:
            try:
                await self._client.get(NODES, name)
            except KubernetesError as error:
                if error.code != 404:
                    raise
            else:
                return  # the node is back, before the watch reported it
            for pod in self._pods.indexed("node", name):
                await self._delete(pod, "PodGC: node no longer exists")
        elif _is_out_of_service(node):
            for pod in self._pods.indexed("node", name):
                if is_terminating(pod):
                    await self._delete(pod, "PodGC: node is out of service")

    async def _ended(self) -> None:
        self.queue.add_after(_ENDED, _INTERVAL)
        ended = [pod for pod in self._pods if phase_of(pod) in ("Succeeded", "Failed")]
        surplus = len(ended) - KEPT
        if surplus > 0:
            ended.sort(key=lambda pod: pod["metadata"]["creationTimestamp"])
            for pod in ended[:surplus]:
                await self._delete(pod, "")

    async def _delete(self, pod: Pod, message: str) -> None:
        """Delete a pod at once. A pod that has not ended is first marked as failed, so that its owner counts it."""
        metadata = pod["metadata"]
        with suppress_stale():
            if phase_of(pod) not in ("Succeeded", "Failed"):
                condition: PodCondition = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "DeletionByPodGC",
                    "message": message,
                    "lastTransitionTime": clock.rfc3339(),
                }
                await self._client.patch_pod_status(pod, {"phase": "Failed", "conditions": [condition]})
            await self._client.delete(
                PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace_period_seconds=0
            )


def _is_out_of_service(node: Node) -> bool:
    return any(taint["key"] == _OUT_OF_SERVICE for taint in (node.get("spec") or {}).get("taints") or ())
