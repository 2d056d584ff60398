"""Functions for the cells of many kinds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age

#: The value of a cell: a string, an integer or a boolean, as the type of its column; `None` for an absent time.
Cell = str | int | None
Cells = Callable[[Object, datetime], list[Cell]]

NONE = "<none>"


def name_of(obj: Object) -> str:
    """Return the name."""
    name: str = obj["metadata"]["name"]
    return name


def age_of(obj: Object, now: datetime) -> str:
    """Return the age."""
    return age(obj["metadata"].get("creationTimestamp"), now)


def spec_of(obj: Object) -> Any:
    """Return the spec, or an empty one; its type is that of the kind's spec."""
    return obj.get("spec") or {}


def status_of(obj: Object) -> Any:
    """Return the status, or an empty one; its type is that of the kind's status."""
    return obj.get("status") or {}


def few(items: list[str]) -> str:
    """Return the first three items, and the number of the others."""
    if not items:
        return NONE
    more = f" + {len(items) - 3} more..." if len(items) > 3 else ""
    return ",".join(items[:3]) + more
