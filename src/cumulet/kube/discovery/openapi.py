"""OpenAPI v3, one document a group and version: the published schemas, and paths from the table of resources."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from cumulet.common.ascii import raised
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.catalog.resources import Row
from cumulet.kube.discovery import groups
from cumulet.kube.schema.definitions import definition, raw_definitions

Rows = tuple[Row, ...]

_NULLABLE = re.compile(rb'"type":\s*\[\s*"(\w+)",\s*"null"\s*\]')
_REFERENCE = re.compile(rb'"#/\$defs/([^"]+)"')
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_PATCHES = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_COLLECTION_METHODS = (("get", "list"), ("post", "create"), ("delete", "deletecollection"))
_OBJECT_METHODS = (("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete"))
_SUBRESOURCE_METHODS = (*_OBJECT_METHODS, ("post", "create"))


def index(rows: Rows) -> Object:
    """Return `/openapi/v3`: the URL of each document, which changes with its content."""
    return {
        "paths": {
            path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={_hash(rows, path)}"} for path in paths_of(rows)
        }
    }


class Parts(NamedTuple):
    """The parts of the document of one group and version; `custom` has the names of custom resources' schemas."""

    paths: Object
    schemas: dict[str, msgspec.Raw]
    custom: set[str]


@functools.lru_cache(maxsize=4)
def document(rows: Rows, path: str) -> bytes | None:
    """Return the document of `api/v1` or `apis/apps/v1`, or `None`."""
    if path not in paths_of(rows):
        return None
    made = parts(rows, path)
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": "v1.36.0"},
            "paths": made.paths,
            "components": {"schemas": made.schemas},
        }
    )


def parts(rows: Rows, path: str) -> Parts:
    """Return the paths and schemas of `api/v1` or `apis/apps/v1`."""
    steps = path.split("/")
    group, version = ("", steps[1]) if steps[0] == "api" else (steps[1], steps[2])
    mine = [row for row in rows if (row.group, row.version) == (group, version)]
    schemas: dict[str, msgspec.Raw] = {}
    custom: set[str] = set()
    for row in mine:
        if row.custom is not None:
            custom.add(_component(row))
            schemas[_component(row)] = msgspec.Raw(msgspec.json.encode(_custom_schema(row)))
            continue
        published = definition(row.group, row.version, row.kind)
        if published is not None:
            _collect(published.name, schemas)
            _collect(f"{published.name}List", schemas)
        for subresource in row.subresources:
            group_of, version_of, kind = groups.subresource_kind(row, subresource)
            sent = definition(group_of, version_of, kind)
            if sent is not None:
                _collect(sent.name, schemas)
    for name in ("APIResourceList", "DeleteOptions", "ObjectMeta", "Patch", "Status", "WatchEvent"):
        _collect(f"{_META}{name}", schemas)
    paths = {f"/{path}/": _root(), **{name: item for row in mine for name, item in _items(row)}}
    return Parts(paths, schemas, custom)


def _root() -> Object:
    """Return the operation that lists the group's resources."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_META}APIResourceList"}}}
    return {"get": {"responses": {"200": {"description": "OK", "content": content}}}}


def _collect(name: str, into: dict[str, msgspec.Raw]) -> None:
    """Add a schema and all that it refers to, in OpenAPI's form."""
    waiting = [name]
    while waiting:
        name = waiting.pop()
        raw = raw_definitions().get(name)
        if raw is None or name in into:
            continue
        text = bytes(raw)
        waiting += [match[1].decode() for match in _REFERENCE.finditer(text)]
        text = _NULLABLE.sub(rb'"type": "\1"', text)
        into[name] = msgspec.Raw(_REFERENCE.sub(rb'"#/components/schemas/\1"', text))


