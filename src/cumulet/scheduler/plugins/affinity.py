"""Plug-in InterPodAffinity: near some pods, away from others, and what those that are there say themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cumulet.common.kubernetes.selection import selects
from cumulet.scheduler.framework import Judge, Refusal
from cumulet.scheduler.requests import Group, PodInfo
from cumulet.scheduler.state import Cluster, NodeState

Object = dict[str, Any]

NAME = "InterPodAffinity"
_TOGETHER = Refusal(NAME, ("node(s) didn't match pod affinity rules",))
_APART = Refusal(NAME, ("node(s) didn't match pod anti-affinity rules",), resolvable=True)
_THEIRS = Refusal(NAME, ("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True)
#: The topology key and a value of it.
Place = tuple[str, str]


def rules(pod: PodInfo, cluster: Cluster) -> Judge | None:
    """What the pod requires of its neighbours, and those of it."""
    forbidden = {
        (term["topologyKey"], value)
        for other, node in cluster.refusing.values()
        for term in other.required_anti_affinity
        if (value := node.labels.get(term["topologyKey"])) is not None
        and other.uid != pod.uid
        and term_selects(term, other, pod.namespace, pod.labels, cluster)
    }
    if not forbidden and not pod.required_affinity and not pod.required_anti_affinity:
        return None
    apart = _places(pod, pod.required_anti_affinity, cluster)
    near = [(term["topologyKey"], _places(pod, [term], cluster)) for term in pod.required_affinity]
    # The first of a group that wants to be together may go anywhere.
    first = not any(places for _, places in near) and all(
        term_selects(term, pod, pod.namespace, pod.labels, cluster) for term in pod.required_affinity
    )

    def judge(node: NodeState) -> Refusal | None:
        labels = node.labels
        for key, places in near:
            if key not in labels or ((key, labels[key]) not in places and not first):
                return _TOGETHER
        if any(
            (key, labels.get(key)) in apart for key in {term["topologyKey"] for term in pod.required_anti_affinity}
        ):
            return _APART
        if any(labels.get(key) == value for key, value in forbidden):
            return _THEIRS
        return None

    return judge


def _places(pod: PodInfo, terms: list[Object], cluster: Cluster) -> set[Place]:
    """Where there are pods that a term selects."""
    found: set[Place] = set()
    for term in terms:
        key, matches = term["topologyKey"], matcher(term, pod, cluster)
        for node in cluster:
            value = node.labels.get(key)
            if value is not None and (key, value) not in found and any(matches(group) for group in node.groups):
                found.add((key, value))
    return found


def preferences(pod: PodInfo, nodes: list[NodeState], cluster: Cluster) -> list[float] | None:
    """Points for neighbours that the pod likes, and that like the pod."""
    weights: dict[Place, float] = {}
    for weight, term in pod.preferences():
        key, matches = term["topologyKey"], matcher(term, pod, cluster)
        for node in cluster:
            value = node.labels.get(key)
            if value is not None:
                count = sum(number for group, number in node.groups.items() if matches(group))
                weights[key, value] = weights.get((key, value), 0) + weight * count
    for other, node in cluster.preferring.values():
        # Those that must be near the pod count as if they liked it a little (`hardPodAffinityWeight`).
        terms = [*other.preferences(), *((1, term) for term in other.required_affinity)]
        for weight, term in terms:
            value = node.labels.get(term["topologyKey"])
            if value is not None and term_selects(term, other, pod.namespace, pod.labels, cluster):
                place = term["topologyKey"], value
                weights[place] = weights.get(place, 0) + weight
    if not weights:
        return None
    raw = [sum(weights.get((key, value), 0) for key, value in node.labels.items()) for node in nodes]
    low, high = min(raw), max(raw)
    return [100.0 * (points - low) / (high - low) if high > low else 0.0 for points in raw]


def matcher(term: Object, owner: PodInfo, cluster: Cluster) -> Callable[[Group], bool]:
    """Whether a term selects pods of a group; each group is looked at once."""
    known: dict[Group, bool] = {}

    def matches(group: Group) -> bool:
        if group not in known:
            known[group] = term_selects(term, owner, group[0], dict(group[1]), cluster)
        return known[group]

    return matches


def term_selects(term: Object, owner: PodInfo, namespace: str, labels: dict[str, str], cluster: Cluster) -> bool:
    """Whether a term of `owner` selects a pod with those labels in that namespace."""
    named, selector = term.get("namespaces") or [], term.get("namespaceSelector")
    if not named and selector is None:
        inside = namespace == owner.namespace
    else:
        inside = namespace in named or (
            selector is not None and selects(selector, cluster.namespaces.get(namespace, {}))
        )
    return inside and selects(_with_keys(term, owner), labels)


def _with_keys(term: Object, owner: PodInfo) -> Object | None:
    """The term's selector, with the pod's own values of `matchLabelKeys` and not those of `mismatchLabelKeys`."""
    selector: Object | None = term.get("labelSelector")
    more = [
        {"key": key, "operator": operator, "values": [owner.labels[key]]}
        for part, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn"))
        for key in term.get(part) or ()
        if key in owner.labels
    ]
    if not more or selector is None:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *more]}
