"""Reading a request's body and common parameters, and making an object an answer."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from cumulet.kube.aside import LARGE_YAML, aside
from cumulet.kube.codec import decode_body, is_yaml
from cumulet.kube.resources import Row
from cumulet.kube.schema import prune
from cumulet.kube.status import ApiError, Cause, bad_request, invalid
from cumulet.kube.versions import from_stored

#: Upstream's own limit on a request's body.
BODY_LIMIT = 3 * 1024 * 1024

_OPTIONS = {"POST": "CreateOptions", "PATCH": "PatchOptions"}

Object = dict[str, Any]


async def read(request: web.BaseRequest) -> bytes:
    """The body. Raises `ApiError` 413 where it is larger than the limit."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            message = f"Request entity too large: limit is {BODY_LIMIT}"
            raise ApiError(413, "RequestEntityTooLarge", message, {})
    request[_SIZE] = len(body)
    return bytes(body)


#: Bytes of the body that was read.
_SIZE = web.RequestKey("size", int)


def size(request: web.BaseRequest) -> int:
    """Bytes of the body of a request, as far as it was read."""
    found: int = request.get(_SIZE, 0)
    return found


async def decoded(content_type: str, raw: bytes, kind: str, *, bare: bool = False) -> Object:
    """The object in a body; YAML that is large is read aside. Raises `ApiError` 400 and 415, as `decode_body`."""
    if is_yaml(content_type, raw):
        return await aside(len(raw), lambda: decode_body(content_type, raw, kind, bare=bare), LARGE_YAML)
    return decode_body(content_type, raw, kind, bare=bare)


async def part(request: web.BaseRequest, group: str, version: str, kind: str) -> Object:
    """What is sent to a sub-resource that is no part of its object. Raises `ApiError` 400, 413 and 415."""
    obj = await decoded(request.headers.get("Content-Type", ""), await read(request), kind)
    for key in ("kind", "apiVersion"):
        obj.pop(key, None)
    prune(obj, group, version, kind)
    return obj


def dry_run(request: web.BaseRequest) -> bool:
    """Whether nothing is to be stored."""
    value = request.query.get("dryRun", "")
    if value not in ("", "All"):
        raise bad_request(f'invalid dryRun: "{value}"')
    return value == "All"


def field_validation(request: web.BaseRequest) -> str:
    """What to do with fields that are not known or come twice: `Strict`, `Warn` or `Ignore`. Raises `ApiError` 422."""
    value = request.query.get("fieldValidation") or "Warn"
    if value not in ("Ignore", "Strict", "Warn"):
        why = f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"'
        cause = Cause("fieldValidation", "FieldValueNotSupported", why)
        raise invalid("meta.k8s.io", _OPTIONS.get(request.method, "UpdateOptions"), "", [cause])
    return value


def manager(request: web.BaseRequest) -> str:
    """Who is named as the writer of fields: as asked, or the client's program."""
    given = request.query.get("fieldManager", "")
    if len(given) > 128:
        cause = Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes")
        raise invalid("meta.k8s.io", _OPTIONS.get(request.method, "UpdateOptions"), "", [cause])
    return given or readable(request.headers.get("User-Agent", "")).partition("/")[0][:128] or "unknown"


def readable(text: str) -> str:
    """The value of a header, without bytes that are no text."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="replace")


def whole(row: Row, obj: Object) -> Object:
    """An object with its kind, as an answer."""
    return {"kind": row.kind, "apiVersion": row.api_version, **from_stored(row, obj)}
