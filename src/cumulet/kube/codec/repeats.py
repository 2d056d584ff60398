"""Fields that a text of JSON has more than once: the last of them is taken, and its writer is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec


class _Repeated(dict[str, Any]):
    """An object, and which of its fields were written again."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.again = list(dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]


def repeated(raw: bytes, document: dict[str, Any]) -> list[str]:
    """What is to be said of it."""
    # Every name and text has two quotation marks: as many as before means that none was lost.
    if raw.count(b'"') == msgspec.json.encode(document).count(b'"'):
        return []
    try:
        found = json.loads(raw, object_pairs_hook=_Repeated)
    except (ValueError, RecursionError):
        return []
    return [f'duplicate field "{path}"' for path in _paths(found, "")]


def _paths(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Repeated):
        for name in value.again:
            yield f"{path}.{name}" if path else name
        for name, item in value.items():
            yield from _paths(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]")
