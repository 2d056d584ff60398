"""Plug-ins NodeResourcesFit and NodeResourcesBalancedAllocation: the free resources of a node."""

from __future__ import annotations

from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import NodeState

NAME = "NodeResourcesFit"


def fits(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in NodeResourcesFit. Reports every missing resource. Eviction cannot free more than the node has."""
    allocatable, requested = node.allocatable, node.requested
    missing: list[str] = []
    never = False
    for name, amount in pod.requests.items():
        total = allocatable.get(name, 0)
        if amount > total - requested.get(name, 0) and amount > 0:
            missing.append(name)
            never = never or amount > total
    if not missing:
        return None
    reasons = tuple("Too many pods" if name == "pods" else f"Insufficient {name}" for name in missing)
    return Refusal(NAME, reasons, resolvable=not never)


def could_ever_fit(pod: PodInfo, node: NodeState) -> bool:
    """Whether the node could take the pod if it were empty."""
    return all(amount <= node.allocatable.get(name, 0) for name, amount in pod.requests.items() if amount > 0)


def least_allocated(pod: PodInfo, node: NodeState) -> float:
    """From 0 to 100 points: more for a node with more free resources."""
    shares = [max(1.0 - used, 0.0) for used in _used(pod, node)]
    return 100.0 * sum(shares) / len(shares) if shares else 0.0


def balanced(pod: PodInfo, node: NodeState) -> float:
    """From 0 to 100 points: more for a node whose CPU and memory are used to the same degree."""
    shares = [min(used, 1.0) for used in _used(pod, node)]
    return 100.0 * (1.0 - abs(shares[0] - shares[1]) / 2) if len(shares) == 2 else 100.0


def _used(pod: PodInfo, node: NodeState) -> list[float]:
    """The used shares of CPU and memory with the pod on the node."""
    shares = []
    for name, used in (("cpu", node.cpu + pod.cpu), ("memory", node.memory + pod.memory)):
        if total := node.allocatable.get(name):
            shares.append(used / total)
    return shares
