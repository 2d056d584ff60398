"""The one entrance: finds out what a path asks for, who asks and whether they may, and has it answered."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter

from cumulet.arm import condition_attributes, subscriptions
from cumulet.arm.access import Access, Caller, Rights
from cumulet.arm.providers import Providers, read_body
from cumulet.arm.request_path import Target, verb
from cumulet.arm.resource_groups import GROUP_TYPE, Groups
from cumulet.arm.store import Index
from cumulet.common.arm import ArmError, ResourceId, json_response
from cumulet.common.ascii import fold
from cumulet.common.config import Config

log = logging.getLogger(__name__)

_IDENTITY_TYPE = "Microsoft.ManagedIdentity/userAssignedIdentities"
_GROUP_WRITE = "microsoft.containerinstance/containergroups/write"
_JOIN = "Microsoft.Network/virtualNetworks/subnets/join/action"
_METHODS = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"})
_READS = ("GET", "HEAD")
_CORRELATION = "x-ms-correlation-request-id"


class _Identity(msgspec.Struct):
    user_assigned_identities: dict[str, Any] | None = msgspec.field(name="userAssignedIdentities", default=None)


class _Resource(msgspec.Struct):
    identity: _Identity | None = None


class _Link(msgspec.Struct):
    id: str


class _Linked(msgspec.Struct):
    subnet_ids: list[_Link] | None = msgspec.field(name="subnetIds", default=None)


class _Group(msgspec.Struct):
    properties: _Linked | None = None


class Door:
    """`handle` answers every path but the health ones."""

    def __init__(
        self,
        config: Config,
        access: Access,
        groups: Groups,
        providers: Providers,
        index: Index,
        metrics: CollectorRegistry,
    ) -> None:
        self._config = config
        self._access = access
        self._groups = groups
        self._providers = providers
        self._index = index
        self._requests = Counter(
            "arm_requests", "Requests by method and status.", ["method", "status"], registry=metrics
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, in ARM's form whatever comes of it, with its correlation id."""
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
        target = Target(request.method, request.rel_url.raw_path)
        if target.words == ["metadata", "endpoints"]:
            _demand_method(request, *_READS)
            return json_response(subscriptions.metadata(self._config, request.query.get("api-version", "")))
        caller = await self._access.authenticate(request)
        try:
            response = await self._dispatch(request, target, caller, correlation)
        except ArmError as error:
            self._record(request, target, caller, error.status, correlation)
            raise
        self._record(request, target, caller, response.status, correlation)
        return response

    def _challenge(self, error: ArmError) -> dict[str, str]:
        """Where the token is to be had (RFC 6750, 3)."""
        if error.status != 401:
            return {}
        authority = f"{self._config.url('identity')}/{self._config.tenant_id}"
        return {"WWW-Authenticate": f'Bearer authorization_uri="{authority}", error="invalid_token"'}

    def _record(self, request: web.Request, target: Target, caller: Caller, status: int, correlation: str) -> None:
        """What was changed, tried in vain or forbidden, and by whom; reading leaves no line."""
        if request.method in ("GET", "HEAD") and status != 403:
            return
        log.info(
            "%s %s: %d",
            request.method,
            target.path,
            status,
            extra={"principal": caller.object_id, "client": caller.app_id, "correlation": correlation},
        )

    async def _dispatch(
        self, request: web.Request, target: Target, caller: Caller, correlation: str
    ) -> web.StreamResponse:
        words = target.words
        if words in (["tenants"], ["subscriptions"]):
            _demand_method(request, *_READS)
        if words == ["tenants"]:
            return json_response(subscriptions.tenants(self._config))
        if words == ["subscriptions"]:
            rights = await self._access.rights(caller)
            seen = rights.below(f"/subscriptions/{self._config.subscription_id}")
            return json_response({"value": [subscriptions.subscription(self._config)] if seen else []})
        if target.subscription is not None and target.subscription != fold(self._config.subscription_id):
            raise ArmError(
                404, "SubscriptionNotFound", f"The subscription '{target.segments[1]}' could not be found."
            )
        # `/subscriptions/{s}/providers[/{namespace}[/register]]` is about providers, not for one.
        if words[2:3] == ["providers"] and (len(words) <= 4 or words[4:] == ["register"]):
            return await self._about_providers(request, target, caller)
        if target.namespace is not None:
            return await self._provider(request, target, caller, correlation)
        if target.subscription is not None:
            return await self._subscription(request, target, caller)
        raise ArmError(404, "NotFound", f"There is nothing at '{target.path}'.")

    async def _subscription(self, request: web.Request, target: Target, caller: Caller) -> web.Response:
        rights = await self._access.rights(caller)
        subscription = f"/subscriptions/{target.segments[1]}"
        if len(target.words) == 4 and target.resource_group is not None:
            scope = f"{subscription}/resourceGroups/{target.resource_group}"
            rights.demand(f"{GROUP_TYPE}/{verb(request.method)}", scope)
            return await self._groups.handle(request, target.resource_group)
        _demand_method(request, *_READS)
        match target.words[2:]:
            case []:
                rights.demand("Microsoft.Resources/subscriptions/read", subscription)
                return json_response(subscriptions.subscription(self._config))
            case ["locations"]:
                rights.demand("Microsoft.Resources/subscriptions/locations/read", subscription)
                return json_response(subscriptions.locations(self._config))
            case ["operationresults", _]:
                # Its name cannot be guessed, and whoever started it may ask.
                return await self._groups.operation(request, target.segments[3])
            case ["resources"]:
                if not rights.below(subscription):
                    raise rights.denied("Microsoft.Resources/subscriptions/resources/read", subscription)
                return self._groups.list_resources(request, rights)
            case ["resourcegroups"]:
                if not rights.below(subscription):
                    raise rights.denied(f"{GROUP_TYPE}/read", subscription)
                return self._groups.list_groups(request, rights)
            case ["resourcegroups", _, "resources"]:
                scope = f"{subscription}/resourceGroups/{target.segments[3]}"
                if not rights.below(scope):
                    raise rights.denied(f"{GROUP_TYPE}/resources/read", scope)
                self._groups.existing(target.segments[3])
                return self._groups.list_resources(request, rights, target.segments[3])
        raise ArmError(404, "NotFound", f"There is nothing at '{target.path}'.")

    async def _about_providers(self, request: web.Request, target: Target, caller: Caller) -> web.Response:
        rights = await self._access.rights(caller)
        scope = f"/subscriptions/{target.segments[1]}"
        registers = len(target.words) == 5
        _demand_method(request, *(("POST",) if registers else _READS))
        action = "register/action" if registers else "read"
        rights.demand(f"Microsoft.Resources/subscriptions/providers/{action}", scope)
        if len(target.segments) == 3:
            return json_response(
                {"value": [subscriptions.provider(self._config, name) for name in subscriptions.PROVIDERS]}
            )
        for name in subscriptions.PROVIDERS:
            if fold(name) == target.words[3]:
                return json_response(subscriptions.provider(self._config, name))
        raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{target.segments[3]}' is invalid.")

    async def _provider(
        self, request: web.Request, target: Target, caller: Caller, correlation: str
    ) -> web.StreamResponse:
        if target.is_access and len(target.types) != 1:
            raise ArmError(
                404,
                "InvalidResourceType",
                f"The resource type could not be found in the namespace '{target.namespace}'.",
            )
        rights = await self._access.rights(caller)
        body, attributes = None, None
        if condition_attributes.changes_assignment(target, request.method):
            body = await read_body(request)
            if request.method == "PUT":
                attributes = condition_attributes.requested(body)
            else:
                attributes = condition_attributes.existing(await self._access.assignment(target.path))
        if not self._is_open(target) and not rights.allow(target.action, target.scope, attributes):
            # A list at a scope that the caller does not have shows what of it the caller does have.
            if not (target.is_list and rights.below(target.scope)):
                raise rights.denied(target.action, target.scope)
            return await self._providers.readable(request, target, caller, correlation, rights)
        if body is None:
            body = await read_body(request)
        if not target.is_access:
            if request.method in ("PUT", "PATCH"):
                self._demand_identities(body, rights)
            if fold(target.action) == _GROUP_WRITE:
                self._demand_subnets(body, rights, target)
            return await self._providers.forward(request, target, caller, correlation, body)
        if request.method == "PUT":
            self._demand_scope(target)
        try:
            return await self._providers.forward(request, target, caller, correlation, body)
        finally:
            if request.method not in ("GET", "HEAD"):
                self._access.forget()

    @staticmethod
    def _is_open(target: Target) -> bool:
        """What roles there are is no secret, and is asked for without a scope to hold a right on."""
        return target.is_operation or fold(target.action) == "microsoft.authorization/roledefinitions/read"

    def _demand_scope(self, target: Target) -> None:
        """A role is given on what is there."""
        if target.resource_group is None or len(target.before) <= 4:
            return
        resource = ResourceId("/".join(target.before[:8]))
        if not self._index.has(resource):
            raise ArmError(
                404,
                "ResourceNotFound",
                f"The Resource '{resource.type}/{resource.name}' under resource group '{target.resource_group}' was not "
                "found. For more details please go to https://aka.ms/ARMResourceNotFoundFix",
            )

    def _demand_identities(self, body: bytes | None, rights: Rights) -> None:
        """Who lets a resource run as a managed identity needs the right to assign that identity."""
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
    def _demand_subnets(body: bytes | None, rights: Rights, target: Target) -> None:
        """Who puts a group in a subnet, where it reaches all that is in the virtual network, needs the right to join it."""
        for subnet in _subnets(body):
            if not rights.allow(_JOIN, subnet):
                caller = rights.caller
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    f"The client '{caller.app_id}' with object id '{caller.object_id}' has permission to perform action "
                    f"'{target.action}' on scope '{target.scope}'; however, it does not have permission to perform action "
                    f"'{_JOIN}' on the linked scope '{subnet}', or the linked scope is invalid.",
                )


def _subnets(body: bytes | None) -> list[str]:
    """The ids of the subnets that the body of a container group names. Raises `ArmError` 400."""
    try:
        properties = msgspec.json.decode(body or b"{}", type=_Group).properties
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    return [subnet.id for subnet in properties.subnet_ids or ()] if properties is not None else []


def _identities(body: bytes | None) -> list[str]:
    """The ids of the managed identities that the body of a resource names. Raises `ArmError` 400."""
    try:
        wanted = msgspec.json.decode(body or b"{}", type=_Resource).identity
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArmError(400, "InvalidRequestContent", f"The request content was invalid: {error}") from None
    return list(wanted.user_assigned_identities or {}) if wanted is not None else []


def _demand_method(request: web.Request, *methods: str) -> None:
    if request.method not in methods:
        raise ArmError(405, "MethodNotAllowed", f"{request.method} is not allowed here: {' or '.join(methods)} is.")


def _printable(text: str) -> str:
    return text if text.isascii() and text.isprintable() and len(text) <= 64 else ""
