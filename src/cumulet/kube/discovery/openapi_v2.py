"""OpenAPI v2 (`/openapi/v2`), in JSON and in protobuf, of the schemas and paths that v3 is made from.

kubectl reads it for what v3 does not tell it: how a `kind: List` is validated, and all that older versions know of a
kind. It is made when it is first asked for, in a thread, and made again only after a custom resource has changed.
What v2 cannot say of a custom resource is left out as upstream does it (apiextensions-apiserver, `openapi/v2`).
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.codec.openapi import SCHEMA_KEYWORDS, encode_openapi
from cumulet.kube.discovery import openapi
from cumulet.kube.discovery.openapi import Rows
from cumulet.kube.schema.definitions import INT_OR_STRING, QUANTITY

Schema = dict[str, Any]

_JSON = "application/json"
_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
#: As most clients write it. It is no valid media type (RFC 6838), so the answer names the other.
_PROTOBUF_DEPRECATED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
_PRODUCES = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]
_REFERENCE = "#/definitions/"
_V3_REFERENCE = "#/components/schemas/"
_VARIABLE = re.compile(r"\{(\w+)\}", re.ASCII)
#: Texts that hold a number or a name: v2 has no `oneOf`.
_TEXTS: dict[str, Schema] = {
    INT_OR_STRING: {"type": "string", "format": "int-or-string"},
    QUANTITY: {"type": "string"},
}


class _Made(NamedTuple):
    body: bytes
    etag: str


class Swagger:
    """The document as it is served, kept until the resources change."""

    def __init__(self) -> None:
        self._rows: Rows = ()
        self._made: dict[str, asyncio.Task[_Made]] = {}

    async def answer(self, request: web.BaseRequest, rows: Rows) -> web.Response:
        """Answer a GET, with an `ETag`: 304 where the client has it. Raises `ApiError` 406."""
        media = _accepted(request.headers.get("Accept", ""))
        if rows is not self._rows:
            self._rows, self._made = rows, {}
        making = self._made.get(media)
        if making is None or (making.done() and making.exception() is not None):
            making = self._made[media] = asyncio.create_task(asyncio.to_thread(_make, rows, media))
        # A client that leaves must not end it for others that wait.
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


def swagger(rows: Rows) -> dict[str, Any]:
    """The whole document (OpenAPI 2.0)."""
    definitions: dict[str, Schema] = {}
    paths: dict[str, Any] = {}
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
    """A published schema as v2 has it; `name` is that of a definition."""
    if name in _TEXTS:
        return dict(_keywords(node, schema)) | _TEXTS[name]
    return dict(_keywords(node, schema))


def custom_schema(node: Schema) -> Schema:
    """The schema of a custom resource as v2 has it (`ToStructuralOpenAPIV2`).

    Clients cannot read fields beside unknown ones, and values that may be null have no type that they know.
    """
    found = dict(node)
    if found.get("x-kubernetes-preserve-unknown-fields") or found.get("nullable"):
        found.pop("items", None)
        found.pop("properties", None)
        if found.get("nullable") or found.get("type") == "object":
            found.pop("type", None)
    if found.get("type") == "array" and not isinstance(found.get("items"), dict):
        del found["type"]
    nullable = {key for key, below in (found.get("properties") or {}).items() if below.get("nullable")}
    if nullable and found.get("required"):
        found["required"] = [key for key in found["required"] if key not in nullable]
    for below in found.get("allOf") or ():  # the metadata of all objects, which refers to a definition
        if "$ref" in below:
            found["$ref"] = below["$ref"]
    return dict(_keywords(found, custom_schema))


def _keywords(node: Schema, below: Any) -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if key not in SCHEMA_KEYWORDS and not key.startswith("x-"):
            continue  # v2 has no word for it, such as `oneOf`
        if key == "$ref":
            yield key, value.replace(_V3_REFERENCE, _REFERENCE, 1)
        elif key == "properties":
            yield key, {name: below(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            yield key, below(value)
        elif key != "required" or value:
            yield key, value


def _path(address: str, item: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {method: _operation(operation) for method, operation in item.items()}
    if variables := _VARIABLE.findall(address):
        found["parameters"] = [
            {"name": name, "in": "path", "required": True, "type": "string", "uniqueItems": True}
            for name in variables
        ]
    return found


def _operation(operation: dict[str, Any]) -> dict[str, Any]:
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


def _responses(found: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    for code, response in found:
        answer: Schema = {"description": response["description"]}
        if body := response["content"][_JSON]["schema"]:
            answer["schema"] = schema(body)
        yield code, answer
    yield "401", {"description": "Unauthorized"}
