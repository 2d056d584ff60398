"""Updates through sub-resources that are a part of the object: only that part changes."""

from __future__ import annotations

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json

PARTS = ("status", "approval", "ephemeralcontainers", "resize")

_DECISIONS = ("Approved", "Denied")

#: Kinds whose metadata can change along with the status, as in upstream's strategies. The controllers record the
#: revision of a deployment this way, and a kubelet labels its node.
#: revision of a deployment so, and a kubelet labels its node.
_WITH_METADATA = frozenset(
    {
        *(("", kind) for kind in ("Namespace", "Node", "PersistentVolume", "PersistentVolumeClaim", "Pod")),
        *(("", kind) for kind in ("ReplicationController", "ResourceQuota", "Service")),
        *(("apps", kind) for kind in ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")),
        *(("batch", kind) for kind in ("CronJob", "Job")),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("certificates.k8s.io", "CertificateSigningRequest"),
        ("networking.k8s.io", "Ingress"),
        ("policy", "PodDisruptionBudget"),
    }
)
_METADATA = ("labels", "annotations", "finalizers", "ownerReferences")
_KEPT = {("apps", "Deployment"): ("labels",), ("", "Pod"): ("ownerReferences",)}


def keep_but_part(obj: Object, old: Object, group: str, kind: str, subresource: str) -> None:
    """Replace `obj` by `old`, except for the part that belongs to the sub-resource, in place."""
    metadata = old["metadata"] | {
        key: obj["metadata"][key] for key in ("resourceVersion", "managedFields") if key in obj["metadata"]
    }
    if subresource in ("status", "approval") and (group, kind) in _WITH_METADATA:
        for key in _METADATA:
            if key not in _KEPT.get((group, kind), ()):
                _replace(metadata, key, obj["metadata"].get(key))
    new = dict(obj)
    obj.clear()
    obj.update(old | {"metadata": metadata})
    if subresource == "ephemeralcontainers":
        _replace(
            obj, "spec", _with(old["spec"], "ephemeralContainers", (new.get("spec") or {}).get("ephemeralContainers"))
        )
        _count(obj, old)
    elif subresource == "resize":
        _replace(obj, "spec", _resized(old["spec"], new.get("spec") or {}))
        _count(obj, old)
    elif kind == "CertificateSigningRequest":
        _replace(obj, "status", _request_status(new.get("status") or {}, old.get("status") or {}, subresource))
    else:
        _replace(obj, "status", new.get("status"))


def _replace(obj: Object, key: str, value: Json) -> None:
    if value is None:
        obj.pop(key, None)
    else:
        obj[key] = value


def _with(spec: Object, key: str, value: Json) -> Object:
    return {**spec, key: value} if value else {name: item for name, item in spec.items() if name != key}


def _count(obj: Object, old: Object) -> None:
    if obj["spec"] != old["spec"]:
        obj["metadata"] = {**obj["metadata"], "generation": old["metadata"].get("generation", 1) + 1}


def _resized(old: Object, new: Object) -> Object:
    """Return the old pod with the new resources and resize policies of its containers."""
    spec = dict(old)
    for key in ("containers", "initContainers"):
        wanted = {container.get("name"): container for container in new.get(key) or ()}
        if key not in old:
            continue
        spec[key] = [
            {
                **{name: value for name, value in container.items() if name not in ("resources", "resizePolicy")},
                **{
                    name: wanted.get(container["name"], container)[name]
                    for name in ("resources", "resizePolicy")
                    if name in wanted.get(container["name"], container)
                },
            }
            for container in old[key]
        ]
    return spec


def _request_status(new: Object, old: Object, subresource: str) -> Object:
    """Approval changes conditions only. A status update changes the rest and keeps approvals and denials."""
    before = {condition.get("type"): condition for condition in old.get("conditions") or ()}
    conditions = list(new.get("conditions") or ())
    if subresource == "status":
        conditions = [condition for condition in conditions if condition.get("type") not in _DECISIONS]
        conditions = [before[kind] for kind in _DECISIONS if kind in before] + conditions
        status = {key: value for key, value in new.items() if key != "conditions"}
    else:
        status = {key: value for key, value in old.items() if key != "conditions"}
    now = clock.rfc3339()
    for condition in conditions:
        had = before.get(condition.get("type"), {})
        if not condition.get("lastUpdateTime"):
            condition["lastUpdateTime"] = had.get("lastUpdateTime", now)
        same = had.get("status") == condition.get("status")
        if not condition.get("lastTransitionTime"):
            condition["lastTransitionTime"] = had.get("lastTransitionTime", now) if same else now
    return {**status, "conditions": conditions} if conditions else status
