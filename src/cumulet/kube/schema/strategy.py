"""Changes that upstream's strategies make to an object between the request and the store."""

from __future__ import annotations

import uuid

from cumulet.common import clock
from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.defaults.core import namespace
from cumulet.kube.schema.definitions import definition, empty
from cumulet.kube.schema.qos import qos_class
from cumulet.kube.schema.services import drop_by_type, keep_allotted, normalize
from cumulet.kube.schema.subresource_updates import PARTS, keep_but_part

#: Kinds whose objects count the changes of their spec.
_GENERATIONS = frozenset(
    {
        ("", "Pod"),
        ("", "PodTemplate"),
        ("", "ReplicationController"),
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("batch", "Job"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("batch", "CronJob"),
        ("networking.k8s.io", "Ingress"),
        ("networking.k8s.io", "IngressClass"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("discovery.k8s.io", "EndpointSlice"),
        ("scheduling.k8s.io", "PriorityClass"),
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

_GATED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "SchedulingGated",
    "message": "Scheduling is blocked due to non-empty scheduling gates",
    "lastProbeTime": None,
}

#: Kinds that create pods from a template.
_MAKERS = frozenset(
    (
        ("", "ReplicationController"),
        *(("apps", kind) for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")),
        ("batch", "Job"),
    )
)
#: Kinds that accept a status in a create.
_KEEPING = frozenset(("", kind) for kind in ("Node", "Namespace", "PersistentVolumeClaim", "PersistentVolume"))

_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def counts_generations(group: str, kind: str) -> bool:
    """Whether `metadata.generation` increases with each change of the spec."""
    return (group, kind) in _GENERATIONS


def prepare_for_create(obj: Object, group: str, version: str, kind: str) -> None:
    """Drop the client's status and set the first generation, in place.

    Nodes keep their status, as upstream lets a kubelet register with it.
    """
    spec = obj.get("spec") or {}
    if (group, kind) == ("", "Pod"):
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [{**_GATED, "lastTransitionTime": clock.rfc3339()}]
    elif (group, kind) not in _KEEPING:
        found = definition(group, version, kind)
        status = found.fields.get("status") if found is not None else None
        if status is not None and status.item is not None:
            obj["status"] = empty(status.item)
    if (group, kind) == ("", "PersistentVolume"):
        obj["status"]["lastPhaseTransitionTime"] = clock.rfc3339()
    if (group, kind) == ("", "Namespace"):
        finalizers = obj["spec"].get("finalizers") or []
        if "kubernetes" not in finalizers:
            obj["spec"]["finalizers"] = [*finalizers, "kubernetes"]
    if (group, kind) == ("", "PersistentVolumeClaim"):
        _sources(spec)
    if (group, kind) == ("", "LimitRange") and not obj["metadata"].get("name"):
        obj["metadata"]["name"] = str(uuid.uuid4())
    if counts_generations(group, kind):
        obj["metadata"]["generation"] = 1
    else:
        obj["metadata"].pop("generation", None)


def label_after_name(obj: Object, group: str, kind: str) -> None:
    """Add the labels that repeat the name of a new object, in place, after the name is assigned."""
    if (group, kind) == ("batch", "Job"):
        _label_pods(obj)
    elif (group, kind) == ("", "Namespace"):
        namespace(obj)


def _label_pods(job: Object) -> None:
    """Label a job's pods with its name and select them by its uid, unless it has a manual selector."""
    spec, metadata = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    labels = {
        "batch.kubernetes.io/controller-uid": metadata["uid"],
        "batch.kubernetes.io/job-name": metadata.get("name", ""),
        "controller-uid": metadata["uid"],
        "job-name": metadata.get("name", ""),
    }
    template = spec["template"].setdefault("metadata", {})
    # Labels that came from the template keep the template's values.
    follows = (metadata.get("labels") or {}) == (template.get("labels") or {})
    template["labels"] = {**(template.get("labels") or {}), **labels}
    if follows:
        metadata["labels"] = dict(template["labels"])
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": metadata["uid"]}}


def _sources(spec: Object) -> None:
    """Make the older field, which has claims and snapshots only, and the newer field agree."""
    source = spec.get("dataSource")
    if source is not None:
        known = source.get("kind"), source.get("apiGroup", "")
        if known not in (("PersistentVolumeClaim", ""), ("VolumeSnapshot", "snapshot.storage.k8s.io")):
            spec.pop("dataSource")
            return
    reference = spec.get("dataSourceRef")
    if source is not None and reference is None:
        spec["dataSourceRef"] = dict(source)
    elif reference is not None and source is None and not reference.get("namespace"):
        spec["dataSource"] = {key: value for key, value in reference.items() if key != "namespace"}


def prepare_for_update(obj: Object, old: Object, group: str, kind: str, subresource: str) -> None:
    """Restore the fields that this kind of update must not change, and count a change of the spec, in place."""
    if subresource in PARTS:
        keep_but_part(obj, old, group, kind, subresource)
        return
    if "status" in old:
        obj["status"] = old["status"]
    else:
        obj.pop("status", None)
    if (group, kind) == ("", "Service"):
        keep_allotted(obj["spec"], old["spec"])
        normalize(obj["spec"], old["spec"])
        drop_by_type(obj, old)
    if (group, kind) == ("", "Namespace"):
        obj["spec"] = old["spec"]  # these are its finalizers, which `finalize` alone changes
    if counts_generations(group, kind):
        generation = old["metadata"].get("generation", 1)
        changed = {key: value for key, value in obj.items() if key not in ("metadata", "status")} != {
            key: value for key, value in old.items() if key not in ("metadata", "status")
        }
        # The annotations of a deployment are those of its replica sets too.
        if (group, kind) == ("apps", "Deployment"):
            changed = changed or obj["metadata"].get("annotations") != old["metadata"].get("annotations")
        obj["metadata"]["generation"] = generation + 1 if changed else generation
    if (group, kind) == ("apps", "DaemonSet") and obj["spec"].get("template") != old["spec"].get("template"):
        before = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "")
        count = int(before) if is_digits(before) and len(before) < 16 else 0
        obj["metadata"].setdefault("annotations", {})[_TEMPLATE_GENERATION] = str(count + 1)


def pod_template(obj: Object, group: str, kind: str) -> tuple[Object | None, str]:
    """Return the object with a workload's pod metadata and spec, or the pod itself, and its path."""
    spec = obj.get("spec") or {}
    if (group, kind) == ("", "Pod"):
        return obj, ""
    if (group, kind) == ("", "PodTemplate"):
        return obj.get("template"), "template"
    if (group, kind) == ("batch", "CronJob"):
        job = (spec.get("jobTemplate") or {}).get("spec") or {}
        return job.get("template"), "spec.jobTemplate.spec.template"
    if (group, kind) in _MAKERS:
        return spec.get("template"), "spec.template"
    return None, ""
