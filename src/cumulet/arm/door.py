"""The one entrance: finds out what a path asks for, who asks and whether they may, and has it answered."""

from __future__ import annotations

import uuid

from aiohttp import web

from cumulet.arm import tenant
from cumulet.arm.access import Access, Caller
from cumulet.arm.groups import Groups
from cumulet.arm.provider import ProviderCall, Providers
from cumulet.common.arm import ArmError, json_response
from cumulet.common.config import Config

_VERBS = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}


class Door:
    """`handle` answers every path but the health ones."""

    def __init__(self, config: Config, access: Access, groups: Groups, providers: Providers) -> None:
        self._config = config
        self._access = access
        self._groups = groups
        self._providers = providers

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request, with its correlation id."""
        # Clients join addresses carelessly: a doubled slash is one.
        segments = [segment for segment in request.rel_url.raw_path.split("/") if segment]
        response = await self._dispatch(request, segments)
        if not response.prepared:
            response.headers.setdefault("x-ms-request-id", str(uuid.uuid4()))
            response.headers["x-ms-correlation-request-id"] = request.headers.get(
                "x-ms-correlation-request-id", response.headers["x-ms-request-id"]
            )
        return response

    async def _dispatch(self, request: web.Request, segments: list[str]) -> web.StreamResponse:
        words = [segment.lower() for segment in segments]
        if words == ["metadata", "endpoints"]:
            return json_response(tenant.metadata(self._config, request.query.get("api-version", "")))
        caller = await self._access.authenticate(request)
        if words == ["tenants"]:
            return json_response(tenant.tenants(self._config))
        if words == ["subscriptions"]:
            return json_response({"value": [tenant.subscription(self._config)]})
        if words[:1] == ["subscriptions"] and len(words) > 1 and words[1] != self._config.subscription_id.lower():
            raise ArmError(404, "SubscriptionNotFound", f"The subscription '{segments[1]}' could not be found.")
        # `/subscriptions/{s}/providers[/{namespace}[/register]]` is about providers, not for one.
        if (
            words[:1] == ["subscriptions"]
            and words[2:3] == ["providers"]
            and (len(words) <= 4 or words[4:] in (["register"], ["unregister"]))
        ):
            return await self._about_providers(request, caller, segments)
        if "providers" in words:
            return await self._provider(request, caller, segments)
        if words[:1] == ["subscriptions"]:
            return await self._subscription(request, caller, segments)
        raise ArmError(404, "NotFound", f"There is nothing at '{request.path}'.")

    async def _subscription(self, request: web.Request, caller: Caller, segments: list[str]) -> web.StreamResponse:
        scope = f"/subscriptions/{segments[1]}"
        verb = _VERBS.get(request.method, "write")
        rest = segments[2:]
        match [word.lower() for word in rest[:1]]:
            case []:
                return json_response(tenant.subscription(self._config))
            case ["locations"]:
                return json_response(tenant.locations(self._config))
            case ["operationresults"] if len(rest) == 2:
                return await self._groups.operation(rest[1])
            case ["resources"]:
                await self._access.authorize(caller, "Microsoft.Resources/subscriptions/resources/read", scope)
                return self._groups.resources(request)
            case ["resourcegroups"]:
                name = rest[1] if len(rest) > 1 else None
                if name is not None:
                    scope = f"{scope}/resourceGroups/{name}"
                action = f"Microsoft.Resources/subscriptions/resourceGroups/{verb}"
                await self._access.authorize(caller, action, scope)
                return await self._groups.handle(request, name, rest[2:])
        raise ArmError(404, "NotFound", f"There is nothing at '{request.path}'.")

    async def _about_providers(self, request: web.Request, caller: Caller, segments: list[str]) -> web.StreamResponse:
        scope = f"/subscriptions/{segments[1]}"
        await self._access.authorize(
            caller, f"Microsoft.Resources/subscriptions/providers/{_VERBS.get(request.method, 'write')}", scope
        )
        if len(segments) == 3:
            return json_response({"value": [tenant.provider(self._config, name) for name in tenant.PROVIDERS]})
        for name in tenant.PROVIDERS:
            if name.lower() == segments[3].lower():
                return json_response(tenant.provider(self._config, name))
        raise ArmError(404, "InvalidResourceNamespace", f"The resource namespace '{segments[3]}' is invalid.")

    async def _provider(self, request: web.Request, caller: Caller, segments: list[str]) -> web.StreamResponse:
        call = ProviderCall(request.method, segments)
        # What roles there are is no secret, and is asked for without a scope to hold a right on.
        if call.action.lower() != "microsoft.authorization/roledefinitions/read":
            await self._access.authorize(caller, call.action, call.scope)
        lower = [segment.lower() for segment in segments]
        if request.method in ("PUT", "PATCH") and lower[2:3] == ["resourcegroups"]:
            self._groups.existing(segments[3])
        response = await self._providers.forward(request, call, "/" + "/".join(segments), caller)
        if call.namespace.lower() == "microsoft.authorization" and request.method not in ("GET", "HEAD"):
            self._access.forget()
        return response
