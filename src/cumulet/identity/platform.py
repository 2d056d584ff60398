"""The managed identities of workloads, for the room that runs them: `/{tenant}/managedIdentity?resourceId=…`.

`GET` reads the principal of a user-assigned identity. `PUT` creates the identity of a resource itself (system-assigned), and
`DELETE` removes it with its role assignments. In Azure the platform does this behind Azure Resource Manager.
"""

from __future__ import annotations

import contextlib
import sqlite3
import uuid

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.room import peer_room
from cumulet.identity import managed_identities
from cumulet.identity.client_authentication import PLATFORM
from cumulet.identity.store import Application, Directory, ManagedIdentity, Principal

_PATH = "/{tenant}/managedIdentity"
#: The route is not of the front door's: the platform calls it.
OPEN = frozenset({_PATH})
#: The resources that can have an identity of their own.
_WORKLOADS = frozenset({"microsoft.containerinstance/containergroups"})


class _Request(msgspec.Struct):
    location: str


class PlatformPrincipal(msgspec.Struct, rename="camel", frozen=True):
    """The principal of an identity."""

    principal_id: str
    client_id: str
    tenant_id: str


class PlatformIdentities:
    """Serves the route."""

    def __init__(self, directory: Directory, tenant: str) -> None:
        self._directory = directory
        self._tenant = tenant

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, which only the platform can call."""
        return [web.get(_PATH, self._get), web.put(_PATH, self._put), web.delete(_PATH, self._delete)]

    async def _get(self, request: web.Request) -> web.Response:
        resource = self._resource(request)
        found = self._find(resource)
        if found is None or fold(resource.type) != fold(managed_identities.TYPE):
            raise ArmError(404, "ResourceNotFound", "There is no such identity.")
        return json_response(self._show(found))

    async def _put(self, request: web.Request) -> web.Response:
        resource = self._workload(request)
        body = await read_body(request, _Request)
        if self._find(resource) is None:
            identity = ManagedIdentity(resource.key, str(resource), body.location, {}, str(uuid.uuid4()))
            with contextlib.suppress(sqlite3.IntegrityError):  # another request has created it in the meantime
                await self._directory.add(
                    Application(str(uuid.uuid4()), identity.app_id, resource.name, clock.rfc3339()),
                    Principal(str(uuid.uuid4()), identity.app_id, resource.name),
                    identity,
                )
        found = self._find(resource)
        if found is None:
            raise ArmError(409, "Conflict", "Another request deletes this identity. Try again.")
        return json_response(self._show(found))

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._find(self._workload(request))
        if found is not None:
            await self._directory.remove_application(found.app_id)
        return web.Response(status=204)

    def _resource(self, request: web.Request) -> ResourceId:
        """Return the resource that a request names. Raises `ArmError` unless the platform asks."""
        if peer_room(request) != PLATFORM:
            raise ArmError(
                403, "Forbidden", "Only the platform that runs workloads can read and create their identities."
            )
        if request.match_info["tenant"] != self._tenant:
            raise ArmError(404, "NotFound", "There is no such tenant.")
        return ResourceId(request.query.get("resourceId", ""))

    def _workload(self, request: web.Request) -> ResourceId:
        resource = self._resource(request)
        if fold(resource.type) not in _WORKLOADS:
            raise ArmError(400, "InvalidResourceType", "A resource of this type has no identity of its own.")
        return resource

    def _find(self, resource: ResourceId) -> ManagedIdentity | None:
        return next(iter(self._directory.managed_identities("key", resource.key)), None)

    def _show(self, identity: ManagedIdentity) -> PlatformPrincipal:
        (principal,) = self._directory.principals("app_id", identity.app_id)
        return PlatformPrincipal(principal.id, identity.app_id, self._tenant)
