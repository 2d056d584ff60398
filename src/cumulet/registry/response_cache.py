"""A cache of responses in front of all handlers, for clients that read the same content again with the same token.

Pulls read the same few manifests and layers repeatedly. The handlers produce the first response to a `GET`. Until the
next write to the catalog, further responses are copies of it. The cache has two parts:

- *Responses* by host name and path, valid for one state of the catalog (`Database.commits`). Any write invalidates all
  of them, and the next read goes to the catalog again.
- *Rights*: a token that covers a scope, valid until the token expires. The right of a bearer depends on the token's
  claims alone. Basic credentials are checked for each request.

Requests with conditions or ranges, and all other methods, go to the handlers.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from aiohttp import HttpVersion11, hdrs, web

from cumulet.common.database import Database
from cumulet.registry.access import request_context
from cumulet.registry.catalog.running_pushes import Place, RunningPushes
from cumulet.registry.distribution.file_responses import FileResponse, ReadyResponse
from cumulet.registry.instrumentation import Observer

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

#: Bytes of the largest body to keep. Larger ones are rare, and would wait for slow readers.
_LARGEST = 64 * 1024
_BYTES = 16 * 1024 * 1024
_RIGHTS = 16_384
_BYPASS = frozenset({hdrs.IF_NONE_MATCH, hdrs.IF_MATCH, hdrs.IF_MODIFIED_SINCE, hdrs.RANGE, hdrs.EXPECT})


class _Answer(NamedTuple):
    head: bytes
    body: bytes
    path: Path | None
    size: int
    scope: str
    place: Place
    digest: str


class _Right(NamedTuple):
    ends: float
    principal: str


class ResponseCache:
    """Wraps the handler of all requests."""

    def __init__(
        self, database: Database, pushes: RunningPushes, observer: Observer, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` returns the time in seconds since 1970."""
        self._database = database
        self._pushes = pushes
        self._observer = observer
        self._clock = clock
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._state = -1
        self._held = 0
        self._rights: dict[tuple[str, str, str], _Right] = {}

    def around(self, handler: Handler) -> Handler:
        """A handler that answers from the cache where possible, and otherwise calls `handler`."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if request.method != "GET" or not request.raw_path.startswith("/v2/"):
                return await handler(request)
            response = self._find(request)
            if response is None:
                state = self._database.commits
                response = await handler(request)
                if response.status == 200 and state == self._database.commits:
                    self._keep(request, response, state)
            return response

        return handle

    def _find(self, request: web.BaseRequest) -> web.StreamResponse | None:
        if self._state != self._database.commits:
            self._answers.clear()
            self._held = 0
            self._state = self._database.commits
            return None
        headers = request.headers
        host = headers.get(hdrs.HOST, "")
        answer = self._answers.get((host, request.raw_path))
        if answer is None:
            return None
        right = self._rights.get((headers.get(hdrs.AUTHORIZATION, ""), host, answer.scope))
        now = self._clock()
        if right is None or right.ends <= now:
            return None
        if not _BYPASS.isdisjoint(headers) or request.version != HttpVersion11 or not request.keep_alive:
            return None
        if answer.path is not None and not self._pushes.report(answer.place, answer.digest):
            return None
        began = time.perf_counter()

        def sent(complete: bool) -> None:
            took = time.perf_counter() - began
            self._observer.record(request, 200, took, answer.size, right.principal, answer.scope, now, complete)

        return ReadyResponse(answer.head, answer.body, answer.path, answer.size, sent)

    def _keep(self, request: web.BaseRequest, response: web.StreamResponse, state: int) -> None:
        """Cache a response whose right came from a token alone, and that right."""
        context = request_context.of(request)
        if context.token_ends is None or request.query_string or state != self._state:
            return
        body, path, size = b"", None, 0
        if isinstance(response, FileResponse):
            path, size = response.path, response.after
        elif isinstance(response, web.Response) and isinstance(response.body, bytes):
            body, size = response.body, len(response.body)
        else:
            return
        if len(body) > _LARGEST or self._held > _BYTES:
            return
        head = _head(response.headers, size)
        if head is None:
            return
        host = request.headers.get(hdrs.HOST, "")
        digest = response.headers.get("Docker-Content-Digest", "")
        answer = _Answer(head, body, path, size, context.scope, context.place, digest)
        self._answers[host, request.raw_path] = answer
        self._held += len(head) + len(body) + 512
        if len(self._rights) >= _RIGHTS:
            self._rights.clear()
        bearer = (request.headers.get(hdrs.AUTHORIZATION, ""), host, context.scope)
        self._rights[bearer] = _Right(context.token_ends, context.principal)


def _head(headers: Mapping[str, str], size: int) -> bytes | None:
    """The head of a response up to `Date`, or `None` where a header contains a line break."""
    kept = [(key, value) for key, value in headers.items() if key not in (hdrs.DATE, hdrs.CONTENT_LENGTH)]
    if any("\r" in value or "\n" in value for _, value in kept):
        return None
    lines = [f"{key}: {value}" for key, value in kept]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, f"Content-Length: {size}", ""]).encode()
