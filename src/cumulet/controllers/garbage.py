"""Garbage: what hangs on an owner that is gone goes too, in the background, first, or not at all."""

from __future__ import annotations

from cumulet.common.kubernetes import Informer, KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import (
    CRONJOBS,
    DAEMONSETS,
    DEPLOYMENTS,
    ENDPOINTS,
    ENDPOINTSLICES,
    JOBS,
    PODS,
    REPLICASETS,
    SERVICES,
    STATEFULSETS,
)
from cumulet.controllers.controller import Context, Key, Object

#: What is owned, and what owns.
_RESOURCES = (
    DEPLOYMENTS,
    REPLICASETS,
    STATEFULSETS,
    DAEMONSETS,
    JOBS,
    CRONJOBS,
    PODS,
    SERVICES,
    ENDPOINTSLICES,
    ENDPOINTS,
)
_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"


class GarbageCollector:
    """Keys are (resource's plural, uid)."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._informers: dict[str, Informer] = {}
        self._kinds: dict[tuple[str, str], Resource] = {}
        self._by_uid: dict[str, tuple[Resource, Object]] = {}
        self._dependents: dict[str, set[str]] = {}
        for resource in _RESOURCES:
            self._informers[resource.plural] = context.informer(resource)
            self._kinds[resource.api_version, resource.kind] = resource
            self._watch(resource)

    def _watch(self, resource: Resource) -> None:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            uid = obj["metadata"]["uid"]
            owners = {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}
            if change == "DELETED":
                self._by_uid.pop(uid, None)
                for dependent in self._dependents.pop(uid, ()):
                    self._look_at(dependent)
            else:
                self._by_uid[uid] = resource, obj
                for owner in owners:
                    self._dependents.setdefault(owner, set()).add(uid)
                self._look_at(uid)
            for owner in owners:
                # It may wait for its dependents to be gone.
                self._look_at(owner)

        self._informers[resource.plural].add_handler(changed)

    def _look_at(self, uid: str) -> None:
        if uid in self._by_uid:
            self.queue.add((self._by_uid[uid][0].plural, uid))

    async def reconcile(self, key: Key) -> None:
        """Delete an object whose owners are gone; let one go that waited for its dependents."""
        found = self._by_uid.get(key[1])
        if found is None:
            return
        resource, obj = found
        if not all(informer.synced.is_set() for informer in self._informers.values()):
            self.queue.add_after(key, 0.1)
            return
        finalizers = obj["metadata"].get("finalizers") or []
        if obj["metadata"].get("deletionTimestamp"):
            if _FOREGROUND in finalizers:
                await self._foreground(resource, obj)
            elif _ORPHAN in finalizers:
                await self._orphan(resource, obj)
        elif obj["metadata"].get("ownerReferences"):
            await self._collect(resource, obj)

    async def _collect(self, resource: Resource, obj: Object) -> None:
        metadata = obj["metadata"]
        references = metadata["ownerReferences"]
        if any([await self._exists(reference, metadata.get("namespace")) for reference in references]):
            return
        await self._delete(resource, obj)

    async def _exists(self, reference: Object, namespace: str | None) -> bool:
        """Whether an owner is there; one that the informers do not know is asked for, so that none is missed."""
        if reference["uid"] in self._by_uid:
            return True
        resource = self._kinds.get((reference["apiVersion"], reference["kind"]))
        if resource is None:
            return True  # another's kind: its own controller answers for it
        try:
            owner = await self._client.get(resource, reference["name"], namespace)
        except KubernetesError as error:
            if error.code == 404:
                return False
            raise
        return bool(owner["metadata"]["uid"] == reference["uid"])

    async def _foreground(self, resource: Resource, obj: Object) -> None:
        """Delete the dependents that block first, then let the owner go."""
        waiting = [
            self._by_uid[uid] for uid in self._dependents.get(obj["metadata"]["uid"], ()) if uid in self._by_uid
        ]
        for dependent_resource, dependent in waiting:
            if not dependent["metadata"].get("deletionTimestamp"):
                await self._delete(dependent_resource, dependent, foreground=True)
        if not waiting:
            await self._remove_finalizer(resource, obj, _FOREGROUND)

    async def _orphan(self, resource: Resource, obj: Object) -> None:
        """Take the owner out of its dependents, then let it go."""
        uid = obj["metadata"]["uid"]
        for dependent_uid in [*self._dependents.get(uid, ())]:
            known = self._by_uid.get(dependent_uid)
            if known is None:
                continue
            dependent_resource, dependent = known
            references = [item for item in dependent["metadata"].get("ownerReferences") or () if item["uid"] != uid]
            await self._patch(dependent_resource, dependent, {"ownerReferences": references or None})
        await self._remove_finalizer(resource, obj, _ORPHAN)

    async def _remove_finalizer(self, resource: Resource, obj: Object, name: str) -> None:
        left = [item for item in obj["metadata"]["finalizers"] if item != name]
        version = obj["metadata"]["resourceVersion"]
        await self._patch(resource, obj, {"finalizers": left or None, "resourceVersion": version})

    async def _patch(self, resource: Resource, obj: Object, metadata: Object) -> None:
        try:
            await self._client.patch(
                resource, obj["metadata"]["name"], {"metadata": metadata}, obj["metadata"].get("namespace")
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _delete(self, resource: Resource, obj: Object, *, foreground: bool = False) -> None:
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        try:
            await self._client.delete(
                resource,
                metadata["name"],
                metadata.get("namespace"),
                uid=metadata["uid"],
                propagation_policy="Foreground" if foreground and resource is not PODS else "Background",
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
