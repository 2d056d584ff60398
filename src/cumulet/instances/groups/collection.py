"""All container groups of the room: creation, update, deletion, and a revision that grows with every change."""

from __future__ import annotations

import asyncio
import logging
import os
import uuid
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.config import Config
from cumulet.common.resolver import LoginServerResolver
from cumulet.common.tasks import Backoff, TaskSet
from cumulet.instances.actions.targets import Targets
from cumulet.instances.groups.actions import Actions
from cumulet.instances.groups.admission import Admission
from cumulet.instances.groups.attempts import UID_PART
from cumulet.instances.groups.folders import Folders
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.revisions import Revisions
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
from cumulet.instances.images.cache import Images
from cumulet.instances.metering.meter import Meter
from cumulet.instances.model.properties import GroupProperties, virtual_network
from cumulet.instances.runtime.conmon import Runtime, control_pipe
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.git_repositories import GitRepositories
from cumulet.instances.sandbox.names import installation_id
from cumulet.instances.sandbox.network import Network
from cumulet.instances.sandbox.user_namespaces import UserNamespaces
from cumulet.instances.store.operations import Operations
from cumulet.instances.store.records import GroupRecord, GroupStatus
from cumulet.instances.store.store import Store
from cumulet.instances.streams.log_files import LogFiles
from cumulet.instances.streams.rotation import WrittenLog

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """The group of a request, whether it is new, and the id of the operation that reports the change."""

    group: Group
    is_new: bool = False
    operation: str | None = None


