"""The numbers in the header of a tar entry: octal (POSIX.1-2017 ustar), or base 256 (GNU, star) for what octal cannot hold."""

from __future__ import annotations

import re

_OCTAL = re.compile(rb"[0-7]*")


class TarError(Exception):
    """The archive is not valid, or uses an unsupported feature."""


def header_number(field: bytes, what: str) -> int:
    """Return the number of a field; an empty one is 0. `what` names it in the `TarError`."""
    if field[0] & 0x80:
        # The first bit marks the encoding, the second is the sign.
        bits = 8 * len(field) - 1
        number = int.from_bytes(field, "big") & ((1 << bits) - 1)
        return number - (1 << bits) if field[0] & 0x40 else number
    text = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not _OCTAL.fullmatch(text):
        raise TarError(f"the archive is not valid: the {what} {text[:40]!r} is not a number")
    return int(text, 8) if text else 0
