"""Errors in the OCI's form (Distribution Specification 1.1, "Error Codes")."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OciError(Exception):
    """`{"errors": [{"code", "message", "detail"}]}` with an HTTP status."""

    def __init__(
        self, status: int, code: str, message: str, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The error as a response."""
        error = {"code": self.code, "message": str(self), "detail": self.detail}
        return web.Response(
            status=self.status,
            body=msgspec.json.encode({"errors": [error]}),
            headers={"Content-Type": "application/json; charset=utf-8", **self.headers},
        )


def not_found(code: str, message: str) -> OciError:
    """404 with one of the specification's codes, such as `BLOB_UNKNOWN`."""
    return OciError(404, code, message)


async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Run a handler and answer its errors in the OCI's form. Unexpected errors are logged and answered without detail."""
    try:
        return await handler(request)
    except OciError as error:
        return error.response()
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return OciError(error.status, "UNSUPPORTED", error.reason).response()
    except ConnectionResetError:
        raise
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        return OciError(500, "UNKNOWN", "the registry met an internal error").response()
