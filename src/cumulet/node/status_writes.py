"""Writes the status of pods with strategic merge patches, so that conditions of others stay as they are."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from cumulet.common.ascii import is_digits
from cumulet.common.kubernetes import Client, suppress_stale
from cumulet.common.kubernetes.objects import Object, Pod, PodCondition, PodStatus
from cumulet.node.phase import ENDED

#: Digits of a resource version that are compared.
_LONGEST_VERSION = 20
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
        #: Pods as the API server returned them after a write, until the informer has them.
        self._written: dict[str, Pod] = {}

    def newest(self, pod: Pod) -> Pod:
        """Return the newer one of a pod of the informer and what the last write returned."""
        uid = pod["metadata"]["uid"]
        written = self._written.get(uid)
        if written is None:
            return pod
        if _version(written) > _version(pod):
            return written
        del self._written[uid]
        return pod

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._locks.pop(uid, None)
        self._ended.discard(uid)
        self._written.pop(uid, None)

    async def write(self, pod: Pod, status: PodStatus) -> None:
        """Write what of a status has changed. Raises `KubernetesError`, but not for a pod that is gone or replaced."""
        uid = pod["metadata"]["uid"]
        async with self._locks[uid]:
            if uid in self._ended and status.get("phase") not in ENDED:
                return  # computed before the end was written
            changed = status_patch(self.newest(pod).get("status") or {}, status)
            if not changed:
                return
            with suppress_stale():
                self._written[uid] = await self._client.patch_pod_status(pod, changed)
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
    """Return the patch of one condition, which has all its fields, or `None` when it stays the same."""
    before: Object = {**(old or {})}
    removed: Object = {name: None for name in ("reason", "message") if name in before and name not in new}
    changed = any(value != before.get(name) for name, value in new.items())
    return {**new, **removed} if changed or removed else None


def _version(pod: Pod) -> int:
    """Return the resource version of a pod, a number that grows with each write."""
    text = pod["metadata"].get("resourceVersion", "")
    return int(text) if is_digits(text) and len(text) < _LONGEST_VERSION else 0
