"""Whom to evict so that a pod of a higher priority finds room (`plugins/defaultpreemption`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cumulet.common.kubernetes.selection import selects
from cumulet.scheduler import words
from cumulet.scheduler.decide import Decider
from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

Object = dict[str, Any]


class Candidate(NamedTuple):
    """A node and whom to evict there, the most important first; `violations` are of disruption budgets."""

    node: NodeState
    victims: list[PodInfo]
    violations: int


class Preemption:
    """See the module."""

    def __init__(self, cluster: Cluster, budgets: Callable[[], Iterable[Object]]) -> None:
        self._cluster = cluster
        self._budgets = budgets

    def attempt(self, pod: PodInfo, refusals: dict[str, Refusal], decider: Decider) -> Candidate | str:
        """The best candidate, or in upstream's words why there is none."""
        if pod.spec.get("preemptionPolicy") == "Never":
            return words.NEVER
        nominated = (pod.pod.get("status") or {}).get("nominatedNodeName")
        if nominated and self._is_emptying(pod, nominated, refusals.get(nominated)):
            return words.STILL_GOING
        budgets = list(self._budgets())
        candidates: list[Candidate] = []
        reasons: list[str] = []
        for node in self._cluster:
            refusal = refusals.get(node.name)
            if refusal is None or not refusal.resolvable:
                reasons.append(words.NOT_HELPFUL)
                continue
            found = self._on(pod, node, budgets, decider)
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                reasons += found
        if not candidates:
            return words.histogram(len(self._cluster), reasons)
        return min(candidates, key=_rank)

    def _is_emptying(self, pod: PodInfo, name: str, refusal: Refusal | None) -> bool:
        """Whether somebody less important is still on the way out of the node that the pod waits for."""
        node = self._cluster.nodes.get(name)
        if node is None or (refusal is not None and not refusal.resolvable):
            return False
        return any(other.terminating and other.priority < pod.priority for other in node.pods.values())

    def _on(
        self, pod: PodInfo, node: NodeState, budgets: list[Object], decider: Decider
    ) -> Candidate | tuple[str, ...]:
        """Take away all that are less important, then give back whom there is room for."""
        lower = [other for other in node.pods.values() if other.priority < pod.priority]
        if not lower:
            return (words.NO_VICTIMS,)
        lower.sort(key=_importance)
        try:
            for other in lower:
                self._cluster.forget(other.uid)
            refusal = decider.refusal(pod, node)
            if refusal is not None:
                return refusal.reasons
            victims: list[PodInfo] = []
            violations = 0
            protected, others = _by_budget(lower, budgets)
            for number, other in enumerate([*protected, *others]):
                self._cluster.place(other, node.name)
                if decider.refusal(pod, node) is not None:
                    self._cluster.forget(other.uid)
                    victims.append(other)
                    violations += number < len(protected)
            return Candidate(node, sorted(victims, key=_importance), violations)
        finally:
            for other in lower:
                self._cluster.place(other, node.name)


def _by_budget(pods: list[PodInfo], budgets: list[Object]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Those whose eviction a disruption budget does not allow, and the others."""
    allowed = {id(budget): (budget.get("status") or {}).get("disruptionsAllowed", 0) for budget in budgets}
    protected: list[PodInfo] = []
    others: list[PodInfo] = []
    for pod in pods:
        violates = False
        for budget in budgets:
            if budget["metadata"]["namespace"] != pod.namespace or not pod.labels:
                continue
            if not selects(budget["spec"].get("selector"), pod.labels):
                continue
            if pod.name in ((budget.get("status") or {}).get("disruptedPods") or {}):
                continue  # it is on its way out and counted already
            allowed[id(budget)] -= 1
            violates = violates or allowed[id(budget)] < 0
        (protected if violates else others).append(pod)
    return protected, others


def _importance(pod: PodInfo) -> tuple[int, str]:
    """The more important first: by priority, then those that run for longer."""
    return -pod.priority, _started(pod)


def _started(pod: PodInfo) -> str:
    found: str = (pod.pod.get("status") or {}).get("startTime") or "9999"
    return found


def _rank(candidate: Candidate) -> tuple[Any, ...]:
    """Fewest violations, then the least important victims, by several measures (`pickOneNodeForPreemption`)."""
    victims = candidate.victims
    if not victims:
        return (candidate.violations, -(2**40), 0, 0, [])
    highest = victims[0].priority
    first = min(_started(pod) for pod in victims if pod.priority == highest)
    # Priorities may be below zero: each victim counts, whatever its priority.
    total = sum(pod.priority + 2**31 for pod in victims)
    return candidate.violations, highest, total, len(victims), [-ord(char) for char in first]
