"""Calculates the number of pods of each disruption budget that can be evicted now (`pkg/controller/disruption`)."""

from __future__ import annotations

import math
from datetime import timedelta
from urllib.parse import quote

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import (
    DEPLOYMENTS,
    DISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
    AnyResource,
    Resource,
)
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.objects import (
    Condition,
    Deployment,
    LabelSelector,
    OwnerReference,
    Pod,
    PodDisruptionBudget,
    PodDisruptionBudgetStatus,
    ReplicaSet,
    ReplicationController,
    Scale,
    StatefulSet,
)
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.conditions import condition_of
from cumulet.controllers.controller import Context, Key, controller_of, key_of
from cumulet.controllers.pods import is_ready, is_terminating, phase_of

#: An allowed eviction that did not happen is dropped after this time.
_DISRUPTED = timedelta(minutes=2)
#: An object with `spec.replicas`.
_Scalable = Deployment | ReplicaSet | ReplicationController | StatefulSet


_UNMANAGED = (
    "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of the "
    "PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set "
    '".spec.minAvailable" field of the PDB to an integer value.'
)


class UnknownSizeError(Exception):
    """The desired number of pods is not known, which a budget in percent requires."""


class DisruptionController:
    """The controller of disruption budgets."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._context = context
        self._events = context.events("controllermanager")
        self._budgets = context.informer(DISRUPTIONBUDGETS)
        self._pods = context.informer(PODS)
        self._scaled: dict[str, AnyInformer] = {}
        for resource in (DEPLOYMENTS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS):
            self._scaled[resource.kind] = context.informer(resource)
        self._budgets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.add_handler(self._pod_changed)
        for informer in self._scaled.values():
            informer.add_handler(self._scale_changed)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        if change == "MODIFIED" and old is not None and _matters(old) == _matters(pod):
            return
        for budget in self._budgets.indexed("namespace", pod["metadata"]["namespace"]):
            if any(_selects(budget, item) for item in (pod, old) if item is not None):
                self.queue.add(key_of(budget))

    def _scale_changed(self, change: str, obj: _Scalable, old: _Scalable | None) -> None:
        if old is None or old["spec"].get("replicas") != obj["spec"].get("replicas"):
            for budget in self._budgets.indexed("namespace", obj["metadata"]["namespace"]):
                self.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> None:
        """Count the healthy pods, and write the number of allowed disruptions."""
        budget = self._budgets.get(key[1], key[0])
        if budget is None or budget["metadata"].get("deletionTimestamp"):
            return
        pods = [pod for pod in self._pods.indexed("namespace", key[0]) if _selects(budget, pod) and _counts(pod)]
        if not pods:
            self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        try:
            expected, desired = await self._expected(budget, pods)
        except UnknownSizeError as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            self._events.event(budget, "Warning", "CalculateExpectedPodCountFailed", message)
            failed: PodDisruptionBudgetStatus = {**(budget.get("status") or {}), "disruptionsAllowed": 0}
            await self._write(budget, failed, "SyncFailed", str(error))
            return
        disrupted = self._disrupted(key, budget, pods)
        healthy = sum(
            is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
        )
        allowed = max(healthy - desired, 0) if expected else 0
        status: PodDisruptionBudgetStatus = {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        await self._write(budget, status, "SufficientPods" if allowed else "InsufficientPods", "")

    def _disrupted(self, key: Key, budget: PodDisruptionBudget, pods: list[Pod]) -> dict[str, str]:
        """The pods with a recently allowed eviction that still exist, with the times of the evictions."""
        alive = {pod["metadata"]["name"] for pod in pods if not is_terminating(pod)}
        kept = {}
        for name, moment in ((budget.get("status") or {}).get("disruptedPods") or {}).items():
            left = (clock.parse(moment) + _DISRUPTED - clock.now()).total_seconds()
            if name in alive and left > 0:
                kept[name] = moment
                self.queue.add_after(key, left)
        return kept

    async def _expected(self, budget: PodDisruptionBudget, pods: list[Pod]) -> tuple[int, int]:
        """The expected number of pods, and the desired number of healthy ones. Raises `UnknownSizeError`."""
        spec = budget["spec"]
        unavailable, available = spec.get("maxUnavailable"), spec.get("minAvailable")
        if unavailable is None and not isinstance(available, str):
            return len(pods), int(available or 0)
        sizes: dict[str, int] = {}
        unmanaged = False
        for pod in pods:
            reference = controller_of(pod)
            if reference is None:
                unmanaged = True
            elif reference["uid"] not in sizes:
                uid, sizes_of = await self._size(pod, reference)
                sizes[uid] = sizes_of
        if unmanaged:
            message = _UNMANAGED.format(_written(spec.get("selector") or {}))
            self._events.event(budget, "Warning", "UnmanagedPods", message)
        expected = sum(sizes.values())
        if unavailable is not None:
            return expected, max(expected - _share(unavailable, expected), 0)
        return expected, _share(available or 0, expected)

    def _is_scaled(self, reference: OwnerReference) -> bool:
        informer = self._scaled.get(reference["kind"])
        return informer is not None and reference["apiVersion"].rpartition("/")[0] == informer.resource.group

    async def _size(self, pod: Pod, reference: OwnerReference) -> tuple[str, int]:
        """The UID of the topmost controller of a pod, and its desired number of pods. Raises `UnknownSizeError`."""
        where = pod["metadata"]["namespace"]
        topmost: _Scalable | None = None
        owner: OwnerReference | None = reference
        while owner is not None and self._is_scaled(owner):
            obj: _Scalable | None = self._scaled[owner["kind"]].get(owner["name"], where)
            if obj is None or obj["metadata"]["uid"] != owner["uid"]:
                break
            topmost, owner = obj, controller_of(obj)
        if topmost is not None:
            return topmost["metadata"]["uid"], topmost["spec"].get("replicas", 1)
        if self._is_scaled(reference):
            raise UnknownSizeError(f'found no controllers for pod "{pod["metadata"]["name"]}"')
        return await self._scale(pod, reference)

    async def _scale(self, pod: Pod, reference: OwnerReference) -> tuple[str, int]:
        """The same for a controller with a scale subresource, such as a custom resource."""
        resource = await self._served(reference)
        if resource is None:
            message = f'no matches for kind "{reference["kind"]}" in version "{reference["apiVersion"]}"'
            raise UnknownSizeError(message)
        try:
            path = resource.path(pod["metadata"]["namespace"], reference["name"], "scale")
            scale: Scale = await self._client.request("GET", path)
        except KubernetesError as error:
            if error.code != 404:
                raise
            full = f"{resource.plural}.{resource.group}" if resource.group else resource.plural
            raise UnknownSizeError(f"{full} does not implement the scale subresource") from None
        if scale["metadata"]["uid"] != reference["uid"]:
            raise UnknownSizeError(f'found no controllers for pod "{pod["metadata"]["name"]}"')
        return reference["uid"], (scale.get("spec") or {}).get("replicas", 0)

    async def _served(self, reference: OwnerReference) -> AnyResource | None:
        """The resource of the kind of an owner, or `None` if it is not served."""
        group, _, version = (quote(part, safe="") for part in reference["apiVersion"].rpartition("/"))
        try:
            listed = await self._client.request("GET", f"/apis/{group}/{version}" if group else f"/api/{version}")
        except KubernetesError as error:
            if error.code != 404:
                raise
            return None
        for item in listed["resources"]:
            if item["kind"] == reference["kind"] and "/" not in item["name"]:
                return Resource(group, version, item["name"], item["kind"], item["namespaced"])
        return None

    async def _write(
        self, budget: PodDisruptionBudget, status: PodDisruptionBudgetStatus, reason: str, message: str
    ) -> None:
        generation = budget["metadata"].get("generation", 0)
        old = condition_of(budget, "DisruptionAllowed")
        holds = "True" if status.get("disruptionsAllowed") else "False"
        same = old is not None and old["status"] == holds
        condition: Condition = {
            "type": "DisruptionAllowed",
            "status": holds,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else clock.rfc3339(),
        }
        status = {**status, "conditions": [condition], "observedGeneration": generation}
        if status == budget.get("status"):
            return
        with suppress_stale():
            # An eviction updates the same status. A conflict means that it was first.
            await self._client.update_status(DISRUPTIONBUDGETS, budget, status)


def _written(selector: LabelSelector) -> str:
    """A selector in the format of the API's Go types."""
    labels = "".join(f"{key}: {value}," for key, value in sorted((selector.get("matchLabels") or {}).items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{term['key']},Operator:{term['operator']},"
        f"Values:[{' '.join(term.get('values') or ())}],}},"
        for term in selector.get("matchExpressions") or ()
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


def _selects(budget: PodDisruptionBudget, pod: Pod) -> bool:
    return selects(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})


def _counts(pod: Pod) -> bool:
    return phase_of(pod) not in ("Succeeded", "Failed")


def _matters(pod: Pod) -> tuple[object, ...]:
    return is_ready(pod), phase_of(pod), is_terminating(pod), pod["metadata"].get("labels")


def _share(value: int | str, of: int) -> int:
    return math.ceil(int(value.rstrip("%")) * of / 100) if isinstance(value, str) else value
