"""Probes of one group do not wait for those of another."""

from __future__ import annotations

import asyncio
import socket

from cumulet.instances.groups.probes import open_session, probe_once
from cumulet.instances.model.properties import HttpGet, Probe

#: More than a client of aiohttp has at once, if nothing is said.
_SILENT = 150


async def _never(_: list[str]) -> int:
    raise AssertionError("no command is asked for")


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def test_containers_that_do_not_answer_hold_up_no_other_groups_probe() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=2 * _SILENT) as hostile:
        # The kernel takes the connections, and nobody answers.
        other = await asyncio.start_server(_answer, "127.0.0.1", 0)
        ports = [hostile.getsockname()[1], other.sockets[0].getsockname()[1]]
        slow, usual = (Probe(http_get=HttpGet(port=port, path="/"), timeout_seconds=60) for port in ports)
        async with other, open_session() as session:
            asking = [asyncio.create_task(probe_once(slow, "127.0.0.1", _never, session)) for _ in range(_SILENT)]
            for _ in asking:
                await asyncio.sleep(0)
            assert await probe_once(usual, "127.0.0.1", _never, session)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
