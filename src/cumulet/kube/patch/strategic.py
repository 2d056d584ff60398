"""Strategic merge patch: lists merge by the keys that the schema gives (sig-api-machinery, "strategic merge patch").

Directives: `$patch` (replace, delete, merge), `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>` and
`$retainKeys`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.schema.definitions import Definition, Field, definition

_DELETE_FROM = "$deleteFromPrimitiveList/"
_GO_KINDS: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}
_ORDER = "$setElementOrder/"


class StrategicPatchError(Exception):
    """The patch is invalid; with `is_upstreams`, upstream reports that as its own failure.

    `restored` is the reason where a field cannot have the patch's value.
    """

    def __init__(self, message: str, *, is_upstreams: bool = False, restored: str = "") -> None:
        super().__init__(message)
        self.is_upstreams = is_upstreams
        self.restored = restored


def strategic_merge(target: Object, patch: Object, group: str, version: str, kind: str) -> Object:
    """Return the patched `target`. Raises `StrategicPatchError`."""
    return _object(target, patch, definition(group, version, kind))
    return _object(target, patch, definition(group, version, kind))


def _object(target: Object, patch: Object, of: Definition | None) -> Object:
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        shown = " ".join(f"{key}:{patch[key]}" for key in sorted(patch))
        raise StrategicPatchError(f"unknown patch type: {directive} in map: map[{shown}]", is_upstreams=True)
    merged = dict(target)
    if (retained := patch.get("$retainKeys")) is not None:
        if not isinstance(retained, list) or any(
            key not in retained for key, value in patch.items() if not key.startswith("$") and value is not None
        ):
            raise StrategicPatchError("invalid patch format of retainKeys")
        merged = {key: value for key, value in merged.items() if key in retained}
    for key, value in patch.items():
        if key in ("$patch", "$retainKeys") or key.startswith(_ORDER):
            continue
        if key.startswith(_DELETE_FROM):
            name = key.removeprefix(_DELETE_FROM)
            gone = {_name(item, "") for item in value}
            merged[name] = [item for item in merged.get(name) or [] if _name(item, "") not in gone]
            continue
        field = of.fields.get(key) if of is not None else None
        if value is not None and field is not None:
            _check_shape(value, field)
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _map(merged.get(key), value, field)
        elif isinstance(value, list):
            merged[key] = _list(merged.get(key), value, field, patch.get(_ORDER + key))
        else:
            merged[key] = value
    for key, order in patch.items():
        # An order without a patch of its list still orders the list.
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(merged.get(name), list):
            field = of.fields.get(name) if of is not None else None
            merged[name] = _in_order(merged[name], order, merged[name], field.merge_key if field else "")
    return merged


def _check_shape(value: object, field: Field) -> None:
    is_list = isinstance(value, list)
    if field.type == "array" and not is_list:
        have = "map" if isinstance(value, dict) else _GO_KINDS.get(type(value), "string")
        raise StrategicPatchError("", restored=f"cannot restore slice from {have}")
    is_struct = field.type == "object" and field.item is not None and bool(field.item.fields)
    if (is_struct or field.type == "map") and not isinstance(value, dict):
        have = "slice" if is_list else _GO_KINDS.get(type(value), "string")
        what = "map" if field.type == "map" else "struct"
        raise StrategicPatchError("", restored=f"cannot restore {what} from {have}")


def _map(target: object, patch: Object, field: Field | None) -> Object:
    item = field.item if field is not None and field.type == "object" else None
    current = target if isinstance(target, dict) else {}
    if field is not None and field.type == "map" and field.item is not None:
        merged = dict(current)
        for key, value in patch.items():
            if value is None:
                merged.pop(key, None)
            else:
                merged[key] = _object(merged.get(key) or {}, value, field.item)
        return merged
    return _object(current, patch, item)


def _list(target: object, patch: list[object], field: Field | None, order: list[object] | None) -> list[object]:
    current = list(target) if isinstance(target, list) else []
    merges = field is not None and "merge" in field.patch_strategy.split(",")
    if field is None or not merges:
        return [item for item in patch if not _is_directive(item)]
    if not field.merge_key:
        merged = list({_name(item, ""): item for item in [*current, *patch]}.values())
        return _in_order(merged, patch if order is None else order, current, "")
    return _list_of_maps(current, patch, field, order)


def _list_of_maps(
    current: list[object], patch: list[object], field: Field, order: list[object] | None
) -> list[object]:
    key = field.merge_key
    if {"$patch": "replace"} in patch:
        return [item for item in patch if not _is_directive(item)]
    merged: dict[str | bytes, Any] = {_name(item, key): item for item in current}
    for item in patch:
        if not isinstance(item, dict):
            raise StrategicPatchError("list element types are not identical", is_upstreams=True)
        if key not in item:
            shown = " ".join(f"{name}:{item[name]}" for name in sorted(item))
            why = f"map: map[{shown}] does not contain declared merge key: {key}"
            raise StrategicPatchError(why, is_upstreams=True)
        name = _name(item, key)
        if item.get("$patch") == "delete":
            merged.pop(name, None)
        else:
            merged[name] = _object(merged.get(name) or {}, item, field.item)
    return _in_order(list(merged.values()), patch if order is None else order, current, key)


def _name(item: object, key: str) -> str | bytes:
    """Return the identity of an element: its merge key, or its whole value."""
    name = item.get(key) if key and isinstance(item, dict) else item
    return name if isinstance(name, str) else msgspec.json.encode(name, order="sorted")


def _in_order(items: list[object], order: list[object], before: list[object], key: str) -> list[object]:
    """Return the items with those of `order` in its order, between the others in their old order; new ones early."""
    wanted = {_name(item, key): index for index, item in enumerate(order)}
    places = {_name(item, key): index for index, item in enumerate(before)}
    named = [item for item in items if _name(item, key) in wanted]
    named.sort(key=lambda item: wanted[_name(item, key)])
    others = [item for item in items if _name(item, key) not in wanted]
    result: list[object] = []
    one = other = 0
    while one < len(others) and other < len(named):
        left, right = places.get(_name(others[one], key)), places.get(_name(named[other], key))
        if left is not None and right is not None and left < right:
            result.append(others[one])
            one += 1
        else:
            result.append(named[other])
            other += 1
    return result + named[other:] + others[one:]


def _is_directive(item: object) -> bool:
    return isinstance(item, dict) and "$patch" in item and len(item) == 1
