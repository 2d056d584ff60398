"""The room's process: opens the index, connects to identity and the providers, and serves requests."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from cumulet.arm.access import Access
from cumulet.arm.providers import Providers
from cumulet.arm.request_handler import RequestHandler
from cumulet.arm.resource_groups import Groups
from cumulet.arm.store import Index
from cumulet.common import doors
from cumulet.common.arm import arm_errors
from cumulet.common.config import Config
from cumulet.common.entra import arm_audiences
from cumulet.common.health import health_routes
from cumulet.common.room import Room
from cumulet.common.tasks import task_set


async def serve(room: Room) -> None:
    """Serve until the room is stopped."""
    config = room.config
    index = Index(room.data_dir / "arm.db")
    index.open()
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    public = aiohttp.TCPConnector(ssl=room.client_tls(), limit=0)
    internal = aiohttp.TCPConnector(ssl=room.client_tls(show=config.room_files(room.name)), limit=0)
    try:
        async with (
            aiohttp.ClientSession(connector=public, timeout=timeout) as to_public,
            aiohttp.ClientSession(connector=internal, timeout=timeout, auto_decompress=False) as to_providers,
            task_set() as tasks,
        ):
            addresses = {
                "microsoft.authorization": config.url("identity"),
                "microsoft.compute": config.url("instances"),
                "microsoft.containerinstance": config.url("instances"),
                "microsoft.containerregistry": config.url("registry"),
                # Only container groups have metrics.
                "microsoft.insights": config.url("instances"),
                "microsoft.managedidentity": config.url("identity"),
            }
            door = doors.door(config, "arm")
            access = Access(
                to_public,
                to_providers,
                config.url("identity"),
                config.tenant_id,
                arm_audiences(config.addresses["arm"], door),
            )
            providers = Providers(
                to_providers, addresses, index, tasks, access.revoke_below, own_url=config.url("arm")
            )
            groups = Groups(
                index,
                config.subscription_id,
                urlsplit(config.url("arm")).netloc,
                tasks,
                providers,
                access.revoke_below,
            )
            metrics = CollectorRegistry()
            requests = Counter(
                "arm_requests", "Requests by method and status.", ["method", "status"], registry=metrics
            )

            def application(seen: Config) -> web.Application:
                """Return the application for clients that see the rooms at the addresses of these settings."""
                handler = RequestHandler(seen, access, groups, providers, index, requests)
                app = web.Application(middlewares=[arm_errors])
                if seen is config:
                    app.add_routes(health_routes(metrics))
                app.router.add_route("*", r"/{path:[\s\S]*}", handler.handle)
                return app

            moved = {name: doors.door(config, name) for name in doors.PORTS}
            inside = msgspec.structs.replace(config, addresses=config.addresses | moved)
            groups.resume()
            async with room.serving(application(config)), room.serving_door(application(inside)):
                room.ready()
                await room.stopping.wait()
    finally:
        index.close()
