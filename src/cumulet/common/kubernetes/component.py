"""The parts that rooms share as clients of Kubernetes: the client, the health checks, the running informers."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.health import health_routes
from cumulet.common.kubernetes.client import Client
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.room import Room
from cumulet.common.tasks import TaskSet

#: Seconds between two resyncs, at which handlers receive every object again.
RESYNC = 1800.0


@contextlib.asynccontextmanager
async def client_of(room: Room, user: str | None = None) -> AsyncIterator[Client]:
    """Open a client with the credentials of the room, or of another user. It reads its kubeconfig again on a reload."""
    file = room.config.kubeconfig_file(user or room.name)
    async with Client(load_kubeconfig(file), user_agent=f"cumulet-{room.name}") as client:
        room.on_reload(lambda: client.use(load_kubeconfig(file)))
        yield client


def health_app(
    informers: Sequence[AnyInformer], starting: Callable[[], str | None] = lambda: None
) -> web.Application:
    """The endpoints of health and metrics. The room is ready once every informer has its first list and nothing is `starting`.

    `starting` returns what the room still waits for, or `None`.
    """

    def unready() -> str | None:
        waiting = [informer.resource.plural for informer in informers if not informer.synced.is_set()]
        return f"waiting for {', '.join(waiting)}" if waiting else starting()

    app = web.Application()
    app.add_routes(health_routes(CollectorRegistry(), unready))
    return app


async def run_informers(informers: Sequence[AnyInformer], tasks: TaskSet, stopping: asyncio.Event) -> None:
    """Start all informers and wait until each has its first list, or until the room stops."""
    # Objects are numerous and have no cycles, so that the search for cycles is slow and finds nothing.
    gc.set_threshold(50_000, 20, 50)
    for informer in informers:
        tasks.start_essential(informer.run(), f"informer {informer.resource.plural}")
        tasks.start_essential(informer.resync(RESYNC), f"resync {informer.resource.plural}")
    synced = asyncio.gather(*(informer.synced.wait() for informer in informers))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((synced, stopped), return_when=asyncio.FIRST_COMPLETED)
    finally:
        synced.cancel()
        stopped.cancel()
        await asyncio.gather(synced, stopped, return_exceptions=True)
    gc.collect()
    gc.freeze()
