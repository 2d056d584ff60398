"""Reading response bodies up to a limit."""

from __future__ import annotations

import aiohttp


class TooLargeError(aiohttp.ClientError):
    """A peer sent more than the limit."""


async def read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the whole body. Raises `TooLargeError` as soon as it exceeds `limit` bytes, and `aiohttp.ClientError`.

    `response.content.read(n)` alone returns the bytes that have arrived, which can be fewer than `n` of a longer body.
    """
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > limit:
            response.close()
            raise TooLargeError(f"the answer is larger than {limit} bytes")
    return bytes(body)


async def beginning(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return at most the first `limit` bytes of a body, for example to show it. Raises `aiohttp.ClientError`."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= limit:
            response.close()  # do not wait for the rest
            break
    return bytes(body[:limit])
