"""Decoding of Kubernetes' protobuf to its JSON form (apimachinery, `runtime.Unknown` behind the four bytes `k8s\\0`).

`messages.json` lists the messages of the protocol with their fields, each as `number name kind type`. The kind `inline`
marks a struct without a level of its own in JSON. Zero numbers and booleans that upstream cannot distinguish from
absent ones are left out, as in its JSON.
"""

from __future__ import annotations

import base64
import functools
import math
import struct
from collections.abc import Callable
from datetime import datetime, timedelta
from importlib import resources
from typing import NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.json_types import Json

MAGIC = b"k8s\0"
_DEPTH = 64

#: The packages of API groups whose name's first part is not the package.
_PACKAGES = {"": "core", "rbac.authorization.k8s.io": "rbac", "events.k8s.io": "events"}

#: Scalars that are not pointers upstream: zero means absent.
_ZERO_IS_ABSENT = frozenset(
    [
        "hostPort",
        "nodePort",
        "generation",
        "observedGeneration",
        "minReadySeconds",
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
        "restartCount",
        "count",
        "readOnly",
        "stdin",
        "stdinOnce",
        "tty",
        "hostNetwork",
        "hostPID",
        "hostIPC",
        "publishNotReadyAddresses",
        "paused",
        "unschedulable",
        "healthCheckNodePort",
        "limit",
        "fullyLabeledReplicas",
        "readyReplicas",
        "availableReplicas",
        "updatedReplicas",
        "unavailableReplicas",
        "currentReplicas",
        "active",
        "succeeded",
        "failed",
    ]
)


class ProtobufError(Exception):
    """The bytes are not valid protobuf."""


class Union(NamedTuple):
    """A message that is either a schema or another value in JSON: the field numbers, and the type of the other value."""

    schema: int
    others: int
    other: str
    is_list: bool


SCHEMA = "apiextensions.v1.JSONSchemaProps"
#: The structs with their own marshalling (apiextensions/v1, `marshal.go`).
UNIONS = {
    f"{SCHEMA}OrArray": Union(1, 2, SCHEMA, is_list=True),
    f"{SCHEMA}OrBool": Union(2, 1, "bool", is_list=False),
    f"{SCHEMA}OrStringArray": Union(1, 2, "string", is_list=True),
}


class Field(NamedTuple):
    """A field of a message: `kind` is one, list, map or inline."""

    name: str
    kind: str
    type: str


def decode_protobuf(raw: bytes) -> Object:
    """Return the JSON form of an object, with `apiVersion` and `kind`. Raises `ProtobufError`."""
    if not raw.startswith(MAGIC):
        raise ProtobufError("the body does not begin with the protobuf prefix")
    api_version = kind = ""
    body = b""
    for number, value in _fields(raw[len(MAGIC) :]):
        if number == 1:
            for inner, text in _fields(_bytes(value)):
                if inner == 1:
                    api_version = _text(text)
                elif inner == 2:
                    kind = _text(text)
        elif number == 2:
            body = _bytes(value)
    name = message_name(api_version, kind)
    document = _message(name, body, 0)
    return {"apiVersion": api_version, "kind": kind, **document}


@functools.cache
def _messages() -> dict[str, list[str]]:
    text = resources.files(__package__).joinpath("messages.json").read_bytes()
    return msgspec.json.decode(text, type=dict[str, list[str]])


@functools.cache
def layout_of(message: str) -> dict[int, Field]:
    """Return the fields of a message by number. Raises `ProtobufError`."""
    rows = _messages().get(message)
    if rows is None:
        raise ProtobufError(f"message {message} is not known")
    fields: dict[int, Field] = {}
    for row in rows:
        number, name, kind, type_ = row.split(" ")
        fields[int(number)] = Field(name, kind, type_)
    return fields


def message_name(api_version: str, kind: str) -> str:
    """Return the message of a kind. Raises `ProtobufError`."""
    group, _, version = api_version.rpartition("/")
    package = _PACKAGES.get(group, group.partition(".")[0])
    for name in (f"{package}.{version}.{kind}", f"meta.v1.{kind}"):
        if name in _messages():
            return name
    raise ProtobufError(f"no kind {kind!r} is registered for version {api_version!r} in protobuf")


def _message(name: str, raw: bytes, depth: int) -> dict[str, Json]:
    if depth > _DEPTH:
        raise ProtobufError("the object is nested too deeply")
    layout = layout_of(name)
    document: dict[str, Json] = {}
    for number, value in _fields(raw):
        field = layout.get(number)
        if field is None:
            continue
        if field.kind == "list":
            items = document.setdefault(field.name, [])
            assert isinstance(items, list)
            items += _repeated(field, value, depth)
        elif field.kind == "map":
            key, item = _entry(field, _bytes(value), depth)
            entries = document.setdefault(field.name, {})
            assert isinstance(entries, dict)
            entries[key] = item
        elif field.kind == "inline":
            document.update(_message(field.type, _bytes(value), depth + 1))
        else:
            decoded = _value(field.type, value, depth)
            if decoded is None or (not decoded and field.name in _ZERO_IS_ABSENT):
                continue
            document[field.name] = decoded
    return document


def _repeated(field: Field, value: int | bytes, depth: int) -> list[Json]:
    if isinstance(value, bytes) and field.type in ("int32", "int64", "bool"):  # packed
        numbers: list[Json] = []
        position = 0
        while position < len(value):
            number, position = _varint(value, position)
            numbers.append(_scalar(field.type, number))
        return numbers
    return [_value(field.type, value, depth)]


