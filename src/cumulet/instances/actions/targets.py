"""Where actions connect to: the group's own address, or a host that the user names, which is checked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import aiohttp

from cumulet.common.egress import Egress


class Targets:
    """Opens connections for the actions of all groups. They share no connection limit, no connection and no cookie."""

    def __init__(self, egress: Egress, own: aiohttp.ClientSession, named: aiohttp.ClientSession) -> None:
        self._egress = egress
        self._own = own
        self._named = named

    def session(self, host: str) -> aiohttp.ClientSession:
        """Return the client for a named host, or for the group's address if `host` is empty."""
        return self._named if host else self._own

    async def connect(self, address: str, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return a TCP connection to a named host, or to `address` if `host` is empty. Raises `OSError`."""
        if not host:
            return await asyncio.open_connection(address, port)
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        _, _, _, _, first = found[0]
        self._egress.check(str(first[0]), port)
        return await asyncio.open_connection(str(first[0]), port)


@contextlib.asynccontextmanager
async def open_targets(egress: Egress) -> AsyncIterator[Targets]:
    """Yield the connections of actions. The certificates of servers are not verified, as in the kubelet."""
    timeout = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    checked = aiohttp.TCPConnector(limit=0, force_close=True, socket_factory=egress.socket)
    async with (
        aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as own,
        aiohttp.ClientSession(
            connector=checked, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
        ) as named,
    ):
        yield Targets(egress, own, named)
