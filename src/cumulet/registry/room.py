"""The composition of the room: opens the stores, connects the parts, and serves the data plane and the provider."""

from __future__ import annotations

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common import tls
from cumulet.common.arm import arm_errors, behind_the_front_door
from cumulet.common.health import HEALTH, health_routes
from cumulet.common.logs import AccessLog
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.common.tls_loop import Loop
from cumulet.registry.access.gate import Gate
from cumulet.registry.access.guard import Guard
from cumulet.registry.access.token_endpoints import Login
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.acr.routes import Acr
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.filesystem import FileContent
from cumulet.registry.distribution.blobs import Blobs
from cumulet.registry.distribution.manifests import Manifests
from cumulet.registry.distribution.routes import Distribution
from cumulet.registry.distribution.upload_sessions import Sessions
from cumulet.registry.distribution.uploads import Uploads
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.instrumentation import Observer, unready
from cumulet.registry.provider import routes
from cumulet.registry.provider.imports import Imports
from cumulet.registry.provider.registries import Registries
from cumulet.registry.provider.webhooks import Addresses
from cumulet.registry.response_cache import ResponseCache
from cumulet.registry.upstream.client import Upstream
from cumulet.registry.upstream.image_copy import Copier, OtherRegistry
from cumulet.registry.upstream.pull_through_cache import PullThrough
from cumulet.registry.webhooks.deliveries import Deliveries
from cumulet.registry.webhooks.events import Events

#: The routes that callers other than the front door may use. `Guard` and `Login` check each of their requests.
OPEN = HEALTH | {"/oauth2/token", "/oauth2/exchange", "/acr/v1/{path}", "/v2", "/v2/{path}"}

#: The event loop whose `sendfile` sends blobs.
new_event_loop = Loop


async def serve(room: Room) -> None:
    """Serve until the room is stopped."""
    config = room.config
    catalog = Catalog(room.data_dir / "registry.db")
    catalog.open()
    limits = config.registry_limits
    content = FileContent(room.data_dir / "content")
    pushes = RunningPushes(limits.collection_grace)
    links = Links(catalog, content, pushes)
    sessions = Sessions(catalog, content)
    collector = Collector(catalog, links, sessions, pushes, limits)
    access = AccessLog(room.name)
    connector = aiohttp.TCPConnector(ssl=room.client_tls(), limit=0)
    # For servers that users name: receivers of webhooks and other registries. TLS uses this machine's trusted authorities.
    outside = config.egress().session(tls.client_context(config.trust_bundle_file))
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session,
            outside as world,
            task_set() as tasks,
        ):
            gate = Gate(config, session, Tokens(room.data_dir), catalog.resources)
            guard = Guard(catalog, gate, config.registry_suffix)
            uploads = Uploads(catalog, content, links, sessions, guard, limits)
            deliveries = Deliveries(catalog.database, world, Addresses(catalog, gate.tokens).find)
            events = Events(catalog.resources, deliveries, config.registry_suffix)
            manifests = Manifests(catalog, pushes, limits, events)
            copier = Copier(catalog, links, pushes)

            def elsewhere(server: str, credentials: tuple[str, str] | None) -> OtherRegistry:
                upstream = Upstream(world, server, credentials, limits)
                return OtherRegistry(upstream, content, links)

            pull_through = PullThrough(catalog, links, pushes, gate.tokens, elsewhere)
            blobs = Blobs(content, links)
            distribution = Distribution(guard, blobs, uploads, manifests, pushes, pull_through)
            login = Login(gate, guard)
            metrics = CollectorRegistry()
            observer = Observer(metrics, access)
            answers = ResponseCache(catalog.database, pushes, observer)
            app = web.Application(middlewares=[arm_errors, behind_the_front_door(OPEN)])
            app.add_routes(health_routes(metrics, lambda: unready(catalog.database, room.data_dir)))
            registries = Registries(catalog, gate, collector, config.login_servers_file)
            registries.publish()
            imports = Imports(catalog, gate, links, copier, events, tasks, elsewhere)
            app.add_routes(
                routes.routes(catalog, gate, collector, registries, events, deliveries, imports, pull_through)
            )
            for path, handler in (
                ("/oauth2/token", login.token),
                ("/oauth2/exchange", login.exchange),
                ("/acr/v1/{path:(?s:.*)}", Acr(catalog, content, guard, events, config.registry_suffix).handle),
                ("/v2", distribution.handle),
                ("/v2/{path:(?s:.*)}", distribution.handle),
            ):
                app.router.add_route("*", path, observer.observed(handler))
            # The readers of bodies time out earlier than this, with an error in the OCI's form.
            bounds = msgspec.structs.replace(config.http_limits, body=2 * config.registry_limits.upload_stall)
            async with room.serving(app, around=answers.around, limits=bounds):
                tasks.start_essential(collector.run(), "collection")
                tasks.start_essential(deliveries.run(tasks), "deliveries")
                room.ready()
                await room.stopping.wait()
    finally:
        access.close()
        catalog.close()
