"""Patterns in which `*` is any run of characters, as Azure writes actions and repositories."""

from __future__ import annotations

import functools


def like(pattern: str, text: str) -> bool:
    """Whether `text` is the pattern's parts with anything between them.

    With case; in a time that a hostile pattern cannot blow up.
    """
    parts = _parts(pattern)
    if len(parts) == 1:
        return text == parts[0]
    first, *between, last = parts
    at, end = len(first), len(text) - len(last)
    if end < at or not text.startswith(first) or not text.endswith(last):
        return False
    for part in between:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@functools.lru_cache(maxsize=1024)
def _parts(pattern: str) -> tuple[str, ...]:
    return tuple(pattern.split("*"))
