"""The history of stateful and daemon sets, as ControllerRevisions (`pkg/controller/history`).

A revision holds its template as the patch that `kubectl rollout undo` sends.
"""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.kubernetes import KubernetesError, Resource
from cumulet.common.kubernetes.client import CONTROLLERREVISIONS
from cumulet.controllers.controller import Context, Object
from cumulet.controllers.hashing import name_of
from cumulet.controllers.owned import Owned, selector_of

HASH_LABEL = "controller-revision-hash"
#: What that label is called on the revisions themselves, where it is called otherwise.
_OTHERWISE = {"StatefulSet": "controller.kubernetes.io/hash"}


class Revisions:
    """The revisions of owners of one resource."""

    def __init__(self, context: Context, owner: Resource) -> None:
        self.owned = Owned(context, CONTROLLERREVISIONS, owner)
        self._label = _OTHERWISE.get(owner.kind, HASH_LABEL)
        self._client = context.client

    async def of(self, owner: Object) -> list[Object]:
        """All of an owner's, the oldest first."""
        return sorted(await self.owned.claim(owner, selector_of(owner)), key=_order)

    async def current(self, owner: Object, revisions: list[Object]) -> tuple[Object, int]:
        """The revision of the owner's template, made or renewed where needed; and how many names collided so far."""
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
            metadata: Object = {"name": name, "labels": labels}
            if annotations := owner["metadata"].get("annotations"):
                metadata["annotations"] = annotations
            wanted = {"metadata": metadata, "data": data, "revision": newest + 1}
            try:
                return await self.owned.create(owner, wanted), collisions
            except KubernetesError as error:
                if error.reason != "AlreadyExists":
                    raise
                found = await self._client.get(CONTROLLERREVISIONS, name, owner["metadata"]["namespace"])
                if found["data"] == data and any(
                    item["uid"] == owner["metadata"]["uid"] for item in found["metadata"].get("ownerReferences") or ()
                ):
                    return found, collisions
                collisions += 1

    async def forget_old(self, owner: Object, revisions: list[Object], in_use: Iterable[str]) -> None:
        """Delete the oldest that nothing uses, beyond `revisionHistoryLimit`."""
        used = set(in_use)
        old = [item for item in revisions if item["metadata"]["name"] not in used]
        surplus = len(old) - owner["spec"].get("revisionHistoryLimit", 10)
        for revision in old[: max(surplus, 0)]:
            await self.owned.delete(owner, revision)


def template_of(revision: Object) -> Object:
    """The pod template that a revision holds."""
    return {name: value for name, value in revision["data"]["spec"]["template"].items() if name != "$patch"}


def _data(owner: Object) -> Object:
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def _order(revision: Object) -> tuple[int, str, str]:
    metadata = revision["metadata"]
    return revision["revision"], metadata.get("creationTimestamp", ""), metadata["name"]
