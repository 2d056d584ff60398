"""The order in which the containers of a group start and end, as in a kubelet.

Init containers start one after the other: an ordinary one runs to its end, a sidecar (`restartPolicy: Always`) until it has
started. Then all others start at the same time. When they have ended for good, the sidecars end in reverse order.
"""

from __future__ import annotations

import asyncio

from cumulet.instances.groups.container import ContainerLife
from cumulet.instances.groups.grace import Grace
from cumulet.instances.model.lifecycle import RestartPolicy
from cumulet.instances.model.properties import Container
from cumulet.instances.store.records import GroupRecord


def is_sidecar(container: Container) -> bool:
    """Return whether an init container is a sidecar."""
    return container.properties.restart_policy == "Always"


def policy_of(record: GroupRecord, name: str) -> RestartPolicy:
    """Return the group's restart policy for a container: an init container runs until it succeeds, an ephemeral one once."""
    if any(item.name == name for item in record.properties.ephemeral_containers):
        return "Never"
    policy = record.properties.restart_policy
    init = any(item.name == name for item in record.properties.init_containers)
    return "OnFailure" if init and policy == "Always" else policy


class Sequence:
    """Runs the containers of one group, by their lives."""

    def __init__(self, record: GroupRecord, lives: dict[str, ContainerLife]) -> None:
        self._record = record
        self._lives = lives

    async def run(self, *, anew: bool) -> bool:
        """Run all containers; return whether all that are no sidecars succeeded.

        `anew` is whether the group lost its sandbox. As in a kubelet, its init containers run again, unless nothing of the
        group is restarted.
        """
        if anew:
            if self._record.properties.restart_policy == "Never":
                return await self._end_interrupted()
            if not self._is_over():
                self._repeat_inits()
        async with asyncio.TaskGroup() as tasks:
            succeeded = await self._run(tasks, anew=anew)
            await self._stop_sidecars(Grace(self._record.properties.termination_grace_period_seconds))
        return succeeded

    async def stop(self, grace: Grace) -> None:
        """Stop all containers for good: the sidecars in reverse order after all others."""
        sidecars = {life.name for life in self._sidecars()}
        others = [life for life in self._lives.values() if life.name not in sidecars]
        ended = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._stop_sidecars(grace, ended))
            await asyncio.gather(*(life.stop(grace) for life in others))
            ended.set()

    def hasten(self, seconds: float) -> None:
        """Shorten the grace of containers that are being stopped to `seconds` from now."""
        for life in self._lives.values():
            life.hasten(seconds)

    async def _run(self, tasks: asyncio.TaskGroup, *, anew: bool) -> bool:
        properties = self._record.properties
        mains = self._mains()
        over = self._is_over()
        # Once a container has started, a kubelet waits for no sidecar.
        waits = anew or not any(life.status.attempt for life in mains)
        for container in properties.init_containers:
            life = self._lives[container.name]
            if is_sidecar(container):
                if not over or life.status.stage == "started":
                    tasks.create_task(life.run())
                if waits and not over:
                    await life.started.wait()
            elif not over and await life.run() != 0:
                return False
        running = [tasks.create_task(life.run()) for life in mains]
        return all(code == 0 for code in await asyncio.gather(*running))

    async def _end_interrupted(self) -> bool:
        """Record the end of what ran before the sandbox was lost; nothing is started."""
        started = [life for life in self._lives.values() if life.status.stage == "started"]
        await asyncio.gather(*(life.record_end() for life in started))
        for container in (*self._record.properties.init_containers, *self._record.properties.containers):
            life = self._lives[container.name]
            if life.status.stage != "ended":
                life.give_up()
        return all(life.code == 0 for life in self._mains())

    def _repeat_inits(self) -> None:
        for container in self._record.properties.init_containers:
            status = self._lives[container.name].status
            if status.stage == "ended" and not is_sidecar(container):
                status.stage = "again"

    async def _stop_sidecars(self, grace: Grace, turn: asyncio.Event | None = None) -> None:
        """Stop the sidecars, each after the one that started after it; the first when `turn` is set."""
        async with asyncio.TaskGroup() as tasks:
            for life in reversed(self._sidecars()):
                ended = asyncio.Event()
                tasks.create_task(_stop_in_turn(life, grace, turn, ended))
                turn = ended

    def _mains(self) -> list[ContainerLife]:
        return [self._lives[item.name] for item in self._record.properties.containers]

    def _sidecars(self) -> list[ContainerLife]:
        return [self._lives[item.name] for item in self._record.properties.init_containers if is_sidecar(item)]

    def _is_over(self) -> bool:
        """Return whether all containers that are no init containers have ended for good."""
        return all(life.is_over for life in self._mains())


async def _stop_in_turn(life: ContainerLife, grace: Grace, turn: asyncio.Event | None, ended: asyncio.Event) -> None:
    await life.stop(grace, turn=turn)
    if turn is not None:
        await turn.wait()
    ended.set()
