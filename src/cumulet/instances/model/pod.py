"""Properties of pods that ACI's API lacks: extensions with Kubernetes' names and shapes.

`resourceRequirements` of a container are its exact requests and limits; without a limit, the container has none. `resources`
are then what is billed, and `resizePolicy` says what a change takes. `stdin`, `stdinOnce` and `tty` of a container; `securityContext`, `hostAliases`, `subdomain`,
`setHostnameAsFQDN` and `shareProcessNamespace` of a group. `subdomain` is the rest of the name in full, with the
cluster's domain.
"""

from __future__ import annotations

from decimal import ROUND_CEILING
from typing import Literal

import msgspec

from cumulet.common.kubernetes.quantity import decimal, milli


class _Base(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    pass


class Quantities(_Base):
    """Amounts of resources, as quantities of Kubernetes such as `100m` and `280Mi`; `None` where none is set."""

    cpu: str | None = None
    memory: str | None = None
    ephemeral_storage: str | None = msgspec.field(default=None, name="ephemeral-storage")

    @property
    def millicores(self) -> int | None:
        """The processors in thousandths, rounded up as in Kubernetes."""
        return None if self.cpu is None else milli(self.cpu)

    @property
    def bytes(self) -> int | None:
        """The memory in bytes, rounded up."""
        return None if self.memory is None else int(decimal(self.memory).to_integral_value(ROUND_CEILING))


class ResourceRequirements(_Base):
    """The requests and limits of a container."""

    requests: Quantities = msgspec.field(default_factory=Quantities)
    limits: Quantities = msgspec.field(default_factory=Quantities)


class LinuxUser(_Base):
    """The ids of a container's first process."""

    uid: int
    gid: int
    supplemental_groups: list[int] = []


class ContainerUser(_Base):
    """The user of a container, as its status shows it."""

    linux: LinuxUser


class ResizePolicy(_Base):
    """What a change of a resource of a running container takes."""

    resource_name: Literal["cpu", "memory"]
    restart_policy: Literal["NotRequired", "RestartContainer"]


class Sysctl(_Base):
    """A setting of the kernel, in the namespaces of a group."""

    name: str
    value: str


class PodSecurityContext(_Base):
    """The settings of all containers and volumes of a group.

    `fs_group` is the group of the volumes' files. Volumes are new for each group, so that `fs_group_change_policy` has
    no effect, as in a kubelet.
    """

    fs_group: int | None = None
    fs_group_change_policy: Literal["Always", "OnRootMismatch"] | None = None
    supplemental_groups_policy: Literal["Merge", "Strict"] | None = None
    sysctls: list[Sysctl] = []


class HostAlias(_Base):
    """Names of an address in `/etc/hosts`."""

    ip: str
    hostnames: list[str] = []
