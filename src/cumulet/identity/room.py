"""The room's process: registers the first principals, then serves OAuth2, Graph and two resource providers."""

from __future__ import annotations

import asyncio
import ssl
import uuid

import aiohttp
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common import clock, doors
from cumulet.common.arm import arm_errors, behind_the_front_door
from cumulet.common.entra import read_credential
from cumulet.common.health import HEALTH, health_routes
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment
from cumulet.common.room import Room
from cumulet.common.tasks import task_set, wait_for
from cumulet.identity import client_secrets, graph, oauth, platform
from cumulet.identity.federated_identity_credentials import FederatedIdentityCredentials
from cumulet.identity.graph import Graph
from cumulet.identity.issuer_keys import IssuerKeys
from cumulet.identity.managed_identities import ManagedIdentities
from cumulet.identity.oauth import TokenEndpoint
from cumulet.identity.platform import PlatformIdentities
from cumulet.identity.role_assignments import RoleAssignments
from cumulet.identity.role_definitions import RoleDefinitions
from cumulet.identity.signing_keys import SigningKeys
from cumulet.identity.store import Application, Directory, Principal

#: The routes that clients besides the front door can call. Graph requires a token, the token endpoint credentials, and the
#: identities of workloads the certificate of the platform.
OPEN = HEALTH | graph.OPEN | oauth.OPEN | platform.OPEN

#: Seconds between two checks of the age of the signing keys.
_MAINTENANCE = 1800.0

#: Clients wait for a token while an external issuer is asked.
_ISSUER_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=5)


async def serve(room: Room) -> None:
    """Serve until the room is stopped."""
    config = room.config
    directory = Directory(room.data_dir / "identity.db")
    directory.open()
    # Users name issuers. The cluster's own is on loopback.
    trusted = ssl.create_default_context()
    trusted.load_verify_locations(config.ca_file)
    issuers = config.egress(reach_rooms=["kube"]).session(trusted, timeout=_ISSUER_TIMEOUT)
    try:
        keys = SigningKeys(directory)
        await keys.maintain()
        await _register_first_principals(room, directory)
        base_url = config.url("identity")
        metrics = CollectorRegistry()
        door = doors.door(config, "identity")
        tokens = TokenEndpoint(
            directory,
            keys,
            base_url,
            config.tenant_id,
            [config.addresses["arm"], doors.door(config, "arm")],
            IssuerKeys(issuers),
            metrics,
            [door.url],
        )
        app = web.Application(middlewares=[arm_errors, behind_the_front_door(OPEN)])
        app.add_routes(health_routes(metrics))
        app.add_routes(Graph(directory, keys, tokens.issuer, base_url, config.subscription_id).routes())
        app.add_routes(RoleDefinitions(directory, config.subscription_id).routes())
        app.add_routes(RoleAssignments(directory).routes())
        app.add_routes(ManagedIdentities(directory, config.tenant_id).routes())
        app.add_routes(FederatedIdentityCredentials(directory).routes())
        app.add_routes(PlatformIdentities(directory, config.tenant_id).routes())
        app.add_routes(tokens.routes())
        # For workloads: no Graph, no providers, and nobody is a room.
        tokens_only = web.Application(middlewares=[arm_errors])
        tokens_only.add_routes(tokens.routes(door.url))
        async with room.serving(app), room.serving_door(tokens_only), task_set() as tasks:
            tasks.start_essential(_maintain(keys, room.stopping), "maintain the signing keys")
            room.ready()
            await room.stopping.wait()
    finally:
        await issuers.close()
        directory.close()


async def _maintain(keys: SigningKeys, stopping: asyncio.Event) -> None:
    while not await wait_for(stopping, _MAINTENANCE):
        await keys.maintain()


async def _register_first_principals(room: Room, directory: Directory) -> None:
    """Register the principals of the installation's credential files that are not registered yet."""
    roles = {role.role_name: role.name for role in BUILT_IN_ROLES.values()}
    for path in sorted((room.config.data_dir / "credentials").glob("*.json")):
        credential = read_credential(path)
        if directory.applications("app_id", credential.client_id):
            continue
        application = Application(str(uuid.uuid4()), credential.client_id, credential.display_name, clock.rfc3339())
        await directory.add(
            application,
            Principal(credential.object_id, credential.client_id, credential.display_name),
            await client_secrets.new_secret(application.id, credential.client_secret),
            *(
                RoleAssignment(str(uuid.uuid4()), credential.object_id, roles[role], scope)
                for role, scope in credential.roles
            ),
        )
