"""Pods from the view of their controllers: their state, their order of deletion, their creation from templates."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from cumulet.common import clock
from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes import KubernetesError
from cumulet.common.kubernetes.client import PODS, Resource
from cumulet.common.kubernetes.objects import ObjectMeta, Pod, PodTemplateSpec
from cumulet.controllers.conditions import condition_of, status_of
from cumulet.controllers.controller import Context
from cumulet.controllers.owned import O, Owned

#: Sorts pods for deletion.
_Rank = tuple[bool, int, bool, int, list[int], int, list[int]]


def phase_of(pod: Pod) -> str:
    """`status.phase`."""
    return (pod.get("status") or {}).get("phase", "")


def is_active(pod: Pod) -> bool:
    """Whether a pod has neither ended nor is terminating."""
    return phase_of(pod) not in ("Succeeded", "Failed") and not is_terminating(pod)


def is_terminating(pod: Pod) -> bool:
    """Whether a pod is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Pod) -> bool:
    """Whether the condition Ready is true."""
    return status_of(pod, "Ready") == "True"


def ready_since(pod: Pod) -> str:
    """The time of the last transition of the condition Ready, or empty."""
    ready = condition_of(pod, "Ready")
    return ready.get("lastTransitionTime") or "" if ready is not None else ""


def available_in(pod: Pod, least: int) -> float | None:
    """The seconds until a pod is available: 0 if it is available, `None` if it is not ready.

    A pod is available once it has been ready for `least` seconds.
    """
    if not is_ready(pod):
        return None
    since = ready_since(pod)
    if not least or not since:
        return 0.0
    return max(0.0, least - (clock.now() - clock.parse(since)).total_seconds())


def deletion_rank(pod: Pod) -> _Rank:
    """The sort key for deletion. First are pods that are unassigned, not running, not ready, cheap, often restarted, young.

    Follows `controller.ActivePodsWithRanks`, without its rank by node.
    """
    cost = (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0")
    restarts = max(
        (item.get("restartCount", 0) for item in (pod.get("status") or {}).get("containerStatuses") or ()), default=0
    )
    return (
        bool(pod["spec"].get("nodeName")),
        {"Pending": 0, "Unknown": 1}.get(phase_of(pod), 2),
        is_ready(pod),
        int(cost) if is_digits(cost.lstrip("-")) else 0,
        _younger_first(ready_since(pod)) if is_ready(pod) else [],
        -restarts,
        _younger_first(pod["metadata"].get("creationTimestamp", "")),
    )


def _younger_first(moment: str) -> list[int]:
    return [-ord(char) for char in moment]


def from_template(template: PodTemplateSpec, *, name: str | None = None, prefix: str = "") -> Pod:
    """A pod of a template, with that name or with a generated name that begins with `prefix`."""
    metadata: ObjectMeta = {"name": name} if name is not None else {"generateName": prefix}
    given = template.get("metadata") or {}
    if given.get("labels"):
        metadata["labels"] = given["labels"]
    if given.get("annotations"):
        metadata["annotations"] = given["annotations"]
    if given.get("finalizers"):
        metadata["finalizers"] = given["finalizers"]
    return {"metadata": metadata, "spec": template["spec"]}


class OwnedPods(Owned[O, Pod]):
    """Pods that owners control. Each creation and deletion is recorded as an event of the owner."""

    def __init__(self, context: Context, owner: Resource[O], component: str, *, finalizer: str = "") -> None:
        super().__init__(context, PODS, owner, finalizer=finalizer)
        self._events = context.events(component)

    async def create(self, owner: O, obj: Pod) -> Pod:
        """Create a pod. Raises `KubernetesError` after an event about the failure."""
        try:
            made = await super().create(owner, obj)
        except KubernetesError as error:
            if not is_going(error):
                self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        self._events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def delete(self, owner: O, obj: Pod) -> bool:
        """Delete a pod. Returns whether it existed. Raises `KubernetesError` after an event about the failure."""
        try:
            deleted = await super().delete(owner, obj)
        except KubernetesError as error:
            self._events.event(owner, "Warning", "FailedDelete", f"Error deleting: {error}")
            raise
        if deleted:
            self._events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {obj['metadata']['name']}")
        return deleted


def is_going(error: KubernetesError) -> bool:
    """Whether an error is due to a terminating namespace, in which nothing can be created."""
    causes = (error.status.get("details") or {}).get("causes") or ()
    return error.code == 403 and (
        any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
        or str(error).endswith("because it is being terminated")
    )


async def in_batches(count: int, one: Callable[[int], Awaitable[object]]) -> None:
    """Call `one` for each number below `count`, in batches of doubling size, so that a refusal is not repeated for all."""
    done, batch = 0, 1
    while done < count:
        numbers = range(done, min(done + batch, count))
        outcomes = await asyncio.gather(*(one(number) for number in numbers), return_exceptions=True)
        if failures := [outcome for outcome in outcomes if isinstance(outcome, BaseException)]:
            raise failures[0]
        done, batch = numbers.stop, batch * 2
