"""The resource provider `Microsoft.ContainerRegistry` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError, ResourceId, json_response, read_json, read_tags
from cumulet.common.ascii import fold
from cumulet.common.private_files import write_private
from cumulet.common.regions import read_location
from cumulet.registry.access.gate import ABAC, Gate
from cumulet.registry.access.repository_tokens import RepositoryToken
from cumulet.registry.access.scope_maps import ScopeMap
from cumulet.registry.catalog.store import Catalog, Registry, Resource
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.provider import paths, policies
from cumulet.registry.provider.bodies import ArmResource, Properties, Sku, ValueList, given, read_properties
from cumulet.registry.webhooks.events import Webhook

_TYPE = "Microsoft.ContainerRegistry/registries"
_NAME = re.compile(r"[a-zA-Z0-9]{5,50}")
_SKUS = ("Basic", "Standard", "Premium")
#: The bytes of storage and the webhooks in each SKU, as Azure documents them. Only a quota is enforced.
_INCLUDED = {"Basic": (10 * 1024**3, 2), "Standard": (100 * 1024**3, 10), "Premium": (500 * 1024**3, 500)}
_SCOPE_MAPS, _TOKENS = 50_000, 50_000
_ROLE_MODES = ("LegacyRegistryPermissions", ABAC)


#: The messages for properties of another type.
_MESSAGES = {
    "adminUserEnabled": "adminUserEnabled must be true or false.",
    "anonymousPullEnabled": "anonymousPullEnabled must be true or false.",
    "roleAssignmentMode": f"roleAssignmentMode must be {' or '.join(_ROLE_MODES)}.",
}


class _Request(msgspec.Struct, rename="camel"):
    admin_user_enabled: bool | UnsetType = UNSET
    anonymous_pull_enabled: bool | UnsetType = UNSET
    role_assignment_mode: Literal["LegacyRegistryPermissions", "AbacRepositoryPermissions"] | UnsetType = UNSET
    public_network_access: object = None
    network_rule_set: object = None
    policies: object = None


class _Regenerate(msgspec.Struct):
    """The body of `regenerateCredential`."""

    name: Literal["password", "password2"]


class _Availability(msgspec.Struct, rename="camel"):
    """The response of `checkNameAvailability`."""

    name_available: bool
    reason: str | UnsetType = UNSET
    message: str | UnsetType = UNSET


class _Password(msgspec.Struct):
    name: str
    value: str


class _Credentials(msgspec.Struct):
    """The response of `listCredentials` and `regenerateCredential`."""

    username: str
    passwords: list[_Password]


class _Usage(msgspec.Struct, rename="camel"):
    """An entry of `listUsages`."""

    name: str
    limit: int
    current_value: int
    unit: str


class _Properties(Properties, kw_only=True):
    login_server: str
    creation_date: str
    admin_user_enabled: bool
    anonymous_pull_enabled: bool
    role_assignment_mode: str
    public_network_access: str = "Enabled"
    policies: policies.Policies


class Registries:
    """Serves registries as resources."""

    def __init__(self, catalog: Catalog, gate: Gate, collector: Collector, login_servers: Path) -> None:
        self._catalog = catalog
        self._gate = gate
        self._collector = collector
        self._login_servers = login_servers

    def routes(self) -> list[web.RouteDef]:
        """The routes of registries and their actions, matched without case."""
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
        """Write the login servers to a file, from which `cumulet up --hosts` makes their names resolve."""
        lines = [f"{self._gate.login_server(registry)}\n" for registry in self._catalog.registries()]
        write_private(self._login_servers, "".join(lines).encode())

    async def _list(self, request: web.Request) -> web.Response:
        group = fold(request.match_info.get("group", ""))
        resources = [
            self._show(registry)
            for registry in self._catalog.registries()
            if not group or fold(ResourceId(registry.id).resource_group or "") == group
        ]
        return json_response(ValueList(resources))

    async def _check_name(self, request: web.Request) -> web.Response:
        name = str((await read_json(request)).get("name", ""))
        if not _NAME.fullmatch(name):
            availability = _Availability(False, "Invalid", _invalid(name))
        elif paths.by_key(self._catalog, fold(name)):
            availability = _Availability(False, "AlreadyExists", f"The registry {name} is already in use.")
        else:
            availability = _Availability(True)
        return json_response(availability)

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
        try:
            name = msgspec.convert(await read_json(request), _Regenerate).name
        except msgspec.ValidationError:
            message = "name must be 'password' or 'password2'."
            raise ArmError(400, "InvalidRequestContent", message, target="name") from None
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
        return json_response(ValueList([_Usage(*count) for count in counts]))

    def _credentials(self, registry: Registry) -> _Credentials:
        if not registry.resource.admin_user_enabled:
            raise ArmError(
                400,
                "UnAuthorizedForCredentialOperations",
                f"Cannot perform credential operations for {registry.id} as admin user is disabled. Kindly enable admin "
                "user as per docs.",
            )
        passwords = zip(("password", "password2"), self._gate.admin_passwords(registry), strict=True)
        return _Credentials(registry.name, [_Password(name, value) for name, value in passwords])

    def _show(self, registry: Registry) -> ArmResource:
        resource = registry.resource
        return ArmResource(
            id=registry.id,
            name=registry.name,
            type=_TYPE,
            location=resource.location,
            tags=resource.tags,
            sku=Sku(resource.sku, resource.sku),
            properties=_Properties(
                login_server=self._gate.login_server(registry),
                creation_date=registry.created,
                admin_user_enabled=resource.admin_user_enabled,
                anonymous_pull_enabled=resource.anonymous_pull_enabled,
                role_assignment_mode=resource.role_assignment_mode,
                policies=policies.show(resource),
            ),
        )


def _change(resource: Resource, body: dict[str, object]) -> None:
    """Apply a request to a registry. Raises `ArmError` 400."""
    properties = read_properties(body, _Request, _MESSAGES)
    resource.admin_user_enabled = given(properties.admin_user_enabled, resource.admin_user_enabled)
    resource.anonymous_pull_enabled = given(properties.anonymous_pull_enabled, resource.anonymous_pull_enabled)
    resource.role_assignment_mode = given(properties.role_assignment_mode, resource.role_assignment_mode)
    _demand_public(properties)
    policies.change(resource, properties.policies)
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


def _demand_public(properties: _Request) -> None:
    """Raises `ArmError` 400 for network restrictions, which are not supported."""
    rules = properties.network_rule_set
    default = rules.get("defaultAction") if isinstance(rules, dict) else None
    for field, value, here in (
        ("publicNetworkAccess", properties.public_network_access, "Enabled"),
        ("networkRuleSet.defaultAction", default, "Allow"),
    ):
        if value is not None and value != here:
            raise ArmError(400, "NotSupported", f"{field} is always {here} here.", target=f"properties.{field}")


def _invalid(name: str) -> str:
    return f"Invalid registry name '{name}': it must be 5 to 50 characters, letters and digits only."
