"""Scales the replica sets of deployments step by step. The change of each step triggers the next one."""

from __future__ import annotations

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import DEPLOYMENTS, PODS, REPLICASETS
from cumulet.common.kubernetes.objects import Deployment, DeploymentStatus, Object, Pod, ReplicaSet
from cumulet.controllers.controller import Context, Key, controller_of, key_of
from cumulet.controllers.deployment import rollout
from cumulet.controllers.deployment.sets import (
    REVISION,
    annotations_of,
    current_of,
    is_rolling,
    make_set,
    revision_of,
    same_template,
    set_annotations,
    size,
    size_annotations,
)
from cumulet.controllers.deployment.status import make_status, overdue_in
from cumulet.controllers.owned import Owned, selector_of
from cumulet.controllers.pods import phase_of


class CollisionError(Exception):
    """Another template has the same hash. The next attempt uses a higher collision count, which gives another name."""


class DeploymentController:
    """The controller of deployments."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events("deployment-controller")
        self._deployments = context.informer(DEPLOYMENTS)
        self._sets = Owned(context, REPLICASETS, DEPLOYMENTS)
        self._pods = context.informer(PODS)
        self._deployments.add_handler(lambda change, obj, old: self.queue.add(key_of(obj)))
        self._sets.notify(self.queue, selector_of)
        self._pods.add_handler(self._pod_changed)

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        """Queue the deployment of a pod that is gone, because the strategy Recreate waits for the last old pod."""
        owner = controller_of(pod)
        if owner is None or owner["kind"] != REPLICASETS.kind or (change != "DELETED" and phase_of(pod) != "Failed"):
            return
        replica_set = self._sets.informer.get(owner["name"], pod["metadata"]["namespace"])
        deployment = controller_of(replica_set) if replica_set is not None else None
        if deployment is not None:
            self.queue.add((pod["metadata"]["namespace"], deployment["name"]))

    async def reconcile(self, key: Key) -> None:
        """Take one step of the rollout, then write the status."""
        deployment = self._deployments.get(key[1], key[0])
        if deployment is None:
            return
        selector = deployment["spec"]["selector"]
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            message = "This deployment is selecting all pods. A non-empty selector is required."
            self._events.event(deployment, "Warning", "SelectingAll", message)
            return
        sets = _oldest_first(await self._sets.claim(deployment, selector_of(deployment)))
        if deployment["metadata"].get("deletionTimestamp"):
            await self._write_status(deployment, sets, current_of(deployment, sets))
            return
        failure: KubernetesError | None = None
        try:
            await self._roll_out(deployment, sets)
        except KubernetesError as error:
            if error.code == 409:
                raise
            failure = error
        sets = _oldest_first(self._sets.of(deployment))
        await self._write_status(deployment, sets, current_of(deployment, sets), failure)
        if failure is not None:
            raise failure

    async def _roll_out(self, deployment: Deployment, sets: list[ReplicaSet]) -> None:
        current = current_of(deployment, sets)
        if deployment["spec"].get("paused"):
            await self._resize(deployment, sets, rollout.rescale(deployment, current, sets))
            await self._delete_old(deployment, sets)
            return
        if current is None and not is_rolling(deployment) and (any(map(size, sets)) or self._has_pods(sets)):
            await self._resize(deployment, sets, rollout.recreate(deployment, None, sets))
            return
        rescaled = rollout.was_rescaled(deployment, sets)
        current = await self._current(deployment, sets, current)
        others = [item for item in sets if item["metadata"]["uid"] != current["metadata"]["uid"]]
        sets = _oldest_first([*others, current])
        if rescaled:
            await self._resize(deployment, sets, rollout.rescale(deployment, current, sets))
        elif is_rolling(deployment):
            await self._resize(deployment, sets, rollout.roll(deployment, current, others))
        elif self._has_pods(others):
            await self._resize(deployment, sets, rollout.recreate(deployment, None, others))
        else:
            await self._resize(deployment, sets, rollout.recreate(deployment, current, others))
        await self._delete_old(deployment, _oldest_first(self._sets.of(deployment)))

    def _has_pods(self, sets: list[ReplicaSet]) -> bool:
        return any(
            phase_of(pod) not in ("Succeeded", "Failed")
            for item in sets
            for pod in self._pods.indexed("controller", item["metadata"]["uid"])
        )

    async def _current(
        self, deployment: Deployment, sets: list[ReplicaSet], current: ReplicaSet | None
    ) -> ReplicaSet:
        """The replica set of the current template with the newest revision, created if there is none."""
        newest = max((revision_of(item) for item in sets if item is not current), default=0)
        revision = max(newest + 1, revision_of(current) if current is not None else 0)
        if current is None:
            current = await self._create(deployment, sets, revision)
        else:
            annotations = set_annotations(deployment, current, revision)
            # The annotations of the size stay until the set is resized.
            for name in size_annotations(deployment):
                annotations.pop(name)
            patch: Object = {}
            if not annotations.items() <= annotations_of(current).items():
                patch["metadata"] = {"annotations": annotations}
            if current["spec"].get("minReadySeconds", 0) != deployment["spec"].get("minReadySeconds", 0):
                patch["spec"] = {"minReadySeconds": deployment["spec"].get("minReadySeconds", 0)}
            if patch:
                current = await self._sets.change(deployment, current, patch)
        if annotations_of(deployment).get(REVISION) != str(revision):
            metadata = deployment["metadata"]
            patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
            # Patch the status subresource, as upstream does, so that the generation of the deployment stays.
            await self._client.patch(
                DEPLOYMENTS, metadata["name"], patch, metadata["namespace"], subresource="status"
            )
        return current

    async def _create(self, deployment: Deployment, sets: list[ReplicaSet], revision: int) -> ReplicaSet:
        desired = make_set(deployment, sets, revision)
        name, namespace = desired["metadata"]["name"], deployment["metadata"]["namespace"]
        try:
            made = await self._sets.create(deployment, desired)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                self._events.event(
                    deployment,
                    "Warning",
                    "ReplicaSetCreateError",
                    f'Failed to create new replica set "{name}": {error}',
                )
                raise
            made = await self._client.get(REPLICASETS, name, namespace)
            owner = controller_of(made)
            if owner is None or owner["uid"] != deployment["metadata"]["uid"] or not same_template(made, deployment):
                collisions = (deployment.get("status") or {}).get("collisionCount") or 0
                status: DeploymentStatus = {**(deployment.get("status") or {}), "collisionCount": collisions + 1}
                await self._client.update_status(DEPLOYMENTS, deployment, status)
                raise CollisionError(f"{namespace}/{name} has another template") from error
            return made
        if replicas := size(made):
            self._report(deployment, made, 0, replicas)
        return made

    async def _resize(self, deployment: Deployment, sets: list[ReplicaSet], sizes: rollout.Sizes) -> None:
        for item in sets:
            replicas = sizes.get(item["metadata"]["uid"], size(item))
            annotations = size_annotations(deployment)
            sized = annotations.items() <= annotations_of(item).items()
            if replicas == size(item) and (sized or not replicas):
                continue
            patch: Object = {"metadata": {"annotations": annotations}}
            if replicas != size(item):
                patch["spec"] = {"replicas": replicas}
                # Only from this version: another client can have changed the size in the meantime.
                patch["metadata"]["resourceVersion"] = item["metadata"]["resourceVersion"]
            await self._sets.change(deployment, item, patch)
            if replicas != size(item):
                self._report(deployment, item, size(item), replicas)

    def _report(self, deployment: Deployment, item: ReplicaSet, before: int, now: int) -> None:
        name = item["metadata"]["name"]
        message = f"Scaled {'up' if now > before else 'down'} replica set {name} from {before} to {now}"
        self._events.event(deployment, "Normal", "ScalingReplicaSet", message)

    async def _delete_old(self, deployment: Deployment, sets: list[ReplicaSet]) -> None:
        """Delete the oldest sets without pods beyond `revisionHistoryLimit`."""
        limit = deployment["spec"].get("revisionHistoryLimit", 10)
        old = [
            item
            for item in sets
            if not same_template(item, deployment) and not item["metadata"].get("deletionTimestamp")
        ]
        surplus = len(old) - limit
        for item in sorted(old, key=revision_of)[: max(surplus, 0)]:
            status = item.get("status") or {}
            observed = status.get("observedGeneration", 0) >= item["metadata"].get("generation", 1)
            if not size(item) and not status.get("replicas") and observed:
                await self._sets.delete(deployment, item)

    async def _write_status(
        self,
        deployment: Deployment,
        sets: list[ReplicaSet],
        current: ReplicaSet | None,
        failure: KubernetesError | None = None,
    ) -> None:
        status = make_status(deployment, sets, current, failure)
        left = overdue_in(deployment, status)
        if left is not None:
            self.queue.add_after(key_of(deployment), max(left, 0) + 1)
        if status == deployment.get("status"):
            return
        with suppress_stale():
            await self._client.update_status(DEPLOYMENTS, deployment, status)


def _oldest_first(sets: list[ReplicaSet]) -> list[ReplicaSet]:
    return sorted(sets, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))
