"""The text of selectors and lists in the cells of tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """Return a label selector, or a plain map of labels, in one line."""
    if not selector:
        return "<none>"
    if "matchLabels" not in selector and "matchExpressions" not in selector:
        return ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement["key"], ",".join(requirement.get("values") or ())
        match requirement["operator"]:
            case "In":
                parts.append(f"{key} in ({values})")
            case "NotIn":
                parts.append(f"{key} notin ({values})")
            case "Exists":
                parts.append(key)
            case "DoesNotExist":
                parts.append(f"!{key}")
    return ",".join(parts) or "<none>"


def join(items: Iterable[str]) -> str:
    """Join items with commas."""
    return ",".join(items)
