"""Brings the pods of a stateful set to their desired state, one after the other unless its policy is Parallel."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import STATEFULSETS
from cumulet.common.kubernetes.objects import (
    ControllerRevision,
    Pod,
    RollingUpdateStatefulSetStrategy,
    StatefulSet,
    StatefulSetStatus,
)
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import OwnedPods, available_in, is_ready, is_terminating, phase_of
from cumulet.controllers.revisions import Revisions
from cumulet.controllers.statefulset.claims import Claims
from cumulet.controllers.statefulset.identity import make_pod, ordinal_of, revision_of, start_of

_COMPONENT = "statefulset-controller"


class StatefulSetController:
    """The controller of stateful sets."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events(_COMPONENT)
        self._sets = context.informer(STATEFULSETS)
        self._pods = StatefulPods(context)
        self._revisions = Revisions(context, STATEFULSETS)
        self._claims = Claims(context, self._events)
        self._sets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue, selector_of)
        self._revisions.owned.notify(self.queue, selector_of)

    async def reconcile(self, key: Key) -> None:
        """Take all steps that need not wait for a pod. The change of a pod triggers the next ones."""
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
                await self._advance(step)
        finally:
            await self._write_status(step, self._pods.of(statefulset), collisions)
        used = {revision_of(pod) for pod in pods} | {current["metadata"]["name"], update["metadata"]["name"]}
        await self._revisions.delete_old(statefulset, revisions, used)

    async def _advance(self, step: Step) -> None:
        if not await self._fill(step):
            return
        if not await self._shrink(step):
            return
        if step.is_rolling:
            await self._roll(step)

    async def _fill(self, step: Step) -> bool:
        """Create missing pods from the first ordinal on. Returns whether the next phase can start."""
        for ordinal in step.ordinals:
            pod = step.replicas.get(ordinal)
            if pod is not None and phase_of(pod) in ("Succeeded", "Failed"):
                # It is created again under its name once it is gone.
                if not is_terminating(pod):
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
            if step.ordered and (is_terminating(pod) or not self._healthy(step, pod)):
                return False
        return True

    async def _shrink(self, step: Step) -> bool:
        """Delete surplus pods from the last ordinal down. Returns whether the next phase can start."""
        for pod in step.surplus:
            if is_terminating(pod):
                if step.ordered:
                    return False
                continue
            if step.ordered and not self._healthy(step, pod) and pod is not step.first_unhealthy(self._healthy):
                return False
            await self._claims.transfer(step.set, pod)
            await self._pods.delete(step.set, pod)
            if step.ordered:
                return False
        return True

    async def _roll(self, step: Step) -> None:
        """Delete pods of other revisions, from the last ordinal down to the partition."""
        budget = step.max_unavailable
        for ordinal in reversed(step.ordinals):
            if ordinal < step.partition:
                return
            pod = step.replicas.get(ordinal)
            if pod is not None and revision_of(pod) != step.update["metadata"]["name"] and not is_terminating(pod):
                await self._pods.delete(step.set, pod)
                budget -= 1
            elif pod is None or is_terminating(pod) or not self._healthy(step, pod):
                budget -= 1
            if budget <= 0:
                return

    def _healthy(self, step: Step, pod: Pod) -> bool:
        """Whether a pod is running and available. Queues the set again for the time at which the pod becomes available."""
        wait = available_in(pod, step.set["spec"].get("minReadySeconds", 0))
        if wait:
            self.queue.add_after(key_of(step.set), wait)
        return phase_of(pod) == "Running" and wait == 0 and not is_terminating(pod)

    async def _write_status(self, step: Step, pods: list[Pod], collisions: int) -> None:
        old = step.set.get("status") or {}
        update, current = step.update["metadata"]["name"], step.current["metadata"]["name"]
        created = [pod for pod in pods if phase_of(pod) and phase_of(pod) not in ("Succeeded", "Failed")]
        steady = [pod for pod in created if not is_terminating(pod)]
        ready = sum(phase_of(pod) == "Running" and is_ready(pod) for pod in created)
        on_current = sum(revision_of(pod) == current for pod in steady)
        updated = sum(revision_of(pod) == update for pod in steady)
        if step.is_rolling and updated == ready == len(created) == len(step.ordinals):
            current, on_current = update, updated
        status: StatefulSetStatus = {
            "observedGeneration": step.set["metadata"].get("generation", 0),
            "replicas": len(created),
            "availableReplicas": sum(self._healthy(step, pod) for pod in created),
            "currentRevision": current,
            "updateRevision": update,
            "collisionCount": collisions,
        }
        if on_current:
            status["currentReplicas"] = on_current
        if updated:
            status["updatedReplicas"] = updated
        if ready:
            status["readyReplicas"] = ready
        if "conditions" in old:
            status["conditions"] = old["conditions"]
        if status == old:
            return
        with suppress_stale():
            await self._client.update_status(STATEFULSETS, step.set, status)


