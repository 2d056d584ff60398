"""What every room that is a Kubernetes client does alike: its client, its health, its informers kept running."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.health import health_routes
from cumulet.common.kubernetes.client import Client
from cumulet.common.kubernetes.informer import Informer
from cumulet.common.kubernetes.kubeconfig import load_kubeconfig
from cumulet.common.room import Room
from cumulet.common.tasks import TaskSet

#: Seconds between two times at which handlers are given everything again.
RESYNC = 1800.0


@contextlib.asynccontextmanager
async def client_of(room: Room) -> AsyncIterator[Client]:
    """An open client as the room's own user."""
    file = room.config.kubeconfig_file(room.name)
    async with Client(load_kubeconfig(file), user_agent=f"cumulet-{room.name}") as client:
        room.on_reload(lambda: client.use(load_kubeconfig(file)))
        yield client


def health_app(informers: Sequence[Informer]) -> web.Application:
    """Health and metrics; ready once every informer has its first list."""

    def unready() -> str | None:
        waiting = [informer.resource.plural for informer in informers if not informer.synced.is_set()]
        return f"waiting for {', '.join(waiting)}" if waiting else None

    app = web.Application()
    app.add_routes(health_routes(CollectorRegistry(), unready))
    return app


async def run_informers(informers: Sequence[Informer], tasks: TaskSet, stopping: asyncio.Event) -> None:
    """Start them all and wait until each has its first list, or the room is to stop."""
    # Objects come by the thousand and are trees: looking for cycles among them finds none and takes long.
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
