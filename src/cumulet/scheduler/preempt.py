"""Selects pods to evict for a pod of a higher priority (`plugins/defaultpreemption`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cumulet.common.kubernetes.objects import PodDisruptionBudget
from cumulet.common.kubernetes.selection import selects
from cumulet.scheduler import words
from cumulet.scheduler.decide import Decider
from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

#: Compares candidates: violations, highest priority, sum of priorities, victims, start of the first victim.
_Rank = tuple[int, int, int, int, list[int]]


class Candidate(NamedTuple):
    """A node and its victims, the most important first. `violations` counts those that a disruption budget protects."""

    node: NodeState
    victims: list[PodInfo]
    violations: int


class Preemption:
    """Finds the best candidate for preemption."""

    def __init__(self, cluster: Cluster, budgets: Callable[[], Iterable[PodDisruptionBudget]]) -> None:
        self._cluster = cluster
        self._budgets = budgets

    def attempt(self, pod: PodInfo, refusals: dict[str, Refusal], decider: Decider) -> Candidate | str:
        """The best candidate, or the reason in upstream's words why there is none."""
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
            outcome = self._on(pod, node, budgets, decider)
            if isinstance(outcome, Candidate):
                candidates.append(outcome)
            else:
                reasons += outcome
        if not candidates:
            return words.histogram(len(self._cluster), reasons)
        return min(candidates, key=_rank)

    def _is_emptying(self, pod: PodInfo, name: str, refusal: Refusal | None) -> bool:
        """Whether a pod of a lower priority is still terminating on the nominated node."""
        node = self._cluster.nodes.get(name)
        if node is None or (refusal is not None and not refusal.resolvable):
            return False
        return any(other.terminating and other.priority < pod.priority for other in node.pods.values())

    def _on(
        self, pod: PodInfo, node: NodeState, budgets: list[PodDisruptionBudget], decider: Decider
    ) -> Candidate | tuple[str, ...]:
        """Remove all pods of a lower priority, then add back those that fit, and restore the node."""
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


def _by_budget(pods: list[PodInfo], budgets: list[PodDisruptionBudget]) -> tuple[list[PodInfo], list[PodInfo]]:
    """Split pods into those that a disruption budget protects, and the others."""
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
                continue  # its eviction was already counted
            allowed[id(budget)] -= 1
            violates = violates or allowed[id(budget)] < 0
        (protected if violates else others).append(pod)
    return protected, others


def _importance(pod: PodInfo) -> tuple[int, str]:
    """The sort key of importance: the higher priority first, then the earlier start."""
    return -pod.priority, _started(pod)


def _started(pod: PodInfo) -> str:
    return (pod.pod.get("status") or {}).get("startTime") or "9999"


def _rank(candidate: Candidate) -> _Rank:
    """The sort key of candidates: the fewest violations, then the least important victims (`pickOneNodeForPreemption`)."""
    victims = candidate.victims
    if not victims:
        return (candidate.violations, -(2**40), 0, 0, [])
    highest = victims[0].priority
    first = min(_started(pod) for pod in victims if pod.priority == highest)
    # Priorities can be negative. The offset makes each victim count.
    total = sum(pod.priority + 2**31 for pod in victims)
    return candidate.violations, highest, total, len(victims), [-ord(char) for char in first]
