"""A SPDY session, of a client or a server, and its streams."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import struct
from collections.abc import Awaitable, Callable, Mapping

from cumulet.common.spdy import frames
from cumulet.common.spdy.frames import Away, Kind, Reset, SpdyError

log = logging.getLogger(__name__)

_CONTROL_LIMIT = 64 * 1024
_STREAMS_LIMIT = 1000
_CHUNK = 32 * 1024
#: Buffered bytes of one stream, and of all streams, at which the session pauses. Only the connection itself can slow down a
#: peer that does not respect windows.
_STREAM_BUFFER, _SESSION_BUFFER = 1024 * 1024, 4 * 1024 * 1024
_WINDOW_LIMIT = 0x7FFF_FFFF
#: Read bytes after which the peer's window is updated.
_RETURN = frames.WINDOW // 2
_ANSWER_SECONDS = 30.0

#: Sends bytes in the order of the calls, and returns when more can be sent. Raises `ConnectionError`.
Send = Callable[[bytes], Awaitable[None]]
#: Returns whether to accept a stream that the peer opens.
Opened = Callable[["Stream"], bool]


class Stream:
    """A stream, with the headers of its SYN_STREAM frame."""

    def __init__(self, session: Session, number: int, headers: Mapping[str, str]) -> None:
        self.number = number
        self.headers = headers
        #: Whether the stream was reset, or its session has ended.
        self.broken = False
        self._session = session
        self._received = bytearray()
        self._theirs_ended = self._ours_ended = False
        self._changed = asyncio.Event()
        self._taken = 0
        #: The number of bytes that may be sent, if the peer uses flow control.
        self.window = session.initial_window
        self.replied = asyncio.Event()

    async def read(self) -> bytes:
        """Return the received data, empty at the end of the stream, also of a broken one."""
        while not self._received and not self._theirs_ended:
            self._changed.clear()
            await self._changed.wait()
        data = bytes(self._received)
        self._received.clear()
        # The data is valid even if the connection is lost by now.
        with contextlib.suppress(ConnectionError):
            await self._session.taken(len(data))
            self._taken += len(data)
            if self._taken >= _RETURN and not self._theirs_ended:
                size, self._taken = self._taken, 0
                await self._session.send_window(self.number, size)
        return data

    async def write(self, data: bytes) -> None:
        """Send data. Raises `ConnectionResetError` if the stream is broken or closed."""
        while data:
            if self.broken or self._ours_ended:
                raise ConnectionResetError(f"stream {self.number} is closed")
            if not (size := self._session.may_send(self, min(len(data), _CHUNK))):
                await self._session.window_opens()
                continue
            await self._session.send(frames.data(self.number, data[:size]))
            data = data[size:]

    async def close(self) -> None:
        """Close this end's half of the stream."""
        if not self.broken and not self._ours_ended:
            self._ours_ended = True
            self._session.settle(self)
            await self._session.send(frames.data(self.number, b"", frames.FIN))

    async def reset(self, why: Reset = Reset.CANCEL) -> None:
        """Reset the stream, unless both ends have closed it. Received data is discarded."""
        size = len(self._received)
        self._received.clear()
        await self._session.taken(size)
        if not self.over:
            self.abort()
            self._session.settle(self)
            await self._session.send(frames.control(Kind.RST_STREAM, struct.pack(">II", self.number, why)))

    # Called by the session.

    @property
    def over(self) -> bool:
        """Whether both ends have closed the stream, or it is broken."""
        return self.broken or (self._theirs_ended and self._ours_ended)

    @property
    def theirs_ended(self) -> bool:
        """Whether the peer has closed its half."""
        return self._theirs_ended

    @property
    def held(self) -> int:
        """The number of buffered bytes."""
        return len(self._received)

    def feed(self, data: bytes, *, end: bool = False) -> None:
        """Add received data, and with `end` close the peer's half."""
        self._received += data
        self._theirs_ended = self._theirs_ended or end
        self._changed.set()

    def refuse_data(self) -> None:
        """Close this end's half without a frame, because the peer opened the stream as unidirectional."""
        self._ours_ended = True

    def abort(self) -> None:
        """Mark the stream as broken, and wake everything that waits for it. Received data can still be read."""
        self.broken = True
        self.replied.set()
        self.feed(b"", end=True)


