"""The quality of service class of a pod (core, `ComputePodQOS`)."""

from __future__ import annotations

from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal

_COMPUTE = ("cpu", "memory")


def qos_class(spec: Object) -> str:
    """Return Guaranteed, Burstable or BestEffort, from the resources of the pod, or of each of its containers."""
    whole = spec.get("resources")
    if whole is not None:
        holders = [whole]
    else:
        containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
        holders = [container.get("resources") or {} for container in containers]
    requests, limits = ([_positive(one.get(kind)) for one in holders] for kind in ("requests", "limits"))
    if not any(requests) and not any(limits):
        return "BestEffort"
    if not all(limit.keys() == set(_COMPUTE) for limit in limits):
        return "Burstable"
    totals = [{name: sum(one.get(name, 0) for one in kind) for name in _COMPUTE} for kind in (requests, limits)]
    asked_names = {name for request in requests for name in request}
    same = all(totals[0][name] == totals[1][name] for name in asked_names)
    return "Guaranteed" if same and asked_names == set(_COMPUTE) else "Burstable"


def _positive(amounts: Object | None) -> Object:
    return {
        name: value for name, text in (amounts or {}).items() if name in _COMPUTE and (value := decimal(text)) > 0
    }
