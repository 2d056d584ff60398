"""The objects that owners control, including writes that the watch has not delivered yet.

A controller that reads only its informer sees an outdated state, and would create the same object twice.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypedDict, TypeVar

from cumulet.common.kubernetes import KubernetesError, WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import MERGE_PATCH, Resource, T
from cumulet.common.kubernetes.informer import Handler
from cumulet.common.kubernetes.objects import LabelSelector, Object, ObjectMeta, OwnerReference, PartialObjectMetadata
from cumulet.common.kubernetes.selection import selects
from cumulet.controllers.controller import Context, Key, controller_of, key_of, owner_reference

if TYPE_CHECKING:
    from typing_extensions import ReadOnly

    class _Spec(TypedDict, total=False):
        selector: LabelSelector

    class Selecting(TypedDict, total=False):
        """An object of any kind whose `spec.selector` is a label selector."""

        spec: ReadOnly[_Spec]


O = TypeVar("O", bound=PartialObjectMetadata)  # noqa: E741

#: Returns the label selector of an owner, or `None` if it selects nothing.
Selector = Callable[[O], LabelSelector | None]


def selector_of(owner: Selecting) -> LabelSelector | None:
    """`spec.selector`, a `metav1.LabelSelector`."""
    return owner["spec"].get("selector")


def _everything(obj: PartialObjectMetadata) -> bool:
    return True


class Owned(Generic[O, T]):
    """The objects of one resource that owners of another resource control.

    With a `finalizer`, an object gets and loses the finalizer together with its owner (`PodControllerRefManager`).
    """

    def __init__(self, context: Context, resource: Resource[T], owner: Resource[O], *, finalizer: str = "") -> None:
        self.informer = context.informer(resource)
        self._client = context.client
        self._resource = resource
        self._owner = owner
        self._finalizer = finalizer
        self._owners = context.informer(owner)
        self._written: dict[str, dict[Key, T]] = {}
        self._deleted: set[str] = set()
        # During a request, the watch can report the end of an object before the response reports its creation.
        self._in_flight = 0
        self._gone: set[str] = set()
        self.informer.add_handler(self._observe)

    def notify(self, queue: WorkQueue[Key], selector: Selector[O]) -> None:
        """Queue owners when an object changes that they control or could adopt."""
        self.informer.add_handler(self._handler(queue, selector))

    def _handler(self, queue: WorkQueue[Key], selector: Selector[O]) -> Handler[T]:
        def changed(change: str, obj: T, old: T | None) -> None:
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

    def _is_owner(self, reference: OwnerReference) -> bool:
        group = reference["apiVersion"].rpartition("/")[0]
        return (reference["kind"], group) == (self._owner.kind, self._owner.group)

    def of(self, owner: O) -> list[T]:
        """The objects that an owner controls, including recent writes."""
        uid = owner["metadata"]["uid"]
        controlled = {key_of(obj): obj for obj in self.informer.indexed("controller", uid)}
        controlled.update(self._written.get(uid, {}))
        return [obj for obj in controlled.values() if obj["metadata"]["uid"] not in self._deleted]

    async def claim(
        self, owner: O, selector: LabelSelector | None, adoptable: Callable[[T], bool] = _everything
    ) -> list[T]:
        """The same, after adopting selected orphans and releasing objects that the selector no longer matches.

        Only orphans for which `adoptable` is true are adopted. Raises `KubernetesError`.
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
                and adoptable(obj)
            ):
                await self._adopt(owner, obj)
        uid = owner["metadata"]["uid"]
        return [obj for obj in self.of(owner) if _uid(controller_of(obj)) == uid]

    async def _adopt(self, owner: O, obj: T) -> None:
        references = [*(obj["metadata"].get("ownerReferences") or ()), owner_reference(owner, self._owner)]
        await self._refer(owner, obj, references, adopted=True)

    async def _release(self, owner: O, obj: T) -> None:
        uid = owner["metadata"]["uid"]
        references = [item for item in obj["metadata"].get("ownerReferences") or () if item["uid"] != uid]
        await self._refer(owner, obj, references, adopted=False)

    async def _refer(self, owner: O, obj: T, references: list[OwnerReference], *, adopted: bool) -> None:
        metadata: Object = {"uid": obj["metadata"]["uid"], "ownerReferences": references or None}
        if self._finalizer:
            kept = [item for item in obj["metadata"].get("finalizers") or () if item != self._finalizer]
            metadata["finalizers"] = [*kept, self._finalizer] if adopted else kept or None
            # A merge patch replaces the list, so it must apply to the version that has this list.
            metadata["resourceVersion"] = obj["metadata"]["resourceVersion"]
        try:
            await self.change(owner, obj, {"metadata": metadata})
        except KubernetesError as error:
            if error.code not in (404, 409, 422):  # deleted or changed by another client
                raise

    async def create(self, owner: O, obj: T) -> T:
        """Create an object of an owner, with `metadata.ownerReferences` added. Raises `KubernetesError`."""
        metadata: ObjectMeta = {
            **obj["metadata"],
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [owner_reference(owner, self._owner)],
        }
        obj = copy.copy(obj)
        _set_metadata(obj, metadata)
        return await self._write(owner, self._client.create(self._resource, obj))

    async def change(
        self,
        owner: O,
        obj: T,
        patch: Object,
        *,
        content_type: str = MERGE_PATCH,
        subresource: str | None = None,
    ) -> T:
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

    async def delete(self, owner: O, obj: T) -> bool:
        """Delete an object with this UID, in the background. Returns whether it existed. Raises `KubernetesError`."""
        metadata = obj["metadata"]
        self._in_flight += 1
        try:
            with suppress_stale():
                terminating = await self._client.delete(
                    self._resource,
                    metadata["name"],
                    metadata.get("namespace"),
                    uid=metadata["uid"],
                    propagation_policy="Background",
                )
                if terminating is not None:
                    self._record(owner, terminating)
                elif metadata["uid"] not in self._gone and key_of(obj) in self.informer.items:
                    self._deleted.add(metadata["uid"])
                return True
            return False
        finally:
            self._land()

    async def _write(self, owner: O, request: Awaitable[T]) -> T:
        self._in_flight += 1
        try:
            written = await request
            self._record(owner, written)
        finally:
            self._land()
        return written

    def _land(self) -> None:
        self._in_flight -= 1
        if not self._in_flight:
            self._gone.clear()

    def _record(self, owner: O, written: T) -> None:
        """Keep the result of a write until the watch has delivered it."""
        known = self.informer.items.get(key_of(written))
        if written["metadata"]["uid"] in self._gone or (known is not None and _version(known) >= _version(written)):
            return
        self._written.setdefault(owner["metadata"]["uid"], {})[key_of(written)] = written

    def _observe(self, change: str, obj: T, old: T | None) -> None:
        """Drop recorded writes that the watch has delivered."""
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


def _uid(reference: OwnerReference | None) -> str | None:
    return reference["uid"] if reference is not None else None


def _set_metadata(obj: PartialObjectMetadata, metadata: ObjectMeta) -> None:
    obj["metadata"] = metadata


def _version(obj: PartialObjectMetadata) -> int:
    """The resource version. Versions of one resource are comparable (Kubernetes API concepts, since 1.35)."""
    return int(obj["metadata"]["resourceVersion"])
