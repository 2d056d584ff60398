"""Pruning, defaulting and validation by structural schemas (KEP "Structural schemas", OpenAPI v3 keywords)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator

import msgspec

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery import name_formats, regexp, string_formats
from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.apimachinery.status import Cause
from cumulet.kube.schema.definitions import definition

Schema = Object

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_EMBEDDED = "x-kubernetes-embedded-resource"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_META = ("apiVersion", "kind", "metadata")
_CAUSES = 100
#: An old value that is absent or unknown.
_NONE: object = object()
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
    "array": (list,),
    "object": (dict,),
}
_NAMES: dict[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def prune(obj: Object, schema: Schema) -> list[str]:
    """Remove unknown fields and nulls that are not allowed, in place."""
    unknown: list[str] = []
    _prune(obj, schema, "", unknown, top=True)
    return unknown


def _prune(value: Json, schema: Schema | None, path: str, unknown: list[str], *, top: bool = False) -> None:
    """Without a schema, every field is unknown. Where unknown fields are preserved, the known fields below are still pruned."""
    keeps = schema is not None and bool(schema.get(_PRESERVE))
    if isinstance(value, list):
        items = _schema_of(schema, "items")
        for index, item in enumerate(value):
            where = f"{path}[{index}]"
            if keeps:
                _prune_kept(item, items, where, unknown)
            else:
                _prune(item, items, where, unknown)
        return
    if not isinstance(value, dict):
        return
    properties = (schema or {}).get("properties") or {}
    others = (schema or {}).get("additionalProperties")
    is_resource = top or bool((schema or {}).get(_EMBEDDED))
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if is_resource and key in _META:
            if not top and key == "metadata":
                prune_metadata(value[key], where, unknown)
            continue
        if key in properties:
            below = properties[key]
            if value[key] is None and not below.get("nullable"):
                # A null that is not allowed is absent, so that a default can replace it.
                del value[key]
            else:
                _prune(value[key], below, where, unknown)
        elif others:
            _prune(value[key], others if isinstance(others, dict) else None, where, unknown)
        elif not keeps:
            unknown.append(f'unknown field "{where}"')
            del value[key]


def _prune_kept(value: Json, schema: Schema | None, path: str, unknown: list[str]) -> None:
    """Prune the elements of a list whose unknown fields are preserved (`pruning.skipPrune`)."""
    if schema is not None:
        _prune(value, {**schema, _PRESERVE: True}, path, unknown)


def _schema_of(schema: Schema | None, key: str) -> Schema | None:
    found = (schema or {}).get(key)
    return found if isinstance(found, dict) else None


def prune_metadata(metadata: Json, path: str, unknown: list[str]) -> None:
    """Remove unknown fields of metadata, in place (`schema/objectmeta`, `Coerce`)."""
    found = definition("", "v1", "ObjectMeta")
    if not isinstance(metadata, dict) or found is None:
        return
    for key in [key for key in metadata if key not in found.fields]:
        unknown.append(f'unknown field "{path}.{key}"')
        del metadata[key]


def set_defaults(value: Json, schema: Schema) -> bool:
    """Set defaults, in place. Returns whether any was set."""
    changed = False
    if isinstance(value, list):
        items = schema.get("items") or {}
        for item in value:
            changed |= set_defaults(item, items)
    elif isinstance(value, dict):
        properties = schema.get("properties") or {}
        for key, below in properties.items():
            if key not in value and "default" in below:
                value[key] = copy.deepcopy(below["default"])
                changed = True
            if key in value:
                changed |= set_defaults(value[key], below)
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            for key, item in value.items():
                if key not in properties:
                    changed |= set_defaults(item, others)
    return changed


def has_defaults(schema: Schema) -> bool:
    """Whether a schema has a default anywhere."""
    below = [*(schema.get("properties") or {}).values(), schema.get("additionalProperties"), schema.get("items")]
    return "default" in schema or any(has_defaults(part) for part in below if isinstance(part, dict))


def check_default(schema: Schema, path: str) -> list[Cause]:
    """Return the errors in the default of a schema, which must be valid itself (`defaulting/validation.go`)."""
    default = schema["default"]
    pruned = copy.deepcopy(default)
    unknown: list[str] = []
    _prune(pruned, schema, "", unknown)
    if pruned != default:
        why = "must not have unknown fields"
        return [Cause(path, "FieldValueInvalid", f"Invalid value: {_shown(default)}: {why}")]
    return list(itertools.islice(_validate(default, schema, path, _NONE), _CAUSES))


def validate(obj: Object, schema: Schema, old: Object | None = None) -> list[Cause]:
    """Return at most a hundred violations of the schema. In an update, unchanged values are skipped."""
    causes: list[Cause] = []
    for cause in _validate(obj, schema, "", _NONE if old is None else old, top=True):
        causes.append(cause)
        if len(causes) >= _CAUSES:
            break
    return causes


def _validate(value: Json, schema: Schema, path: str, old: object, *, top: bool = False) -> Iterator[Cause]:
    """Validate a value against its old value, if that is known. Unchanged values are skipped."""
    if (value is None and schema.get("nullable")) or (type(value) is type(old) and value == old):
        return
    kind = schema.get("type")
    if schema.get(_INT_OR_STRING):
        if type(value) not in (int, str):
            yield _wrong_type(path, "integer,string", value)
            return
    elif kind and not _is(value, kind):
        yield _wrong_type(path, kind, value)
        return
    if "enum" in schema and value not in schema["enum"]:
        shown = ", ".join(_shown(item) for item in schema["enum"])
        message = f"Unsupported value: {_shown(value)}: supported values: {shown}"
        yield Cause(path, "FieldValueNotSupported", message)
    if isinstance(value, str):
        yield from _string(value, schema, path)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number(value, schema, path)
    elif isinstance(value, list):
        yield from _list(value, schema, path, old)
    elif isinstance(value, dict):
        yield from _object(value, schema, path, old, top=top)
    yield from _combined(value, schema, path)


def _is(value: Json, kind: str) -> bool:
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return type(value) in _TYPES.get(kind, (type(value),))


def _wrong_type(path: str, kind: str, value: Json) -> Cause:
    seen = _NAMES.get(type(value), "object")
    return Cause(
        path, "FieldValueTypeInvalid", f'Invalid value: "{seen}": {path} in body must be of type {kind}: "{seen}"'
    )


def _string(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    if (most := schema.get("maxLength")) is not None and len(value) > most:
        yield Cause(path, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")
    if (least := schema.get("minLength")) is not None and len(value) < least:
        yield _invalid(path, value, f"should be at least {least} chars long")
    if pattern := schema.get("pattern"):
        try:
            is_found = regexp.is_found(pattern, value)
        except regexp.PatternError as error:  # another version accepted the definition
            is_found, pattern = False, f"{pattern}, but pattern is invalid: {error}"
        if not is_found:
            yield _invalid(path, value, f"should match '{pattern}'")

    name = schema.get("format")
    if isinstance(name, str) and schema.get("type") in (None, "string") and not string_formats.fits(name, value):
        yield _invalid(path, value, f"must be of type {name}: {_shown(value)}")


def _number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    if (least := schema.get("minimum")) is not None:
        if schema.get("exclusiveMinimum") and value <= least:
            yield _invalid(path, value, f"should be greater than {least}")
        elif value < least:
            yield _invalid(path, value, f"should be greater than or equal to {least}")
    if (most := schema.get("maximum")) is not None:
        if schema.get("exclusiveMaximum") and value >= most:
            yield _invalid(path, value, f"should be less than {most}")
        elif value > most:
            yield _invalid(path, value, f"should be less than or equal to {most}")
    if (step := schema.get("multipleOf")) and not _is_multiple(value, step):
        yield _invalid(path, value, f"should be a multiple of {step}")


def _is_multiple(value: float, step: float) -> bool:
    """Whether a number is a multiple, as closely as floating-point numbers allow (`validate.MultipleOf`)."""
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        times = value / step if step >= 1 else 1 / step * value
    except OverflowError:
        return False
    return math.isfinite(times) and math.isclose(times, round(times), rel_tol=1e-9)


def _list(value: list[Json], schema: Schema, path: str, old: object) -> Iterator[Cause]:
    if (most := schema.get("maxItems")) is not None and len(value) > most:
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if (least := schema.get("minItems")) is not None and len(value) < least:
        yield _invalid(path, len(value), f"should have at least {least} items")
    items = schema.get("items") or {}
    keys = schema.get("x-kubernetes-list-map-keys")
    before = _by_keys(old, keys) if keys and isinstance(old, list) else {}
    for index, item in enumerate(value):
        earlier = before.get(_own(item, keys), _NONE) if before else _NONE
        yield from _validate(item, items, f"{path}[{index}]", earlier)
    if keys or schema.get("x-kubernetes-list-type") == "set":
        seen: set[bytes] = set()
        for index, item in enumerate(value):
            own = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
            encoded = _own(item, keys)
            if encoded in seen:
                yield Cause(f"{path}[{index}]", "FieldValueDuplicate", f"Duplicate value: {_shown(own)}")
            seen.add(encoded)


def _own(item: Json, keys: list[str] | None) -> bytes:
    """Return the key of a list element."""
    own = {key: item.get(key) for key in keys} if keys and isinstance(item, dict) else item
    return msgspec.json.encode(own, order="sorted")


def _by_keys(items: list[Json], keys: list[str] | None) -> dict[bytes, Json]:
    return {_own(item, keys): item for item in reversed(items)}


def _object(value: dict[str, Json], schema: Schema, path: str, old: object, *, top: bool) -> Iterator[Cause]:
    prefix = f"{path}." if path else ""
    before = old if isinstance(old, dict) else {}
    if schema.get(_EMBEDDED):
        yield from _resource(value, prefix)
    for key in schema.get("required") or ():
        if key not in value and not (top and key in _META):
            yield Cause(prefix + key, "FieldValueRequired", "Required value")
    if (most := schema.get("maxProperties")) is not None and len(value) > most:
        yield Cause(path, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if (least := schema.get("minProperties")) is not None and len(value) < least:
        yield _invalid(path, len(value), f"should have at least {least} properties")
    properties = schema.get("properties") or {}
    others = schema.get("additionalProperties")
    for key, item in value.items():
        if top and key in _META:
            continue
        if key in properties:
            yield from _validate(item, properties[key], prefix + key, before.get(key, _NONE))
        elif isinstance(others, dict):
            yield from _validate(item, others, prefix + key, before.get(key, _NONE))


def _resource(value: dict[str, Json], prefix: str) -> Iterator[Cause]:
    """Validate a resource inside another (`schema/objectmeta/validation.go`)."""
    for key in ("apiVersion", "kind"):
        found = value.get(key)
        if key not in value:
            yield Cause(prefix + key, "FieldValueRequired", "Required value")
        elif not isinstance(found, str):
            yield Cause(prefix + key, "FieldValueInvalid", f"Invalid value: {_shown(found)}: must be a string")
        elif not found:
            yield Cause(prefix + key, "FieldValueInvalid", 'Invalid value: "": must not be empty')
        elif key == "kind" and (faults := name_formats.dns_1035(fold(found))):
            why = f"may have mixed case, but should otherwise match: {','.join(faults)}"
            yield Cause(prefix + key, "FieldValueInvalid", f"Invalid value: {_shown(found)}: {why}")
        elif key == "apiVersion" and found.count("/") > 1:
            why = f"unexpected GroupVersion string: {found}"
            yield Cause(prefix + key, "FieldValueInvalid", f"Invalid value: {_shown(found)}: {why}")
    if "metadata" in value:
        metadata = value["metadata"]
        if not isinstance(metadata, dict):
            yield Cause(
                f"{prefix}metadata", "FieldValueInvalid", f"Invalid value: {_shown(metadata)}: must be an object"
            )
            return
        name = metadata.get("name")
        if isinstance(name, str) and name and (faults := name_formats.path_segment(name)):
            shown = f"Invalid value: {_shown(name)}: {faults[0]}"
            yield Cause(f"{prefix}metadata.name", "FieldValueInvalid", shown)


def _combined(value: Json, schema: Schema, path: str) -> Iterator[Cause]:
    for part in schema.get("allOf") or ():
        yield from _validate(value, part, path, _NONE)
    if (parts := schema.get("anyOf")) and not any(_fits(value, part) for part in parts):
        yield _invalid(path, _kind(value), "must validate at least one schema (anyOf)", plain=True)
    if parts := schema.get("oneOf"):
        fitting = sum(_fits(value, part) for part in parts)
        if fitting != 1:
            found = "Found none valid" if not fitting else f"Found {fitting} valid alternatives"
            yield _invalid(path, _kind(value), f"must validate one and only one schema (oneOf). {found}", plain=True)
    if (part := schema.get("not")) is not None and _fits(value, part):
        yield _invalid(path, _kind(value), "must not validate the schema (not)", plain=True)


def _fits(value: Json, schema: Schema) -> bool:
    return next(_validate(value, schema, "", _NONE), None) is None


def _kind(value: Json) -> str:
    return _NAMES.get(type(value), "object")


def _invalid(path: str, value: Json, detail: str, *, plain: bool = False) -> Cause:
    where = f'"{path}" ' if plain else f"{path} in body "
    return Cause(path, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {where}{detail}")


def _shown(value: Json) -> str:
    return msgspec.json.encode(value).decode()
