"""What role definitions and role assignments have in common as resources of `Microsoft.Authorization`.

Both are on a scope of any depth, named by a GUID, and served to the front door alone, which has authorised the call.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection

from aiohttp import web

from cumulet.common.arm import ArmError, fixed
from cumulet.common.ascii import fold
from cumulet.common.odata import FilterError, Term, conjunction

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)

Handler = Callable[[web.Request], Awaitable[web.Response]]


def routes(kind: str, listed: Handler, got: Handler, put: Handler, deleted: Handler) -> list[web.RouteDef]:
    """The paths of a type of resource, at every scope."""
    provided = f"{fixed('providers', 'providers')}/{fixed('Microsoft.Authorization', 'namespace')}"
    every = f"/{{scope:(?:.*/)?}}{provided}/{fixed(kind, 'type')}"
    one = f"{every}/{{name}}"
    return [web.get(every, listed), web.get(one, got), web.put(one, put), web.delete(one, deleted)]


def scope_of(request: web.Request) -> str:
    """The scope in a path, `/` where it has none."""
    return "/" + request.match_info["scope"].strip("/")


def guid_of(request: web.Request) -> str:
    """The name in a path, in lower case. Raises `ArmError` 400 where it is not a GUID."""
    name = request.match_info["name"]
    if not _GUID.fullmatch(name):
        raise ArmError(400, "InvalidRequestUri", f"The name '{name[:100]}' in the request URI must be a GUID.")
    return fold(name)


def caller_of(request: web.Request) -> str:
    """The object id of who called the front door."""
    return request.headers.get("x-ms-client-object-id", "")


def filter_of(request: web.Request, fields: Collection[str], functions: Collection[str]) -> list[Term]:
    """The terms of `$filter`. Raises `ArmError` 400 where one is not on these."""
    try:
        terms = conjunction(request.query.get("$filter", ""))
    except FilterError as error:
        raise ArmError(400, "UnsupportedQuery", str(error)) from None
    for term in terms:
        if term.name not in (functions if term.operator == "call" else fields) or term.operator == "startswith":
            raise ArmError(400, "UnsupportedQuery", f"A filter on '{term.name}' is not supported here.")
    return terms
