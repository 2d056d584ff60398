"""The services of the room that every group uses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from cumulet.instances.actions.targets import Targets
from cumulet.instances.groups.logins import Logins
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.git_repositories import GitRepositories
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.store.store import Store

#: Writes the status of a group and publishes it.
Save = Callable[[], Awaitable[None]]


class Services(NamedTuple):
    """`changed` is called when the status of a group has changed; `targets` are where probes and hooks connect to."""

    store: Store
    images: Images
    network: Network
    runtime: Runtime
    meter: Meter
    targets: Targets
    installation: str
    changed: Callable[[GroupRecord], None]
    users: UserNamespaces
    logins: Logins
    shares: FileShares
    disks: DiskFolders
    repositories: GitRepositories
