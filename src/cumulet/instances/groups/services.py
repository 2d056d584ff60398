"""The services of the room that every group uses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from cumulet.instances.actions.targets import Targets
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.workload_environment import WorkloadEnvironment
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.firewall import Door
from cumulet.instances.sandbox.git_repositories import GitRepositories
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.store.store import Store


class Save(Protocol):
    """Writes the status of a group and publishes it."""

    async def __call__(self, *, soon: bool = False) -> None:
        """Publish it `soon`, together with what follows, if it is a step of a start."""


class Services(NamedTuple):
    """`targets` are where probes and hooks connect to; `doors` returns the doors of the router that a group may connect to.

    `changed` is called when the status of a group has changed, `changed_soon` when the next change is expected soon.
    """

    store: Store
    images: Images
    network: Network
    runtime: Runtime
    meter: Meter
    targets: Targets
    installation: str
    changed: Callable[[GroupRecord], None]
    changed_soon: Callable[[GroupRecord], None]
    users: UserNamespaces
    logins: Logins
    shares: FileShares
    disks: DiskFolders
    repositories: GitRepositories
    workload: WorkloadEnvironment
    doors: Callable[[GroupRecord], Iterable[Door]]
