"""SPDY sessions: streams, flow control, and invalid input."""

from __future__ import annotations

import asyncio
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.common.spdy import Session, Stream
from cumulet.common.spdy.frames import (
    DICTIONARY,
    FIN,
    INITIAL_WINDOW_SIZE,
    Away,
    HeaderBlocks,
    Kind,
    Reset,
    control,
    data,
)

#: The kind of a control frame with its payload, or `None` and the number of the stream whose data it is.
Seen = tuple[Kind | None, int, bytes]


class Server:
    """A server's session that a test sends frames to."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.streams: list[Stream] = []
        self.session = Session(self._send, self._opened)
        self._blocks = HeaderBlocks()

    async def _send(self, raw: bytes) -> None:
        self.sent.append(raw)

    def _opened(self, stream: Stream) -> bool:
        self.streams.append(stream)
        return stream.headers.get("refuse") is None

    async def open(self, number: int, flags: int = 0, **headers: str) -> Stream:
        """Open a stream as a client does."""
        block = self._blocks.encode(headers)
        await self.session.receive(control(Kind.SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block, flags))
        return self.streams[-1]

    def frames(self) -> list[Seen]:
        """Return the frames that the session has sent since the last call."""
        found: list[Seen] = []
        for raw in self.sent:
            first, rest = struct.unpack_from(">II", raw)
            assert len(raw) == 8 + (rest & 0xFF_FFFF)
            if first & 0x8000_0000:
                assert first >> 16 == 0x8003
                found.append((Kind(first & 0xFFFF), rest >> 24, raw[8:]))
            else:
                found.append((None, first, raw[8:]))
        self.sent.clear()
        return found

    def status(self) -> Away:
        """Return the reason of the GOAWAY, which must be the last frame that was sent."""
        kind, _, payload = self.frames()[-1]
        assert kind is Kind.GOAWAY
        return Away(struct.unpack(">II", payload)[1])


def pair() -> tuple[Session, Session, list[Stream]]:
    """The connected sessions of a client and a server, and the opened streams."""
    opened: list[Stream] = []

    def take(stream: Stream) -> bool:
        opened.append(stream)
        return "refuse" not in stream.headers

    async def to_server(raw: bytes) -> None:
        await server.receive(raw)

    async def to_client(raw: bytes) -> None:
        await client.receive(raw)

    client = Session(to_server)
    server = Session(to_client, take)
    return client, server, opened


async def read_all(stream: Stream) -> bytes:
    whole = b""
    while found := await stream.read():
        whole += found
    return whole


def test_the_dictionary_is_that_of_the_draft() -> None:
    # zlib names a dictionary by its Adler-32, which begins every stream that is compressed with it (RFC 1950).
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    assert len(DICTIONARY) == 1423


async def test_two_sessions_understand_each_other() -> None:
    client, _, opened = pair()
    first = await client.open({"streamType": "data", "port": "80"})
    await client.open({"streamType": "error", "port": "80"})
    assert [dict(stream.headers) for stream in opened] == [
        {"streamtype": "data", "port": "80"},
        {"streamtype": "error", "port": "80"},
    ]
    there = opened[0]
    large = bytes(range(256)) * 4000
    reading = asyncio.create_task(read_all(there))
    await first.write(large)
    await first.close()
    assert await reading == large
    # The other half stays open.
    await there.write(b"back")
    await there.close()
    assert await read_all(first) == b"back"
    assert first.over
    assert not first.broken
    with pytest.raises(ConnectionResetError):
        await first.write(b"more")


async def test_a_stream_that_is_refused_or_reset() -> None:
    client, _, opened = pair()
    with pytest.raises(ConnectionResetError):
        await client.open({"refuse": "yes"})
    stream = await client.open({})
    await stream.write(b"some")
    await stream.reset()
    assert await read_all(opened[-1]) == b"some"
    assert opened[-1].broken


async def test_leaving_ends_every_stream() -> None:
    client, server, opened = pair()
    stream = await client.open({})
    await opened[0].write(b"last words")
    await opened[0].close()
    await server.leave()
    server.close()
    assert await read_all(stream) == b"last words"
    assert opened[0].broken
    await client.receive(b"")
    client.close()
    with pytest.raises(ConnectionResetError):
        await client.open({})


async def test_pings_come_back_and_answers_do_not() -> None:
    server = Server()
    await server.session.receive(control(Kind.PING, struct.pack(">I", 7)) + control(Kind.PING, struct.pack(">I", 8)))
    assert server.frames() == [(Kind.PING, 0, struct.pack(">I", 7))]


async def test_frames_come_in_any_pieces() -> None:
    server = Server()
    stream = await server.open(1)
    for byte in data(1, b"hello") + data(1, b"", FIN):
        await server.session.receive(bytes([byte]))
    assert await read_all(stream) == b"hello"


async def test_what_was_read_opens_the_window_again() -> None:
    server = Server()
    stream = await server.open(1)
    server.frames()
    await server.session.receive(data(1, b"x" * 40_000))
    assert server.frames() == []
    await stream.read()
    assert server.frames() == [
        (Kind.WINDOW_UPDATE, 0, struct.pack(">II", 0, 40_000)),
        (Kind.WINDOW_UPDATE, 0, struct.pack(">II", 1, 40_000)),
    ]


async def test_the_window_of_an_end_that_keeps_one_is_heeded() -> None:
    server = Server()
    setting = struct.pack(">III", 1, INITIAL_WINDOW_SIZE, 1000)
    await server.session.receive(control(Kind.SETTINGS, setting))
    stream = await server.open(1)
    server.frames()
    writing = asyncio.create_task(stream.write(b"x" * 2500))
    await asyncio.sleep(0)
    assert [len(payload) for _, _, payload in server.frames()] == [1000]
    assert not writing.done()
    await server.session.receive(control(Kind.WINDOW_UPDATE, struct.pack(">II", 1, 2000)))
    await writing
    assert sum(len(payload) for _, _, payload in server.frames()) == 1500
    await server.session.receive(control(Kind.WINDOW_UPDATE, struct.pack(">II", 1, 0x7FFF_FFFF)))
    assert server.frames() == [(Kind.RST_STREAM, 0, struct.pack(">II", 1, Reset.FLOW_CONTROL_ERROR))]


async def test_a_slow_reader_holds_up_the_connection_and_not_more() -> None:
    server = Server()
    stream = await server.open(1)
    frame = data(1, b"x" * 1_000_000)
    receiving = asyncio.create_task(server.session.receive(frame * 8))
    await asyncio.sleep(0)
    assert not receiving.done()
    assert stream.held <= 2_000_000
    taken = 0
    while taken < 8_000_000:
        taken += len(await stream.read())
        assert stream.held <= 2_000_000
    await receiving


async def test_streams_that_nobody_reads_are_bounded_together() -> None:
    server = Server()
    streams = [await server.open(number) for number in range(1, 41, 2)]
    raw = b"".join(data(stream.number, b"x" * 500_000) for stream in streams)
    receiving = asyncio.create_task(server.session.receive(raw))
    await asyncio.sleep(0)
    assert not receiving.done()
    assert sum(stream.held for stream in streams) <= 4_500_000
    # Reset streams do not count.
    for stream in streams:
        await stream.reset()
    await receiving
    assert sum(stream.held for stream in streams) == 0


async def test_more_streams_than_there_may_be_are_refused() -> None:
    server = Server()
    for number in range(1, 2003, 2):
        await server.open(number)
    assert len(server.streams) == 1000
    assert server.frames()[-1] == (Kind.RST_STREAM, 0, struct.pack(">II", 2001, Reset.REFUSED_STREAM))
    assert not server.session.over


async def test_data_of_no_stream_is_told_of_or_dropped() -> None:
    server = Server()
    stream = await server.open(3)
    await stream.reset()
    server.frames()
    await server.session.receive(data(3, b"was under way") + data(9, b"from nowhere"))
    assert server.frames() == [(Kind.RST_STREAM, 0, struct.pack(">II", 9, Reset.INVALID_STREAM))]
    other = await server.open(5, FIN)
    server.frames()
    await server.session.receive(data(5, b"after the end"))
    assert server.frames() == [(Kind.RST_STREAM, 0, struct.pack(">II", 5, Reset.STREAM_ALREADY_CLOSED))]
    assert other.broken


def _block(*texts: bytes) -> bytes:
    """Return a header block with invalid content."""
    compressor = zlib.compressobj(zdict=DICTIONARY)
    return compressor.compress(b"".join(texts)) + compressor.flush(zlib.Z_SYNC_FLUSH)


def _syn(block: bytes, number: int = 1) -> bytes:
    return control(Kind.SYN_STREAM, struct.pack(">IIH", number, 0, 0) + block)


_NAME = struct.pack(">I", 1) + b"a"

HOSTILE = {
    "another version": struct.pack(">HHI", 0x8002, 6, 4) + b"\0\0\0\1",
    "an unknown type": struct.pack(">HHI", 0x8003, 77, 0),
    "a control frame of 16 MiB": struct.pack(">HHI", 0x8003, 1, 0xFF_FFFF),
    "a short SYN_STREAM": control(Kind.SYN_STREAM, b"\0\0\0\1"),
    "a short PING": control(Kind.PING, b"\0"),
    "a long GOAWAY": control(Kind.GOAWAY, b"\0" * 12),
    "settings that are not there": control(Kind.SETTINGS, struct.pack(">I", 1 << 31)),
    "a window beyond all bounds": control(Kind.SETTINGS, struct.pack(">III", 1, INITIAL_WINDOW_SIZE, 0xFFFF_FFFF)),
    "a session window of nothing": control(Kind.WINDOW_UPDATE, struct.pack(">II", 0, 0)),
    "an even stream": _syn(_block(struct.pack(">I", 0)), 2),
    "stream 0": _syn(_block(struct.pack(">I", 0)), 0),
    "no zlib": _syn(b"plain text"),
    "another dictionary": _syn(zlib.compress(b"\0\0\0\0")),
    "a bomb": _syn(_block(b"\0" * 50_000_000)),
    "many headers": _syn(_block(struct.pack(">I", 0xFFFF_FFFF), _NAME, _NAME)),
    "a header beyond the end": _syn(_block(struct.pack(">II", 1, 0xFFFF_FFFF))),
    "a header twice": _syn(_block(struct.pack(">I", 2), _NAME * 4)),
    "a header that is no text": _syn(_block(struct.pack(">I", 1), struct.pack(">I", 1) + b"\xff", _NAME)),
    "headers that end the compression": _syn(zlib.compressobj(zdict=DICTIONARY).flush(zlib.Z_FINISH)),
}


@pytest.mark.parametrize("raw", HOSTILE.values(), ids=HOSTILE.keys())
async def test_bad_input_ends_the_session_with_a_farewell(raw: bytes) -> None:
    server = Server()
    await server.session.receive(raw)
    assert server.status() is Away.PROTOCOL_ERROR
    assert server.session.over
    await server.session.receive(data(1, b"x"))
    assert server.frames() == []


async def test_a_client_takes_no_streams_of_a_server() -> None:
    server = Server()
    server.session = Session(server._send)
    await server.session.receive(_syn(_block(struct.pack(">I", 0)), 2))
    assert server.status() is Away.PROTOCOL_ERROR


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=64),
            st.builds(
                lambda kind, flags, payload: struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload,
                st.integers(0, 10),
                st.integers(0, 3),
                st.binary(max_size=24),
            ),
            st.builds(data, st.integers(0, 9), st.binary(max_size=40), st.integers(0, 1)),
            st.just(_syn(_block(struct.pack(">I", 0)))),
        ),
        max_size=12,
    )
)
async def test_whatever_comes_is_no_error(pieces: list[bytes]) -> None:
    server = Server()
    for piece in pieces:
        await server.session.receive(piece)
    server.session.close()
    for stream in server.streams:
        assert len(await read_all(stream)) <= sum(map(len, pieces))
