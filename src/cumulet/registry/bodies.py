"""Reading the body of a request piece by piece, as long as it goes on coming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web

from cumulet.registry.errors import OciError

_PIECE = 1024 * 1024


class BrokenBodyError(OciError):
    """The body broke off, or is not what its headers say; what came before may still be of use."""


async def pieces(request: web.BaseRequest, stall: float) -> AsyncIterator[bytes]:
    """The body in pieces of at most 1 MiB.

    Raises `BrokenBodyError`: 408 where nothing came for `stall` seconds, 400 where its encoding is wrong.
    """
    while True:
        try:
            async with asyncio.timeout(stall):
                piece = await request.content.read(_PIECE)
        except TimeoutError:
            raise BrokenBodyError(408, "SIZE_INVALID", f"nothing came for {stall} seconds") from None
        except aiohttp.ClientPayloadError as error:
            raise BrokenBodyError(400, "SIZE_INVALID", f"the body is broken: {error}") from None
        if not piece:
            return
        yield piece
