"""Runs further processes in a running container, for probes and for exec."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable

from cumulet.instances.runtime.conmon import Runtime, in_memory
from cumulet.instances.sandbox.programs import run_silent
from cumulet.instances.streams.terminal import Terminal

_CHUNK = 64 * 1024

Send = Callable[[int, bytes], Awaitable[None]]


async def run_in(runtime: Runtime, cid: str, description_of_process: bytes) -> int:
    """Run a process without input and output; return its exit code."""
    with in_memory(description_of_process) as description:
        return await run_silent(*runtime.exec_command(cid, description))


class Session:
    """One process with its streams: `write` is its input, `send` receives its output (1 stdout, 2 stderr)."""

    def __init__(self, runtime: Runtime, cid: str, description: bytes, *, stdin: bool, tty: bool) -> None:
        self._runtime = runtime
        self._cid = cid
        self._description = description
        self._stdin = stdin
        self._tty = tty
        self._terminal: Terminal | None = None
        self._size: tuple[int, int] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._started = asyncio.Event()

    async def run(self, send: Send) -> int:
        """Run the process; return its exit code."""
        with in_memory(self._description) as description:
            command = self._runtime.exec_command(self._cid, description)
            try:
                return await (self._run_tty(command, send) if self._tty else self._run_plain(command, send))
            finally:
                if self._process is not None and self._process.returncode is None:
                    self._process.kill()
                    await self._process.wait()

    async def write(self, data: bytes) -> None:
        """Write input; empty data closes it."""
        await self._started.wait()
        if self._terminal is not None:
            if data:
                await self._terminal.write(data)
            return
        stdin = self._process.stdin if self._process is not None else None
        # The process may have ended or closed its input while more data is in transit.
        if stdin is None or stdin.is_closing():
            return
        with contextlib.suppress(ConnectionError):
            if data:
                stdin.write(data)
                await stdin.drain()
            else:
                stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        """Set the size of the terminal, also before the process starts, which then begins with it."""
        self._size = columns, rows
        if self._terminal is not None:
            self._terminal.resize(columns, rows)
        if self._terminal is not None and self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGWINCH)

    async def _run_plain(self, command: list[str], send: Send) -> int:
        self._process = process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE if self._stdin else DEVNULL, stdout=PIPE, stderr=PIPE
        )
        self._started.set()
        assert process.stdout is not None
        assert process.stderr is not None
        await asyncio.gather(_copy(process.stdout, 1, send), _copy(process.stderr, 2, send))
        return await process.wait()

    async def _run_tty(self, command: list[str], send: Send) -> int:
        self._terminal = terminal = Terminal()
        slave = terminal.slave
        if self._size is not None:
            terminal.resize(*self._size)
        try:
            try:
                self._process = process = await asyncio.create_subprocess_exec(
                    *command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
                )
            finally:
                os.close(slave)
            self._started.set()
            while data := await terminal.read():
                await send(1, data)
            return await process.wait()
        finally:
            terminal.close()


async def _copy(source: asyncio.StreamReader, channel: int, send: Send) -> None:
    while data := await source.read(_CHUNK):
        await send(channel, data)
