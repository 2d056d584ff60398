"""Setting of missing fields."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def default(target: Object, **values: Any) -> None:
    """Set the fields that are missing."""
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value
