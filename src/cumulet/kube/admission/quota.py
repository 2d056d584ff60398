"""Plug-in ResourceQuota: how much of what a namespace may have.

What is used is counted from what is stored, with what is on its way there, so that two creates at the same time do
not both take the last of it.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from cumulet.common.kubernetes.amounts import Amounts
from cumulet.common.kubernetes.quantity import decimal
from cumulet.common.kubernetes.usage import COMPUTE, covers, usage
from cumulet.kube.resources import BY_KEY, Row
from cumulet.kube.schema.quantity import canonical
from cumulet.kube.status import forbidden
from cumulet.kube.store import Store

Object = dict[str, Any]


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
            if not covers(quota, row.key, obj):
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
            if row is not None and not covers(quota, row.key, obj):
                continue
            for name, value in usage(key, obj).items():
                total[name] = total.get(name, Decimal(0)) + value
        return total


def _demand(row: Row, pod: Object, quota: str, hard: Amounts) -> None:
    """Where a quota bounds cpu or memory, each container must say how much it wants."""
    missing: dict[str, list[str]] = {}
    for container in pod["spec"].get("containers") or ():
        resources = container.get("resources") or {}
        for key in sorted(hard):
            kind, _, name = key.rpartition(".")
            if name not in COMPUTE or kind not in ("", "requests", "limits"):
                continue
            if name not in (resources.get(kind or "requests") or {}):
                missing.setdefault(key, []).append(container["name"])
    if missing:
        texts = [f"{key} for: {','.join(names)}" for key, names in missing.items()]
        why = f"failed quota: {quota}: must specify {'; '.join(texts)}"
        raise forbidden(row.group, row.plural, pod["metadata"]["name"], why)
