"""The streams of a command in a container over WebSockets and SPDY (`remotecommand`, versions 1 to 5).

Internally the streams are the frames of version 5: one byte for the channel, then data. Channels 0 to 2 are those of the
process. Channel 3 is the final `Status`, and 4 the size of the terminal (`{"Width": 80, "Height": 24}`). Channel 255 closes
the channel in its data.

Version 4 over WebSockets has no channel 255. Versions before 4 report a failure as text without an exit code, versions
before 3 have no terminal size. Over SPDY each channel is a stream with its name in the header `streamType`.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

import msgspec
from aiohttp import WSMsgType, web

from cumulet.common.kubernetes.objects import Status
from cumulet.common.spdy import Session, Stream
from cumulet.common.tasks import until_one_ends

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
V5 = "v5.channel.k8s.io"
#: The versions over SPDY. SPDY closes single streams, which is all that version 5 would add.
SPDY_VERSIONS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
#: The versions over WebSockets before version 5.
WEBSOCKET_VERSIONS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")


def success() -> bytes:
    """The encoded `Status` of success."""
    return msgspec.json.encode({"metadata": {}, "status": "Success"})


def failure(message: str) -> bytes:
    """The encoded `Status` of a failure that the command did not cause."""
    status = {
        "metadata": {},
        "status": "Failure",
        "message": f"Internal error occurred: {message}",
        "reason": "InternalError",
        "details": {"causes": [{"message": message}]},
        "code": 500,
    }
    return msgspec.json.encode(status)


#: The types of streams.
TYPES = {"stdin": STDIN, "stdout": STDOUT, "stderr": STDERR, "error": ERROR, "resize": RESIZE}
_SIZE_LIMIT, _STATUS_LIMIT = 4096, 1024 * 1024

_NO_STATUS = failure("the connection ended before the command did")

Deliver = Callable[[bytes], Awaitable[None]]


class Options(NamedTuple):
    """The streams that a client requested."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def streams(self, *, resizes: bool) -> list[str]:
        """The types of the streams, in the order in which clients open them."""
        requested = {"error": True, "stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        return [name for name, there in {**requested, "resize": self.tty and resizes}.items() if there]


class Channels(Protocol):
    """The streams of one end of a connection."""

    async def send(self, frame: bytes) -> None:
        """Send a frame. A frame for a channel that the end did not request is dropped. Raises `ConnectionError`."""

    async def run(self, deliver: Deliver) -> None:
        """Deliver frames as they arrive, until the end of the connection."""

    async def close(self) -> None:
        """Close all streams after the frames that were sent."""


class WebSocketChannels:
    """The WebSocket of a client, with the streams that it requested."""

    def __init__(self, socket: web.WebSocketResponse, options: Options) -> None:
        self._socket = socket
        self._unwanted = [
            number for number, there in ((STDOUT, options.stdout), (STDERR, options.stderr)) if not there
        ]
        self._version = socket.ws_protocol or "channel.k8s.io"
        self._text = "base64" in self._version

    async def send(self, frame: bytes) -> None:
        """See `Channels`."""
        if frame[0] == ERROR and not self._version.startswith(("v4", "v5")):
            frame = frame[:1] + failure_text(frame[1:])
        elif frame[0] in self._unwanted or (frame[0] == CLOSE and self._version != V5):
            return
        if self._text:
            await self._socket.send_str(chr(48 + frame[0]) + base64.b64encode(frame[1:]).decode())
        else:
            await self._socket.send_bytes(frame)

    async def run(self, deliver: Deliver) -> None:
        """See `Channels`."""
        async for message in self._socket:
            if message.type is WSMsgType.BINARY and not self._text:
                frame = message.data
            elif message.type is WSMsgType.TEXT and self._text:
                try:
                    frame = bytes([ord(message.data[:1]) - 48]) + base64.b64decode(message.data[1:], validate=True)
                except (TypeError, ValueError, binascii.Error):
                    continue
            else:
                continue
            if frame and (frame[0] != CLOSE or self._version == V5):
                await deliver(frame)

    async def close(self) -> None:
        """See `Channels`."""
        with contextlib.suppress(ConnectionError):
            await self._socket.close()


class SpdyChannels:
    """The streams of a SPDY session with a client or a server. `reads` are the types that the other end sends."""

    def __init__(
        self, session: Session, streams: Mapping[str, Stream], reads: Iterable[str], version: str = SPDY_VERSIONS[0]
    ) -> None:
        self._session = session
        self._streams = {TYPES[name]: stream for name, stream in streams.items()}
        self._reads = [TYPES[name] for name in reads if name in streams]
        self._version = version

    async def send(self, frame: bytes) -> None:
        """See `Channels`."""
        number, data = frame[0], frame[1:]
        if number == CLOSE:
            stream = self._streams.get(data[0]) if data else None
            if stream is not None:
                await stream.close()
            return
        if number == ERROR and self._version != SPDY_VERSIONS[0]:
            data = failure_text(data)
        stream = self._streams.get(number)
        if stream is None:
            return
        try:
            await stream.write(data)
        except ConnectionResetError:
            # Data for a process that no longer reads is dropped, as upstream does.
            if self._session.over:
                raise

    async def run(self, deliver: Deliver) -> None:
        """See `Channels`. Delivers the `Status` in one frame, after all others."""
        status = self._streams[ERROR]
        others = [_copy(number, self._streams[number], deliver) for number in self._reads if number != ERROR]
        if ERROR not in self._reads:
            await asyncio.gather(*others, self._session.ended.wait())
            return
        await asyncio.gather(*others)
        whole = b""
        async for data in _all(status):
            whole += data[: _STATUS_LIMIT - len(whole)]
        await deliver(bytes([ERROR]) + (whole or _NO_STATUS))

    async def close(self) -> None:
        """See `Channels`."""
        with contextlib.suppress(ConnectionError):
            for stream in self._streams.values():
                await stream.close()
            await self._session.leave()


async def _all(stream: Stream) -> AsyncIterator[bytes]:
    while data := await stream.read():
        yield data


async def _copy(number: int, stream: Stream, deliver: Deliver) -> None:
    async for data in _sizes(stream) if number == RESIZE else _all(stream):
        await deliver(bytes([number]) + data)
    if number == STDIN and not stream.broken:
        await deliver(bytes([CLOSE, number]))


async def _sizes(stream: Stream) -> AsyncIterator[bytes]:
    """Yield the JSON documents of a stream one by one. Ends at data that is not JSON."""
    decoder, text = json.JSONDecoder(), ""
    async for data in _all(stream):
        text = (text + data.decode(errors="replace")).lstrip()
        while text:
            try:
                _, end = decoder.raw_decode(text)
            except (json.JSONDecodeError, RecursionError):
                break
            yield text[:end].encode()
            text = text[end:].lstrip()
        if len(text) > _SIZE_LIMIT:
            return


def failure_text(status: bytes) -> bytes:
    """The text that versions before 4 send for a `Status`. It is empty for a success."""
    try:
        decoded = msgspec.json.decode(status, type=Status)
    except msgspec.DecodeError:
        return status
    return b"" if decoded.get("status") == "Success" else str(decoded.get("message", "")).encode()


async def relay(one: Channels, other: Channels) -> None:
    """Copy frames between two ends until one of them ends, then close both."""

    def to(end: Channels) -> Deliver:
        async def deliver(frame: bytes) -> None:
            # An end that is gone ends its own `run`, after the frames that it has still to deliver.
            with contextlib.suppress(ConnectionError):
                await end.send(frame)

        return deliver

    await until_one_ends(one.run(to(other)), other.run(to(one)))
    await one.close()
    await other.close()
