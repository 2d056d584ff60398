"""How many pods of each disruption budget may be evicted just now (`pkg/controller/disruption`)."""

from __future__ import annotations

import math
from datetime import timedelta

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import (
    DEPLOYMENTS,
    DISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
)
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of
from cumulet.controllers.pods import condition_of, is_ready, is_terminating, phase_of

#: An eviction that was allowed and of which nothing came is forgotten after this.
_DISRUPTED = timedelta(minutes=2)
_SCALED: dict[str, Resource] = {
    resource.kind: resource for resource in (DEPLOYMENTS, REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS)
}


class UnmanagedError(Exception):
    """A budget as a share needs to know how many pods there should be."""


class DisruptionController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._context = context
        self._events = context.events("controllermanager")
        self._budgets = context.informer(DISRUPTIONBUDGETS)
        self._pods = context.informer(PODS)
        self._scaled = {kind: context.informer(resource) for kind, resource in _SCALED.items()}
        self._budgets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.add_handler(self._pod_changed)
        for informer in self._scaled.values():
            informer.add_handler(self._scale_changed)

    def _pod_changed(self, change: str, pod: Object, old: Object | None) -> None:
        if change == "MODIFIED" and old is not None and _matters(old) == _matters(pod):
            return
        for budget in self._budgets.indexed("namespace", pod["metadata"]["namespace"]):
            if any(_selects(budget, item) for item in (pod, old) if item is not None):
                self.queue.add(key_of(budget))

    def _scale_changed(self, change: str, obj: Object, old: Object | None) -> None:
        if old is None or old["spec"].get("replicas") != obj["spec"].get("replicas"):
            for budget in self._budgets.indexed("namespace", obj["metadata"]["namespace"]):
                self.queue.add(key_of(budget))

    async def reconcile(self, key: Key) -> None:
        """Count the healthy, and what may go."""
        budget = self._budgets.get(key[1], key[0])
        if budget is None or budget["metadata"].get("deletionTimestamp"):
            return
        pods = [pod for pod in self._pods.indexed("namespace", key[0]) if _selects(budget, pod) and _counts(pod)]
        if not pods:
            self._events.event(budget, "Normal", "NoPods", "No matching pods found")
        try:
            expected, desired = self._expected(budget, pods)
        except UnmanagedError as error:
            message = f"Failed to calculate the number of expected pods: {error}"
            self._events.event(budget, "Warning", "CalculateExpectedPodCountFailed", message)
            await self._write(
                budget, {**(budget.get("status") or {}), "disruptionsAllowed": 0}, "SyncFailed", str(error)
            )
            return
        disrupted = self._disrupted(key, budget, pods)
        healthy = sum(
            is_ready(pod) and not is_terminating(pod) and pod["metadata"]["name"] not in disrupted for pod in pods
        )
        allowed = max(healthy - desired, 0) if expected else 0
        status: Object = {
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "disruptionsAllowed": allowed,
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        await self._write(budget, status, "SufficientPods" if allowed else "InsufficientPods", "")

    def _disrupted(self, key: Key, budget: Object, pods: list[Object]) -> dict[str, str]:
        """Pods whose eviction was allowed a moment ago and that are still there."""
        alive = {pod["metadata"]["name"] for pod in pods if not is_terminating(pod)}
        kept = {}
        for name, moment in ((budget.get("status") or {}).get("disruptedPods") or {}).items():
            left = (clock.parse(moment) + _DISRUPTED - clock.now()).total_seconds()
            if name in alive and left > 0:
                kept[name] = moment
                self.queue.add_after(key, left)
        return kept

    def _expected(self, budget: Object, pods: list[Object]) -> tuple[int, int]:
        """How many pods there should be, and how many of them healthy."""
        spec = budget["spec"]
        unavailable, available = spec.get("maxUnavailable"), spec.get("minAvailable")
        if unavailable is not None:
            expected = self._sizes(pods)
            return expected, max(expected - _share(unavailable, expected), 0)
        if isinstance(available, str):
            expected = self._sizes(pods)
            return expected, _share(available, expected)
        return len(pods), int(available or 0)

    def _sizes(self, pods: list[Object]) -> int:
        """The sum of what the controllers of the pods are to have."""
        sizes: dict[str, int] = {}
        for pod in pods:
            owner = self._scaled_owner(pod)
            sizes[owner["metadata"]["uid"]] = owner["spec"].get("replicas", 1)
        return sum(sizes.values())

    def _scaled_owner(self, pod: Object) -> Object:
        where = pod["metadata"]["namespace"]
        found = None
        reference = controller_of(pod)
        while reference is not None and reference["kind"] in self._scaled:
            obj = self._scaled[reference["kind"]].get(reference["name"], where)
            if obj is None or obj["metadata"]["uid"] != reference["uid"]:
                break
            found, reference = obj, controller_of(obj)
        if found is None:
            raise UnmanagedError(f'found no controllers for pod "{pod["metadata"]["name"]}"')
        return found

    async def _write(self, budget: Object, status: Object, reason: str, message: str) -> None:
        generation = budget["metadata"].get("generation", 0)
        old = condition_of(budget, "DisruptionAllowed")
        holds = "True" if status.get("disruptionsAllowed") else "False"
        same = old.get("status") == holds
        condition = {
            "type": "DisruptionAllowed",
            "status": holds,
            "reason": reason,
            "message": message,
            "observedGeneration": generation,
            "lastTransitionTime": old["lastTransitionTime"] if same else clock.rfc3339(),
        }
        status = {**status, "conditions": [condition], "observedGeneration": generation}
        if status == budget.get("status"):
            return
        try:
            # An eviction counts in the same status: a conflict says that it was quicker.
            await self._client.update(DISRUPTIONBUDGETS, {**budget, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _selects(budget: Object, pod: Object) -> bool:
    return selects(budget["spec"].get("selector"), pod["metadata"].get("labels") or {})


def _counts(pod: Object) -> bool:
    return phase_of(pod) not in ("Succeeded", "Failed")


def _matters(pod: Object) -> tuple[object, ...]:
    return is_ready(pod), phase_of(pod), is_terminating(pod), pod["metadata"].get("labels")


def _share(value: int | str, of: int) -> int:
    return math.ceil(int(value.rstrip("%")) * of / 100) if isinstance(value, str) else value
