"""The nodes on which a daemon set runs pods, and the affinity of a pod to its node."""

from __future__ import annotations

from typing import Final

from cumulet.common.kubernetes.objects import (
    Affinity,
    DaemonSet,
    Node,
    NodeAffinity,
    NodeSelector,
    NodeSelectorRequirement,
    Pod,
    PodTemplateSpec,
    Toleration,
)
from cumulet.common.kubernetes.selection import selects_node, untolerated
from cumulet.controllers.pods import from_template

_NODE = "node.kubernetes.io/"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"


def tolerations_of(template: PodTemplateSpec) -> list[Toleration]:
    """The tolerations of the template and of every daemon (`util.AddOrUpdateDaemonPodTolerations`)."""
    spec = template["spec"]
    always = [("not-ready", "NoExecute"), ("unreachable", "NoExecute")]
    always += [(f"{resource}-pressure", "NoSchedule") for resource in ("disk", "memory", "pid")]
    always.append(("unschedulable", "NoSchedule"))
    if spec.get("hostNetwork"):
        always.append(("network-unavailable", "NoSchedule"))
    added: list[Toleration] = [{"key": _NODE + key, "operator": "Exists", "effect": effect} for key, effect in always]
    own = [item for item in spec.get("tolerations") or () if item not in added]
    return own + added


def judge(daemonset: DaemonSet, node: Node) -> tuple[bool, bool]:
    """Whether a node should run a pod, and whether an existing pod can stay."""
    template = daemonset["spec"]["template"]
    name, labels = node["metadata"]["name"], node["metadata"].get("labels") or {}
    if template["spec"].get("nodeName") not in (None, "", name):
        return False, False
    if not selects_node(template["spec"], labels, name):
        return False, False
    taints = (node.get("spec") or {}).get("taints") or ()
    tolerations = tolerations_of(template)
    if untolerated(taints, tolerations, ("NoExecute",)):
        return False, False
    return not untolerated(taints, tolerations, ("NoSchedule",)), True


def node_of(pod: Pod) -> str:
    """The node on which a pod runs, or for which it was created."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        return spec["nodeName"]
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In" and len(field["values"]) == 1:
                return field["values"][0]
    return ""


def make_pod(daemonset: DaemonSet, node: str, labels: dict[str, str]) -> Pod:
    """A pod for a node, with an affinity that allows only this node."""
    template = daemonset["spec"]["template"]
    pod = from_template(template, prefix=f"{daemonset['metadata']['name']}-")
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
    affinity: Affinity = {**(template["spec"].get("affinity") or {})}
    fields: list[NodeSelectorRequirement] = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    node_affinity: NodeAffinity = {**(affinity.get("nodeAffinity") or {})}
    terms = (node_affinity.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    # The terms are alternatives, so each of them must require the node.
    required: NodeSelector = {"nodeSelectorTerms": [{**term, "matchFields": fields} for term in terms]}
    node_affinity[_REQUIRED] = required
    affinity["nodeAffinity"] = node_affinity
    pod["spec"] = {**template["spec"], "affinity": affinity, "tolerations": tolerations_of(template)}
    return pod
