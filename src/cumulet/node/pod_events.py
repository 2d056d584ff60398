"""Records the events of pods, in the kubelet's words: those of their groups, and what the node itself has to tell."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from cumulet.common.kubernetes import Client, EventRecorder
from cumulet.common.kubernetes.client import EVENTS
from cumulet.common.kubernetes.objects import ObjectReference, Pod
from cumulet.node.resource import ContainerGroup, GroupEvent

EventType = Literal["Normal", "Warning"]

#: The field path, reason and message of an event.
_Key = tuple[str, str, str]
#: An event that happened more often while nobody looked is recorded at most so many times.
_MOST = 10


class PodEvents:
    """What was recorded about each pod, by its uid, so that nothing is recorded twice.

    A node may write events; `reader` may read them.
    """

    def __init__(self, client: Client, node: str, reader: Client) -> None:
        self._reader = reader
        self.recorder = EventRecorder(client, "kubelet", node)
        self._recorded: defaultdict[str, dict[_Key, int]] = defaultdict(dict)

    async def adopt(self) -> None:
        """Read the events that a previous process recorded."""
        found = await self._reader.list(EVENTS, None, {"fieldSelector": "source=kubelet"})
        for event in found["items"]:
            involved = event["involvedObject"]
            recorded = self._recorded[involved.get("uid", "")]
            key = (involved.get("fieldPath", ""), event["reason"], event["message"])
            recorded[key] = recorded.get(key, 0) + (event.get("count") or 1)

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._recorded.pop(uid, None)

    def event(self, pod: Pod, type_: EventType, reason: str, message: str) -> None:
        """Record an event about a pod; a repeated one is counted."""
        self.recorder.event(pod, type_, reason, message)

    def once(self, pod: Pod, path: str, type_: EventType, reason: str, message: str) -> None:
        """Record an event about a part of a pod, which `path` names, unless that was recorded before."""
        recorded, key = self._recorded[pod["metadata"]["uid"]], (path, reason, message)
        if key not in recorded:
            recorded[key] = 1
            self.recorder.event_about(_involved(pod, path), type_, reason, message)

    def of_group(self, pod: Pod, group: ContainerGroup) -> None:
        """Record the new events of the group and of its containers as events of the pod."""
        properties = group["properties"]
        self._record(pod, "", (properties.get("instanceView") or {}).get("events") or ())
        for kind, containers in (
            ("initContainers", properties.get("initContainers") or ()),
            ("containers", properties["containers"]),
            ("ephemeralContainers", properties.get("ephemeralContainers") or ()),
        ):
            for container in containers:
                view = container["properties"].get("instanceView") or {}
                self._record(pod, f"spec.{kind}{{{container['name']}}}", view.get("events") or ())

    def _record(self, pod: Pod, path: str, events: Iterable[GroupEvent]) -> None:
        recorded = self._recorded[pod["metadata"]["uid"]]
        for event in events:
            key = (path, event["name"], event["message"])
            fresh = event["count"] - recorded.get(key, 0)
            if fresh > 0:
                recorded[key] = event["count"]
                for _ in range(min(fresh, _MOST)):
                    self.recorder.event_about(_involved(pod, path), event["type"], event["name"], event["message"])


def path_of(pod: Pod, container: str | None) -> str:
    """Return the field path of a container, of the first one by default."""
    spec = pod["spec"]
    if any(item["name"] == container for item in spec.get("initContainers") or ()):
        return f"spec.initContainers{{{container}}}"
    return f"spec.containers{{{container or spec['containers'][0]['name']}}}"


def _involved(pod: Pod, path: str) -> ObjectReference:
    metadata = pod["metadata"]
    involved: ObjectReference = {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "uid": metadata["uid"],
        "resourceVersion": metadata["resourceVersion"],
    }
    if path:
        involved["fieldPath"] = path
    return involved
