"""Garbage: what hangs on an owner that is gone goes too, in the background, first, or not at all.

Follows `pkg/controller/garbagecollector`. Every resource that can be listed, watched and deleted is watched, custom ones too;
of those that no other controller looks at, only the metadata.
"""

from __future__ import annotations

from typing import NamedTuple

from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import EVENTS, PODS
from cumulet.common.kubernetes.informer import Handler
from cumulet.controllers.controller import Context, Key, Object, key_of
from cumulet.controllers.discovery import look

_DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False)
_NEEDED = {"list", "watch", "delete"}
#: Resources whose objects own nothing and are owned by nobody.
_IGNORED = {EVENTS.plural}
_FOREGROUND = "foregroundDeletion"
_ORPHAN = "orphan"
#: The key that asks for a look at which resources there are.
_RESOURCES: Key = ("", "")
#: Seconds between two looks at which resources there are, beside those after a change of a definition.
_LOOK_AGAIN = 300.0
_GROUP_KIND = tuple[str, str]


class Node(NamedTuple):
    """An object in the graph of owners."""

    resource: Resource
    obj: Object

    @property
    def namespace(self) -> str:
        """Its namespace, empty for an object of the cluster."""
        return self.obj["metadata"].get("namespace") or ""


class GarbageCollector:
    """Keys are (resource's plural, uid)."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._context = context
        self._client = context.client
        self._events = context.events("garbage-collector-controller")
        self._watched: dict[_GROUP_KIND, Resource] = {}
        self._kinds: dict[_GROUP_KIND, Resource] = {}
        self._nodes: dict[str, Node] = {}
        self._dependents: dict[str, set[str]] = {}
        #: Objects with an owner of a kind that is not served, or not yet.
        self._unjudged: set[str] = set()
        context.informer(_DEFINITIONS).add_handler(self._definition_changed)
        self.queue.add(_RESOURCES)

    def _definition_changed(self, change: str, obj: Object, old: Object | None) -> None:
        self.queue.add(_RESOURCES)

    # The graph.

    async def _watch_all(self) -> None:
        found, silent = await look(self._client)
        kinds = {(one.resource.group, one.resource.kind): one.resource for one in found if one.verbs >= _NEEDED}
        # What is known of a group that does not answer stays true until it says otherwise.
        self._kinds = kinds | {key: kind for key, kind in self._kinds.items() if key[0] in silent}
        for identity, resource in list(self._watched.items()):
            # Its definition is gone, and all of its objects with it, or another version is served now.
            if self._kinds.get(identity) != resource:
                del self._watched[identity]
                self._context.forget(resource)
        for identity, resource in self._kinds.items():
            if identity not in self._watched and resource.plural not in _IGNORED:
                self._watched[identity] = resource
                self._context.passing_informer(resource).add_handler(self._handler(resource))
        unjudged, self._unjudged = self._unjudged, set()
        for uid in unjudged:
            self._look_at(uid)
        self.queue.add_after(_RESOURCES, _LOOK_AGAIN)

    def _handler(self, resource: Resource) -> Handler:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            uid = obj["metadata"]["uid"]
            owners = {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or ()}
            before = {owner["uid"] for owner in (old or {}).get("metadata", {}).get("ownerReferences") or ()}
            for owner in before - owners if change != "DELETED" else before | owners:
                self._forget_dependent(owner, uid)
            if change == "DELETED":
                self._nodes.pop(uid, None)
                for dependent in self._dependents.get(uid, ()):
                    self._look_at(dependent)
            else:
                self._nodes[uid] = Node(resource, obj)
                for owner in owners:
                    self._dependents.setdefault(owner, set()).add(uid)
                self._look_at(uid)
            for owner in owners | before:
                # It may wait for its dependents to be gone.
                self._look_at(owner, only_deleting=True)

        return changed

    def _forget_dependent(self, owner: str, uid: str) -> None:
        found = self._dependents.get(owner)
        if found is not None:
            found.discard(uid)
            if not found:
                del self._dependents[owner]

    def _look_at(self, uid: str, *, only_deleting: bool = False) -> None:
        node = self._nodes.get(uid)
        if node is None:
            return
        metadata = node.obj["metadata"]
        if metadata.get("deletionTimestamp") or (metadata.get("ownerReferences") and not only_deleting):
            self.queue.add((node.resource.plural, uid))

    # What is done.

    async def reconcile(self, key: Key) -> None:
        """Delete an object whose owners are gone; let one go that waited for its dependents."""
        if key == _RESOURCES:
            await self._watch_all()
            return
        node = self._nodes.get(key[1])
        if node is None:
            return
        finalizers = node.obj["metadata"].get("finalizers") or []
        if node.obj["metadata"].get("deletionTimestamp"):
            if _FOREGROUND in finalizers:
                await self._foreground(key, node)
            elif _ORPHAN in finalizers:
                await self._orphan(key, node)
        elif node.obj["metadata"].get("ownerReferences"):
            await self._collect(node)

    def _unseen(self) -> bool:
        return any(
            not self._context.passing_informer(resource).synced.is_set() for resource in self._watched.values()
        )

    async def _collect(self, node: Node) -> None:
        references = node.obj["metadata"]["ownerReferences"]
        solid, dangling, waiting = [], [], []
        for reference in references:
            if not await self._exists(node, reference):
                dangling.append(reference)
            elif self._waits_for_dependents(reference["uid"]):
                waiting.append(reference)
            else:
                solid.append(reference)
        if solid:
            if dangling or waiting:
                gone = {reference["uid"] for reference in [*dangling, *waiting]}
                left = [reference for reference in references if reference["uid"] not in gone]
                await self._patch(node, {"ownerReferences": left})
        elif waiting:
            # What hangs on this one in turn goes before it, as it goes before its owner.
            blocked = any(uid in self._nodes for uid in self._dependents.get(node.obj["metadata"]["uid"], ()))
            await self._delete(node, foreground=blocked)
        else:
            await self._delete(node)

    def _waits_for_dependents(self, uid: str) -> bool:
        node = self._nodes.get(uid)
        if node is None or not node.obj["metadata"].get("deletionTimestamp"):
            return False
        return _FOREGROUND in (node.obj["metadata"].get("finalizers") or ())

    async def _exists(self, node: Node, reference: Object) -> bool:
        """Whether an owner is there. One that is not known is asked for, so that nothing is deleted for want of news."""
        identity = reference["apiVersion"].rpartition("/")[0], reference["kind"]
        known = self._nodes.get(reference["uid"])
        if (
            known is not None
            and (known.resource.group, known.resource.kind) == identity
            and known.obj["metadata"]["name"] == reference["name"]
            and known.namespace in ("", node.namespace)
        ):
            return True
        resource = self._kinds.get(identity)
        if resource is None:
            # What became of the owner cannot be known, until the kind is served.
            self._unjudged.add(node.obj["metadata"]["uid"])
            return True
        if resource.namespaced and not node.namespace:
            self._tell_of_namespace(node, reference)
            return True
        try:
            owner: Object | None = await self._client.get(resource, reference["name"], node.namespace or None)
        except KubernetesError as error:
            if error.code != 404:
                raise
            owner = None
        if owner is not None and owner["metadata"]["uid"] == reference["uid"]:
            return True
        if known is not None:
            self._tell_of_namespace(node, reference)
        return False

    def _tell_of_namespace(self, node: Node, reference: Object) -> None:
        what = f"[{reference['apiVersion']}/{reference['kind']}, namespace: {node.namespace}, name: {reference['name']}, "
        message = f"ownerRef {what}uid: {reference['uid']}] does not exist in namespace {node.namespace!r}"
        described = {**node.obj, "apiVersion": node.resource.api_version, "kind": node.resource.kind}
        self._events.event(described, "Warning", "OwnerRefInvalidNamespace", message)

    async def _foreground(self, key: Key, node: Node) -> None:
        """Delete the dependents; once none is left that blocks, let the owner go."""
        if self._unseen():
            self.queue.add_after(key, 0.1)
            return
        uid = node.obj["metadata"]["uid"]
        dependents = [self._nodes[item] for item in self._dependents.get(uid, ()) if item in self._nodes]
        blocking = [item for item in dependents if _blocks(item.obj, uid)]
        for dependent in dependents:
            if not dependent.obj["metadata"].get("deletionTimestamp"):
                self.queue.add((dependent.resource.plural, dependent.obj["metadata"]["uid"]))
        if not blocking:
            await self._remove_finalizer(node, _FOREGROUND)

    async def _orphan(self, key: Key, node: Node) -> None:
        """Take the owner out of its dependents, then let it go."""
        if self._unseen():
            self.queue.add_after(key, 0.1)
            return
        uid = node.obj["metadata"]["uid"]
        for item in list(self._dependents.get(uid, ())):
            dependent = self._nodes.get(item)
            if dependent is not None:
                references = dependent.obj["metadata"].get("ownerReferences") or ()
                left = [reference for reference in references if reference["uid"] != uid]
                await self._patch(dependent, {"ownerReferences": left or None})
        await self._remove_finalizer(node, _ORPHAN)

    async def _remove_finalizer(self, node: Node, name: str) -> None:
        left = [item for item in node.obj["metadata"]["finalizers"] if item != name]
        version = node.obj["metadata"]["resourceVersion"]
        await self._patch(node, {"finalizers": left or None, "resourceVersion": version})

    async def _patch(self, node: Node, metadata: Object) -> None:
        """A conflict or an end says that there is news, which comes by the watch."""
        uid = node.obj["metadata"]["uid"]
        namespace, name = key_of(node.obj)
        try:
            await self._client.patch(node.resource, name, {"metadata": {"uid": uid, **metadata}}, namespace or None)
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise

    async def _delete(self, node: Node, *, foreground: bool = False) -> None:
        metadata = node.obj["metadata"]
        if metadata.get("deletionTimestamp"):
            return
        finalizers = metadata.get("finalizers") or ()
        if foreground or _FOREGROUND in finalizers:
            policy = "Foreground"
        else:
            policy = "Orphan" if _ORPHAN in finalizers else "Background"
        try:
            await self._client.delete(
                node.resource,
                metadata["name"],
                metadata.get("namespace"),
                uid=metadata["uid"],
                propagation_policy=None if node.resource == PODS else policy,  # type: ignore[arg-type]
            )
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise


def _blocks(obj: Object, owner: str) -> bool:
    return any(
        reference["uid"] == owner and reference.get("blockOwnerDeletion")
        for reference in obj["metadata"].get("ownerReferences") or ()
    )
