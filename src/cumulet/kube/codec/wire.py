"""Protocol Buffers' wire format ("Encoding" of the language guide): the kinds of value that the messages here use."""

from __future__ import annotations

import struct


def number(field: int, value: int) -> bytes:
    """A field that holds an integer or a boolean; a negative one takes ten bytes, as `int32` and `int64` do."""
    return varint(field << 3) + varint(value & 0xFFFF_FFFF_FFFF_FFFF)


def delimited(field: int, value: bytes) -> bytes:
    """A field that holds a text, bytes or a message, with its length before it."""
    return varint(field << 3 | 2) + varint(len(value)) + value


def double(field: int, value: float) -> bytes:
    """A field that holds a number with a fraction."""
    return varint(field << 3 | 1) + struct.pack("<d", value)


def varint(value: int) -> bytes:
    """A number of no fixed width, seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
