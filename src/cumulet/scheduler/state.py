"""The nodes and what runs on them, as the scheduler sees them: with its own decisions that are on their way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from cumulet.common.kubernetes.quantity import milli
from cumulet.scheduler.requests import Amounts, Group, PodInfo

Object = dict[str, Any]

_generations = itertools.count(1)


class NodeState:
    """A node, the pods on it, and the sums of what they ask for, in thousandths of each resource's unit.

    `generation` is another after every change, so that what was found out about a node can be kept until then.
    """

    def __init__(self, node: Object) -> None:
        self.pods: dict[str, PodInfo] = {}
        self.requested: Amounts = {}
        #: The same for scores: what asks for nothing counts as a little.
        self.cpu = 0
        self.memory = 0
        #: How many pods there are of each controller.
        self.controllers: dict[str, int] = {}
        #: How many there are of each kind that a selector can tell apart.
        self.groups: dict[Group, int] = {}
        self.set_node(node)

    def set_node(self, node: Object) -> None:
        """The node is new or changed."""
        spec, status = node.get("spec") or {}, node.get("status") or {}
        self.node = node
        self.name: str = node["metadata"]["name"]
        self.labels: dict[str, str] = node["metadata"].get("labels") or {}
        self.taints: list[Object] = spec.get("taints") or []
        self.unschedulable: bool = bool(spec.get("unschedulable"))
        self.allocatable: Amounts = {name: milli(value) for name, value in (status.get("allocatable") or {}).items()}
        self.images: dict[str, int] = {
            name: image.get("sizeBytes", 0)
            for image in status.get("images") or ()
            for name in image.get("names") or ()
        }
        self.generation = next(_generations)

    def add(self, info: PodInfo) -> None:
        """A pod is on the node, or will be."""
        if info.uid in self.pods:
            self.remove(info.uid)
        self.pods[info.uid] = info
        self._count(info, 1)

    def remove(self, uid: str) -> PodInfo | None:
        """A pod is no longer on the node."""
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
    """All nodes by name. A pod is where it was bound, or assumed to be until the API says so."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeState] = {}
        #: Pods that refuse others near them: all new pods have to ask them.
        self.refusing: dict[str, tuple[PodInfo, NodeState]] = {}
        #: Pods that would rather have others near them, or away.
        self.preferring: dict[str, tuple[PodInfo, NodeState]] = {}
        #: Another after every change of a node itself, rather than of its pods.
        self.generation = 0
        #: Where pods that wait for room are meant to go, and what they will take there.
        self.nominated: dict[str, dict[str, PodInfo]] = {}
        #: The labels of namespaces, which terms of affinity may select.
        self.namespaces: dict[str, dict[str, str]] = {}
        self._where: dict[str, str] = {}
        #: Pods of nodes that are not known yet.
        self._waiting: dict[str, tuple[PodInfo, str]] = {}

    def __iter__(self) -> Iterator[NodeState]:
        return iter(self.nodes.values())

    def __len__(self) -> int:
        return len(self.nodes)

    def set_node(self, node: Object) -> None:
        """A node is new or changed."""
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
        """A node is gone; its pods are kept in mind, in case it comes back."""
        self.generation += 1
        state = self.nodes.pop(name, None)
        for info in state.pods.values() if state is not None else ():
            self._where.pop(info.uid, None)
            self.refusing.pop(info.uid, None)
            self.preferring.pop(info.uid, None)
            self._waiting[info.uid] = info, name

    def node_of(self, uid: str) -> str | None:
        """Where a pod is."""
        return self._where.get(uid)

    def place(self, info: PodInfo, node: str) -> None:
        """A pod is on a node, or is assumed to be."""
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
        """A pod is meant for a node once there is room, or for none."""
        for name, pods in list(self.nominated.items()):
            if name != node and pods.pop(info.uid, None) is not None and not pods:
                del self.nominated[name]
        if node:
            self.nominated.setdefault(node, {})[info.uid] = info

    def forget(self, uid: str) -> None:
        """A pod has ended or is gone, or was not bound after all."""
        self._waiting.pop(uid, None)
        self.refusing.pop(uid, None)
        self.preferring.pop(uid, None)
        node = self._where.pop(uid, None)
        if node is not None and node in self.nodes:
            self.nodes[node].remove(uid)


def _change(counts: dict[Any, int], key: Any, by: int) -> None:
    left = counts.get(key, 0) + by
    if left:
        counts[key] = left
    else:
        del counts[key]
