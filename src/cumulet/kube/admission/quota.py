"""Plug-in ResourceQuota: bounds on the resources of a namespace.

The used amounts count stored objects and those on their way to disk. So two concurrent creates cannot both take the
last of a quota.
"""

from __future__ import annotations

from decimal import Decimal

from cumulet.common.kubernetes.amounts import POD_LEVEL, Amounts, container_amounts
from cumulet.common.kubernetes.objects import Object
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.usage import covers, is_bounded, usage, written
from cumulet.kube.apimachinery.status import forbidden
from cumulet.kube.catalog.resources import Row
from cumulet.kube.store import Store

#: Resources whose updates can use more of a quota.
_GROWING = ("services", "persistentvolumeclaims")


class Quotas:
    """The quotas of each namespace."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def check(self, row: Row, obj: Object, old: Object | None = None, subresource: str = "") -> None:
        """Check that every quota has enough left for a new or growing object. Raises `ApiError` 403."""
        if old is not None and not _grows(row, obj, old, subresource):
            return
        metadata = obj["metadata"]
        for stored in self._store.list("resourcequotas", metadata["namespace"]):
            quota = stored.load()
            hard: dict[str, str] = (quota.get("spec") or {}).get("hard") or {}
            if not covers(quota, row.key, obj):
                continue
            if row.key == "pods":
                _demand(row, obj, stored.name, hard)
            requested = {key: value for key, value in usage(row.key, obj).items() if key in hard}
            if old is not None and covers(quota, row.key, old):
                before = usage(row.key, old)
                grown = {key: value - before.get(key, Decimal(0)) for key, value in requested.items()}
                requested = {key: value for key, value in grown.items() if value > 0}
            if not requested:
                continue
            used = self._used(quota, row.key)
            over = sorted(
                key for key, value in requested.items() if used.get(key, Decimal(0)) + value > decimal(hard[key])
            )
            if over:
                demand, in_use = (
                    ",".join(f"{key}={written(amounts.get(key, Decimal(0)), hard[key])}" for key in over)
                    for amounts in (requested, used)
                )
                limited = ",".join(f"{key}={hard[key]}" for key in over)
                why = f"exceeded quota: {stored.name}, requested: {demand}, used: {in_use}, limited: {limited}"
                raise forbidden(row.group, row.plural, metadata["name"], why)

    def used(self, row: Row, obj: Object) -> dict[str, dict[str, str]]:
        """Return the used amounts of the namespace's quotas, by name, now that an object is stored.

        Upstream's plug-in also updates them at once; a controller counts what deletions free.
        """
        changed: dict[str, dict[str, str]] = {}
        for stored in self._store.list_newest("resourcequotas", obj["metadata"]["namespace"]):
            quota = stored.load()
            status = quota.get("status") or {}
            hard: dict[str, str] = status.get("hard") or {}
            if not hard or not covers(quota, row.key, obj):
                continue
            used = self._used(quota, row.key)
            now = {key: written(used.get(key, Decimal(0)), hard[key]) for key in usage(row.key, obj) if key in hard}
            if now.items() - (status.get("used") or {}).items():
                changed[stored.name] = now
        return changed

    def _used(self, quota: Object, key: str) -> Amounts:
        """Return the amounts that the objects of a resource use of a quota."""
        total: Amounts = {}
        for stored in self._store.list_newest(key, quota["metadata"]["namespace"]):
            obj = stored.load()
            if covers(quota, key, obj):
                for name, value in usage(key, obj).items():
                    total[name] = total.get(name, Decimal(0)) + value
        return total


def _grows(row: Row, obj: Object, old: Object, subresource: str) -> bool:
    """Return whether quotas apply to an update."""
    if row.key == "pods":
        return subresource == "resize" or (not subresource and is_bounded(obj) != is_bounded(old))
    return row.key in _GROWING and not subresource


def _demand(row: Row, pod: Object, quota: str, hard: dict[str, str]) -> None:
    """Require cpu and memory where a quota bounds them, of each container or of the pod. Raises `ApiError` 403."""
    spec = pod["spec"]
    if any(container_amounts(spec, kind) for kind in ("requests", "limits")):
        return
    missing: dict[str, set[str]] = {}
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        for key in hard:
            kind, _, name = key.rpartition(".")
            if name not in POD_LEVEL or kind not in ("", "requests", "limits"):
                continue
            if name not in container_amounts(container, kind or "requests"):
                missing.setdefault(key, set()).add(container["name"])
    if missing:
        texts = [f"{key} for: {','.join(sorted(missing[key]))}" for key in sorted(missing)]
        why = f"failed quota: {quota}: must specify {'; '.join(texts)}"
        raise forbidden(row.group, row.plural, pod["metadata"]["name"], why)
