"""Encoding of Kubernetes' JSON form to protobuf, for clients that accept nothing else (`serializer/protobuf`).

This is the inverse of `protobuf`, with the same table of messages. A missing field is left out, also where upstream
writes an empty one, as readers treat both alike.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json
from cumulet.kube.codec.protobuf import MAGIC, SCHEMA, UNIONS, Field, ProtobufError, Union, layout_of, message_name
from cumulet.kube.codec.wire import delimited as _bytes
from cumulet.kube.codec.wire import double as _double
from cumulet.kube.codec.wire import number as _number

T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBERS = frozenset(("int32", "int64", "uint32", "uint64"))


def encode_protobuf(document: Object) -> bytes:
    """Return an object with its kind, in an envelope. Raises `ProtobufError` where its kind has no message."""
    api_version, kind = document.get("apiVersion", ""), document.get("kind", "")
    body = _message(message_name(api_version, kind), document)
    about = _bytes(1, api_version.encode()) + _bytes(2, kind.encode())
    return MAGIC + _bytes(1, about) + _bytes(2, body) + _bytes(3, b"") + _bytes(4, b"")


def encode_event(kind: str, document: Object) -> bytes:
    """Return one watch event, prefixed with its length."""
    event = _bytes(1, kind.encode()) + _bytes(2, _bytes(1, encode_protobuf(document)))
    return struct.pack(">I", len(event)) + event


def _message(name: str, document: Object) -> bytes:
    return b"".join(_fields(name, document))


def _fields(name: str, document: Object) -> Iterator[bytes]:
    for number, field in sorted(layout_of(name).items()):
        if field.kind == "inline":
            if inner := _message(field.type, document):
                yield _bytes(number, inner)
            continue
        value = document.get(field.name)
        if value is None:
            continue
        try:
            yield from _values(number, field, value)
        except (TypeError, ValueError, AttributeError, binascii.Error) as error:
            raise ProtobufError(f"{field.name}: {error}") from None


def _values(number: int, field: Field, value: Json) -> Iterator[bytes]:
    if field.kind == "list":
        for item in _is_a(list, value):
            yield _value(number, field.type, item)
    elif field.kind == "map":
        for key, item in _is_a(dict, value).items():
            yield _bytes(number, _bytes(1, key.encode()) + _value(2, field.type, item))
    else:
        yield _value(number, field.type, value)


def _value(number: int, type_: str, value: Json) -> bytes:
    if type_ == "bool" or type_ in _NUMBERS:
        if not isinstance(value, int | float | str):
            raise TypeError(f"a number was expected, not {type(value).__name__}")
        return _number(number, int(value))
    if type_ == "string":
        return _bytes(number, str(value).encode())
    if type_ == "bytes":
        return _bytes(number, base64.b64decode(_is_a(str, value)))
    if type_ == "double":
        if not isinstance(value, int | float):
            raise TypeError(f"a number was expected, not {type(value).__name__}")
        return _double(number, value)
    if type_ in UNIONS:
        return _bytes(number, _union(UNIONS[type_], value))
    special = _SPECIAL.get(type_)
    return _bytes(number, special(value) if special is not None else _message(type_, _is_a(dict, value)))


def _is_a(kind: type[T], value: Json) -> T:
    if not isinstance(value, kind):
        raise TypeError(f"{kind.__name__} was expected, not {type(value).__name__}")
    return value


def _union(union: Union, value: Json) -> bytes:
    if isinstance(value, dict):
        return _value(union.schema, SCHEMA, value)
    others = _is_a(list, value) if union.is_list else [value]
    return b"".join(_value(union.others, union.other, item) for item in others)


def _time(value: Json) -> bytes:
    passed = datetime.fromisoformat(_is_a(str, value)) - _EPOCH
    seconds, nanos = passed.days * 86400 + passed.seconds, passed.microseconds * 1000
    return _value(1, "int64", seconds) + _value(2, "int32", nanos)


def _int_or_string(value: Json) -> bytes:
    if isinstance(value, str):
        return _value(1, "int64", 1) + _value(2, "int32", 0) + _bytes(3, value.encode())
    return _value(1, "int64", 0) + _value(2, "int32", value) + _bytes(3, b"")


def _raw(value: Json) -> bytes:
    return _bytes(1, msgspec.json.encode(value))


_SPECIAL: dict[str, Callable[[Json], bytes]] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _time,
    "meta.v1.FieldsV1": _raw,
    "api.resource.Quantity": lambda value: _bytes(1, str(value).encode()),
    "util.intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _raw,
    "apiextensions.v1.JSON": _raw,
}
