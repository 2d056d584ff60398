"""The nodes and their pods, including the decisions of the scheduler that are not bound yet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TypeVar

from cumulet.common.kubernetes.objects import Node, Taint
from cumulet.common.kubernetes.quantity import milli
from cumulet.scheduler.requests import Amounts, Group, PodInfo

_K = TypeVar("_K")

_generations = itertools.count(1)


class NodeState:
    """A node, its pods, and the sums of their requests in thousandths of the unit of each resource.

    Every change sets a new `generation`, so that results about a node can be cached until then.
    """

    def __init__(self, node: Node) -> None:
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        #: The same for scores, with default amounts for containers without requests.
        self.cpu = 0
        self.memory = 0
        #: The number of pods of each controller.
        self.controllers: dict[str, int] = {}
        #: The number of pods of each group that selectors can distinguish.
        self.groups: dict[Group, int] = {}
        self.set_node(node)

    def set_node(self, node: Node) -> None:
        """Read a node that is new or changed."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.node = node
        self.name: str = node["metadata"]["name"]
        self.labels: dict[str, str] = node["metadata"].get("labels") or {}
        self.taints: list[Taint] = spec.get("taints") or []
        self.unschedulable: bool = bool(spec.get("unschedulable"))
        self.allocatable: Amounts = {name: milli(value) for name, value in (status.get("allocatable") or {}).items()}
        self.images: dict[str, int] = {
            name: image.get("sizeBytes", 0)
            for image in status.get("images") or ()
            for name in image.get("names") or ()
        }
        self.generation = next(_generations)

    def add(self, info: PodInfo) -> None:
        """Add a pod that is on the node, or will be."""
        if info.uid in self.pods:
            self.remove(info.uid)
        self.pods[info.uid] = info
        self._count(info, 1)

    def remove(self, uid: str) -> PodInfo | None:
        """Remove a pod from the node. Returns it if it was there."""
        info = self.pods.pop(uid, None)
        if info is not None:
            self._count(info, -1)
        return info

    def _count(self, info: PodInfo, sign: int) -> None:
        requested = self.requested
        for name, value in info.requests.items():
            requested[name] = requested.get(name, 0) + sign * value
        self.cpu += sign * info.cpu
        self.memory += sign * info.memory
        _change(self.groups, info.group, sign)
        if info.controller:
            _change(self.controllers, info.controller, sign)
        self.generation = next(_generations)


class Cluster:
    """All nodes by name. A pod is on the node to which it was bound, or to which the scheduler is binding it."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeState] = {}
        #: Pods with required anti-affinity, which every new pod must respect.
        self.refusing: dict[str, tuple[PodInfo, NodeState]] = {}
        #: Pods with preferences about other pods.
        self.preferring: dict[str, tuple[PodInfo, NodeState]] = {}
        #: New after every change of a node itself, but not of its pods.
        self.generation = 0
        #: The pods that are nominated for each node and wait for room there.
        self.nominated: dict[str, dict[str, PodInfo]] = {}
        #: The labels of namespaces, which affinity terms can select.
        self.namespaces: dict[str, dict[str, str]] = {}
        self._where: dict[str, str] = {}
        #: Pods of nodes that are not in the cluster yet.
        self._waiting: dict[str, tuple[PodInfo, str]] = {}

    def __iter__(self) -> Iterator[NodeState]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def set_node(self, node: Node) -> None:
        """Add a node that is new, or update one that changed."""
        name = node["metadata"]["name"]
        self.generation += 1
        known = self.nodes.get(name)
        if known is not None:
            known.set_node(node)
            return
        self.nodes[name] = NodeState(node)
        for info, where in list(self._waiting.values()):
            if where == name:
                self.place(info, name)

    def remove_node(self, name: str) -> None:
        """Remove a node. Its pods are kept in case it returns."""
        self.generation += 1
        state = self.nodes.pop(name, None)
        for info in state.pods.values() if state is not None else ():
            self._where.pop(info.uid, None)
            self.refusing.pop(info.uid, None)
            self.preferring.pop(info.uid, None)
            self._waiting[info.uid] = info, name

    def node_of(self, uid: str) -> str | None:
        """The name of the node of a pod."""
        return self._where.get(uid)

    def place(self, info: PodInfo, node: str) -> None:
        """Put a pod on a node, bound or assumed."""
        where = self._where.get(info.uid)
        if where == node and self.nodes[node].pods[info.uid].same(info):
            return
        self.forget(info.uid)
        state = self.nodes.get(node)
        if state is None:
            self._waiting[info.uid] = info, node
            return
        state.add(info)
        self._where[info.uid] = node
        if info.required_anti_affinity:
            self.refusing[info.uid] = info, state
        if info.has_preferences:
            self.preferring[info.uid] = info, state

    def nominate(self, info: PodInfo, node: str | None) -> None:
        """Nominate a pod for a node, or for none."""
        for name, pods in list(self.nominated.items()):
            if name != node and pods.pop(info.uid, None) is not None and not pods:
                del self.nominated[name]
        if node:
            self.nominated.setdefault(node, {})[info.uid] = info

    def forget(self, uid: str) -> None:
        """Remove a pod that has ended, is gone, or could not be bound."""
        self._waiting.pop(uid, None)
        self.refusing.pop(uid, None)
        self.preferring.pop(uid, None)
        node = self._where.pop(uid, None)
        if node is not None and node in self.nodes:
            self.nodes[node].remove(uid)


def _change(counts: dict[_K, int], key: _K, by: int) -> None:
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]
