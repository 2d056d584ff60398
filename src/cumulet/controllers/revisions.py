"""The history of stateful and daemon sets as ControllerRevisions (`pkg/controller/history`).

A revision holds its template as the patch that `kubectl rollout undo` sends.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from cumulet.common.kubernetes import KubernetesError
from cumulet.common.kubernetes.client import CONTROLLERREVISIONS, Resource
from cumulet.common.kubernetes.objects import (
    ControllerRevision,
    DaemonSet,
    Object,
    ObjectMeta,
    PodTemplateSpec,
    StatefulSet,
)
from cumulet.controllers.controller import Context
from cumulet.controllers.hashing import name_of
from cumulet.controllers.owned import Owned, selector_of

HASH_LABEL = "controller-revision-hash"
#: The kinds whose revisions have that label under another name.
_OTHER_LABELS = {"StatefulSet": "controller.kubernetes.io/hash"}

S = TypeVar("S", StatefulSet, DaemonSet)


class Revisions(Generic[S]):
    """The revisions of the owners of one resource."""

    def __init__(self, context: Context, owner: Resource[S]) -> None:
        self.owned: Owned[S, ControllerRevision] = Owned(context, CONTROLLERREVISIONS, owner)
        self._label = _OTHER_LABELS.get(owner.kind, HASH_LABEL)
        self._client = context.client

    async def of(self, owner: S) -> list[ControllerRevision]:
        """All revisions of an owner, the oldest first."""
        return sorted(await self.owned.claim(owner, selector_of(owner)), key=_order)

    async def current(self, owner: S, revisions: list[ControllerRevision]) -> tuple[ControllerRevision, int]:
        """The revision of the template of the owner, created or renumbered if necessary, and the collisions of names."""
        collisions = (owner.get("status") or {}).get("collisionCount") or 0
        data = _data(owner)
        newest = revisions[-1]["revision"] if revisions else 0
        for revision in reversed(revisions):
            if revision["data"] == data:
                if revision["revision"] == newest:
                    return revision, collisions
                return await self.owned.change(owner, revision, {"revision": newest + 1}), collisions
        while True:
            name = f"{owner['metadata']['name']}-{name_of(data, collisions)}"
            labels = {**((owner["spec"]["template"].get("metadata") or {}).get("labels") or {})}
            labels[self._label] = name.rpartition("-")[2]
            metadata: ObjectMeta = {"name": name, "labels": labels}
            if annotations := owner["metadata"].get("annotations"):
                metadata["annotations"] = annotations
            desired: ControllerRevision = {"metadata": metadata, "data": data, "revision": newest + 1}
            try:
                return await self.owned.create(owner, desired), collisions
            except KubernetesError as error:
                if error.reason != "AlreadyExists":
                    raise
                existing = await self._client.get(CONTROLLERREVISIONS, name, owner["metadata"]["namespace"])
                if existing["data"] == data and any(
                    item["uid"] == owner["metadata"]["uid"]
                    for item in existing["metadata"].get("ownerReferences") or ()
                ):
                    return existing, collisions
                collisions += 1

    async def delete_old(self, owner: S, revisions: list[ControllerRevision], in_use: Iterable[str]) -> None:
        """Delete the oldest unused revisions beyond `revisionHistoryLimit`."""
        used = set(in_use)
        old = [item for item in revisions if item["metadata"]["name"] not in used]
        surplus = len(old) - owner["spec"].get("revisionHistoryLimit", 10)
        for revision in old[: max(surplus, 0)]:
            await self.owned.delete(owner, revision)


def template_of(revision: ControllerRevision) -> PodTemplateSpec:
    """The pod template of a revision."""
    patch: Object = revision["data"]["spec"]["template"]
    template: PodTemplateSpec = {"spec": patch["spec"]}
    if "metadata" in patch:
        template["metadata"] = patch["metadata"]
    return template


def _data(owner: StatefulSet | DaemonSet) -> Object:
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def _order(revision: ControllerRevision) -> tuple[int, str, str]:
    metadata = revision["metadata"]
    return revision["revision"], metadata.get("creationTimestamp", ""), metadata["name"]
