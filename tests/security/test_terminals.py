"""Terminals in containers that stay open, and that nobody reads: the room serves others meanwhile."""

from __future__ import annotations

import asyncio
import os

import aiohttp

from tests.instances.conftest import door, machine, registry, room, shared_config
from tests.instances.door import FrontDoor, group, is_running, shell

__all__ = ["door", "machine", "registry", "room", "shared_config"]

#: More than the pool of threads of an event loop has on this machine (`concurrent.futures`).
_TERMINALS = min(32, (os.cpu_count() or 1) + 4) + 4


async def _terminal(door: FrontDoor, name: str, command: str, sent: bytes) -> aiohttp.ClientWebSocketResponse:
    offer = await door.call("POST", f"{name}/containers/web/exec", {"command": command})
    # A room that waits for the container to read does not see the client's close at once.
    socket = await door.session.ws_connect(offer["webSocketUri"], timeout=aiohttp.ClientWSTimeout(ws_close=0.1))
    await socket.send_str(offer["password"])
    assert b"here" in (await socket.receive()).data
    if sent:
        await socket.send_bytes(sent)
    return socket


async def _hold_up_nobody(door: FrontDoor, name: str, command: str, sent: bytes = b"") -> None:
    """Open terminals in a container, send each some input, and start another group meanwhile."""
    await door.call("PUT", name, group(shell("sleep 811008")))
    await door.until(name, is_running)
    async with asyncio.timeout(120):
        sockets = await asyncio.gather(*(_terminal(door, name, command, sent) for _ in range(_TERMINALS)))
        await door.call("PUT", f"{name}-another", group(shell("sleep 811009")))
        await door.until(f"{name}-another", is_running)
        await asyncio.gather(*(socket.close() for socket in sockets))
    for made in (f"{name}-another", name):
        await door.call("DELETE", f"{made}?gracePeriodSeconds=0")


async def test_terminals_that_stay_open_hold_up_nobody(door: FrontDoor) -> None:
    await _hold_up_nobody(door, "terminals", "/bin/sh -c 'echo here; sleep 811008'")


async def test_input_that_nobody_reads_holds_up_nobody(door: FrontDoor) -> None:
    await _hold_up_nobody(door, "deaf", "/bin/sh -c 'stty raw -echo; echo here; sleep 811010'", b"x" * 1024 * 1024)
