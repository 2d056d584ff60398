"""Checks that an applied configuration fits its schema, with the messages of structured-merge-diff."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.definitions import Definition, Field

_WANTED: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "string"),
    "integer": ((int, float), "numeric (int or float)"),
    "number": ((int, float), "numeric (int or float)"),
    "boolean": ((bool,), "boolean"),
    "array": ((list,), "list"),
    "map": ((dict,), "map"),
    "object": ((dict,), "map"),
}
_KINDS: dict[type, str] = {str: "string", bool: "boolean", int: "int", float: "float", list: "list", dict: "map"}
#: Keys of lists that the schema defaults.
_KEY_DEFAULTS = {"protocol": "TCP"}


def misfit(config: Object, of: Definition | None) -> str:
    """Return the errors of a configuration, or an empty string."""
    texts = list(_object(config, of, "")) if of is not None else []
    if len(texts) > 1:
        return "errors:\n" + "\n".join(f"  {text}" for text in texts)
    return texts[0] if texts else ""


def _object(value: Object, of: Definition, path: str) -> Iterator[str]:
    for name in sorted(value):
        field = of.fields.get(name)
        if field is None:
            yield f"{path}.{name}: field not declared in schema"
        elif value[name] is not None:
            yield from _field(value[name], field, f"{path}.{name}")


def _field(value: object, field: Field, path: str) -> Iterator[str]:
    wanted = _WANTED.get(field.type)
    if wanted is None or (field.type == "object" and (field.item is None or not field.item.fields)):
        return
    if field.type == "string" and field.go_type not in ("string", ""):
        return
    types, label = wanted
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        yield f"{path}: expected {label}, got {_KINDS.get(type(value), 'null')}"
    elif field.item is not None and isinstance(value, list):
        yield from _list(value, field, field.item, path)
    elif field.item is not None and isinstance(value, dict):
        if field.type == "object":
            yield from _object(value, field.item, path)
            return
        for key in sorted(value):
            if isinstance(value[key], dict):
                yield from _object(value[key], field.item, f"{path}.{key}")


def _list(items: list[object], field: Field, of: Definition, path: str) -> Iterator[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        place = str(index)
        if field.list_type == "map":
            keys = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(field.map_keys)}
            place = ",".join(f"{key}={msgspec.json.encode(keys[key]).decode()}" for key in keys)
            if place in seen and None not in keys.values():
                yield f"{path}: duplicate entries for key [{place}]"
                continue
            seen.add(place)
        yield from _object(item, of, f"{path}[{place}]")
