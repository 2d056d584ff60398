"""Filling in what is not there."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def default(target: Object, **values: Any) -> None:
    """Set what is not set."""
    for key, value in values.items():
        if target.get(key) is None:
            target[key] = value
