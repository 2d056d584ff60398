"""Microsoft Graph v1.0: applications, service principals and their credentials, as `az ad` uses them.

Any principal of the tenant may read. Changing the directory asks for the right to assign roles on the subscription
(Owner has it); an application's own principal may also renew its own secrets.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import jwt
import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.ascii import fold
from cumulet.common.entra import GRAPH_AUDIENCE, bearer_token
from cumulet.common.odata import FilterError, Term, conjunction, page
from cumulet.common.rbac import allowed
from cumulet.identity import client_secrets, graph_objects
from cumulet.identity.graph_objects import Item
from cumulet.identity.signing_keys import SigningKeys
from cumulet.identity.store import Application, Directory, Principal

#: The routes of Graph, each of which asks for a token: `Graph.routes` makes no other.
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
    }
)

_WRITE = "Microsoft.Authorization/roleAssignments/write"

#: Credentials that one application may have.
_CREDENTIALS = 50

_IDS = 1000

Caller = dict[str, Any]
_Handler = Callable[[web.Request], Awaitable[web.Response]]
_Find = Callable[[str, str], Sequence[Item]]
_Change = Callable[[Item, dict[str, Any]], Awaitable[web.Response]]


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
        """What is served; `(appId='…')` is an alternate key for the object id."""
        return [
            *self._collection("applications", self._directory.applications, self._create_application),
            *self._collection("servicePrincipals", self._directory.principals, self._create_principal),
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

    # Who calls.

    def _caller(self, request: web.Request) -> Caller:
        token = bearer_token(request.headers.get("Authorization", ""))
        if not token:
            raise ArmError(401, "InvalidAuthenticationToken", "Access token is empty.")
        try:
            caller = self._keys.verify(token, self._audiences, self._issuer)
        except jwt.InvalidTokenError as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"Access token validation failure. {error}.") from None
        if not self._directory.principals("id", caller["oid"]):
            raise ArmError(401, "InvalidAuthenticationToken", "The principal of the access token was deleted.")
        return caller

    def _may_change(self, caller: Caller) -> bool:
        assignments = self._directory.role_assignments("principal_id", caller["oid"])
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
                found, more = page(self._fitting(find, terms), request.query)
            except FilterError as error:
                raise ArmError(400, "Request_UnsupportedQuery", str(error)) from None
            answer: dict[str, Any] = {"value": [_selected(self._show(item), request) for item in found]}
            if more is not None:
                answer["@odata.nextLink"] = (
                    f"{self._base_url}{request.rel_url.update_query({'$skiptoken': more}).raw_path_qs}"
                )
            return json_response(answer)

        return handler

    @staticmethod
    def _fitting(find: _Find, terms: Sequence[Term]) -> list[Item]:
        indexed = {"id": "id", "appid": "app_id", "serviceprincipalnames": "app_id"}
        key = next((term for term in terms if term.operator == "eq" and term.name in indexed), None)
        found = find(indexed[key.name], fold(key.value)) if key is not None else find("", "")
        return [item for item in found if graph_objects.fits(terms, item)]

    async def _unknown(self, request: web.Request) -> web.Response:
        """What there is no route for, in Graph's words."""
        self._caller(request)
        segment = request.match_info["rest"].partition("/")[0][:100]
        raise ArmError(404, "Request_ResourceNotFound", f"Resource not found for the segment '{segment}'.")

    async def _me(self, request: web.Request) -> web.Response:
        self._caller(request)
        raise ArmError(400, "BadRequest", "/me request is only valid with delegated authentication flow.")

    async def _get_by_ids(self, request: web.Request) -> web.Response:
        self._caller(request)
        body = await read_json(request)
        ids = body.get("ids")
        if not isinstance(ids, list) or len(ids) > _IDS or not all(isinstance(id_, str) for id_ in ids):
            raise ArmError(400, "Request_BadRequest", f"ids must be a list of at most {_IDS} strings.")
        found = [item for id_ in dict.fromkeys(ids) for item in self._objects("id", fold(id_))]
        return json_response({"value": [self._show(item) for item in found]})

    def _objects(self, column: str, value: str) -> Sequence[Item]:
        return [*self._directory.principals(column, value), *self._directory.applications(column, value)]

    def _show(self, item: Item) -> dict[str, Any]:
        return graph_objects.show(item, self._directory)

    # Changing.

    def _write(self, find: _Find, change: _Change, *, own: bool = False) -> _Handler:
        async def handler(request: web.Request) -> web.Response:
            caller = self._caller(request)
            item = _one(find, request)
            if not (self._may_change(caller) or (own and caller["appid"] == item.app_id)):
                raise _denied()
            if self._directory.managed_identities("app_id", item.app_id):
                raise ArmError(
                    403,
                    "Authorization_RequestDenied",
                    "A managed identity is changed and deleted by its resource, and has no credentials.",
                )
            return await change(item, await read_json(request))

        return handler

    async def _create_application(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        body = await read_json(request)
        application = Application(
            str(uuid.uuid4()), str(uuid.uuid4()), graph_objects.read_name(body), clock.rfc3339()
        )
        certificates = []
        if body.get("keyCredentials"):
            certificates = graph_objects.read_certificates(body, [], application.id, None)
        try:
            await self._directory.add(application, *certificates)
        except sqlite3.IntegrityError:
            raise _key_id_taken() from None
        return json_response(self._show(application), 201)

    async def _create_principal(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        app_id = fold(str((await read_json(request)).get("appId", "")))
        found = self._directory.applications("app_id", app_id)
        if not found:
            raise ArmError(
                400, "Request_BadRequest", f"The appId '{app_id}' does not reference a valid application object."
            )
        principal = Principal(str(uuid.uuid4()), app_id, found[0].display_name)
        try:
            await self._directory.add(principal)
        except sqlite3.IntegrityError:
            raise ArmError(
                409,
                "Request_MultipleObjectsWithSameKeyValue",
                f"The service principal cannot be created: the service principal name {app_id} is already in use.",
            ) from None
        return json_response(self._show(principal), 201)

    async def _patch(self, item: Item, body: dict[str, Any]) -> web.Response:
        """The name and the certificates; other fields mean nothing here and are left."""
        name = graph_objects.read_name(body) if "displayName" in body else item.display_name
        if "keyCredentials" in body:
            application_id = graph_objects.application_of(item, self._directory)
            principal_id = item.id if isinstance(item, Principal) else None
            known = self._directory.certificates(application_id)
            mine = [certificate for certificate in known if certificate.principal_id == principal_id]
            wanted = graph_objects.read_certificates(body, mine, application_id, principal_id)
            if len(known) - len(mine) + len(wanted) > _CREDENTIALS:
                raise _too_many()
            try:
                await self._directory.replace_certificates(mine, wanted)
            except sqlite3.IntegrityError:
                raise _key_id_taken() from None
        if name != item.display_name:
            await self._directory.put(msgspec.structs.replace(item, display_name=name))
        return web.Response(status=204)

    async def _delete(self, item: Item, _: dict[str, Any]) -> web.Response:
        """An application goes with its principal; a principal goes alone."""
        if isinstance(item, Application):
            await self._directory.remove_application(item.app_id)
        else:
            await self._directory.remove_principal(item.id)
        return web.Response(status=204)

    async def _add_password(self, item: Item, body: dict[str, Any]) -> web.Response:
        wanted = body.get("passwordCredential")
        wanted = {} if wanted is None else wanted
        if not isinstance(wanted, dict):
            raise ArmError(400, "Request_BadRequest", "passwordCredential must be an object.")
        starts, ends = graph_objects.read_life(wanted)
        name = graph_objects.read_name(wanted) if wanted.get("displayName") is not None else None
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
            raise _not_found(item.id) from None  # it was deleted just now
        return json_response(graph_objects.show_secret(secret, text))

    async def _remove_password(self, item: Item, body: dict[str, Any]) -> web.Response:
        key_id = fold(str(body.get("keyId", "")))
        principal_id = item.id if isinstance(item, Principal) else None
        for secret in self._directory.secrets(graph_objects.application_of(item, self._directory)):
            if secret.key_id == key_id and secret.principal_id == principal_id:
                await self._directory.remove_secret(key_id)
                return web.Response(status=204)
        raise ArmError(400, "Request_BadRequest", f"No password credential found with keyId '{key_id[:100]}'.")


def _none(_column: str, _value: str) -> Sequence[Item]:
    """The tenant has no users and no groups."""
    return []


def _one(find: _Find, request: web.Request) -> Item:
    by_app_id = "app_id" in request.match_info
    value = request.match_info["app_id" if by_app_id else "id"]
    found = find("app_id" if by_app_id else "id", fold(value))
    if not found:
        raise _not_found(value)
    return found[0]


def _selected(shown: dict[str, Any], request: web.Request) -> dict[str, Any]:
    """The fields that `$select` asks for, and the id."""
    if not request.query.get("$select"):
        return shown
    wanted = {fold(name.strip()) for name in request.query["$select"].split(",")} | {"id"}
    return {name: value for name, value in shown.items() if fold(name) in wanted}


def _not_found(value: str) -> ArmError:
    return ArmError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{value[:100]}' does not exist or one of its queried reference-property objects are not present.",
    )


def _denied() -> ArmError:
    return ArmError(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def _too_many() -> ArmError:
    return ArmError(400, "KeyLimitReached", f"An application has at most {_CREDENTIALS} credentials of a kind.")


def _key_id_taken() -> ArmError:
    return ArmError(400, "Request_BadRequest", "keyCredentials: a 'keyId' is in use.")
