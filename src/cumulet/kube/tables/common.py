"""What the lines of many kinds have in common."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cumulet.kube.apimachinery.duration import age

Object = dict[str, Any]
Cells = Callable[[Object, datetime], list[Any]]

NONE = "<none>"


def name_of(obj: Object) -> str:
    """The name."""
    name: str = obj["metadata"]["name"]
    return name


def age_of(obj: Object, now: datetime) -> str:
    """How old it is."""
    return age(obj["metadata"].get("creationTimestamp"), now)


def spec_of(obj: Object) -> Object:
    """What is wanted."""
    return obj.get("spec") or {}


def status_of(obj: Object) -> Object:
    """What is."""
    return obj.get("status") or {}


def few(items: list[str]) -> str:
    """The first three, and how many there are more."""
    if not items:
        return NONE
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more
