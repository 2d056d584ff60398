"""Removal of unknown fields, and errors for wrong types (structured decoding, upstream's words)."""

from __future__ import annotations

import base64
import binascii
import functools
import re
import string
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.apimachinery.quantity import canonical, rounded
from cumulet.kube.apimachinery.status import ApiError, bad_request
from cumulet.kube.codec.go_messages import KINDS
from cumulet.kube.schema.definitions import INT_OR_STRING, QUANTITY, Definition, Field, definition, empty

_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
    "number": (int, float),
}
_EMPTY: dict[str, str | int | bool] = {"string": "", "integer": 0, "boolean": False, "number": 0}
_BASE64 = frozenset(f"{string.ascii_letters}{string.digits}+/=".encode())
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d%s(?:Z|[+-]\d\d:\d\d)"
#: By type: the pattern of a time (RFC 3339), Go's layout of it, and its precision.
_TIMES = {
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": (
        re.compile(_MOMENT % r"(?:[.,]\d+)?", re.ASCII),
        "2006-01-02T15:04:05Z07:00",
        "seconds",
    ),
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": (
        re.compile(_MOMENT % r"[.,]\d{6}", re.ASCII),
        "2006-01-02T15:04:05.000000Z07:00",
        "microseconds",
    ),
}
_DEPTH = 60
#: How many specs are cached, and the largest in bytes.
_REMEMBERED = 128
_REMEMBERED_BYTES = 16_384


class Findings(NamedTuple):
    """Messages about removed fields: strict decoding's about unknown ones, and those whose feature gates are off."""

    unknown: list[str]
    disabled: list[str]


def prune(
    obj: Object,
    group: str,
    version: str,
    kind: str,
    *,
    fill: bool = True,
    pruned: frozenset[str] = frozenset(),
) -> Findings:
    """Convert an object to the result of upstream's decoding, in place, and return what was removed.

    Unknown fields and nulls are removed. With `fill`, empty fields that are not written are removed too, and fields that
    are always written are added. The fields named in `pruned` have been processed before. Raises `ApiError` 400 where a
    field has the wrong type.
    """
    found = Findings([], [])
    of = definition(group, version, kind)
    if of is None:
        return found
    try:
        _object(obj, of, "", found, 0, fill, pruned)
    except _WrongTypeError as error:
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
    return found


def strict_error(kind: str, version: str, unknown: list[str]) -> ApiError:
    """Return the error response of `fieldValidation=Strict`."""
    return bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {", ".join(unknown)}'
    )


class _WrongTypeError(Exception):
    """A value of the wrong type. The path and the struct are added while it propagates."""

    def __init__(self, seen: str, wanted: str = "") -> None:
        super().__init__(seen)
        self.seen = seen
        self.wanted = wanted
        self.owner = ""
        self.path: list[str] = []

    def __str__(self) -> str:
        if not self.wanted:
            return self.seen
        where = f"{self.owner}.{'.'.join(self.path)}"
        return f"json: cannot unmarshal {self.seen} into Go struct field {where} of type {self.wanted}"


_NOTHING: frozenset[str] = frozenset()


def _object(
    obj: Object,
    of: Definition,
    path: str,
    found: Findings,
    depth: int,
    fill: bool,
    pruned: frozenset[str] = _NOTHING,
) -> None:
    if depth > _DEPTH:
        raise _WrongTypeError("exceeded max depth")
    fields, omitted = of.fields, of.omitted if fill else _NOTHING
    for key in list(obj):
        if key in pruned:
            continue
        field = fields.get(key)
        value = obj[key]
        if field is None:
            found.unknown.append(f'unknown field "{path}{key}"')
            del obj[key]
        elif value is None:
            # A null is an absent field, except in a list or map.
            del obj[key]
        else:
            if depth == 0 and fill and key == "spec" and field.item is not None and type(value) is dict:
                obj[key] = _spec(value, field, of, found)
            elif type(value) is not field.exact:
                obj[key] = _checked(value, field, of, f"{path}{key}", found, depth, fill)
            if not value and key in omitted:
                del obj[key]
            elif key in of.disabled:
                found.disabled.append(f"{path}{key}: ignored, because the feature gate {of.disabled[key]} is off")
                del obj[key]
    if fill:
        for key, value in of.written.items():
            if key not in obj:
                obj[key] = value if value != {} else _empty(fields[key])


def _empty(field: Field) -> Object:
    return empty(field.item) if field.item is not None else {}


def _spec(spec: Object, field: Field, of: Definition, found: Findings) -> Object:
    """Return the pruned spec. Many objects share the spec of one template, so results are cached."""
    try:
        raw = msgspec.json.encode(spec)
    except (RecursionError, OverflowError):
        raw = b""
    if not raw or len(raw) > _REMEMBERED_BYTES:
        _checked(spec, field, of, "spec", found, 0, True)
        return spec
    pruned, unknown, disabled = _pruned(raw, field, of)
    found.unknown.extend(unknown)
    found.disabled.extend(disabled)
    if pruned is None:
        return spec
    left: Object = msgspec.json.decode(pruned)
    return left


