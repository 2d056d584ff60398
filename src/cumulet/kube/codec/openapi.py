"""OpenAPI v2 documents in protobuf: `openapi.v2.Document` of gnostic (`openapiv2/OpenAPIv2.proto`), for kubectl.

The table contains the messages that Kubernetes' document uses, with the fields that it sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from cumulet.kube.codec.wire import delimited, double, number

Node = Mapping[str, Any]


class OpenApiError(Exception):
    """The document contains a value that has no field in protobuf."""


def encode_openapi(document: Node) -> bytes:
    """Return the bytes of a document (OpenAPI 2.0, as JSON). Raises `OpenApiError`."""
    return _message("Document", document)


def _message(name: str, node: Node) -> bytes:
    return b"".join(_fields(name, node))


def _fields(name: str, node: Node) -> Iterator[bytes]:
    fields, extension = _MESSAGES[name]
    for key, value in node.items():
        if key.startswith("x-") and extension:
            # A JSON text is a YAML text too.
            yield delimited(extension, _named(key, _any(value)))
        elif key in fields:
            field, write = fields[key]
            yield from write(field, value)
        else:
            raise OpenApiError(f"{name} has no field {key}")


def _named(name: str, value: bytes) -> bytes:
    """Return an entry of a map, which is a list of names and values in protobuf."""
    return delimited(1, name.encode()) + delimited(2, value)


def _any(value: object) -> bytes:
    return delimited(2, msgspec.json.encode(value))


Write = Callable[[int, Any], Iterator[bytes]]


def _text(field: int, value: str) -> Iterator[bytes]:
    yield delimited(field, value.encode())


def _texts(field: int, value: list[str]) -> Iterator[bytes]:
    for item in value:
        yield delimited(field, item.encode())


def _integer(field: int, value: int) -> Iterator[bytes]:
    yield number(field, int(value))


def _double(field: int, value: float) -> Iterator[bytes]:
    yield double(field, value)


def _anything(field: int, value: object) -> Iterator[bytes]:
    yield delimited(field, _any(value))


def _anythings(field: int, value: list[object]) -> Iterator[bytes]:
    for item in value:
        yield delimited(field, _any(item))


def _one(name: str) -> Write:
    def write(field: int, value: Node) -> Iterator[bytes]:
        yield delimited(field, _message(name, value))

    return write


def _many(name: str) -> Write:
    def write(field: int, value: list[Node]) -> Iterator[bytes]:
        for item in value:
            yield delimited(field, _message(name, item))

    return write


def _map(name: str, entry: int = 1, wrapped: int = 0) -> Write:
    """Return a writer for a map of messages, in entries of field `entry`.

    A `wrapped` number is the field of a message that contains each value.
    """

    def write(field: int, value: Mapping[str, Node]) -> Iterator[bytes]:
        entries = []
        for key, item in value.items():
            message = _message(name, item)
            entries.append(delimited(entry, _named(key, delimited(wrapped, message) if wrapped else message)))
        yield delimited(field, b"".join(entries))

    return write


def _type(field: int, value: str) -> Iterator[bytes]:
    """Write `TypeItem`."""
    yield delimited(field, delimited(1, value.encode()))


def _items(field: int, value: Node) -> Iterator[bytes]:
    """Write `ItemsItem`."""
    yield delimited(field, delimited(1, _message("Schema", value)))


def _additional(field: int, value: Node | bool) -> Iterator[bytes]:
    """Write `AdditionalPropertiesItem`."""
    if isinstance(value, bool):
        yield delimited(field, number(2, value))
    else:
        yield delimited(field, delimited(1, _message("Schema", value)))


def _answer_schema(field: int, value: Node) -> Iterator[bytes]:
    """Write `SchemaItem`."""
    yield delimited(field, delimited(1, _message("Schema", value)))


def _parameters(field: int, value: list[Node]) -> Iterator[bytes]:
    """Write `ParametersItem`: a parameter in the body, in the query or in the path."""
    for item in value:
        if item["in"] == "body":
            parameter = delimited(1, _message("BodyParameter", item))
        else:
            kind, message = {"query": (3, "QueryParameter"), "path": (4, "PathParameter")}[item["in"]]
            parameter = delimited(2, delimited(kind, _message(message, item)))
        yield delimited(field, delimited(1, parameter))


_SIMPLE: dict[str, tuple[int, Write]] = {"required": (1, _integer), "in": (2, _text), "description": (3, _text)}
_MESSAGES: dict[str, tuple[dict[str, tuple[int, Write]], int]] = {
    "Document": (
        {
            "swagger": (1, _text),
            "info": (2, _one("Info")),
            "paths": (8, _map("PathItem", 2)),
            "definitions": (9, _map("Schema")),
        },
        16,
    ),
    "Info": ({"title": (1, _text), "version": (2, _text)}, 7),
    "PathItem": (
        {
            method: (field, _one("Operation"))
            for field, method in enumerate(("get", "put", "post", "delete", "options", "head", "patch"), 2)
        }
        | {"parameters": (9, _parameters)},
        10,
    ),
    "Operation": (
        {
            "description": (3, _text),
            "produces": (6, _texts),
            "consumes": (7, _texts),
            "parameters": (8, _parameters),
            "responses": (9, _map("Response", 1, wrapped=1)),
            "schemes": (10, _texts),
        },
        13,
    ),
    "Response": ({"description": (1, _text), "schema": (2, _answer_schema)}, 5),
    "BodyParameter": (
        {
            "description": (1, _text),
            "name": (2, _text),
            "in": (3, _text),
            "required": (4, _integer),
            "schema": (5, _one("Schema")),
        },
        6,
    ),
    "QueryParameter": (_SIMPLE | {"name": (4, _text), "type": (6, _text), "uniqueItems": (20, _integer)}, 23),
    "PathParameter": (_SIMPLE | {"name": (4, _text), "type": (5, _text), "uniqueItems": (19, _integer)}, 22),
    "ExternalDocs": ({"description": (1, _text), "url": (2, _text)}, 3),
    "Schema": (
        {
            "$ref": (1, _text),
            "format": (2, _text),
            "title": (3, _text),
            "description": (4, _text),
            "default": (5, _anything),
            "multipleOf": (6, _double),
            "maximum": (7, _double),
            "exclusiveMaximum": (8, _integer),
            "minimum": (9, _double),
            "exclusiveMinimum": (10, _integer),
            "maxLength": (11, _integer),
            "minLength": (12, _integer),
            "pattern": (13, _text),
            "maxItems": (14, _integer),
            "minItems": (15, _integer),
            "uniqueItems": (16, _integer),
            "maxProperties": (17, _integer),
            "minProperties": (18, _integer),
            "required": (19, _texts),
            "enum": (20, _anythings),
            "additionalProperties": (21, _additional),
            "type": (22, _type),
            "items": (23, _items),
            "properties": (25, _map("Schema")),
            "externalDocs": (29, _one("ExternalDocs")),
            "example": (30, _anything),
        },
        31,
    ),
}

#: The supported keywords of a schema.
SCHEMA_KEYWORDS = frozenset(_MESSAGES["Schema"][0])
