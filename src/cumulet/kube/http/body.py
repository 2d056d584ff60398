"""The body and the common parameters of a request; an object as the body of a response."""

from __future__ import annotations

from aiohttp import web

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.headers import readable
from cumulet.kube.apimachinery.status import ApiError, Cause, bad_request, invalid
from cumulet.kube.catalog.builtin_conversion import from_stored
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import decode_body, is_yaml
from cumulet.kube.http.worker_threads import LARGE_YAML, offload
from cumulet.kube.schema import prune

#: Upstream's own limit on a request's body.
BODY_LIMIT = 3 * 1024 * 1024

_OPTIONS = {"POST": "CreateOptions", "PATCH": "PatchOptions"}


async def read(request: web.BaseRequest) -> bytes:
    """Read the body. Raises `ApiError` 413 where it is larger than the limit."""
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
    """Return the bytes of a request's body that were read."""
    count: int = request.get(_SIZE, 0)
    return count


async def decoded(content_type: str, raw: bytes, kind: str, *, bare: bool = False) -> Object:
    """Decode the object in a body; large YAML is decoded in a thread. Raises `ApiError` 400 and 415, as `decode_body`."""
    if is_yaml(content_type, raw):
        return await offload(len(raw), lambda: decode_body(content_type, raw, kind, bare=bare), LARGE_YAML)
    return decode_body(content_type, raw, kind, bare=bare)


async def part(request: web.BaseRequest, group: str, version: str, kind: str) -> Object:
    """Read the body of a sub-resource with a kind of its own. Raises `ApiError` 400, 413 and 415."""
    obj = await decoded(request.headers.get("Content-Type", ""), await read(request), kind)
    for key in ("kind", "apiVersion"):
        obj.pop(key, None)
    prune(obj, group, version, kind)
    return obj


def dry_run(request: web.BaseRequest) -> bool:
    """Return whether the request is a dry run. Raises `ApiError` 400."""
    value = request.query.get("dryRun", "")
    if value not in ("", "All"):
        raise bad_request(f'invalid dryRun: "{value}"')
    return value == "All"


def field_validation(request: web.BaseRequest) -> str:
    """Return how unknown and repeated fields are handled: `Strict`, `Warn` or `Ignore`. Raises `ApiError` 422."""
    value = request.query.get("fieldValidation") or "Warn"
    if value not in ("Ignore", "Strict", "Warn"):
        why = f'Unsupported value: "{value}": supported values: "", "Ignore", "Strict", "Warn"'
        cause = Cause("fieldValidation", "FieldValueNotSupported", why)
        raise invalid("meta.k8s.io", _OPTIONS.get(request.method, "UpdateOptions"), "", [cause])
    return value


def manager(request: web.BaseRequest) -> str:
    """Return the field manager: the one requested, or the client's program. Raises `ApiError` 422."""
    given = request.query.get("fieldManager", "")
    if len(given) > 128:
        cause = Cause("fieldManager", "FieldValueTooLong", "Too long: may not be more than 128 bytes")
        raise invalid("meta.k8s.io", _OPTIONS.get(request.method, "UpdateOptions"), "", [cause])
    return given or readable(request.headers.get("User-Agent", "")).partition("/")[0][:128] or "unknown"


def whole(row: Row, obj: Object) -> Object:
    """Return an object with its kind and API version, as a response has it."""
    return {"kind": row.kind, "apiVersion": row.api_version, **from_stored(row, obj)}
