"""Reading the body of a request piece by piece, as long as it goes on coming, or having it read by threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

from cumulet.common.config import RegistryLimits
from cumulet.common.tls_transport import TlsTransport
from cumulet.registry.content.store import Part, through
from cumulet.registry.oci.errors import OciError

_PIECE = 1024 * 1024
#: For less than that it is not worth while to hand a connection to a thread.
_LARGE = 64 * 1024
_NOTHING = bytes(256 * 1024)


class BrokenBodyError(OciError):
    """The body broke off, or is not what its headers say; what came before may still be of use."""


async def pieces(request: web.BaseRequest, limits: RegistryLimits) -> AsyncIterator[bytes]:
    """The body in pieces of at most 1 MiB.

    Raises `BrokenBodyError`: 408 where it came slower than the limits allow, 400 where its encoding is wrong.
    """
    loop, least = asyncio.get_running_loop(), _least(limits)
    waited, came = 0.0, 0
    while True:
        began = loop.time()
        try:
            async with asyncio.timeout(limits.upload_stall - waited):
                piece = await request.content.read(_PIECE)
        except TimeoutError:
            raise _stalled(limits) from None
        except aiohttp.ClientPayloadError as error:
            raise BrokenBodyError(400, "SIZE_INVALID", f"the body is broken: {error}") from None
        if not piece:
            return
        waited, came = waited + loop.time() - began, came + len(piece)
        if came >= least:
            waited, came = 0.0, 0
        yield piece


class Body(Part):
    """The body of a request as a part of an upload. One whose length is known and large goes past the HTTP parser.

    `check` is told how many bytes there are so far, and refuses what is too much; a known length has been checked before.
    """

    def __init__(self, request: web.BaseRequest, limits: RegistryLimits, check: Callable[[int], None]) -> None:
        super().__init__(self._checked(request, limits, check))
        self._request = request
        self._limits = limits

    @staticmethod
    async def _checked(
        request: web.BaseRequest, limits: RegistryLimits, check: Callable[[int], None]
    ) -> AsyncIterator[bytes]:
        received = 0
        async for piece in pieces(request, limits):
            received += len(piece)
            check(received)
            yield piece

    async def into(self, take: Callable[[bytes | memoryview], None]) -> None:
        request, content = self._request, self._request.content
        transport, length = request.transport, request.content_length
        left = (length or 0) - content.total_bytes
        if left < _LARGE or not isinstance(transport, TlsTransport):
            return await super().into(take)
        early = b"".join(iter(content.read_nowait, b""))
        left = (length or 0) - content.total_bytes
        passed = 0

        def count(piece: bytes | memoryview) -> None:
            nonlocal passed
            passed += len(piece)
            take(piece)

        transport.pause_reading()
        try:
            if early:
                await through(asyncio.get_running_loop().run_in_executor(None, take, early))
            await transport.receive(left, count, self._limits.upload_stall, _least(self._limits))
        except TimeoutError:
            raise _stalled(self._limits) from None
        except ConnectionError as error:
            raise BrokenBodyError(400, "SIZE_INVALID", f"the body broke off: {error}") from None
        finally:
            _count_on(request, passed)
            transport.resume_reading()
        return None


def _count_on(request: web.BaseRequest, passed: int) -> None:
    """Let the HTTP parser, which sees the end of a body by counting, count what went past it."""
    while passed > 0 and request.transport is not None:
        nothing = _NOTHING[:passed]
        request.protocol.data_received(nothing)
        request.content.read_nowait()
        passed -= len(nothing)


def _least(limits: RegistryLimits) -> int:
    return max(1, int(limits.upload_stall * limits.upload_rate))


def _stalled(limits: RegistryLimits) -> BrokenBodyError:
    text = f"less than {_least(limits)} bytes came in {limits.upload_stall} seconds"
    return BrokenBodyError(408, "SIZE_INVALID", text)
