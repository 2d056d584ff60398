"""Checks of a whole group, which are the same for a request and for a group of an earlier version."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cumulet.common.arm import ArmError
from cumulet.instances.model.properties import Container, GroupProperties
from cumulet.instances.validation.containers import check_container
from cumulet.instances.validation.ephemeral import check_ephemeral
from cumulet.instances.validation.network import check_address, check_credential, check_dns, check_subnets
from cumulet.instances.validation.pods import check_pod
from cumulet.instances.validation.text import NAME, check_labels, invalid, quoted
from cumulet.instances.validation.volumes import check_volume

_HOSTNAME = re.compile(
    r"(?=.{1,64}\Z)[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?(\.[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*"
)
_CONTAINERS, _VOLUMES, _CREDENTIALS = 60, 20, 500
#: Volumes of a pod, which Kubernetes does not bound.
_POD_VOLUMES = 100


def check_group(group: str, properties: GroupProperties) -> None:
    """Raise `ArmError` for a property that is not valid. `amounts` checks the maximum of numbers."""
    if not properties.containers or len(properties.numbered_containers) > _CONTAINERS:
        raise invalid("properties.containers", f"A container group has 1 to {_CONTAINERS} containers.")
    most = _POD_VOLUMES if properties.pod else _VOLUMES
    if len(properties.volumes) > most:
        raise invalid("properties.volumes", f"A container group has at most {most} volumes.")
    if properties.os_type != "Linux":
        raise ArmError(
            400,
            "UnsupportedOsType",
            f"The osType '{quoted(properties.os_type)}' is not supported: use Linux.",
            target="properties.osType",
        )
    if properties.sku not in (None, "Standard"):
        raise invalid("properties.sku", f"The SKU '{quoted(properties.sku or '')}' is not supported: use Standard.")
    if properties.host_users:
        raise invalid(
            "properties.hostUsers",
            "The hostUsers 'true' is not supported: a container group has no access to the user namespace of its machine.",
        )
    if properties.hostname is not None and not _HOSTNAME.fullmatch(properties.hostname):
        raise invalid("properties.hostname", f"The host name '{quoted(properties.hostname)}' is not valid.")
    if properties.virtual_machine is not None and not NAME.fullmatch(properties.virtual_machine):
        raise invalid("properties.virtualMachine", "The virtual machine has no valid name.")
    check_pod(group, properties)
    volumes: set[str] = set()
    for number, volume in enumerate(properties.volumes):
        check_volume(volume, f"properties.volumes[{number}]", volumes)
        if volume.azure_disk is not None and properties.virtual_machine is None:
            raise invalid(
                f"properties.volumes[{number}].azureDisk",
                f"The volume '{volume.name}' is a disk, which container instances do not attach: only virtual machines do.",
            )
        volumes.add(volume.name)
    names: set[str] = set()
    for path, container in _containers(properties):
        if not NAME.fullmatch(container.name):
            raise invalid(f"{path}.name", f"The container name '{quoted(container.name)}' is not valid.")
        if container.name in names:
            raise invalid(f"{path}.name", f"The container name '{container.name}' is used twice.")
        names.add(container.name)
        check_container(container, f"{path}.properties", volumes)
    check_ephemeral(properties)
    if properties.dns_config is not None:
        check_dns(properties.dns_config)
    if properties.ip_address is not None:
        check_address(group, properties.ip_address)
    check_subnets(properties.subnet_ids)
    check_labels(properties.labels)
    if len(properties.image_registry_credentials) > _CREDENTIALS:
        raise invalid(
            "properties.imageRegistryCredentials", f"A container group has at most {_CREDENTIALS} credentials."
        )
    for number, credential in enumerate(properties.image_registry_credentials):
        check_credential(group, credential, f"properties.imageRegistryCredentials[{number}]")


def _containers(properties: GroupProperties) -> Iterator[tuple[str, Container]]:
    for kind, containers in (
        ("initContainers", properties.init_containers),
        ("containers", properties.containers),
        ("ephemeralContainers", properties.ephemeral_containers),
    ):
        for number, container in enumerate(containers):
            yield f"properties.{kind}[{number}]", container
