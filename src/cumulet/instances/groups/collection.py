"""The changes of container groups: creation, update, start, stop, restart and deletion."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp

from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.config import Config
from cumulet.common.resolver import LoginServerResolver
from cumulet.common.router import installation_id
from cumulet.common.tasks import TaskSet
from cumulet.instances.actions.targets import Targets
from cumulet.instances.groups.actions import Actions
from cumulet.instances.groups.admission import Admission
from cumulet.instances.groups.deletions import Deletions
from cumulet.instances.groups.folders import Folders
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.index import GroupIndex
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.reach import reached_doors
from cumulet.instances.groups.services import Services
from cumulet.instances.groups.updates import (
    GroupRequest,
    demanding_deletion,
    differs,
    fixed_of_pod,
    invalid_update,
    keeps_ephemeral,
    resources_of,
    with_added,
)
from cumulet.instances.groups.workload_environment import WorkloadEnvironment
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.runtime.conmon import Runtime
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.firewall import member_of
from cumulet.instances.sandbox.git_repositories import GitRepositories
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.operations import Operations
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.store.store import Store


class Answer(NamedTuple):
    """The group of a request, whether it is new, and the id of the operation that reports the change."""

    group: Group
    is_new: bool = False
    operation: str | None = None


class Groups:
    """Changes container groups, and resumes what the end of an earlier process has interrupted."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        store: Store,
        meter: Meter,
        registries: aiohttp.ClientSession,
        targets: Targets,
        tasks: TaskSet,
        logins: Logins,
        workload: WorkloadEnvironment,
    ) -> None:
        self._folder = folder / "sandboxes"
        self._before = folder / "groups"
        self._store = store
        self._tasks = tasks
        self._creating: dict[str, GroupRecord] = {}
        self.index = GroupIndex()
        records = store.groups()
        self._network = Network(config, {record.status.ip for record in records if record.status.ip})
        self._records = records
        shares = FileShares(config.file_shares)
        self.disks = DiskFolders(folder / "disks")
        self._services = Services(
            store,
            Images(
                folder / "images",
                registries,
                LoginServerResolver(config).is_login_server,
                config.image_limits,
                self.index.image_uses,
            ),
            self._network,
            Runtime(folder / "state"),
            meter,
            targets,
            installation_id(config),
            self.index.publish,
            self.index.publish_soon,
            UserNamespaces(config, folder / "images"),
            logins,
            shares,
            self.disks,
            GitRepositories(config, config.egress()),
            workload,
            functools.partial(reached_doors, config),
        )
        self._admission = Admission(config.instance_limits, shares, self.disks)
        self.operations = Operations(store.database)
        self._actions = Actions(self.index, store, self.operations, tasks, self._group)
        self._deletions = Deletions(self.index, store, self.operations, tasks, self._actions, logins)

    @property
    def images(self) -> Images:
        """The images on this machine."""
        return self._services.images

    @property
    def runtime(self) -> Runtime:
        """The runtime of the containers."""
        return self._services.runtime

    async def open(self) -> None:
        """Make the network and resume all groups."""
        await self._network.open(
            member_of(record.status.ip, record.properties, record.tags)
            for record in self._records
            if record.status.ip and not record.status.is_over
        )
        users = self._services.users
        await users.open(record.status.ids for record in self._records if users.is_there(record.uid))
        await self._services.meter.open(
            {record.uid for record in self._records if self._network.is_there(record.uid)}
        )
        for record in self._records:
            group = self.index.set(self._group(record))
            if record.status.delete_by is not None:
                self._deletions.resume(group)
            elif record.status.action is not None:
                self._actions.resume(record)
            else:
                group.start()
        self._tasks.start(self.images.eviction.run(), "image eviction")
        await self._actions.end_orphans(self._records)

    def _group(self, record: GroupRecord) -> Group:
        return Group(record, Folders(self._folder / record.uid, self._before / record.uid), self._services)

    def close(self) -> None:
        """Stop the tasks because this process ends; the containers continue to run."""
        for group in self.index.all():
            group.detach()
        self._network.close()

    async def put(self, request: GroupRequest) -> Answer:
        """Create a group, or update it.

        An update of a pod applies to its running containers. Any other ends the containers and starts them with the new
        properties; an update of tags or of nothing ends none. Raises `ArmError`.
        """
        key = ResourceId(request.resource_id).key
        existing = self._demand_idle(key)
        if existing is not None and existing.record.wanted.pod and request.properties.pod:
            return await self._apply(existing, request)
        # The registry is asked before anything is changed, and the group can have changed in the meantime.
        if not request.properties.pod and (existing is None or differs(existing.record, request)):
            await self._services.logins.check(request.name, request.properties, request.envelope.identity)
            existing = self._demand_idle(key)
        others = [group.record for group in self.index.all() if group is not existing]
        self._admission.check(request, [*others, *self._creating.values()])
        if request.properties.host_users is False and not self._services.users.support.on:
            raise ArmError(
                400,
                "UserNamespacesNotSupported",
                f"hostUsers is false, and user namespaces are {self._services.users.support}",
                target="properties.hostUsers",
            )
        return await (self._create(key, request) if existing is None else self._update(existing, request))

    def _demand_idle(self, key: str) -> Group | None:
        """Return the group of a key. Raises `ArmError` 409 while it is being changed."""
        group = self.index.find(key)
        if (
            key in self._deletions
            or key in self._creating
            or (group is not None and group.record.status.action is not None)
        ):
            name = ResourceId(key).name
            raise ArmError(
                409,
                "ContainerGroupTransitioning",
                f"The container group '{name}' is still transitioning, please retry later.",
            )
        return group

    async def _create(self, key: str, request: GroupRequest) -> Answer:
        record = GroupRecord(
            self.index.new_uid(),
            key,
            request.resource_id,
            request.location,
            request.tags,
            request.properties,
            GroupStatus(),
            envelope=request.envelope,
        )
        self._creating[key] = record
        try:
            await self._store.put(record)
        finally:
            del self._creating[key]
        group = self.index.set(self._group(record))
        if record.properties.pod:
            # At once: to its creator, a watch that does not show it yet says that it is gone.
            self.index.publish(record)
            group.start()
            return Answer(group, is_new=True)
        return Answer(group, is_new=True, operation=await self._actions.begin(record, "create"))

    async def _apply(self, group: Group, request: GroupRequest) -> Answer:
        """Replace what can change while containers run."""
        record = group.record
        old, new = record.properties, request.properties
        if fixed_of_pod(old) != fixed_of_pod(new) or not keeps_ephemeral(old, new):
            raise invalid_update(request.name)
        new.ephemeral_containers = with_added(old, new)
        record.tags, record.properties = request.tags, new
        await self._store.put(record)
        group.renew()
        await _renew_volumes(group)
        self.index.publish(record)
        return Answer(group)

    async def _update(self, group: Group, request: GroupRequest) -> Answer:
        record = group.record
        is_over = record.status.is_over
        if not is_over and demanding_deletion(record) != demanding_deletion(request):
            raise invalid_update(request.name)
        record.tags = request.tags
        if not is_over and not differs(record, request):
            await self._store.put(record)
            self.index.publish(record)
            return Answer(group)
        record.next, record.envelope = request.properties, request.envelope
        # A group that has ended is deployed as new (ACI, "Update containers").
        operation = await self._actions.begin(record, "redeploy" if is_over else "update")
        return Answer(group, operation=operation)

    async def start(self, group: Group) -> str | None:
        """Start a group that has ended; return the id of the operation, or `None` if the group runs. Raises `ArmError`."""
        record = group.record
        self._demand_idle(record.key)
        if not record.status.is_over:
            return None
        return await self._renew(record, "start")

    async def restart(self, group: Group) -> str:
        """Restart the containers of a group with a new pull; return the id of the operation. Raises `ArmError`."""
        record = group.record
        self._demand_idle(record.key)
        return await self._renew(record, "start" if record.status.is_over else "restart")

    async def _renew(self, record: GroupRecord, kind: Literal["start", "restart"]) -> str:
        if not record.properties.pod:
            await self._services.logins.check(ResourceId(record.id).name, record.properties, record.envelope.identity)
            self._demand_idle(record.key)
        return await self._actions.begin(record, kind)

    async def stop(self, group: Group) -> None:
        """Stop a group, and return when it has stopped; its bill ends. Raises `ArmError`."""
        record = group.record
        action = record.status.action
        if record.key in self._deletions:
            self._demand_idle(record.key)
        if action is None or action.kind != "stop":
            if record.status.state == "Stopped":
                return
            await self._actions.begin(record, "stop")
        await self._actions.finish(record)

    async def patch(self, group: Group, tags: dict[str, str] | None, properties: GroupProperties | None) -> None:
        """Replace a group's tags, what can change of its properties, or both, while its containers run. Raises `ArmError`."""
        record = group.record
        if tags is not None:
            record.tags = tags
        if properties is not None:
            self._demand_idle(record.key)
            resized = resources_of(properties) != resources_of(record.properties)
            if resized:
                others = [other.record for other in self.index.all() if other is not group]
                self._admission.check(
                    GroupRequest(record.id, record.location, record.tags, properties, record.envelope), others
                )
            record.properties = properties
        await self._store.put(record)
        if properties is not None:
            await _renew_volumes(group)
            if resized and not record.status.is_over:
                await self._services.meter.start(record)
                group.resize()
        self.index.publish(record)

    async def delete(self, group: Group, grace: int, *, wait: bool) -> str | None:
        """Delete a group; its containers have `grace` seconds to end. A second call can only shorten that.

        Returns the id of the operation, or with `wait` `None` when the group is gone. After a restart of the room the
        deletion continues, with the same deadline.
        """
        return await self._deletions.begin(group, grace, wait=wait)


async def _renew_volumes(group: Group) -> None:
    try:
        await group.renew_volumes()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ArmError(500, "VolumeUpdateFailed", f"The files of the volumes cannot be written: {reason}.") from error
