"""Admission reviews, and the writes that a webhook matches (`generic.ShouldCallHook`)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.access.users import User, user_info
from cumulet.kube.catalog import kinds
from cumulet.kube.catalog.builtin_conversion import from_stored, to_stored
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.store import Store


class AdmissionRequest(NamedTuple):
    """One write: `obj` is the new object and `old` the stored one, both without kind and version."""

    operation: str
    row: Row
    namespace: str
    name: str
    subresource: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool
    #: Group, version and kind of the objects, where they differ from the row's.
    kind: tuple[str, str, str] | None = None

    @property
    def resource(self) -> str:
        """`pods` or `pods/status`."""
        return f"{self.row.plural}/{self.subresource}" if self.subresource else self.row.plural


def rows_alike(row: Row, rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the same objects in every version, the requested one first."""
    return [row, *(other for other in rows if other.key == row.key and other != row)]


def matching_row(webhook: Object, request: AdmissionRequest, rows: Iterable[Row]) -> Row | None:
    """Return the row in whose form a webhook matches a write, or `None`."""
    candidates = [request.row] if webhook.get("matchPolicy") == "Exact" else rows_alike(request.row, rows)
    for row in candidates:
        if any(_rule_matches(rule, request, row) for rule in webhook.get("rules") or ()):
            return row
    return None


def _rule_matches(rule: Object, request: AdmissionRequest, row: Row) -> bool:
    scope = rule.get("scope", "*")
    return (
        _has(rule.get("operations"), request.operation)
        and _has(rule.get("apiGroups"), row.group)
        and _has(rule.get("apiVersions"), row.version)
        and scope in ("*", "Namespaced" if row.namespaced else "Cluster")
        and any(_is_resource(pattern, row.plural, request.subresource) for pattern in rule.get("resources") or ())
    )


def _has(patterns: list[str] | None, value: str) -> bool:
    return "*" in (patterns or ()) or value in (patterns or ())


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    resource, _, part = pattern.partition("/")
    return resource in ("*", plural) and (part in ("*", subresource) if part else not subresource)


def is_selected(webhook: Object, request: AdmissionRequest, store: Store) -> bool:
    """Return whether the selectors of a webhook match a write."""
    namespaces = webhook.get("namespaceSelector") or {}
    placed = request.row.namespaced or request.row.key == "namespaces"
    if namespaces and placed and not selects(namespaces, _namespace_labels(request, store)):
        return False
    objects = webhook.get("objectSelector") or {}
    if not objects:
        return True
    return any(
        obj is not None and "metadata" in obj and selects(objects, obj["metadata"].get("labels") or {})
        for obj in (request.obj, request.old)
    )


def _namespace_labels(request: AdmissionRequest, store: Store) -> dict[str, str]:
    if request.row.key == "namespaces" and request.obj is not None:
        return request.obj["metadata"].get("labels") or {}
    stored = store.get("namespaces", "", request.namespace or request.name)
    return stored.labels if stored is not None else {}


async def in_version(conversions: Conversions, request: AdmissionRequest, row: Row) -> AdmissionRequest:
    """Return a write with its custom objects converted to the version of a row. Raises `ApiError` 500."""
    if request.kind is not None:
        return request
    return request._replace(
        obj=await conversions.between(request.row, row, request.obj),
        old=await conversions.between(request.row, row, request.old),
    )


async def from_version(
    conversions: Conversions, request: AdmissionRequest, row: Row, obj: Object, complete: Callable[[Object], None]
) -> Object:
    """Return an object changed in the version of a row, converted back and completed. Raises `ApiError`."""
    if request.kind is None:
        if row.hub is not None:
            kinds.prune(row, obj)
        back = await conversions.between(row, request.row, to_stored(row, obj))
        assert back is not None
        obj = back
    complete(obj)
    return obj


def review(request: AdmissionRequest, row: Row) -> Object:
    """Return the `AdmissionReview` v1 of a write, in the form of a row."""
    requested = request.row
    document: Object = {
        "uid": str(uuid.uuid4()),
        "kind": _kind(request, row),
        "resource": _resource(row),
        "requestKind": _kind(request, requested),
        "requestResource": _resource(requested),
        "name": request.name,
        "operation": request.operation,
        "userInfo": user_info(request.user),
        "object": _in_form(request, row, request.obj),
        "oldObject": _in_form(request, row, request.old),
        "dryRun": request.dry_run,
        "options": _options(request),
    }
    if request.subresource:
        document["subResource"] = document["requestSubResource"] = request.subresource
    if request.namespace or request.row.key == "namespaces":
        document["namespace"] = request.namespace or request.name
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": document}


def _kind(request: AdmissionRequest, row: Row) -> Object:
    group, version, kind = request.kind or (row.group, row.version, row.kind)
    return {"group": group, "version": version, "kind": kind}


def _resource(row: Row) -> Object:
    return {"group": row.group, "version": row.version, "resource": row.plural}


def _in_form(request: AdmissionRequest, row: Row, obj: Object | None) -> Object | None:
    if obj is None:
        return None
    if request.kind is not None:
        group, version, kind = request.kind
        return {**obj, "kind": kind, "apiVersion": f"{group}/{version}" if group else version}
    return {"kind": row.kind, "apiVersion": row.api_version, **from_stored(row, obj)}


def _options(request: AdmissionRequest) -> Object | None:
    if request.operation == "CONNECT":
        return None
    kind = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}[request.operation]
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    return {**options, "dryRun": ["All"]} if request.dry_run else options
