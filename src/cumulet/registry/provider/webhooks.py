"""`registries/webhooks`, `ping`, `getCallbackConfig` and `listEvents` (REST reference 2023-07-01)."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.arm import ArmError, json_response, read_tags
from cumulet.common.ascii import fold
from cumulet.common.regions import read_location
from cumulet.registry.access.tokens import Tokens
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.provider import paths
from cumulet.registry.provider.child_resources import Body, Children
from cumulet.registry.webhooks.deliveries import SIGNATURE, Deliveries, Target
from cumulet.registry.webhooks.events import ACTIONS, Events, Webhook

_STATES = ("enabled", "disabled")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = {"host", "content-length", "transfer-encoding", "connection", "content-type", fold(SIGNATURE)}
_SCOPE = re.compile(r"[a-z0-9._/*-]{1,255}(?::[A-Za-z0-9._*-]{1,128})?")


class _Secret(msgspec.Struct):
    """What of a webhook is not shown to everybody who may read it."""

    service_uri: str
    headers: dict[str, str]


class Addresses:
    """Seals and opens the addresses of webhooks, and makes the keys that sign their events."""

    def __init__(self, catalog: Catalog, tokens: Tokens) -> None:
        self._catalog = catalog
        self._tokens = tokens

    def seal(self, registry: Registry, name: str, service_uri: str, headers: dict[str, str]) -> str:
        """An address, sealed for its webhook."""
        text = msgspec.json.encode(_Secret(service_uri, headers)).decode()
        return self._tokens.seal(_place(registry.key, name), text)

    def open(self, registry: Registry, webhook: Webhook) -> Target:
        """Where the events of a webhook go."""
        text = self._tokens.open(_place(registry.key, webhook.name), webhook.sealed)
        secret = msgspec.json.decode(text, type=_Secret)
        purpose = f"webhook\n{fold(registry.id)}\n{registry.created}\n{webhook.name}\n{webhook.created}"
        return Target(secret.service_uri, secret.headers, self._tokens.derive(purpose).hex().encode())

    def find(self, key: str, name: str) -> Target | None:
        """The same by the registry's key and the webhook's name; `None` where one has gone, or is disabled."""
        registry = paths.by_key(self._catalog, key)
        webhook = self._catalog.resources.find(key, Webhook, name)
        if registry is None or webhook is None or not webhook.enabled:
            return None
        return self.open(registry, webhook)


class Webhooks(Children[Webhook]):
    """The address and custom headers are shown by `getCallbackConfig` alone, with the key that signs the events."""

    kind = Webhook
    name = re.compile(r"[a-zA-Z0-9]{5,50}")

    def __init__(self, catalog: Catalog, addresses: Addresses, events: Events, deliveries: Deliveries) -> None:
        super().__init__(catalog)
        self._addresses = addresses
        self._events = events
        self._deliveries = deliveries

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        one = f"{paths.REGISTRY}/{paths.word(Webhook.segment, 'child_type')}/{{name}}"
        return [
            *super().routes(),
            web.post(f"{one}/{paths.word('ping')}", self._ping),
            web.post(f"{one}/{paths.word('getCallbackConfig')}", self._callback),
            web.post(f"{one}/{paths.word('listEvents')}", self._list_events),
        ]

    async def read(self, registry: Registry, name: str, body: Body, existing: Webhook | None) -> Webhook:
        """The address is required of a new one."""
        there = self._addresses.open(registry, existing) if existing is not None else None
        service_uri = body.get("serviceUri", str, there.url if there else "")
        headers = body.get("customHeaders", dict[str, str], there.headers if there else {})
        _check_address(service_uri)
        _check_headers(headers)
        actions = body.get("actions", list[str], list(existing.actions) if existing else [])
        if not actions or not set(actions) <= set(ACTIONS):
            raise _invalid("actions", f"actions must be some of {', '.join(ACTIONS)}.")
        status = body.get("status", str, "enabled" if existing is None or existing.enabled else "disabled")
        if status not in _STATES:
            raise _invalid("status", f"status must be {' or '.join(_STATES)}.")
        scope = body.get("scope", str, existing.scope if existing else "")
        if scope and not _SCOPE.fullmatch(scope):
            raise _invalid("scope", "scope must be repository:tag, either with *.")
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

    def tracked(self, resource: Webhook) -> dict[str, Any]:
        """A webhook has a location and tags."""
        return {"location": resource.location, "tags": resource.tags}

    def properties(self, registry: Registry, resource: Webhook) -> dict[str, Any]:
        """In the REST reference's names."""
        return {
            "status": "enabled" if resource.enabled else "disabled",
            "scope": resource.scope,
            "actions": list(resource.actions),
        }

    async def removed(self, registry: Registry, name: str) -> None:
        """Its events go with it."""
        await self._deliveries.forget(registry.key, name)

    async def _ping(self, request: web.Request) -> web.Response:
        registry, webhook = self.existing(request)
        return json_response({"id": await self._events.ping(request, registry, webhook)})

    async def _callback(self, request: web.Request) -> web.Response:
        target = self._addresses.open(*self.existing(request))
        return json_response(
            {"serviceUri": target.url, "customHeaders": target.headers, "signingKey": target.key.decode()}
        )

    async def _list_events(self, request: web.Request) -> web.Response:
        registry, webhook = self.existing(request)
        found = self._deliveries.events(registry.key, webhook.name)
        shown = [
            {"id": event.id, "eventRequestMessage": event.request, "eventResponseMessage": event.response}
            for event in found
        ]
        return json_response({"value": shown})


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
            raise _invalid("customHeaders", f"'{name[:100]}' cannot be the name of a custom header.")
        if not value.isprintable() or len(value) > 4096:
            raise _invalid("customHeaders", f"the value of the header '{name}' has characters that no header has.")


def _place(registry: str, name: str) -> str:
    return f"webhook\n{registry}\n{fold(name)}"


def _invalid(field: str, message: str) -> ArmError:
    return ArmError(400, "InvalidWebhook", message, target=f"properties.{field}")
