"""The resource provider `Microsoft.ManagedIdentity`: user-assigned identities (REST reference 2023-01-31).

Each identity is a service principal without a credential. A caller with the right to assign it can let a workload run as
it. The platform that runs the workload gets the tokens.
"""

from __future__ import annotations

import re
import sqlite3
import uuid
from collections.abc import Sequence

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, checked_tags, fixed, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.regions import checked_location
from cumulet.identity.store import Application, Directory, ManagedIdentity, Principal

TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"

_NAME = re.compile(r"[A-Za-z0-9][-_A-Za-z0-9]{2,127}")
_SUBSCRIPTION = f"/{fixed('subscriptions', 'root')}/{{subscription}}"
_GROUP = f"{_SUBSCRIPTION}/{fixed('resourceGroups', 'groups')}/{{group}}"
_NAMESPACE, _TYPE = TYPE.split("/")
_PROVIDED = f"/{fixed('providers', 'providers')}/{fixed(_NAMESPACE, 'namespace')}/{fixed(_TYPE, 'type')}"


class IdentityRequest(msgspec.Struct, frozen=True):
    """The body of a request for an identity; the readers check the types, with Azure's errors for each."""

    location: object = None
    tags: object = None


class IdentityPatch(msgspec.Struct, frozen=True):
    """The body of a PATCH of an identity; without `tags`, the tags stay."""

    tags: object = msgspec.UNSET


class IdentityProperties(msgspec.Struct, rename="camel", frozen=True):
    """`UserAssignedIdentityProperties`."""

    tenant_id: str
    principal_id: str
    client_id: str


class IdentityResource(msgspec.Struct, frozen=True):
    """`Identity`."""

    id: str
    name: str
    type: str
    location: str
    tags: dict[str, str]
    properties: IdentityProperties


class _List(msgspec.Struct):
    value: list[IdentityResource]


class ManagedIdentities:
    """Serves `…/providers/Microsoft.ManagedIdentity/userAssignedIdentities`."""

    def __init__(self, directory: Directory, tenant: str) -> None:
        self._directory = directory
        self._tenant = tenant

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, which only the front door can call."""
        one = f"{_GROUP}{_PROVIDED}/{{name}}"
        return [
            web.get(f"{_SUBSCRIPTION}{_PROVIDED}", self._list),
            web.get(f"{_GROUP}{_PROVIDED}", self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        start = f"/subscriptions/{request.match_info['subscription']}/"
        if "group" in request.match_info:
            start += f"resourceGroups/{request.match_info['group']}/"
        provided = f"/providers/{fold(TYPE)}/"  # not the identities of resources themselves
        found = [
            each
            for each in self._directory.managed_identities()
            if each.key.startswith(fold(start)) and provided in each.key
        ]
        return json_response(_List([self._show(each) for each in found]))

    async def _get(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if not found:
            raise ArmError(
                404, "ResourceNotFound", f"The Resource '{TYPE}/{request.match_info['name']}' was not found."
            )
        return json_response(self._show(found[0]))

    async def _put(self, request: web.Request) -> web.Response:
        body = await read_body(request, IdentityRequest)
        tags, existing = checked_tags(body.tags), self._find(request)
        location = checked_location(body.location, TYPE, existing[0].location if existing else None)
        if existing:
            return await self._change(existing[0], tags)
        name = request.match_info["name"]
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "ResourceNameInvalid",
                "The resource name must have 3 to 128 letters, digits, hyphens and underscores, and begin with no hyphen.",
            )
        identity = ManagedIdentity(fold(_id(request)), _id(request), location, tags, str(uuid.uuid4()))
        try:
            await self._directory.add(
                Application(str(uuid.uuid4()), identity.app_id, name, clock.rfc3339()),
                Principal(str(uuid.uuid4()), identity.app_id, name),
                identity,
            )
        except sqlite3.IntegrityError:
            raise ArmError(409, "Conflict", "Another request is creating this resource. Try again.") from None
        return json_response(self._show(identity), 201)

    async def _patch(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if not found:
            return await self._get(request)
        tags = (await read_body(request, IdentityPatch)).tags
        return await self._change(found[0], found[0].tags if tags is msgspec.UNSET else checked_tags(tags))

    async def _change(self, identity: ManagedIdentity, tags: dict[str, str]) -> web.Response:
        changed = msgspec.structs.replace(identity, tags=tags)
        await self._directory.put(changed)
        return json_response(self._show(changed))

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._find(request)
        if not found:
            return web.Response(status=204)
        await self._directory.remove_application(found[0].app_id)
        return web.Response(status=200)

    def _find(self, request: web.Request) -> Sequence[ManagedIdentity]:
        return self._directory.managed_identities("key", fold(_id(request)))

    def _show(self, identity: ManagedIdentity) -> IdentityResource:
        (principal,) = self._directory.principals("app_id", identity.app_id)
        return IdentityResource(
            id=identity.id,
            name=identity.id.rsplit("/", 1)[-1],
            type=TYPE,
            location=identity.location,
            tags=identity.tags,
            properties=IdentityProperties(self._tenant, principal.id, identity.app_id),
        )


def _id(request: web.Request) -> str:
    match = request.match_info
    return f"/subscriptions/{match['subscription']}/resourcegroups/{match['group']}/providers/{TYPE}/{match['name']}"
