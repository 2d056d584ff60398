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


class Question(NamedTuple):
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


def wanted_as(webhook: Object, question: Question, rows: Iterable[Row]) -> Row | None:
    """Return the row in whose form a webhook matches a write, or `None`."""
    candidates = [question.row] if webhook.get("matchPolicy") == "Exact" else rows_alike(question.row, rows)
    for row in candidates:
        if any(_rule_matches(rule, question, row) for rule in webhook.get("rules") or ()):
            return row
    return None


def _rule_matches(rule: Object, question: Question, row: Row) -> bool:
    scope = rule.get("scope", "*")
    return (
        _has(rule.get("operations"), question.operation)
        and _has(rule.get("apiGroups"), row.group)
        and _has(rule.get("apiVersions"), row.version)
        and scope in ("*", "Namespaced" if row.namespaced else "Cluster")
        and any(_is_resource(pattern, row.plural, question.subresource) for pattern in rule.get("resources") or ())
    )


def _has(patterns: list[str] | None, value: str) -> bool:
    return "*" in (patterns or ()) or value in (patterns or ())


def _is_resource(pattern: str, plural: str, subresource: str) -> bool:
    resource, _, part = pattern.partition("/")
    return resource in ("*", plural) and (part in ("*", subresource) if part else not subresource)


def is_selected(webhook: Object, question: Question, store: Store) -> bool:
    """Return whether the selectors of a webhook match a write."""
    namespaces = webhook.get("namespaceSelector") or {}
    placed = question.row.namespaced or question.row.key == "namespaces"
    if namespaces and placed and not selects(namespaces, _namespace_labels(question, store)):
        return False
    objects = webhook.get("objectSelector") or {}
    if not objects:
        return True
    return any(
        obj is not None and "metadata" in obj and selects(objects, obj["metadata"].get("labels") or {})
        for obj in (question.obj, question.old)
    )


def _namespace_labels(question: Question, store: Store) -> dict[str, str]:
    if question.row.key == "namespaces" and question.obj is not None:
        return question.obj["metadata"].get("labels") or {}
    stored = store.get("namespaces", "", question.namespace or question.name)
    return stored.labels if stored is not None else {}


async def in_version(conversions: Conversions, question: Question, row: Row) -> Question:
    """Return a write with its custom objects converted to the version of a row. Raises `ApiError` 500."""
    if question.kind is not None:
        return question
    return question._replace(
        obj=await conversions.between(question.row, row, question.obj),
        old=await conversions.between(question.row, row, question.old),
    )


async def from_version(
    conversions: Conversions, question: Question, row: Row, obj: Object, complete: Callable[[Object], None]
) -> Object:
    """Return an object changed in the version of a row, converted back and completed. Raises `ApiError`."""
    if question.kind is None:
        if row.hub is not None:
            kinds.prune(row, obj)
        back = await conversions.between(row, question.row, to_stored(row, obj))
        assert back is not None
        obj = back
    complete(obj)
    return obj


def review(question: Question, row: Row) -> Object:
    """Return the `AdmissionReview` v1 of a write, in the form of a row."""
    requested = question.row
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": _kind(question, row),
        "resource": _resource(row),
        "requestKind": _kind(question, requested),
        "requestResource": _resource(requested),
        "name": question.name,
        "operation": question.operation,
        "userInfo": user_info(question.user),
        "object": _in_form(question, row, question.obj),
        "oldObject": _in_form(question, row, question.old),
        "dryRun": question.dry_run,
        "options": _options(question),
    }
    if question.subresource:
        request["subResource"] = request["requestSubResource"] = question.subresource
    if question.namespace or question.row.key == "namespaces":
        request["namespace"] = question.namespace or question.name
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _kind(question: Question, row: Row) -> Object:
    group, version, kind = question.kind or (row.group, row.version, row.kind)
    return {"group": group, "version": version, "kind": kind}


def _resource(row: Row) -> Object:
    return {"group": row.group, "version": row.version, "resource": row.plural}


def _in_form(question: Question, row: Row, obj: Object | None) -> Object | None:
    if obj is None:
        return None
    if question.kind is not None:
        group, version, kind = question.kind
        return {**obj, "kind": kind, "apiVersion": f"{group}/{version}" if group else version}
    return {"kind": row.kind, "apiVersion": row.api_version, **from_stored(row, obj)}


def _options(question: Question) -> Object | None:
    if question.operation == "CONNECT":
        return None
    kind = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}[question.operation]
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    return {**options, "dryRun": ["All"]} if question.dry_run else options
