"""Who writes: as whom, under which name of fields, for good or to try, and what there is to tell about it."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from cumulet.kube.access.users import User
from cumulet.kube.http.body import dry_run, manager, size

#: The server itself, for its own ends.
SELF = User("system:apiserver", ("system:masters", "system:authenticated"))


@dataclass(slots=True)
class WriteContext:
    """One write; `warnings` grows while it goes on."""

    user: User = SELF
    manager: str = "kube-apiserver"
    dry_run: bool = False
    warnings: list[str] = field(default_factory=list)
    #: Bytes that were sent.
    size: int = 0

    @classmethod
    def of(cls, request: web.BaseRequest, user: User) -> WriteContext:
        """The writer of a request, which knows of the warnings. Raises `ApiError` 400 and 422."""
        writer = request[_WRITER] = cls(user, manager(request), dry_run(request), size=size(request))
        return writer


_WRITER = web.RequestKey("writer", WriteContext)


def warned(request: web.BaseRequest) -> list[str]:
    """What there is to tell of a request so far; it is told also where the request then fails."""
    writer = request.get(_WRITER)
    return [] if writer is None else writer.warnings
