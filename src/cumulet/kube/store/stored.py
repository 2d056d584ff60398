"""An object as the store has it, and one change of it; what of it selectors can name."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import msgspec


class Stored(NamedTuple):
    """An object as JSON without `apiVersion` and `kind`, with what lists and watches select by.

    `created` is the revision that it was created with, `written` the second since 1970 of its last change.
    """

    namespace: str
    name: str
    revision: int
    created: int
    written: int
    body: bytes
    labels: dict[str, str]
    fields: dict[str, str]

    def load(self) -> dict[str, Any]:
        """A copy of the object."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class Event(NamedTuple):
    """One change; `stored` is the state after it, or the last one with the revision of its deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    stored: Stored
    before: Stored | None


#: Shared, as most objects have none; nobody writes to it.
_NO_LABELS: dict[str, str] = {}

_PATHS = {
    "pods": (
        ("spec", "nodeName"),
        ("spec", "restartPolicy"),
        ("spec", "schedulerName"),
        ("spec", "serviceAccountName"),
        ("status", "phase"),
        ("status", "podIP"),
        ("status", "nominatedNodeName"),
    ),
    "services": (("spec", "clusterIP"), ("spec", "type")),
    "namespaces": (("status", "phase"),),
}
_NAMES = {path: ".".join(path) for paths in _PATHS.values() for path in paths}


def make(
    resource: str,
    obj: dict[str, Any],
    body: bytes,
    *,
    namespace: str,
    name: str,
    revision: int,
    created: int,
    written: int,
) -> Stored:
    """What is stored of an object, of which `body` is the JSON."""
    labels = obj["metadata"].get("labels")
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    for path in _PATHS.get(resource, ()):
        fields[_NAMES[path]] = (obj.get(path[0]) or _NOTHING).get(path[1]) or ""
    match resource:
        case "nodes":
            fields["spec.unschedulable"] = "true" if (obj.get("spec") or {}).get("unschedulable") else "false"
        case "secrets":
            fields["type"] = obj.get("type", "")
        case "events":
            fields |= _event_fields(obj)
    return Stored(namespace, name, revision, created, written, body, dict(labels) if labels else _NO_LABELS, fields)


_NOTHING: dict[str, Any] = {}


def _event_fields(event: dict[str, Any]) -> dict[str, str]:
    involved = event.get("involvedObject") or {}
    fields = {
        f"involvedObject.{name}": str(involved.get(name, ""))
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    return fields | {
        "reason": event.get("reason", ""),
        "type": event.get("type", ""),
        "source": source,
        "reportingComponent": event.get("reportingComponent", ""),
    }
