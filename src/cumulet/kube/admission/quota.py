"""Plug-in ResourceQuota: how much of what a namespace may have.

What is used is counted from what is stored, with what is on its way there, so that two creates at the same time do
not both take the last of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.quantity import decimal
from cumulet.kube.admission.amounts import Amounts, pod_amounts
from cumulet.kube.resources import BY_KEY, Row
from cumulet.kube.schema.quantity import canonical
from cumulet.kube.schema.selecting import selects
from cumulet.kube.status import forbidden
from cumulet.kube.store import Store

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
_COMPUTE = ("cpu", "memory", "ephemeral-storage")


class Quotas:
    """The quotas of each namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, row: Row, obj: Object) -> None:
        """Raises `ApiError` 403 where a quota has not enough left for a new object."""
        namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
        for stored in self._store.list("resourcequotas", namespace):
            quota = stored.load()
            hard = {key: decimal(value) for key, value in ((quota.get("spec") or {}).get("hard") or {}).items()}
            if not _covers(quota, row, obj):
                continue
            asked = {key: value for key, value in usage(row.key, obj).items() if key in hard}
            if row.key == "pods":
                _demand(row, obj, stored.name, hard)
            if not asked:
                continue
            used = self.used(quota, row.key)
            over = sorted(key for key, value in asked.items() if used.get(key, Decimal(0)) + value > hard[key])
            if over:
                texts = [
                    ",".join(f"{key}={canonical(str(amounts.get(key, 0)))}" for key in over)
                    for amounts in (asked, used, hard)
                ]
                why = f"exceeded quota: {stored.name}, requested: {texts[0]}, used: {texts[1]}, limited: {texts[2]}"
                raise forbidden(row.group, row.plural, name, why)

    def used(self, quota: Object, key: str) -> Amounts:
        """What the objects of a resource use of what a quota bounds."""
        total: Amounts = {}
        row = BY_KEY.get(key)
        for stored in self._store.list_newest(key, quota["metadata"]["namespace"]):
            obj = stored.load()
            if row is not None and not _covers(quota, row, obj):
                continue
            for name, value in usage(key, obj).items():
                total[name] = total.get(name, Decimal(0)) + value
        return total


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
                if kind == "requests" and name in _COMPUTE:
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


def _demand(row: Row, pod: Object, quota: str, hard: Amounts) -> None:
    """Where a quota bounds cpu or memory, each container must say how much it wants."""
    missing: dict[str, list[str]] = {}
    for container in pod["spec"].get("containers") or ():
        resources = container.get("resources") or {}
        for key in sorted(hard):
            kind, _, name = key.rpartition(".")
            if name not in _COMPUTE or kind not in ("", "requests", "limits"):
                continue
            if name not in (resources.get(kind or "requests") or {}):
                missing.setdefault(key, []).append(container["name"])
    if missing:
        texts = [f"{key} for: {','.join(names)}" for key, names in missing.items()]
        why = f"failed quota: {quota}: must specify {'; '.join(texts)}"
        raise forbidden(row.group, row.plural, pod["metadata"]["name"], why)


def _covers(quota: Object, row: Row, obj: Object) -> bool:
    """Whether an object is within the scopes of a quota; scopes are about pods."""
    spec = quota.get("spec") or {}
    scopes: list[tuple[str, str, list[str]]] = [(name, "Exists", []) for name in spec.get("scopes") or ()]
    for item in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        scopes.append((item.get("scopeName", ""), item.get("operator", "Exists"), item.get("values") or []))
    if not scopes:
        return True
    return row.key == "pods" and all(_in_scope(*scope, obj) for scope in scopes)


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
