"""A server for questions over UDP and TCP (RFC 7766) on sockets that are bound already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol

from cumulet.common.tasks import TaskSet, task_set

log = logging.getLogger(__name__)

#: Datagrams in a row, after which other work of the event loop has its turn.
_BATCH = 32
#: Questions that wait, and connections, at one time, in all and of one client. Others are dropped.
_OPEN, _OPEN_EACH = 2048, 128
_CONNECTIONS, _CONNECTIONS_EACH = 256, 16
#: Seconds that a connection may be idle, and that an answer may take to be read.
_IDLE = 10.0
_BUFFER = 4 * 1024 * 1024


#: An answer in bytes, `None` for silence.
Reply = bytes | None


class Responder(Protocol):
    """Answers questions."""

    def respond(self, data: bytes, source: str, *, stream: bool) -> Reply | Awaitable[Reply]:
        """Return the answer to a question of the client at `source`, or what to wait for. With `stream` it is over TCP."""


class _Share:
    """Counts what is open, in all and by client."""

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._by_client: Counter[str] = Counter()
        self._all = 0

    def take(self, source: str) -> bool:
        """Count one more, and return whether it fits."""
        if self._all >= self._most or self._by_client[source] >= self._each:
            return False
        self._all += 1
        self._by_client[source] += 1
        return True

    def give(self, source: str) -> None:
        """Count one less."""
        self._all -= 1
        self._by_client[source] -= 1
        if not self._by_client[source]:
            del self._by_client[source]


@contextlib.asynccontextmanager
async def serving(
    responder: Responder, datagrams: Sequence[socket.socket], listeners: Sequence[socket.socket]
) -> AsyncIterator[None]:
    """Answer on UDP sockets and on listening TCP sockets while the context is open, and close them at its end."""
    loop = asyncio.get_running_loop()
    share = _Share(_CONNECTIONS, _CONNECTIONS_EACH)
    async with task_set() as tasks, contextlib.AsyncExitStack() as stack:
        for each in datagrams:
            each.setblocking(False)
            # A burst waits in the kernel; the limit of the machine may be lower.
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            endpoint = _Datagrams(each, responder, tasks)
            loop.add_reader(each, endpoint.read)
            stack.callback(each.close)
            stack.callback(loop.remove_reader, each)
        for listener in listeners:
            server = await asyncio.start_server(_streams(responder, tasks, share), sock=listener)
            stack.callback(server.close)
        yield


class _Datagrams:
    """A UDP socket. Only an answer that has to be waited for is a task, because most are at hand."""

    def __init__(self, bound: socket.socket, responder: Responder, tasks: TaskSet) -> None:
        self._socket, self._responder, self._tasks = bound, responder, tasks
        self._share = _Share(_OPEN, _OPEN_EACH)

    def read(self) -> None:
        """Answer what has arrived."""
        for _ in range(_BATCH):
            try:
                data, client = self._socket.recvfrom(65535)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                log.debug("receiving a question: %s", error)
                continue
            reply = self._responder.respond(data, client[0], stream=False)
            if reply is None or isinstance(reply, bytes):
                self._send(reply, client)
            else:
                self._tasks.start(self._wait(reply, client))

    async def _wait(self, reply: Awaitable[Reply], client: tuple[str, int]) -> None:
        if self._share.take(client[0]):
            try:
                self._send(await reply, client)
            finally:
                self._share.give(client[0])

    def _send(self, reply: Reply, client: tuple[str, int]) -> None:
        if reply is not None:
            # UDP may lose an answer, as it may where the client has gone or the buffer is full.
            with contextlib.suppress(OSError):
                self._socket.sendto(reply, client)


def _streams(
    responder: Responder, tasks: TaskSet, share: _Share
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]:
    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if peer is None or not share.take(peer[0]):
            writer.transport.abort()
            return
        tasks.start(_converse(responder, reader, writer, peer[0], share))

    return connected


async def _converse(
    responder: Responder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, source: str, share: _Share
) -> None:
    """Answer the questions of a connection one by one, each with its length before it."""
    try:
        while True:
            async with asyncio.timeout(_IDLE):
                length = int.from_bytes(await reader.readexactly(2))
                data = await reader.readexactly(length)
            reply = responder.respond(data, source, stream=True)
            if not isinstance(reply, bytes | None):
                reply = await reply
            if reply is None:
                return
            writer.write(len(reply).to_bytes(2) + reply)
            async with asyncio.timeout(_IDLE):
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    except TimeoutError:
        writer.transport.abort()
    finally:
        share.give(source)
        writer.close()
