"""What a webhook is asked: the review that is sent, and which questions a webhook wants (`generic.ShouldCallHook`)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from cumulet.kube.access.users import User, user_info
from cumulet.kube.catalog import kinds
from cumulet.kube.catalog.builtin_conversion import from_stored, to_stored
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.schema.label_selectors import selects
from cumulet.kube.store import Store

Object = dict[str, Any]


class Question(NamedTuple):
    """One write: `obj` is what is to be stored and `old` what is, without kind and version, as they are stored."""

    operation: str
    row: Row
    namespace: str
    name: str
    subresource: str
    obj: Object | None
    old: Object | None
    user: User
    dry_run: bool
    #: Group, version and kind of the objects, where they are others than the row's.
    kind: tuple[str, str, str] | None = None

    @property
    def resource(self) -> str:
        """`pods` or `pods/status`."""
        return f"{self.row.plural}/{self.subresource}" if self.subresource else self.row.plural


def rows_alike(row: Row, rows: Iterable[Row]) -> list[Row]:
    """The rows of the same objects in every version, the one that was asked for first."""
    return [row, *(other for other in rows if other.key == row.key and other != row)]


def wanted_as(webhook: Object, question: Question, rows: Iterable[Row]) -> Row | None:
    """In the form of which row a webhook wants to see a write, or `None` where it does not."""
    found = [question.row] if webhook.get("matchPolicy") == "Exact" else rows_alike(question.row, rows)
    for row in found:
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
    """Whether the selectors of a webhook take in what a write is about."""
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
    """A question with its objects in the version of a row, where they are custom ones. Raises `ApiError` 500."""
    if question.kind is not None:
        return question
    return question._replace(
        obj=await conversions.between(question.row, row, question.obj),
        old=await conversions.between(question.row, row, question.old),
    )


async def from_version(
    conversions: Conversions, question: Question, row: Row, obj: Object, complete: Callable[[Object], None]
) -> Object:
    """What somebody made of an object in the version of a row, as the question has it, made whole. Raises `ApiError`."""
    if question.kind is None:
        if row.hub is not None:
            kinds.prune(row, obj)
        back = await conversions.between(row, question.row, to_stored(row, obj))
        assert back is not None
        obj = back
    complete(obj)
    return obj


def review(question: Question, row: Row) -> Object:
    """The `AdmissionReview` v1 that asks a question in the form of a row."""
    asked = question.row
    request: Object = {
        "uid": str(uuid.uuid4()),
        "kind": _kind(question, row),
        "resource": _resource(row),
        "requestKind": _kind(question, asked),
        "requestResource": _resource(asked),
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
