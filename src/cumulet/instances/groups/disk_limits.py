"""Whether a group uses more disk than it may, decided and told as in the kubelet's eviction manager.

A container's own limit is for its writable layer and its logs. The limits of all containers together are for these and the
emptyDirs on disk. A group without any limit has the installation's.
"""

from __future__ import annotations

from decimal import ROUND_CEILING
from typing import NamedTuple

from cumulet.common.kubernetes.quantity import decimal
from cumulet.instances.model.properties import Container, GroupProperties

_UNITS = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


class Usage(NamedTuple):
    """Bytes on disk by container (its writable layer and its logs) and by emptyDir."""

    containers: dict[str, int]
    volumes: dict[str, int]

    @property
    def total(self) -> int:
        """The bytes of the whole group."""
        return sum(self.containers.values()) + sum(self.volumes.values())


def excess(properties: GroupProperties, usage: Usage, default: int) -> str | None:
    """Return the kubelet's message for the limit that a group exceeds, or `None`; `default` is the limit without others."""
    for volume in properties.volumes:
        size = volume.empty_dir.size if volume.empty_dir is not None else None
        if size is not None and usage.volumes.get(volume.name, 0) > size:
            return f'Usage of EmptyDir volume "{volume.name}" exceeds the limit "{binary(size)}". '
    limits = {container.name: _limit(container) for container in properties.containers}
    # The kubelet adds the limits that there are.
    whole = sum(limit or 0 for limit in limits.values()) or default
    if usage.total > whole:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {binary(whole)}. "
    for name, limit in limits.items():
        if limit and usage.containers.get(name, 0) > limit:
            return f'Container {name} exceeded its local ephemeral storage limit "{binary(limit)}". '
    return None


def requested(properties: GroupProperties) -> int:
    """Return the bytes of disk that the containers of a group request."""
    return sum(_bytes(_request(container)) or 0 for container in properties.containers)


def binary(size: int) -> str:
    """Return a number of bytes as a quantity in its largest exact binary unit, such as `1Gi`."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(_UNITS) - 1:
        size, unit = size // 1024, unit + 1
    return f"{size}{_UNITS[unit]}"


def _limit(container: Container) -> int | None:
    required = container.properties.resource_requirements
    return _bytes(required.limits.ephemeral_storage) if required is not None else None


def _request(container: Container) -> str | None:
    required = container.properties.resource_requirements
    return required.requests.ephemeral_storage if required is not None else None


def _bytes(quantity: str | None) -> int | None:
    return None if quantity is None else int(decimal(quantity).to_integral_value(ROUND_CEILING))