def _entry(field: Field, raw: bytes, depth: int) -> tuple[str, Json]:
    key = ""
    item: Json = None
    for number, value in _fields(raw):
        if number == 1:
            key = _text(value)
        elif number == 2:
            item = _value(field.type, value, depth)
    if item is None:
        item = "" if field.type in ("string", "bytes") else {}
    return key, item


def _value(type_: str, value: int | bytes, depth: int) -> Json:
    if type_ in ("int32", "int64", "uint32", "uint64", "bool"):
        if not isinstance(value, int):
            raise ProtobufError("a number was expected")
        return _scalar(type_, value)
    raw = _bytes(value)
    if type_ == "string":
        return _text(raw)
    if type_ == "bytes":
        return base64.b64encode(raw).decode()
    if type_ == "double":
        return _double(raw)
    if type_ in UNIONS:
        return _union(UNIONS[type_], raw, depth + 1)
    special = _SPECIAL.get(type_)
    return special(raw) if special is not None else _message(type_, raw, depth + 1)


def _scalar(type_: str, value: int) -> int | bool:
    if type_ == "bool":
        return bool(value)
    # int32 is sign-extended to 64 bits.
    return value - (1 << 64) if value >= 1 << 63 and type_.startswith("int") else value


def _double(raw: bytes) -> float:
    if len(raw) != 8:
        raise ProtobufError("a double has eight bytes")
    number: float = struct.unpack("<d", raw)[0]
    if not math.isfinite(number):
        raise ProtobufError("a number is not finite")
    return number


def _union(union: Union, raw: bytes, depth: int) -> Json:
    """Return the single JSON value of a union. An empty message is the last of its alternatives."""
    if depth > _DEPTH:
        raise ProtobufError("the object is nested too deeply")
    fields = _fields(raw)
    schemas = [_bytes(value) for number, value in fields if number == union.schema]
    if schemas:
        return _message(SCHEMA, schemas[-1], depth)
    others = [_value(union.other, value, depth) for number, value in fields if number == union.others]
    return others if union.is_list else bool(others and others[-1])


def _by_number(raw: bytes) -> dict[int, int | bytes]:
    return dict(_fields(raw))


def _time(raw: bytes) -> str | None:
    moment = _moment(_by_number(raw))
    return f"{moment.isoformat(timespec='seconds')}Z" if moment is not None else None


def _micro_time(raw: bytes) -> str | None:
    moment = _moment(_by_number(raw))
    return f"{moment.isoformat(timespec='microseconds')}Z" if moment is not None else None


def _moment(fields: dict[int, int | bytes]) -> datetime | None:
    """Return a UTC time without its zone, or `None` for Go's zero time, in the year 1."""
    seconds, nanos = fields.get(1, 0), fields.get(2, 0)
    if not isinstance(seconds, int) or not isinstance(nanos, int):
        raise ProtobufError("a time has numbers")
    try:
        passed = timedelta(seconds=_scalar("int64", seconds), microseconds=_scalar("int32", nanos) // 1000)
        moment = datetime(1970, 1, 1) + passed  # noqa: DTZ001  (written with its zone)
    except OverflowError:
        raise ProtobufError("a time is out of range") from None
    return moment if fields and moment != datetime.min else None  # noqa: DTZ901


def _quantity(raw: bytes) -> str:
    return _text(_by_number(raw).get(1, b""))


def _int_or_string(raw: bytes) -> int | str:
    fields = _by_number(raw)
    if fields.get(1, 0) == 1:
        return _text(fields.get(3, b""))
    value = fields.get(2, 0)
    if not isinstance(value, int):
        raise ProtobufError("a number was expected")
    return _scalar("int32", value)


def _raw_json(raw: bytes) -> Json:
    content = _bytes(_by_number(raw).get(1, b""))
    try:
        return msgspec.json.decode(content) if content else None
    except msgspec.DecodeError as error:
        raise ProtobufError(str(error)) from None


_SPECIAL: dict[str, Callable[[bytes], Json]] = {
    "meta.v1.Time": _time,
    "meta.v1.MicroTime": _micro_time,
    "meta.v1.FieldsV1": _raw_json,
    "api.resource.Quantity": _quantity,
    "util.intstr.IntOrString": _int_or_string,
    "runtime.RawExtension": _raw_json,
    "apiextensions.v1.JSON": _raw_json,
}


def _fields(raw: bytes) -> list[tuple[int, int | bytes]]:
    """Return (number, value) of each field: an integer, or the bytes of a string, message or fixed-size number."""
    found: list[tuple[int, int | bytes]] = []
    position = 0
    while position < len(raw):
        key, position = _varint(raw, position)
        wire = key & 7
        value: int | bytes
        if wire == 0:
            value, position = _varint(raw, position)
        else:
            if wire == 2:
                length, position = _varint(raw, position)
            elif wire in (1, 5):
                length = 8 if wire == 1 else 4
            else:
                raise ProtobufError(f"wire type {wire} is not supported")
            value = raw[position : position + length]
            if len(value) != length:
                raise ProtobufError("unexpected end of the body")
            position += length
        found.append((key >> 3, value))
    return found


def _varint(raw: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if position >= len(raw) or shift > 63:
            raise ProtobufError("unexpected end of the body")
        byte = raw[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7


def _bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ProtobufError("bytes were expected")
    return value


def _text(value: int | bytes) -> str:
    try:
        return _bytes(value).decode()
    except UnicodeDecodeError:
        raise ProtobufError("a string is not UTF-8") from None
