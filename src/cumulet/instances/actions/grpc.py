"""The call of `grpc.health.v1.Health/Check` as the kubelet makes it (`pkg/probe/grpc`), over HTTP/2 without TLS.

One call needs one connection, one stream and seven types of frames (RFC 9113). The message has one field in each
direction (the protocol of gRPC health checking, health.proto).
"""

from __future__ import annotations

import asyncio
import os
import struct
from urllib.parse import unquote

from cumulet.common.ascii import is_digits
from cumulet.common.tasks import Backoff
from cumulet.instances.actions.hpack import HpackError, decode
from cumulet.instances.actions.result import VERSION, Result, duration
from cumulet.instances.actions.targets import Targets
from cumulet.instances.model.lifecycle import GrpcAction

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_ACK, _END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
#: The settings of the client: no dynamic table, no push, and the default size of a frame.
_NO_TABLE = struct.pack(">HIHI", 1, 0, 2, 0)
_LARGEST_FRAME, _LARGEST_ANSWER = 16384, 64 * 1024
_STREAM = 1
_STATUSES = ("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")
_UNIMPLEMENTED, _DEADLINE_EXCEEDED = 12, 4
_CODES = (
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
)


class _CallError(Exception):
    """The call has no answer; the message has the reason."""


async def check(action: GrpcAction, address: str, targets: Targets, timeout: int) -> Result:  # noqa: ASYNC109
    """Ask for the health of a service; `timeout` is in seconds."""
    where = f"{address}:{action.port}"
    connected = False
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _connect(action, address, targets)
            connected = True
            try:
                writer.write(_request(where, action.service, timeout))
                code, message, body = await _answer(reader, writer)
            finally:
                writer.transport.abort()
    except TimeoutError:
        if not connected:
            reason = f'failed to connect service "{where}" within {duration(timeout)}: context deadline exceeded'
            return Result("failure", f"timeout: {reason}")
        return Result("failure", f"timeout: health rpc did not complete within {duration(timeout)}")
    except (_CallError, HpackError, asyncio.IncompleteReadError) as error:
        reason = "the server closed the connection" if isinstance(error, asyncio.IncompleteReadError) else str(error)
        return Result("failure", _failed("Unavailable", f"error reading from server: {reason}"))
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return Result("failure", _failed("Unavailable", f"error reading from server: {reason}"))
    return _judge(code, message, body, timeout)


async def _connect(
    action: GrpcAction, address: str, targets: Targets
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection; a refused one is tried again until the caller's limit, as gRPC's own client does."""
    backoff = Backoff(0.1, 1)
    while True:
        try:
            return await targets.connect(address, "", action.port)
        except OSError:
            await backoff.wait()


def _judge(code: int, message: str, body: bytes, timeout: int) -> Result:
    if code == _UNIMPLEMENTED:
        what = "this server does not implement the grpc health protocol (grpc.health.v1.Health)"
        return Result("failure", f"error: {what}: {message}")
    if code == _DEADLINE_EXCEEDED:
        return Result("failure", f"timeout: health rpc did not complete within {duration(timeout)}")
    if code:
        return Result("failure", _failed(_CODES[code] if code < len(_CODES) else f"Code({code})", message))
    status = _status(body)
    if status != 1:
        name = _STATUSES[status] if status < len(_STATUSES) else str(status)
        return Result("failure", f'service unhealthy (responded with "{name}")')
    return Result("success", "service healthy")


def _failed(code: str, message: str) -> str:
    return f"error: health rpc probe failed: rpc error: code = {code} desc = {message}"


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _text(value: str) -> bytes:
    raw = value.encode()
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    rest = len(raw) - 127
    length = bytearray([127])
    while rest >= 128:
        length.append(rest % 128 + 128)
        rest //= 128
    return bytes([*length, rest]) + raw


def _request(authority: str, service: str, timeout: int) -> bytes:
    headers = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("user-agent", f"kube-probe/{VERSION} grpc-cumulet"),
        ("te", "trailers"),
        ("grpc-timeout", f"{timeout}S" if timeout < 10**8 else "99999999S"),
    )
    # Each a literal that is not indexed, with a new name.
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers)
    message = b"\x0a" + _text_field(service) if service else b""
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0, _NO_TABLE)
        + _frame(_HEADERS, _END_HEADERS, _STREAM, block)
        + _frame(_DATA, _END_STREAM, _STREAM, b"\0" + struct.pack(">I", len(message)) + message)
    )


def _text_field(value: str) -> bytes:
    """Return the length and content of a string in a message (Protocol Buffers, "Length-Delimited Records")."""
    raw, length = value.encode(), bytearray()
    size = len(raw)
    while size >= 128:
        length.append(size % 128 + 128)
        size //= 128
    return bytes([*length, size]) + raw


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, str, bytes]:
    """Return the code and the message of the call's status, and the body."""
    headers: dict[str, str] = {}
    block, body, open_block, ended = b"", b"", False, False
    size = 0
    while not ended or open_block:
        kind, flags, stream, payload = await _read(reader)
        size += len(payload)
        if size > _LARGEST_ANSWER:
            raise _CallError("the answer is too large")
        if kind == _SETTINGS and not flags & _ACK:
            writer.write(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            writer.write(_frame(_PING, _ACK, 0, payload))
        elif kind == _GO_AWAY and (len(payload) < 4 or int.from_bytes(payload[:4]) & 0x7FFFFFFF < _STREAM):
            raise _CallError("the server refused the stream")
        elif stream == _STREAM and kind == _RESET:
            raise _CallError(f"stream terminated by RST_STREAM with error code: {int.from_bytes(payload[:4])}")
        elif stream == _STREAM and kind == _DATA:
            body += _unpadded(flags, payload)
            ended |= bool(flags & _END_STREAM)
        elif stream == _STREAM and kind in (_HEADERS, _CONTINUATION):
            if kind == _HEADERS:
                payload = _unpadded(flags, payload)
                block = payload[5:] if flags & _PRIORITY else payload
                ended |= bool(flags & _END_STREAM)
            else:
                block += payload
            open_block = not flags & _END_HEADERS
            if not open_block:
                headers |= dict(decode(block))
    if "grpc-status" not in headers:
        status = headers.get(":status", "")[:10]
        if status != "200":
            raise _CallError(f"unexpected HTTP status code received from server: {status}")
        raise _CallError("server closed the stream without sending trailers")
    code = headers["grpc-status"]
    if not is_digits(code) or len(code) > 3:
        raise _CallError("malformed grpc-status")
    return int(code), unquote(headers.get("grpc-message", "")), body


async def _read(reader: asyncio.StreamReader) -> tuple[int, int, int, bytes]:
    head = await reader.readexactly(9)
    length = int.from_bytes(head[:3])
    if length > _LARGEST_FRAME:
        raise _CallError("the frame is too large, or the server does not speak HTTP/2")
    return head[3], head[4], int.from_bytes(head[5:9]) & 0x7FFFFFFF, await reader.readexactly(length)


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise _CallError("the padding is longer than the frame")
    return payload[1 : len(payload) - payload[0]]


def _status(body: bytes) -> int:
    """Return the status of the answer's message, its field 1; 0, as in Protocol Buffers, where there is none."""
    message = body[5 : 5 + int.from_bytes(body[1:5])]
    return message[1] if len(message) >= 2 and message[0] == 8 else 0
