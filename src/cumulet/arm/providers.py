"""Handing a call to the room that is the resource provider, as the Resource Provider Contract has it.

The index of resources is kept true by what passes: a resource is promised before its provider is asked to make it,
so neither a crash of ours nor of the provider's leaves one that the deletion of its group would not find.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from cumulet.arm.access import Caller, Rights
from cumulet.arm.request_path import Target
from cumulet.arm.store import Index
from cumulet.common.arm import ArmError, ResourceId, authority, json_response
from cumulet.common.ascii import fold
from cumulet.common.tasks import Backoff, TaskSet

log = logging.getLogger(__name__)

_SENT_BACK = ("Content-Type", "Location", "Azure-AsyncOperation", "Retry-After", "ETag", "x-ms-request-id")
_BODY_LIMIT = 4 * 1024 * 1024
_WRITES = ("PUT", "PATCH")


class _List(msgspec.Struct):
    """What a provider answers to a question for a list; `revision` is that of our container groups."""

    value: list[dict[str, Any]]
    revision: int | msgspec.UnsetType = msgspec.UNSET


Revoke = Callable[[str], Awaitable[None]]


class Providers:
    """`addresses` says where the room of a namespace (in lower case) is; `revoke` takes away roles on what is gone."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        addresses: dict[str, str],
        index: Index,
        tasks: TaskSet,
        revoke: Revoke,
        own_url: str,
    ) -> None:
        self._session = session
        self._addresses = addresses
        self._index = index
        self._tasks = tasks
        self._revoke = revoke
        self._own_url = own_url
        self._writing: Counter[str] = Counter()
        self._idle = asyncio.Condition()

    async def forward(
        self,
        request: web.BaseRequest,
        target: Target,
        caller: Caller,
        correlation: str,
        body: bytes | None = None,
    ) -> web.StreamResponse:
        """Answer with what the provider answers, bit by bit where it has no end yet. Raises `ArmError`.

        For callers that have the right to all of it.
        """
        return await self._call(request, target, caller, correlation, body, streams=True)

    async def readable(
        self, request: web.BaseRequest, target: Target, caller: Caller, correlation: str, rights: Rights
    ) -> web.Response:
        """A list, less what the caller may not read. Raises `ArmError`."""
        response = await self._call(request, target, caller, correlation, None, streams=False)
        assert isinstance(response, web.Response)
        if response.status != 200:
            return response
        try:
            answer = msgspec.json.decode(response.body or b"", type=_List)  # type: ignore[arg-type]
        except msgspec.DecodeError as error:
            log.error("%s answered with no list: %s", target.path, error)
            raise ArmError(
                502, "BadGateway", f"The provider of '{target.namespace}' answered with no list."
            ) from None
        shown = [item for item in answer.value if rights.allow(target.action, str(item.get("id", "")))]
        body: dict[str, Any] = {"value": shown}
        if answer.revision is not msgspec.UNSET:
            body["revision"] = answer.revision
        return json_response(body)

    async def _call(
        self,
        request: web.BaseRequest,
        target: Target,
        caller: Caller,
        correlation: str,
        body: bytes | None,
        *,
        streams: bool,
    ) -> web.StreamResponse:
        url = self._url(target, request.rel_url.raw_query_string)
        headers = {
            "Content-Type": request.headers.get("Content-Type", "application/json"),
            "Referer": f"https://{authority(request.host, urlsplit(self._own_url).netloc)}{target.path}",
            "x-ms-client-object-id": caller.object_id,
            "x-ms-client-app-id": caller.app_id,
            "x-ms-correlation-request-id": correlation,
        }
        try:
            async with (
                self._promised(request.method, target) as outcome,
                self._session.request(request.method, url, data=body, headers=headers) as response,
            ):
                sent_back = {name: response.headers[name] for name in _SENT_BACK if name in response.headers}
                if streams and "Content-Length" not in response.headers and response.status == 200:
                    return await _stream(request, response, sent_back)
                raw = await response.read()
                await outcome(response.status, raw)
                return web.Response(status=response.status, body=raw, headers=sent_back)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            log.warning("%s is away: %s", target.namespace, error)
            raise ArmError(
                503,
                "ServiceUnavailable",
                f"The provider of '{target.namespace}' does not answer just now: try again.",
            ) from None

    async def delete(self, resource_id: str) -> None:
        """Delete a resource at its provider, waiting for it to be gone and for a provider that is away.

        Raises `ArmError` 409 where the provider refuses.
        """
        url = self._url(Target("DELETE", resource_id), "")
        status, answer = await self._insist("DELETE", url)
        if status >= 400 and status != 404:
            raise ArmError(
                409,
                "ResourceGroupDeletionBlocked",
                f"Deletion of the resource '{resource_id}' failed: {answer.decode(errors='replace')}",
                target=resource_id,
            )
        await self._gone(ResourceId(resource_id), url, at_once=status != 202)

    async def quiet(self, group: str) -> None:
        """Wait until no write in a resource group is under way."""
        async with self._idle:
            await self._idle.wait_for(lambda: not self._writing[fold(group)])
            del self._writing[fold(group)]

    def _url(self, target: Target, query: str) -> URL:
        base = self._addresses.get(fold(target.namespace or ""))
        if base is None:
            raise ArmError(
                404,
                "InvalidResourceNamespace",
                f"The resource namespace '{target.namespace}' is invalid: nothing here provides it.",
            )
        return URL(f"{base}{target.path}" + (f"?{query}" if query else ""), encoded=True)

    @asynccontextmanager
    async def _promised(self, method: str, target: Target) -> AsyncIterator[Callable[[int, bytes], Awaitable[None]]]:
        """Around a call: what is told its outcome keeps the index true."""
        resource = ResourceId(target.resource) if target.resource is not None else None
        group = fold(target.resource_group or "")
        writes = bool(group) and method in _WRITES
        if not writes:
            yield lambda status, raw: self._note(method, resource, status, raw)
            return
        self._writing[group] += 1
        try:
            if resource is not None:
                await self._index.promise(resource)
            else:  # a part of a resource, or a role on one
                self._index.demand_open(group)
            yield lambda status, raw: self._note(method, resource, status, raw)
        finally:
            async with self._idle:
                self._writing[group] -= 1
                self._idle.notify_all()

    async def _note(self, method: str, resource: ResourceId | None, status: int, raw: bytes) -> None:
        if resource is None:
            return
        if method in _WRITES:
            if status >= 300:
                await self._index.break_promise(resource)
                return
            shown: Any = msgspec.json.decode(raw) if raw else None
            if isinstance(shown, dict) and "id" in shown:
                await self._index.track(resource, shown.get("location") or "", shown.get("tags") or {})
        elif method == "DELETE" and status < 300:
            url = self._url(Target("GET", str(resource)), "")
            if status == 202:
                self._tasks.start(self._gone(resource, url, at_once=False), f"await the end of {resource}")
            else:
                await self._gone(resource, url, at_once=True)
        elif method == "GET" and status == 404 and self._index.has(resource):
            await self._gone(resource, self._url(Target("GET", str(resource)), ""), at_once=True)

    async def _gone(self, resource: ResourceId, url: URL, *, at_once: bool) -> None:
        """Forget a resource, with the roles given on it, once its provider has it no more."""
        backoff = Backoff(0.05, 2)
        while not at_once and (await self._insist("GET", url))[0] != 404:
            await backoff.wait()
        await self._revoke(str(resource))
        await self._index.untrack(resource)

    async def _insist(self, method: str, url: URL) -> tuple[int, bytes]:
        """One call of our own, made again until the provider answers."""
        backoff = Backoff(0.1, 5)
        headers = {"Referer": f"{self._own_url}{url.raw_path}"}
        while True:
            try:
                async with self._session.request(method, url, headers=headers) as response:
                    return response.status, await response.read()
            except aiohttp.ClientError as error:
                log.warning("%s %s: %s", method, url.raw_path, error)
                await backoff.wait()


async def read_body(request: web.BaseRequest) -> bytes | None:
    """The content of a request, `None` where it has none. Raises `ArmError` 413."""
    if not request.can_read_body:
        return None
    body = b""
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > _BODY_LIMIT:
            raise ArmError(413, "RequestContentTooLarge", f"The request content is larger than {_BODY_LIMIT} bytes.")
    return body


async def _stream(
    request: web.BaseRequest, response: aiohttp.ClientResponse, headers: dict[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(status=response.status, headers=headers)
    await answer.prepare(request)
    async for chunk in response.content.iter_any():
        await answer.write(chunk)
    await answer.write_eof()
    return answer
