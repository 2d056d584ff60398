"""The usage of resource quotas by objects, with upstream's names (`pkg/quota/v1/evaluator`)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import ROUND_CEILING, Decimal

from cumulet.common import clock
from cumulet.common.kubernetes.amounts import POD_LEVEL, Amounts, container_amounts, pod_amounts
from cumulet.common.kubernetes.objects import Fields, LabelSelector
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.selection import selects

_COUNTED = frozenset(
    (
        "configmaps",
        "persistentvolumeclaims",
        "pods",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "services",
    )
)
#: Resources that are counted under two names, with and without the prefix `requests.`.
_COMPUTE = (*POD_LEVEL, "ephemeral-storage")
_CLASS = "volume.beta.kubernetes.io/storage-class"
_PER_CLASS = ".storageclass.storage.k8s.io/"


def usage(key: str, obj: Fields) -> Amounts:
    """The usage of one object. `key` is its resource, such as `pods` or `deployments.apps`."""
    found: Amounts = {f"count/{key}": Decimal(1)}
    if key in _COUNTED:
        found[key] = Decimal(1)
    if key == "pods":
        found |= _pod(obj)
    elif key == "services":
        found |= _service(obj.get("spec") or {})
    elif key == "persistentvolumeclaims":
        found |= _claim(obj)
    return {name: value for name, value in found.items() if value}


def written(value: Decimal, like: str) -> str:
    """Write a quantity, with a binary suffix if `like` has one."""
    if value == (whole := int(value)):
        for suffix, size in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
            if like.endswith("i") and whole and whole % size == 0:
                return f"{whole // size}{suffix}"
        return str(whole)
    return f"{int((value * 1000).to_integral_value())}m"


def _pod(pod: Fields) -> Amounts:
    """The usage of a pod. One that has ended, or has exceeded its grace period, uses nothing."""
    metadata, spec = pod.get("metadata") or {}, pod.get("spec") or {}
    grace = metadata.get("deletionGracePeriodSeconds")
    overdue = (
        metadata.get("deletionTimestamp") is not None
        and grace is not None
        and clock.now() > clock.parse(metadata["deletionTimestamp"]) + timedelta(seconds=grace)
    )
    if overdue or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return {"pods": Decimal(0)}
    found: Amounts = {}
    for name, value in pod_amounts(spec, "requests").items():
        huge = name.startswith("hugepages-")
        if name in _COMPUTE or huge or "/" in name:
            found[f"requests.{name}"] = value
        if name in _COMPUTE or huge:
            found[name] = value
    for name, value in pod_amounts(spec, "limits").items():
        if name in _COMPUTE:
            found[f"limits.{name}"] = value
    return found


def _service(spec: Fields) -> Amounts:
    """The usage of a service. Node ports are counted by the request, because that precedes their allocation."""
    kind, ports = spec.get("type"), spec.get("ports") or ()
    if kind not in ("NodePort", "LoadBalancer"):
        return {}
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        ports = [port for port in ports if port.get("nodePort")]
    return {
        "services.loadbalancers": Decimal(kind == "LoadBalancer"),
        "services.nodeports": Decimal(len(ports)),
    }


def _claim(claim: Fields) -> Amounts:
    metadata, spec, status = (claim.get(part) or {} for part in ("metadata", "spec", "status"))
    found: Amounts = {}
    named = (metadata.get("annotations") or {}).get(_CLASS) or spec.get("storageClassName")
    if named:
        found[f"{named}{_PER_CLASS}persistentvolumeclaims"] = Decimal(1)
    requested = container_amounts(spec, "requests").get("storage")
    if requested is not None:
        # A failed expansion counts until it is withdrawn.
        allocated = decimal((status.get("allocatedResources") or {}).get("storage", "0"))
        size = max(requested, allocated).to_integral_value(ROUND_CEILING)
        found["requests.storage"] = size
        if named:
            found[f"{named}{_PER_CLASS}requests.storage"] = size
    return found


def covers(quota: Fields, key: str, obj: Fields) -> bool:
    """Whether an object is within the scopes of a quota. One scope applies to claims, all others to pods."""
    spec = quota.get("spec") or {}
    scopes: list[tuple[str, str, list[str]]] = [(name, "Exists", []) for name in spec.get("scopes") or ()]
    for item in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scopes.append((item.get("scopeName", ""), item.get("operator", "Exists"), item.get("values") or []))
    return all(_in_scope(*scope, key, obj) for scope in scopes)


def _in_scope(name: str, operator: str, values: list[str], key: str, obj: Fields) -> bool:
    spec = obj.get("spec") or {}
    if key == "persistentvolumeclaims" and name == "VolumeAttributesClass":
        return _is_named(spec.get("volumeAttributesClassName"), operator, values)
    if key != "pods":
        return False
    match name:
        case "Terminating" | "NotTerminating":
            return is_bounded(obj) is (name == "Terminating")
        case "BestEffort" | "NotBestEffort":
            return _has_amounts(spec) is (name == "NotBestEffort")
        case "PriorityClass":
            return _is_named(spec.get("priorityClassName"), operator, values)
        case "CrossNamespacePodAffinity":
            return any(term.get("namespaces") or "namespaceSelector" in term for term in _affinity_terms(spec))
    return False


def is_bounded(pod: Fields) -> bool:
    """Whether a pod has a deadline, for the scope `Terminating`."""
    return (pod.get("spec") or {}).get("activeDeadlineSeconds") is not None


def _is_named(name: str | None, operator: str, values: list[str]) -> bool:
    labels = {"class": name} if name else {}
    selector: LabelSelector = {"matchExpressions": [{"key": "class", "operator": operator, "values": values}]}
    return selects(selector, labels)


def _has_amounts(spec: Fields) -> bool:
    """Whether a pod has another QoS class than BestEffort."""
    parts = [spec, *(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return any(container_amounts(part, kind).get(name) for part in parts for kind in _KINDS for name in POD_LEVEL)


_KINDS = ("requests", "limits")


def _affinity_terms(spec: Fields) -> Iterator[Fields]:
    for kind in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(kind) or {}
        yield from affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        for weighted in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ():
            yield weighted.get("podAffinityTerm") or {}