def _items(row: Row) -> Iterator[tuple[str, Object]]:
    """Yield the paths of a resource: collections, objects, sub-resources, and the older form of watches."""
    base = f"/apis/{row.group}/{row.version}" if row.group else f"/api/{row.version}"
    collection = f"{base}/namespaces/{{namespace}}/{row.plural}" if row.namespaced else f"{base}/{row.plural}"
    name = _component(row)
    reference = {"$ref": f"#/components/schemas/{name}"} if name else {}
    methods = tuple(method for method, verb in _COLLECTION_METHODS if verb in row.verbs)
    yield collection, _operations(row, methods, reference)
    if "get" not in row.verbs:
        return
    one = f"{collection}/{{name}}"
    yield one, _operations(row, tuple(method for method, verb in _OBJECT_METHODS if verb in row.verbs), reference)
    for subresource in row.subresources:
        yield from _subresource_items(row, f"{one}/{subresource}", subresource)
    watched = collection.replace(base, f"{base}/watch", 1)
    yield watched, _operations(row, ("get",), reference)
    yield f"{watched}/{{name}}", _operations(row, ("get",), reference)
    if row.namespaced:
        yield f"{base}/{row.plural}", _operations(row, ("get",), reference)
        yield f"{base}/watch/{row.plural}", _operations(row, ("get",), reference)


def _subresource_items(row: Row, path: str, subresource: str) -> Iterator[tuple[str, Object]]:
    group, version, kind = groups.subresource_kind(row, subresource)
    named = row._replace(group=group, version=version, kind=kind)
    verbs = groups.subresource_verbs(subresource)
    methods = tuple(method for method, verb in _SUBRESOURCE_METHODS if verb in verbs)
    if subresource == "proxy":
        methods = (*methods, "head", "options")
        yield f"{path}/{{path}}", _operations(named, methods, {})
    component = "" if row.custom is not None and subresource != "scale" else _component(named._replace(custom=None))
    yield path, _operations(named, methods, {"$ref": f"#/components/schemas/{component}"} if component else {})


def _component(row: Row) -> str:
    if row.custom is not None:
        return ".".join([*reversed(row.group.split(".")), row.version, row.kind])
    published = definition(row.group, row.version, row.kind)
    return published.name if published else ""


def _custom_schema(row: Row) -> Object:
    """Return the schema of a custom resource with the fields of all objects."""
    assert row.custom is not None
    metadata = {"allOf": [{"$ref": f"#/components/schemas/{_META}ObjectMeta"}]}
    common = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": metadata}
    kind = {"group": row.group, "version": row.version, "kind": row.kind}
    properties = {**(row.custom.schema.get("properties") or {}), **common}
    return {**row.custom.schema, "properties": properties, "x-kubernetes-group-version-kind": [kind]}


def _operations(row: Row, methods: tuple[str, ...], reference: dict[str, str]) -> Object:
    operations: Object = {}
    for method in methods:
        content = {"application/json": {"schema": reference}}
        operation: Object = {
            "x-kubernetes-action": method,
            "x-kubernetes-group-version-kind": {"group": row.group, "version": row.version, "kind": row.kind},
            "responses": {"200": {"description": "OK", "content": content}},
        }
        if method in ("post", "put", "patch"):
            operation["parameters"] = [
                {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
                for name in ("dryRun", "fieldManager", "fieldValidation")
            ]
            types: tuple[str, ...] = ("application/json",)
            if method == "patch":
                # Clients read here whether a kind supports strategic merge patch.
                types = _PATCHES if row.custom is None else _PATCHES[:-1]
            operation["requestBody"] = {"content": {name: {"schema": reference} for name in types}}
        operations[method] = operation
    return operations


@functools.lru_cache(maxsize=2)
def paths_of(rows: Rows) -> tuple[str, ...]:
    """Return every served group and version, as `api/v1` and `apis/apps/v1`."""
    return tuple(
        dict.fromkeys(f"apis/{row.group}/{row.version}" if row.group else f"api/{row.version}" for row in rows)
    )


@functools.lru_cache(maxsize=128)
def _hash(rows: Rows, path: str) -> str:
    """Return the hash of a document's sources, so that the index need not build the document."""
    mine = [row for row in rows if row.api_version == path.partition("/")[2]]
    made_from = [(*row[:-1], row.custom.schema if row.custom else None) for row in mine]
    return raised(hashlib.sha256(f"{made_from}{len(raw_definitions())}".encode()).hexdigest()[:32])
