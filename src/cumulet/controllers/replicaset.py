"""Replica sets and replication controllers: as many pods of a template as are wanted (`pkg/controller/replicaset`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from cumulet.common import clock
from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import REPLICASETS, REPLICATIONCONTROLLERS
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import (
    OwnedPods,
    available_in,
    condition_of,
    deletion_rank,
    from_template,
    in_batches,
    is_active,
    is_going,
    is_ready,
    is_terminating,
)

_BURST = 500


class ReplicaSetController:
    """See the module."""

    resource: Resource = REPLICASETS
    component = "replicaset-controller"

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._sets = context.informer(self.resource)
        self._pods = OwnedPods(context, self.resource, self.component)
        self._sets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods.notify(self.queue, self.selector)

    @staticmethod
    def selector(owner: Object) -> Mapping[str, Any] | None:
        """What of pods is the owner's."""
        return selector_of(owner)

    async def reconcile(self, key: Key) -> None:
        """Create or delete pods, then tell in the status what is there."""
        owner = self._sets.get(key[1], key[0])
        if owner is None:
            return
        pods = await self._pods.claim(owner, self.selector(owner), is_active)
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

    async def _manage(self, owner: Object, active: list[Object]) -> None:
        missing = owner["spec"].get("replicas", 1) - len(active)
        if missing > 0:
            pod = from_template(owner["spec"]["template"], prefix=f"{owner['metadata']['name']}-")
            await in_batches(min(missing, _BURST), lambda _: self._pods.create(owner, pod))
            if missing > _BURST:
                self.queue.add(key_of(owner))
        elif missing < 0:
            going = sorted(active, key=deletion_rank)[:-missing][:_BURST]
            await asyncio.gather(*(self._pods.delete(owner, pod) for pod in going))

    async def _write_status(
        self, owner: Object, pods: list[Object], failure: KubernetesError | None, missing: int
    ) -> None:
        active = [pod for pod in pods if is_active(pod)]
        waits = [available_in(pod, owner["spec"].get("minReadySeconds", 0)) for pod in active]
        if soon := [wait for wait in waits if wait]:
            self.queue.add_after(key_of(owner), min(soon))
        labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        status: dict[str, Any] = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active
            ),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        if self.resource is REPLICASETS:
            status["terminatingReplicas"] = sum(is_terminating(pod) for pod in pods)
        kept = ("replicas", "observedGeneration", "terminatingReplicas")
        status = {name: value for name, value in status.items() if value or name in kept}
        if failure is not None:
            status["conditions"] = [_failure(owner, failure, "FailedCreate" if missing > 0 else "FailedDelete")]
        if status == owner.get("status"):
            return
        # The spec that was observed is this one: a newer object has another status to get, and a conflict says so.
        try:
            await self._client.update(self.resource, {**owner, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


class ReplicationControllerController(ReplicaSetController):
    """The same for the older kind, whose selector is a map of labels."""

    resource = REPLICATIONCONTROLLERS
    component = "replication-controller"

    @staticmethod
    def selector(owner: Object) -> Mapping[str, Any] | None:
        """What of pods is the owner's."""
        labels = owner["spec"].get("selector")
        return {"matchLabels": labels} if labels else None


def _failure(owner: Object, error: KubernetesError, reason: str) -> Object:
    old = condition_of(owner, "ReplicaFailure")
    found = {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": str(error)}
    return {**found, "lastTransitionTime": old.get("lastTransitionTime") or clock.rfc3339()}
