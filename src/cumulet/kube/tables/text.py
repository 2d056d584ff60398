"""How selectors and lists are written in the cells of tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def selector_text(selector: dict[str, Any] | None) -> str:
    """A label selector, or a plain map of labels, as one line."""
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
    """Comma-separated."""
    return ",".join(items)
