"""Errors as Kubernetes `Status` objects (API conventions, "Response Status Kind")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from cumulet.common.kubernetes.objects import Object

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import Status, StatusDetails


class Cause(NamedTuple):
    """One error in one field."""

    field: str
    reason: str
    message: str


class ApiError(Exception):
    """A failure `Status` with its HTTP code."""

    def __init__(self, code: int, reason: str, message: str, details: StatusDetails | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details = details
        self.metadata: Object = {}

    def status(self) -> Status:
        """Return the `Status` object."""
        status: Status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": self.metadata,
            "status": "Failure",
            "message": str(self),
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


def bad_request(message: str) -> ApiError:
    """Return an error 400."""
    return ApiError(400, "BadRequest", message)


def failure(message: str) -> ApiError:
    """Return an error 500 for a client's mistake that upstream reports as its own failure."""
    return ApiError(500, "", message)


def not_found(group: str, plural: str, name: str) -> ApiError:
    """Return an error 404 for an object."""
    qualified = f"{plural}.{group}" if group else plural
    return ApiError(404, "NotFound", f'{qualified} "{name}" not found', _details(group, plural, name))


def no_such_resource() -> ApiError:
    """Return an error 404 for a path that is not a resource."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def method_not_allowed() -> ApiError:
    """Return an error 405."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def already_exists(group: str, plural: str, name: str) -> ApiError:
    """Return an error 409 for a create."""
    qualified = f"{plural}.{group}" if group else plural
    return ApiError(409, "AlreadyExists", f'{qualified} "{name}" already exists', _details(group, plural, name))


def conflict(group: str, plural: str, name: str, why: str = "") -> ApiError:
    """Return an error 409 for an update."""
    qualified = f"{plural}.{group}" if group else plural
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(group, plural, name))


def forbidden(group: str, plural: str, name: str, why: str) -> ApiError:
    """Return an error 403 of authorization or admission."""
    qualified = f"{plural}.{group}" if group else plural
    named = f' "{name}"' if name else ""
    return ApiError(403, "Forbidden", f"{qualified}{named} is forbidden: {why}", _details(group, plural, name))


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """Return an error 422 with every invalid field."""
    # Equal messages of several causes are shown once.
    texts = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    joined = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    qualified = f"{kind}.{group}" if group else kind
    details = _details(group, kind, name)
    details["causes"] = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return ApiError(422, "Invalid", f'{qualified} "{name}" is invalid: {joined}', details)


def _details(group: str, kind: str, name: str) -> StatusDetails:
    details: StatusDetails = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    return details
