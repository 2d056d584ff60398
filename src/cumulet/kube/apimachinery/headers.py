"""Values of HTTP headers as text."""

from __future__ import annotations


def readable(text: str) -> str:
    """Return a header's value as text; invalid bytes become replacement characters."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="replace")
