"""Runs further processes in a running container, for probes and for exec."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tty
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Awaitable, Callable
from pathlib import Path

from cumulet.common.ascii import is_digits
from cumulet.instances.runtime.conmon import Runtime, failure_in, in_memory
from cumulet.instances.sandbox.programs import until_end
from cumulet.instances.streams.terminal import Terminal

_CHUNK = 64 * 1024
#: How the runtime begins its report of a process that has not started.
_REPORT = b"exec failed: "

Send = Callable[[int, bytes], Awaitable[None]]


class ExecFailure(Exception):  # noqa: N818  (a failure of the OCI runtime, whose name it has)
    """The runtime did not start the process; the message is its own."""


async def run_in(runtime: Runtime, cid: str, description_of_process: bytes, limit: int = 0) -> tuple[int, bytes]:
    """Run a process without input; return its exit code, and up to `limit` bytes of its output.

    When it is cancelled, the process is killed. Raises `ExecFailure`.
    """
    output = bytearray()
    with in_memory(description_of_process) as description, in_memory(b"") as log:
        reads, writes = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writes, True)
        loop = asyncio.get_running_loop()
        loop.add_reader(reads, _take, reads, output, limit)
        try:
            command = runtime.exec_command(cid, description, log=log)
            try:
                process = subprocess.Popen(command, stdin=DEVNULL, stdout=writes, stderr=writes)
            finally:
                os.close(writes)
            code = await until_end(process, before_kill=_kill_children)
            # A process that it left behind can still have the pipe: what was written until now is enough.
            while _take(reads, output, limit):
                pass
        finally:
            loop.remove_reader(reads)
            os.close(reads)
        if code and (reason := failure_in(log.read_bytes())):
            raise ExecFailure(reason)
    return code, bytes(output)


def _take(descriptor: int, output: bytearray, limit: int) -> bool:
    """Read from a pipe, and keep what is below the limit; return whether there can be more."""
    try:
        chunk = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return False
    if not chunk:
        with contextlib.suppress(ValueError):
            asyncio.get_running_loop().remove_reader(descriptor)
    output += chunk[: max(limit - len(output), 0)]
    return bool(chunk)


def _kill_children(parent: int) -> None:
    """Kill the processes that the runtime started, which do not end with the runtime."""
    for entry in Path("/proc").iterdir():
        if not is_digits(entry.name):
            continue
        with contextlib.suppress(OSError):  # it has ended in the meantime
            if _parent_of(entry) != parent:
                continue
            pidfd = os.pidfd_open(int(entry.name))
            try:
                if _parent_of(entry) == parent:
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            finally:
                os.close(pidfd)


def _parent_of(process: Path) -> int:
    """Return the parent of a process (proc_pid_stat(5)): the name before it can contain anything but the last bracket."""
    return int((process / "stat").read_bytes().rpartition(b")")[2].split()[1])


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
        """Run the process; return its exit code. Raises `ExecFailure`."""
        with in_memory(self._description) as description, in_memory(b"") as log:
            command = self._runtime.exec_command(self._cid, description, log=log)
            output = _Output(send)
            try:
                code = await (
                    self._run_tty(command, output.send) if self._tty else self._run_plain(command, output.send)
                )
                if code and (reason := failure_in(log.read_bytes())):
                    raise ExecFailure(reason)
                await output.flush()
                return code
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
        # What is typed before the runtime has its own terminal would otherwise be echoed twice.
        tty.setraw(slave)
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


class _Output:
    """The output of a process. What may be the runtime's own report that it has not started is held back."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: list[tuple[int, bytes]] = []
        self._begun = False

    async def send(self, channel: int, data: bytes) -> None:
        """Send output."""
        if not self._begun and data.startswith(_REPORT):
            self._held.append((channel, data))
        else:
            await self.flush()
            await self._send(channel, data)
        self._begun = True

    async def flush(self) -> None:
        """Send what was held back."""
        held, self._held = self._held, []
        for channel, data in held:
            await self._send(channel, data)


async def _copy(source: asyncio.StreamReader, channel: int, send: Send) -> None:
    while data := await source.read(_CHUNK):
        await send(channel, data)
