"""Writes the status of pods with strategic merge patches, so that conditions of others stay as they are."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from cumulet.common.kubernetes import Client, KubernetesError
from cumulet.common.kubernetes.client import PODS, STRATEGIC_MERGE_PATCH
from cumulet.common.kubernetes.objects import Object, Pod, PodCondition, PodStatus
from cumulet.node.phase import ENDED

#: Conditions that a new status leaves out when they no longer apply.
_ENDING = ("PodResizePending", "PodResizeInProgress")
#: Fields that it leaves out likewise.
_REMOVED = ("reason", "message", "podIP", "podIPs")


class StatusWrites:
    """One write at a time for a pod. A pod that has ended keeps its phase."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._ended: set[str] = set()

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._locks.pop(uid, None)
        self._ended.discard(uid)

    async def write(self, pod: Pod, status: PodStatus) -> None:
        """Write what of a status has changed. Raises `KubernetesError`, but not for a pod that is gone or replaced."""
        metadata = pod["metadata"]
        uid = metadata["uid"]
        async with self._locks[uid]:
            if uid in self._ended and status.get("phase") not in ENDED:
                return  # computed before the end was written
            changed = status_patch(pod.get("status") or {}, status)
            if not changed:
                return
            patch: Object = {"metadata": {"uid": uid}, "status": changed}
            try:
                await self._client.patch(
                    PODS,
                    metadata["name"],
                    patch,
                    metadata["namespace"],
                    subresource="status",
                    content_type=STRATEGIC_MERGE_PATCH,
                )
            except KubernetesError as error:
                if error.code not in (404, 409):
                    raise
                return
            if status.get("phase") in ENDED:
                self._ended.add(uid)


def status_patch(old: PodStatus, new: PodStatus) -> Object:
    """Return the strategic merge patch from one status to another, empty when nothing changes.

    Conditions merge by their types; fields that one no longer has are removed.
    """
    before: Object = {**old}
    after: Object = {**new}
    patch: Object = {
        name: value for name, value in after.items() if name != "conditions" and value != before.get(name)
    }
    for name in _REMOVED:
        if name in before and name not in after:
            patch[name] = None
    for name in ("hostIPs", "podIPs"):
        if isinstance(patch.get(name), list):
            patch[name] = [{"$patch": "replace"}, *patch[name]]
    known = {item["type"]: item for item in old.get("conditions") or ()}
    conditions = [_condition(known.get(item["type"]), item) for item in new.get("conditions") or ()]
    gone = [
        kind
        for kind in _ENDING
        if kind in known and all(item["type"] != kind for item in new.get("conditions") or ())
    ]
    conditions += [{"type": kind, "$patch": "delete"} for kind in gone]
    if changed := [item for item in conditions if item is not None]:
        patch["conditions"] = changed
    return patch


def _condition(old: PodCondition | None, new: PodCondition) -> Object | None:
    """Return the patch of one condition, or `None` when it stays the same."""
    if old is None:
        return {**new}
    before: Object = {**old}
    patch: Object = {name: value for name, value in new.items() if value != before.get(name)}
    patch |= {name: None for name in ("reason", "message") if name in before and name not in new}
    return {"type": new["type"], **patch} if patch else None
