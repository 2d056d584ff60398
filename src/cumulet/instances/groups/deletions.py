"""The deletions of groups. Each is on disk with its deadline, and a restart of the room resumes it."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from cumulet.common import clock
from cumulet.common.tasks import Backoff, TaskSet
from cumulet.instances.groups.actions import Actions
from cumulet.instances.groups.group import Group
from cumulet.instances.groups.index import GroupIndex
from cumulet.instances.groups.logins import Logins
from cumulet.instances.store.operations import Operations
from cumulet.instances.store.store import Store

log = logging.getLogger(__name__)


class Deletions:
    """The running deletions, by the keys of their groups, with at most one for each."""

    def __init__(
        self,
        index: GroupIndex,
        store: Store,
        operations: Operations,
        tasks: TaskSet,
        actions: Actions,
        logins: Logins,
    ) -> None:
        self._index = index
        self._store = store
        self._operations = operations
        self._tasks = tasks
        self._actions = actions
        self._logins = logins
        self._running: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, key: str) -> bool:
        """Whether the group of that key is being deleted."""
        return key in self._running

    async def begin(self, group: Group, grace: int, *, wait: bool) -> str | None:
        """Delete a group; its containers have `grace` seconds to end. A second call can only shorten that.

        Returns the id of the operation, or with `wait` `None` when the group is gone.
        """
        record, status = group.record, group.record.status
        operation = None if wait else await self._operations.begin(record.uid)
        if status.delete_by is None:
            await self._actions.cancel(record)
            group, status = self._index.current(record), record.status
        by = clock.rfc3339_micro(clock.now() + timedelta(seconds=grace))
        if status.delete_by is None or by < status.delete_by:
            status.delete_by = by
            await self._store.put_status(record)
            group.hasten(grace)
        task = self._running.get(record.key) or self.resume(group)
        if wait:
            await asyncio.shield(task)
        else:
            self._index.publish(record)
        return operation

    def resume(self, group: Group) -> asyncio.Task[None]:
        """Continue a deletion after a restart of the room, with the same deadline."""
        task = self._tasks.start(self._run(group), f"delete {group.record.id}")
        self._running[group.record.key] = task
        return task

    async def _run(self, group: Group) -> None:
        record = group.record
        assert record.status.delete_by is not None
        backoff = Backoff(1, 60)
        try:
            while True:
                left = clock.parse(record.status.delete_by) - clock.now()
                try:
                    await self._logins.forget(record)
                    await group.destroy(max(left.total_seconds(), 0))
                    await self._operations.end_all(record.uid)
                    break
                except Exception:
                    # For example, a full disk: the group would otherwise stay until the next start of the room.
                    log.exception("deleting %s", record.id)
                    await backoff.wait()
            self._index.remove(record)
        finally:
            self._running.pop(record.key, None)
        self._index.publish(record)
