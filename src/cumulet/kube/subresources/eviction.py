"""Eviction: a deletion that the disruption budgets must allow (policy/v1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube import schema
from cumulet.kube.access.users import User
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.catalog.resources import BY_KEY
from cumulet.kube.http.body import part
from cumulet.kube.http.negotiation import encode
from cumulet.kube.http.options import check_deletion, check_named
from cumulet.kube.http.request_info import Target
from cumulet.kube.http.write_context import WriteContext
from cumulet.kube.objects.deletion import check_preconditions
from cumulet.kube.objects.write import Objects
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ObjectMeta, PodDisruptionBudgetStatus, StatusCause

_BUDGETS = "poddisruptionbudgets.policy"
_PODS_ON_THEIR_WAY = 2000
_DISRUPTION = "DisruptionTarget"


class Evictions:
    """Evicts pods."""

    def __init__(self, store: Store, objects: Objects) -> None:
        self._store = store
        self._objects = objects

    async def evict(self, request: web.BaseRequest, user: User, target: Target) -> web.Response:
        """Evict a pod. Raises `ApiError` 404, 409, and 429 where a budget allows no disruption now."""
        eviction = await part(request, "policy", "v1", "Eviction")
        check_named(target.name, eviction, "Eviction")
        eviction = await self._objects.admit(target, "CREATE", eviction, None, WriteContext.of(request, user))
        options = eviction.get("deleteOptions") or {}
        check_deletion(options)
        pod = self._objects.get(target.row, target.namespace, target.name).load()
        by = WriteContext.of(request, user)
        self._objects.check_deletion(target.row, pod, by)
        by.dry_run = by.dry_run or options.get("dryRun") == ["All"]
        phase = (pod.get("status") or {}).get("phase")
        # A pod that does not run, or is terminating, is no disruption.
        if phase not in ("Succeeded", "Failed", "Pending") and not pod["metadata"].get("deletionTimestamp"):
            await self._use_budget(pod, dry=by.dry_run)
        if not by.dry_run:
            options = await self._announce(target, options)
        await self._objects.delete(target.row, target.namespace, target.name, options, by, is_validated=True)
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
        return encode(request, status, 201)

    async def _announce(self, target: Target, options: Object) -> Object:
        """Give the pod the condition DisruptionTarget, by which a job tells it from one that failed.

        Returns the options of the deletion. Raises `ApiError` 409 for a precondition that does not hold.
        """

        def change(pod: Object) -> Object:
            check_preconditions(target.row, target.name, pod, options)
            conditions = pod.setdefault("status", {}).setdefault("conditions", [])
            before = next((item for item in conditions if item["type"] == _DISRUPTION), None)
            if before is not None and before["status"] == "True":
                return pod
            condition: Object = {
                "type": _DISRUPTION,
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": clock.rfc3339(),
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
            }
            if "generation" in pod["metadata"]:
                condition["observedGeneration"] = pod["metadata"]["generation"]
            pod["status"]["conditions"] = [*(item for item in conditions if item is not before), condition]
            return pod

        await self._objects.rewrite(target.row, target.namespace, target.name, change)
        preconditions = {**(options.get("preconditions") or {})}
        # It held a moment ago, and this write has changed it.
        preconditions.pop("resourceVersion", None)
        return {**options, "preconditions": preconditions}

    async def _use_budget(self, pod: Object, *, dry: bool) -> None:
        metadata = pod["metadata"]
        labels = metadata.get("labels") or {}
        budgets = [
            budget
            for budget in (stored.load() for stored in self._store.list(_BUDGETS, metadata["namespace"]))
            if schema.selects((budget.get("spec") or {}).get("selector") or _NOTHING, labels)
        ]
        if len(budgets) > 1:
            raise bad_request(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        for budget in budgets:
            name = budget["metadata"]["name"]

            def use(current: Object) -> Object:
                _check(current)
                status = current["status"]
                status["disruptionsAllowed"] -= 1
                status.setdefault("disruptedPods", {})[metadata["name"]] = clock.rfc3339()
                return current

            if dry:
                _check(budget)
            else:
                await self._objects.rewrite(BY_KEY[_BUDGETS], metadata["namespace"], name, use)


_NOTHING: Object = {"matchExpressions": [{"key": "", "operator": "Exists"}]}


def _check(budget: Object) -> None:
    metadata: ObjectMeta = budget["metadata"]
    status: PodDisruptionBudgetStatus = budget.get("status") or {}
    name = metadata["name"]
    if status.get("observedGeneration", 0) < metadata.get("generation", 0):
        raise _too_many(f"The disruption budget {name} is still being processed by the server.")
    if len(status.get("disruptedPods") or ()) > _PODS_ON_THEIR_WAY:
        raise _too_many(f"The disruption budget {name} has too many evictions on their way")
    if status.get("disruptionsAllowed", 0) < 1:
        wanted, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
        raise _too_many(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")


def _too_many(why: str) -> ApiError:
    cause: StatusCause = {"reason": "DisruptionBudget", "message": why}
    message = "Cannot evict pod as it would violate the pod's disruption budget."
    return ApiError(429, "TooManyRequests", message, {"causes": [cause]})
