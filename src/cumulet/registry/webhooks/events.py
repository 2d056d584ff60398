"""Webhooks: who is told of pushes and deletions, and what (ACR's documentation, "Webhook schema reference")."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.common.patterns import like
from cumulet.registry.access import request_context
from cumulet.registry.catalog.child_resources import Resources
from cumulet.registry.catalog.store import Manifest, Registry
from cumulet.registry.webhooks.deliveries import Deliveries

#: Those that can be subscribed to; charts are artifacts like any other, so theirs do not come, as in ACR today.
ACTIONS = ("push", "delete", "chart_push", "chart_delete")


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook; `sealed` is its address and custom headers, which may have secrets in them."""

    segment: ClassVar[str] = "webhooks"

    name: str
    created: str
    location: str
    tags: dict[str, str] = {}
    enabled: bool = True
    scope: str = ""
    actions: tuple[str, ...] = ()
    sealed: str = ""

    def wants(self, action: str, repository: str, tag: str | None) -> bool:
        """Whether it is to be told of an action.

        A scope is `repository:tag`, either with `*`; a repository alone means its tag `latest`; an empty scope is
        everything. What has no tag, such as a deletion by digest, is in the scope of all tags only.
        """
        if not self.enabled or action not in self.actions:
            return False
        if not self.scope:
            return True
        wanted, colon, label = self.scope.partition(":")
        if not colon and not wanted.endswith("*"):
            label = "latest"
        label = label or "*"
        return like(wanted, repository) and (label == "*" if tag is None else like(label, tag))


class Events:
    """Turns what happened in a registry into deliveries."""

    def __init__(self, resources: Resources, deliveries: Deliveries, login_server_suffix: str) -> None:
        self._resources = resources
        self._deliveries = deliveries
        self._suffix = login_server_suffix

    async def pushed(
        self, request: web.BaseRequest, registry: Registry, repository: str, manifest: Manifest, tags: Iterable[str]
    ) -> None:
        """A manifest was pushed, by its digest or under tags; durable when it returns."""
        size = len(manifest.body)
        target = {"mediaType": manifest.media_type, "size": size, "digest": manifest.digest, "length": size}
        told: list[str | None] = [*tags] or [None]
        for tag in told:
            await self._tell(request, registry, "push", repository, tag, target)

    async def deleted(
        self,
        request: web.BaseRequest,
        registry: Registry,
        repository: str,
        digest: str | None,
        tag: str | None = None,
    ) -> None:
        """A manifest was deleted, or a tag taken away; durable when it returns."""
        target = {"digest": digest} if digest is not None else {}
        await self._tell(request, registry, "delete", repository, tag, target)

    async def ping(self, request: web.BaseRequest, registry: Registry, webhook: Webhook) -> str:
        """Tell a webhook that nothing happened; the id of the event."""
        content = self._content(request, registry, "ping", {})
        await self._deliveries.add(registry.key, webhook.name, content)
        return str(content["id"])

    async def _tell(
        self,
        request: web.BaseRequest,
        registry: Registry,
        action: str,
        repository: str,
        tag: str | None,
        target: dict[str, Any],
    ) -> None:
        told = [
            webhook
            for webhook in self._resources.list(registry.key, Webhook)
            if webhook.wants(action, repository, tag)
        ]
        for webhook in told:
            described = {**target, "repository": repository, **({"tag": tag} if tag is not None else {})}
            content = self._content(request, registry, action, described)
            await self._deliveries.add(registry.key, webhook.name, content)

    def _content(
        self, request: web.BaseRequest, registry: Registry, action: str, target: dict[str, Any]
    ) -> dict[str, Any]:
        content = {
            "id": str(uuid.uuid4()),
            "timestamp": clock.rfc3339_micro(),
            "action": action,
            "target": target,
            "request": {
                "id": str(uuid.uuid4()),
                "host": f"{registry.key}.{self._suffix}",
                "method": request.method,
                "useragent": request.headers.get("User-Agent", "")[:300].encode(errors="replace").decode(),
            },
        }
        if principal := request_context.of(request).principal:
            content["actor"] = {"name": principal}
        return content
