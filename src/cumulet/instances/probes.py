"""Asking a container whether all is well: a command, a page, or a port (ACI's probes, and TCP beside them)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from cumulet.common.ascii import fold
from cumulet.instances.model import Probe

Execute = Callable[[list[str]], Awaitable[int]]


def open_session() -> aiohttp.ClientSession:
    """A client for the probes of all groups. They share nothing: no limit of connections, no connection and no cookie."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


async def ask(probe: Probe, address: str, execute: Execute, session: aiohttp.ClientSession) -> bool:
    """One question; no answer in time is a no."""
    try:
        async with asyncio.timeout(max(probe.timeout_seconds, 1)):
            if probe.exec is not None:
                return await execute(probe.exec.command) == 0
            if probe.http_get is not None:
                http = probe.http_get
                headers = {item.name: item.value for item in http.http_headers}
                scheme = "https" if fold(http.scheme) == "https" else "http"
                url = f"{scheme}://{address}:{http.port}/{http.path.lstrip('/')}"
                # As the kubelet: whether the page is served is asked, not by whose certificate.
                async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
                    return 200 <= response.status < 400
            if probe.tcp_socket is not None:
                _, writer = await asyncio.open_connection(address, probe.tcp_socket.port)
                writer.close()
                return True
    except (TimeoutError, OSError, ValueError, aiohttp.ClientError):
        return False  # `ValueError` is how the client refuses what cannot be sent
    return True


async def keep_asking(
    probe: Probe, address: str, execute: Execute, session: aiohttp.ClientSession, heard: Callable[[bool], None]
) -> None:
    """Ask until cancelled; `heard` is told each time that the answer has settled."""
    await asyncio.sleep(probe.initial_delay_seconds)
    well = sick = 0
    while True:
        if await ask(probe, address, execute, session):
            well, sick = well + 1, 0
            if well >= probe.success_threshold:
                heard(True)
        else:
            well, sick = 0, sick + 1
            if sick >= probe.failure_threshold:
                heard(False)
        await asyncio.sleep(max(probe.period_seconds, 1))
