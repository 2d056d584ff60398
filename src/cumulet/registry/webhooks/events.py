"""The events of webhooks: the webhooks that a push or deletion matches, and the content of their events."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import ClassVar

import msgspec
from aiohttp import web
from msgspec import UNSET

from cumulet.common import clock
from cumulet.common.patterns import like
from cumulet.registry.access import request_context
from cumulet.registry.catalog.child_resources import Resources
from cumulet.registry.catalog.store import Manifest, Registry
from cumulet.registry.webhooks.deliveries import Deliveries
from cumulet.registry.webhooks.messages import Actor, EventContent, EventRequest, EventTarget

#: The actions of webhooks. Charts are ordinary artifacts today, so that chart actions never occur, as in ACR.
ACTIONS = ("push", "delete", "chart_push", "chart_delete")


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook. `sealed` is its address and custom headers, which may contain secrets."""

    segment: ClassVar[str] = "webhooks"

    name: str
    created: str
    location: str
    tags: dict[str, str] = {}
    enabled: bool = True
    scope: str = ""
    actions: tuple[str, ...] = ()
    sealed: str = ""

    def matches(self, action: str, repository: str, tag: str | None) -> bool:
        """Whether it gets the event of an action.

        A scope is `repository:tag`, with or without `*` in both. A repository alone means its tag `latest`, and an empty
        scope means everything. An action without a tag, such as a deletion by digest, needs a scope with all tags.
        """
        if not self.enabled or action not in self.actions:
            return False
        if not self.scope:
            return True
        pattern, colon, label = self.scope.partition(":")
        if not colon and not pattern.endswith("*"):
            label = "latest"
        label = label or "*"
        return like(pattern, repository) and (label == "*" if tag is None else like(label, tag))


class Events:
    """Turns changes of a registry into deliveries."""

    def __init__(self, resources: Resources, deliveries: Deliveries, login_server_suffix: str) -> None:
        self._resources = resources
        self._deliveries = deliveries
        self._suffix = login_server_suffix

    async def pushed(
        self, request: web.BaseRequest, registry: Registry, repository: str, manifest: Manifest, tags: Iterable[str]
    ) -> None:
        """Store the events of a pushed manifest, one for each tag. They are durable when it returns."""
        size = len(manifest.body)
        all_tags: list[str | None] = [*tags] or [None]
        for tag in all_tags:
            target = EventTarget(
                media_type=manifest.media_type,
                size=size,
                digest=manifest.digest,
                length=size,
                repository=repository,
                tag=tag or UNSET,
            )
            await self._publish(request, registry, "push", repository, tag, target)

    async def deleted(
        self,
        request: web.BaseRequest,
        registry: Registry,
        repository: str,
        digest: str | None,
        tag: str | None = None,
    ) -> None:
        """Store the event of a deleted manifest or a removed tag. It is durable when it returns."""
        target = EventTarget(digest=digest or UNSET, repository=repository, tag=tag or UNSET)
        await self._publish(request, registry, "delete", repository, tag, target)

    async def ping(self, request: web.BaseRequest, registry: Registry, webhook: Webhook) -> str:
        """Send a test event to a webhook and return the id of the event."""
        content = self._content(request, registry, "ping", EventTarget())
        await self._deliveries.add(registry.key, webhook.name, content)
        return content.id

    async def _publish(
        self,
        request: web.BaseRequest,
        registry: Registry,
        action: str,
        repository: str,
        tag: str | None,
        target: EventTarget,
    ) -> None:
        for webhook in self._resources.list(registry.key, Webhook):
            if webhook.matches(action, repository, tag):
                content = self._content(request, registry, action, target)
                await self._deliveries.add(registry.key, webhook.name, content)

    def _content(
        self, request: web.BaseRequest, registry: Registry, action: str, target: EventTarget
    ) -> EventContent:
        user_agent = request.headers.get("User-Agent", "")[:300].encode(errors="replace").decode()
        cause = EventRequest(str(uuid.uuid4()), f"{registry.key}.{self._suffix}", request.method, user_agent)
        principal = request_context.of(request).principal
        actor = Actor(principal) if principal else UNSET
        return EventContent(str(uuid.uuid4()), clock.rfc3339_micro(), action, target, cause, actor)
