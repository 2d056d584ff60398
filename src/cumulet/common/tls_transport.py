"""A server's TLS connection that sends files by threads: `asyncio.Transport` right on an OpenSSL socket.

The event loops' own TLS encrypts in memory, on the loop's thread, and copies each byte several times. Here OpenSSL
reads and writes the socket itself, and `sendfile` hands it pages of the mapped file in a thread, without the
interpreter's lock: as many processors encrypt as there are, and the loop is free meanwhile.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import mmap
import os
import select
import socket
import ssl
from typing import IO, Any, NamedTuple

_HANDSHAKE_SECONDS = 30.0
#: How long the other end gets to read the last of what it was sent, and to close.
_LINGER_SECONDS = 5.0
#: The most that one turn of the loop reads of one connection, and what a TLS record holds (RFC 8446, section 5.1).
_READ, _RECORD = 256 * 1024, 16 * 1024
#: How much of a file is mapped at once: mapping costs, and what is mapped counts as the process's memory.
_WINDOW = 8 * 1024 * 1024
#: Milliseconds that a thread waits for a slow reader before it serves another connection.
_PATIENCE = 20

_HIGH_WATER, _LOW_WATER = 64 * 1024, 16 * 1024


class Shared(NamedTuple):
    """What the connections of one server have together."""

    loop: asyncio.AbstractEventLoop
    context: ssl.SSLContext
    threads: concurrent.futures.Executor
    buffer: memoryview

    @classmethod
    def make(cls, loop: asyncio.AbstractEventLoop, context: ssl.SSLContext) -> Shared:
        """With more threads than processors, since some wait for a reader."""
        threads = concurrent.futures.ThreadPoolExecutor(4 * (os.cpu_count() or 1), "send")
        return cls(loop, context, threads, memoryview(bytearray(_READ)))


class TlsTransport(asyncio.Transport):
    """One accepted connection. `protocol` hears of it when the handshake is done.

    Errors of the connection reach the protocol by `connection_lost`, and whoever awaits `sendfile` as
    `ConnectionResetError`. A write that OpenSSL could not finish must be offered again unchanged, hence the queue.
    """

    def __init__(self, connection: socket.socket, shared: Shared, protocol: asyncio.Protocol) -> None:
        """Raises `OSError` where the other end has gone."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        names = {"sockname": connection.getsockname(), "peername": connection.getpeername()}
        super().__init__({"sslcontext": shared.context, **names})
        self._socket = shared.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._fd = self._socket.fileno()
        self._loop = shared.loop
        self._threads = shared.threads
        self._buffer = shared.buffer
        self._protocol = protocol
        self._queue: collections.deque[bytes] = collections.deque()
        self._queued = 0
        self._flushed: asyncio.Future[None] | None = None
        self._connected = self._writing_paused = self._reading_paused = False
        self._sending = False  # a thread has the connection
        self._closing = self._lost = False
        self._timer = self._loop.call_later(_HANDSHAKE_SECONDS, self.abort)
        self._loop.add_reader(self._fd, self._handshake)

    # What a protocol asks of its transport.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """As of the event loop's own transports."""
        if self._lost:
            return super().get_extra_info(name, default)
        if name in ("socket", "ssl_object"):
            return self._socket
        if name == "peercert":
            return self._socket.getpeercert()
        if name == "cipher":
            return self._socket.cipher()
        return super().get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Who hears of the connection from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Who hears of the connection."""
        return self._protocol

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._closing

    def is_reading(self) -> bool:
        """Whether data is read."""
        return self._connected and not self._reading_paused and not self._closing

    def pause_reading(self) -> None:
        """Read no more."""
        self._reading_paused = True
        if not self._lost:
            self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        """Read on."""
        self._reading_paused = False
        self._read_on()

    def get_write_buffer_size(self) -> int:
        """Bytes that wait."""
        return self._queued

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, now if possible."""
        if self._closing or not data:
            return None
        if not self._queue and not self._sending:
            try:
                data = memoryview(data)[self._socket.send(data) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                self._loop.add_writer(self._fd, self._flush)
            except OSError as error:
                return self._lose(error)
            if not data:
                return None
        self._queue.append(bytes(data))
        self._queued += len(data)
        if self._queued > _HIGH_WATER and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()
        return None

    def can_write_eof(self) -> bool:
        """TLS has no half-closed connection that clients of HTTP know how to take."""
        return False

    def close(self) -> None:
        """Send what waits, then say good-bye."""
        if self._closing:
            return
        self._closing = True
        self._loop.remove_reader(self._fd)
        if not self._queue and not self._sending:
            self._say_goodbye()

    def abort(self) -> None:
        """Close at once."""
        self._lose(None)

    # Files.

    async def sendfile(self, file: IO[bytes], offset: int, count: int) -> int:
        """Send `count` bytes of a regular file from `offset`, after all that was written before.

        Raises `ConnectionResetError`. Nothing is read meanwhile: an OpenSSL connection is used by one thread at a time.
        """
        if self._queue:
            self._flushed = self._loop.create_future()
            await self._flushed
            self._flushed = None
        if self._closing:
            raise ConnectionResetError("the connection is closed")
        self._sending = True
        self._loop.remove_reader(self._fd)
        # Records are 16 KiB and the kernel's segments 64 KiB: only full ones are sent.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        try:
            for start in range(offset, offset + count, _WINDOW):
                await self._send_window(file.fileno(), start, min(_WINDOW, offset + count - start))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
        except OSError as error:
            self._lose(error)
            self._let_go()
            raise ConnectionResetError("the connection was lost") from error
        except asyncio.CancelledError:
            self._lose(None)  # a part of the file has gone out, so nothing else can
            raise
        self._let_go()
        if self._lost:
            raise ConnectionResetError("the connection was lost")
        self._flush()
        self._read_on()
        return count

    async def _send_window(self, descriptor: int, start: int, length: int) -> None:
        window = _Window(descriptor, start, length)
        while True:
            step = self._loop.run_in_executor(self._threads, window.send, self._socket)
            try:
                if await asyncio.shield(step):
                    return
            except asyncio.CancelledError:
                step.add_done_callback(self._abandon)
                raise
            writable: asyncio.Future[None] = self._loop.create_future()
            self._loop.add_writer(self._fd, _wake, writable)
            try:
                await writable
            except asyncio.CancelledError:
                self._let_go()
                raise
            finally:
                self._loop.remove_writer(self._fd)

    def _abandon(self, step: asyncio.Future[bool]) -> None:
        if not step.cancelled():
            step.exception()  # nobody waits for it any more
        self._let_go()

    def _let_go(self) -> None:
        """No thread has the connection now."""
        self._sending = False
        if self._lost:
            self._socket.close()

    # The life of the connection.

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
        self._loop.add_reader(self._fd, self._read)
        self._protocol.connection_made(self)
        if self._socket.pending():
            self._loop.call_soon(self._read)

    def _read_on(self) -> None:
        if self.is_reading() and not self._sending:
            self._loop.add_reader(self._fd, self._read)
            if self._socket.pending():  # the kernel does not know of what OpenSSL holds
                self._loop.call_soon(self._read)

    def _read(self) -> None:
        if not self.is_reading() or self._sending:
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
        # uvloop tells a reset only once, perhaps of a connection that still has data to read, and then nothing more.
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
        """Send what waits, as much as goes."""
        if self._sending:
            return
        try:
            while self._queue:
                data = self._queue[0]
                sent = self._socket.send(data)
                self._queued -= sent
                if sent == len(data):
                    self._queue.popleft()
                else:
                    self._queue[0] = data[sent:]
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
            if self._flushed is not None:
                _wake(self._flushed)
            if self._closing and not self._lost:
                self._say_goodbye()

    def _say_goodbye(self) -> None:
        """Close so that the other end can read all: a socket closed with unread data would reset the connection."""
        with contextlib.suppress(OSError, ValueError):
            self._socket.unwrap()
        self._lost = True
        self._loop.remove_writer(self._fd)
        self._timer.cancel()
        self._loop.call_soon(self._protocol.connection_lost, None)
        plain = socket.socket(fileno=self._socket.detach())
        with contextlib.suppress(OSError):
            plain.shutdown(socket.SHUT_WR)

        def drain() -> None:
            try:
                while plain.recv_into(self._buffer):
                    pass
            except BlockingIOError:
                return
            except OSError:
                pass
            end()

        def end() -> None:
            timer.cancel()
            self._loop.remove_reader(plain.fileno())
            plain.close()

        timer = self._loop.call_later(_LINGER_SECONDS, end)
        self._loop.add_reader(plain.fileno(), drain)

    def _lose(self, error: OSError | None) -> None:
        if self._lost:
            return
        self._lost = self._closing = True
        self._timer.cancel()
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        self._queue.clear()
        if self._flushed is not None:
            _wake(self._flushed)
        if self._connected:
            self._loop.call_soon(self._protocol.connection_lost, error)
        if self._sending:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which is to let go first
        else:
            self._socket.close()


class _Window:
    """A part of a file that is to be sent. It is mapped only while a thread sends."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._skip = start % mmap.ALLOCATIONGRANULARITY
        self._descriptor = descriptor
        self._start = start - self._skip
        self._length = length + self._skip
        self._flags = mmap.MAP_SHARED | mmap.MAP_POPULATE

    def send(self, connection: ssl.SSLSocket) -> bool:
        """Whether all of it went. If not, the reader is slow, and the same is to be offered again. In a thread."""
        where = {"flags": self._flags, "prot": mmap.PROT_READ, "offset": self._start}
        self._flags = mmap.MAP_SHARED
        with (
            mmap.mmap(self._descriptor, self._length, **where) as mapped,
            memoryview(mapped) as view,
            view[self._skip :] as wanted,
        ):
            while True:
                try:
                    connection.send(wanted)
                except ssl.SSLWantWriteError:
                    if not _writable(connection):
                        return False
                else:
                    return True


def _writable(connection: ssl.SSLSocket) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLOUT)
    return bool(poll.poll(_PATIENCE))


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
