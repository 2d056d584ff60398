"""The actions on a group: create, update, start, stop and restart. Each is on disk, and a restart of the room resumes it.

An action first ends the containers of before: those of a restart and an update keep address and volumes, as ACI documents it,
those of a stop lose them. Then it starts the group again, unless it is a stop. It ends when all containers have started,
or when one of them cannot.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Literal

from cumulet.common import clock
from cumulet.common.tasks import Backoff, TaskSet
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.index import GroupIndex
from cumulet.instances.groups.provisioning import Failure, failure, is_provisioned
from cumulet.instances.model.properties import GroupProperties
from cumulet.instances.store.operations import Operations
from cumulet.instances.store.records import Action, GroupRecord, GroupStatus
from cumulet.instances.store.store import Store

log = logging.getLogger(__name__)

#: Seconds in which a group must have started (ACI's `provisioningTimeoutInSeconds`).
_TIMEOUT = 1800.0
#: The code of an operation that another one has ended.
PREEMPTED = "OperationPreempted"

Kind = Literal["create", "update", "redeploy", "start", "restart", "stop"]


class Actions:
    """The running actions, by the uid of their group, with at most one for each.

    `rebuild` returns a new group of a record when the containers of the old one are gone.
    """

    def __init__(
        self,
        index: GroupIndex,
        store: Store,
        operations: Operations,
        tasks: TaskSet,
        rebuild: Callable[[GroupRecord], Group],
    ) -> None:
        self._index = index
        self._store = store
        self._operations = operations
        self._tasks = tasks
        self._rebuild = rebuild
        self._running: dict[str, asyncio.Task[None]] = {}

    async def begin(self, record: GroupRecord, kind: Kind) -> str:
        """Begin an action on a group, in place of the running one; return the id of its operation."""
        await self.cancel(record)
        operation, now = await self._operations.begin(record.uid), clock.now()
        grace = record.properties.termination_grace_period_seconds
        record.status.action = Action(
            kind,
            operation,
            clock.rfc3339_micro(now),
            clock.rfc3339_micro(now + timedelta(seconds=grace)),
            is_cleared=kind == "create",
        )
        await self._store.put(record)
        self._index.publish(record)
        self.resume(record)
        return operation

    def resume(self, record: GroupRecord) -> None:
        """Continue the action of a group after a restart of the room."""
        uid = record.uid
        task = self._tasks.start(self._run(self._index.current(record)), f"action on {record.id}")
        self._running[uid] = task
        task.add_done_callback(lambda _: self._running.pop(uid, None) if self._running.get(uid) is task else None)

    async def end_orphans(self, records: Sequence[GroupRecord]) -> None:
        """End operations that nothing continues, because the room was killed before it wrote the change."""
        known = {record.status.action.operation for record in records if record.status.action is not None}
        deleting = {record.uid for record in records if record.status.delete_by is not None}
        uids = {record.uid for record in records}
        for operation in self._operations.running():
            if operation.uid not in uids:
                await self._operations.end(operation.id)
            elif operation.id not in known and operation.uid not in deleting:
                await self._operations.end(operation.id, PREEMPTED, "The change was not begun. Try again.")

    async def finish(self, record: GroupRecord) -> None:
        """Wait until the running action of a group has ended, if there is one."""
        if task := self._running.get(record.uid):
            await asyncio.wait([task])

    async def cancel(self, record: GroupRecord) -> None:
        """End the running action of a group, if there is one, and its operation."""
        if task := self._running.pop(record.uid, None):
            task.cancel()
            await asyncio.wait([task])
        if (action := record.status.action) is not None:
            await self._operations.end(action.operation, PREEMPTED, "Another operation ended this one.")
            record.status.action = None

    async def _run(self, group: Group) -> None:
        record = group.record
        action = record.status.action
        assert action is not None
        found: Failure | None = None
        try:
            if not action.is_cleared:
                await self._clear(group, action)
                if action.kind != "stop":
                    group = self._index.set(self._rebuild(record))
            if action.kind != "stop":
                group.start()
                found = await self._started(group, action)
        except Exception as error:
            log.exception("the %s of group %s failed", action.kind, record.id)
            reason = str(error) if isinstance(error, OSError) else type(error).__name__
            found = Failure("InternalServerError", f"The {action.kind} of the container group failed: {reason}")
        if found is not None:
            record.status.provisioning_state = "Failed"
            if found.ends:
                await group.abort(found.message)
        record.status.action = None
        await _insist(lambda: self._store.put(record))
        await _insist(lambda: self._operations.end(action.operation, *(found[:2] if found is not None else ())))
        self._index.publish(record)

    async def _clear(self, group: Group, action: Action) -> None:
        """End the containers of before, and make the new properties those of the group."""
        record, status = group.record, group.record.status
        left = clock.parse(action.stop_by) - clock.now()
        grace = max(left.total_seconds(), 0)
        if action.kind in ("restart", "update"):
            await group.clear(grace)
            following = record.next if record.next is not None else record.properties
            await group.remove_containers(volumes=_volumes(following) != _volumes(record.properties))
        else:
            await group.tear_down(grace)
            status.ip, status.ids = "", 0
        if action.kind == "stop":
            status.state, status.provisioning_state = "Stopped", "Succeeded"
        else:
            if record.next is not None:
                record.properties, record.next = record.next, None
            record.status = GroupStatus(ip=status.ip, ids=status.ids, action=action)
        action.is_cleared = True
        await _insist(lambda: self._store.put(record))
        self._index.publish(record)

    async def _started(self, group: Group, action: Action) -> Failure | None:
        """Wait until a group has started or cannot; return why it cannot."""
        record = group.record
        left = _TIMEOUT - (clock.now() - clock.parse(action.began)).total_seconds()
        until = asyncio.get_running_loop().time() + max(left, 1)
        while (found := failure(record)) is None and not is_provisioned(record):
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return Failure(
                    "ContainerGroupProvisioningTimeout",
                    f"The containers of the group did not start within {_TIMEOUT:.0f} seconds.",
                )
            await self._index.next_change(left)
        return found


def _volumes(properties: GroupProperties) -> list[tuple[str, str]]:
    return [(volume.name, volume.kind) for volume in properties.volumes]


async def _insist(write: Callable[[], Awaitable[None]]) -> None:
    """Write, and repeat while the disk refuses."""
    backoff = Backoff(0.5, 30)
    while True:
        try:
            return await write()
        except sqlite3.OperationalError as error:
            log.warning("an action cannot be written: %s", error)
            await backoff.wait()
