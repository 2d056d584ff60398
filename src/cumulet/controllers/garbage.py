"""Deletes the dependents of deleted owners: in the background, in the foreground, or not at all (orphans).

Follows `pkg/controller/garbagecollector`. It watches every resource that can be listed, watched and deleted, including custom
ones. It watches only the metadata of resources that no other controller reads.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import EVENTS, PODS, AnyResource, Resource
from cumulet.common.kubernetes.informer import Handler
from cumulet.common.kubernetes.objects import Object, OwnerReference, PartialObjectMetadata
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.discovery import discover_all

_DEFINITIONS: AnyResource = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
_NEEDED = {"list", "watch", "delete"}
#: Resources whose objects have neither owners nor dependents.
_IGNORED = {EVENTS.plural}
_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
#: The key that triggers discovery.
_DISCOVERY: Key = ("", "")
#: The seconds between two discoveries, besides those after changes of definitions.
_REDISCOVER = 300.0
_GROUP_KIND = tuple[str, str]


class Vertex(NamedTuple):
    """An object in the graph of owners and dependents."""

    resource: AnyResource
    obj: PartialObjectMetadata

    @property
    def namespace(self) -> str:
        """The namespace, empty for a cluster-scoped object."""
        return self.obj["metadata"].get("namespace") or ""


class GarbageCollector:
    """The garbage collector. Its keys are (plural of the resource, UID)."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._context = context
        self._client = context.client
        self._events = context.events("garbage-collector-controller")
        self._watched: dict[_GROUP_KIND, AnyResource] = {}
        self._kinds: dict[_GROUP_KIND, AnyResource] = {}
        self._vertices: dict[str, Vertex] = {}
        self._dependents: dict[str, set[str]] = {}
        #: Objects with an owner of a kind that is not served.
        self._unresolved: set[str] = set()
        context.informer(_DEFINITIONS).add_handler(self._definition_changed)
        self.queue.add(_DISCOVERY)

    def _definition_changed(self, change: str, obj: PartialObjectMetadata, old: object) -> None:
        self.queue.add(_DISCOVERY)

    # The graph.

    async def _watch_all(self) -> None:
        served, failed = await discover_all(self._client)
        kinds = {(one.resource.group, one.resource.kind): one.resource for one in served if one.verbs >= _NEEDED}
        # The resources of a group that failed are assumed unchanged.
        self._kinds = kinds | {key: kind for key, kind in self._kinds.items() if key[0] in failed}
        for identity, resource in list(self._watched.items()):
            # Its definition and its objects are gone, or another version is served now.
            if self._kinds.get(identity) != resource:
                del self._watched[identity]
                self._context.forget(resource)
        for identity, resource in self._kinds.items():
            if identity not in self._watched and resource.plural not in _IGNORED:
                self._watched[identity] = resource
                self._context.passing_informer(resource).add_handler(self._handler(resource))
        unresolved, self._unresolved = self._unresolved, set()
        for uid in unresolved:
            self._enqueue(uid)
        self.queue.add_after(_DISCOVERY, _REDISCOVER)

    def _handler(self, resource: AnyResource) -> Handler[PartialObjectMetadata]:
        def changed(change: str, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
            uid = obj["metadata"]["uid"]
            owners = _owners(obj)
            before = _owners(old) if old is not None else set()
            for owner in before - owners if change != "DELETED" else before | owners:
                self._remove_dependent(owner, uid)
            if change == "DELETED":
                self._vertices.pop(uid, None)
                for dependent in self._dependents.get(uid, ()):
                    self._enqueue(dependent)
            else:
                self._vertices[uid] = Vertex(resource, obj)
                for owner in owners:
                    self._dependents.setdefault(owner, set()).add(uid)
                self._enqueue(uid)
            for owner in owners | before:
                # It can be waiting for the deletion of its dependents.
                self._enqueue(owner, only_deleting=True)

        return changed

    def _remove_dependent(self, owner: str, uid: str) -> None:
        dependents = self._dependents.get(owner)
        if dependents is not None:
            dependents.discard(uid)
            if not dependents:
                del self._dependents[owner]

    def _enqueue(self, uid: str, *, only_deleting: bool = False) -> None:
        vertex = self._vertices.get(uid)
        if vertex is None:
            return
        metadata = vertex.obj["metadata"]
        if metadata.get("deletionTimestamp") or (metadata.get("ownerReferences") and not only_deleting):
            self.queue.add((vertex.resource.plural, uid))

    # Reconciliation.

    async def reconcile(self, key: Key) -> None:
        """Delete an object whose owners are gone, or finish the deletion of an owner."""
        if key == _DISCOVERY:
            await self._watch_all()
            return
        vertex = self._vertices.get(key[1])
        if vertex is None:
            return
        finalizers = vertex.obj["metadata"].get("finalizers") or []
        if vertex.obj["metadata"].get("deletionTimestamp"):
            if _FOREGROUND in finalizers:
                await self._foreground(key, vertex)
            elif _ORPHAN in finalizers:
                await self._orphan(key, vertex)
        elif vertex.obj["metadata"].get("ownerReferences"):
            await self._collect(vertex)

    def _is_incomplete(self) -> bool:
        """Whether an informer has not read its first list yet."""
        return any(
            not self._context.passing_informer(resource).synced.is_set() for resource in self._watched.values()
        )

    async def _collect(self, vertex: Vertex) -> None:
        references = vertex.obj["metadata"]["ownerReferences"]
        solid, dangling, waiting = [], [], []
        for reference in references:
            if not await self._exists(vertex, reference):
                dangling.append(reference)
            elif self._waits_for_dependents(reference["uid"]):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if dangling or waiting:
                gone = {reference["uid"] for reference in [*dangling, *waiting]}
                left = [reference for reference in references if reference["uid"] not in gone]
                await self._patch(vertex, {"ownerReferences": left})
        elif waiting:
            # The dependents of this object are deleted before it, as it is deleted before its owner.
            blocked = any(uid in self._vertices for uid in self._dependents.get(vertex.obj["metadata"]["uid"], ()))
            await self._delete(vertex, foreground=blocked)
        else:
            await self._delete(vertex)

    def _waits_for_dependents(self, uid: str) -> bool:
        vertex = self._vertices.get(uid)
        if vertex is None or not vertex.obj["metadata"].get("deletionTimestamp"):
            return False
        return _FOREGROUND in (vertex.obj["metadata"].get("finalizers") or ())

    async def _exists(self, vertex: Vertex, reference: OwnerReference) -> bool:
        """Whether an owner exists. An owner that is not in the graph is read from the server before anything is deleted."""
        identity = reference["apiVersion"].rpartition("/")[0], reference["kind"]
        known = self._vertices.get(reference["uid"])
        if (
            known is not None
            and (known.resource.group, known.resource.kind) == identity
            and known.obj["metadata"]["name"] == reference["name"]
            and known.namespace in ("", vertex.namespace)
        ):
            return True
        resource = self._kinds.get(identity)
        if resource is None:
            # The state of the owner is not known until its kind is served.
            self._unresolved.add(vertex.obj["metadata"]["uid"])
            return True
        if resource.namespaced and not vertex.namespace:
            self._report_namespace(vertex, reference)
            return True
        try:
            owner: PartialObjectMetadata | None = await self._client.get(
                resource, reference["name"], vertex.namespace or None
            )
        except KubernetesError as error:
            if error.code != 404:
                raise
            owner = None
        if owner is not None and owner["metadata"]["uid"] == reference["uid"]:
            return True
        if known is not None:
            self._report_namespace(vertex, reference)
        return False

    def _report_namespace(self, vertex: Vertex, reference: OwnerReference) -> None:
        owner = f"[{reference['apiVersion']}/{reference['kind']}, namespace: {vertex.namespace}, name: {reference['name']}, "
        message = f"ownerRef {owner}uid: {reference['uid']}] does not exist in namespace {vertex.namespace!r}"
        described: PartialObjectMetadata = {
            "apiVersion": vertex.resource.api_version,
            "kind": vertex.resource.kind,
            "metadata": vertex.obj["metadata"],
        }
        self._events.event(described, "Warning", "OwnerRefInvalidNamespace", message)

    async def _foreground(self, key: Key, vertex: Vertex) -> None:
        """Delete the dependents. Once none of them blocks the owner, remove its finalizer."""
        if self._is_incomplete():
            self.queue.add_after(key, 0.1)
            return
        uid = vertex.obj["metadata"]["uid"]
        dependents = [self._vertices[item] for item in self._dependents.get(uid, ()) if item in self._vertices]
        blocking = [item for item in dependents if _blocks(item.obj, uid)]
        for dependent in dependents:
            if not dependent.obj["metadata"].get("deletionTimestamp"):
                self.queue.add((dependent.resource.plural, dependent.obj["metadata"]["uid"]))
        if not blocking:
            await self._remove_finalizer(vertex, _FOREGROUND)

    async def _orphan(self, key: Key, vertex: Vertex) -> None:
        """Remove the owner from its dependents, then remove its finalizer."""
        if self._is_incomplete():
            self.queue.add_after(key, 0.1)
            return
        uid = vertex.obj["metadata"]["uid"]
        for item in list(self._dependents.get(uid, ())):
            dependent = self._vertices.get(item)
            if dependent is not None:
                references = dependent.obj["metadata"].get("ownerReferences") or ()
                left = [reference for reference in references if reference["uid"] != uid]
                await self._patch(dependent, {"ownerReferences": left or None})
        await self._remove_finalizer(vertex, _ORPHAN)

    async def _remove_finalizer(self, vertex: Vertex, name: str) -> None:
        left = [item for item in vertex.obj["metadata"]["finalizers"] if item != name]
        version = vertex.obj["metadata"]["resourceVersion"]
        await self._patch(vertex, {"finalizers": left or None, "resourceVersion": version})

    async def _patch(self, vertex: Vertex, metadata: Object) -> None:
        """Patch the metadata. After a conflict or a deletion, the watch delivers the new state."""
        uid = vertex.obj["metadata"]["uid"]
        namespace, name = key_of(vertex.obj)
        with suppress_stale():
            await self._client.patch(vertex.resource, name, {"metadata": {"uid": uid, **metadata}}, namespace or None)

    async def _delete(self, vertex: Vertex, *, foreground: bool = False) -> None:
        metadata = vertex.obj["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        finalizers = metadata.get("finalizers") or ()
        policy: Literal["Background", "Foreground", "Orphan"] | None = "Background"
        if vertex.resource == PODS:
            policy = None
        elif foreground or _FOREGROUND in finalizers:
            policy = "Foreground"
        elif _ORPHAN in finalizers:
            policy = "Orphan"
        with suppress_stale():
            await self._client.delete(
                vertex.resource,
                metadata["name"],
                metadata.get("namespace"),
                uid=metadata["uid"],
                propagation_policy=policy,
            )


def _owners(obj: PartialObjectMetadata) -> set[str]:
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}


def _blocks(obj: PartialObjectMetadata, owner: str) -> bool:
    return any(
        reference["uid"] == owner and reference.get("blockOwnerDeletion")
        for reference in obj["metadata"].get("ownerReferences") or ()
    )
