"""The room's life: take in the first principals, then serve OAuth2, Graph and the role provider on one address."""

from __future__ import annotations

import uuid

from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common import clock
from cumulet.common.arm import arm_errors, only_front_door
from cumulet.common.entra import read_credential
from cumulet.common.health import health_routes
from cumulet.common.rbac import BUILT_IN_ROLES, RoleAssignment
from cumulet.common.room import Room
from cumulet.identity import secrets
from cumulet.identity.authorization import Authorization
from cumulet.identity.graph import Graph
from cumulet.identity.keys import SigningKeys
from cumulet.identity.oauth import TokenEndpoint
from cumulet.identity.store import Application, Directory, Principal


async def serve(room: Room) -> None:
    """Serve until told to stop."""
    config = room.config
    directory = Directory(room.data_dir / "identity.db")
    directory.open()
    keys = SigningKeys(directory)
    await keys.load()
    await _take_in(room, directory)
    base_url = config.url("identity")
    oauth = TokenEndpoint(directory, keys, base_url, config.tenant_id)
    graph = Graph(directory, keys, oauth.issuer, base_url, config.subscription_id)
    app = web.Application(middlewares=[arm_errors, only_front_door])
    app.add_routes(health_routes(CollectorRegistry()))
    app.add_routes(graph.routes())
    app.add_routes(Authorization(directory).routes())
    app.add_routes(oauth.routes())
    try:
        async with room.serving(app):
            room.ready()
            await room.stopping.wait()
    finally:
        directory.close()


async def _take_in(room: Room, directory: Directory) -> None:
    """Register the principals that the installation was made with, each once."""
    roles = {role.role_name: role.name for role in BUILT_IN_ROLES.values()}
    for path in sorted((room.config.data_dir / "credentials").glob("*.json")):
        credential = read_credential(path)
        if directory.applications("app_id", credential.client_id):
            continue
        application = Application(str(uuid.uuid4()), credential.client_id, credential.display_name, clock.rfc3339())
        await directory.add(
            application,
            Principal(credential.object_id, credential.client_id, credential.display_name),
            await secrets.new_secret(application.id, credential.client_secret),
            *(
                RoleAssignment(str(uuid.uuid4()), credential.object_id, roles[role], scope)
                for role, scope in credential.roles
            ),
        )
