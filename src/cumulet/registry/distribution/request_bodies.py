"""Reading the body of a request: in pieces on the event loop, or by threads, with a minimum rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp import web

from cumulet.common.limits import RegistryLimits
from cumulet.common.tls_transport import TlsTransport
from cumulet.registry.content.store import Part, through
from cumulet.registry.oci.errors import OciError

_PIECE = 1024 * 1024
#: Bytes from which a thread reads the body: below that, the handover of the connection costs more than it saves.
_LARGE = 64 * 1024
_ZEROS = bytes(256 * 1024)


class BrokenBodyError(OciError):
    """The body was interrupted, or does not match its headers. The bytes before that are kept."""


async def pieces(request: web.BaseRequest, limits: RegistryLimits) -> AsyncIterator[bytes]:
    """The body in pieces of at most 1 MiB.

    Raises `BrokenBodyError`: 408 where it arrives slower than the limits allow, 400 where its encoding is wrong.
    """
    loop, least = asyncio.get_running_loop(), _least(limits)
    waited, received = 0.0, 0
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
        waited, received = waited + loop.time() - began, received + len(piece)
        if received >= least:
            waited, received = 0.0, 0
        yield piece


class Body(Part):
    """The body of a request as a part of an upload. A large body of known length bypasses the HTTP parser.

    `check` is called with the bytes received so far, and raises where they are too many. The caller has checked a known
    length.
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
        bypassed = 0

        def count(piece: bytes | memoryview) -> None:
            nonlocal bypassed
            bypassed += len(piece)
            take(piece)

        transport.pause_reading()
        try:
            if early:
                await through(asyncio.get_running_loop().run_in_executor(None, take, early))
            await transport.receive(left, count, self._limits.upload_stall, _least(self._limits))
        except TimeoutError:
            raise _stalled(self._limits) from None
        except ConnectionError as error:
            raise BrokenBodyError(400, "SIZE_INVALID", f"the body was interrupted: {error}") from None
        finally:
            _advance_parser(request, bypassed)
            transport.resume_reading()
        return None


def _advance_parser(request: web.BaseRequest, bypassed: int) -> None:
    """Feed the HTTP parser zeros for the bytes that bypassed it, because it finds the end of a body by counting."""
    while bypassed > 0 and request.transport is not None:
        zeros = _ZEROS[:bypassed]
        request.protocol.data_received(zeros)
        request.content.read_nowait()
        bypassed -= len(zeros)


def _least(limits: RegistryLimits) -> int:
    return max(1, int(limits.upload_stall * limits.upload_rate))


def _stalled(limits: RegistryLimits) -> BrokenBodyError:
    text = f"fewer than {_least(limits)} bytes arrived in {limits.upload_stall} seconds"
    return BrokenBodyError(408, "SIZE_INVALID", text)
