"""Replica sets: as many pods of a template as are wanted (`pkg/controller/replicaset`)."""

from __future__ import annotations

import asyncio
from typing import Any

from cumulet.common.kubernetes import KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import PODS, REPLICASETS
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of, owner_reference
from cumulet.controllers.pods import OwnedPods, available_in, deletion_rank, is_active, is_ready

_BURST = 500


class ReplicaSetController:
    """See the module."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._sets = context.informer(REPLICASETS)
        self._pods_informer = context.informer(PODS)
        self._pods = OwnedPods(context.client, self._pods_informer, context.events("replicaset-controller"))
        self._sets.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._pods_informer.add_handler(self._pod_changed)

    def _pod_changed(self, change: str, pod: Object, old: Object | None) -> None:
        owner = controller_of(pod)
        if owner is not None:
            if owner["kind"] == "ReplicaSet":
                self.queue.add((pod["metadata"]["namespace"], owner["name"]))
            return
        for item in self._sets:
            if item["metadata"]["namespace"] == pod["metadata"]["namespace"] and selects(
                item["spec"].get("selector"), pod["metadata"].get("labels") or {}
            ):
                self.queue.add(key_of(item))

    async def reconcile(self, key: Key) -> None:
        """Create or delete pods, then tell in the status what is there."""
        owner = self._sets.get(key[1], key[0])
        if owner is None:
            return
        await self._adopt(owner)
        pods = self._pods.of(owner)
        active = [pod for pod in pods if is_active(pod)]
        wanted = owner["spec"].get("replicas", 1)
        failure: KubernetesError | None = None
        if not owner["metadata"].get("deletionTimestamp"):
            try:
                if len(active) < wanted:
                    await self._create(owner, min(wanted - len(active), _BURST))
                elif len(active) > wanted:
                    going = sorted(active, key=deletion_rank)[: len(active) - wanted]
                    await asyncio.gather(*(self._pods.delete(owner, pod) for pod in going))
            except KubernetesError as error:
                failure = error
        await self._write_status(owner, [pod for pod in self._pods.of(owner) if is_active(pod)], pods, failure)
        if failure is not None:
            raise failure

    async def _create(self, owner: Object, count: int) -> None:
        """In batches that double, so that a template that is refused is refused once and not a thousand times."""
        batch = 1
        while count > 0:
            size = min(batch, count)
            await asyncio.gather(*(self._pods.create(owner, _pod(owner)) for _ in range(size)))
            count -= size
            batch *= 2

    async def _adopt(self, owner: Object) -> None:
        """Take pods that are selected and have no controller."""
        if owner["metadata"].get("deletionTimestamp"):
            return
        for pod in self._pods_informer:
            if (
                pod["metadata"]["namespace"] == owner["metadata"]["namespace"]
                and controller_of(pod) is None
                and is_active(pod)
                and selects(owner["spec"].get("selector"), pod["metadata"].get("labels") or {})
            ):
                references = [*(pod["metadata"].get("ownerReferences") or ()), _reference(owner)]
                patch = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": references}}
                try:
                    await self._client.patch(PODS, pod["metadata"]["name"], patch, pod["metadata"]["namespace"])
                except KubernetesError as error:
                    if error.code not in (404, 409):
                        raise

    async def _write_status(
        self, owner: Object, active: list[Object], pods: list[Object], failure: KubernetesError | None
    ) -> None:
        least = owner["spec"].get("minReadySeconds", 0)
        waits = [available_in(pod, least) for pod in active]
        if soon := [wait for wait in waits if wait]:
            self.queue.add_after(key_of(owner), min(soon))
        labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
        terminating = sum(bool(pod["metadata"].get("deletionTimestamp")) for pod in pods)
        status: dict[str, Any] = {
            "replicas": len(active),
            "fullyLabeledReplicas": sum(
                labels.items() <= (pod["metadata"].get("labels") or {}).items() for pod in active
            ),
            "readyReplicas": sum(is_ready(pod) for pod in active),
            "availableReplicas": sum(wait == 0 for wait in waits),
            "terminatingReplicas": terminating,
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        kept = ("replicas", "observedGeneration", "terminatingReplicas")
        status = {name: value for name, value in status.items() if value or name in kept}
        if failure is not None:
            condition = {
                "type": "ReplicaFailure",
                "status": "True",
                "reason": "FailedCreate",
                "message": str(failure),
            }
            status["conditions"] = [condition]
        if status == owner.get("status"):
            return
        # The spec that was observed is this one: a newer object has another status to get, and a conflict says so.
        try:
            await self._client.update(REPLICASETS, {**owner, "status": status}, "status")
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _reference(owner: Object) -> Object:
    return owner_reference(owner, "apps/v1", "ReplicaSet")


def _pod(owner: Object) -> Object:
    template = owner["spec"]["template"]
    metadata = {
        name: value
        for name, value in (template.get("metadata") or {}).items()
        if name in ("labels", "annotations", "finalizers")
    }
    return {
        "metadata": {
            **metadata,
            "generateName": f"{owner['metadata']['name']}-",
            "ownerReferences": [_reference(owner)],
        },
        "spec": template["spec"],
    }
