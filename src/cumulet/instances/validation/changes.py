"""What a PATCH changes of a group while its containers run (an extension to ACI's API): files, processes, resources.

The files of volumes are replaced at once, and containers with `resourceRequirements` are resized. The command, the arguments and the variables of a pod's container apply when it starts the
next time, as with a kubelet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from cumulet.instances.model.pod import ResizePolicy, ResourceRequirements
from cumulet.instances.model.properties import Container, GroupProperties, Resources, Variable, Volume
from cumulet.instances.validation.containers import check_container
from cumulet.instances.validation.text import invalid, quoted
from cumulet.instances.validation.volumes import check_volume


class _Base(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Properties of which absent ones stay as they are."""


class ContainerPropertyChanges(_Base):
    """The changes of a container."""

    command: list[str] | None = None
    args: list[str] | None = None
    environment_variables: list[Variable] | None = None
    resource_requirements: ResourceRequirements | None = None
    resources: Resources | None = None
    resize_policy: list[ResizePolicy] | None = None


class ContainerChanges(_Base):
    """The changes of a container with that name."""

    name: str
    properties: ContainerPropertyChanges


class GroupChanges(_Base):
    """The changes of a group; volumes and containers that are not named stay as they are."""

    volumes: list[Volume] = []
    containers: list[ContainerChanges] = []
    init_containers: list[ContainerChanges] = []


def changed(group: GroupProperties, changes: GroupChanges) -> GroupProperties:
    """Return the properties of a group with the changes. Raises `ArmError`."""
    volumes = _changed_volumes(group.volumes, changes.volumes)
    if (changes.containers or changes.init_containers) and not group.pod:
        raise invalid("properties.containers", "The containers of this group do not change in place: use PUT.")
    names = {volume.name for volume in volumes}
    return msgspec.structs.replace(
        group,
        volumes=volumes,
        containers=_changed_containers(group.containers, changes.containers, "properties.containers", names),
        init_containers=_changed_containers(
            group.init_containers, changes.init_containers, "properties.initContainers", names
        ),
    )


def _changed_volumes(volumes: Sequence[Volume], changes: Sequence[Volume]) -> list[Volume]:
    found = {volume.name: volume for volume in volumes}
    names: set[str] = set()
    for number, volume in enumerate(changes):
        path = f"properties.volumes[{number}]"
        check_volume(volume, path, names)
        names.add(volume.name)
        if volume.name not in found or volume.secret is None or found[volume.name].secret is None:
            raise invalid(path, f"The volume '{volume.name}' is not a secret volume of the group.")
        found[volume.name] = volume
    return list(found.values())


def _changed_containers(
    containers: Sequence[Container], changes: Sequence[ContainerChanges], path: str, volumes: set[str]
) -> list[Container]:
    found = {container.name: container for container in containers}
    for number, change in enumerate(changes):
        if change.name not in found:
            raise invalid(f"{path}[{number}].name", f"The group has no container '{quoted(change.name)}' there.")
        exact = found[change.name].properties.resource_requirements is not None
        if not exact and (change.properties.resource_requirements or change.properties.resources):
            raise invalid(
                f"{path}[{number}].properties.resources",
                f"The resources of container '{change.name}' do not change in place, because it has no resourceRequirements.",
            )
        found[change.name] = _changed_container(found[change.name], change.properties)
        check_container(found[change.name], f"{path}[{number}].properties", volumes)
    return list(found.values())


def _changed_container(container: Container, changes: ContainerPropertyChanges) -> Container:
    given: Mapping[str, object] = {
        name: value for name in changes.__struct_fields__ if (value := getattr(changes, name)) is not None
    }
    return msgspec.structs.replace(container, properties=msgspec.structs.replace(container.properties, **given))
