"""Plug-ins for the properties of the node: its name, labels, taints, ports and images."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Taint
from cumulet.common.kubernetes.selection import selects_node, term_selects, tolerates, untolerated
from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import NodeState

UNSCHEDULABLE = Refusal("NodeUnschedulable", ("node(s) were unschedulable",))
_NAME = Refusal("NodeName", ("node(s) didn't match the requested node name",))
_TAINTS = Refusal("TaintToleration", ("node(s) had untolerated taint(s)",))
_AFFINITY = Refusal("NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",))
_NAMES = Refusal("NodeAffinity", ("node(s) didn't satisfy plugin(s) [NodeAffinity]",))
_CLAIMS = Refusal("DynamicResources", ("cannot allocate all claims",))
_PORTS = Refusal("NodePorts", ("node(s) didn't have free ports for the requested pod ports",), resolvable=True)

_UNSCHEDULABLE_TAINT: Taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
_REPELLING = ("NoSchedule", "NoExecute")
#: The bounds of image sizes (upstream's): up to 23 MB give no points, 1,000 MB for each container give all points.
_SMALL, _LARGE = 23 * 1024 * 1024, 1000 * 1024 * 1024


def unschedulable(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in NodeUnschedulable."""
    if node.unschedulable and not tolerates(pod.tolerations, _UNSCHEDULABLE_TAINT):
        return UNSCHEDULABLE
    return None


def named_nodes(pod: PodInfo, node: NodeState) -> Refusal | None:
    """The first part of plug-in NodeAffinity, for pods that require nodes by name, as those of daemon sets do."""
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        fields = [item for item in term.get("matchFields") or () if item["operator"] == "In"]
        if not fields or all(node.name in item["values"] for item in fields):
            return None
    return _NAMES if terms else None


def claims(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in DynamicResources without any driver, so that no claim can be allocated."""
    return _CLAIMS if pod.spec.get("resourceClaims") else None


def node_name(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in NodeName."""
    required = pod.spec.get("nodeName")
    return None if not required or required == node.name else _NAME


def taints(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in TaintToleration."""
    return None if untolerated(node.taints, pod.tolerations, _REPELLING) is None else _TAINTS


def node_affinity(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in NodeAffinity, which also evaluates `nodeSelector`."""
    return None if selects_node(pod.spec, node.labels, node.name) else _AFFINITY


def ports(pod: PodInfo, node: NodeState) -> Refusal | None:
    """Plug-in NodePorts: ports conflict with the same number, protocol and address, or with all addresses."""
    if pod.ports and any(clash(pod, other) for other in node.pods.values()):
        return _PORTS
    return None


def clash(pod: PodInfo, other: PodInfo) -> bool:
    """Whether two pods request the same port of a node."""
    return any(
        (protocol, number) == (their_protocol, their_number) and (address == theirs or "" in (address, theirs))
        for address, protocol, number in pod.ports
        for theirs, their_protocol, their_number in other.ports
    )


def preferred_taints(pod: PodInfo, node: NodeState) -> float:
    """The number of taints with the effect PreferNoSchedule that the pod does not tolerate."""
    relevant = [item for item in pod.tolerations if item.get("effect") in (None, "", "PreferNoSchedule")]
    soft = (taint for taint in node.taints if taint.get("effect") == "PreferNoSchedule")
    return float(len([taint for taint in soft if not tolerates(relevant, taint)]))


def preferred_affinity(pod: PodInfo, node: NodeState) -> float:
    """The sum of the weights of the preferred terms that select the node."""
    affinity = (pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return float(
        sum(item["weight"] for item in preferred if term_selects(item["preference"], node.labels, node.name))
    )


def image_locality(pod: PodInfo, node: NodeState) -> float:
    """From 0 to 100 points by the size of the images of the pod that the node has."""
    containers = [*(pod.spec.get("containers") or ()), *(pod.spec.get("initContainers") or ())]
    if not node.images or not containers:
        return 0.0
    size = sum(node.images.get(_tagged(container.get("image", "")), 0) for container in containers)
    most = _LARGE * len(containers)
    return 100.0 * (min(max(size, _SMALL), most) - _SMALL) / (most - _SMALL)


def _tagged(image: str) -> str:
    return image if ":" in image.rpartition("/")[2] or "@" in image else f"{image}:latest"


def siblings(pod: PodInfo, node: NodeState) -> float:
    """The number of pods of the same controller on the node."""
    return float(node.controllers.get(pod.controller, 0)) if pod.controller else 0.0
