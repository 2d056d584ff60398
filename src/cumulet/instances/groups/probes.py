"""Probes of a container: a command, an HTTP request, or a TCP connection (ACI's probes, and TCP in addition)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp

from cumulet.common.ascii import fold
from cumulet.instances.model.properties import Probe

#: Runs a command in the container and returns its exit code.
Execute = Callable[[list[str]], Awaitable[int]]


def open_session() -> aiohttp.ClientSession:
    """Return a client for the probes of all groups. They share no connection limit, no connection and no cookie."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


async def probe_once(probe: Probe, address: str, execute: Execute, session: aiohttp.ClientSession) -> bool:
    """Return whether a probe succeeds; a timeout is a failure."""
    try:
        async with asyncio.timeout(max(probe.timeout_seconds, 1)):
            if probe.exec is not None:
                return await execute(probe.exec.command) == 0
            if probe.http_get is not None:
                http = probe.http_get
                headers = {item.name: item.value for item in http.http_headers}
                scheme = "https" if fold(http.scheme) == "https" else "http"
                url = f"{scheme}://{address}:{http.port}/{http.path.lstrip('/')}"
                # The certificate is not verified, as in the kubelet: the probe checks the page, not the server's name.
                async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
                    return 200 <= response.status < 400
            if probe.tcp_socket is not None:
                _, writer = await asyncio.open_connection(address, probe.tcp_socket.port)
                writer.close()
                return True
    except (TimeoutError, OSError, ValueError, aiohttp.ClientError):
        return False  # the client raises `ValueError` for a request that cannot be sent
    return True


async def repeat(
    probe: Probe, address: str, execute: Execute, session: aiohttp.ClientSession, report: Callable[[bool], None]
) -> None:
    """Probe until cancelled; call `report` with each result that reaches its threshold."""
    await asyncio.sleep(probe.initial_delay_seconds)
    successes = failures = 0
    while True:
        if await probe_once(probe, address, execute, session):
            successes, failures = successes + 1, 0
            if successes >= probe.success_threshold:
                report(True)
        else:
            successes, failures = 0, failures + 1
            if failures >= probe.failure_threshold:
                report(False)
        await asyncio.sleep(max(probe.period_seconds, 1))
