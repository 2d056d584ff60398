"""The reverse proxy: forward an HTTP request and return the response unchanged."""

from __future__ import annotations

import ssl
import zlib

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from cumulet.common.ascii import fold
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.http.body import read
from cumulet.kube.http.html_links import Place, moved, rewritten

#: Headers of one connection (RFC 9110, section 7.6.1), and headers with the caller's secrets.
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
#: Headers that only the caller sets: aiohttp must not add them.
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
_IMPERSONATION = "impersonate-"


#: The largest page, in bytes, whose links are rewritten.
_PAGE = 8 * 1024 * 1024
#: The encodings of a body, as zlib's `wbits`.
_PACKED = {"gzip": 31, "deflate": 15}


async def relay(
    session: aiohttp.ClientSession,
    request: web.BaseRequest,
    url: URL,
    headers: CIMultiDict[str],
    place: Place | None = None,
    *,
    tls: ssl.SSLContext | bool = True,
    server_hostname: str | None = None,
) -> web.StreamResponse:
    """Send a request to a URL and return the response. Raises `ApiError` 503 where the server cannot be reached.

    A response that breaks off is broken off here too. With a `place`, links in pages, and redirects to the same
    server, lead through the proxy. `tls` and `server_hostname` are those of aiohttp.
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
            ssl=tls,
            server_hostname=server_hostname,
        ) as upstream:
            answer = CIMultiDict((key, value) for key, value in upstream.headers.items() if fold(key) not in _HOP)
            if place is not None and "Location" in answer:
                answer["Location"] = moved(answer["Location"], place)
            first = b""
            if place is not None and _has_links(upstream):
                first = await _beginning(upstream)
                if (page := _page(first, upstream, place)) is not None:
                    answer.popall("Content-Encoding", None)
                    return web.Response(status=upstream.status, reason=upstream.reason, headers=answer, body=page)
            response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=answer)
            await response.prepare(request)
            if first:
                await response.write(first)
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


def _has_links(upstream: aiohttp.ClientResponse) -> bool:
    encoding = fold(upstream.headers.get("Content-Encoding", ""))
    return upstream.content_type == "text/html" and encoding in ("", *_PACKED) and upstream.method != "HEAD"


async def _beginning(upstream: aiohttp.ClientResponse) -> bytes:
    """Read a whole response, or the first bytes of one that is too large to rewrite."""
    beginning = bytearray()
    async for chunk in upstream.content.iter_any():
        beginning += chunk
        if len(beginning) > _PAGE:
            break
    return bytes(beginning)


def _page(raw: bytes, upstream: aiohttp.ClientResponse, place: Place) -> bytes | None:
    """Return a page with its links rewritten, or `None` where it is too large or does not match its encoding."""
    packed = _PACKED.get(fold(upstream.headers.get("Content-Encoding", "")))
    try:
        if packed is not None and raw:
            inflate = zlib.decompressobj(packed)
            raw = inflate.decompress(raw, _PAGE + 1)
            if not inflate.eof:
                return None
    except zlib.error:
        return None
    if len(raw) > _PAGE:
        return None
    # Invalid UTF-8 passes unchanged. The markup is ASCII in every encoding of the web.
    return rewritten(raw.decode(errors="surrogateescape"), place).encode(errors="surrogateescape")


def forwarded(request: web.BaseRequest) -> CIMultiDict[str]:
    """Return the headers to forward: none of this connection, and no secret of the caller."""
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
