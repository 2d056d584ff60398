"""What an object counts for in resource quotas, by upstream's names (`pkg/quota/v1/evaluator`)."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.amounts import Amounts, pod_amounts
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.selection import selects

Object = dict[str, Any]

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
#: Amounts that are also counted without `requests.` before them.
COMPUTE = ("cpu", "memory", "ephemeral-storage")


def usage(key: str, obj: Object) -> Amounts:
    """What one object counts for."""
    one = Decimal(1)
    found: Amounts = {f"count/{key}": one}
    if key == "pods":
        if (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            return found
        found["pods"] = one
        for kind in ("requests", "limits"):
            for name, value in pod_amounts(obj.get("spec") or {}, kind).items():
                found[f"{kind}.{name}"] = value
                if kind == "requests" and name in COMPUTE:
                    found[name] = value
        return found
    if key in _COUNTED:
        found[key] = one
    spec = obj.get("spec") or {}
    if key == "services":
        found["services.loadbalancers"] = Decimal(spec.get("type") == "LoadBalancer")
        has_ports = spec.get("type") in ("NodePort", "LoadBalancer")
        found["services.nodeports"] = Decimal(len(spec.get("ports") or ()) if has_ports else 0)
    elif key == "persistentvolumeclaims":
        storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
        if storage is not None:
            found["requests.storage"] = decimal(storage)
            if storage_class := spec.get("storageClassName"):
                found[f"{storage_class}.storageclass.storage.k8s.io/requests.storage"] = decimal(storage)
                found[f"{storage_class}.storageclass.storage.k8s.io/persistentvolumeclaims"] = one
    return {name: value for name, value in found.items() if value}


def covers(quota: Object, key: str, obj: Object) -> bool:
    """Whether an object is within the scopes of a quota; scopes are about pods."""
    spec = quota.get("spec") or {}
    scopes: list[tuple[str, str, list[str]]] = [(name, "Exists", []) for name in spec.get("scopes") or ()]
    for item in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scopes.append((item.get("scopeName", ""), item.get("operator", "Exists"), item.get("values") or []))
    if not scopes:
        return True
    return key == "pods" and all(_in_scope(*scope, obj) for scope in scopes)


def _in_scope(name: str, operator: str, values: list[str], pod: Object) -> bool:
    spec = pod.get("spec") or {}
    match name:
        case "Terminating" | "NotTerminating":
            return (spec.get("activeDeadlineSeconds") is not None) is (name == "Terminating")
        case "BestEffort" | "NotBestEffort":
            resources = (container.get("resources") or {} for container in _containers(spec))
            effort = any(item.get("requests") or item.get("limits") for item in resources)
            return effort is (name == "NotBestEffort")
        case "PriorityClass":
            labels = {"class": spec["priorityClassName"]} if spec.get("priorityClassName") else {}
            expression = {"key": "class", "operator": operator, "values": values}
            return selects({"matchExpressions": [expression]}, labels)
    return False


def _containers(spec: Object) -> Iterator[Object]:
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()
