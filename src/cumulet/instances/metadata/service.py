"""The routes of the metadata service (Azure Instance Metadata Service, 2021-02-01), and App Service's for managed identities.

- `/metadata/identity/oauth2/token` and `/metadata/identity/info`, with the header `Metadata: true`.
- `/metadata/instance` and the parts below it.
- `/msi/token`, the `IDENTITY_ENDPOINT` of a group, with its `IDENTITY_HEADER` (App Service, protocol 2019-08-01).

A server that forwards requests of others must not forward them to this service. Such requests lack the header, or have
`X-Forwarded-For`, and both are refused.
"""

from __future__ import annotations

import hmac
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from cumulet.common.arm import json_response
from cumulet.common.ascii import fold
from cumulet.instances.groups.identities import IdentityError, Token
from cumulet.instances.groups.workload_environment import ENDPOINT_PATH
from cumulet.instances.metadata import documents
from cumulet.instances.metadata.selection import SelectionError, select
from cumulet.instances.metadata.tokens import ManagedTokens
from cumulet.instances.store.records import GroupRecord

log = logging.getLogger(__name__)

_VERSION = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(-preview)?|latest")
_LONGEST_RESOURCE = 1000
#: Requests of a group: how many at once, and how many a second after that.
_BURST = 20.0
_GROUPS = 10_000
_NO_STORE = {"Cache-Control": "no-store"}

_Handler = Callable[[web.Request, GroupRecord], Awaitable[web.Response]]
#: Returns the group that has an address, `None` for another address.
Find = Callable[[str], GroupRecord | None]


class _RefusalError(Exception):
    """A request that is refused, in the form of the token route: status, error, description."""

    def __init__(self, status: int, error: str, description: str) -> None:
        super().__init__(description)
        self.status = status
        self.error = error