class Groups:
    """The groups by resource id, which is compared without case."""

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
    ) -> None:
        self._folder = folder / "sandboxes"
        self._before = folder / "groups"
        self._store = store
        self._tasks = tasks
        self._groups: dict[str, Group] = {}
        self._deleting: dict[str, asyncio.Task[None]] = {}
        self._creating: set[str] = set()
        # They start at a number that no earlier process used.
        self.revisions = Revisions(int(asyncio.get_running_loop().time() * 1000))
        records = store.groups()
        self._network = Network(config, {record.status.ip for record in records if record.status.ip})
        self._records = records
        shares = FileShares(config.file_shares)
        self._services = Services(
            store,
            Images(
                folder / "images",
                registries,
                LoginServerResolver(config).is_login_server,
                config.image_limits,
                self.image_uses,
            ),
            self._network,
            Runtime(folder / "state"),
            meter,
            targets,
            installation_id(config),
            self._publish,
            UserNamespaces(config, folder / "images"),
            logins,
            shares,
            GitRepositories(config, config.egress()),
        )
        self._admission = Admission(config.instance_limits, shares)
        self.operations = Operations(store.database)
        self._actions = Actions(
            store, self.operations, tasks, self._current, self._rebuild, self._publish, self._next_change
        )

    @property
    def images(self) -> Images:
        """The images on this machine."""
        return self._services.images

    def image_uses(self) -> dict[str, int]:
        """Return the images of all containers by their ids, with the number of groups; also those of ended containers."""
        uses: Counter[str] = Counter()
        for group in self._groups.values():
            containers = group.record.status.containers.values()
            uses.update({status.image_id for status in containers if status.image_id})
        return uses

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
                if record.status.ip and not record.status.is_over
            }
        )
        users = self._services.users
        await users.open(record.status.ids for record in self._records if users.is_there(record.uid))
        await self._services.meter.open(
            {record.uid for record in self._records if self._network.is_there(record.uid)}
        )
        for record in self._records:
            group = self._group(record)
            self._groups[record.key] = group
            if record.status.delete_by is not None:
                self._begin_deletion(group)
            elif record.status.action is not None:
                self._actions.resume(record)
            else:
                group.start()
        self._tasks.start(self.images.eviction.run(), "image eviction")
        await self._actions.end_orphans(self._records)

    def _current(self, record: GroupRecord) -> Group:
        return self._groups[record.key]

    def _rebuild(self, record: GroupRecord) -> Group:
        group = self._groups[record.key] = self._group(record)
        return group

    async def _next_change(self, seconds: float) -> None:
        await self.revisions.wait(self.revisions.newest, seconds)

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

    def these(self, keys: Iterable[str]) -> list[Group]:
        """Return the groups with these keys, without those that are gone."""
        return [self._groups[key] for key in keys if key in self._groups]

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
        self._admission.check(request, [group.record for group in self._groups.values() if group is not existing])
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
        group = self._groups.get(key)
        if (
            key in self._deleting
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
            self._new_uid(),
            key,
            request.resource_id,
            request.location,
            request.tags,
            request.properties,
            GroupStatus(),
            envelope=request.envelope,
        )
        self._creating.add(key)
        try:
            await self._store.put(record)
        finally:
            self._creating.discard(key)
        group = self._groups[key] = self._group(record)
        if record.properties.pod:
            self._publish(record)
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
        self._publish(record)
        return Answer(group)

    async def _update(self, group: Group, request: GroupRequest) -> Answer:
        record = group.record
        is_over = record.status.is_over
        if not is_over and demanding_deletion(record) != demanding_deletion(request):
            raise invalid_update(request.name)
        record.tags = request.tags
        if not is_over and not differs(record, request):
            await self._store.put(record)
            self._publish(record)
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
        if record.key in self._deleting:
            self._demand_idle(record.key)
        if action is None or action.kind != "stop":
            if record.status.state == "Stopped":
                return
            await self._actions.begin(record, "stop")
        await self._actions.finish(record)

    def _new_uid(self) -> str:
        """Return a uid that is unique, also in the part that is in the ids of containers."""
        taken = {group.record.uid[:UID_PART] for group in self._groups.values()}
        while (uid := str(uuid.uuid4()))[:UID_PART] in taken:
            pass
        return uid

    async def patch(self, group: Group, tags: dict[str, str] | None, properties: GroupProperties | None) -> None:
        """Replace a group's tags, what can change of its properties, or both, while its containers run. Raises `ArmError`."""
        record = group.record
        if tags is not None:
            record.tags = tags
        if properties is not None:
            self._demand_idle(record.key)
            resized = resources_of(properties) != resources_of(record.properties)
            if resized:
                others = [other.record for other in self._groups.values() if other is not group]
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
        self._publish(record)

    async def delete(self, group: Group, grace: int, *, wait: bool) -> str | None:
        """Delete a group; its containers have `grace` seconds to end. A second call can only shorten that.

        Returns the id of the operation, or with `wait` when the group is gone. After a restart of the room the deletion
        continues, with the same deadline.
        """
        record, status = group.record, group.record.status
        operation = None if wait else await self.operations.begin(record.uid)
        if status.delete_by is None:
            await self._actions.cancel(record)
            group, status = self._current(record), record.status
        by = clock.rfc3339_micro(clock.now() + timedelta(seconds=grace))
        if status.delete_by is None or by < status.delete_by:
            status.delete_by = by
            await self._store.put_status(group.record)
            group.hasten(grace)
        task = self._deleting.get(group.record.key) or self._begin_deletion(group)
        if wait:
            await asyncio.shield(task)
        else:
            self._publish(record)
        return operation

    def written_logs(self) -> list[WrittenLog]:
        """Return the logs of all running containers."""
        found = []
        for group in self._groups.values():
            attempts = group.attempts
            for name, status in group.record.status.containers.items():
                if status.current_state.state == "Running":
                    found.append(WrittenLog(LogFiles(attempts.log(name)), control_pipe(attempts.bundle(name))))
        return found

    def _begin_deletion(self, group: Group) -> asyncio.Task[None]:
        task = self._tasks.start(self._destroy(group), f"delete {group.record.id}")
        self._deleting[group.record.key] = task
        return task

    async def _destroy(self, group: Group) -> None:
        key = group.record.key
        assert group.record.status.delete_by is not None
        backoff = Backoff(1, 60)
        try:
            while key in self._groups:
                left = clock.parse(group.record.status.delete_by) - clock.now()
                try:
                    await self._services.logins.forget(group.record)
                    await group.destroy(max(left.total_seconds(), 0))
                    await self.operations.end_all(group.record.uid)
                    self._groups.pop(key, None)
                except Exception:
                    # For example, a full disk: the group would otherwise stay until the next start of the room.
                    log.exception("deleting %s", group.record.id)
                    await backoff.wait()
        finally:
            self._deleting.pop(key, None)
        self._publish(group.record)

    def _publish(self, record: GroupRecord) -> None:
        if record.key in self._groups:
            self.revisions.changed(record.key)
        else:
            self.revisions.removed(record.key, record.id)


async def _renew_volumes(group: Group) -> None:
    try:
        await group.renew_volumes()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ArmError(500, "VolumeUpdateFailed", f"The files of the volumes cannot be written: {reason}.") from error
