"""Checks of ephemeral containers: they have no ports, probes and amounts of their own, and may name a container to look into."""

from __future__ import annotations

import msgspec

from cumulet.instances.model.properties import ContainerProperties, GroupProperties
from cumulet.instances.validation.text import invalid, quoted

#: What an ephemeral container cannot have (Kubernetes, `EphemeralContainerCommon`).
_NONE = ("ports", "liveness_probe", "readiness_probe", "startup_probe", "lifecycle", "resources", "restart_policy")


def check_ephemeral(properties: GroupProperties) -> None:
    """Raise `ArmError` for properties that an ephemeral container cannot have, or that only such a one has."""
    names = {container.name for container in properties.all_containers}
    for kind, containers in (
        ("initContainers", properties.init_containers),
        ("containers", properties.containers),
    ):
        for number, container in enumerate(containers):
            if container.properties.target_container_name is not None:
                raise invalid(
                    f"properties.{kind}[{number}].properties.targetContainerName",
                    "Only an ephemeral container has a targetContainerName.",
                )
    plain = ContainerProperties(image="")
    for number, container in enumerate(properties.ephemeral_containers):
        path = f"properties.ephemeralContainers[{number}].properties"
        for field in msgspec.structs.fields(ContainerProperties):
            if field.name in _NONE and getattr(container.properties, field.name) != getattr(plain, field.name):
                raise invalid(f"{path}.{field.encode_name}", f"An ephemeral container has no {field.encode_name}.")
        target = container.properties.target_container_name
        if target is not None and target not in names:
            raise invalid(
                f"{path}.targetContainerName", f"The container '{quoted(target)}' is not a container of the group."
            )
