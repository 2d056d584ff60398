"""Checks of a request against this installation: quotas, DNS name labels that are taken, file shares and disks.

The quotas are those of Azure ("Quotas and limits of Azure Container Instances"), with its words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Protocol

from cumulet.common.arm import ArmError
from cumulet.common.limits import InstanceLimits
from cumulet.instances.groups.attachments import check_disks
from cumulet.instances.model.amounts import total
from cumulet.instances.model.dns_names import domain_name
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.model.regions import sheet
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.git_repositories import missing_program
from cumulet.instances.store.records import GroupRecord


class Request(Protocol):
    """A request for a group, new or not."""

    @property
    def name(self) -> str:
        """The name of the group."""
        ...

    @property
    def resource_id(self) -> str:
        """Its id."""
        ...

    @property
    def location(self) -> str:
        """Its region."""
        ...

    @property
    def properties(self) -> GroupProperties:
        """Its properties."""
        ...


class Admission:
    """Admits requests for groups."""

    def __init__(self, limits: InstanceLimits, shares: FileShares, disks: DiskFolders) -> None:
        self._limits = limits
        self._shares = shares
        self._disks = disks

    def check(self, request: Request, others: Sequence[GroupRecord]) -> None:
        """Raise `ArmError` if a quota is reached, a DNS name label or a disk is another's, or a file share has no access."""
        self._check_volumes(request)
        check_disks(request.properties, others, self._disks)
        near = [record for record in others if record.location == request.location]
        cpu, _ = total(request.properties)
        # Counting costs time that a request among thousands of groups should not take while it cannot matter.
        most = len(near) * sheet().region(request.location).maximum.vcpu
        used_cores = cores(near) if most + cpu > self._limits.cores else 0.0
        for name, limit, used, asked in (
            ("ContainerGroups", self._limits.container_groups, float(len(near)), 1.0),
            ("StandardCores", self._limits.cores, used_cores, cpu),
        ):
            if used + asked > limit:
                raise ArmError(
                    409,
                    "ContainerGroupQuotaReached",
                    f"Resource type 'Microsoft.ContainerInstance/containerGroups' container group quota '{name}' exceeded in "
                    f"region '{request.location}'. Limit: '{limit}', Usage: '{used:.15g}' Requested: '{asked:.15g}'.",
                )
        address = request.properties.ip_address
        domain = domain_name(address, request.resource_id, request.location)
        if domain is not None and any(
            domain_name(record.wanted.ip_address, record.id, record.location) == domain for record in near
        ):
            assert address is not None
            raise ArmError(
                400,
                "DnsNameLabelNotAvailable",
                f"The DNS name label '{address.dns_name_label}' in container group '{request.name}' not available. Try using a "
                "different label.",
                target="properties.ipAddress.dnsNameLabel",
            )

    def _check_volumes(self, request: Request) -> None:
        for number, volume in enumerate(request.properties.volumes):
            if volume.git_repo is not None and (missing := missing_program()) is not None:
                raise ArmError(
                    400,
                    "UnsupportedVolume",
                    f"The volume '{volume.name}' of type gitRepo is not supported: {missing} is not on the PATH of this machine.",
                    target=f"properties.volumes[{number}].gitRepo",
                )
            if volume.azure_file is not None:
                try:
                    os.close(self._shares.open(volume.azure_file))
                except SandboxError as error:
                    raise ArmError(
                        400,
                        "InaccessibleAzureFileShare",
                        f"The volume '{volume.name}' in container group '{request.name}' cannot be mounted: {error}.",
                        target=f"properties.volumes[{number}].azureFile",
                    ) from None


def cores(records: Iterable[GroupRecord]) -> float:
    """Return the vCPUs that the groups request that have not ended."""
    return sum(total(record.wanted)[0] for record in records if not record.status.is_over)
