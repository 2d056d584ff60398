"""Watches the cluster, and runs the parts of the network.

A part is an async context manager that gets the `Cluster` once every informer has its first list. It serves while it is
open. When the room stops, tables in the kernel stay as they are, so that connections continue; `cumulet down` removes
them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.network.cluster import Cluster
from cumulet.network.dns import part as dns
from cumulet.network.policy import controller as policies
from cumulet.network.services import controller as services

#: The parts, in the order of their start: what restricts pods comes first, and names last.
PARTS: Mapping[str, Callable[[Cluster], AbstractAsyncContextManager[None]]] = {
    "policies": policies.running,
    "services": services.running,
    "dns": dns.running,
}


async def serve(room: Room) -> None:
    """Run the network until the room is stopped. It is ready once every part serves."""
    waiting = [*PARTS]

    def starting() -> str | None:
        return f"starting: {', '.join(waiting)}" if waiting else None

    async with client_of(room) as client, task_set() as tasks:
        cluster = Cluster.watched_by(client, room.config, tasks, room.doors)
        async with room.serving(health_app(cluster.informers, starting)):
            room.ready()
            tasks.start_essential(cluster.events.run(), "events")
            await run_informers(cluster.informers, tasks, room.stopping)
            async with contextlib.AsyncExitStack() as parts:
                if not room.stopping.is_set():
                    for name, part in PARTS.items():
                        await parts.enter_async_context(part(cluster))
                        waiting.remove(name)
                await room.stopping.wait()
