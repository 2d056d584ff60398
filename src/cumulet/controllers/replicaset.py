"""Replica sets and replication controllers keep the desired number of pods of a template (`pkg/controller/replicaset`)."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from cumulet.common import clock
from cumulet.common.kubernetes import Informer, KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import REPLICASETS, REPLICATIONCONTROLLERS, Resource
from cumulet.common.kubernetes.objects import (
    LabelSelector,
    Object,
    Pod,
    ReplicaSet,
    ReplicaSetCondition,
    ReplicaSetStatus,
    ReplicationController,
)
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.owned import Selector, selector_of
from cumulet.controllers.pods import (
    OwnedPods,
    available_in,
    deletion_rank,
    from_template,
    in_batches,
    is_active,
    is_going,
    is_ready,
    is_terminating,
)

_BURST = 500

S = TypeVar("S", ReplicaSet, ReplicationController)


class _Controller(Generic[S]):
    """Creates and deletes the pods of one of the two kinds."""

    def __init__(self, context: Context, resource: Resource[S], component: str, selector: Selector[S]) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._resource: Resource[S] = resource
        self._selector: Selector[S] = selector
        self._sets: Informer[S] = context.informer(resource)
        self._pods: OwnedPods[S] = OwnedPods(context, resource, component)
        self._sets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue, selector)

    async def reconcile(self, key: Key) -> None:
        """Create or delete pods, then write the status."""
        owner = self._sets.get(key[1], key[0])
        if owner is None:
            return
        pods = await self._pods.claim(owner, self._selector(owner), is_active)
        active = [pod for pod in pods if is_active(pod)]
        failure: KubernetesError | None = None
        if not owner["metadata"].get("deletionTimestamp"):
            try:
                await self._manage(owner, active)
            except KubernetesError as error:
                failure = error
        await self._write_status(owner, self._pods.of(owner), failure, owner["spec"].get("replicas", 1) - len(active))
        if failure is not None and not is_going(failure):
            raise failure

    async def _manage(self, owner: S, active: list[Pod]) -> None:
        missing = owner["spec"].get("replicas", 1) - len(active)
        if missing > 0:
            pod = from_template(owner["spec"]["template"], prefix=f"{owner['metadata']['name']}-")
            await in_batches(min(missing, _BURST), lambda _: self._pods.create(owner, pod))
            if missing > _BURST:
                self.queue.add(key_of(owner))
        elif missing < 0:
            surplus = sorted(active, key=deletion_rank)[:-missing][:_BURST]
            await asyncio.gather(*(self._pods.delete(owner, pod) for pod in surplus))

    async def _write_status(self, owner: S, pods: list[Pod], failure: KubernetesError | None, missing: int) -> None:
        active = [pod for pod in pods if is_active(pod)]
        waits = [available_in(pod, owner["spec"].get("minReadySeconds", 0)) for pod in active]
        if soon := [wait for wait in waits if wait]:
            self.queue.add_after(key_of(owner), min(soon))
        labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        counts: ReplicaSetStatus = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active
            ),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        if self._resource.kind == REPLICASETS.kind:
            counts["terminatingReplicas"] = sum(is_terminating(pod) for pod in pods)
        kept = ("replicas", "observedGeneration", "terminatingReplicas")
        status: Object = {name: value for name, value in counts.items() if value or name in kept}
        if failure is not None:
            status["conditions"] = [_failure(owner, failure, "FailedCreate" if missing > 0 else "FailedDelete")]
        if status == owner.get("status"):
            return
        # The status describes this version of the spec. For a newer version, the update ends in a conflict.
        with suppress_stale():
            await self._client.update_status(self._resource, owner, status)


class ReplicaSetController(_Controller[ReplicaSet]):
    """The controller of replica sets."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, REPLICASETS, "replicaset-controller", selector_of)


class ReplicationControllerController(_Controller[ReplicationController]):
    """The controller of replication controllers, whose selector is a map of labels."""

    def __init__(self, context: Context) -> None:
        super().__init__(context, REPLICATIONCONTROLLERS, "replication-controller", _labels_selector)


def _labels_selector(owner: ReplicationController) -> LabelSelector | None:
    labels = owner["spec"].get("selector")
    return {"matchLabels": labels} if labels else None


def _failure(owner: ReplicaSet | ReplicationController, error: KubernetesError, reason: str) -> ReplicaSetCondition:
    found: ReplicaSetCondition = {
        "type": "ReplicaFailure",
        "status": "True",
        "reason": reason,
        "message": str(error),
        "lastTransitionTime": clock.rfc3339(),
    }
    for condition in (owner.get("status") or {}).get("conditions") or ():
        if condition["type"] == found["type"] and condition.get("lastTransitionTime"):
            found["lastTransitionTime"] = condition["lastTransitionTime"]
    return found
