"""Plug-in InterPodAffinity: affinity and anti-affinity of the pod, and of the pods that are on nodes already."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.common.kubernetes.objects import LabelSelector, LabelSelectorRequirement, PodAffinityTerm
from cumulet.common.kubernetes.selection import selects
from cumulet.scheduler.framework import Judge, Refusal
from cumulet.scheduler.requests import Group, PodInfo
from cumulet.scheduler.state import Cluster, NodeState

NAME = "InterPodAffinity"
_TOGETHER = Refusal(NAME, ("node(s) didn't match pod affinity rules",))
_APART = Refusal(NAME, ("node(s) didn't match pod anti-affinity rules",), resolvable=True)
_THEIRS = Refusal(NAME, ("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True)
#: A topology key and one of its values.
Place = tuple[str, str]


def rules(pod: PodInfo, cluster: Cluster) -> Judge | None:
    """The judge of the required terms, of the pod and of the pods on nodes."""
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
    # The first pod of a group with affinity to itself can run anywhere.
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


def _places(pod: PodInfo, terms: list[PodAffinityTerm], cluster: Cluster) -> set[Place]:
    """The places of the pods that any of the terms selects."""
    places: set[Place] = set()
    for term in terms:
        key, matches = term["topologyKey"], matcher(term, pod, cluster)
        for node in cluster:
            value = node.labels.get(key)
            if value is not None and (key, value) not in places and any(matches(group) for group in node.groups):
                places.add((key, value))
    return places


def preferences(pod: PodInfo, nodes: list[NodeState], cluster: Cluster) -> list[float] | None:
    """Points by the preferred terms of the pod and of the pods on nodes."""
    weights: dict[Place, float] = {}
    for weight, term in pod.preferences():
        key, matches = term["topologyKey"], matcher(term, pod, cluster)
        for node in cluster:
            value = node.labels.get(key)
            if value is not None:
                count = sum(number for group, number in node.groups.items() if matches(group))
                weights[key, value] = weights.get((key, value), 0) + weight * count
    for other, node in cluster.preferring.values():
        # A required affinity term counts with a weight of 1 (`hardPodAffinityWeight`).
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


def matcher(term: PodAffinityTerm, owner: PodInfo, cluster: Cluster) -> Callable[[Group], bool]:
    """A function that returns whether a term selects the pods of a group. It evaluates each group once."""
    known: dict[Group, bool] = {}

    def matches(group: Group) -> bool:
        if group not in known:
            known[group] = term_selects(term, owner, group[0], dict(group[1]), cluster)
        return known[group]

    return matches


def term_selects(
    term: PodAffinityTerm, owner: PodInfo, namespace: str, labels: dict[str, str], cluster: Cluster
) -> bool:
    """Whether a term of `owner` selects a pod with those labels in that namespace."""
    named, selector = term.get("namespaces") or [], term.get("namespaceSelector")
    if not named and selector is None:
        inside = namespace == owner.namespace
    else:
        inside = namespace in named or (
            selector is not None and selects(selector, cluster.namespaces.get(namespace, {}))
        )
    return inside and selects(_with_keys(term, owner), labels)


def _with_keys(term: PodAffinityTerm, owner: PodInfo) -> LabelSelector | None:
    """The selector of the term with requirements for `matchLabelKeys` and `mismatchLabelKeys` by the labels of `owner`."""
    selector = term.get("labelSelector")
    keys = [(key, "In") for key in term.get("matchLabelKeys") or ()]
    keys += [(key, "NotIn") for key in term.get("mismatchLabelKeys") or ()]
    more: list[LabelSelectorRequirement] = [
        {"key": key, "operator": operator, "values": [owner.labels[key]]}
        for key, operator in keys
        if key in owner.labels
    ]
    if not more or selector is None:
        return selector
    return {**selector, "matchExpressions": [*(selector.get("matchExpressions") or ()), *more]}
