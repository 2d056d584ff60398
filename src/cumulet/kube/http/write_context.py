"""The context of a write: the user, the field manager, whether it is a dry run, and its warnings."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from cumulet.kube.access.users import User
from cumulet.kube.http.body import dry_run, manager, size

#: The API server itself, for its own writes.
SELF = User("system:apiserver", ("system:masters", "system:authenticated"))


@dataclass(slots=True)
class WriteContext:
    """One write; `warnings` grows while it goes on."""

    user: User = SELF
    manager: str = "kube-apiserver"
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    #: The bytes of the request's body.
    size: int = 0

    @classmethod
    def of(cls, request: web.BaseRequest, user: User) -> WriteContext:
        """Return the context of a request, and attach it to the request. Raises `ApiError` 400 and 422."""
        writer = request[_WRITER] = cls(user, manager(request), dry_run(request), size=size(request))
        return writer


_WRITER = web.RequestKey("writer", WriteContext)


def warned(request: web.BaseRequest) -> list[str]:
    """Return the warnings of a request so far; a request that fails sends them too."""
    writer = request.get(_WRITER)
    return [] if writer is None else writer.warnings
