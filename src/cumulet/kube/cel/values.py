"""The libraries of lists, sets, numbers and texts (`cel/library/lists.go`, `regex.go`; cel-go's `ext`)."""

from __future__ import annotations

import base64
import itertools
import math
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from cumulet.common.ascii import fold, raised
from cumulet.kube import regexp

SETS, MATH, BASE64, JSON_PATCH = "k8s.io/sets", "k8s.io/math", "k8s.io/base64", "k8s.io/jsonpatch"
#: Digits that a text may be asked to have; each is memory.
_PRECISION = 1000
_FORM = re.compile(r"%(?:\.(\d+))?([sdfebxXo%])", re.ASCII)


def _find(text: str, pattern: str) -> str:
    return next(regexp.find(pattern, text), "")


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = regexp.find(pattern, text)
    return list(found if limit < 0 else itertools.islice(found, limit))


def _index_of(where: Any, what: Any, start: int = 0) -> int:
    if isinstance(where, str):
        return where.find(what, start)
    return where.index(what) if what in where else -1


def _last_index_of(where: Any, what: Any) -> int:
    if isinstance(where, str):
        return where.rfind(what)
    return len(where) - 1 - where[::-1].index(what) if what in where else -1


def _contains(where: Any, *what: Any) -> bool:
    """Of texts, and `sets.contains`."""
    if where == SETS:
        outer, inner = what
        return all(item in outer for item in inner)
    return what[0] in where


def _equivalent(_: str, one: list[Any], other: list[Any]) -> bool:
    return all(item in other for item in one) and all(item in one for item in other)


def _sum(items: list[Any]) -> Any:
    return sum(items, timedelta()) if items and isinstance(items[0], timedelta) else sum(items)


def _numbers(arguments: tuple[Any, ...]) -> list[Any]:
    """Of `math.greatest`, which takes several or a list."""
    rest = arguments[1:]
    return rest[0] if len(rest) == 1 and isinstance(rest[0], list) else list(rest)


def _format(text: str, values: list[Any]) -> str:
    """Raises `ValueError` where there are too few values, `TypeError` where one has another type."""
    rest = iter(values)

    def written(match: re.Match[str]) -> str:
        precision, form = match[1], match[2]
        if precision and (len(precision) > 4 or int(precision) > _PRECISION):
            raise ValueError(f"format: a precision may be {_PRECISION} at most")
        if form == "%":
            return "%"
        try:
            value: Any = next(rest)
        except StopIteration:
            raise ValueError("format: index out of range") from None
        match form:
            case "s":
                return _text(value)
            case "f" | "e":
                return f"{float(value):.{precision or 6}{form}}"
            case "d":
                return f"{value:d}"
            case "b":
                return f"{int(value):b}"
        if isinstance(value, str | bytes):
            shown = (value.encode() if isinstance(value, str) else value).hex()
            return raised(shown) if form == "X" else shown
        return f"{value:{form}}"

    return _FORM.sub(written, text)


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case list():
            return f"[{', '.join(_text(item) for item in value)}]"
        case dict():
            return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in sorted(value.items())) + "}"
        case timedelta():
            return f"{value.total_seconds():g}s"
    return str(value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sum": _sum,
    "min": min,
    "max": max,
    "isSorted": lambda items: all(one <= other for one, other in itertools.pairwise(items)),
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "find": _find,
    "findAll": _find_all,
    "lowerAscii": fold,
    "upperAscii": raised,
    "replace": lambda text, old, new, count=-1: text.replace(old, new, count),
    "split": lambda text, by, limit=-1: text.split(by, limit - 1 if limit > 0 else -1),
    "join": lambda items, by="": by.join(items),
    "substring": lambda text, start, end=None: text[start:end],
    "trim": lambda text: text.strip(),
    "charAt": lambda text, index: text[index : index + 1],
    "reverse": lambda value: value[::-1],
    "format": _format,
    "contains": _contains,
    "equivalent": _equivalent,
    "intersects": lambda _, one, other: any(item in other for item in one),
    "greatest": lambda *arguments: max(_numbers(arguments)),
    "least": lambda *arguments: min(_numbers(arguments)),
    "abs": lambda _, value: abs(value),
    "ceil": lambda _, value: float(math.ceil(value)),
    "floor": lambda _, value: float(math.floor(value)),
    "round": lambda _, value: float(math.floor(abs(value) + 0.5)) * (1 if value >= 0 else -1),
    "trunc": lambda _, value: float(math.trunc(value)),
    "escapeKey": lambda _, key: key.replace("~", "~0").replace("/", "~1"),
    "encode": lambda _, value: base64.b64encode(value).decode(),
    "decode": lambda _, text: base64.b64decode(text + "=" * (-len(text) % 4)),
}
