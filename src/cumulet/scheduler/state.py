"""The nodes and what runs on them, as the scheduler sees them: with its own decisions that are on their way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cumulet.common.kubernetes.quantity import milli

Object = dict[str, Any]


class NodeState:
    """A node, the pods on it, and the sum of what they ask for, in thousandths of each resource's unit."""

    def __init__(self, node: Object) -> None:
        self.node = node
        self.pods: dict[str, Object] = {}
        self.requested: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The node's name."""
        name: str = self.node["metadata"]["name"]
        return name

    @property
    def labels(self) -> dict[str, str]:
        """The node's labels."""
        return self.node["metadata"].get("labels") or {}

    @property
    def allocatable(self) -> dict[str, int]:
        """What the node has for pods."""
        status = self.node.get("status") or {}
        return {name: milli(value) for name, value in (status.get("allocatable") or {}).items()}

    def add(self, pod: Object) -> None:
        """A pod is on the node, or will be."""
        uid = pod["metadata"]["uid"]
        if uid in self.pods:
            self.remove(uid)
        self.pods[uid] = pod
        for name, value in requests_of(pod).items():
            self.requested[name] = self.requested.get(name, 0) + value

    def remove(self, uid: str) -> None:
        """A pod is no longer on the node."""
        pod = self.pods.pop(uid, None)
        if pod is not None:
            for name, value in requests_of(pod).items():
                self.requested[name] -= value


class Cluster:
    """All nodes by name. A pod is where it was bound, or assumed to be until the API says so."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeState] = {}
        self._where: dict[str, str] = {}

    def __iter__(self) -> Iterator[NodeState]:
        return iter(self.nodes.values())

    def set_node(self, node: Object) -> None:
        """A node is new or changed."""
        name = node["metadata"]["name"]
        known = self.nodes.get(name)
        if known is not None:
            known.node = node
        else:
            self.nodes[name] = NodeState(node)

    def remove_node(self, name: str) -> None:
        """A node is gone."""
        self.nodes.pop(name, None)

    def place(self, pod: Object, node: str) -> None:
        """A pod is on a node, or is assumed to be."""
        uid = pod["metadata"]["uid"]
        self.forget(uid)
        if node in self.nodes:
            self.nodes[node].add(pod)
            self._where[uid] = node

    def forget(self, uid: str) -> None:
        """A pod has ended or is gone, or was not bound after all."""
        node = self._where.pop(uid, None)
        if node is not None and node in self.nodes:
            self.nodes[node].remove(uid)


def requests_of(pod: Object) -> dict[str, int]:
    """What a pod asks for: its containers together, or its largest init container; and one of `pods`."""
    spec = pod["spec"]
    total: dict[str, int] = {"pods": 1000}
    for container in spec.get("containers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = total.get(name, 0) + milli(value)
    for container in spec.get("initContainers") or ():
        for name, value in ((container.get("resources") or {}).get("requests") or {}).items():
            total[name] = max(total.get(name, 0), milli(value))
    for name, value in (spec.get("overhead") or {}).items():
        total[name] = total.get(name, 0) + milli(value)
    return total
