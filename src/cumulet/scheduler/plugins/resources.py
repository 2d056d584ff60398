"""Plug-ins NodeResourcesFit and NodeResourcesBalancedAllocation: what a node has left."""

from __future__ import annotations

from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import NodeState

NAME = "NodeResourcesFit"


def fits(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Every amount that is not left is told of; one that the node never had is not helped by evicting."""
    allocatable, requested = node.allocatable, node.requested
    missing: list[str] = []
    never = False
    for name, wanted in pod.requests.items():
        has = allocatable.get(name, 0)
        if wanted > has - requested.get(name, 0) and wanted > 0:
            missing.append(name)
            never = never or wanted > has
    if not missing:
        return None
    reasons = tuple("Too many pods" if name == "pods" else f"Insufficient {name}" for name in missing)
    return Refusal(NAME, reasons, resolvable=not never)


def could_ever_fit(pod: PodInfo, node: NodeState) -> bool:
    """Whether an empty node of that size could take the pod."""
    return all(wanted <= node.allocatable.get(name, 0) for name, wanted in pod.requests.items() if wanted > 0)


def least_allocated(pod: PodInfo, node: NodeState) -> float:
    """More for a node that has more left."""
    shares = [max(1.0 - used, 0.0) for used in _used(pod, node)]
    return 100.0 * sum(shares) / len(shares) if shares else 0.0


def balanced(pod: PodInfo, node: NodeState) -> float:
    """More for a node whose resources are used to the same degree: 100 less the deviation of two shares."""
    shares = [min(used, 1.0) for used in _used(pod, node)]
    return 100.0 * (1.0 - abs(shares[0] - shares[1]) / 2) if len(shares) == 2 else 100.0


def _used(pod: PodInfo, node: NodeState) -> list[float]:
    """The shares of cpu and memory in use with the pod there."""
    found = []
    for name, used in (("cpu", node.cpu + pod.cpu), ("memory", node.memory + pod.memory)):
        if has := node.allocatable.get(name):
            found.append(used / has)
    return found
