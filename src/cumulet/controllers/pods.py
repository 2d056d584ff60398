"""Pods as their controllers see them: which count, which go first, and which are on their way."""

from __future__ import annotations

from typing import Any

from cumulet.common import clock
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError
from cumulet.common.kubernetes.client import PODS
from cumulet.controllers.controller import Key, controller_of

Object = dict[str, Any]


def is_active(pod: Object) -> bool:
    """Neither ended nor being deleted."""
    return (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed") and not pod["metadata"].get(
        "deletionTimestamp"
    )


def is_ready(pod: Object) -> bool:
    """Its condition Ready is true."""
    return _condition(pod, "Ready").get("status") == "True"


def available_in(pod: Object, least: int) -> float | None:
    """Seconds until a pod counts as available: 0 where it does, `None` where it is not ready."""
    if not is_ready(pod):
        return None
    since = _condition(pod, "Ready").get("lastTransitionTime")
    if not least or not since:
        return 0.0
    return max(0.0, least - (clock.now() - clock.parse(since)).total_seconds())


def _condition(pod: Object, kind: str) -> Object:
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            found: Object = condition
            return found
    return {}


def deletion_rank(pod: Object) -> tuple[Any, ...]:
    """The order in which pods go: not placed, not running, not ready, then the younger ones."""
    status = pod.get("status") or {}
    phase = {"Pending": 0, "Unknown": 1}.get(status.get("phase", ""), 2)
    created = pod["metadata"].get("creationTimestamp", "")
    cost = int((pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", "0"))
    return (bool(pod["spec"].get("nodeName")), phase, is_ready(pod), cost, [-ord(char) for char in created])


class OwnedPods:
    """Creates and deletes the pods of owners, and knows of those that the informer has not seen yet."""

    def __init__(self, client: Client, informer: Informer, events: EventRecorder) -> None:
        self._client = client
        self._informer = informer
        self._events = events
        self._created: dict[str, dict[Key, Object]] = {}
        self._deleted: set[str] = set()
        informer.add_handler(self._seen)

    def _seen(self, change: str, pod: Object, _: Object | None) -> None:
        metadata = pod["metadata"]
        if (owner := controller_of(pod)) is not None:
            self._created.get(owner["uid"], {}).pop((metadata["namespace"], metadata["name"]), None)
        if change == "DELETED" or metadata.get("deletionTimestamp"):
            self._deleted.discard(metadata["uid"])

    def of(self, owner: Object) -> list[Object]:
        """All pods of an owner, less those that it has asked to be deleted."""
        uid = owner["metadata"]["uid"]
        namespace = owner["metadata"]["namespace"]
        found = [
            pod
            for pod in self._informer
            if pod["metadata"]["namespace"] == namespace
            and (reference := controller_of(pod)) is not None
            and reference["uid"] == uid
        ]
        found += self._created.get(uid, {}).values()
        return [pod for pod in found if pod["metadata"]["uid"] not in self._deleted]

    async def create(self, owner: Object, pod: Object) -> None:
        """Create a pod. Raises `KubernetesError`, after an event that tells of it."""
        namespace = owner["metadata"]["namespace"]
        try:
            made = await self._client.create(PODS, pod, namespace)
        except KubernetesError as error:
            self._events.event(owner, "Warning", "FailedCreate", f"Error creating: {error}")
            raise
        key = (namespace, made["metadata"]["name"])
        if key not in self._informer.items:
            self._created.setdefault(owner["metadata"]["uid"], {})[key] = made
        self._events.event(owner, "Normal", "SuccessfulCreate", f"Created pod: {key[1]}")

    async def delete(self, owner: Object, pod: Object) -> None:
        """Delete a pod; one that is gone is fine."""
        metadata = pod["metadata"]
        self._deleted.add(metadata["uid"])
        try:
            await self._client.delete(PODS, metadata["name"], metadata["namespace"], uid=metadata["uid"])
        except KubernetesError as error:
            self._deleted.discard(metadata["uid"])
            if error.code not in (404, 409):
                raise
            return
        self._events.event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {metadata['name']}")
