"""All container groups of the room: creation, update, deletion, and a revision that grows with every change."""

from __future__ import annotations

import asyncio
import os
import uuid
from datetime import timedelta
from pathlib import Path

import aiohttp
import msgspec

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.config import Config
from cumulet.common.resolver import LoginServerResolver
from cumulet.common.tasks import TaskSet
from cumulet.instances.groups.attempts import UID_PART
from cumulet.instances.groups.folders import Folders
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.services import Services
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.properties import Container, GroupProperties, Volume, virtual_network
from cumulet.instances.runtime.conmon import Runtime, control_pipe
from cumulet.instances.sandbox.names import installation_id
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.store.store import Store
from cumulet.instances.streams.log_files import LogFiles
from cumulet.instances.streams.rotation import WrittenLog


class Groups:
    """The groups by resource id, which is compared without case."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        store: Store,
        meter: Meter,
        registries: aiohttp.ClientSession,
        probes: aiohttp.ClientSession,
        tasks: TaskSet,
    ) -> None:
        self._folder = folder / "sandboxes"
        self._before = folder / "groups"
        self._store = store
        self._tasks = tasks
        self._groups: dict[str, Group] = {}
        self._deleting: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        # It starts at a number that no earlier process used.
        self.revision = int(asyncio.get_running_loop().time() * 1000)
        records = store.groups()
        self._network = Network(config, {record.status.ip for record in records if record.status.ip})
        self._records = records
        self._services = Services(
            store,
            Images(folder / "images", registries, LoginServerResolver(config).is_login_server),
            self._network,
            Runtime(folder / "state"),
            meter,
            probes,
            installation_id(config),
            self._publish,
            UserNamespaces(config, folder / "images"),
        )

    @property
    def runtime(self) -> Runtime:
        """The runtime of the containers."""
        return self._services.runtime

    async def open(self) -> None:
        """Create the bridge and resume all groups."""
        await self._network.open(
            {
                record.status.ip: virtual_network(record.properties)
                for record in self._records
                if record.status.ip and record.status.state not in ("Succeeded", "Failed")
            }
        )
        users = self._services.users
        await users.open(record.status.ids for record in self._records if users.is_there(record.uid))
        for record in self._records:
            group = self._group(record)
            self._groups[record.key] = group
            if record.status.delete_by is None:
                group.start()
            else:
                self._begin_deletion(group)

    def _group(self, record: GroupRecord) -> Group:
        return Group(record, Folders(self._folder / record.uid, self._before / record.uid), self._services)

    def close(self) -> None:
        """Stop the tasks because this process ends; the containers continue to run."""
        for group in self._groups.values():
            group.detach()
        self._network.close()

    def all(self) -> list[Group]:
        """Return all groups, including those that are being deleted."""
        return list(self._groups.values())

    def find(self, resource_id: str) -> Group | None:
        """Return the group of that id, or `None`."""
        return self._groups.get(ResourceId(resource_id).key)

    def get(self, resource_id: str) -> Group:
        """Return the group of that id. Raises `ArmError` `ResourceNotFound`."""
        resource = ResourceId(resource_id)
        group = self.find(resource_id)
        if group is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.ContainerInstance/containerGroups/{resource.name}' under resource group "
                f"'{resource.resource_group}' was not found.",
            )
        return group

    async def put(
        self, resource_id: str, location: str, tags: dict[str, str], properties: GroupProperties
    ) -> tuple[Group, bool]:
        """Create a group, or replace tags, credentials and files of volumes of an existing one; return it, and whether it is new.

        Running containers are not changed in place: other properties must stay the same. Raises `ArmError`.
        """
        key = ResourceId(resource_id).key
        if key in self._deleting:
            raise ArmError(
                409, "ContainerGroupTransitioning", "The container group is still being deleted: try again."
            )
        existing = self._groups.get(key)
        if existing is not None:
            record = existing.record
            if _fixed(record.properties) != _fixed(properties):
                raise ArmError(
                    400,
                    "InvalidContainerGroupUpdate",
                    f"The updates on container group '{ResourceId(resource_id).name}' are invalid. If you are going to update the "
                    "os type, restart policy, network profile, CPU, memory or image of a container, you must delete it first.",
                )
            record.tags, record.properties = tags, properties
            await self._store.put(record)
            existing.renew()
            await _renew_volumes(existing)
            self._publish(record)
            return existing, False
        if properties.host_users is False and not self._services.users.support.on:
            raise ArmError(
                400,
                "UserNamespacesNotSupported",
                f"hostUsers is false, and user namespaces are {self._services.users.support}",
                target="properties.hostUsers",
            )
        record = GroupRecord(self._new_uid(), key, resource_id, location, tags, properties, GroupStatus())
        await self._store.put(record)
        group = self._group(record)
        self._groups[key] = group
        self._publish(record)
        group.start()
        return group, True

    def _new_uid(self) -> str:
        """Return a uid that is unique, also in the part that is in the ids of containers."""
        taken = {group.record.uid[:UID_PART] for group in self._groups.values()}
        while (uid := str(uuid.uuid4()))[:UID_PART] in taken:
            pass
        return uid

    async def patch(self, group: Group, tags: dict[str, str] | None, volumes: list[Volume] | None) -> None:
        """Replace a group's tags, its volumes, or both, while its containers run. Raises `ArmError`."""
        record = group.record
        if tags is not None:
            record.tags = tags
        if volumes is not None:
            record.properties = msgspec.structs.replace(record.properties, volumes=volumes)
        await self._store.put(record)
        if volumes is not None:
            await _renew_volumes(group)
        self._publish(record)

    async def delete(self, group: Group, grace: int) -> None:
        """Delete a group; its containers have `grace` seconds to end. A second call can only shorten that.

        After a restart of the room the deletion continues, with the same deadline.
        """
        status = group.record.status
        by = clock.rfc3339_micro(clock.now() + timedelta(seconds=grace))
        if status.delete_by is None or by < status.delete_by:
            status.delete_by = by
            await self._store.put_status(group.record)
            group.hasten(grace)
        task = self._deleting.get(group.record.key) or self._begin_deletion(group)
        await asyncio.shield(task)

    def written_logs(self) -> list[WrittenLog]:
        """Return the logs of all running containers."""
        found = []
        for group in self._groups.values():
            attempts = group.attempts
            for name, status in group.record.status.containers.items():
                if status.current_state.state == "Running":
                    found.append(WrittenLog(LogFiles(attempts.log(name)), control_pipe(attempts.bundle(name))))
        return found

    async def wait_for_change(self, since: int, seconds: float) -> None:
        """Wait until the revision is greater than `since`, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self.revision <= since:
                    await self._changed.wait()
        except TimeoutError:
            return

    def _begin_deletion(self, group: Group) -> asyncio.Task[None]:
        task = self._tasks.start(self._destroy(group), f"delete {group.record.id}")
        self._deleting[group.record.key] = task
        return task

    async def _destroy(self, group: Group) -> None:
        key = group.record.key
        assert group.record.status.delete_by is not None
        left = clock.parse(group.record.status.delete_by) - clock.now()
        try:
            await group.destroy(max(left.total_seconds(), 0))
            self._groups.pop(key, None)
        finally:
            self._deleting.pop(key, None)
        self._publish(group.record)

    def _publish(self, _: GroupRecord) -> None:
        self.revision += 1
        self._changed.set()
        self._changed = asyncio.Event()


async def _renew_volumes(group: Group) -> None:
    try:
        await group.renew_volumes()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ArmError(500, "VolumeUpdateFailed", f"The files of the volumes cannot be written: {reason}.") from error


def _fixed(properties: GroupProperties) -> object:
    """Return the properties that an update cannot change. Others, such as the environment, apply at the next start."""

    def fixed(containers: list[Container]) -> object:
        return [
            (
                item.name,
                item.properties.image,
                item.properties.command,
                item.properties.args,
                item.properties.resources,
            )
            for item in containers
        ]

    return (
        fixed(properties.init_containers),
        fixed(properties.containers),
        [(volume.name, volume.kind, volume.empty_dir) for volume in properties.volumes],
        properties.restart_policy,
        properties.os_type,
        properties.subnet_ids,
    )