class Session:
    """A session: receives the bytes of a connection, and sends frames by `send`.

    A server's session calls `opened` for each stream that the client opens; a client opens streams itself. Invalid input
    ends the session with a GOAWAY and raises no error: see `over`.
    """

    def __init__(self, send: Send, opened: Opened | None = None) -> None:
        self.send = send
        #: Set when the session receives no more.
        self.ended = asyncio.Event()
        self.initial_window = frames.WINDOW
        self._opened = opened
        self._raw = bytearray()
        self._streams: dict[int, Stream] = {}
        self._blocks = frames.HeaderBlocks()
        self._last = 0  # the number of the last stream that the peer opened
        self._next = 1
        #: The remaining bytes of the current data frame, its stream, and whether it closes the peer's half.
        self._left = 0
        self._into: Stream | None = None
        self._ends = False
        self._held = 0
        self._room = asyncio.Event()
        self._taken = 0
        self._window = frames.WINDOW
        self._streams_have_windows = self._session_has_window = False
        self._window_changed = asyncio.Event()

    @property
    def over(self) -> bool:
        """Whether the session receives no more."""
        return self.ended.is_set()

    async def run(self, read: Callable[[], Awaitable[bytes]]) -> None:
        """Receive the bytes that `read` returns, until they are empty or `read` raises `ConnectionError`."""
        try:
            with contextlib.suppress(ConnectionError):
                while not self.over and (raw := await read()):
                    await self.receive(raw)
        finally:
            self.close()

    async def receive(self, raw: bytes) -> None:
        """Process received bytes. Waits while the buffers are full. Raises the exceptions of `send`."""
        if self.over:
            return
        self._raw += raw
        try:
            while not self.over and await self._frame():
                pass
        except SpdyError as error:
            log.info("invalid SPDY input ends the session: %s", error)
            await self.leave(Away.PROTOCOL_ERROR)

    async def open(self, headers: Mapping[str, str]) -> Stream:
        """Open a stream, and wait until the peer has accepted it. Raises `ConnectionError`."""
        if self.over:
            raise ConnectionResetError("the session is over")
        stream = Stream(self, self._next, headers)
        self._next += 2
        self._streams[stream.number] = stream
        block = self._blocks.encode(headers)
        await self.send(frames.control(Kind.SYN_STREAM, struct.pack(">IIH", stream.number, 0, 0) + block))
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                await stream.replied.wait()
        except TimeoutError:
            stream.abort()
        if stream.broken:
            raise ConnectionResetError(f"stream {stream.number} was not accepted")
        return stream

    async def leave(self, why: Away = Away.OK) -> None:
        """End the session with a GOAWAY. Raises the exceptions of `send`."""
        if not self.over:
            self.close()
            await self.send(frames.control(Kind.GOAWAY, struct.pack(">II", self._last, why)))

    def close(self) -> None:
        """End the session and its streams without a frame, because the connection has ended."""
        self.ended.set()
        for stream in self._streams.values():
            stream.abort()
        self._streams.clear()
        self._raw.clear()
        self._room.set()
        self._window_changed.set()

    # Called by streams.

    async def taken(self, size: int) -> None:
        """Record that `size` buffered bytes were read or discarded."""
        self._held -= size
        self._room.set()
        self._taken += size
        if self._taken >= _RETURN:
            total, self._taken = self._taken, 0
            await self.send_window(0, total)

    async def send_window(self, number: int, size: int) -> None:
        """Enlarge the peer's window by `size`, for a stream, or for the session if `number` is 0."""
        if not self.over:
            await self.send(frames.control(Kind.WINDOW_UPDATE, struct.pack(">II", number, size)))

    def may_send(self, stream: Stream, size: int) -> int:
        """Return how many of `size` bytes the windows allow, and count them as sent."""
        if self._streams_have_windows:
            size = max(0, min(size, stream.window))
        if self._session_has_window:
            size = max(0, min(size, self._window))
        stream.window -= size
        self._window -= size
        return size

    async def window_opens(self) -> None:
        """Wait until a window was enlarged, or a stream has ended."""
        self._window_changed.clear()
        await self._window_changed.wait()

    def settle(self, stream: Stream) -> None:
        """Remove a stream that both ends have closed, or that is broken."""
        if stream.over:
            self._streams.pop(stream.number, None)
            self._room.set()
            self._window_changed.set()

    # Received frames.

    async def _frame(self) -> bool:
        """Process the next frame, or a part of a data frame. Returns whether there was one."""
        if self._left:
            return await self._data()
        if len(self._raw) < 8:
            return False
        first, rest = struct.unpack_from(">II", self._raw)
        length, flags = rest & 0xFF_FFFF, rest >> 24
        if not first & frames.CONTROL:
            del self._raw[:8]
            await self._begin_data(first, length, end=bool(flags & frames.FIN))
            return True
        if first >> 16 & 0x7FFF != frames.VERSION:
            raise SpdyError(f"version {first >> 16 & 0x7FFF} is not supported")
        if length > _CONTROL_LIMIT:
            raise SpdyError("a control frame is too long")
        if len(self._raw) < 8 + length:
            return False
        payload = bytes(self._raw[8 : 8 + length])
        del self._raw[: 8 + length]
        await self._control(first & 0xFFFF, flags, payload)
        return True

    async def _begin_data(self, number: int, length: int, *, end: bool) -> None:
        self._left, self._ends, self._into = length, end, self._streams.get(number)
        if self._into is None:
            # Data that was in transit when the stream was reset is discarded.
            if not 0 < number <= max(self._last, self._next - 2):
                await self._reset(number, Reset.INVALID_STREAM)
        elif self._into.theirs_ended:
            await self._into.reset(Reset.STREAM_ALREADY_CLOSED)
        elif not length:
            self._feed(self._into, b"")

    async def _data(self) -> bool:
        piece = bytes(self._raw[: self._left])
        if not piece:
            return False
        del self._raw[: len(piece)]
        self._left -= len(piece)
        self._held += len(piece)
        if self._into is None or self._into.over:
            await self.taken(len(piece))
            return True
        self._feed(self._into, piece)
        while not self.over and self._is_full(self._into):
            self._room.clear()
            await self._room.wait()
        return True

    def _feed(self, stream: Stream, piece: bytes) -> None:
        stream.feed(piece, end=self._ends and not self._left)
        self.settle(stream)

    def _is_full(self, stream: Stream) -> bool:
        return self._held >= _SESSION_BUFFER or (stream.held >= _STREAM_BUFFER and not stream.broken)

    async def _control(self, kind: int, flags: int, payload: bytes) -> None:
        match kind:
            case Kind.SYN_STREAM:
                await self._syn_stream(flags, payload)
            case Kind.SYN_REPLY | Kind.HEADERS:
                # Decode the headers in any case, because the compression of later ones depends on them.
                self._blocks.decode(payload[4:])
                stream = self._streams.get(int.from_bytes(payload[:4]) & frames.ID)
                if stream is not None:
                    stream.replied.set()
                    stream.feed(b"", end=bool(flags & frames.FIN))
                    self.settle(stream)
            case Kind.RST_STREAM:
                number, _ = frames.numbers(payload, 2)
                if (stream := self._streams.get(number & frames.ID)) is not None:
                    stream.abort()
                    self.settle(stream)
            case Kind.PING:
                (number,) = frames.numbers(payload, 1)
                # The ids of a client's pings are odd. Others are responses, and this end sends no pings.
                if number % 2 == (1 if self._opened is not None else 0):
                    await self.send(frames.control(Kind.PING, payload))
            case Kind.GOAWAY:
                # The peer accepts no new streams; existing streams continue.
                frames.numbers(payload, 2)
            case Kind.SETTINGS:
                self._settings(frames.settings(payload))
            case Kind.WINDOW_UPDATE:
                await self._window_update(*frames.numbers(payload, 2))
            case _:
                raise SpdyError(f"control frames of type {kind} are not supported")

    async def _syn_stream(self, flags: int, payload: bytes) -> None:
        if len(payload) < 10:
            raise SpdyError("a SYN_STREAM frame is too short")
        number = int.from_bytes(payload[:4]) & frames.ID
        headers = self._blocks.decode(payload[10:])
        if self._opened is None or number <= self._last or number % 2 == 0:
            raise SpdyError(f"stream {number} is out of order")
        self._last = number
        if len(self._streams) >= _STREAMS_LIMIT:
            await self._reset(number, Reset.REFUSED_STREAM)
            return
        stream = Stream(self, number, headers)
        self._streams[number] = stream
        if flags & frames.FIN:
            stream.feed(b"", end=True)
        if flags & frames.UNIDIRECTIONAL:
            stream.refuse_data()
        if not self._opened(stream):
            await stream.reset(Reset.REFUSED_STREAM)
            return
        # Tasks that `opened` has started run only after this was sent.
        await self.send(frames.control(Kind.SYN_REPLY, struct.pack(">I", number) + self._blocks.encode({})))

    def _settings(self, values: dict[int, int]) -> None:
        if frames.INITIAL_WINDOW_SIZE not in values:
            return
        size = values[frames.INITIAL_WINDOW_SIZE]
        if size > _WINDOW_LIMIT:
            raise SpdyError("the initial window is too large")
        for stream in self._streams.values():
            stream.window += size - self.initial_window
        self.initial_window = size
        self._streams_have_windows = True
        self._window_changed.set()

    async def _window_update(self, number: int, size: int) -> None:
        number &= frames.ID
        size &= frames.ID
        stream = self._streams.get(number)
        if not number:
            self._session_has_window = True
            self._window += size
            if self._window > _WINDOW_LIMIT or not size:
                raise SpdyError("the update of the session's window is not valid")
        elif stream is not None:
            self._streams_have_windows = True
            stream.window += size
            if stream.window > _WINDOW_LIMIT or not size:
                await stream.reset(Reset.FLOW_CONTROL_ERROR)
        self._window_changed.set()

    async def _reset(self, number: int, why: Reset) -> None:
        await self.send(frames.control(Kind.RST_STREAM, struct.pack(">II", number & frames.ID, why)))
