"""The streams of a command in a container, as WebSockets and as SPDY carry them (`remotecommand`, versions 1 to 5).

Inside they are frames as version 5 has them: a byte for the channel, and data; 0 to 2 are those of the process, 3 is the
`Status` at the end, 4 the terminal's size (`{"Width": 80, "Height": 24}`), 255 the end of the channel that follows it.
Version 4 has no such end over WebSockets, versions before it tell a failure as text and no exit code, and versions before 3
no terminal's size. Over SPDY each channel is a stream, whose header `streamType` tells which.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec
from aiohttp import WSMsgType, web

from cumulet.common.spdy import Session, Stream
from cumulet.common.tasks import until_one_ends

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
CLOSE = 255
V5 = "v5.channel.k8s.io"
#: What is spoken over SPDY: a stream has an end of its own, so that there is nothing for a version 5 to add.
SPDY_VERSIONS = ("v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io")
#: What is spoken over WebSockets before version 5.
WEBSOCKET_VERSIONS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io")


def success() -> bytes:
    """The `Status` of what ended well."""
    return msgspec.json.encode({"metadata": {}, "status": "Success"})


def failure(message: str) -> bytes:
    """The `Status` of what failed for no reason of the command's own."""
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
    """Which streams there are."""

    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    def streams(self, *, resizes: bool) -> list[str]:
        """Their types, in the order in which clients open them."""
        wanted = {"error": True, "stdin": self.stdin, "stdout": self.stdout, "stderr": self.stderr}
        return [name for name, there in {**wanted, "resize": self.tty and resizes}.items() if there]


class Channels(Protocol):
    """One end's streams."""

    async def send(self, frame: bytes) -> None:
        """Send a frame; one of a channel that is not there is dropped. Raises `ConnectionError`."""

    async def run(self, deliver: Deliver) -> None:
        """Hand over frames as they come, until no more can come."""

    async def close(self) -> None:
        """End all, after what was sent."""


class WebSocketChannels:
    """A client's WebSocket, with the streams that it asked for."""

    def __init__(self, socket: web.WebSocketResponse, options: Options) -> None:
        self._socket = socket
        self._unwanted = [
            number for number, there in ((STDOUT, options.stdout), (STDERR, options.stderr)) if not there
        ]
        self._version = socket.ws_protocol or "channel.k8s.io"
        self._text = "base64" in self._version

    async def send(self, frame: bytes) -> None:
        """As `Channels`."""
        if frame[0] == ERROR and not self._version.startswith(("v4", "v5")):
            frame = frame[:1] + failure_text(frame[1:])
        elif frame[0] in self._unwanted or (frame[0] == CLOSE and self._version != V5):
            return
        if self._text:
            await self._socket.send_str(chr(48 + frame[0]) + base64.b64encode(frame[1:]).decode())
        else:
            await self._socket.send_bytes(frame)

    async def run(self, deliver: Deliver) -> None:
        """As `Channels`."""
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
        """As `Channels`."""
        with contextlib.suppress(ConnectionError):
            await self._socket.close()


class SpdyChannels:
    """The streams of a SPDY session, of a client's or of a server's; `reads` are the types that the other end sends."""

    def __init__(
        self, session: Session, streams: Mapping[str, Stream], reads: Iterable[str], version: str = SPDY_VERSIONS[0]
    ) -> None:
        self._session = session
        self._streams = {TYPES[name]: stream for name, stream in streams.items()}
        self._reads = [TYPES[name] for name in reads if name in streams]
        self._version = version

    async def send(self, frame: bytes) -> None:
        """As `Channels`."""
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
            # What is sent to a process that reads no more is nobody's loss.
            if self._session.over:
                raise

    async def run(self, deliver: Deliver) -> None:
        """As `Channels`. The `Status` is handed over in one piece, after everything else."""
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
        """As `Channels`."""
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
    """The JSON documents of a stream, one by one, until there is something else."""
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
    """What versions before 4 say for a `Status`: nothing where it tells of success."""
    try:
        decoded: Any = msgspec.json.decode(status)
        return b"" if decoded.get("status") == "Success" else str(decoded.get("message", "")).encode()
    except (msgspec.DecodeError, AttributeError):
        return status


async def relay(one: Channels, other: Channels) -> None:
    """Between two ends, until either has no more to say; then both are ended."""

    def to(end: Channels) -> Deliver:
        async def deliver(frame: bytes) -> None:
            # An end that is gone ends its own run, after what it had still to say.
            with contextlib.suppress(ConnectionError):
                await end.send(frame)

        return deliver

    await until_one_ends(one.run(to(other)), other.run(to(one)))
    await one.close()
    await other.close()
