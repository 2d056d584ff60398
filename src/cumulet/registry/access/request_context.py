"""The result of authorizing a request: the principal and the scope."""

from __future__ import annotations

import msgspec
from aiohttp import web

from cumulet.registry.catalog.running_pushes import Place


class RequestContext(msgspec.Struct):
    """Set by `Guard`, and read by the access log and `response_cache`.

    `place` is the registry and the name of the scope, and `scope` is `type:name:actions`, as in tokens. `token_ends` is when
    the access token that granted the right expires, in seconds since 1970, or `None` where no token granted it.
    """

    principal: str = ""
    scope: str = ""
    place: Place = ("", "")
    token_ends: float | None = None


_KEY = web.RequestKey("context", RequestContext)


def of(request: web.BaseRequest) -> RequestContext:
    """The context of a request, empty before it is authorized."""
    context = request.get(_KEY)
    if context is None:
        context = request[_KEY] = RequestContext()
    return context
