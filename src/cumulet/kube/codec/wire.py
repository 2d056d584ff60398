"""Protocol Buffers' wire format ("Encoding" of the language guide), for the types of value that the messages here use."""

from __future__ import annotations

import struct


def number(field: int, value: int) -> bytes:
    """Return a field with an integer or a boolean. A negative one takes ten bytes, as `int32` and `int64` do."""
    return varint(field << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def delimited(field: int, value: bytes) -> bytes:
    """Return a field with a text, bytes or a message, prefixed with its length."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def double(field: int, value: float) -> bytes:
    """Return a field with a floating-point number."""
    return varint(field << 3 | 1) + struct.pack("<d", value)


def varint(value: int) -> bytes:
    """Return an integer of variable width: seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
