"""Pods as their controllers see them: which count, which go first, how they are made from a template."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, Resource
from cumulet.common.kubernetes.client import PODS
from cumulet.controllers.controller import Context, Object
from cumulet.controllers.owned import Owned


def phase_of(pod: Object) -> str:
    """`status.phase`."""
    found: str = (pod.get("status") or {}).get("phase", "")
    return found


def is_active(pod: Object) -> bool:
    """Neither ended nor being deleted."""
    return phase_of(pod) not in ("Succeeded", "Failed") and not is_terminating(pod)


def is_terminating(pod: Object) -> bool:
    """It is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    """Its condition Ready is true."""
    return condition_of(pod, "Ready").get("status") == "True"


def available_in(pod: Object, least: int) -> float | None:
    """Seconds until a pod counts as available: 0 where it does, `None` where it is not ready."""
    if not is_ready(pod):
        return None
    since = condition_of(pod, "Ready").get("lastTransitionTime")
    if not least or not since:
        return 0.0
    return max(0.0, least - (clock.now() - clock.parse(since)).total_seconds())


def condition_of(obj: Object, kind: str) -> Object:
    """A condition by its type, empty where there is none."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            found: Object = condition
            return found
    return {}


def deletion_rank(pod: Object) -> tuple[Any, ...]:
    """The order in which pods go: not placed, not running, not ready, cheaper, restarted more often, younger.

    Follows `controller.ActivePodsWithRanks`, without its rank by node.
    """
    cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    ready_since = condition_of(pod, "Ready").get("lastTransitionTime") or ""
    restarts = max(
        (item.get("restartCount", 0) for item in (pod.get("status") or {}).get("containerStatuses") or ()), default=0
    )
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1}.get(phase_of(pod), 2),
        is_ready(pod),
        int(cost) if cost.lstrip("-").isdigit() else 0,
        _younger_first(ready_since) if is_ready(pod) else [],
        -restarts,
        _younger_first(pod["metadata"].get("creationTimestamp", "")),
    )


def _younger_first(moment: str) -> list[int]:
    return [-ord(char) for char in moment]


def from_template(template: Object, *, name: str | None = None, prefix: str = "") -> Object:
    """A pod of a template, with that name or one that begins with `prefix`."""
    metadata: Object = {"name": name} if name is not None else {"generateName": prefix}
    for part in ("labels", "annotations", "finalizers"):
        if value := (template.get("metadata") or {}).get(part):
            metadata[part] = value
    return {"metadata": metadata, "spec": template["spec"]}


class OwnedPods(Owned):
    """Pods that owners control; each that is made or deleted is told of in an event of the owner."""

    def __init__(self, context: Context, owner: Resource, component: str, *, finalizer: str = "") -> None:
        super().__init__(context, PODS, owner, finalizer=finalizer)
        self._events = context.events(component)

    async def create(self, owner: Object, obj: Object) -> Object:
        """Create a pod. Raises `KubernetesError`, after an event that tells of it."""
        try:
            made = await super().create(owner, obj)
        except KubernetesError as error:
            if not is_going(error):
                self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def delete(self, owner: Object, obj: Object) -> bool:
        """Delete a pod; whether it was there."""
        try:
            deleted = await super().delete(owner, obj)
        except KubernetesError as error:
            self._events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        if deleted:
            self._events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {obj['metadata']['name']}")
        return deleted


def is_going(error: KubernetesError) -> bool:
    """The namespace is being deleted: nothing can be made in it, and nobody needs to hear of it."""
    causes = (error.status.get("details") or {}).get("causes") or ()
    return error.code == 403 and (
        any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        or str(error).endswith("because it is being terminated")
    )


async def in_batches(count: int, one: Callable[[int], Awaitable[Any]]) -> None:
    """Do `one` for each number below `count`, in batches that double: what is refused is refused once, not a thousand times."""
    done, batch = 0, 1
    while done < count:
        numbers = range(done, min(done + batch, count))
        outcomes = await asyncio.gather(*(one(number) for number in numbers), return_exceptions=True)
        if failures := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
            raise failures[0]
        done, batch = numbers.stop, batch * 2
