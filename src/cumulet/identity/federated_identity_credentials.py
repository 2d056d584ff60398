"""`Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials` (REST reference 2024-11-30)."""

from __future__ import annotations

import sqlite3
import uuid

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, fixed, front_door_url, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.odata import FilterError, page
from cumulet.identity import federated_credential_checks as checks
from cumulet.identity.store import Directory, FederatedCredential, ManagedIdentity

_TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
TYPE = f"{_TYPE}/federatedIdentityCredentials"

_NAMESPACE, _IDENTITIES, _CREDENTIALS = TYPE.split("/")
_IDENTITY = (
    f"/{fixed('subscriptions', 'root')}/{{subscription}}/{fixed('resourceGroups', 'groups')}/{{group}}"
    f"/{fixed('providers', 'providers')}/{fixed(_NAMESPACE, 'namespace')}/{fixed(_IDENTITIES, 'type')}/{{identity}}"
)
_COLLECTION = f"{_IDENTITY}/{fixed(_CREDENTIALS, 'child')}"


class _Properties(msgspec.Struct, frozen=True):
    """`FederatedIdentityCredentialProperties`."""

    issuer: str | None = None
    subject: str | None = None
    audiences: list[str] | None = None


class _Request(msgspec.Struct, frozen=True):
    properties: _Properties = _Properties()


class FederatedIdentityCredential(msgspec.Struct, frozen=True):
    """`FederatedIdentityCredential`."""

    id: str
    name: str
    properties: _Properties
    type: str = TYPE


class _List(msgspec.Struct, omit_defaults=True, rename="camel"):
    value: list[FederatedIdentityCredential]
    next_link: str | None = None


class FederatedIdentityCredentials:
    """Serves the credentials of user-assigned identities."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def routes(self) -> list[web.RouteDef]:
        """Return the routes, which only the front door can call."""
        one = f"{_COLLECTION}/{{name}}"
        return [
            web.get(_COLLECTION, self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.delete(one, self._delete),
        ]

    async def _list(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        found = self._directory.federated_credentials(identity.app_id)
        try:
            shown, token = page(found, request.query)
        except FilterError as error:
            raise ArmError(400, "InvalidParameter", str(error)) from None
        link = None
        if token is not None:
            link = front_door_url(request) + request.rel_url.update_query({"$skiptoken": token}).raw_path_qs
        return json_response(_List([_show(identity, each) for each in shown], link))

    async def _get(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        found = self._find(request, identity)
        if found is None:
            name = request.match_info["name"]
            raise ArmError(404, "NotFound", f"The Federated Identity Credential '{name[:120]}' was not found.")
        return json_response(_show(identity, found))

    async def _put(self, request: web.Request) -> web.Response:
        identity = self._identity(request)
        wanted = (await read_body(request, _Request)).properties
        existing, others = self._find(request, identity), self._directory.federated_credentials(identity.app_id)
        try:
            credential = FederatedCredential(
                existing.id if existing else str(uuid.uuid4()),
                identity.app_id,
                existing.name if existing else checks.check_name(request.match_info["name"]),
                checks.check_issuer(wanted.issuer),
                checks.check_subject(wanted.subject),
                checks.check_audiences(wanted.audiences),
            )
        except checks.CheckError as error:
            raise ArmError(400, "BadRequest", str(error), target=f"properties.{error.target}") from None
        try:
            checks.check_unique(credential, others)
        except checks.CheckError as error:
            raise ArmError(409, "Conflict", str(error), target=f"properties.{error.target}") from None
        if not existing and len(others) >= checks.MOST:
            raise ArmError(
                400,
                "BadRequest",
                f"A user-assigned identity can have at most {checks.MOST} Federated Identity Credentials.",
            )
        try:
            await (self._directory.put(credential) if existing else self._directory.add(credential))
        except sqlite3.IntegrityError:
            raise ArmError(
                409,
                "ConcurrentFederatedIdentityCredentialsWritesForSingleManagedIdentity",
                "Too many Federated Identity Credentials are written concurrently for the managed identity "
                f"'{identity.id}'. Try again.",
            ) from None
        return json_response(_show(identity, credential), 200 if existing else 201)

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._find(request, self._identity(request))
        if found is None:
            return web.Response(status=204)
        await self._directory.remove_federated_credential(found.id)
        return web.Response(status=200)

    def _identity(self, request: web.Request) -> ManagedIdentity:
        """Return the identity in a path. Raises `ArmError` 404."""
        match = request.match_info
        group = f"/subscriptions/{match['subscription']}/resourcegroups/{match['group']}"
        found = self._directory.managed_identities("key", fold(f"{group}/providers/{_TYPE}/{match['identity']}"))
        if not found:
            raise ArmError(
                404,
                "ParentResourceNotFound",
                f"Failed to perform the operation: the parent resource '{_TYPE}/{match['identity']}' was not found.",
            )
        return found[0]

    def _find(self, request: web.Request, identity: ManagedIdentity) -> FederatedCredential | None:
        name = fold(request.match_info["name"])
        found = self._directory.federated_credentials(identity.app_id)
        return next((item for item in found if fold(item.name) == name), None)


def _show(identity: ManagedIdentity, credential: FederatedCredential) -> FederatedIdentityCredential:
    return FederatedIdentityCredential(
        f"{identity.id}/{_CREDENTIALS}/{credential.name}",
        credential.name,
        _Properties(credential.issuer, credential.subject, [credential.audience]),
    )
