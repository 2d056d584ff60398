"""The room's life: take up every group that there was, serve the provider, leave the containers running."""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.arm import arm_errors, behind_the_front_door
from cumulet.common.health import HEALTH, health_routes
from cumulet.common.resolver import LoginServerResolver
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.instances import probes
from cumulet.instances.groups import Groups
from cumulet.instances.meter import Meter
from cumulet.instances.provider import Provider
from cumulet.instances.store import Store
from cumulet.instances.streams import Streams
from cumulet.instances.usage import Usage

#: What is open to others than the front door: a stream has a name that cannot be guessed and asks for its password.
OPEN = HEALTH | {"/streams/{id}"}


async def serve(room: Room) -> None:
    """Serve until told to stop."""
    config = room.config
    store = Store(room.data_dir)
    store.open()
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(config.ca_file)
    # A registry is whatever a user names; ours is among them, on loopback.
    registries = config.egress(reach_rooms=["registry"]).session(
        trusted,
        resolver=LoginServerResolver(config),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
    )
    try:
        async with registries, probes.open_session() as pages, task_set() as tasks:
            meter = Meter(store, config.location)
            groups = Groups(config, room.data_dir, store, meter, registries, pages, tasks)
            streams = Streams(config.url("instances"), groups.runtime)
            app = web.Application(
                middlewares=[arm_errors, behind_the_front_door(OPEN)], client_max_size=4 * 1024 * 1024
            )
            app.add_routes(health_routes(CollectorRegistry()))
            app.add_routes(Provider(groups, meter, streams, Usage(groups, config.location)).routes())
            app.router.add_get("/streams/{id}", streams.handle)
            tasks.start(meter.run(), "meter")
            await groups.open()
            try:
                async with room.serving(app):
                    room.ready()
                    await room.stopping.wait()
            finally:
                groups.close()
    finally:
        store.close()
