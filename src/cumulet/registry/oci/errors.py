"""Errors in the OCI's form (Distribution Specification 1.1, "Error Codes")."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec
from aiohttp import web

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Error(msgspec.Struct):
    code: str
    message: str
    detail: object


class _Errors(msgspec.Struct):
    errors: list[_Error]


class OciError(Exception):
    """`{"errors": [{"code", "message", "detail"}]}` with an HTTP status. `detail` is a value that msgspec encodes."""

    def __init__(
        self, status: int, code: str, message: str, detail: object = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> web.Response:
        """The error as a response."""
        errors = _Errors([_Error(self.code, str(self), self.detail)])
        return web.Response(
            status=self.status,
            body=msgspec.json.encode(errors),
            headers={"Content-Type": "application/json; charset=utf-8", **self.headers},
        )


def not_found(code: str, message: str) -> OciError:
    """404 with one of the specification's codes, such as `BLOB_UNKNOWN`."""
    return OciError(404, code, message)


def unsupported(method: str, target: str = "here") -> OciError:
    """405 for a method that a resource does not have."""
    return OciError(405, "UNSUPPORTED", f"{method} is not supported {target}")


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
