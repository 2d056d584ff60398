"""A stored object, a change of it, and the fields that selectors can use."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import Object


class Stored(NamedTuple):
    """An object as JSON without `apiVersion` and `kind`, and the fields that lists and watches select by.

    `created` is the revision that created it, `written` the time of its last change in seconds since the epoch.
    """

    namespace: str
    name: str
    revision: int
    created: int
    written: int
    body: bytes
    labels: dict[str, str]
    fields: dict[str, str]

    def load(self) -> Object:
        """Return a copy of the object."""
        obj: Object = msgspec.json.decode(self.body)
        return obj


class Event(NamedTuple):
    """One change; `stored` is the state after it; for a deletion, the last state with the deletion's revision."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    stored: Stored
    before: Stored | None


#: Shared, as most objects have no labels; read only.
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
    obj: Object,
    body: bytes,
    *,
    namespace: str,
    name: str,
    revision: int,
    created: int,
    written: int,
) -> Stored:
    """Return the stored form of an object; `body` is its JSON."""
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


_NOTHING: Object = {}


def _event_fields(event: Object) -> dict[str, str]:
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
