"""The life cycle of the room: watch, take part in the election, schedule."""

from __future__ import annotations

from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.kubernetes.election import lead
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.scheduler.scheduler import Scheduler


async def serve(room: Room) -> None:
    """Schedule until the room stops."""
    async with client_of(room) as client, task_set() as tasks:
        scheduler = Scheduler(client)
        async with room.serving(health_app(scheduler.informers)):
            room.ready()
            tasks.start_essential(scheduler.events.run(), "events")
            await run_informers(scheduler.informers, tasks, room.stopping)
            await lead(client, "kube-scheduler", room, scheduler.work)
