"""TCP connections to servers on 127.0.0.1 and ::1 of a group, made in its network namespace.

A socket belongs to the namespace of the thread that creates it. So a thread of its own enters the namespace, and ends; all
other threads of the room stay outside.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import threading
from concurrent.futures import Future
from pathlib import Path

from cumulet.common.ascii import fold
from cumulet.instances.sandbox.errors import SandboxError

_CLONE_NEWNET = 0x40000000
#: Seconds to wait for a connection; a server whose backlog is full does not answer.
_CONNECT = 10.0
_LIBC = ctypes.CDLL(None, use_errno=True)


async def connect(namespace: Path, sandbox: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a port, by IPv4 or else by IPv6. Raises `SandboxError` with containerd's message."""
    try:
        four, six = await _sockets(namespace)
    except OSError as error:
        raise SandboxError(f'failed to execute portforward in network namespace "{namespace}": {error}') from None
    failures = []
    with four, six:
        for item, host, name in ((four, "127.0.0.1", "tcp4 127.0.0.1"), (six, "::1", "tcp6 [::1]")):
            try:
                async with asyncio.timeout(_CONNECT):
                    await asyncio.get_running_loop().sock_connect(item, (host, port))
                # The copy is of the same connection.
                return await asyncio.open_connection(sock=item.dup())
            except (OSError, TimeoutError) as error:
                failures.append(f"dial {name}:{port}: {_reason(error)}")
    raise SandboxError(
        f'failed to execute portforward in network namespace "{namespace}": failed to connect to localhost:{port} '
        f'inside namespace "{sandbox}", IPv4: {failures[0]} IPv6 {failures[1]} '
    )


async def _sockets(namespace: Path) -> tuple[socket.socket, socket.socket]:
    """Return an unconnected socket of IPv4 and one of IPv6, of that namespace. Raises `OSError`."""
    made: Future[tuple[socket.socket, socket.socket]] = Future()

    def make() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _LIBC.setns(descriptor, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(descriptor)
            made.set_result((_socket(socket.AF_INET), _socket(socket.AF_INET6)))
        except OSError as error:
            made.set_exception(error)

    threading.Thread(target=make, name="port-forward", daemon=True).start()
    return await asyncio.wrap_future(made)


def _socket(family: socket.AddressFamily) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    return made


def _reason(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connect: connection refused"
    if isinstance(error, TimeoutError):
        return "i/o timeout"
    return f"connect: {fold(getattr(error, 'strerror', '') or str(error))}"
