"""Validation of a definition's printer columns and selectable fields (`apiextensions/validation/validation.go`)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.validation.field_errors import duplicate, invalid, required

_TYPES = ("boolean", "date", "integer", "number", "string")
_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_SELECTABLE = ("string", "boolean", "integer")
_NOT_SELECTABLE = "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."


def columns(items: list[Object] | None, field: str) -> Iterator[Cause]:
    """Yield the errors of printer columns.

    Upstream checks no more of a path than its start, and a column with an invalid path shows no value.
    """
    for index, column in enumerate(items or ()):
        where = f"{field}[{index}]"
        if not column.get("name"):
            yield required(f"{where}.name")
        kinds = f"must be one of {','.join(_TYPES)}"
        if not column.get("type"):
            yield required(f"{where}.type", kinds)
        elif column["type"] not in _TYPES:
            yield invalid(f"{where}.type", column["type"], kinds)
        if column.get("format") and column["format"] not in _FORMATS:
            yield invalid(f"{where}.format", column["format"], f"must be one of {','.join(_FORMATS)}")
        path = column.get("jsonPath", "")
        if not path:
            yield required(f"{where}.JSONPath")
        elif not path.startswith("."):
            yield invalid(f"{where}.JSONPath", path, "must be a simple json path starting with .")


def selectable(items: list[Object] | None, field: str, schema: object) -> Iterator[Cause]:
    """Yield the errors of selectable fields: each must be a plain value in the schema of its version."""
    seen: set[str] = set()
    for index, item in enumerate(items or ()):
        where, path = f"{field}[{index}].jsonPath", item.get("jsonPath", "")
        if not path:
            yield required(where)
        elif reason := _unreadable(path):
            yield invalid(where, path, f"is an invalid path: {reason}")
        elif (below := _below(schema, path[1:].split("."))) is None:
            yield invalid(where, path, "is an invalid path: does not refer to a valid field")
        elif below.get("type") not in _SELECTABLE:
            yield invalid(where, path, _NOT_SELECTABLE)
        if path in seen:
            yield duplicate(where, path)
        seen.add(path)


def _unreadable(path: str) -> str:
    if path[0] not in ".[":
        return f"expected [ or . but got: {re.match(r'[$@]|[^.[]+', path)[0]}"  # type: ignore[index]
    if re.search(r"(^|[^.])\[", path):
        return "array notation is not allowed"
    return "unexpected end of JSON path" if path.endswith(".") else ""


def _below(schema: object, names: list[str]) -> Object | None:
    """Return the schema of a field, or `None`; fields that every object has are excluded."""
    for depth, name in enumerate(names):
        if not isinstance(schema, dict) or (depth == 0 and name in ("apiVersion", "kind", "metadata")):
            return None
        others = schema.get("additionalProperties")
        schema = (schema.get("properties") or {}).get(name, others if isinstance(others, dict) else None)
    return schema if isinstance(schema, dict) else None
