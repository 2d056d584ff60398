"""Messages to the kernel by netlink, each with its acknowledgement (netlink(7), rtnetlink(7)).

A connection belongs to the network namespace in which it was made (`common.namespaces`).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

#: Families of netlink.
ROUTE, NETFILTER = 0, 12

#: Flags of a message: `NLM_F_REQUEST | NLM_F_ACK`, and those of one that creates something, new or in place of another.
_ACKNOWLEDGED = 0x1 | 0x4
CREATE, EXCLUSIVE, REPLACE = 0x400, 0x200, 0x100

_ERROR = 2
#: The flag of an attribute that consists of attributes.
_NESTED = 0x8000
#: `nlmsghdr`, `nlattr`, and the code of `nlmsgerr`.
_HEAD, _ATTRIBUTE, _CODE = struct.Struct("=IHHII"), struct.Struct("=HH"), struct.Struct("=i")


class Netlink:
    """A connection of one family, a context manager. Raises `OSError`."""

    def __init__(self, family: int = ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, family)
        self._number = 0

    def __enter__(self) -> Netlink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self, kind: int, content: bytes, flags: int = 0) -> None:
        """Send a message of that type, and wait until the kernel has done it. Raises `OSError` with the kernel's reason."""
        self._number += 1
        head = _HEAD.pack(_HEAD.size + len(content), kind, _ACKNOWLEDGED | flags, self._number, 0)
        self._socket.send(head + content)
        while (code := _acknowledged(self._socket.recv(65536), self._number)) is None:
            continue
        if code:
            raise OSError(-code, os.strerror(-code))


def attribute(kind: int, value: bytes) -> bytes:
    """Return an attribute with its padding."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute of attributes."""
    return attribute(kind | _NESTED, b"".join(attributes))


def text(kind: int, value: str) -> bytes:
    """Return an attribute of text, which ends with a zero."""
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    """Return an attribute of 32 bits."""
    return attribute(kind, struct.pack("=I", value))


def messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the type, the number and the content of each message in a datagram."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, kind, _, sequence, _ = _HEAD.unpack_from(data, at)
        yield kind, sequence, data[at + _HEAD.size : at + length]
        at += max((length + 3) & ~3, _HEAD.size)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the value of each attribute."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & ~_NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)


def _acknowledged(data: bytes, sequence: int) -> int | None:
    """Return the code of the acknowledgement of a message, 0 for success, if it is in the datagram."""
    for kind, of, content in messages(data):
        if kind == _ERROR and of == sequence:
            code: int = _CODE.unpack_from(content)[0]
            return code
    return None
