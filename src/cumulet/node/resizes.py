"""Resizes the containers of running pods (Kubernetes, "Resize CPU and Memory Resources assigned to Containers")."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from cumulet.common.arm import ArmError
from cumulet.common.kubernetes.objects import Container, Pod
from cumulet.node.aci import ContainerGroups
from cumulet.node.phase import is_sidecar
from cumulet.node.resource import (
    ContainerChanges,
    ContainerGroup,
    GroupChanges,
    GroupContainer,
    GroupRequirements,
    ResourceChanges,
)
from cumulet.node.resources import billed_resources, exact_resources, restarting_policies


class Resizes:
    """Sends the resources of pods that differ from those of their groups, and keeps the refusals by uid."""

    def __init__(self, groups: ContainerGroups) -> None:
        self._aci = groups
        #: The resources that were refused, and why.
        self._refused: dict[str, tuple[bytes, str]] = {}

    def forget(self, uid: str) -> None:
        """Forget a pod that is gone."""
        self._refused.pop(uid, None)

    async def resize(self, pod: Pod, group: ContainerGroup) -> str:
        """Send the resources of a pod if they have changed; return why they were refused, or an empty text.

        What was refused is not sent again. Raises `ArmError` if it may succeed later.
        """
        uid = pod["metadata"]["uid"]
        wanted = changed(pod, group)
        if not wanted:
            self._refused.pop(uid, None)
            return ""
        encoded = msgspec.json.encode(wanted)
        known, why = self._refused.get(uid, (b"", ""))
        if known == encoded:
            return why
        try:
            await self._aci.patch(group["name"], {"properties": wanted})
        except ArmError as error:
            if error.status >= 500 or error.status in (408, 429) or error.code == "ContainerGroupTransitioning":
                raise
            self._refused[uid] = encoded, f"{error.code}: {error}"
            return self._refused[uid][1]
        return ""


def changed(pod: Pod, group: ContainerGroup) -> GroupChanges:
    """Return the changes of containers whose resources are not those of the group.

    Groups of other providers have none to compare.
    """
    spec, properties = pod["spec"], group["properties"]
    sidecars = [container for container in spec.get("initContainers") or () if is_sidecar(container)]
    changes: GroupChanges = {}
    if containers := [*_changed(spec["containers"], properties["containers"])]:
        changes["containers"] = containers
    if inits := [*_changed(sidecars, properties.get("initContainers") or ())]:
        changes["initContainers"] = inits
    return changes


def _changed(containers: Iterable[Container], items: Iterable[GroupContainer]) -> Iterator[ContainerChanges]:
    by_name = {item["name"]: item for item in items}
    for container in containers:
        item = by_name.get(container["name"])
        if item is not None and _differs(container, item):
            changes: ResourceChanges = {
                "resources": billed_resources(container),
                "resourceRequirements": exact_resources(container),
                "resizePolicy": restarting_policies(container),
            }
            yield {"name": container["name"], "properties": changes}


def plain(requirements: GroupRequirements) -> GroupRequirements:
    """Return requirements without empty parts, as a group shows them."""
    found: GroupRequirements = {}
    if requests := requirements.get("requests"):
        found["requests"] = requests
    if limits := requirements.get("limits"):
        found["limits"] = limits
    return found


def _differs(container: Container, item: GroupContainer) -> bool:
    shown = item["properties"].get("resourceRequirements")
    return shown is not None and plain(shown) != plain(exact_resources(container))
