"""Built-in kinds that are served in a second form beside the stored one (upstream's conversions)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.catalog.resources import Row

T = TypeVar("T", list[Object], Object)

_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"

#: Field of core/v1, and its name in events.k8s.io/v1.
_EVENT = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}


def to_stored(row: Row, obj: Object) -> Object:
    """Convert an object from the form of a row to the stored form."""
    return _CONVERSIONS[row.api_version][0](obj) if row.hub is not None else obj


def from_stored(row: Row, obj: Object) -> Object:
    """Convert an object from the stored form to the form of a row."""
    return _CONVERSIONS[row.api_version][1](obj) if row.hub is not None else obj


def _renamed(obj: Object, names: dict[str, str]) -> Object:
    return {names.get(key, key): value for key, value in obj.items()}


def _event_to_stored(obj: Object) -> Object:
    return _renamed(obj, {new: old for old, new in _EVENT.items()})


def _event_from_stored(obj: Object) -> Object:
    return _renamed(obj, _EVENT)


def _is_cpu(metric: Object) -> bool:
    resource = metric.get("resource") or {}
    wanted = resource.get("target") or resource.get("current") or {}
    return metric.get("type") == "Resource" and resource.get("name") == "cpu" and "averageUtilization" in wanted


def _autoscaler_to_stored(obj: Object) -> Object:
    spec, metadata = dict(obj.get("spec") or {}), dict(obj.get("metadata") or {})
    annotations = dict(metadata.get("annotations") or {})
    metrics = _kept(annotations.pop(_METRICS, ""), list)
    percentage = spec.pop("targetCPUUtilizationPercentage", None)
    if percentage is not None:
        target = {"type": "Utilization", "averageUtilization": percentage}
        metrics = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}, *metrics]
    if metrics:
        spec["metrics"] = metrics
    if behavior := _kept(annotations.pop(_BEHAVIOR, ""), dict):
        spec["behavior"] = behavior
    if "annotations" in metadata:
        metadata["annotations"] = annotations
    status = dict(obj.get("status") or {})
    current = status.pop("currentCPUUtilizationPercentage", None)
    if current is not None:
        usage = {"averageUtilization": current}
        status["currentMetrics"] = [{"type": "Resource", "resource": {"name": "cpu", "current": usage}}]
    return {**obj, "metadata": metadata, "spec": spec, **({"status": status} if "status" in obj else {})}


def _autoscaler_from_stored(obj: Object) -> Object:
    spec, metadata = dict(obj.get("spec") or {}), dict(obj["metadata"])
    annotations = dict(metadata.get("annotations") or {})
    others = []
    for metric in spec.pop("metrics", None) or ():
        if _is_cpu(metric):
            spec["targetCPUUtilizationPercentage"] = metric["resource"]["target"]["averageUtilization"]
        else:
            others.append(metric)
    for name, value in ((_METRICS, others), (_BEHAVIOR, spec.pop("behavior", None))):
        if value:
            annotations[name] = msgspec.json.encode(value).decode()
    if annotations:
        metadata["annotations"] = annotations
    status = {key: value for key, value in (obj.get("status") or {}).items() if key != "conditions"}
    for metric in status.pop("currentMetrics", None) or ():
        if _is_cpu(metric):
            status["currentCPUUtilizationPercentage"] = metric["resource"]["current"]["averageUtilization"]
    status.setdefault("currentReplicas", 0)
    status.setdefault("desiredReplicas", 0)
    return {**obj, "metadata": metadata, "spec": spec, "status": status}


def _kept(text: str, kind: type[T]) -> T:
    """Decode an annotation that this server wrote; an empty value of the kind for any other text."""
    try:
        value = msgspec.json.decode(text) if text else kind()
    except msgspec.DecodeError:
        return kind()
    return value if isinstance(value, kind) else kind()


_CONVERSIONS: dict[str, tuple[Callable[[Object], Object], Callable[[Object], Object]]] = {
    "autoscaling/v1": (_autoscaler_to_stored, _autoscaler_from_stored),
    "events.k8s.io/v1": (_event_to_stored, _event_from_stored),
}
