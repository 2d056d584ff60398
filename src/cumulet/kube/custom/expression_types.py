"""Expression types of custom objects, from their schema (`apiserver/pkg/cel/common/schemas.go`, `escaping.go`).

A type has the bounds of the schema, or the limit of a request's size. The cost estimate of a rule uses them.
"""

from __future__ import annotations

import re

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.cel.lexer import RESERVED
from cumulet.kube.cel.types import BOOL, DYN, STRING, Type, list_of, map_of, object_type

Schema = Object

REQUEST = 3 * 1024 * 1024
_TEXT = REQUEST - 2
_KEYWORDS = RESERVED | {"true", "false", "null", "in"}
_NAME = re.compile(r"[a-zA-Z_./-][a-zA-Z0-9_./-]*", re.ASCII)
_PARTS = re.compile(r"__|[-./]")
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
#: Formats that expressions do not see as text: the kind, the most characters, and the minimum size in JSON.
_FORMATS = {"duration": ("duration", 32, 3), "date": ("timestamp", 12, 12), "date-time": ("timestamp", 32, 21)}


def escaped(name: str) -> str | None:
    """Return a field's name as an identifier, or `None` where it has none."""
    if name in _KEYWORDS:
        return f"__{name}__"
    if not _NAME.fullmatch(name):
        return None
    return _PARTS.sub(lambda match: _ESCAPES[match[0]], name)


def is_int_or_string(schema: Schema) -> bool:
    """Whether a value can be a number or a text."""
    return bool(schema.get("x-kubernetes-int-or-string"))


def declared(schema: Schema, *, is_resource: bool, path: str = "self") -> Type | None:
    """Return the type of a schema's values. `None` where expressions cannot use them."""
    if is_int_or_string(schema):
        most = schema["maxLength"] * 4 if _count(schema, "maxLength") is not None else _TEXT
        return Type(DYN.kind, most=most, least_size=1)
    match schema.get("type"):
        case "array":
            items = schema.get("items")
            found = _below(items, f"{path}.@idx")
            if found is None:
                return None
            most = _count(schema, "maxItems")
            return list_of(found, _TEXT // (found.least_size + 1) if most is None else most)
        case "object":
            return _object(schema, is_resource=is_resource, path=path)
        case "string":
            return _text(schema)
        case "boolean":
            return Type(BOOL.kind, least_size=4)
        case "number":
            return Type("double")
        case "integer":
            return Type("int")
    return None


def _count(schema: Schema, key: str) -> int | None:
    found = schema.get(key)
    return max(found, 0) if type(found) is int else None


def _below(schema: object, path: str) -> Type | None:
    if not isinstance(schema, dict):
        return None
    return declared(schema, is_resource=bool(schema.get("x-kubernetes-embedded-resource")), path=path)


def _object(schema: Schema, *, is_resource: bool, path: str) -> Type | None:
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        found = _below(others, f"{path}.@elem")
        if found is None:
            return None
        most = _count(schema, "maxProperties")
        return map_of(STRING, found, _TEXT // (found.least_size + 6) if most is None else most)
    fields: dict[str, Type] = {}
    required = set(schema.get("required") or ())
    least = 2
    for name, below in (schema.get("properties") or {}).items():
        kind = _below(below, f"{path}.{name}")
        if kind is None:
            continue
        if (identifier := escaped(name)) is not None:
            fields[identifier] = kind
        if name in required and below.get("default") is None:
            least += len(name.encode()) + kind.least_size + 4
    if is_resource:
        text = Type(STRING.kind, most=_TEXT, least_size=2)
        names = dict.fromkeys(("name", "generateName"), text)
        meta = fields.get("metadata")
        if meta is None or meta.kind != "object" or not {"name", "generateName"} <= (meta.fields or {}).keys():
            fields["metadata"] = object_type(f"{path}.metadata", {**((meta.fields or {}) if meta else {}), **names})
        fields |= {"kind": text, "apiVersion": text}
    return object_type(path, fields, least)


def _text(schema: Schema) -> Type:
    name, most = schema.get("format"), _count(schema, "maxLength")
    if name in _FORMATS:
        kind, length, least = _FORMATS[name]
        return Type(kind, most=length, least_size=least)
    if name == "byte":
        return Type("bytes", most=_TEXT if most is None else most, least_size=2)
    if most is not None:
        return Type("string", most=most * 4, least_size=2)
    if values := schema.get("enum"):
        return Type(
            "string", most=max((len(v.encode()) for v in values if isinstance(v, str)), default=0), least_size=2
        )
    return Type("string", most=_TEXT, least_size=2)
