"""A server's TLS connection as an `asyncio.Transport` directly on an OpenSSL socket. Threads transfer large bodies.

The TLS of event loops encrypts in memory, on the loop's thread, and copies each byte several times. Here OpenSSL reads
and writes the socket itself. `sendfile` passes it pages of the mapped file in a thread, without the interpreter's lock.
`receive` passes received data to a callback in a thread. All processors can encrypt, and the loop stays free.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import math
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import IO, Any, NamedTuple

from cumulet.common.tls_linger import linger
from cumulet.common.tls_threads import Incoming, Outgoing, Threads, Work

#: The default time limit of a handshake.
HANDSHAKE_SECONDS = 30.0

#: The maximum that one iteration of the loop reads from a connection, and the size of a TLS record (RFC 8446, section 5.1).
_READ, _RECORD = 256 * 1024, 16 * 1024
#: Longer data is sent in full segments only.
_LONG = 2 * _RECORD

_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024
#: The value of `SO_LINGER` with which `close` resets the connection (socket(7)).
_RESET = struct.pack("ii", 1, 0)


class Shared(NamedTuple):
    """The state that the connections of one server share."""

    loop: asyncio.AbstractEventLoop
    context: ssl.SSLContext
    threads: Threads
    #: Sockets whose peers may still read. The loop closes them when it closes.
    leaving: set[socket.socket]
    #: A buffer for received data, which is valid for one callback of the loop.
    buffer: memoryview
    handshake: float

    @classmethod
    def make(
        cls,
        loop: asyncio.AbstractEventLoop,
        context: ssl.SSLContext,
        threads: Threads,
        leaving: set[socket.socket],
        handshake: float = HANDSHAKE_SECONDS,
    ) -> Shared:
        """Return the state with a new buffer; `handshake` is the time limit of a handshake, in seconds."""
        return cls(loop, context, threads, leaving, memoryview(bytearray(_READ)), handshake)


class TlsTransport(asyncio.Transport):
    """One accepted connection. `protocol.connection_made` is called after the handshake.

    The protocol gets an error of the connection by `connection_lost`, and a caller of `sendfile` or `receive` as
    `ConnectionResetError`. OpenSSL requires that an unfinished write is repeated unchanged, so there is a queue.
    """

    def __init__(self, connection: socket.socket, shared: Shared, protocol: asyncio.Protocol) -> None:
        """Raises `OSError` if the client has disconnected."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        names = {"sockname": connection.getsockname(), "peername": connection.getpeername()}
        self._info: dict[str, object] = {"sslcontext": shared.context, **names}
        super().__init__(self._info)
        self._socket = shared.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._fd = self._socket.fileno()
        self._loop = shared.loop
        self._threads = shared.threads
        self._buffer = shared.buffer
        self._leaving = shared.leaving
        self._protocol = protocol
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued = 0
        self._awaited: asyncio.Future[None] | None = None
        self._connected = self._writing_paused = self._reading_paused = False
        self._lent = False  # whether a thread uses the connection
        self._closing = self._lost = False
        self._timer = self._loop.call_later(shared.handshake, self.abort)
        self._loop.add_reader(self._fd, self._handshake)

    # The interface of `asyncio.Transport`.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection, with the names of asyncio's transports."""
        if self._lost:
            return super().get_extra_info(name, default)
        if name in ("socket", "ssl_object"):
            return self._socket
        if name == "cipher":
            return self._socket.cipher()
        return super().get_extra_info(name, default)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol of the connection."""
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Replace the protocol of the connection, as after an HTTP upgrade."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_closing(self) -> bool:
        """Return whether the transport is closing, so that nothing can be written."""
        return self._closing

    def is_reading(self) -> bool:
        """Return whether the transport reads data."""
        return self._connected and not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        """Pause reading."""
        self._reading_paused = True
        if not self._lost:
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Resume reading."""
        self._reading_paused = False
        self._start_reading()

    def get_write_buffer_size(self) -> int:
        """Return the number of bytes in the queue."""
        return self._queued

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send data, immediately if possible."""
        if self._closing or not data:
            return None
        if not self._queue and not self._lent:
            try:
                self._send(data)
                return None
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._loop.add_writer(self._fd, self._flush)
            except OSError as error:
                return self._lose(error)
        self._queue.append(bytes(data))
        self._queued += len(data)
        if self._queued > _HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        return None

    def _send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all data, because partial writes are not enabled in OpenSSL. Raises `OSError`."""
        if len(data) <= _LONG:
            self._socket.send(data)
            return
        # The kernel joins the records into few segments. Each segment wakes the peer.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            self._socket.send(data)
        finally:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    def can_write_eof(self) -> bool:
        """Return false: HTTP clients do not support half-closed TLS connections."""
        return False

    def close(self) -> None:
        """Send the queue, then close the connection."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        if not self._queue and not self._lent:
            self._shut_down()

    def abort(self) -> None:
        """Close the connection immediately."""
        self._lose(None)

    # Transfers by threads.

    async def sendfile(self, file: IO[bytes], offset: int, count: int) -> int:
        """Send `count` bytes of a regular file from `offset`, after all earlier writes. Raises `ConnectionResetError`."""
        try:
            # Records are 16 KiB and the kernel's segments 64 KiB: send full segments only.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            await self._lend(Outgoing(file.fileno(), offset, count))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        except OSError as error:
            self._lose(error)  # a part of the file may have been sent, so nothing can follow
            raise ConnectionResetError("the connection was lost") from error
        return count

    async def receive(self, count: int, take: Callable[[memoryview], None], patience: float, least: int = 1) -> None:
        """Pass the next `count` bytes to `take`, in a thread, instead of to the protocol.

        A piece is valid only while `take` runs. Raises `ConnectionResetError` at the end of the connection, `TimeoutError`
        if `patience` seconds bring less than `least` bytes, and the exceptions of `take`. The data before that is passed.
        """
        try:
            await self._lend(Incoming(count, take), patience, least)
        except ConnectionError as error:
            self._lose(error)
            raise

    async def _lend(self, work: Work, patience: float = math.inf, least: int = 1) -> None:
        """Let threads use the connection until the work is done, one thread at a time as OpenSSL requires."""
        if self._queue:
            await self._wait()
        if self._closing:
            raise ConnectionResetError("the connection is closed")
        self._lent = True
        self._loop.remove_reader(self._fd)
        try:
            left, until = work.left, self._loop.time() + patience
            while not await self._step(work):
                if left - work.left >= least:
                    left, until = work.left, self._loop.time() + patience
                elif self._loop.time() >= until:
                    raise TimeoutError
                # After the time-out, another step takes data that is less than `awaited`.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(None if until == math.inf else until):
                        await self._await_peer(work.awaited)
        except asyncio.CancelledError:
            self._lose(None)  # the work is half done
            raise
        finally:
            self._lent = False
            if self._lost:
                # After `shutdown` the kernel would leave a peer that waits for room to send unanswered for a minute.
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                self._socket.close()
            else:
                self._flush()
                self._start_reading()
        if self._lost:
            raise ConnectionResetError("the connection was lost")

    async def _step(self, work: Work) -> bool:
        step = self._threads.step(work, self._socket)
        try:
            return await asyncio.shield(step)
        except asyncio.CancelledError:
            self._lose(None)  # this wakes the thread
            while not step.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([step])
            step.exception()  # mark it as retrieved
            raise

    async def _await_peer(self, awaited: int) -> None:
        """Wait until the peer has sent `awaited` bytes, or for 0 has read data, or until the connection is lost."""
        if awaited:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, awaited)
            self._loop.add_reader(self._fd, self._wake)
        else:
            self._loop.add_writer(self._fd, self._wake)
        try:
            await self._wait()
        finally:
            if awaited:
                self._loop.remove_reader(self._fd)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            else:
                self._loop.remove_writer(self._fd)

    async def _wait(self) -> None:
        """Wait for `_wake`."""
        self._awaited = self._loop.create_future()
        try:
            await self._awaited
        finally:
            self._awaited = None

    def _wake(self) -> None:
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)

    # Handshake, reading, writing, closing.

    def _handshake(self) -> None:
        self._loop.remove_writer(self._fd)
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLWantWriteError:
            self._loop.add_writer(self._fd, self._handshake)
            return
        except (OSError, ValueError) as error:
            self._lose(error if isinstance(error, OSError) else None)
            return
        self._timer.cancel()
        self._connected = True
        # Every request needs the certificate, and OpenSSL would decode it each time.
        self._info["peercert"] = self._socket.getpeercert()
        self._loop.add_reader(self._fd, self._read)
        self._protocol.connection_made(self)
        if self._socket.pending():
            self._loop.call_soon(self._read)

    def _start_reading(self) -> None:
        if self.is_reading() and not self._lent:
            self._loop.add_reader(self._fd, self._read)
            if self._socket.pending():  # the kernel does not report the data in OpenSSL's buffer
                self._loop.call_soon(self._read)

    def _read(self) -> None:
        if not self.is_reading() or self._lent:
            return
        size, ended, failure = 0, False, None
        try:
            while size <= _READ - _RECORD:
                read = self._socket.recv_into(self._buffer[size:])
                size += read
                ended = not read
                if read < _RECORD and not self._socket.pending():
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            failure = error
        if size:
            self._protocol.data_received(bytes(self._buffer[:size]))
        # uvloop reports a reset only once, possibly while there is still data to read.
        if (
            failure is None
            and not self._lost
            and (number := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        ):
            failure = OSError(number, os.strerror(number))
        if failure is not None:
            self._lose(failure)
        elif ended and not self._closing and not self._protocol.eof_received():
            self.close()

    def _flush(self) -> None:
        """Send as much of the queue as the socket accepts."""
        if self._lent:
            return
        try:
            while self._queue:
                self._send(self._queue[0])
                self._queued -= len(self._queue.popleft())
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            self._loop.add_writer(self._fd, self._flush)
        except OSError as error:
            self._lose(error)
            return
        if self._writing_paused and self._queued <= _LOW_WATER:
            self._writing_paused = False
            self._protocol.resume_writing()
        if not self._queue:
            self._loop.remove_writer(self._fd)
            self._wake()
            if self._closing and not self._lost:
                self._shut_down()

    def _shut_down(self) -> None:
        """End TLS, and close the socket when the peer has read all data."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.unwrap()
        self._lost = True
        self._loop.remove_writer(self._fd)
        self._timer.cancel()
        self._loop.call_soon(self._protocol.connection_lost, None)
        linger(self._loop, socket.socket(fileno=self._socket.detach()), self._leaving, self._buffer)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._queue.clear()
        self._wake()
        if self._connected:
            self._loop.call_soon(self._protocol.connection_lost, error)
        if self._lent:
            with contextlib.suppress(OSError):
                # This wakes the thread, which must finish first. `SSLSocket.shutdown` would let it continue without TLS.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        else:
            self._socket.close()
