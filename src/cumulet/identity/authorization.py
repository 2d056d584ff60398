"""Routes and parameters that role definitions and role assignments share as resources of `Microsoft.Authorization`.

Both are on a scope of any depth and named by a GUID. Only the front door can call them, after it has authorised the call.
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


def routes(kind: str, list_: Handler, get: Handler, put: Handler, delete: Handler) -> list[web.RouteDef]:
    """Return the routes of a type of resource, at every scope."""
    provider = f"{fixed('providers', 'providers')}/{fixed('Microsoft.Authorization', 'namespace')}"
    collection = f"/{{scope:(?:.*/)?}}{provider}/{fixed(kind, 'type')}"
    item = f"{collection}/{{name}}"
    return [web.get(collection, list_), web.get(item, get), web.put(item, put), web.delete(item, delete)]


def scope_of(request: web.Request) -> str:
    """Return the scope in a path, `/` if it has none."""
    return "/" + request.match_info["scope"].strip("/")


def guid_of(request: web.Request) -> str:
    """Return the name in a path, in lower case. Raises `ArmError` 400 if it is not a GUID."""
    name = request.match_info["name"]
    if not _GUID.fullmatch(name):
        raise ArmError(400, "InvalidRequestUri", f"The name '{name[:100]}' in the request URI must be a GUID.")
    return fold(name)


def caller_of(request: web.Request) -> str:
    """Return the object id of the front door's caller."""
    return request.headers.get("x-ms-client-object-id", "")


def filter_of(request: web.Request, fields: Collection[str], functions: Collection[str]) -> list[Term]:
    """Return the terms of `$filter`. Raises `ArmError` 400 for any other field or function."""
    try:
        terms = conjunction(request.query.get("$filter", ""))
    except FilterError as error:
        raise ArmError(400, "UnsupportedQuery", str(error)) from None
    for term in terms:
        if term.name not in (functions if term.operator == "call" else fields) or term.operator == "startswith":
            raise ArmError(400, "UnsupportedQuery", f"A filter on '{term.name}' is not supported here.")
    return terms
