"""Handing a call to the room that is the resource provider, as the Resource Provider Contract has it."""

from __future__ import annotations

import logging
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from cumulet.arm.access import Caller
from cumulet.arm.store import Index
from cumulet.common.arm import ArmError, ResourceId
from cumulet.common.tasks import Backoff

log = logging.getLogger(__name__)

_SENT_BACK = ("Content-Type", "Location", "Azure-AsyncOperation", "Retry-After", "ETag", "x-ms-request-id")
_BODY_LIMIT = 4 * 1024 * 1024


class ProviderCall:
    """What a path with `/providers/{namespace}/…` asks for.

    `scope` is what the caller needs the right on, `action` the right (`Provider/type/…/verb`), and `resource` the
    resource itself where the path names one that a resource group holds.
    """

    def __init__(self, method: str, segments: list[str]) -> None:
        at = max(index for index, segment in enumerate(segments) if segment.lower() == "providers")
        self.namespace = segments[at + 1] if at + 1 < len(segments) else ""
        rest = segments[at + 2 :]
        types, names = rest[0::2], rest[1::2]
        prefix = "/" + "/".join(segments[:at])
        on_scope = self.namespace.lower() == "microsoft.authorization"
        # A POST's last word is its verb, not a part of the resource.
        held = rest[:-1] if method == "POST" and len(rest) % 2 else rest
        self.scope = prefix if on_scope or not names else "/" + "/".join([*segments[: at + 2], *held])
        verb = {"GET": "read", "HEAD": "read", "DELETE": "delete", "POST": "action"}.get(method, "write")
        self.action = "/".join([self.namespace, *types, verb])
        whole = not on_scope and len(types) == len(names) == 1
        self.resource = (
            ResourceId("/".join(segments)) if whole and "resourcegroups" in _lower(segments[:at]) else None
        )


class Providers:
    """`addresses` says where the room of a namespace (in lower case) is."""

    def __init__(self, session: aiohttp.ClientSession, addresses: dict[str, str], index: Index, own_url: str) -> None:
        self._session = session
        self._addresses = addresses
        self._index = index
        self._own_url = own_url

    async def forward(
        self, request: web.BaseRequest, call: ProviderCall, path: str, caller: Caller
    ) -> web.StreamResponse:
        """Answer with what the provider answers, and keep the index of resources true."""
        base = self._addresses.get(call.namespace.lower())
        if base is None:
            raise ArmError(
                404,
                "InvalidResourceNamespace",
                f"The resource namespace '{call.namespace}' is invalid: nothing here provides it.",
            )
        body = await request.content.read(_BODY_LIMIT + 1) if request.can_read_body else None
        if body is not None and len(body) > _BODY_LIMIT:
            raise ArmError(413, "RequestContentTooLarge", f"The request content is larger than {_BODY_LIMIT} bytes.")
        headers = {
            "Content-Type": request.headers.get("Content-Type", "application/json"),
            "Referer": f"https://{request.host}{path}",
            "x-ms-client-object-id": caller.object_id,
            "x-ms-client-app-id": caller.app_id,
            "x-ms-correlation-request-id": request.headers.get("x-ms-correlation-request-id", ""),
        }
        query = request.rel_url.raw_query_string
        url = URL(f"{base}{path}" + (f"?{query}" if query else ""), encoded=True)
        try:
            async with self._session.request(request.method, url, data=body, headers=headers) as response:
                sent_back = {name: response.headers[name] for name in _SENT_BACK if name in response.headers}
                if "Content-Length" not in response.headers and response.status == 200:
                    return await _stream(request, response, sent_back)
                raw = await response.read()
                await self._keep_index(request.method, call.resource, response.status, raw)
                return web.Response(status=response.status, body=raw, headers=sent_back)
        except aiohttp.ClientConnectionError as error:
            log.warning("%s is away: %s", call.namespace, error)
            raise ArmError(
                503, "ServiceUnavailable", f"The provider of '{call.namespace}' does not answer just now: try again."
            ) from None

    async def delete(self, resource_id: str) -> None:
        """Delete a resource at its provider, waiting for a provider that is away. Raises `ArmError`."""
        resource = ResourceId(resource_id)
        base = self._addresses[(resource.namespace or "").lower()]
        backoff = Backoff(0.1, 5)
        while True:
            try:
                async with self._session.delete(
                    f"{base}{resource_id}", headers={"Referer": self._own_url}
                ) as response:
                    if response.status >= 400 and response.status != 404:
                        raise ArmError(409, "ResourceGroupDeletionBlocked", await response.text(), target=resource_id)
                    break
            except aiohttp.ClientConnectionError as error:
                log.warning("deleting %s: %s", resource_id, error)
                await backoff.wait()
        await self._index.untrack(resource)

    async def _keep_index(self, method: str, resource: ResourceId | None, status: int, raw: bytes) -> None:
        if resource is None or status >= 300:
            return
        if method == "DELETE":
            await self._index.untrack(resource)
        elif method in ("PUT", "PATCH"):
            shown: dict[str, Any] = msgspec.json.decode(raw) if raw else {}
            await self._index.track(resource, shown.get("location") or "", shown.get("tags") or {})


async def _stream(
    request: web.BaseRequest, response: aiohttp.ClientResponse, headers: dict[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(status=response.status, headers=headers)
    await answer.prepare(request)
    async for chunk in response.content.iter_any():
        await answer.write(chunk)
    await answer.write_eof()
    return answer


def _lower(segments: list[str]) -> list[str]:
    return [segment.lower() for segment in segments]
