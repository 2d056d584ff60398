"""Forwarding requests to the rooms that are resource providers, following the Resource Provider Contract.

Every forwarded write updates the index of resources. A resource is recorded as expected before its provider is called.
After a crash of either side, the deletion of its resource group therefore still finds it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web
from yarl import URL

from cumulet.arm.access import Caller, Rights
from cumulet.arm.request_path import RequestPath
from cumulet.arm.store import Index
from cumulet.common.arm import ArmError, ResourceId, authority, json_response
from cumulet.common.ascii import fold
from cumulet.common.tasks import Backoff, TaskSet

log = logging.getLogger(__name__)

#: The headers of a provider's response that the caller gets.
_RETURNED = ("Content-Type", "Location", "Azure-AsyncOperation", "Retry-After", "ETag", "x-ms-request-id")
#: Azure's limit, in bytes.
_BODY_LIMIT = 4 * 1024 * 1024
_WRITES = ("PUT", "PATCH")


class _List(msgspec.Struct):
    """A list of resources as a provider returns it; `revision` is that of our container groups."""

    value: list[dict[str, object]]
    revision: int | msgspec.UnsetType = msgspec.UNSET


class _Written(msgspec.Struct):
    """The properties of a resource that the index keeps, from a provider's response to a write."""

    id: str | msgspec.UnsetType = msgspec.UNSET
    location: str | None = None
    tags: dict[str, str] | None = None


Revoke = Callable[[str], Awaitable[None]]


