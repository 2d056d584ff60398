"""The target of a request: resource, namespace, name, sub-resource and verb (apiserver, `RequestInfo`)."""

from __future__ import annotations

import re
from typing import NamedTuple

from aiohttp import web

from cumulet.kube.apimachinery.status import method_not_allowed, no_such_resource
from cumulet.kube.catalog.resources import Row
from cumulet.kube.catalog.served_resources import Catalog
from cumulet.kube.http.options import is_set

_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Target(NamedTuple):
    """The resource, namespace, name, sub-resource and verb of a request."""

    row: Row
    verb: str
    namespace: str
    name: str
    subresource: str
    #: The path after `proxy`, as it was sent: empty, or with a leading slash.
    path: str = ""


def parse(request: web.BaseRequest, catalog: Catalog) -> Target | None:
    """Return the target of a request, or `None` where the path is not a resource. Raises `ApiError` 404 and 405."""
    parts = [part for part in request.path.split("/") if part]
    if len(parts) >= 3 and parts[0] == "api":
        group, version, rest = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    # The older form of watches: `/api/v1/watch/…`.
    watched = rest[0] == "watch" and len(rest) > 1
    if watched:
        rest = rest[1:]
    namespace = ""
    if len(rest) >= 3 and rest[0] == "namespaces" and (rest[2] not in ("status", "finalize") or len(rest) > 3):
        namespace, rest = rest[1], rest[2:]
    row = catalog.find(group, version, rest[0])
    if row is None and catalog.is_remote(group, version):
        row = Row(group, version, "", rest[0], bool(namespace))
        return _remote(request, row, namespace, rest, watched=watched)
    proxied = len(rest) > 2 and rest[2] == "proxy"
    if row is None or (len(rest) > 3 and not proxied) or (namespace and not row.namespaced):
        raise no_such_resource()
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if subresource and (subresource not in row.subresources or watched):
        raise no_such_resource()
    verb = _VERBS.get(request.method)
    if verb is None:
        raise method_not_allowed()
    if watched:
        if verb != "get" or (name and row.namespaced and not namespace):
            raise method_not_allowed()
        return Target(row, "watch", namespace, name, "")
    if not name:
        if verb == "get":
            verb = "watch" if is_set(request.query, "watch") else "list"
        elif verb == "delete":
            verb = "deletecollection"
        elif verb != "create":
            raise method_not_allowed()
        if row.namespaced and not namespace and verb == "create" and row.verbs != ("create",):
            raise method_not_allowed()
    elif verb == "create" and not subresource:
        raise method_not_allowed()
    elif row.namespaced and not namespace:
        raise no_such_resource()
    behind = _behind(request, len(parts) - len(rest) + 3) if proxied else ""
    return Target(row, verb, namespace, name, subresource, behind)


def selected_name(request: web.BaseRequest) -> str:
    """Return the name in a field selector on `metadata.name`, or an empty string."""
    terms = request.query.get("fieldSelector", "").split(",")
    return next((term.partition("=")[2].removeprefix("=") for term in terms if term.startswith("metadata.name=")), "")


def _remote(request: web.BaseRequest, row: Row, namespace: str, rest: list[str], *, watched: bool) -> Target:
    """Return a target on an aggregated server, whose sub-resources may have any depth."""
    verb = _VERBS.get(request.method)
    if verb is None:
        raise method_not_allowed()
    name = rest[1] if len(rest) > 1 else ""
    if watched:
        verb = "watch"
    elif not name and verb == "get":
        verb = "watch" if is_set(request.query, "watch") else "list"
    elif not name and verb == "delete":
        verb = "deletecollection"
    return Target(row, verb, namespace, name, "/".join(rest[2:]))


def _behind(request: web.BaseRequest, count: int) -> str:
    """Return the path after `count` segments. Escapes stay, as only the backend may decode them."""
    path = request.rel_url.raw_path
    start = re.match(rf"(?:/+[^/]+){{{count}}}", path)
    return path[start.end() :] if start else ""
