"""Terminals in containers that stay open, and that nobody reads: the room serves others meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import aiohttp

from tests.instances.conftest import door, machine, registry, room, shared_config
from tests.instances.door import FrontDoor, group, is_running, shell

__all__ = ["door", "machine", "registry", "room", "shared_config"]

#: More than a pool of threads has on any machine (`concurrent.futures`: 32 at most).
_TERMINALS = 40


async def _terminal(door: FrontDoor, stack: contextlib.AsyncExitStack, name: str, command: str) -> Any:
    offer = await door.call("POST", f"{name}/containers/web/exec", {"command": command})
    # A room that waits for the container to read does not see the client's close at once.
    brief = aiohttp.ClientWSTimeout(ws_close=0.1)
    socket = await stack.enter_async_context(door.session.ws_connect(offer["webSocketUri"], timeout=brief))
    await socket.send_str(offer["password"])
    return socket


async def test_terminals_that_stay_open_hold_up_nobody(door: FrontDoor) -> None:
    await door.call("PUT", "terminals", group(shell("sleep 811008")))
    await door.until("terminals", is_running)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(120):
        sockets = [
            await _terminal(door, stack, "terminals", "/bin/sh -c 'echo here; sleep 811008'")
            for _ in range(_TERMINALS)
        ]
        for socket in sockets:
            assert b"here" in (await socket.receive()).data
        await door.call("PUT", "another", group(shell("sleep 811009")))
        await door.until("another", is_running)
    await door.call("DELETE", "another?gracePeriodSeconds=0")
    await door.call("DELETE", "terminals?gracePeriodSeconds=0")


async def test_input_that_nobody_reads_holds_up_nobody(door: FrontDoor) -> None:
    await door.call("PUT", "deaf", group(shell("sleep 811010")))
    await door.until("deaf", is_running)
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(120):
        command = "/bin/sh -c 'stty raw -echo; echo here; sleep 811010'"
        for _ in range(_TERMINALS):
            socket = await _terminal(door, stack, "deaf", command)
            assert b"here" in (await socket.receive()).data
            await socket.send_bytes(b"x" * 1024 * 1024)
        await door.call("PUT", "another2", group(shell("sleep 811011")))
        await door.until("another2", is_running)
    await door.call("DELETE", "another2?gracePeriodSeconds=0")
    await door.call("DELETE", "deaf?gracePeriodSeconds=0")
