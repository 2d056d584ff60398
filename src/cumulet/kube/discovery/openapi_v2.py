"""OpenAPI v2 (`/openapi/v2`), in JSON and in protobuf, from the schemas and paths of v3.

kubectl reads it for facts that v3 lacks: the validation of a `kind: List`, and older versions read kinds there only.
The document is built in a thread at the first request, and again after a change of a custom resource. As in upstream,
parts of a custom resource that v2 cannot express are left out (apiextensions-apiserver, `openapi/v2`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.codec.openapi import SCHEMA_KEYWORDS, encode_openapi
from cumulet.kube.discovery import openapi
from cumulet.kube.discovery.openapi import Rows
from cumulet.kube.schema.definitions import INT_OR_STRING, QUANTITY

Schema = Object

_JSON = "application/json"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
#: The form that most clients send. It is not a valid media type (RFC 6838), so the response has the other one.
_PROTOBUF_DEPRECATED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_PRODUCES = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
_REFERENCE = "#/definitions/"
_V3_REFERENCE = "#/components/schemas/"
_VARIABLE = re.compile(r"\{(\w+)\}", re.ASCII)
#: Strings that may be numbers: v2 has no `oneOf`.
_TEXTS: dict[str, Schema] = {
    INT_OR_STRING: {"type": "string", "format": "int-or-string"},
    QUANTITY: {"type": "string"},
}


class _Made(NamedTuple):
    body: bytes
    etag: str


class Swagger:
    """The document, kept until the resources change."""

    def __init__(self) -> None:
        self._rows: Rows = ()
        self._made: dict[str, asyncio.Task[_Made]] = {}

    async def answer(self, request: web.BaseRequest, rows: Rows) -> web.Response:
        """Answer a GET, with an `ETag`: 304 where the client has the document. Raises `ApiError` 406."""
        media = _accepted(request.headers.get("Accept", ""))
        if rows is not self._rows:
            self._rows, self._made = rows, {}
        making = self._made.get(media)
        if making is None or (making.done() and making.exception() is not None):
            making = self._made[media] = asyncio.create_task(asyncio.to_thread(_make, rows, media))
        # A client that disconnects must not cancel the work for others.
        made = await asyncio.shield(making)
        headers = {"ETag": made.etag, "Vary": "Accept"}
        if made.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = web.Response(body=made.body, content_type=media, headers=headers)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            response.enable_compression(web.ContentCoding.gzip)
        return response


def _accepted(accept: str) -> str:
    for part in accept.split(",") if accept else (_JSON,):
        media = fold(part.partition(";")[0].strip())
        if media in (_JSON, "*/*", "application/*"):
            return _JSON
        if media in (_PROTOBUF, _PROTOBUF_DEPRECATED):
            return _PROTOBUF
    raise ApiError(406, "NotAcceptable", f"only the following media types are accepted: {_JSON}, {_PROTOBUF}")


def _make(rows: Rows, media: str) -> _Made:
    document = swagger(rows)
    body = msgspec.json.encode(document) if media == _JSON else encode_openapi(document)
    return _Made(body, f'"{hashlib.sha256(body).hexdigest()}"')


def swagger(rows: Rows) -> Schema:
    """Return the whole document (OpenAPI 2.0)."""
    definitions: dict[str, Schema] = {}
    paths: dict[str, Schema] = {}
    for path in openapi.paths_of(rows):
        parts = openapi.parts(rows, path)
        for name, raw in parts.schemas.items():
            if name not in definitions:
                decoded = msgspec.json.decode(raw)
                definitions[name] = custom_schema(decoded) if name in parts.custom else schema(decoded, name)
        for address, item in parts.paths.items():
            paths[address] = _path(address, item)
    return {
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": definitions,
    }


def schema(node: Schema, name: str = "") -> Schema:
    """Return a published schema in v2's form; `name` is the name of a definition."""
    if name in _TEXTS:
        return dict(_keywords(node, schema)) | _TEXTS[name]
    return dict(_keywords(node, schema))


def custom_schema(node: Schema) -> Schema:
    """Return the schema of a custom resource in v2's form (`ToStructuralOpenAPIV2`).

    Clients cannot read fields beside unknown ones, and nullable values have no type in v2.
    """
    made = dict(node)
    if made.get("x-kubernetes-preserve-unknown-fields") or made.get("nullable"):
        made.pop("items", None)
        made.pop("properties", None)
        if made.get("nullable") or made.get("type") == "object":
            made.pop("type", None)
    if made.get("type") == "array" and not isinstance(made.get("items"), dict):
        del made["type"]
    nullable = {key for key, below in (made.get("properties") or {}).items() if below.get("nullable")}
    if nullable and made.get("required"):
        made["required"] = [key for key in made["required"] if key not in nullable]
    for below in made.get("allOf") or ():  # the metadata of all objects refers to a definition
        if "$ref" in below:
            made["$ref"] = below["$ref"]
    return dict(_keywords(made, custom_schema))


def _keywords(node: Schema, below: Callable[[Schema], Schema]) -> Iterator[tuple[str, object]]:
    for key, value in node.items():
        if key not in SCHEMA_KEYWORDS and not key.startswith("x-"):
            continue  # v2 has no such keyword, for example `oneOf`
        if key == "$ref":
            yield key, value.replace(_V3_REFERENCE, _REFERENCE, 1)
        elif key == "properties":
            yield key, {name: below(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            yield key, below(value)
        elif key != "required" or value:
            yield key, value


def _path(address: str, item: Schema) -> Schema:
    made: Schema = {method: _operation(operation) for method, operation in item.items()}
    if variables := _VARIABLE.findall(address):
        made["parameters"] = [
            {"name": name, "in": "path", "required": True, "type": "string", "uniqueItems": True}
            for name in variables
        ]
    return made


def _operation(operation: Schema) -> Schema:
    parameters = [{"name": one["name"], "in": "query", **one["schema"]} for one in operation.get("parameters") or ()]
    consumes = ["*/*"]
    if "requestBody" in operation:
        content = operation["requestBody"]["content"]
        consumes = list(content)
        body = next(iter(content.values()))["schema"]
        parameters.insert(0, {"name": "body", "in": "body", "required": True, "schema": schema(body)})
    extensions = {key: value for key, value in operation.items() if key.startswith("x-")}
    return {
        "consumes": consumes,
        "produces": _PRODUCES,
        "schemes": ["https"],
        **({"parameters": parameters} if parameters else {}),
        "responses": dict(_responses(operation["responses"].items())),
        **extensions,
    }


def _responses(responses: Iterable[tuple[str, Schema]]) -> Iterator[tuple[str, Schema]]:
    for code, response in responses:
        answer: Schema = {"description": response["description"]}
        if body := response["content"][_JSON]["schema"]:
            answer["schema"] = schema(body)
        yield code, answer
    yield "401", {"description": "Unauthorized"}
