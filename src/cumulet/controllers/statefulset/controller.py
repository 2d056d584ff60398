"""Brings a stateful set's pods to what is wanted, one after the other unless it says Parallel."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import STATEFULSETS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import OwnedPods, available_in, is_ready, is_terminating, phase_of
from cumulet.controllers.revisions import Revisions
from cumulet.controllers.statefulset.claims import Claims
from cumulet.controllers.statefulset.identity import make_pod, ordinal_of, revision_of, start_of

_COMPONENT = "statefulset-controller"


class StatefulSetController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events(_COMPONENT)
        self._sets = context.informer(STATEFULSETS)
        self._pods = StatefulPods(context)
        self._revisions = Revisions(context, STATEFULSETS)
        self._claims = Claims(context, self._events)
        self._sets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue)
        self._revisions.owned.notify(self.queue)

    async def reconcile(self, key: Key) -> None:
        """As many steps as need not wait for a pod; the change of a pod brings the next."""
        statefulset = self._sets.get(key[1], key[0])
        if statefulset is None:
            return
        pods = await self._pods.claim(
            statefulset, selector_of(statefulset), lambda pod: ordinal_of(statefulset, pod) is not None
        )
        revisions = await self._revisions.of(statefulset)
        update, collisions = await self._revisions.current(statefulset, revisions)
        named = {item["metadata"]["name"]: item for item in [*revisions, update]}
        current = named.get((statefulset.get("status") or {}).get("currentRevision", ""), update)
        step = Step(statefulset, pods, current, update)
        try:
            if not statefulset["metadata"].get("deletionTimestamp"):
                await self._act(step)
        finally:
            await self._write_status(step, self._pods.of(statefulset), collisions)
        used = {revision_of(pod) for pod in pods} | {current["metadata"]["name"], update["metadata"]["name"]}
        await self._revisions.forget_old(statefulset, revisions, used)

    async def _act(self, step: Step) -> None:
        if not await self._fill(step):
            return
        if not await self._shrink(step):
            return
        if step.strategy["type"] == "RollingUpdate":
            await self._roll(step)

    async def _fill(self, step: Step) -> bool:
        """Make what is missing, from the first ordinal on; whether the rest may be looked at too."""
        for ordinal in step.ordinals:
            pod = step.replicas.get(ordinal)
            if pod is not None and phase_of(pod) in ("Succeeded", "Failed"):
                # It is made anew under its name once it is gone.
                if not is_terminating(pod):
                    what = (
                        f"StatefulSet {'/'.join(key_of(step.set))} is recreating failed Pod {pod['metadata']['name']}"
                    )
                    self._events.event(step.set, "Warning", "RecreatingFailedPod", what)
                    await self._pods.delete(step.set, pod)
                if step.ordered:
                    return False
                continue
            if pod is None:
                await self._claims.ensure(step.set, f"{step.set['metadata']['name']}-{ordinal}")
                revision = step.current if step.keeps_current(ordinal) else step.update
                await self._pods.create(step.set, make_pod(step.set, ordinal, revision))
                if step.ordered:
                    return False
                continue
            if phase_of(pod) == "Pending":
                await self._claims.ensure(step.set, pod["metadata"]["name"])
            if step.ordered and (is_terminating(pod) or not self._well(step, pod)):
                return False
        return True

    async def _shrink(self, step: Step) -> bool:
        """Take away what is too much, from the last ordinal down; whether the rest may be looked at too."""
        for pod in step.condemned:
            if is_terminating(pod):
                if step.ordered:
                    return False
                continue
            if step.ordered and not self._well(step, pod) and pod is not step.first_unwell(self._well):
                return False
            await self._claims.hand_to(step.set, pod)
            await self._pods.delete(step.set, pod)
            if step.ordered:
                return False
        return True

    async def _roll(self, step: Step) -> None:
        """Replace what is of another revision, from the last ordinal down to the partition."""
        budget = step.max_unavailable
        for ordinal in reversed(step.ordinals):
            if ordinal < step.partition:
                return
            pod = step.replicas.get(ordinal)
            if pod is not None and revision_of(pod) != step.update["metadata"]["name"] and not is_terminating(pod):
                await self._pods.delete(step.set, pod)
                budget -= 1
            elif pod is None or is_terminating(pod) or not self._well(step, pod):
                budget -= 1
            if budget <= 0:
                return

    def _well(self, step: Step, pod: Object) -> bool:
        """Running, and ready for as long as asked; one that is ready but not yet for long is looked at again then."""
        wait = available_in(pod, step.set["spec"].get("minReadySeconds", 0))
        if wait:
            self.queue.add_after(key_of(step.set), wait)
        return phase_of(pod) == "Running" and wait == 0 and not is_terminating(pod)

    async def _write_status(self, step: Step, pods: list[Object], collisions: int) -> None:
        old = step.set.get("status") or {}
        update, current = step.update["metadata"]["name"], step.current["metadata"]["name"]
        created = [pod for pod in pods if phase_of(pod) and phase_of(pod) not in ("Succeeded", "Failed")]
        steady = [pod for pod in created if not is_terminating(pod)]
        ready = sum(phase_of(pod) == "Running" and is_ready(pod) for pod in created)
        counts = {
            "currentReplicas": sum(revision_of(pod) == current for pod in steady),
            "updatedReplicas": sum(revision_of(pod) == update for pod in steady),
            "readyReplicas": ready,
        }
        wanted = len(step.ordinals)
        if step.strategy["type"] == "RollingUpdate" and (
            counts["updatedReplicas"] == ready == len(created) == wanted
        ):
            current, counts["currentReplicas"] = update, counts["updatedReplicas"]
        status: Object = {
            "observedGeneration": step.set["metadata"].get("generation", 0),
            "replicas": len(created),
            **{name: value for name, value in counts.items() if value},
            "availableReplicas": sum(self._well(step, pod) for pod in created),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": collisions,
        }
        if "conditions" in old:
            status["conditions"] = old["conditions"]
        if status == old:
            return
        try:
            await self._client.update(STATEFULSETS, {**step.set, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


class StatefulPods(OwnedPods):
    """Pods, whose events are in the words of upstream's stateful set controller."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, STATEFULSETS, _COMPONENT)

    async def create(self, owner: Object, obj: Object) -> Object:
        """Create a pod; one that another controls stands in the way and is told of."""
        made: Object = await self._told("create", owner, obj, super(OwnedPods, self).create(owner, obj))
        return made

    async def delete(self, owner: Object, obj: Object) -> bool:
        """Delete a pod; whether it was there."""
        deleted: bool = await self._told("delete", owner, obj, super(OwnedPods, self).delete(owner, obj))
        return deleted

    async def _told(self, verb: str, owner: Object, obj: Object, request: Any) -> Any:
        text = f"{verb.title()} Pod {obj['metadata']['name']} in StatefulSet {owner['metadata']['name']}"
        try:
            answer = await request
        except KubernetesError as error:
            self._events.event(owner, "Warning", f"Failed{verb.title()}", f"{text} failed error: {error}")
            raise
        if answer:
            self._events.event(owner, "Normal", f"Successful{verb.title()}", f"{text} successful")
        return answer


