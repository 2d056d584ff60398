"""Values of HTTP headers as text."""

from __future__ import annotations


def readable(text: str) -> str:
    """The value of a header, without bytes that are no text."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="replace")
