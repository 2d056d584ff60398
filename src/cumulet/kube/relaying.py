"""Passing on a request of HTTP and its answer as they are."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold
from cumulet.kube.body import read
from cumulet.kube.status import ApiError

#: Headers that concern one connection (RFC 9110, section 7.6.1), and those that are the caller's secrets.
_HOP = frozenset(
    (
        "authorization",
        "connection",
        "content-length",
        "cookie",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
#: Headers that are the caller's to send, or not.
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_IMPERSONATION = "impersonate-"


async def relay(
    session: aiohttp.ClientSession, request: web.BaseRequest, url: URL, headers: CIMultiDict[str], **options: Any
) -> web.StreamResponse:
    """Send a request to a URL, and back what is answered. Raises `ApiError` 503 where nobody answers.

    Where an answer breaks off, so does the one that is passed on.
    """
    body = await read(request) if request.can_read_body else None
    response: web.StreamResponse | None = None
    try:
        async with session.request(
            request.method,
            url,
            data=body,
            headers=headers,
            allow_redirects=False,
            skip_auto_headers=_OURS,
            **options,
        ) as upstream:
            answer = CIMultiDict((key, value) for key, value in upstream.headers.items() if fold(key) not in _HOP)
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=answer)
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response
    except (aiohttp.ClientError, TimeoutError) as error:
        if response is not None and response.prepared:
            if request.transport is not None:
                request.transport.abort()
            return response
        raise ApiError(503, "ServiceUnavailable", f"error trying to reach service: {error}", {}) from None


def forwarded(request: web.BaseRequest) -> CIMultiDict[str]:
    """The headers that are passed on: nothing of this connection, and no secret of the caller's."""
    headers = CIMultiDict(
        (key, value)
        for key, value in request.headers.items()
        if fold(key) not in _HOP and not fold(key).startswith(_IMPERSONATION)
    )
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if peer:
        headers["X-Forwarded-For"] = peer[0]
    headers["X-Forwarded-Uri"] = request.path
    headers["X-Forwarded-Proto"] = "https"
    return headers