class Step:
    """A stateful set as one reconciliation sees it: who has which ordinal, and who is too much."""

    def __init__(self, statefulset: Object, pods: list[Object], current: Object, update: Object) -> None:
        self.set = statefulset
        self.current = current
        self.update = update
        start = start_of(statefulset)
        self.ordinals = range(start, start + statefulset["spec"].get("replicas", 1))
        self.replicas: dict[int, Object] = {}
        condemned: dict[int, Object] = {}
        for pod in pods:
            ordinal = ordinal_of(statefulset, pod)
            if ordinal is not None:
                (self.replicas if ordinal in self.ordinals else condemned)[ordinal] = pod
        self.condemned = [condemned[ordinal] for ordinal in sorted(condemned, reverse=True)]

    @property
    def ordered(self) -> bool:
        """One after the other."""
        return bool(self.set["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady")

    @property
    def strategy(self) -> Object:
        """`spec.updateStrategy`."""
        return self.set["spec"].get("updateStrategy") or {"type": "RollingUpdate"}

    @property
    def partition(self) -> int:
        """The first ordinal that is updated."""
        found: int = (self.strategy.get("rollingUpdate") or {}).get("partition", 0)
        return self.ordinals.start + found if found else self.ordinals.start

    @property
    def max_unavailable(self) -> int:
        """How many may be out of service while updating, at least one; a share is rounded up."""
        value = (self.strategy.get("rollingUpdate") or {}).get("maxUnavailable", 1)
        if isinstance(value, str):
            value = math.ceil(int(value.rstrip("%")) * len(self.ordinals) / 100)
        return max(int(value), 1)

    def keeps_current(self, ordinal: int) -> bool:
        """Whether a pod that is missing comes back as it was: below the partition, or not reached by the update yet."""
        if self.strategy["type"] != "RollingUpdate":
            return False
        if self.partition > self.ordinals.start:
            return ordinal < self.partition
        reached: int = (self.set.get("status") or {}).get("currentReplicas", 0)
        return ordinal < self.ordinals.start + reached

    def first_unwell(self, well: Callable[[Step, Object], bool]) -> Object | None:
        """The pod of the lowest ordinal that is not well."""
        everyone = [self.replicas[number] for number in self.ordinals if number in self.replicas]
        return next((pod for pod in [*everyone, *reversed(self.condemned)] if not well(self, pod)), None)
