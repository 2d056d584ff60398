"""Runs short programs such as `ip`, `nft` and `runc`, without a copy of this process.

The event loop starts a program by fork(2), which copies the page tables of the room: ten times the time that the program
takes to start. `subprocess` uses vfork(2). The end of a program is an event of its descriptor (pidfd_open(2)).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, NamedTuple


class Ended(NamedTuple):
    """The exit code of a program, negative for a signal, and what it wrote."""

    code: int
    output: bytes
    errors: bytes

    @property
    def reason(self) -> str:
        """What it wrote to its standard error, as text."""
        return self.errors.decode(errors="replace").strip()


async def run(*command: str | Path, given: bytes = b"", keeps_errors: bool = True) -> Ended:
    """Run a program with `given` as its standard input, until it ends. It is killed if the caller is cancelled.

    Without `keeps_errors`, what it writes to its standard error is lost.
    What it reads and writes is in memory, so it is for programs that write little. Raises `OSError` if it cannot start.
    """
    with ExitStack() as stack:
        source, output, errors = (stack.enter_context(_memory()) for _ in range(3))
        source.write(given)
        source.seek(0)
        code = await until_end(
            subprocess.Popen(
                command, stdin=source, stdout=output, stderr=errors if keeps_errors else subprocess.DEVNULL
            )
        )
        return Ended(code, _content(output), _content(errors))


async def until_end(process: subprocess.Popen[bytes], *, before_kill: Callable[[int], None] | None = None) -> int:
    """Wait for the end of a process and return its exit code. It is killed if the caller is cancelled.

    `before_kill` is called with its id, on a thread, before it is killed.
    """
    descriptor = os.pidfd_open(process.pid)
    try:
        await readable(descriptor)
    except asyncio.CancelledError:
        if before_kill is not None:
            await asyncio.to_thread(before_kill, process.pid)
        process.kill()
        raise
    finally:
        os.close(descriptor)
        code = process.wait()
    return code


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read: a pipe has data or has ended, the process of a pidfd has ended."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
    finally:
        loop.remove_reader(descriptor)


async def first_line(descriptor: int) -> bytes:
    """Read a pipe up to its first line feed or its end."""
    found = b""
    while not found.endswith(b"\n"):
        await readable(descriptor)
        chunk = os.read(descriptor, 65536)
        if not chunk:
            break
        found += chunk
    return found


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[int]:
    """Yield a descriptor of a file in memory, which processes that inherit it can read inside the block."""
    descriptor = os.memfd_create("cumulet", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        yield descriptor


def _memory() -> IO[bytes]:
    return os.fdopen(os.memfd_create("cumulet", os.MFD_CLOEXEC), "w+b", buffering=0)


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()
