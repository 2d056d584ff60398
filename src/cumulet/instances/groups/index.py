"""The container groups that exist, by resource id, and a revision that grows with every change of one."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable

from cumulet.common.arm import ArmError, ResourceId
from cumulet.instances.groups.attempts import UID_PART
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.revisions import Revisions
from cumulet.instances.runtime.conmon import control_pipe
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.streams.log_files import LogFiles
from cumulet.instances.streams.rotation import WrittenLog


class GroupIndex:
    """The groups by the keys of their ids, which are compared without case."""

    def __init__(self) -> None:
        self._groups: dict[str, Group] = {}
        # They start at a number that no earlier process used.
        self.revisions = Revisions(int(asyncio.get_running_loop().time() * 1000))

    def all(self) -> list[Group]:
        """Return all groups, including those that are being deleted."""
        return list(self._groups.values())

    def these(self, keys: Iterable[str]) -> list[Group]:
        """Return the groups with these keys, without those that are gone."""
        return [self._groups[key] for key in keys if key in self._groups]

    def at(self, address: str) -> GroupRecord | None:
        """Return the group that has an address, or `None`. No other has it until this one's network is destroyed."""
        for group in self.all():
            if group.record.status.ip == address and not group.record.status.is_over:
                return group.record
        return None

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

    def current(self, record: GroupRecord) -> Group:
        """Return the group of a record. Raises `KeyError` if it is gone."""
        return self._groups[record.key]

    def set(self, group: Group) -> Group:
        """Add a group, or put it in the place of the one with its id, and return it."""
        self._groups[group.record.key] = group
        return group

    def remove(self, record: GroupRecord) -> None:
        """Remove the group of a record."""
        self._groups.pop(record.key, None)

    def publish(self, record: GroupRecord) -> None:
        """Count a change of a group, or its removal."""
        if record.key in self._groups:
            self.revisions.changed(record.key)
        else:
            self.revisions.removed(record.key, record.id)

    def publish_soon(self, record: GroupRecord) -> None:
        """Count a step of a group's start, unless a change follows soon and is counted for it."""
        if record.key in self._groups:
            self.revisions.changed_soon(record.key)

    async def next_change(self, seconds: float) -> None:
        """Wait for the next change of any group, for at most `seconds`."""
        await self.revisions.wait(self.revisions.newest, seconds)

    def new_uid(self) -> str:
        """Return a uid that is unique, also in the part that is in the ids of containers."""
        taken = {group.record.uid[:UID_PART] for group in self._groups.values()}
        while (uid := str(uuid.uuid4()))[:UID_PART] in taken:
            pass
        return uid

    def image_uses(self) -> dict[str, int]:
        """Return the images of all containers by their ids, with the number of groups; also those of ended containers."""
        uses: Counter[str] = Counter()
        for group in self._groups.values():
            containers = group.record.status.containers.values()
            uses.update({status.image_id for status in containers if status.image_id})
        return uses

    def written_logs(self) -> list[WrittenLog]:
        """Return the logs of all running containers."""
        found = []
        for group in self._groups.values():
            attempts = group.attempts
            for name, status in group.record.status.containers.items():
                if status.current_state.state == "Running":
                    found.append(WrittenLog(LogFiles(attempts.log(name)), control_pipe(attempts.bundle(name))))
        return found