class MetadataService:
    """The service. `header_of` returns the `IDENTITY_HEADER` of a group; `now` is the monotonic clock."""

    def __init__(
        self,
        find: Find,
        tokens: ManagedTokens,
        header_of: Callable[[GroupRecord], str],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._tokens = tokens
        self._header_of = header_of
        self._now = now
        self._budgets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=1024)
        app.add_routes(
            [
                web.get("/metadata/identity/oauth2/token", self._guarded(self._token)),
                web.get("/metadata/identity/info", self._guarded(self._info)),
                web.get("/metadata/instance{path:(?:/.*)?}", self._guarded(self._instance)),
                web.get("/metadata/versions", self._guarded(self._versions)),
                web.get(ENDPOINT_PATH, self._app_service),
            ]
        )
        return app

    def _caller(self, request: web.Request) -> GroupRecord:
        """Return the group that asks, by its address. Raises `_RefusalError`."""
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        record = self._find(peer[0]) if peer else None
        if record is None:
            raise _RefusalError(400, "unknown_source", "Unknown Source")
        left, since = self._budgets.pop(record.uid, (_BURST, self._now()))
        left = min(left + (self._now() - since) * _BURST, _BURST)
        self._budgets[record.uid] = max(left - 1, 0.0), self._now()
        if len(self._budgets) > _GROUPS:
            self._budgets.popitem(last=False)
        if left < 1:
            raise _RefusalError(429, "too_many_requests", "Too many requests")
        if "X-Forwarded-For" in request.headers:
            raise _RefusalError(400, "invalid_request", "The header X-Forwarded-For is not allowed")
        return record

    def _guarded(self, handler: _Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            try:
                record = self._caller(request)
                if fold(request.headers.get("Metadata", "")) != "true":
                    raise _RefusalError(400, "invalid_request", "Required metadata header not specified")
                return await handler(request, record)
            except _RefusalError as refusal:
                body: dict[str, str] = {"error": refusal.error, "error_description": str(refusal)}
                if request.path.startswith("/metadata/instance"):
                    body = {"error": f"Bad request. {refusal}" if refusal.status == 400 else str(refusal)}
                return json_response(body, refusal.status, _retry(refusal))

        return guarded

    async def _token(self, request: web.Request, record: GroupRecord) -> web.Response:
        _check_version(request)
        client, resource, token = await self._issue(request, record)
        left = max(token.expires_on - int(time.time()), 0)
        body = {
            "access_token": token.text,
            "client_id": client,
            "expires_in": str(left),
            "expires_on": str(token.expires_on),
            "ext_expires_in": str(left),
            "not_before": str(int(time.time()) - 1),
            "resource": resource,
            "token_type": "Bearer",
        }
        return json_response(body, headers=_NO_STORE)

    async def _app_service(self, request: web.Request) -> web.Response:
        try:
            record = self._caller(request)
            given = request.headers.get("X-IDENTITY-HEADER", "").encode()
            if record.given_identity is None or not hmac.compare_digest(given, self._header_of(record).encode()):
                raise _RefusalError(401, "Unauthorized", "The header X-IDENTITY-HEADER is missing or wrong")
            _check_version(request)
            client, resource, token = await self._issue(request, record)
        except _RefusalError as refusal:
            answer = {"statusCode": refusal.status, "message": str(refusal), "correlationId": None}
            return json_response(answer, refusal.status, _retry(refusal))
        body = {
            "access_token": token.text,
            "client_id": client,
            "expires_on": str(token.expires_on),
            "resource": resource,
            "token_type": "Bearer",
        }
        return json_response(body, headers=_NO_STORE)

    async def _issue(self, request: web.Request, record: GroupRecord) -> tuple[str, str, Token]:
        """Return the client id and resource of a request, and the token. Raises `_RefusalError`."""
        resource = request.query.get("resource", "")
        if not resource:
            raise _RefusalError(400, "invalid_request", "Required query variable 'resource' is missing")
        if len(resource) > _LONGEST_RESOURCE or not resource.isprintable() or " " in resource:
            raise _RefusalError(
                400,
                "invalid_resource",
                "AADSTS500011: The resource principal was not found in the tenant.",
            )
        try:
            client = select(record.given_identity, request.query)
        except SelectionError as error:
            raise _RefusalError(400, "invalid_request", str(error)) from None
        try:
            return client, resource, await self._tokens.token(client, resource)
        except IdentityError as error:
            self._tokens.forget(client)
            raise _RefusalError(400, "invalid_request", f"Identity not found: {error}") from None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("no token for %s: %s", record.id, error)
            raise _RefusalError(
                500, "unknown", "Failed to retrieve token from the Active directory. For details see logs"
            ) from None

    async def _info(self, request: web.Request, record: GroupRecord) -> web.Response:
        _check_version(request)
        identity = record.given_identity
        if identity is None or identity.tenant_id is None:
            raise _RefusalError(404, "not_found", "Identity not found")
        return json_response({"tenantId": identity.tenant_id})

    async def _versions(self, _: web.Request, __: GroupRecord) -> web.Response:
        return json_response({"apiVersions": ["2017-12-01", "2018-02-01", "2019-08-01", "2021-02-01"]})

    async def _instance(self, request: web.Request, record: GroupRecord) -> web.Response:
        _check_version(request)
        path = [name for name in request.match_info["path"].split("/") if name]
        wanted = request.query.get("format", "json")
        if wanted not in ("json", "text"):
            raise _RefusalError(400, "invalid_request", "The format must be json or text")
        try:
            found = documents.part(documents.instance(record), path)
            if wanted == "text":
                return web.Response(text=documents.as_text(found))
            return web.Response(body=documents.as_json(found), content_type="application/json", charset="utf-8")
        except documents.MissingError:
            raise _RefusalError(404, "not_found", "Not found") from None
        except documents.NotTextError:
            raise _RefusalError(400, "invalid_request", "The requested path is a value: use format=text") from None


def _check_version(request: web.Request) -> None:
    """Raise `_RefusalError` unless a request names a version of the API."""
    if not _VERSION.fullmatch(request.query.get("api-version", "")):
        raise _RefusalError(400, "invalid_request", "api-version is invalid or was not specified in the request")


def _retry(refusal: _RefusalError) -> dict[str, str]:
    return {"Retry-After": "1"} if refusal.status == 429 else {}
