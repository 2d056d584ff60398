"""The ephemeral containers of a group, which an update adds while the group runs. Each runs once, and decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cumulet.instances.groups.container import ContainerLife
from cumulet.instances.groups.grace import Grace
from cumulet.instances.model.properties import Container
from cumulet.instances.store.records import GroupRecord


class EphemeralContainers:
    """Runs the ephemeral containers of one group. `lives` are those of all its containers, and gets theirs."""

    def __init__(
        self, record: GroupRecord, lives: dict[str, ContainerLife], make: Callable[[Container], ContainerLife]
    ) -> None:
        self._record = record
        self._lives = lives
        self._make = make
        self._tasks: dict[str, asyncio.Task[int]] = {}
        self._running = False

    def start(self) -> None:
        """Run what there is, and from now on what is added."""
        self._running = True
        self.add()

    def add(self) -> None:
        """Make and run the containers that an update has added."""
        for container in self._record.properties.ephemeral_containers:
            name = container.name
            if name not in self._lives:
                self._lives[name] = self._make(container)
            if self._running and name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._lives[name].run(), name=f"ephemeral {name}")

    async def end(self, grace: Grace) -> None:
        """Stop all of them for good: the containers of the group have ended."""
        self._running = False
        await asyncio.gather(*(self._lives[name].stop(grace) for name in self._tasks))
        await self.cancel()

    async def cancel(self) -> None:
        """End the tasks; containers run on."""
        self._running = False
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
