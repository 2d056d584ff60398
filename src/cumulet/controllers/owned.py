"""The objects that owners control: who has which, and what was just written and is not yet seen by the watch.

A controller that looks at its informer alone looks at the past, and would create what it has created a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cumulet.common.kubernetes import KubernetesError, Resource, WorkQueue
from cumulet.common.kubernetes.client import MERGE_PATCH
from cumulet.common.kubernetes.informer import Handler
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, Object, controller_of, key_of, owner_reference

#: The label selector of an owner, or `None` where it selects nothing.
Selector = Callable[[Object], Mapping[str, Any] | None]


def selector_of(owner: Object) -> Mapping[str, Any] | None:
    """`spec.selector`, a `metav1.LabelSelector`."""
    found: Mapping[str, Any] | None = owner["spec"].get("selector")
    return found


class Owned:
    """The objects of one resource that owners of another control.

    With a `finalizer`, an object gets it with its owner and loses it with it (`PodControllerRefManager`).
    """

    def __init__(self, context: Context, resource: Resource, owner: Resource, *, finalizer: str = "") -> None:
        self.informer = context.informer(resource)
        self._client = context.client
        self._resource = resource
        self._owner = owner
        self._finalizer = finalizer
        self._owners = context.informer(owner)
        self._written: dict[str, dict[Key, Object]] = {}
        self._deleted: set[str] = set()
        # While a request is on its way the watch may tell of the end of what its answer will tell the beginning of.
        self._in_flight = 0
        self._gone: set[str] = set()
        self.informer.add_handler(self._seen)

    def notify(self, queue: WorkQueue[Key], selector: Selector = selector_of) -> None:
        """Put owners in a queue when what they control changes, or what they could take."""
        self.informer.add_handler(self._handler(queue, selector))

    def _handler(self, queue: WorkQueue[Key], selector: Selector) -> Handler:
        def changed(change: str, obj: Object, old: Object | None) -> None:
            namespace = obj["metadata"].get("namespace", "")
            controller = controller_of(obj)
            before = controller_of(old) if old is not None else None
            for reference in (controller, before):
                if reference is not None and self._is_owner(reference):
                    queue.add((namespace, reference["name"]))
            if controller is None and change != "DELETED":
                labels = obj["metadata"].get("labels") or {}
                for owner in self._owners.indexed("namespace", namespace):
                    if selects(selector(owner), labels):
                        queue.add(key_of(owner))

        return changed

    def _is_owner(self, reference: Object) -> bool:
        group = reference["apiVersion"].rpartition("/")[0]
        return (reference["kind"], group) == (self._owner.kind, self._owner.group)

    def of(self, owner: Object) -> list[Object]:
        """What an owner controls, with what is on its way."""
        uid = owner["metadata"]["uid"]
        found = {key_of(obj): obj for obj in self.informer.indexed("controller", uid)}
        found.update(self._written.get(uid, {}))
        return [obj for obj in found.values() if obj["metadata"]["uid"] not in self._deleted]

    async def claim(
        self, owner: Object, selector: Mapping[str, Any] | None, wanted: Callable[[Object], bool] = lambda obj: True
    ) -> list[Object]:
        """The same, after taking what is selected and nobody's, and letting go what is not selected any more.

        `wanted` is asked of what could be taken.
        """
        if owner["metadata"].get("deletionTimestamp"):
            return self.of(owner)
        for obj in self.of(owner):
            if not selects(selector, obj["metadata"].get("labels") or {}) and not obj["metadata"].get(
                "deletionTimestamp"
            ):
                await self._release(owner, obj)
        for obj in self.informer.indexed("orphans", owner["metadata"].get("namespace", "")):
            if (
                selects(selector, obj["metadata"].get("labels") or {})
                and not obj["metadata"].get("deletionTimestamp")
                and wanted(obj)
            ):
                await self._adopt(owner, obj)
        uid = owner["metadata"]["uid"]
        return [obj for obj in self.of(owner) if (controller_of(obj) or {}).get("uid") == uid]

    async def _adopt(self, owner: Object, obj: Object) -> None:
        references = [*(obj["metadata"].get("ownerReferences") or ()), owner_reference(owner, self._owner)]
        await self._refer(owner, obj, references, adopted=True)

    async def _release(self, owner: Object, obj: Object) -> None:
        uid = owner["metadata"]["uid"]
        references = [item for item in obj["metadata"].get("ownerReferences") or () if item["uid"] != uid]
        await self._refer(owner, obj, references, adopted=False)

    async def _refer(self, owner: Object, obj: Object, references: list[Object], *, adopted: bool) -> None:
        metadata = {"uid": obj["metadata"]["uid"], "ownerReferences": references or None}
        if self._finalizer:
            kept = [item for item in obj["metadata"].get("finalizers") or () if item != self._finalizer]
            metadata["finalizers"] = [*kept, self._finalizer] if adopted else kept or None
            # A merge patch replaces the list, so it must be the list of this version.
            metadata["resourceVersion"] = obj["metadata"]["resourceVersion"]
        try:
            await self.change(owner, obj, {"metadata": metadata})
        except KubernetesError as error:
            if error.code not in (404, 409, 422):  # it went, or another was quicker
                raise

    async def create(self, owner: Object, obj: Object) -> Object:
        """Create an object of an owner's; `metadata.ownerReferences` is added. Raises `KubernetesError`."""
        metadata = {
            **obj.get("metadata", {}),
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [owner_reference(owner, self._owner)],
        }
        return await self._write(owner, self._client.create(self._resource, {**obj, "metadata": metadata}))

    async def change(
        self,
        owner: Object,
        obj: Object,
        patch: Object,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> Object:
        """Patch an object. Raises `KubernetesError`."""
        metadata = obj["metadata"]
        request = self._client.patch(
            self._resource,
            metadata["name"],
            patch,
            metadata.get("namespace"),
            content_type=content_type,
            subresource=subresource,
        )
        return await self._write(owner, request)

    async def delete(self, owner: Object, obj: Object) -> bool:
        """Delete that very object, in the background; whether it was there. Raises `KubernetesError`."""
        metadata = obj["metadata"]
        self._in_flight += 1
        try:
            answer = await self._client.delete(
                self._resource,
                metadata["name"],
                metadata.get("namespace"),
                uid=metadata["uid"],
                propagation_policy="Background",
            )
            if answer.get("kind") == self._resource.kind and answer["metadata"].get("deletionTimestamp"):
                self._note(owner, answer)
            elif metadata["uid"] not in self._gone and key_of(obj) in self.informer.items:
                self._deleted.add(metadata["uid"])
        except KubernetesError as error:
            if error.code not in (404, 409):
                raise
            return False
        finally:
            self._landed()
        return True

    async def _write(self, owner: Object, request: Any) -> Object:
        self._in_flight += 1
        try:
            written: Object = await request
            self._note(owner, written)
        finally:
            self._landed()
        return written

    def _landed(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._gone.clear()

    def _note(self, owner: Object, written: Object) -> None:
        known = self.informer.items.get(key_of(written))
        if written["metadata"]["uid"] in self._gone or (known is not None and _version(known) >= _version(written)):
            return
        self._written.setdefault(owner["metadata"]["uid"], {})[key_of(written)] = written

    def _seen(self, change: str, obj: Object, old: Object | None) -> None:
        uid, key = obj["metadata"]["uid"], key_of(obj)
        if change == "DELETED":
            self._deleted.discard(uid)
            if self._in_flight:
                self._gone.add(uid)
        for state in (obj, old):
            owner = controller_of(state) if state is not None else None
            written = self._written.get(owner["uid"], {}) if owner is not None else {}
            if key in written and (change == "DELETED" or _version(written[key]) <= _version(obj)):
                del written[key]
                if not written and owner is not None:
                    del self._written[owner["uid"]]


def _version(obj: Object) -> int:
    """Resource versions of one resource can be compared (Kubernetes API concepts, since 1.35)."""
    return int(obj["metadata"]["resourceVersion"])
