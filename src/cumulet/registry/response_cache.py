"""What was read lately, kept in front of everything else for those who read it again with the same token.

Pulls ask again and again for the same few manifests and layers. The first answer to a `GET` of one is made by the
handlers; while nothing is written to the catalog the next are copies of it. Two things are remembered:

- *answers*: of a host name and a path, good for one state of the catalog (`Database.commits`): any write, of whatever
  it be, drops them all, and the next read goes to the catalog again.
- *rights*: that a token was found good for a scope, until the token ends. Its claims are all that a bearer's right
  depends on; Basic credentials are checked anew each time.

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

#: Larger bodies would have to wait for slow readers, and are rare.
_LARGEST = 64 * 1024
_BYTES = 16 * 1024 * 1024
_RIGHTS = 16_384
_ASK_OTHERWISE = frozenset({hdrs.IF_NONE_MATCH, hdrs.IF_MATCH, hdrs.IF_MODIFIED_SINCE, hdrs.RANGE, hdrs.EXPECT})


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
    """Goes round the handler of all requests."""

    def __init__(
        self, database: Database, pushes: RunningPushes, observer: Observer, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` tells the time in seconds since 1970."""
        self._database = database
        self._pushes = pushes
        self._observer = observer
        self._clock = clock
        self._answers: dict[tuple[str, str], _Answer] = {}
        self._state = -1
        self._held = 0
        self._rights: dict[tuple[str, str, str], _Right] = {}

    def around(self, handler: Handler) -> Handler:
        """Answer what is remembered, and let `handler` answer the rest."""

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
        if not _ASK_OTHERWISE.isdisjoint(headers) or request.version != HttpVersion11 or not request.keep_alive:
            return None
        if answer.path is not None and not self._pushes.tell(answer.place, answer.digest):
            return None
        began = time.perf_counter()

        def sent(complete: bool) -> None:
            took = time.perf_counter() - began
            self._observer.record(request, 200, took, answer.size, right.principal, answer.scope, now, complete)

        return ReadyResponse(answer.head, answer.body, answer.path, answer.size, sent)

    def _keep(self, request: web.BaseRequest, response: web.StreamResponse, state: int) -> None:
        """Remember an answer that a token alone gave the right to, and that right."""
        noted = request_context.of(request)
        if noted.token_ends is None or request.query_string or state != self._state:
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
        answer = _Answer(head, body, path, size, noted.scope, noted.place, digest)
        self._answers[host, request.raw_path] = answer
        self._held += len(head) + len(body) + 512
        if len(self._rights) >= _RIGHTS:
            self._rights.clear()
        who = (request.headers.get(hdrs.AUTHORIZATION, ""), host, noted.scope)
        self._rights[who] = _Right(noted.token_ends, noted.principal)


def _head(headers: Mapping[str, str], size: int) -> bytes | None:
    """The head of an answer up to `Date`; nothing where a header could end it early."""
    kept = [(key, value) for key, value in headers.items() if key not in (hdrs.DATE, hdrs.CONTENT_LENGTH)]
    if any("\r" in value or "\n" in value for _, value in kept):
        return None
    lines = [f"{key}: {value}" for key, value in kept]
    return "\r\n".join(["HTTP/1.1 200 OK", *lines, f"Content-Length: {size}", ""]).encode()
