"""What upstream's strategies do to an object between the request and the store."""

from __future__ import annotations

from typing import Any

from cumulet.kube.schema.definitions import definition
from cumulet.kube.schema.parts import PARTS, keep_but_part

Object = dict[str, Any]

#: Kinds whose objects count the changes of their spec.
_GENERATIONS = frozenset(
    {
        ("", "Pod"),
        ("", "ReplicationController"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("batch", "CronJob"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("policy", "PodDisruptionBudget"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"),
        ("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"),
        ("flowcontrol.apiserver.k8s.io", "FlowSchema"),
        ("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"),
    }
)

#: Numbers that upstream writes from the start.
_FIRST_STATUS: dict[tuple[str, str], Object] = {
    ("", "ReplicationController"): {"replicas": 0},
    ("apps", "ReplicaSet"): {"replicas": 0},
    ("apps", "StatefulSet"): {"replicas": 0, "availableReplicas": 0},
    ("apps", "DaemonSet"): dict.fromkeys(
        ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"), 0
    ),
    ("autoscaling", "HorizontalPodAutoscaler"): {"desiredReplicas": 0, "currentMetrics": None},
    ("policy", "PodDisruptionBudget"): dict.fromkeys(
        ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"), 0
    ),
}

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
    "lastProbeTime": None,
    "lastTransitionTime": None,
}

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def counts_generations(group: str, kind: str) -> bool:
    """Whether `metadata.generation` grows with each change of the spec."""
    return (group, kind) in _GENERATIONS


def prepare_for_create(obj: Object, group: str, version: str, kind: str) -> None:
    """Drop the status that a client sent, and begin to count, in place.

    Nodes keep theirs, as upstream lets a kubelet register with it.
    """
    if (group, kind) == ("", "Pod"):
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(obj.get("spec") or {})}
        if (obj.get("spec") or {}).get("schedulingGates"):
            obj["status"]["conditions"] = [dict(_GATED)]
    elif (group, kind) not in (
        ("", "Node"),
        ("", "Namespace"),
        ("", "PersistentVolumeClaim"),
        ("", "PersistentVolume"),
    ):
        found = definition(group, version, kind)
        if (group, kind) == ("", "Service"):
            obj["status"] = {"loadBalancer": {}}
        elif found is not None and "status" in found.fields:
            obj["status"] = dict(_FIRST_STATUS.get((group, kind), {}))
    if (group, kind) == ("", "Namespace"):
        obj["spec"].setdefault("finalizers", ["kubernetes"])
    if counts_generations(group, kind):
        obj["metadata"]["generation"] = 1
    else:
        obj["metadata"].pop("generation", None)


def prepare_for_update(obj: Object, old: Object, group: str, kind: str, subresource: str) -> None:
    """Keep what this way of updating may not change, and count a change of the spec, in place."""
    if subresource in PARTS:
        keep_but_part(obj, old, group, kind, subresource)
        return
    if "status" in old:
        obj["status"] = old["status"]
    else:
        obj.pop("status", None)
    if counts_generations(group, kind):
        generation = old["metadata"].get("generation", 1)
        changed = {key: value for key, value in obj.items() if key not in ("metadata", "status")} != {
            key: value for key, value in old.items() if key not in ("metadata", "status")
        }
        obj["metadata"]["generation"] = generation + 1 if changed else generation
    if (group, kind) == ("apps", "DaemonSet") and obj["spec"].get("template") != old["spec"].get("template"):
        before = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "")
        count = int(before) if before.isascii() and before.isdecimal() and len(before) < 16 else 0
        obj["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = str(count + 1)


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort, from the containers' resources."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    requests: dict[str, list[str]] = {}
    limits: dict[str, list[str]] = {}
    guaranteed = True
    for container in containers:
        resources = container.get("resources") or {}
        for kind, into in (("requests", requests), ("limits", limits)):
            for name, value in (resources.get(kind) or {}).items():
                if name in ("cpu", "memory") and str(value) != "0":
                    into.setdefault(name, []).append(str(value))
        if set(resources.get("limits") or ()) < {"cpu", "memory"}:
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and limits.keys() == {"cpu", "memory"} and all(requests.get(k, v) == v for k, v in limits.items()):
        return "Guaranteed"
    return "Burstable"


def pod_spec(obj: Object, group: str, kind: str) -> tuple[Object | None, str]:
    """The spec of a pod, or of the pods that a workload makes, and its path."""
    spec = obj.get("spec") or {}
    if (group, kind) == ("", "Pod"):
        return spec, "spec"
    if (group, kind) == ("batch", "CronJob"):
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        return (job.get("template") or {}).get("spec"), "spec.jobTemplate.spec.template.spec"
    if counts_generations(group, kind):
        return (spec.get("template") or {}).get("spec"), "spec.template.spec"
    return None, ""
