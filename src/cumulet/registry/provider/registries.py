"""The resource provider `Microsoft.ContainerRegistry` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId, json_response, read_json, read_tags
from cumulet.common.ascii import fold
from cumulet.common.config import write_private
from cumulet.common.regions import read_location
from cumulet.registry.access.gate import ABAC, Gate
from cumulet.registry.access.repository_tokens import RepositoryToken
from cumulet.registry.access.scope_maps import ScopeMap
from cumulet.registry.catalog.store import Catalog, Registry, Resource
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.provider import paths, policies
from cumulet.registry.webhooks.events import Webhook

_TYPE = "Microsoft.ContainerRegistry/registries"
_NAME = re.compile(r"[a-zA-Z0-9]{5,50}")
_SKUS = ("Basic", "Standard", "Premium")
#: Bytes of storage and webhooks that are included in each, as Azure's documentation has them; only a quota is enforced.
_INCLUDED = {"Basic": (10 * 1024**3, 2), "Standard": (100 * 1024**3, 10), "Premium": (500 * 1024**3, 500)}
_SCOPE_MAPS, _TOKENS = 50_000, 50_000
_ROLE_MODES = ("LegacyRegistryPermissions", ABAC)


class Registries:
    """Serves registries as resources."""

    def __init__(self, catalog: Catalog, gate: Gate, collector: Collector, login_servers: Path) -> None:
        self._catalog = catalog
        self._gate = gate
        self._collector = collector
        self._login_servers = login_servers

    def routes(self) -> list[web.RouteDef]:
        """What is served; ids are compared without case."""
        one = paths.REGISTRY
        return [
            web.get(f"{paths.SUBSCRIPTION}/{paths.REGISTRIES}", self._list),
            web.post(f"{paths.SUBSCRIPTION}/{paths.word('checkNameAvailability')}", self._check_name),
            web.get(f"{paths.GROUP}/{paths.REGISTRIES}", self._list),
            web.get(one, self._get),
            web.put(one, self._put),
            web.patch(one, self._patch),
            web.delete(one, self._delete),
            web.post(f"{one}/{paths.word('listCredentials')}", self._list_credentials),
            web.post(f"{one}/{paths.word('regenerateCredential')}", self._regenerate),
            web.get(f"{one}/{paths.word('listUsages')}", self._usages),
        ]

    def publish(self) -> None:
        """Write down the login servers that there are, for whoever makes their names known on this machine."""
        lines = [f"{self._gate.login_server(registry)}\n" for registry in self._catalog.registries()]
        write_private(self._login_servers, "".join(lines).encode())

    async def _list(self, request: web.Request) -> web.Response:
        group = fold(request.match_info.get("group", ""))
        found = [
            self._show(registry)
            for registry in self._catalog.registries()
            if not group or fold(ResourceId(registry.id).resource_group or "") == group
        ]
        return json_response({"value": found})

    async def _check_name(self, request: web.Request) -> web.Response:
        name = str((await read_json(request)).get("name", ""))
        if not _NAME.fullmatch(name):
            answer: dict[str, Any] = {"nameAvailable": False, "reason": "Invalid", "message": _invalid(name)}
        elif paths.by_key(self._catalog, fold(name)):
            message = f"The registry {name} is already in use."
            answer = {"nameAvailable": False, "reason": "AlreadyExists", "message": message}
        else:
            answer = {"nameAvailable": True}
        return json_response(answer)

    async def _get(self, request: web.Request) -> web.Response:
        return json_response(self._show(paths.existing(self._catalog, request)))

    async def _put(self, request: web.Request) -> web.Response:
        name = request.match_info["registry"]
        if not _NAME.fullmatch(name):
            raise ArmError(400, "RegistryNameNotValid", _invalid(name), target="name")
        body = await read_json(request)
        existing = paths.by_key(self._catalog, fold(name))
        resource_id = ResourceId(request.path)
        if existing is not None and ResourceId(existing.id) != resource_id:
            raise ArmError(
                409, "AlreadyInUse", f"The registry DNS name {self._gate.login_server(existing)} is already in use."
            )
        location = read_location(body, _TYPE, existing.resource.location if existing else None)
        resource = existing.resource if existing else Resource(location=location)
        _change(resource, body)
        registry = existing or Registry(fold(name), str(resource_id), name, resource, clock.rfc3339_micro())
        await self._catalog.put_registry(registry)
        self.publish()
        return json_response(self._show(registry), 200 if existing else 201)

    async def _patch(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        _change(registry.resource, await read_json(request))
        await self._catalog.put_registry(registry)
        return json_response(self._show(registry))

    async def _delete(self, request: web.Request) -> web.Response:
        try:
            registry = paths.existing(self._catalog, request)
        except ArmError:
            return web.Response(status=204)
        await self._catalog.remove_registry(registry.key)
        self.publish()
        self._collector.request()
        return web.Response(status=200)

    async def _list_credentials(self, request: web.Request) -> web.Response:
        return json_response(self._credentials(paths.existing(self._catalog, request)))

    async def _regenerate(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        name = (await read_json(request)).get("name")
        if name not in ("password", "password2"):
            raise ArmError(400, "InvalidRequestContent", "name must be 'password' or 'password2'.", target="name")
        registry.resource.password_generations[0 if name == "password" else 1] += 1
        await self._catalog.put_registry(registry)
        return json_response(self._credentials(registry))

    async def _usages(self, request: web.Request) -> web.Response:
        registry = paths.existing(self._catalog, request)
        included, webhooks = _INCLUDED[registry.resource.sku]
        counts = (
            ("Size", registry.resource.storage_quota or included, self._catalog.usage(registry.key), "Bytes"),
            ("Webhooks", webhooks, len(self._catalog.resources.list(registry.key, Webhook)), "Count"),
            ("ScopeMaps", _SCOPE_MAPS, len(self._catalog.resources.list(registry.key, ScopeMap)), "Count"),
            ("Tokens", _TOKENS, len(self._catalog.resources.list(registry.key, RepositoryToken)), "Count"),
        )
        shown = [
            {"name": name, "limit": limit, "currentValue": now, "unit": unit} for name, limit, now, unit in counts
        ]
        return json_response({"value": shown})

    def _credentials(self, registry: Registry) -> dict[str, Any]:
        if not registry.resource.admin_user_enabled:
            raise ArmError(
                400,
                "UnAuthorizedForCredentialOperations",
                f"Cannot perform credential operations for {registry.id} as admin user is disabled. Kindly enable admin "
                "user as per docs.",
            )
        passwords = zip(("password", "password2"), self._gate.admin_passwords(registry), strict=True)
        return {
            "username": registry.name,
            "passwords": [{"name": name, "value": value} for name, value in passwords],
        }

    def _show(self, registry: Registry) -> dict[str, Any]:
        resource = registry.resource
        return {
            "id": registry.id,
            "name": registry.name,
            "type": _TYPE,
            "location": resource.location,
            "tags": resource.tags,
            "sku": {"name": resource.sku, "tier": resource.sku},
            "properties": {
                "loginServer": self._gate.login_server(registry),
                "creationDate": registry.created,
                "provisioningState": "Succeeded",
                "adminUserEnabled": resource.admin_user_enabled,
                "anonymousPullEnabled": resource.anonymous_pull_enabled,
                "roleAssignmentMode": resource.role_assignment_mode,
                "publicNetworkAccess": "Enabled",
                "policies": policies.show(resource),
            },
        }


def _change(resource: Resource, body: dict[str, Any]) -> None:
    properties = {} if body.get("properties") is None else body["properties"]
    if not isinstance(properties, dict):
        raise ArmError(400, "InvalidRequestContent", "properties must be an object.", target="properties")
    for field, attribute in (
        ("adminUserEnabled", "admin_user_enabled"),
        ("anonymousPullEnabled", "anonymous_pull_enabled"),
    ):
        value = properties.get(field)
        if value is None:
            continue
        if not isinstance(value, bool):
            raise ArmError(
                400, "InvalidRequestContent", f"{field} must be true or false.", target=f"properties.{field}"
            )
        setattr(resource, attribute, value)
    mode = properties.get("roleAssignmentMode")
    if mode is not None:
        if mode not in _ROLE_MODES:
            raise ArmError(
                400,
                "InvalidRequestContent",
                f"roleAssignmentMode must be {' or '.join(_ROLE_MODES)}.",
                target="properties.roleAssignmentMode",
            )
        resource.role_assignment_mode = mode
    _demand_public(properties)
    policies.change(resource, properties.get("policies"))
    sku = body.get("sku") or {}
    if name := sku.get("name") if isinstance(sku, dict) else sku:
        matching = next((known for known in _SKUS if fold(known) == fold(str(name))), None)
        if matching is None:
            raise ArmError(
                400, "InvalidSku", f"The SKU '{name}' is not one of {', '.join(_SKUS)}.", target="sku.name"
            )
        resource.sku = matching
    if body.get("tags") is not None:
        resource.tags = read_tags(body)


def _demand_public(properties: dict[str, Any]) -> None:
    """Refuse a shield that would not be there. Raises `ArmError` 400."""
    rules = properties.get("networkRuleSet")
    default = rules.get("defaultAction") if isinstance(rules, dict) else None
    for field, value, here in (
        ("publicNetworkAccess", properties.get("publicNetworkAccess"), "Enabled"),
        ("networkRuleSet.defaultAction", default, "Allow"),
    ):
        if value is not None and value != here:
            raise ArmError(400, "NotSupported", f"{field} is always {here} here.", target=f"properties.{field}")


def _invalid(name: str) -> str:
    return f"Invalid registry name '{name}': it must be 5 to 50 characters, letters and digits only."
