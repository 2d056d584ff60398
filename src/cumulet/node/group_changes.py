"""What of a pod's group changes while it runs, and what of it an update must not change."""

from __future__ import annotations

import msgspec

from cumulet.common.kubernetes.objects import Pod
from cumulet.node.resource import ContainerGroup, GroupCredential


def keep_resources(body: ContainerGroup, group: ContainerGroup) -> None:
    """Give the containers of a body the resources that they have in their group: `Resizes` alone changes those."""
    known = {item["name"]: item["properties"] for item in group["properties"]["containers"]}
    for item in body["properties"]["containers"]:
        before = known.get(item["name"])
        if before is not None and "resources" in before and "resourceRequirements" in before:
            item["properties"]["resources"] = before["resources"]
            item["properties"]["resourceRequirements"] = before["resourceRequirements"]


def changing_parts(pod: Pod, credentials: list[GroupCredential], ephemeral: list[str]) -> bytes:
    """Return what of a group can change: its credentials, its deadline, and the names of its ephemeral containers."""
    deadline = pod["spec"].get("activeDeadlineSeconds")
    return msgspec.json.encode([credentials, deadline, ephemeral], order="deterministic")
