"""Which of the nodes that can take a pod is best: a table of scores from 0 to 100 with their weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cumulet.common.kubernetes.selection import tolerates
from cumulet.scheduler.filters import node_term
from cumulet.scheduler.state import NodeState, requests_of

Object = dict[str, Any]
Score = Callable[[Object, NodeState], float]


def _least_allocated(pod: Object, node: NodeState) -> float:
    """More for a node that has more left."""
    wanted, allocatable = requests_of(pod), node.allocatable
    left = []
    for name in ("cpu", "memory"):
        if capacity := allocatable.get(name):
            used = node.requested.get(name, 0) + wanted.get(name, 0)
            left.append(max(capacity - used, 0) / capacity)
    return 100 * sum(left) / len(left) if left else 0


def _fewest_pods(_: Object, node: NodeState) -> float:
    """More for a node with fewer pods, so that equal nodes take turns."""
    capacity = node.allocatable.get("pods", 0)
    return 100 * (1 - len(node.pods) * 1000 / capacity) if capacity else 0


def _preferred_affinity(pod: Object, node: NodeState) -> float:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    total = sum(item["weight"] for item in preferred)
    met = sum(item["weight"] for item in preferred if node_term(item["preference"], node))
    return 100 * met / total if total else 0


def _preferred_taints(pod: Object, node: NodeState) -> float:
    tolerations = pod["spec"].get("tolerations") or ()
    taints = [
        taint
        for taint in (node.node.get("spec") or {}).get("taints") or ()
        if taint.get("effect") == "PreferNoSchedule" and not tolerates(tolerations, taint)
    ]
    return 100 / (1 + len(taints))


SCORES: tuple[tuple[Score, float], ...] = (
    (_least_allocated, 1),
    (_fewest_pods, 1),
    (_preferred_affinity, 2),
    (_preferred_taints, 3),
)


def best(pod: Object, nodes: list[NodeState]) -> NodeState:
    """The node with the highest score; among equals the first by name."""
    return max(sorted(nodes, key=lambda node: node.name, reverse=True), key=lambda node: _total(pod, node))


def _total(pod: Object, node: NodeState) -> float:
    return sum(weight * score(pod, node) for score, weight in SCORES)
