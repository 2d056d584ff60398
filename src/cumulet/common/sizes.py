"""Numbers of bytes for people."""

from __future__ import annotations

_UNITS = ("kB", "MB", "GB")


def human_size(size: int) -> str:
    """Return a number of bytes in decimal units and three digits, as docker does: `12.3MB`."""
    value, unit = float(size), "B"
    for larger in _UNITS:
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g}{unit}" if value < 1000 else f"{value:.0f}{unit}"
