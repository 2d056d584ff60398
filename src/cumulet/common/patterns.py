"""Patterns in which `*` matches any run of characters, as in Azure's actions and repository names."""

from __future__ import annotations

import functools


def like(pattern: str, text: str) -> bool:
    """Return whether a pattern matches the whole text, with case. The time is linear for each part of the pattern."""
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