@functools.lru_cache(_REMEMBERED)
def _pruned(raw: bytes, field: Field, of: Definition) -> tuple[bytes | None, tuple[str, ...], tuple[str, ...]]:
    """Return the pruned spec, or `None` where nothing changes, and the messages."""
    spec = msgspec.json.decode(raw)
    found = Findings([], [])
    _checked(spec, field, of, "spec", found, 0, True)
    left = msgspec.json.encode(spec)
    return None if left == raw else left, tuple(found.unknown), tuple(found.disabled)


def _checked(value: Json, field: Field, of: Definition, path: str, found: Findings, depth: int, fill: bool) -> Json:
    """Return the pruned value of a field."""
    try:
        return _check(value, field, path, found, depth, fill)
    except _WrongTypeError as error:
        if error.wanted:
            name = path.rpartition(".")[2]
            error.path[:0] = [field.embedded, name] if field.embedded else [name]
            error.owner = error.owner or of.name.rsplit(".", 1)[-1]
        raise


def _check(value: Json, field: Field, path: str, found: Findings, depth: int, fill: bool) -> Json:
    kind = field.type
    if kind in _PYTHON:
        return _scalar(value, field)
    if kind == "object":
        return _element(value, field, field.go_type, f"{path}.", found, depth, fill)
    if kind == "array":
        if type(value) is not list:
            raise _mismatch(value, field.go_type)
        wanted = field.go_type.removeprefix("[]").removeprefix("*")
        return [
            _element(element, field, wanted, f"{path}[{index}].", found, depth, fill)
            for index, element in enumerate(value)
        ]
    if kind == "map":
        if type(value) is not dict:
            raise _mismatch(value, field.go_type)
        wanted = field.go_type.partition("]")[2]
        return {
            key: _element(element, field, wanted, f"{path}.{key}.", found, depth, fill)
            for key, element in value.items()
        }
    if field.ref == QUANTITY:
        return _quantity(value)
    if field.ref == INT_OR_STRING:
        return _int_or_string(value)
    return value


def _element(value: Json, field: Field, wanted: str, path: str, found: Findings, depth: int, fill: bool) -> Json:
    """Return the pruned object, list element or map value. A null element becomes an empty value."""
    item = field.item
    if item is not None:
        if type(value) is not dict:
            if value is not None:
                raise _mismatch(value, wanted)
            value = {}
        _object(value, item, path, found, depth + 1, fill)
        return value
    if field.ref == QUANTITY:
        # Upstream rounds resource amounts up to thousandths.
        return rounded(_quantity(value)) if field.go_type == "v1.ResourceList" else _quantity(value)
    if field.ref in _TIMES:
        return _time(value, field.ref)
    python = _PYTHON.get(field.item_type)
    if python is None:
        return value
    if value is None:
        return _EMPTY[field.item_type]
    if type(value) not in python:
        raise _mismatch(value, wanted)
    if field.item_type == "integer" and isinstance(value, int):
        _in_range(value, wanted)
    if wanted == "[]uint8" and isinstance(value, str):
        _base64(value)
    return value


def _scalar(value: Json, field: Field) -> Json:
    if type(value) not in _PYTHON[field.type]:
        raise _mismatch(value, field.go_type)
    if field.type == "integer" and isinstance(value, int):
        _in_range(value, field.go_type)
    if field.format == "byte" and isinstance(value, str):
        _base64(value)
    return value


def _in_range(value: int, wanted: str) -> None:
    bits = 64 if wanted == "int64" else 32
    if not -(1 << bits - 1) <= value < 1 << bits - 1:
        raise _WrongTypeError(f"number {value}", wanted)


def _quantity(value: Json) -> str:
    if value is None:
        return "0"
    try:
        return canonical(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    except ValueError as error:
        raise _WrongTypeError(str(error)) from None


def _int_or_string(value: Json) -> int | str:
    if type(value) is str:
        return value
    if type(value) is not int:
        raise _mismatch(value, "int32")
    if not -(1 << 31) <= value < 1 << 31:
        raise _WrongTypeError(f"number {value}", "int32")
    return value


def _time(value: Json, ref: str) -> str | None:
    """Return a time as upstream writes it: in UTC, to the second or microsecond. `None` for Go's zero time."""
    if value is None:
        return None
    if type(value) is not str:
        raise _mismatch(value, "string")
    expression, layout, spec = _TIMES[ref]
    try:
        if expression.fullmatch(value) is None:
            raise ValueError
        moment = datetime.fromisoformat(value).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        why = f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"'
        raise _WrongTypeError(why) from None
    return None if moment == datetime.min else f"{moment.isoformat(timespec=spec)}Z"  # noqa: DTZ901


def _base64(value: str) -> None:
    raw = value.encode()
    try:
        base64.b64decode(raw, validate=True)
    except binascii.Error:
        at = next((index for index, byte in enumerate(raw) if byte not in _BASE64), 0)
        raise _WrongTypeError(f"illegal base64 data at input byte {at}") from None


def _mismatch(value: Json, wanted: str) -> _WrongTypeError:
    is_number = type(value) is float and wanted.rpartition(".")[2].startswith(("int", "uint"))
    return _WrongTypeError(f"number {value}" if is_number else KINDS[type(value)], wanted)
