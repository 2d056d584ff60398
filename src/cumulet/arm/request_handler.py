"""The request handler: parses the path, authenticates and authorizes the caller, and dispatches the request."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator

import msgspec
from aiohttp import web
from prometheus_client import Counter

from cumulet.arm import cloud_metadata, condition_attributes, subscriptions
from cumulet.arm.access import Access, Caller, Rights
from cumulet.arm.providers import Providers, read_body
from cumulet.arm.request_path import RequestPath, verb
from cumulet.arm.resource_groups import GROUP_TYPE, Groups
from cumulet.arm.store import Index
from cumulet.arm.subscriptions import ListResult
from cumulet.common.arm import GROUP_BODY_LIMIT, ArmError, ResourceId, json_response
from cumulet.common.ascii import fold
from cumulet.common.config import Config

log = logging.getLogger(__name__)

_IDENTITY_TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
_GROUP_WRITE = "microsoft.containerinstance/containergroups/write"
_ATTACH = "Microsoft.Compute/disks/write"
_JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"})
_READS = ("GET", "HEAD")
_CORRELATION = "x-ms-correlation-request-id"


class _Identity(msgspec.Struct):
    user_assigned_identities: dict[str, object] | None = msgspec.field(name="userAssignedIdentities", default=None)


class _Resource(msgspec.Struct):
    identity: _Identity | None = None


class _Link(msgspec.Struct):
    id: str


class _Disk(msgspec.Struct):
    uri: str = msgspec.field(name="diskURI")


class _Volume(msgspec.Struct):
    disk: _Disk | None = msgspec.field(name="azureDisk", default=None)


class _Linked(msgspec.Struct):
    subnet_ids: list[_Link] | None = msgspec.field(name="subnetIds", default=None)
    volumes: list[_Volume] | None = None


class _Group(msgspec.Struct):
    properties: _Linked | None = None


class RequestHandler:
    """The front door's handler of every path except the health probes and the metrics."""

    def __init__(
        self,
        config: Config,
        access: Access,
        groups: Groups,
        providers: Providers,
        index: Index,
        requests: Counter,
    ) -> None:
        """`config` has the addresses at which clients see the rooms; `requests` counts by method and status."""
        self._config = config
        self._access = access
        self._groups = groups
        self._providers = providers
        self._index = index
        self._requests = requests

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Return the response, with the request's correlation id, and every error in ARM's form."""
        request_id = str(uuid.uuid4())
        correlation = _printable(request.headers.get(_CORRELATION, "")) or request_id
        try:
            response = await self._answer(request, correlation)
        except ArmError as error:
            response = json_response(error.body(), error.status, self._challenge(error))
        if not response.prepared:
            response.headers.setdefault("x-ms-request-id", request_id)
            response.headers[_CORRELATION] = correlation
        method = request.method if request.method in _METHODS else "other"
        self._requests.labels(method, str(response.status)).inc()
        return response

    async def _answer(self, request: web.Request, correlation: str) -> web.StreamResponse:
        path = RequestPath(request.method, request.rel_url.raw_path)
        if path.words == ["metadata", "endpoints"]:
            _demand_method(request, *_READS)
            return json_response(cloud_metadata.metadata(self._config, request.query.get("api-version", "")))
        caller = await self._access.authenticate(request)
        try:
            response = await self._dispatch(request, path, caller, correlation)
        except ArmError as error:
            self._record(request, path, caller, error.status, correlation)
            raise
        self._record(request, path, caller, response.status, correlation)
        return response

    def _challenge(self, error: ArmError) -> dict[str, str]:
        """Return the header that names the authority that issues tokens (RFC 6750, section 3)."""
        if error.status != 401:
            return {}
        authority = f"{self._config.url('identity')}/{self._config.tenant_id}"
        return {"WWW-Authenticate": f'Bearer authorization_uri="{authority}", error="invalid_token"'}

    def _record(self, request: web.Request, path: RequestPath, caller: Caller, status: int, correlation: str) -> None:
        """Log every write and every request that was denied, with the principal. Other reads are not logged."""
        if request.method in ("GET", "HEAD") and status != 403:
            return
        log.info(
            "%s %s: %d",
            request.method,
            path.normalized,
            status,
            extra={"principal": caller.object_id, "client": caller.app_id, "correlation": correlation},
        )

    async def _dispatch(
        self, request: web.Request, path: RequestPath, caller: Caller, correlation: str
    ) -> web.StreamResponse:
        words = path.words
        if words in (["tenants"], ["subscriptions"]):
            _demand_method(request, *_READS)
        if words == ["tenants"]:
            return json_response(subscriptions.tenants(self._config))
        if words == ["subscriptions"]:
            rights = await self._access.rights(caller)
            visible = rights.below(f"/subscriptions/{self._config.subscription_id}")
            return json_response(ListResult([subscriptions.subscription(self._config)] if visible else []))
        if path.subscription is not None and path.subscription != fold(self._config.subscription_id):
            raise ArmError(404, "SubscriptionNotFound", f"The subscription '{path.segments[1]}' could not be found.")
        # The front door itself answers `/subscriptions/{s}/providers[/{namespace}[/register]]`.
        if words[2:3] == ["providers"] and (len(words) <= 4 or words[4:] == ["register"]):
            return await self._registrations(request, path, caller)
        if path.namespace is not None:
            return await self._resource(request, path, caller, correlation)
        if path.subscription is not None:
            return await self._subscription(request, path, caller)
        raise ArmError(404, "NotFound", f"No resource exists at '{path.normalized}'.")

    async def _subscription(self, request: web.Request, path: RequestPath, caller: Caller) -> web.Response:
        rights = await self._access.rights(caller)
        subscription = f"/subscriptions/{path.segments[1]}"
        if len(path.words) == 4 and path.resource_group is not None:
            scope = f"{subscription}/resourceGroups/{path.resource_group}"
            rights.demand(f"{GROUP_TYPE}/{verb(request.method)}", scope)
            return await self._groups.handle(request, path.resource_group)
        _demand_method(request, *_READS)
        match path.words[2:]:
            case []:
                rights.demand("Microsoft.Resources/subscriptions/read", subscription)
                return json_response(subscriptions.subscription(self._config))
            case ["locations"]:
                rights.demand("Microsoft.Resources/subscriptions/locations/read", subscription)
                return json_response(subscriptions.locations(self._config))
            case ["operationresults", _]:
                # The name of an operation cannot be guessed, so its state needs no role.
                return await self._groups.operation(request, path.segments[3])
            case ["resources"]:
                if not rights.below(subscription):
                    raise rights.denied("Microsoft.Resources/subscriptions/resources/read", subscription)
                return self._groups.list_resources(request, rights)
            case ["resourcegroups"]:
                if not rights.below(subscription):
                    raise rights.denied(f"{GROUP_TYPE}/read", subscription)
                return self._groups.list_groups(request, rights)
            case ["resourcegroups", _, "resources"]:
                scope = f"{subscription}/resourceGroups/{path.segments[3]}"
                if not rights.below(scope):
                    raise rights.denied(f"{GROUP_TYPE}/resources/read", scope)
                self._groups.existing(path.segments[3])
                return self._groups.list_resources(request, rights, path.segments[3])
        raise ArmError(404, "NotFound", f"No resource exists at '{path.normalized}'.")

    async def _registrations(self, request: web.Request, path: RequestPath, caller: Caller) -> web.Response:
        rights = await self._access.rights(caller)
        scope = f"/subscriptions/{path.segments[1]}"
        registers = len(path.words) == 5
        _demand_method(request, *(("POST",) if registers else _READS))
        action = "register/action" if registers else "read"
        rights.demand(f"Microsoft.Resources/subscriptions/providers/{action}", scope)
        if len(path.segments) == 3:
            return json_response(
                ListResult([subscriptions.provider(self._config, name) for name in subscriptions.PROVIDERS])
            )
        for name in subscriptions.PROVIDERS:
            if fold(name) == path.words[3]:
                return json_response(subscriptions.provider(self._config, name))
        raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{path.segments[3]}' is invalid.")

    async def _resource(
        self, request: web.Request, path: RequestPath, caller: Caller, correlation: str
    ) -> web.StreamResponse:
        if path.is_access and len(path.types) != 1:
            raise ArmError(
                404,
                "InvalidResourceType",
                f"The resource type could not be found in the namespace '{path.namespace}'.",
            )
        rights = await self._access.rights(caller)
        body, attributes = None, None
        if condition_attributes.changes_assignment(path, request.method):
            body = await read_body(request)
            if request.method == "PUT":
                attributes = condition_attributes.requested(body)
            else:
                attributes = condition_attributes.existing(await self._access.assignment(path.normalized))
        if not self._is_open(path) and not rights.allow(path.action, path.scope, attributes):
            # A list at a scope without the right is filtered to the items that the caller may read.
            if not (path.is_list and rights.below(path.scope)):
                raise rights.denied(path.action, path.scope)
            return await self._providers.readable(request, path, caller, correlation, rights)
        if body is None:
            is_group = fold(path.action) == _GROUP_WRITE
            body = await (read_body(request, GROUP_BODY_LIMIT) if is_group else read_body(request))
        if not path.is_access:
            if request.method in ("PUT", "PATCH"):
                self._demand_identities(body, rights)
            if fold(path.action) == _GROUP_WRITE:
                self._demand_linked(body, rights, path)
            return await self._providers.forward(request, path, caller, correlation, body)
        if request.method == "PUT":
            self._demand_scope(path)
        try:
            return await self._providers.forward(request, path, caller, correlation, body)
        finally:
            if request.method not in ("GET", "HEAD"):
                self._access.forget()

    @staticmethod
    def _is_open(path: RequestPath) -> bool:
        """Return whether a request needs no role. Role definitions are not secret, and clients read them at any scope."""
        return path.is_operation or fold(path.action) == "microsoft.authorization/roledefinitions/read"

    def _demand_scope(self, path: RequestPath) -> None:
        """Raises `ArmError` 404 if the scope of a role assignment does not exist."""
        if path.resource_group is None or len(path.before) <= 4:
            return
        resource = ResourceId("/".join(path.before[:8]))
        if not self._index.has(resource):
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{resource.type}/{resource.name}' under resource group '{path.resource_group}' was not "
                "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
            )

    def _demand_identities(self, body: bytes | None, rights: Rights) -> None:
        """Raises `ArmError` 403 unless the caller may assign each managed identity that the resource is to run as."""
        for name in _identities(body):
            identity = ResourceId(name)
            if fold(identity.type) != fold(_IDENTITY_TYPE) or not self._index.has(identity):
                raise ArmError(400, "FailedIdentityOperation", f"The managed identity '{name}' was not found.")
            if not rights.allow(f"{_IDENTITY_TYPE}/assign/action", str(identity)):
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    f"The client '{rights.caller.app_id}' does not have permission to perform action "
                    f"'{_IDENTITY_TYPE}/assign/action' on the linked scope '{name}', or the linked scope is invalid.",
                )

    @staticmethod
    def _demand_linked(body: bytes | None, rights: Rights, path: RequestPath) -> None:
        """Raises `ArmError` 403 unless the caller may join each subnet of a container group, and attach each disk.

        The group can reach everything in the virtual network of its subnet, and everything on its disks.
        """
        for action, scope in _linked(body):
            if not rights.allow(action, scope):
                caller = rights.caller
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    f"The client '{caller.app_id}' with object id '{caller.object_id}' has permission to perform action "
                    f"'{path.action}' on scope '{path.scope}'; however, it does not have permission to perform action "
                    f"'{action}' on the linked scope '{scope}', or the linked scope is invalid.",
                )


def _linked(body: bytes | None) -> Iterator[tuple[str, str]]:
    """Yield each action that the body of a container group needs on another resource, and its id. Raises `ArmError` 400."""
    try:
        properties = msgspec.json.decode(body or b"{}", type=_Group).properties
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    if properties is not None:
        for subnet in properties.subnet_ids or ():
            yield _JOIN, subnet.id
        for volume in properties.volumes or ():
            if volume.disk is not None:
                yield _ATTACH, str(ResourceId(volume.disk.uri))


def _identities(body: bytes | None) -> list[str]:
    """Return the ids of the managed identities in the body of a resource. Raises `ArmError` 400."""
    try:
        identity = msgspec.json.decode(body or b"{}", type=_Resource).identity
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    return list(identity.user_assigned_identities or {}) if identity is not None else []


def _demand_method(request: web.Request, *methods: str) -> None:
    if request.method not in methods:
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not allowed here. Use {' or '.join(methods)}.")


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 64 else ""
