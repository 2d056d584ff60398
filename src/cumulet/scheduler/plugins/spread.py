"""Plug-in PodTopologySpread: limits how unevenly pods spread over topology domains."""

from __future__ import annotations

import math

from cumulet.common.kubernetes.objects import LabelSelector, TopologySpreadConstraint
from cumulet.common.kubernetes.selection import selects, selects_node, untolerated
from cumulet.scheduler.framework import Judge, Refusal
from cumulet.scheduler.requests import Group, PodInfo
from cumulet.scheduler.state import Cluster, NodeState

NAME = "PodTopologySpread"
_SKEWED = Refusal(NAME, ("node(s) didn't match pod topology spread constraints",), resolvable=True)
_NOWHERE = Refusal(NAME, ("node(s) didn't match pod topology spread constraints (missing required label)",))


def constraints(pod: PodInfo, cluster: Cluster) -> Judge | None:
    """The judge of the required constraints (`DoNotSchedule`)."""
    hard = [item for item in pod.spread if item.get("whenUnsatisfiable", "DoNotSchedule") == "DoNotSchedule"]
    if not hard:
        return None
    keys = [item["topologyKey"] for item in hard]
    counted = [(item, _count(item, pod, cluster, keys)) for item in hard]

    def judge(node: NodeState) -> Refusal | None:
        for item, counts in counted:
            value = node.labels.get(item["topologyKey"])
            if value is None:
                return _NOWHERE
            itself = selects(_selector(item, pod), pod.labels)
            least = min(counts.values(), default=0)
            if item.get("minDomains", 1) > len(counts):
                least = 0
            if counts.get(value, 0) + itself - least > item.get("maxSkew", 1):
                return _SKEWED
        return None

    return judge


def preferences(pod: PodInfo, nodes: list[NodeState], cluster: Cluster) -> list[float] | None:
    """Points for domains with fewer of the pods, by the preferred constraints (`ScheduleAnyway`)."""
    soft = [item for item in pod.spread if item.get("whenUnsatisfiable") == "ScheduleAnyway"]
    if not soft:
        return None
    keys = [item["topologyKey"] for item in soft]
    raw = [0.0] * len(nodes)
    lacking = [any(key not in node.labels for key in keys) for node in nodes]
    for item in soft:
        counts = _count(item, pod, cluster, keys)
        # With more domains there are fewer pods in each, so that the weight of a pod increases.
        weight = math.log(len(counts) + 2)
        for number, node in enumerate(nodes):
            if not lacking[number]:
                raw[number] += counts.get(node.labels[item["topologyKey"]], 0) * weight + item.get("maxSkew", 1) - 1
    known = [points for points, without in zip(raw, lacking, strict=True) if not without]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return [
        0.0 if without else (100.0 * (high + low - points) / high if high else 100.0)
        for points, without in zip(raw, lacking, strict=True)
    ]


def _count(item: TopologySpreadConstraint, pod: PodInfo, cluster: Cluster, keys: list[str]) -> dict[str, int]:
    """The number of selected pods in each domain, on the nodes that the constraint includes."""
    counts: dict[str, int] = {}
    known: dict[Group, bool] = {}
    selector = _selector(item, pod)
    for node in cluster:
        if any(key not in node.labels for key in keys) or not _included(item, pod, node):
            continue
        total = 0
        for group, number in node.groups.items():
            if group not in known:
                namespace, labels, terminating = group
                known[group] = not terminating and namespace == pod.namespace and selects(selector, dict(labels))
            total += number if known[group] else 0
        value = node.labels[item["topologyKey"]]
        counts[value] = counts.get(value, 0) + total
    return counts


def _included(item: TopologySpreadConstraint, pod: PodInfo, node: NodeState) -> bool:
    if item.get("nodeAffinityPolicy", "Honor") == "Honor" and not selects_node(pod.spec, node.labels, node.name):
        return False
    if item.get("nodeTaintsPolicy", "Ignore") == "Honor":
        return untolerated(node.taints, pod.tolerations, ("NoSchedule", "NoExecute")) is None
    return True


def _selector(item: TopologySpreadConstraint, pod: PodInfo) -> LabelSelector | None:
    selector = item.get("labelSelector")
    keys = [key for key in item.get("matchLabelKeys") or () if key in pod.labels]
    if not keys:
        return selector
    labels = {key: pod.labels[key] for key in keys}
    base: LabelSelector = selector or {}
    return {**base, "matchLabels": {**(base.get("matchLabels") or {}), **labels}}
