"""Microsoft Graph v1.0: `applications/{id}/federatedIdentityCredentials`, as `az ad app federated-credential` uses them."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Callable

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.identity import federated_credential_checks as checks
from cumulet.identity.graph_objects import not_found
from cumulet.identity.store import Application, Directory, FederatedCredential

_APPLICATIONS = ("/v1.0/applications/{id}", "/v1.0/applications(appId='{app_id}')")
_COLLECTION = "federatedIdentityCredentials"
#: The routes. Each requires a token.
OPEN = frozenset(f"{path}/{_COLLECTION}{rest}" for path in _APPLICATIONS for rest in ("", "/{credential}"))

_BAD_REQUEST = "Request_BadRequest"


class _Create(msgspec.Struct, forbid_unknown_fields=True):
    """The body that creates a credential. Other properties, such as `claimsMatchingExpression`, are refused by name."""

    name: str | None = None
    issuer: str | None = None
    subject: str | None = None
    audiences: list[str] | None = None
    description: str | None = None
    odata_type: str | None = msgspec.field(name="@odata.type", default=None)
    id: str | None = None


class _Patch(msgspec.Struct, forbid_unknown_fields=True):
    """The properties of a PATCH; the name cannot change."""

    name: str | None = None
    issuer: str | None = None
    subject: str | None = None
    audiences: list[str] | None = None
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    odata_type: str | None = msgspec.field(name="@odata.type", default=None)
    id: str | None = None


class FederatedIdentityCredential(msgspec.Struct, frozen=True):
    """`federatedIdentityCredential`."""

    id: str
    name: str
    issuer: str
    subject: str
    description: str | None
    audiences: list[str]


class _List(msgspec.Struct):
    value: list[FederatedIdentityCredential]


class ApplicationCredentials:
    """Serves the credentials of applications. `read` and `change` raise `ArmError` for a caller without the right."""

    def __init__(
        self,
        directory: Directory,
        read: Callable[[web.Request], object],
        change: Callable[[web.Request], object],
    ) -> None:
        self._directory = directory
        self._read = read
        self._change = change

    def routes(self) -> list[web.RouteDef]:
        """Return the routes."""
        routes = []
        for path in _APPLICATIONS:
            collection = f"{path}/{_COLLECTION}"
            routes += [
                web.get(collection, self._list),
                web.post(collection, self._create),
                web.get(f"{collection}/{{credential}}", self._get),
                web.patch(f"{collection}/{{credential}}", self._patch),
                web.delete(f"{collection}/{{credential}}", self._delete),
            ]
        return routes

    async def _list(self, request: web.Request) -> web.Response:
        self._read(request)
        found = self._directory.federated_credentials(self._application(request).app_id)
        return json_response(_List([_show(item) for item in found]))

    async def _get(self, request: web.Request) -> web.Response:
        self._read(request)
        return json_response(_show(self._credential(request)))

    async def _create(self, request: web.Request) -> web.Response:
        self._change(request)
        application = self._application(request)
        wanted = await read_body(request, _Create, _BAD_REQUEST)
        others = self._directory.federated_credentials(application.app_id)
        try:
            made = FederatedCredential(
                str(uuid.uuid4()),
                application.app_id,
                checks.check_name(wanted.name or ""),
                checks.check_issuer(wanted.issuer),
                checks.check_subject(wanted.subject),
                checks.check_audiences(wanted.audiences),
                checks.check_description(wanted.description),
            )
        except checks.CheckError as error:
            raise ArmError(400, _BAD_REQUEST, str(error)) from None
        if len(others) >= checks.MOST:
            raise ArmError(
                400, _BAD_REQUEST, f"An application can have at most {checks.MOST} federated identity credentials."
            )
        try:
            checks.check_unique(made, others)
            await self._directory.add(made)
        except (checks.CheckError, sqlite3.IntegrityError):
            raise _taken(made) from None
        return json_response(_show(made), 201)

    async def _patch(self, request: web.Request) -> web.Response:
        self._change(request)
        old = self._credential(request)
        wanted = await read_body(request, _Patch, _BAD_REQUEST)
        try:
            if wanted.name not in (None, old.name):
                raise checks.CheckError("name", "cannot be changed.")
            made = msgspec.structs.replace(
                old,
                issuer=old.issuer if wanted.issuer is None else checks.check_issuer(wanted.issuer),
                subject=old.subject if wanted.subject is None else checks.check_subject(wanted.subject),
                audience=old.audience if wanted.audiences is None else checks.check_audiences(wanted.audiences),
                description=old.description
                if wanted.description is msgspec.UNSET
                else checks.check_description(wanted.description),
            )
        except checks.CheckError as error:
            raise ArmError(400, _BAD_REQUEST, str(error)) from None
        try:
            await self._directory.put(made)
        except sqlite3.IntegrityError:
            raise _taken(made) from None
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self._change(request)
        await self._directory.remove_federated_credential(self._credential(request).id)
        return web.Response(status=204)

    def _application(self, request: web.Request) -> Application:
        """Return the application in a path. Raises `ArmError` 404."""
        column = "app_id" if "app_id" in request.match_info else "id"
        value = request.match_info[column]
        found = self._directory.applications(column, fold(value))
        if not found:
            raise not_found(value)
        return found[0]

    def _credential(self, request: web.Request) -> FederatedCredential:
        """Return the credential in a path, by its id or name. Raises `ArmError` 404."""
        key = request.match_info["credential"]
        for item in self._directory.federated_credentials(self._application(request).app_id):
            if fold(key) in (item.id, fold(item.name)):
                return item
        raise not_found(key)


def _show(credential: FederatedCredential) -> FederatedIdentityCredential:
    return FederatedIdentityCredential(
        credential.id,
        credential.name,
        credential.issuer,
        credential.subject,
        credential.description,
        [credential.audience],
    )


def _taken(credential: FederatedCredential) -> ArmError:
    return ArmError(
        409,
        "Request_MultipleObjectsWithSameKeyValue",
        f"FederatedIdentityCredential with name {credential.name}, or with its issuer and subject, already exists.",
    )
