"""Keeps the groups of running pods current: files of volumes and tokens at once, the environment at the next start.

A kubelet reads the environment anew whenever it starts a container, so that a pod recovers when a value is corrected.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Container, Pod
from cumulet.node.aci import ContainerGroups
from cumulet.node.errors import MissingError, UnsupportedError
from cumulet.node.references import References
from cumulet.node.resource import (
    ContainerChanges,
    GroupChanges,
    GroupContainer,
    GroupProperties,
    GroupVolume,
    ProcessChanges,
)
from cumulet.node.tokens import Tokens
from cumulet.node.translate import Sources, process
from cumulet.node.volumes import has_files

log = logging.getLogger(__name__)

#: Seconds until the next attempt when the provider could not be reached, or the group was being changed.
_AGAIN = 5.0
#: Records the kubelet's event about a volume without content.
Report = Callable[[str], None]
#: "volume", "container" or "initContainer", and a name.
_Part = tuple[str, str]


class Renewal:
    """What was sent of each pod, by its uid."""

    def __init__(self, groups: ContainerGroups, references: References, sources: Sources, tokens: Tokens) -> None:
        self._aci = groups
        self._references = references
        self._sources = sources
        self._tokens = tokens
        self._versions: dict[str, object] = {}
        self._sent: dict[str, dict[_Part, bytes]] = {}

    def versions(self, pod: Pod) -> object:
        """Return what files and environment follow from, except tokens: it differs if they can differ."""
        metadata, spec = pod["metadata"], pod["spec"]
        resources = [item.get("resources") for item in [*(spec.get("initContainers") or ()), *spec["containers"]]]
        return self._references.versions(pod), metadata.get("labels"), metadata.get("annotations"), resources

    def created(self, pod: Pod, versions: object, group: GroupProperties) -> None:
        """Record the group of a pod, and the versions that were current when it was made."""
        uid = pod["metadata"]["uid"]
        self._versions[uid] = versions
        sent = self._sent[uid] = {("volume", item["name"]): _digest(item) for item in group.get("volumes") or ()}
        for kind, containers in (
            ("container", group["containers"]),
            ("initContainer", group.get("initContainers") or []),
        ):
            sent |= {(kind, item["name"]): _digest(_changes_of(item)) for item in containers}

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._versions.pop(uid, None)
        self._sent.pop(uid, None)
        self._sources.volumes.forget(uid)
        self._tokens.forget(uid)

    async def renew(self, pod: Pod, group: str, report: Report) -> float | None:
        """Send what differs; return the seconds until the next call, or `None`.

        A volume without content keeps what it had, and so does a container whose environment cannot be resolved.
        """
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        versions = self.versions(pod)
        due = self._tokens.due_in(pod)
        if self._versions.get(uid) == versions and due != 0:
            return due
        sent = self._sent.setdefault(uid, {})
        fresh: dict[_Part, bytes] = {}
        again: list[float] = []
        changes: GroupChanges = {}
        if volumes := await self._volumes(pod, sent, fresh, report, again):
            changes["volumes"] = volumes
        if containers := self._containers(pod, "container", spec["containers"], sent, fresh):
            changes["containers"] = containers
        if inits := self._containers(pod, "initContainer", spec.get("initContainers") or (), sent, fresh):
            changes["initContainers"] = inits
        if changes:
            try:
                await self._aci.patch(group, {"properties": changes})
            except ArmError as error:
                if error.status >= 500 or error.status in (404, 408, 409, 429):
                    log.warning("pod %s is not updated: %s: %s", pod["metadata"]["name"], error.code, error)
                    self._versions.pop(uid, None)
                    return _AGAIN
                names = ", ".join(name for _, name in fresh)
                report(f"{names} cannot be updated: {error.code}: {error}")
        sent |= fresh
        if again:
            self._versions.pop(uid, None)
            return min(again)
        self._versions[uid] = versions
        return self._tokens.due_in(pod)

    async def _volumes(
        self, pod: Pod, sent: dict[_Part, bytes], fresh: dict[_Part, bytes], report: Report, again: list[float]
    ) -> list[GroupVolume]:
        """Return the volumes that differ from what was `sent`, and add their digests to `fresh`."""
        changed = []
        for volume in pod["spec"].get("volumes") or ():
            if not has_files(volume):
                continue
            try:
                found = await self._sources.volumes.of(pod, volume)
            except (MissingError, UnsupportedError) as error:
                report(str(error))
                if isinstance(error, MissingError) and error.again is not None:
                    again.append(error.again)
                continue
            part, digest = ("volume", volume["name"]), _digest(found)
            if sent.get(part) != digest:
                fresh[part] = digest
                changed.append(found)
        return changed

    def _containers(
        self,
        pod: Pod,
        kind: str,
        containers: Sequence[Container],
        sent: dict[_Part, bytes],
        fresh: dict[_Part, bytes],
    ) -> list[ContainerChanges]:
        """Return the containers that differ from what was `sent`, and add their digests to `fresh`."""
        changed: list[ContainerChanges] = []
        for container in containers:
            try:
                variables = self._sources.environment.of(pod, container)
            except (MissingError, UnsupportedError):
                continue
            change: ContainerChanges = {"name": container["name"], "properties": process(container, variables)}
            part, digest = (kind, container["name"]), _digest(change)
            if sent.get(part) != digest:
                fresh[part] = digest
                changed.append(change)
        return changed


def _changes_of(container: GroupContainer) -> ContainerChanges:
    """Return what of a group's container can change."""
    properties = container["properties"]
    changes: ProcessChanges = {"environmentVariables": properties.get("environmentVariables") or []}
    if "command" in properties:
        changes["command"] = properties["command"]
    if "args" in properties:
        changes["args"] = properties["args"]
    return {"name": container["name"], "properties": changes}


def _digest(value: GroupVolume | ContainerChanges) -> bytes:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).digest()
