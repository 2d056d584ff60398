"""Admits pods to the node as a kubelet does: a pod can be bound to a node without the scheduler (`spec.nodeName`).

The reasons and messages are the kubelet's (`lifecycle/predicate.go`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

from cumulet.common.kubernetes.amounts import Amounts, pod_amounts
from cumulet.common.kubernetes.objects import Node, Pod
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.selection import selects_node, untolerated
from cumulet.node.errors import RejectedError

#: Seconds for which labels and taints of the node are remembered.
_FRESH = 10.0
_OS = "linux"
_PODS = "pods"


class Admission:
    """The amounts of the admitted pods, by uid. `read` returns the node's object."""

    def __init__(self, capacity: Mapping[str, str], read: Callable[[], Awaitable[Node]]) -> None:
        self._capacity = {name: decimal(value) for name, value in capacity.items()}
        self._read = read
        self._node: tuple[Node, float] | None = None
        self._admitted: dict[str, Amounts] = {}
        self._used: Amounts = dict.fromkeys(self._capacity, Decimal(0))

    async def admit(self, pod: Pod) -> None:
        """Admit a pod that has no group yet. Raises `RejectedError`, `KubernetesError`, `aiohttp.ClientError`."""
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        if uid in self._admitted:
            return
        node = await self._newest(_FRESH)
        if not _selected(pod, node):
            node = await self._newest(0)
        self._check_system(pod)
        self._check_amounts(pod)
        if not _selected(pod, node):
            raise RejectedError(
                "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
            )
        taints = (node.get("spec") or {}).get("taints") or ()
        if untolerated(taints, spec.get("tolerations") or (), ("NoExecute",)) is not None:
            raise RejectedError(
                "TaintToleration", "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate"
            )
        self.keep(pod)

    def keep(self, pod: Pod) -> None:
        """Count a pod that is admitted."""
        uid = pod["metadata"]["uid"]
        if uid not in self._admitted:
            self._admitted[uid] = wanted = self._wanted(pod)
            for name, value in wanted.items():
                self._used[name] += value

    def release(self, uid: str) -> None:
        """Count a pod no more, which has ended or is gone."""
        for name, value in self._admitted.pop(uid, {}).items():
            self._used[name] -= value

    def _wanted(self, pod: Pod) -> Amounts:
        """Return the requests of a pod for what the node has. Devices that it lacks do not count, as in the kubelet."""
        requests = pod_amounts(pod["spec"], "requests")
        return {
            name: Decimal(1) if name == _PODS else requests.get(name, Decimal(0)) for name in (_PODS, *self._capacity)
        }

    @staticmethod
    def _check_system(pod: Pod) -> None:
        if (pod["metadata"].get("labels") or {}).get("kubernetes.io/os", _OS) != _OS:
            raise RejectedError(
                "PodOSSelectorNodeLabelDoesNotMatch",
                "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
            )
        if (pod["spec"].get("os") or {}).get("name", _OS) != _OS:
            raise RejectedError("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")

    def _check_amounts(self, pod: Pod) -> None:
        for name, wanted in self._wanted(pod).items():
            if wanted and wanted > self._capacity[name] - self._used[name]:
                unit = 1000 if name == "cpu" else 1
                raise RejectedError(
                    f"OutOf{name}",
                    f"Node didn't have enough resource: {name}, requested: {int(wanted * unit)}, "
                    f"used: {int(self._used[name] * unit)}, capacity: {int(self._capacity[name] * unit)}",
                )

    async def _newest(self, age: float) -> Node:
        """Return the node's object, at most `age` seconds old."""
        now = time.monotonic()
        if self._node is None or now - self._node[1] > age:
            self._node = (await self._read(), now)
        return self._node[0]


def _selected(pod: Pod, node: Node) -> bool:
    metadata = node["metadata"]
    return selects_node(pod["spec"], metadata.get("labels") or {}, metadata["name"])
