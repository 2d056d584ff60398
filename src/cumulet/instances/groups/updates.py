"""What a request for an existing group changes, and what it cannot change."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from cumulet.common.arm import ArmError, ResourceId
from cumulet.instances.model.envelope import Envelope
from cumulet.instances.model.properties import Container, GroupProperties
from cumulet.instances.store.records import GroupRecord


class GroupRequest(NamedTuple):
    """A request for a group, checked."""

    resource_id: str
    location: str
    tags: dict[str, str]
    properties: GroupProperties
    envelope: Envelope

    @property
    def name(self) -> str:
        """The name of the group."""
        return ResourceId(self.resource_id).name


def invalid_update(name: str) -> ArmError:
    """Return the error for an update of a property that cannot change, in ACI's words."""
    return ArmError(
        400,
        "InvalidContainerGroupUpdate",
        f"The updates on container group '{name}' are invalid. If you are going to update the os type, restart policy, network "
        "profile, CPU, memory or GPU resources for a container group, you must delete it first and then create a new one.",
    )


def differs(record: GroupRecord, request: GroupRequest) -> bool:
    """Return whether a request changes a group besides its tags, or starts one that has ended."""
    return (record.wanted, record.envelope) != (request.properties, request.envelope) or record.status.is_over


def demanding_deletion(group: GroupRecord | GroupRequest) -> object:
    """Return the properties that an update cannot change (ACI, "Properties that require container delete")."""
    properties = group.wanted if isinstance(group, GroupRecord) else group.properties
    requests = {item.name: msgspec.to_builtins(item.properties.resources) for item in properties.containers}
    zones = group.envelope.zones
    return properties.os_type, properties.restart_policy, properties.subnet_ids, requests, zones, properties.pod


def keeps_ephemeral(before: GroupProperties, after: GroupProperties) -> bool:
    """Return whether an update of a pod keeps its ephemeral containers, and at most adds some."""
    images = {item.name: item.properties.image for item in after.ephemeral_containers}
    return all(images.get(item.name) == item.properties.image for item in before.ephemeral_containers)


def with_added(before: GroupProperties, after: GroupProperties) -> list[Container]:
    """Return the ephemeral containers that there are, as they are, and behind them those that an update adds."""
    there = {item.name for item in before.ephemeral_containers}
    added = [item for item in after.ephemeral_containers if item.name not in there]
    return [*before.ephemeral_containers, *added]


def fixed_of_pod(properties: GroupProperties) -> object:
    """Return the properties of a pod that an update cannot change. Others, such as the environment, apply at the next start."""

    def fixed(containers: list[Container]) -> object:
        return [
            (
                item.name,
                item.properties.image,
                item.properties.command,
                item.properties.args,
                item.properties.resources,
            )
            for item in containers
        ]

    return (
        fixed(properties.init_containers),
        fixed(properties.containers),
        [(volume.name, volume.kind, volume.empty_dir) for volume in properties.volumes],
        properties.restart_policy,
        properties.os_type,
        properties.subnet_ids,
    )


def resources_of(properties: GroupProperties) -> object:
    """Return the resources of a pod's containers, which change while they run."""
    return [
        (item.properties.resources, item.properties.resource_requirements, item.properties.resize_policy)
        for item in properties.all_containers
    ]
