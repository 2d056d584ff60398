"""Reading the JSON bodies of requests to ACR's data plane."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from cumulet.registry.oci.errors import OciError

_LIMIT = 64 * 1024

T = TypeVar("T")


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as a struct; an empty body counts as `{}`. Raises `OciError` 400, or 413 above 64 KiB."""
    if (request.content_length or 0) > _LIMIT:
        raise OciError(413, "SIZE_INVALID", f"the body is larger than {_LIMIT} bytes")
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OciError(400, "UNSUPPORTED", f"the body is not valid: {error}") from None
