"""Starts the room: resumes all groups and serves the provider. Containers keep running when it stops."""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.arm import GROUP_BODY_LIMIT, arm_errors, behind_the_front_door
from cumulet.common.dns.server import serving
from cumulet.common.health import HEALTH, health_routes
from cumulet.common.resolver import LoginServerResolver
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.instances.actions.targets import open_targets
from cumulet.instances.groups.collection import Groups
from cumulet.instances.groups.disk_manager import DiskManager
from cumulet.instances.groups.identities import Identities
from cumulet.instances.groups.logins import Logins
from cumulet.instances.groups.workload_environment import WorkloadEnvironment
from cumulet.instances.metadata.service import MetadataService
from cumulet.instances.metadata.tokens import ManagedTokens
from cumulet.instances.metering.meter import Meter
from cumulet.instances.provider.disks import Disks
from cumulet.instances.provider.metrics import Metrics
from cumulet.instances.provider.names import GroupNames, bind
from cumulet.instances.provider.regions import Regions
from cumulet.instances.provider.resources import Provider
from cumulet.instances.provider.websockets import Streams
from cumulet.instances.store.disks import DiskStore
from cumulet.instances.store.store import Store
from cumulet.instances.streams.changes import Changes
from cumulet.instances.streams.rotation import rotate

#: Routes without the front door's certificate: a stream has an unguessable name, and demands its password.
OPEN = HEALTH | {"/streams/{id}"}


async def serve(room: Room) -> None:
    """Serve until the room is stopped."""
    config = room.config
    store = Store(room.data_dir)
    store.open()
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(config.ca_file)
    # Users name registries; the installation's own is on loopback.
    registries = config.egress(reach_rooms=["registry"]).session(
        trusted,
        resolver=LoginServerResolver(config),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
    )
    # The room `identity` gives tokens of managed identities to this room's certificate.
    shown = room.client_tls(show=config.room_files("instances"))
    platform = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=shown), timeout=aiohttp.ClientTimeout(total=30)
    )
    identities = Identities(platform, config.url("identity"), config.tenant_id)
    # As in ACI, the strict one sets no endpoint: libraries use the metadata service.
    workload = WorkloadEnvironment(room.data_dir / "identity-header.key", has_endpoint=not config.strict_aci)
    logins = Logins(registries, identities, LoginServerResolver(config).is_login_server)
    try:
        async with registries, platform, open_targets(config.egress()) as targets, task_set() as tasks:
            changes = Changes()
            meter = Meter(store, room.data_dir, config.location)
            groups = Groups(config, room.data_dir, store, meter, registries, targets, tasks, logins, workload)
            metadata = MetadataService(groups.index.at, ManagedTokens(identities), workload.header)
            streams = Streams(config.url("instances"), groups.runtime, changes)
            app = web.Application(
                middlewares=[arm_errors, behind_the_front_door(OPEN)], client_max_size=GROUP_BODY_LIMIT
            )
            app.add_routes(health_routes(CollectorRegistry()))
            disk = DiskManager(room.data_dir, config.disk_limits, groups.index.all)
            metrics = Metrics(groups.index, config.location)
            app.add_routes(Provider(groups, identities, streams, metrics, changes, lambda: disk.pressure).routes())
            app.add_routes(Regions(groups, meter, config).routes())
            disks = Disks(
                DiskStore(store.database), groups.disks, lambda: (item.record for item in groups.index.all())
            )
            app.add_routes(disks.routes())
            app.router.add_get("/streams/{id}", streams.handle)
            tasks.start(meter.run(), "meter")
            await groups.open()
            tasks.start_essential(rotate(groups.index.written_logs, config.container_logs), "logs")
            tasks.start_essential(disk.run(), "disk")
            names = GroupNames(groups.index)
            tasks.start_essential(names.keep_file(config.group_names_file), "names")
            # The name server of pods asks here. The other addresses of the room are for HTTPS only.
            datagrams = bind(config.addresses["instances"])
            try:
                async with (
                    room.serving(app),
                    serving(names, [datagrams], []),
                    room.serving_door(metadata.application(), plain=True),
                ):
                    room.ready()
                    await room.stopping.wait()
            finally:
                groups.close()
                changes.close()
                await meter.close()
    finally:
        store.close()
