"""Which nodes can take a pod, and in upstream's words why the others cannot (`pkg/scheduler/framework/plugins`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cumulet.common.kubernetes.selection import meets, selects, tolerates
from cumulet.scheduler.state import Cluster, NodeState, requests_of

Object = dict[str, Any]


class Refusal(NamedTuple):
    """Why a node cannot take a pod; `resolvable` where evicting others could help."""

    reasons: tuple[str, ...]
    resolvable: bool = False


Filter = Callable[[Object, NodeState, Cluster], Refusal | None]


def _node_name(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    wanted = pod["spec"].get("nodeName")
    return None if not wanted or wanted == node.name else Refusal(("node(s) didn't match the requested node name",))


def _unschedulable(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    if not (node.node.get("spec") or {}).get("unschedulable"):
        return None
    taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    return (
        None if tolerates(pod["spec"].get("tolerations") or (), taint) else Refusal(("node(s) were unschedulable",))
    )


def _taints(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in (node.node.get("spec") or {}).get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(tolerations, taint):
            return Refusal(("node(s) had untolerated taint(s)",))
    return None


def _affinity(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    spec = pod["spec"]
    refusal = Refusal(("node(s) didn't match Pod's node affinity/selector",))
    labels = node.labels
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return refusal
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is not None and not any(node_term(term, node) for term in required.get("nodeSelectorTerms") or ()):
        return refusal
    return None


def node_term(term: Object, node: NodeState) -> bool:
    """Whether a node matches one term of a node selector; an empty term matches none."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(meets(item, node.labels) for item in expressions) and all(
        meets(item, {"metadata.name": node.name}) for item in fields
    )


def _ports(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    wanted = set(_host_ports(pod))
    if wanted and any(wanted & set(_host_ports(other)) for other in node.pods.values()):
        return Refusal(("node(s) didn't have free ports for the requested pod ports",), resolvable=True)
    return None


def _host_ports(pod: Object) -> Iterable[tuple[str, int]]:
    for container in pod["spec"].get("containers") or ():
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                yield port.get("protocol", "TCP"), port["hostPort"]


def _resources(pod: Object, node: NodeState, _: Cluster) -> Refusal | None:
    allocatable = node.allocatable
    reasons = []
    for name, value in requests_of(pod).items():
        if value > allocatable.get(name, 0) - node.requested.get(name, 0) and value > 0:
            reasons.append("Too many pods" if name == "pods" else f"Insufficient {name}")
    return Refusal(tuple(sorted(reasons)), resolvable=True) if reasons else None


def _pod_affinity(pod: Object, node: NodeState, cluster: Cluster) -> Refusal | None:
    affinity = pod["spec"].get("affinity") or {}
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    for term in (affinity.get("podAffinity") or {}).get(required) or ():
        matching = list(_matching(term, pod, cluster))
        # The first of a group that wants to be together may go anywhere.
        alone = not matching and _term_selects(term, pod, pod)
        if not alone and not any(_same(term, node, other) for other in matching):
            return Refusal(("node(s) didn't match pod affinity rules",))
    for term in (affinity.get("podAntiAffinity") or {}).get(required) or ():
        if any(_same(term, node, other) for other in _matching(term, pod, cluster)):
            return Refusal(("node(s) didn't match pod anti-affinity rules",), resolvable=True)
    for other in cluster:
        for existing in other.pods.values():
            theirs = ((existing["spec"].get("affinity") or {}).get("podAntiAffinity") or {}).get(required) or ()
            if any(_term_selects(term, existing, pod) and _same(term, node, other) for term in theirs):
                return Refusal(("node(s) didn't satisfy existing pods anti-affinity rules",), resolvable=True)
    return None


def _matching(term: Object, pod: Object, cluster: Cluster) -> Iterable[NodeState]:
    """The nodes that have a pod which the term selects."""
    return (node for node in cluster if any(_term_selects(term, pod, other) for other in node.pods.values()))


def _term_selects(term: Object, owner: Object, pod: Object) -> bool:
    namespaces = term.get("namespaces") or [owner["metadata"]["namespace"]]
    return pod["metadata"]["namespace"] in namespaces and selects(
        term.get("labelSelector"), pod["metadata"].get("labels") or {}
    )


def _same(term: Object, one: NodeState, other: NodeState) -> bool:
    key = term["topologyKey"]
    return key in one.labels and one.labels[key] == other.labels.get(key)


def _spread(pod: Object, node: NodeState, cluster: Cluster) -> Refusal | None:
    for constraint in pod["spec"].get("topologySpreadConstraints") or ():
        if constraint.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
            continue
        key, selector = constraint["topologyKey"], constraint.get("labelSelector")
        if key not in node.labels:
            return Refusal(("node(s) didn't match pod topology spread constraints (missing required label)",))
        counts: dict[str, int] = {}
        for other in cluster:
            if key in other.labels and _affinity(pod, other, cluster) is None:
                counts.setdefault(other.labels[key], 0)
                counts[other.labels[key]] += sum(
                    item["metadata"]["namespace"] == pod["metadata"]["namespace"]
                    and selects(selector, item["metadata"].get("labels") or {})
                    for item in other.pods.values()
                )
        mine = counts.get(node.labels[key], 0) + selects(selector, pod["metadata"].get("labels") or {})
        if mine - min(counts.values(), default=0) > constraint.get("maxSkew", 1):
            return Refusal(("node(s) didn't match pod topology spread constraints",), resolvable=True)
    return None


#: In the order in which upstream asks; the first that refuses a node gives the reason.
FILTERS: tuple[Filter, ...] = (
    _unschedulable,
    _node_name,
    _taints,
    _affinity,
    _ports,
    _resources,
    _spread,
    _pod_affinity,
)


def refusal(pod: Object, node: NodeState, cluster: Cluster) -> Refusal | None:
    """Why a node cannot take a pod, or `None` where it can."""
    for test in FILTERS:
        found = test(pod, node, cluster)
        if found is not None:
            return found
    return None


def explain(refusals: list[Refusal], total: int) -> str:
    """The message of `FailedScheduling`."""
    if not total:
        return "no nodes available to schedule pods"
    counts: dict[str, int] = {}
    for item in refusals:
        for reason in item.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    reasons = ", ".join(sorted(f"{count} {reason}" for reason, count in counts.items()))
    helpless = sum(not item.resolvable for item in refusals)
    victims = total - helpless
    parts = []
    if helpless or victims:
        # What cannot be placed on an empty node is not helped by evicting either.
        parts.append(f"{total} Preemption is not helpful for scheduling")
    return (
        f"0/{total} nodes are available: {reasons}. no new claims to deallocate, "
        f"preemption: 0/{total} nodes are available: {', '.join(parts)}."
    )
