"""Microsoft Graph v1.0: applications, service principals and their credentials, as `az ad` uses them.

Every principal of the tenant can read. Changes need the right to assign roles on the subscription, which Owner has. The
principal of an application can also renew the application's secrets.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Sequence

import jwt
import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_body
from cumulet.common.ascii import fold
from cumulet.common.entra import GRAPH_AUDIENCE, bearer_token
from cumulet.common.odata import FilterError, Term, conjunction, page
from cumulet.common.rbac import allowed
from cumulet.identity import client_secrets, graph_federation, graph_objects
from cumulet.identity.graph_federation import ApplicationCredentials
from cumulet.identity.graph_objects import (
    AddPasswordRequest,
    ApplicationRequest,
    DirectoryObject,
    Item,
    ObjectPatch,
    PasswordCredentialRequest,
    RemovePasswordRequest,
    ServicePrincipalRequest,
    not_found,
)
from cumulet.identity.signing_keys import SigningKeys
from cumulet.identity.store import Application, Directory, Principal

#: The routes of Graph, all that `Graph.routes` returns. Each requires a token.
OPEN = frozenset(
    {
        *(
            f"/v1.0/{name}{rest}"
            for name in ("applications", "servicePrincipals")
            for key in ("/{id}", "(appId='{app_id}')")
            for rest in ("", key, f"{key}/addPassword", f"{key}/removePassword")
        ),
        "/v1.0/users",
        "/v1.0/groups",
        "/v1.0/me",
        "/v1.0/directoryObjects/{id}",
        "/v1.0/directoryObjects/getByIds",
        "/v1.0/{rest}",
        *graph_federation.OPEN,
    }
)

_WRITE = "Microsoft.Authorization/roleAssignments/write"

#: The maximum number of credentials of an application, of each kind.
_CREDENTIALS = 50

_IDS = 1000
_BAD_REQUEST = "Request_BadRequest"

_Handler = Callable[[web.Request], Awaitable[web.Response]]
_Find = Callable[[str, str], Sequence[Item]]
_Change = Callable[[Item, web.Request], Awaitable[web.Response]]


class Caller(msgspec.Struct, frozen=True):
    """The service principal that a token identifies."""

    object_id: str
    app_id: str


class _Ids(msgspec.Struct):
    ids: list[str]


class _List(msgspec.Struct, omit_defaults=True):
    value: list[DirectoryObject | dict[str, object]]
    next_link: str | None = msgspec.field(name="@odata.nextLink", default=None)


class Graph:
    """Serves `/v1.0/…`."""

    def __init__(
        self, directory: Directory, keys: SigningKeys, issuer: str, base_url: str, subscription: str
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._issuer = issuer
        self._base_url = base_url
        self._audiences = [url for base in (GRAPH_AUDIENCE, base_url) for url in (base, f"{base}/")]
        self._subscription = f"/subscriptions/{subscription}"

    def routes(self) -> list[web.RouteDef]:
        """Return the routes; `(appId='…')` is an alternate key for the object id."""
        return [
            *self._collection("applications", self._directory.applications, self._create_application),
            *self._collection("servicePrincipals", self._directory.principals, self._create_principal),
            *ApplicationCredentials(self._directory, self._caller, self._demand_change).routes(),
            web.get("/v1.0/users", self._list(_none)),
            web.get("/v1.0/groups", self._list(_none)),
            web.get("/v1.0/me", self._me),
            web.get("/v1.0/directoryObjects/{id}", self._read(self._objects)),
            web.post("/v1.0/directoryObjects/getByIds", self._get_by_ids),
            web.route("*", "/v1.0/{rest:(?s:.*)}", self._unknown),
        ]

    def _collection(self, name: str, find: _Find, create: _Handler) -> list[web.RouteDef]:
        routes = [web.get(f"/v1.0/{name}", self._list(find)), web.post(f"/v1.0/{name}", create)]
        for path in (f"/v1.0/{name}/{{id}}", f"/v1.0/{name}(appId='{{app_id}}')"):
            routes += [
                web.get(path, self._read(find)),
                web.patch(path, self._write(find, self._patch)),
                web.delete(path, self._write(find, self._delete)),
                web.post(f"{path}/addPassword", self._write(find, self._add_password, own=True)),
                web.post(f"{path}/removePassword", self._write(find, self._remove_password, own=True)),
            ]
        return routes

    # Authentication and authorization.

    def _caller(self, request: web.Request) -> Caller:
        token = bearer_token(request.headers.get("Authorization", ""))
        if not token:
            raise ArmError(401, "InvalidAuthenticationToken", "Access token is empty.")
        try:
            claims = self._keys.verify(token, self._audiences, self._issuer)
        except jwt.InvalidTokenError as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"Access token validation failure. {error}.") from None
        if not self._directory.principals("id", claims.oid):
            raise ArmError(401, "InvalidAuthenticationToken", "The principal of the access token was deleted.")
        return Caller(claims.oid, claims.appid)

    def _may_change(self, caller: Caller) -> bool:
        assignments = self._directory.role_assignments("principal_id", caller.object_id)
        return allowed(_WRITE, self._subscription, assignments, self._directory.role_definitions())

    def _demand_change(self, request: web.Request) -> None:
        if not self._may_change(self._caller(request)):
            raise _denied()

    # Reading.

    def _read(self, find: _Find) -> _Handler:
        async def handler(request: web.Request) -> web.Response:
            self._caller(request)
            return json_response(_selected(self._show(_one(find, request)), request))

        return handler

    def _list(self, find: _Find) -> _Handler:
        async def handler(request: web.Request) -> web.Response:
            self._caller(request)
            try:
                terms = conjunction(request.query.get("$filter", ""))
                items, token = page(self._matching(find, terms), request.query)
            except FilterError as error:
                raise ArmError(400, "Request_UnsupportedQuery", str(error)) from None
            link = None
            if token is not None:
                link = f"{self._base_url}{request.rel_url.update_query({'$skiptoken': token}).raw_path_qs}"
            return json_response(_List([_selected(self._show(item), request) for item in items], link))

        return handler

    @staticmethod
    def _matching(find: _Find, terms: Sequence[Term]) -> list[Item]:
        indexed = {"id": "id", "appid": "app_id", "serviceprincipalnames": "app_id"}
        key = next((term for term in terms if term.operator == "eq" and term.name in indexed), None)
        items = find(indexed[key.name], fold(key.value)) if key is not None else find("", "")
        return [item for item in items if graph_objects.matches(terms, item)]

    async def _unknown(self, request: web.Request) -> web.Response:
        """Raises `ArmError` 404 in Graph's words, for a path without a route."""
        self._caller(request)
        segment = request.match_info["rest"].partition("/")[0][:100]
        raise ArmError(404, "Request_ResourceNotFound", f"Resource not found for the segment '{segment}'.")

    async def _me(self, request: web.Request) -> web.Response:
        self._caller(request)
        raise ArmError(400, "BadRequest", "/me request is only valid with delegated authentication flow.")

    async def _get_by_ids(self, request: web.Request) -> web.Response:
        self._caller(request)
        ids = (await read_body(request, _Ids, _BAD_REQUEST)).ids
        if len(ids) > _IDS:
            raise ArmError(400, _BAD_REQUEST, f"ids must be a list of at most {_IDS} strings.")
        items = [item for id_ in dict.fromkeys(ids) for item in self._objects("id", fold(id_))]
        return json_response(_List([self._show(item) for item in items]))

    def _objects(self, column: str, value: str) -> Sequence[Item]:
        return [*self._directory.principals(column, value), *self._directory.applications(column, value)]

    def _show(self, item: Item) -> DirectoryObject:
        return graph_objects.show(item, self._directory)

    # Changing.

    def _write(self, find: _Find, change: _Change, *, own: bool = False) -> _Handler:
        async def handler(request: web.Request) -> web.Response:
            caller = self._caller(request)
            item = _one(find, request)
            if not (self._may_change(caller) or (own and caller.app_id == item.app_id)):
                raise _denied()
            if self._directory.managed_identities("app_id", item.app_id):
                raise ArmError(
                    403,
                    "Authorization_RequestDenied",
                    "A managed identity is changed and deleted by its resource, and has no credentials.",
                )
            return await change(item, request)

        return handler

    async def _create_application(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        body = await read_body(request, ApplicationRequest, _BAD_REQUEST)
        name = graph_objects.check_name(body.display_name)
        application = Application(str(uuid.uuid4()), str(uuid.uuid4()), name, clock.rfc3339())
        certificates = graph_objects.certificates(body.key_credentials or (), [], application.id, None)
        try:
            await self._directory.add(application, *certificates)
        except sqlite3.IntegrityError:
            raise _key_id_taken() from None
        return json_response(self._show(application), 201)

    async def _create_principal(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        app_id = fold((await read_body(request, ServicePrincipalRequest, _BAD_REQUEST)).app_id)
        applications = self._directory.applications("app_id", app_id)
        if not applications:
            raise ArmError(400, _BAD_REQUEST, f"The appId '{app_id}' does not reference a valid application object.")
        principal = Principal(str(uuid.uuid4()), app_id, applications[0].display_name)
        try:
            await self._directory.add(principal)
        except sqlite3.IntegrityError:
            raise ArmError(
                409,
                "Request_MultipleObjectsWithSameKeyValue",
                f"The service principal cannot be created: the service principal name {app_id} is already in use.",
            ) from None
        return json_response(self._show(principal), 201)

    async def _patch(self, item: Item, request: web.Request) -> web.Response:
        """Change the name and the certificates. Other properties are not supported and are ignored."""
        body = await read_body(request, ObjectPatch, _BAD_REQUEST)
        name = item.display_name
        if body.display_name is not msgspec.UNSET:
            name = graph_objects.check_name(body.display_name)
        if body.key_credentials is not msgspec.UNSET:
            application_id = graph_objects.application_of(item, self._directory)
            principal_id = item.id if isinstance(item, Principal) else None
            existing = self._directory.certificates(application_id)
            old = [certificate for certificate in existing if certificate.principal_id == principal_id]
            new = graph_objects.certificates(body.key_credentials, old, application_id, principal_id)
            if len(existing) - len(old) + len(new) > _CREDENTIALS:
                raise _too_many()
            try:
                await self._directory.replace_certificates(old, new)
            except sqlite3.IntegrityError:
                raise _key_id_taken() from None
        if name != item.display_name:
            await self._directory.put(msgspec.structs.replace(item, display_name=name))
        return web.Response(status=204)

    async def _delete(self, item: Item, _: web.Request) -> web.Response:
        """Delete an application with its principal, or a principal alone."""
        if isinstance(item, Application):
            await self._directory.remove_application(item.app_id)
        else:
            await self._directory.remove_principal(item.id)
        return web.Response(status=204)

    async def _add_password(self, item: Item, request: web.Request) -> web.Response:
        body = await read_body(request, AddPasswordRequest, _BAD_REQUEST)
        requested = body.password_credential or PasswordCredentialRequest()
        starts, ends = graph_objects.validity(requested)
        name = graph_objects.check_name(requested.display_name) if requested.display_name is not None else None
        application_id = graph_objects.application_of(item, self._directory)
        if len(self._directory.secrets(application_id)) >= _CREDENTIALS:
            raise _too_many()
        text = client_secrets.new_text()
        secret = await client_secrets.new_secret(
            application_id,
            text,
            principal_id=item.id if isinstance(item, Principal) else None,
            display_name=name,
            starts=starts,
            ends=ends,
        )
        try:
            await self._directory.add(secret)
        except sqlite3.IntegrityError:
            raise not_found(item.id) from None  # another request has deleted it
        return json_response(graph_objects.show_secret(secret, text))

    async def _remove_password(self, item: Item, request: web.Request) -> web.Response:
        key_id = fold((await read_body(request, RemovePasswordRequest, _BAD_REQUEST)).key_id)
        principal_id = item.id if isinstance(item, Principal) else None
        for secret in self._directory.secrets(graph_objects.application_of(item, self._directory)):
            if secret.key_id == key_id and secret.principal_id == principal_id:
                await self._directory.remove_secret(key_id)
                return web.Response(status=204)
        raise ArmError(400, _BAD_REQUEST, f"No password credential found with keyId '{key_id[:100]}'.")


def _none(_column: str, _value: str) -> Sequence[Item]:
    """Return nothing: the tenant has no users and no groups."""
    return []


def _one(find: _Find, request: web.Request) -> Item:
    by_app_id = "app_id" in request.match_info
    value = request.match_info["app_id" if by_app_id else "id"]
    items = find("app_id" if by_app_id else "id", fold(value))
    if not items:
        raise not_found(value)
    return items[0]


def _selected(shown: DirectoryObject, request: web.Request) -> DirectoryObject | dict[str, object]:
    """Return the properties that `$select` names and the id, or the whole object without `$select`."""
    if not request.query.get("$select"):
        return shown
    names = {fold(name.strip()) for name in request.query["$select"].split(",")} | {"id"}
    properties: dict[str, object] = msgspec.to_builtins(shown)
    return {name: value for name, value in properties.items() if fold(name) in names}


def _denied() -> ArmError:
    return ArmError(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def _too_many() -> ArmError:
    return ArmError(400, "KeyLimitReached", f"An application can have at most {_CREDENTIALS} credentials of a kind.")


def _key_id_taken() -> ArmError:
    return ArmError(400, _BAD_REQUEST, "keyCredentials: a 'keyId' is already in use.")
