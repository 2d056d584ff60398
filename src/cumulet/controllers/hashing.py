"""Short names for templates (upstream: FNV-1a of the dump of an object, in letters that form no words)."""

from __future__ import annotations

import msgspec

_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def name_of(content: object, collisions: int = 0) -> str:
    """A name for JSON content. Each number of `collisions` gives another name for the same content."""
    value = 0x811C9DC5
    text = msgspec.json.encode(content, order="deterministic") + (str(collisions).encode() if collisions else b"")
    for byte in text:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return "".join(_ALPHABET[ord(digit) % len(_ALPHABET)] for digit in str(value))