_R = TypeVar("_R")


class StatefulPods(OwnedPods[StatefulSet]):
    """Pods whose events have the words of upstream's stateful set controller."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, STATEFULSETS, _COMPONENT)

    async def create(self, owner: StatefulSet, obj: Pod) -> Pod:
        """Create a pod. Raises `KubernetesError` after an event, also if a pod of another owner has the name."""
        return await self._reported("create", owner, obj, super(OwnedPods, self).create(owner, obj))

    async def delete(self, owner: StatefulSet, obj: Pod) -> bool:
        """Delete a pod. Returns whether it existed. Raises `KubernetesError` after an event."""
        return await self._reported("delete", owner, obj, super(OwnedPods, self).delete(owner, obj))

    async def _reported(self, verb: str, owner: StatefulSet, obj: Pod, request: Awaitable[_R]) -> _R:
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
    """The state of a stateful set in one reconciliation: its pods by ordinal, and the surplus ones."""

    def __init__(
        self, statefulset: StatefulSet, pods: list[Pod], current: ControllerRevision, update: ControllerRevision
    ) -> None:
        self.set = statefulset
        self.current = current
        self.update = update
        start = start_of(statefulset)
        self.ordinals = range(start, start + statefulset["spec"].get("replicas", 1))
        self.replicas: dict[int, Pod] = {}
        surplus: dict[int, Pod] = {}
        for pod in pods:
            ordinal = ordinal_of(statefulset, pod)
            if ordinal is not None:
                (self.replicas if ordinal in self.ordinals else surplus)[ordinal] = pod
        self.surplus = [surplus[ordinal] for ordinal in sorted(surplus, reverse=True)]

    @property
    def ordered(self) -> bool:
        """Whether pods are managed one after the other."""
        return self.set["spec"].get("podManagementPolicy", "OrderedReady") == "OrderedReady"

    @property
    def is_rolling(self) -> bool:
        """Whether the update strategy is RollingUpdate."""
        strategy = self.set["spec"].get("updateStrategy")
        return not strategy or strategy["type"] == "RollingUpdate"

    @property
    def _rolling(self) -> RollingUpdateStatefulSetStrategy:
        return (self.set["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}

    @property
    def partition(self) -> int:
        """The first ordinal that is updated."""
        return self.ordinals.start + (self._rolling.get("partition") or 0)

    @property
    def max_unavailable(self) -> int:
        """The number of pods that can be unavailable during an update, at least one. A share is rounded up."""
        value = self._rolling.get("maxUnavailable", 1)
        if isinstance(value, str):
            value = math.ceil(int(value.rstrip("%")) * len(self.ordinals) / 100)
        return max(int(value), 1)

    def keeps_current(self, ordinal: int) -> bool:
        """Whether a missing pod gets the current revision: below the partition, or before the update reaches it."""
        if not self.is_rolling:
            return False
        if self.partition > self.ordinals.start:
            return ordinal < self.partition
        reached = (self.set.get("status") or {}).get("currentReplicas", 0)
        return ordinal < self.ordinals.start + reached

    def first_unhealthy(self, healthy: Callable[[Step, Pod], bool]) -> Pod | None:
        """The unhealthy pod with the lowest ordinal, surplus pods last."""
        replicas = [self.replicas[number] for number in self.ordinals if number in self.replicas]
        return next((pod for pod in [*replicas, *reversed(self.surplus)] if not healthy(self, pod)), None)
