"""Which nodes a daemon set wants a pod on, and what binds a pod to its node."""

from __future__ import annotations

from cumulet.common.kubernetes.selection import selects_node, untolerated
from cumulet.controllers.controller import Object
from cumulet.controllers.pods import from_template

_NODE = "node.kubernetes.io/"
_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def tolerations_of(template: Object) -> list[Object]:
    """Those of the template and those of every daemon (`util.AddOrUpdateDaemonPodTolerations`)."""
    spec = template["spec"]
    always = [("not-ready", "NoExecute"), ("unreachable", "NoExecute")]
    always += [(f"{what}-pressure", "NoSchedule") for what in ("disk", "memory", "pid")]
    always.append(("unschedulable", "NoSchedule"))
    if spec.get("hostNetwork"):
        always.append(("network-unavailable", "NoSchedule"))
    added = [{"key": _NODE + key, "operator": "Exists", "effect": effect} for key, effect in always]
    own = [item for item in spec.get("tolerations") or () if item not in added]
    return own + added


def judge(daemonset: Object, node: Object) -> tuple[bool, bool]:
    """Whether a pod should be made on a node, and whether one that is there may stay."""
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


def node_of(pod: Object) -> str:
    """The node that a pod runs on or is meant for."""
    spec = pod["spec"]
    if spec.get("nodeName"):
        name: str = spec["nodeName"]
        return name
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for field in term.get("matchFields") or ():
            if field["key"] == "metadata.name" and field["operator"] == "In" and len(field["values"]) == 1:
                chosen: str = field["values"][0]
                return chosen
    return ""


def make_pod(daemonset: Object, node: str, labels: dict[str, str]) -> Object:
    """A pod for a node; the scheduler places it there and nowhere else."""
    template = daemonset["spec"]["template"]
    pod = from_template(template, prefix=f"{daemonset['metadata']['name']}-")
    pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
    affinity = dict(template["spec"].get("affinity") or {})
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    chosen = dict(affinity.get("nodeAffinity") or {})
    terms = (chosen.get(_REQUIRED) or {}).get("nodeSelectorTerms") or [{}]
    # Each term is another way to be chosen; the node is meant in all of them.
    chosen[_REQUIRED] = {"nodeSelectorTerms": [{**term, "matchFields": fields} for term in terms]}
    affinity["nodeAffinity"] = chosen
    pod["spec"] = {**template["spec"], "affinity": affinity, "tolerations": tolerations_of(template)}
    return pod
