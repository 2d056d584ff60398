"""Taking out what a kind does not have, and refusing what has the wrong type (structured decoding, upstream's words)."""

from __future__ import annotations

import base64
import binascii
import functools
import string
from datetime import datetime
from typing import Any

import msgspec

from cumulet.kube.schema.definitions import QUANTITY, Definition, Field, definition
from cumulet.kube.schema.quantity import canonical
from cumulet.kube.status import ApiError, bad_request

_GO_TYPES = {"string": "string", "integer": "int32", "boolean": "bool", "number": "float64"}
_JSON_TYPES: dict[type, str] = {
    str: "string",
    bool: "bool",
    int: "number",
    float: "number",
    list: "array",
    dict: "object",
}
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
}
_BASE64 = frozenset(f"{string.ascii_letters}{string.digits}+/=".encode())
_TIMES = frozenset(f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}" for name in ("Time", "MicroTime"))
_DEPTH = 60
#: Specs of so many templates are remembered, where they are not larger than this.
_REMEMBERED = 128
_REMEMBERED_BYTES = 16_384


def prune(obj: dict[str, Any], group: str, version: str, kind: str) -> list[str]:
    """Remove unknown fields and nulls in place; the strict decoding messages about them.

    Raises `ApiError` 400 where a field has the wrong type.
    """
    found = definition(group, version, kind)
    if found is None:
        return []
    unknown: list[str] = []
    try:
        _object(obj, found, "", unknown, 0)
    except _WrongType as error:
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
    return unknown


def strict_error(kind: str, version: str, unknown: list[str]) -> ApiError:
    """The answer under `fieldValidation=Strict`."""
    return bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {", ".join(unknown)}'
    )


class _WrongType(Exception):  # noqa: N818
    pass


def _object(obj: dict[str, Any], of: Definition, path: str, unknown: list[str], depth: int) -> None:
    if depth > _DEPTH:
        raise _WrongType("exceeded max depth")
    fields = of.fields
    for key in list(obj):
        field = fields.get(key)
        value = obj[key]
        if field is None:
            unknown.append(f'unknown field "{path}{key}"')
            del obj[key]
        elif value is None:
            # A null is an absent field, everywhere but in a list or map.
            del obj[key]
        elif depth == 0 and key == "spec" and field.item is not None and type(value) is dict:
            obj[key] = _spec(value, field.item, unknown)
        elif type(value) is not field.exact:
            _check(value, field, f"{path}{key}", of, unknown, depth)
            if field.ref == QUANTITY:
                obj[key] = {k: _quantity(v) for k, v in value.items()} if field.type == "map" else _quantity(value)


def _spec(spec: dict[str, Any], of: Definition, unknown: list[str]) -> dict[str, Any]:
    """A pruned spec. Many objects have that of one template, so it is kept what came of one."""
    try:
        raw = msgspec.json.encode(spec)
    except (RecursionError, OverflowError):
        raw = b""
    if not raw or len(raw) > _REMEMBERED_BYTES:
        _object(spec, of, "spec.", unknown, 1)
        return spec
    pruned, messages = _pruned(raw, of)
    unknown += messages
    if pruned is None:
        return spec
    found: dict[str, Any] = msgspec.json.decode(pruned)
    return found


@functools.lru_cache(_REMEMBERED)
def _pruned(raw: bytes, of: Definition) -> tuple[bytes | None, tuple[str, ...]]:
    """What is left of a spec, or `None` where nothing goes, and the messages."""
    spec = msgspec.json.decode(raw)
    unknown: list[str] = []
    _object(spec, of, "spec.", unknown, 1)
    left = msgspec.json.encode(spec)
    return None if left == raw else left, tuple(unknown)


def _check(value: Any, field: Field, path: str, of: Definition, unknown: list[str], depth: int) -> None:
    kind = field.type
    if kind in _PYTHON:
        if type(value) not in _PYTHON[kind]:
            raise _mismatch(value, path, of, _GO_TYPES[kind])
        if (
            kind == "integer"
            and not -(1 << (bits := 64 if field.format == "int64" else 32) - 1) <= value < 1 << bits - 1
        ):
            raise _WrongType(_mismatch_text(f"number {value}", path, of, f"int{bits}"))
        if field.format == "byte":
            _base64(value)
    elif kind == "object":
        item = field.item
        if item is None:
            if field.ref in _TIMES:
                _time(value, path, of)
            return
        if type(value) is not dict:
            raise _mismatch(value, path, of, _short(item.name))
        _object(value, item, f"{path}.", unknown, depth + 1)
    elif kind == "array":
        if type(value) is not list:
            raise _mismatch(value, path, of, f"[]{_element(field)}")
        item = field.item
        for index, element in enumerate(value):
            if item is not None:
                if type(element) is not dict:
                    raise _mismatch(element, path, of, _element(field))
                _object(element, item, f"{path}[{index}].", unknown, depth + 1)
            elif field.item_type in _PYTHON and type(element) not in _PYTHON[field.item_type]:
                raise _mismatch(element, path, of, _GO_TYPES[field.item_type])
    elif kind == "map":
        if type(value) is not dict:
            raise _mismatch(value, path, of, f"map[string]{_element(field)}")
        item = field.item
        for key, element in value.items():
            if item is not None:
                if type(element) is not dict:
                    raise _mismatch(element, path, of, _element(field))
                _object(element, item, f"{path}.{key}.", unknown, depth + 1)
            elif field.item_type == "string" and not field.ref:
                if type(element) is not str:
                    raise _mismatch(element, path, of, "string")
                if path == "data" and of.name.endswith(".Secret"):
                    _base64(element)


def _quantity(value: Any) -> str:
    if type(value) not in (str, int, float):
        raise _WrongType(f"json: cannot unmarshal {_JSON_TYPES.get(type(value), 'null')} into a quantity")
    try:
        return canonical(value if isinstance(value, str) else repr(value))
    except ValueError as error:
        raise _WrongType(str(error)) from None


def _time(value: Any, path: str, of: Definition) -> None:
    if type(value) is not str:
        raise _mismatch(value, path, of, "string")
    try:
        datetime.fromisoformat(value)
    except ValueError:
        why = f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse "{value}" as "2006"'
        raise _WrongType(why) from None


def _base64(value: str) -> None:
    raw = value.encode()
    try:
        base64.b64decode(raw, validate=True)
    except binascii.Error:
        at = next((index for index, byte in enumerate(raw) if byte not in _BASE64), 0)
        raise _WrongType(f"illegal base64 data at input byte {at}") from None


def _element(field: Field) -> str:
    return _short(field.ref) if field.ref else _GO_TYPES.get(field.item_type, "object")


def _short(name: str) -> str:
    parts = name.split(".")
    return ".".join(parts[-1:]) if len(parts) < 3 else f"{parts[-2]}.{parts[-1]}"


def _mismatch(value: Any, path: str, of: Definition, wanted: str) -> _WrongType:
    return _WrongType(_mismatch_text(_JSON_TYPES.get(type(value), "object"), path, of, wanted))


def _mismatch_text(seen: str, path: str, of: Definition, wanted: str) -> str:
    owner = of.name.rsplit(".", 1)[-1]
    plain = ".".join(part.partition("[")[0] for part in path.split("."))
    return f"json: cannot unmarshal {seen} into Go struct field {owner}.{plain} of type {wanted}"
