"""Custom objects as expressions see them (`apiextensions-apiserver`, `schema/cel/values.go`).

Names that are not identifiers are escaped, and texts with a format are parsed. Numbers have their schema's type. Lists
that are sets or maps are compared and joined as such.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.cel import CelError
from cumulet.kube.cel.times import Duration, Timestamp
from cumulet.kube.cel.values import MapList, SetList, Value
from cumulet.kube.custom.expression_types import escaped

Schema = Object
#: Converts a value of JSON for expressions.
View = Callable[[Value], Value]


def view(schema: object) -> View | None:
    """Return the conversion of a schema's values for expressions, or `None` where none is needed."""
    if not isinstance(schema, dict) or schema.get("x-kubernetes-int-or-string"):
        return None
    match schema.get("type"):
        case "integer":
            return lambda value: int(value) if isinstance(value, float) and value.is_integer() else value
        case "number":
            return lambda value: float(value) if type(value) is int else value
        case "string":
            return _TEXTS.get(schema.get("format", ""))
        case "array":
            return _list(schema)
        case "object":
            return _object(schema)
    return None


def _tried(parse: Callable[[str], Value]) -> View:
    """Keep a text that does not parse: its schema rejects it."""

    def made(value: Value) -> Value:
        if not isinstance(value, str):
            return value
        try:
            return parse(value)
        except (CelError, ValueError):
            return value

    return made


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("no base64") from None


_TEXTS: dict[str, View] = {
    "byte": _tried(_bytes),
    "date": _tried(Timestamp.of_date),
    "date-time": _tried(Timestamp.parse),
    "duration": _tried(Duration.parse),
}


def _list(schema: Schema) -> View | None:
    item = view(schema.get("items"))
    kind, keys = schema.get("x-kubernetes-list-type"), tuple(schema.get("x-kubernetes-list-map-keys") or ())
    wrap: Callable[[list[Value]], list[Value]] | None = None
    if kind == "set":
        wrap = SetList
    elif kind == "map" and keys:
        wrap = lambda items: MapList(items, tuple(escaped(key) or key for key in keys))  # noqa: E731
    if item is None and wrap is None:
        return None

    def made(value: Value) -> Value:
        if not isinstance(value, list):
            return value
        items = value if item is None else [item(one) for one in value]
        return items if wrap is None else wrap(items)

    return made


def _object(schema: Schema) -> View | None:
    properties = schema.get("properties") or {}
    if isinstance(others := schema.get("additionalProperties"), dict):
        other = view(others)
        if other is None:
            return None
        return lambda value: {key: other(item) for key, item in value.items()} if isinstance(value, dict) else value
    changed: dict[str, tuple[str, View | None]] = {}
    for name, below in properties.items():
        shown, found = escaped(name) or name, view(below)
        if shown != name or found is not None:
            changed[name] = shown, found
    if not changed:
        return None

    def made(value: Value) -> Value:
        if not isinstance(value, dict):
            return value
        found = {}
        for key, item in value.items():
            shown, change = changed.get(key, (key, None))
            found[shown] = item if change is None else change(item)
        return found

    return made
