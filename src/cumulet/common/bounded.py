"""Reading bodies from peers that may send more than fits."""

from __future__ import annotations

import aiohttp


class TooLargeError(aiohttp.ClientError):
    """A peer sent more than the limit."""


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The whole body. Raises `TooLargeError` as soon as it is larger than `limit` bytes, and `aiohttp.ClientError`.

    `response.content.read(n)` alone returns what has arrived, which may be fewer than `n` bytes of a longer body.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            raise TooLargeError(f"the answer is larger than {limit} bytes")
    return bytes(body)


async def beginning(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The first `limit` bytes of a body that is only shown, or all of a shorter one. Raises `aiohttp.ClientError`."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= limit:
            response.close()  # the rest is not waited for
            break
    return bytes(body[:limit])
