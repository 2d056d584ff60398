"""An HTTP proxy for one program of this machine (`CONNECT`, RFC 9110, section 9.3.6), which checks where it connects.

A program such as git follows redirects and resolves names itself. Behind this proxy, every connection is checked as those
of the room are (`common.egress`), and it is made to the address that was checked.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from cumulet.common.ascii import is_digits
from cumulet.common.egress import Egress, RefusedAddressError
from cumulet.common.tasks import until_one_ends

_HEAD, _CHUNK = 8 * 1024, 64 * 1024
#: Seconds for a connection to a server.
_CONNECT = 10.0


@contextlib.asynccontextmanager
async def checked_proxy(egress: Egress) -> AsyncIterator[str]:
    """Yield the URL of a proxy, which runs while the context is open."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await _serve(egress, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client sees the end of its connection
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=_HEAD)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _serve(egress: Egress, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    method, _, rest = head.split(b"\r\n", 1)[0].decode("ascii", "replace").partition(" ")
    host, _, port = rest.partition(" ")[0].rpartition(":")
    if method != "CONNECT" or not is_digits(port) or len(port) > 5:
        writer.write(b"HTTP/1.1 405 Method Not Allowed\r\nAllow: CONNECT\r\n\r\n")
        return
    try:
        from_server, to_server = await _connect(egress, host.strip("[]"), int(port))
    except RefusedAddressError:
        writer.write(b"HTTP/1.1 403 address is not allowed\r\n\r\n")
        return
    except (OSError, TimeoutError):
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
        return
    try:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await until_one_ends(_copy(reader, to_server), _copy(from_server, writer))
    finally:
        to_server.close()


async def _connect(egress: Egress, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a checked address of a host. Raises `RefusedAddressError`, `OSError`, `TimeoutError`."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT):
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        address = str(found[0][4][0])
        egress.check(address, port)
        return await asyncio.open_connection(address, port)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
