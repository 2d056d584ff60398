"""`registries/webhooks`, `ping`, `getCallbackConfig` and `listEvents` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_tags
from cumulet.common.ascii import fold
from cumulet.common.regions import read_location
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.provider import paths
from cumulet.registry.provider.bodies import ArmResource, Properties, ValueList, given
from cumulet.registry.provider.child_resources import Body, Children
from cumulet.registry.webhooks.deliveries import SIGNATURE, Deliveries, Target
from cumulet.registry.webhooks.events import ACTIONS, Events, Webhook

_STATES = ("enabled", "disabled")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = {"host", "content-length", "transfer-encoding", "connection", "content-type", fold(SIGNATURE)}
_SCOPE = re.compile(r"[a-z0-9._/*-]{1,255}(?::[A-Za-z0-9._*-]{1,128})?")


class _Secret(msgspec.Struct):
    """The part of a webhook that only `getCallbackConfig` shows."""

    service_uri: str
    headers: dict[str, str]


class _Request(msgspec.Struct, rename="camel"):
    service_uri: str | UnsetType = UNSET
    custom_headers: dict[str, str] | UnsetType = UNSET
    status: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET
    actions: list[str] | UnsetType = UNSET


class _Properties(Properties):
    status: str
    scope: str
    actions: list[str]


class _CallbackConfig(msgspec.Struct, rename="camel"):
    """The response of `getCallbackConfig`."""

    service_uri: str
    custom_headers: dict[str, str]
    signing_key: str


class _EventInfo(msgspec.Struct):
    """The response of `ping`."""

    id: str


class Addresses:
    """Seals and opens the addresses of webhooks, and derives the keys that sign their events."""

    def __init__(self, catalog: Catalog, tokens: Tokens) -> None:
        self._catalog = catalog
        self._tokens = tokens

    def seal(self, registry: Registry, name: str, service_uri: str, headers: dict[str, str]) -> str:
        """Seal an address and custom headers for their webhook."""
        text = msgspec.json.encode(_Secret(service_uri, headers)).decode()
        return self._tokens.seal(_place(registry.key, name), text)

    def open(self, registry: Registry, webhook: Webhook) -> Target:
        """The target of a webhook."""
        text = self._tokens.open(_place(registry.key, webhook.name), webhook.sealed)
        secret = msgspec.json.decode(text, type=_Secret)
        purpose = f"webhook\n{fold(registry.id)}\n{registry.created}\n{webhook.name}\n{webhook.created}"
        return Target(secret.service_uri, secret.headers, self._tokens.derive(purpose).hex().encode())

    def find(self, key: str, name: str) -> Target | None:
        """The target by the registry's key and the webhook's name, or `None` where it is deleted or disabled."""
        registry = paths.by_key(self._catalog, key)
        webhook = self._catalog.resources.find(key, Webhook, name)
        if registry is None or webhook is None or not webhook.enabled:
            return None
        return self.open(registry, webhook)


class Webhooks(Children[Webhook, _Request]):
    """Webhooks. Only `getCallbackConfig` shows the address, the custom headers and the key that signs the events."""

    kind = Webhook
    request = _Request
    name = re.compile(r"[a-zA-Z0-9]{5,50}")

    def __init__(self, catalog: Catalog, addresses: Addresses, events: Events, deliveries: Deliveries) -> None:
        super().__init__(catalog)
        self._addresses = addresses
        self._events = events
        self._deliveries = deliveries

    def routes(self) -> list[web.RouteDef]:
        """The routes of the type and its actions."""
        one = f"{paths.REGISTRY}/{paths.word(Webhook.segment, 'child_type')}/{{name}}"
        return [
            *super().routes(),
            web.post(f"{one}/{paths.word('ping')}", self._ping),
            web.post(f"{one}/{paths.word('getCallbackConfig')}", self._callback),
            web.post(f"{one}/{paths.word('listEvents')}", self._list_events),
        ]

    async def read(self, registry: Registry, name: str, body: Body[_Request], existing: Webhook | None) -> Webhook:
        """The webhook. A new one needs an address. Raises `ArmError` 400."""
        properties = body.properties
        target = self._addresses.open(registry, existing) if existing is not None else None
        service_uri = given(properties.service_uri, target.url if target else "")
        headers = given(properties.custom_headers, target.headers if target else {})
        _check_address(service_uri)
        _check_headers(headers)
        actions = given(properties.actions, list(existing.actions) if existing else [])
        if not actions or not set(actions) <= set(ACTIONS):
            raise _invalid("actions", f"actions must be some of {', '.join(ACTIONS)}.")
        status = given(properties.status, "enabled" if existing is None or existing.enabled else "disabled")
        if status not in _STATES:
            raise _invalid("status", f"status must be {' or '.join(_STATES)}.")
        scope = given(properties.scope, existing.scope if existing else "")
        if scope and not _SCOPE.fullmatch(scope):
            raise _invalid("scope", "scope must be repository:tag, with or without * in both.")
        location = read_location(
            {"location": registry.resource.location, **body.document} if existing is None else body.document,
            "Microsoft.ContainerRegistry/registries/webhooks",
            existing.location if existing else None,
        )
        tags = read_tags(body.document) if "tags" in body.document or existing is None else existing.tags
        return Webhook(
            name=name,
            created=existing.created if existing else clock.rfc3339_micro(),
            location=location,
            tags=tags,
            enabled=status == "enabled",
            scope=scope,
            actions=tuple(dict.fromkeys(actions)),
            sealed=self._addresses.seal(registry, name, service_uri, headers),
        )

    def show(self, registry: Registry, resource: Webhook) -> ArmResource:
        """The webhook in ARM's form, with its location and tags."""
        shown = super().show(registry, resource)
        return msgspec.structs.replace(shown, location=resource.location, tags=resource.tags)

    def properties(self, registry: Registry, resource: Webhook) -> _Properties:
        """The properties in responses."""
        return _Properties(
            status="enabled" if resource.enabled else "disabled",
            scope=resource.scope,
            actions=list(resource.actions),
        )

    async def removed(self, registry: Registry, name: str) -> None:
        """Delete the events of the webhook."""
        await self._deliveries.forget(registry.key, name)

    async def _ping(self, request: web.Request) -> web.Response:
        registry, webhook = self.existing(request)
        return json_response(_EventInfo(await self._events.ping(request, registry, webhook)))

    async def _callback(self, request: web.Request) -> web.Response:
        target = self._addresses.open(*self.existing(request))
        return json_response(_CallbackConfig(target.url, target.headers, target.key.decode()))

    async def _list_events(self, request: web.Request) -> web.Response:
        registry, webhook = self.existing(request)
        return json_response(ValueList(self._deliveries.events(registry.key, webhook.name)))


def _check_address(text: str) -> None:
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = None
    if not good or len(text) > 2048 or not text.isascii() or not text.isprintable() or " " in text:
        raise _invalid("serviceUri", "serviceUri must be an absolute http or https address.")


def _check_headers(headers: dict[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or fold(name) in _OURS:
            raise _invalid("customHeaders", f"'{name[:100]}' is not a valid name of a custom header.")
        if not value.isprintable() or len(value) > 4096:
            raise _invalid(
                "customHeaders", f"The value of the header '{name}' is too long or has control characters."
            )


def _place(registry: str, name: str) -> str:
    return f"webhook\n{registry}\n{fold(name)}"


def _invalid(field: str, message: str) -> ArmError:
    return ArmError(400, "InvalidWebhook", message, target=f"properties.{field}")
