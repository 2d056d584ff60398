"""Microsoft Graph v1.0: applications, service principals and their passwords, as `az ad` uses them.

Any principal of the tenant may read. Changing the directory asks for the right to assign roles on the subscription
(Owner has it); an application's own principal may also renew its own secrets.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import jwt
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.common.entra import GRAPH_AUDIENCE
from cumulet.common.rbac import allowed
from cumulet.identity import secrets
from cumulet.identity.keys import SigningKeys
from cumulet.identity.store import Application, Certificate, Directory, Principal

_FILTER = re.compile(r"(displayName|appId|id) eq '((?:[^']|'')*)'", re.IGNORECASE)
_NAMES_FILTER = re.compile(r"servicePrincipalNames/any\((\w+):\s*\1 eq '((?:[^']|'')*)'\)", re.IGNORECASE)
_COLUMNS = {"displayname": "display_name", "appid": "app_id", "id": "id"}
_WRITE = "Microsoft.Authorization/roleAssignments/write"
_NAME_LIMIT = 256

Caller = dict[str, Any]


class Graph:
    """Serves `/v1.0/…`."""

    def __init__(
        self, directory: Directory, keys: SigningKeys, issuer: str, base_url: str, subscription: str
    ) -> None:
        self._directory = directory
        self._keys = keys
        self._issuer = issuer
        self._audiences = [url for base in (GRAPH_AUDIENCE, base_url) for url in (base, f"{base}/")]
        self._subscription = f"/subscriptions/{subscription}"

    def routes(self) -> list[web.RouteDef]:
        """What is served; `(appId='…')` is an alternate key for the object id."""
        routes: list[web.RouteDef] = []
        for collection, one in (("applications", self._application), ("servicePrincipals", self._principal)):
            kind = "application" if collection == "applications" else "principal"
            create = self._create_application if kind == "application" else self._create_principal
            for path in (f"/v1.0/{collection}/{{id}}", f"/v1.0/{collection}(appId='{{app_id}}')"):
                routes += [
                    web.get(path, self._read(one)),
                    web.delete(path, self._write(one, self._delete)),
                    web.post(f"{path}/addPassword", self._write(one, self._add_password, own=True)),
                    web.post(f"{path}/removePassword", self._write(one, self._remove_password, own=True)),
                ]
                if kind == "application":
                    routes.append(web.patch(path, self._write(one, self._patch_application)))
            routes += [web.get(f"/v1.0/{collection}", self._list(kind)), web.post(f"/v1.0/{collection}", create)]
        return routes

    # Who calls.

    def _caller(self, request: web.Request) -> Caller:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ArmError(401, "InvalidAuthenticationToken", "Access token is empty.")
        try:
            return self._keys.verify(token, self._audiences, self._issuer)
        except jwt.InvalidTokenError as error:
            raise ArmError(401, "InvalidAuthenticationToken", f"Access token validation failure. {error}") from None

    def _may_change(self, caller: Caller) -> bool:
        assignments = self._directory.role_assignments("principal_id", caller["oid"])
        return allowed(_WRITE, self._subscription, assignments, self._directory.role_definitions())

    def _demand_change(self, request: web.Request) -> None:
        if not self._may_change(self._caller(request)):
            raise _denied()

    # Reading.

    def _read(
        self, one: Callable[[web.Request], Application | Principal]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            self._caller(request)
            return json_response(self._show(one(request)))

        return handler

    def _list(self, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            self._caller(request)
            column, value = _filter(request.query.get("$filter", ""))
            select = self._directory.applications if kind == "application" else self._directory.principals
            found: Sequence[Application | Principal] = select(column, value)
            return json_response({"value": [self._show(item) for item in found]})

        return handler

    def _application(self, request: web.Request) -> Application:
        column, value = _key(request)
        found = self._directory.applications(column, value)
        if not found:
            raise _not_found(value)
        return found[0]

    def _principal(self, request: web.Request) -> Principal:
        column, value = _key(request)
        found = self._directory.principals(column, value)
        if not found:
            raise _not_found(value)
        return found[0]

    def _show(self, item: Application | Principal) -> dict[str, Any]:
        if isinstance(item, Principal):
            return {
                "id": item.id,
                "appId": item.app_id,
                "displayName": item.display_name,
                "appDisplayName": item.display_name,
                "servicePrincipalType": "Application",
                "servicePrincipalNames": [item.app_id],
                "accountEnabled": True,
                "passwordCredentials": [],
                "keyCredentials": [],
            }
        return {
            "id": item.id,
            "appId": item.app_id,
            "displayName": item.display_name,
            "createdDateTime": item.created,
            "identifierUris": [],
            "signInAudience": "AzureADMyOrg",
            "passwordCredentials": [
                {
                    "keyId": secret.key_id,
                    "displayName": secret.display_name,
                    "hint": secret.hint,
                    "startDateTime": secret.starts,
                    "endDateTime": secret.ends,
                    "secretText": None,
                }
                for secret in self._directory.secrets(item.id)
            ],
            "keyCredentials": [
                {
                    "keyId": certificate.key_id,
                    "type": "AsymmetricX509Cert",
                    "usage": "Verify",
                    "customKeyIdentifier": certificate.thumbprint,
                    "startDateTime": certificate.starts,
                    "endDateTime": certificate.ends,
                }
                for certificate in self._directory.certificates(item.id)
            ],
        }

    # Changing.

    def _write(
        self,
        one: Callable[[web.Request], Application | Principal],
        change: Callable[[Application, dict[str, Any]], Awaitable[web.Response]],
        *,
        own: bool = False,
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            caller = self._caller(request)
            item = one(request)
            if not (self._may_change(caller) or (own and caller["appid"] == item.app_id)):
                raise _denied()
            (application,) = self._directory.applications("app_id", item.app_id)
            return await change(application, await read_json(request))

        return handler

    async def _create_application(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        name = (await read_json(request)).get("displayName")
        if not isinstance(name, str) or not 0 < len(name) <= _NAME_LIMIT:
            raise ArmError(
                400, "Request_BadRequest", f"displayName must be a string of 1 to {_NAME_LIMIT} characters."
            )
        application = Application(str(uuid.uuid4()), str(uuid.uuid4()), name, clock.rfc3339())
        await self._directory.add(application)
        return json_response(self._show(application), 201)

    async def _create_principal(self, request: web.Request) -> web.Response:
        self._demand_change(request)
        app_id = str((await read_json(request)).get("appId", ""))
        found = self._directory.applications("app_id", app_id)
        if not found:
            raise ArmError(
                400, "Request_BadRequest", f"The appId '{app_id}' does not reference a valid application object."
            )
        if self._directory.principals("app_id", app_id):
            raise ArmError(
                409,
                "Request_MultipleObjectsWithSameKeyValue",
                f"The service principal cannot be created: the service principal name {app_id} is already in use.",
            )
        principal = Principal(str(uuid.uuid4()), app_id, found[0].display_name)
        await self._directory.add(principal)
        return json_response(self._show(principal), 201)

    async def _delete(self, application: Application, _: dict[str, Any]) -> web.Response:
        for principal in self._directory.principals("app_id", application.app_id):
            await self._directory.remove("role_assignment", "principal_id", principal.id)
        await self._directory.remove("application", "id", application.id)
        return web.Response(status=204)

    async def _add_password(self, application: Application, body: dict[str, Any]) -> web.Response:
        wanted = body.get("passwordCredential") or {}
        text = secrets.new_text()
        try:
            starts, ends = (_moment(wanted.get(key)) for key in ("startDateTime", "endDateTime"))
        except (TypeError, ValueError):
            raise ArmError(
                400, "Request_BadRequest", "startDateTime and endDateTime must be RFC 3339 times."
            ) from None
        name = wanted.get("displayName")
        secret = await secrets.new_secret(
            application.id, text, display_name=str(name) if name else None, starts=starts, ends=ends
        )
        await self._directory.add(secret)
        return json_response(
            {
                "keyId": secret.key_id,
                "displayName": secret.display_name,
                "hint": secret.hint,
                "secretText": text,
                "startDateTime": secret.starts,
                "endDateTime": secret.ends,
            }
        )

    async def _remove_password(self, application: Application, body: dict[str, Any]) -> web.Response:
        key_id = str(body.get("keyId", ""))
        if key_id not in {secret.key_id for secret in self._directory.secrets(application.id)}:
            raise ArmError(400, "Request_BadRequest", f"No password credential found with keyId '{key_id}'.")
        await self._directory.remove("secret", "key_id", key_id)
        return web.Response(status=204)

    async def _patch_application(self, application: Application, body: dict[str, Any]) -> web.Response:
        """Replace the certificates; other fields of an application mean nothing here and are left."""
        if "keyCredentials" in body:
            certificates = [
                _certificate(application.id, entry) for entry in body["keyCredentials"] if entry.get("key")
            ]
            await self._directory.remove("certificate", "application_id", application.id)
            await self._directory.add(*certificates)
        return web.Response(status=204)


def _key(request: web.Request) -> tuple[str, str]:
    if "app_id" in request.match_info:
        return "app_id", request.match_info["app_id"].lower()
    return "id", request.match_info["id"].lower()


def _filter(text: str) -> tuple[str, str]:
    """The column and value of a supported `$filter`; none selects all."""
    if not text:
        return "", ""
    if match := _FILTER.fullmatch(text.strip()):
        return _COLUMNS[match[1].lower()], match[2].replace("''", "'")
    if match := _NAMES_FILTER.fullmatch(text.strip()):
        return "app_id", match[2].replace("''", "'")
    raise ArmError(400, "Request_UnsupportedQuery", f"Unsupported or invalid query filter clause: {text}")


def _moment(text: str | None) -> datetime | None:
    return clock.parse(text) if text else None


def _certificate(application_id: str, entry: dict[str, Any]) -> Certificate:
    try:
        certificate = x509.load_der_x509_certificate(base64.b64decode(entry["key"], validate=True))
    except (ValueError, TypeError):
        raise ArmError(400, "Request_BadRequest", "keyCredentials: 'key' must be a base64 DER certificate.") from None
    der = certificate.public_bytes(Encoding.DER)
    return Certificate(
        key_id=str(uuid.uuid4()),
        application_id=application_id,
        thumbprint=base64.urlsafe_b64encode(hashlib.sha1(der, usedforsecurity=False).digest()).rstrip(b"=").decode(),
        pem=certificate.public_bytes(Encoding.PEM).decode(),
        starts=clock.rfc3339(certificate.not_valid_before_utc),
        ends=clock.rfc3339(certificate.not_valid_after_utc),
    )


def _not_found(value: str) -> ArmError:
    return ArmError(
        404,
        "Request_ResourceNotFound",
        f"Resource '{value}' does not exist or one of its queried reference-property objects are not present.",
    )


def _denied() -> ArmError:
    return ArmError(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")
