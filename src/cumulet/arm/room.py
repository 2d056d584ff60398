"""The room's process: opens the index, connects to identity and the providers, and serves requests."""

from __future__ import annotations

from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.arm.access import Access
from cumulet.arm.providers import Providers
from cumulet.arm.request_handler import RequestHandler
from cumulet.arm.resource_groups import Groups
from cumulet.arm.store import Index
from cumulet.common.arm import arm_errors
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
            access = Access(
                to_public,
                to_providers,
                config.url("identity"),
                config.tenant_id,
                arm_audiences(config.addresses["arm"]),
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
            handler = RequestHandler(config, access, groups, providers, index, metrics)
            app = web.Application(middlewares=[arm_errors])
            app.add_routes(health_routes(metrics))
            app.router.add_route("*", r"/{path:[\s\S]*}", handler.handle)
            groups.resume()
            async with room.serving(app):
                room.ready()
                await room.stopping.wait()
    finally:
        index.close()
