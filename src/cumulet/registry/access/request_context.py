"""What a request was found to be: who calls, and for what."""

from __future__ import annotations

import msgspec
from aiohttp import web

from cumulet.registry.catalog.running_pushes import Place


class RequestContext(msgspec.Struct):
    """Noted by whoever checks the right to something, for the access log and for `response_cache`.

    `place` is the registry and the name that the right was asked for, `scope` that with the actions, as tokens have it;
    `token_ends` is when the access token ends that alone gave it, in seconds since 1970.
    """

    principal: str = ""
    scope: str = ""
    place: Place = ("", "")
    token_ends: float | None = None


_KEY = web.RequestKey("caller", RequestContext)


def of(request: web.BaseRequest) -> RequestContext:
    """What is known by now."""
    caller = request.get(_KEY)
    if caller is None:
        caller = request[_KEY] = RequestContext()
    return caller
