"""Which machine has a managed disk attached: the one whose groups have it as a volume. A disk has one at a time."""

from __future__ import annotations

from collections.abc import Iterable

from cumulet.common.arm import ArmError, ResourceId
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.store.records import GroupRecord


def attached_by(disk: str, records: Iterable[GroupRecord]) -> str | None:
    """Return the machine of the groups that have not ended and have a disk, by the key of its id, or `None`."""
    for record in records:
        if not record.status.is_over and disk in disks_of(record.wanted):
            return record.wanted.virtual_machine
    return None


def disks_of(properties: GroupProperties) -> list[str]:
    """Return the keys of the ids of the disks of a group."""
    return [
        ResourceId(volume.azure_disk.disk_uri).key for volume in properties.volumes if volume.azure_disk is not None
    ]


def check_disks(properties: GroupProperties, records: Iterable[GroupRecord], folders: DiskFolders) -> None:
    """Raise `ArmError` for a disk that does not exist, or that another machine has attached."""
    records = [*records] if disks_of(properties) else []
    for number, volume in enumerate(properties.volumes):
        if volume.azure_disk is None:
            continue
        disk, target = volume.azure_disk.disk_uri, f"properties.volumes[{number}].azureDisk.diskURI"
        if not folders.has(disk):
            raise ArmError(404, "NotFound", f"Disk {ResourceId(disk).name} is not found.", target=target)
        owner = attached_by(ResourceId(disk).key, records)
        if owner is not None and owner != properties.virtual_machine:
            raise ArmError(
                409,
                "ConflictingUserInput",
                f"Disk '{disk}' cannot be attached as the disk is already owned by VM '{owner}'.",
                target=target,
            )