class Providers:
    """A client of the resource providers.

    `addresses` maps a namespace in lower case to the base URL of its room. `revoke` deletes the role assignments on a
    resource that no longer exists. `own_url` is the front door's base URL.
    """

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
        path: RequestPath,
        caller: Caller,
        correlation: str,
        body: bytes | None = None,
    ) -> web.StreamResponse:
        """Return the provider's response, as a stream if its length is not known yet. Raises `ArmError`.

        The caller must have the right to the whole response.
        """
        return await self._call(request, path, caller, correlation, body, streams=True)

    async def readable(
        self, request: web.BaseRequest, path: RequestPath, caller: Caller, correlation: str, rights: Rights
    ) -> web.Response:
        """Return the items of a list that the caller may read. Raises `ArmError`."""
        response = await self._call(request, path, caller, correlation, None, streams=False)
        assert isinstance(response, web.Response)
        if response.status != 200:
            return response
        try:
            answer = msgspec.json.decode(response.body or b"", type=_List)  # type: ignore[arg-type]
        except msgspec.DecodeError as error:
            log.error("%s did not return a list: %s", path.normalized, error)
            raise ArmError(502, "BadGateway", f"The provider of '{path.namespace}' did not return a list.") from None
        readable = [item for item in answer.value if rights.allow(path.action, str(item.get("id", "")))]
        return json_response(_List(readable, answer.revision))

    async def _call(
        self,
        request: web.BaseRequest,
        path: RequestPath,
        caller: Caller,
        correlation: str,
        body: bytes | None,
        *,
        streams: bool,
    ) -> web.StreamResponse:
        url = self._url(path, request.rel_url.raw_query_string)
        headers = {
            "Content-Type": request.headers.get("Content-Type", "application/json"),
            "Referer": f"https://{authority(request.host, urlsplit(self._own_url).netloc)}{path.normalized}",
            "x-ms-client-object-id": caller.object_id,
            "x-ms-client-app-id": caller.app_id,
            "x-ms-correlation-request-id": correlation,
        }
        try:
            async with (
                self._expected(request.method, path) as outcome,
                self._session.request(request.method, url, data=body, headers=headers) as response,
            ):
                returned = {name: response.headers[name] for name in _RETURNED if name in response.headers}
                if streams and "Content-Length" not in response.headers and response.status == 200:
                    return await _stream(request, response, returned)
                raw = await response.read()
                await outcome(response.status, raw)
                return web.Response(status=response.status, body=raw, headers=returned)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
            log.warning("the provider of %s is not available: %s", path.namespace, error)
            raise ArmError(
                503, "ServiceUnavailable", f"The provider of '{path.namespace}' is not available. Try again."
            ) from None

    async def delete(self, resource_id: str) -> None:
        """Delete a resource at its provider and wait until it is gone. Retries until the provider answers.

        Raises `ArmError` 409 if the provider refuses.
        """
        url = self._url(RequestPath("DELETE", resource_id), "")
        status, answer = await self._insist("DELETE", url)
        if status >= 400 and status != 404:
            raise ArmError(
                409,
                "ResourceGroupDeletionBlocked",
                f"Deletion of the resource '{resource_id}' failed: {answer.decode(errors='replace')}",
                target=resource_id,
            )
        await self._remove(ResourceId(resource_id), url, at_once=status != 202)

    async def quiet(self, group: str) -> None:
        """Wait until no write in a resource group is running."""
        async with self._idle:
            await self._idle.wait_for(lambda: not self._writing[fold(group)])
            del self._writing[fold(group)]

    def _url(self, path: RequestPath, query: str) -> URL:
        base = self._addresses.get(fold(path.namespace or ""))
        if base is None:
            raise ArmError(
                404,
                "InvalidResourceNamespace",
                f"The resource namespace '{path.namespace}' is invalid: nothing here provides it.",
            )
        return URL(f"{base}{path.normalized}" + (f"?{query}" if query else ""), encoded=True)

    @asynccontextmanager
    async def _expected(
        self, method: str, path: RequestPath
    ) -> AsyncIterator[Callable[[int, bytes], Awaitable[None]]]:
        """Record the resource of a write for the time of a call. Yields a function that records the response."""
        resource = ResourceId(path.resource) if path.resource is not None else None
        group = fold(path.resource_group or "")
        writes = bool(group) and method in _WRITES
        if not writes:
            yield lambda status, raw: self._record(method, resource, status, raw)
            return
        self._writing[group] += 1
        try:
            if resource is not None:
                await self._index.expect(resource)
            else:  # a child resource, or a role on a resource
                self._index.demand_open(group)
            yield lambda status, raw: self._record(method, resource, status, raw)
        finally:
            async with self._idle:
                self._writing[group] -= 1
                self._idle.notify_all()

    async def _record(self, method: str, resource: ResourceId | None, status: int, raw: bytes) -> None:
        """Update the index with the provider's response to a request for a resource."""
        if resource is None:
            return
        if method in _WRITES:
            if status >= 300:
                await self._index.cancel_expected(resource)
                return
            try:
                written = msgspec.json.decode(raw or b"{}", type=_Written)
            except msgspec.ValidationError as error:
                log.error("the response to %s %s is not a resource: %s", method, resource, error)
                return  # it stays expected
            if written.id is not msgspec.UNSET:
                await self._index.track(resource, written.location or "", written.tags or {})
        elif method == "DELETE" and status < 300:
            url = self._url(RequestPath("GET", str(resource)), "")
            if status == 202:
                self._tasks.start(self._remove(resource, url, at_once=False), f"await the deletion of {resource}")
            else:
                await self._remove(resource, url, at_once=True)
        elif method == "GET" and status == 404 and self._index.has(resource):
            await self._remove(resource, self._url(RequestPath("GET", str(resource)), ""), at_once=True)

    async def _remove(self, resource: ResourceId, url: URL, *, at_once: bool) -> None:
        """Remove a resource and its role assignments once its provider returns 404, or without asking (`at_once`)."""
        backoff = Backoff(0.05, 2)
        while not at_once and (await self._insist("GET", url))[0] != 404:
            await backoff.wait()
        await self._revoke(str(resource))
        await self._index.untrack(resource)

    async def _insist(self, method: str, url: URL) -> tuple[int, bytes]:
        """Send a request of the front door itself. Retries until the provider answers."""
        backoff = Backoff(0.1, 5)
        headers = {"Referer": f"{self._own_url}{url.raw_path}"}
        while True:
            try:
                async with self._session.request(method, url, headers=headers) as response:
                    return response.status, await response.read()
            except aiohttp.ClientError as error:
                log.warning("%s %s: %s", method, url.raw_path, error)
                await backoff.wait()


async def read_body(request: web.BaseRequest, limit: int = _BODY_LIMIT) -> bytes | None:
    """Return the content of a request of at most `limit` bytes, `None` if there is none. Raises `ArmError` 413."""
    if not request.can_read_body:
        return None
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise ArmError(413, "RequestContentTooLarge", f"The request content is larger than {limit} bytes.")
    return bytes(body)


async def _stream(
    request: web.BaseRequest, response: aiohttp.ClientResponse, headers: dict[str, str]
) -> web.StreamResponse:
    answer = web.StreamResponse(status=response.status, headers=headers)
    await answer.prepare(request)
    async for chunk in response.content.iter_any():
        await answer.write(chunk)
    await answer.write_eof()
    return answer
