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


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815  (Kubernetes' own name)
    restartPolicy: str = ""  # noqa: N815
    schedulerName: str = ""  # noqa: N815
    serviceAccountName: str = ""  # noqa: N815
    unschedulable: bool = False
    clusterIP: str = ""  # noqa: N815
    type: str = ""


class _Status(msgspec.Struct):
    phase: str = ""
    podIP: str = ""  # noqa: N815
    nominatedNodeName: str = ""  # noqa: N815


class _Selectable(msgspec.Struct):
    """The few fields that selectors name, decoded without the rest."""

    metadata: _Metadata
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


#: Shared, as most objects have none; nobody writes to it.
_NO_LABELS: dict[str, str] = {}

_DECODER = msgspec.json.Decoder(_Selectable)
_SPEC = msgspec.json.Decoder(_Spec | None)
_STATUS = msgspec.json.Decoder(_Status | None)


def make(resource: str, namespace: str, name: str, revision: int, created: int, written: int, body: bytes) -> Stored:
    """What is stored of an object whose JSON is `body`."""
    selectable = _DECODER.decode(body)
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    if resource in ("pods", "nodes", "services", "namespaces"):
        spec = _SPEC.decode(selectable.spec) or _Spec()
        status = _STATUS.decode(selectable.status) or _Status()
        fields |= _path_fields(resource, spec, status)
    elif resource == "events":
        fields |= _event_fields(msgspec.json.decode(body))
    elif resource == "secrets":
        fields["type"] = msgspec.json.decode(body).get("type", "")
    return Stored(namespace, name, revision, created, written, body, selectable.metadata.labels or _NO_LABELS, fields)


def _path_fields(resource: str, spec: _Spec, status: _Status) -> dict[str, str]:
    if resource == "pods":
        return {
            "spec.nodeName": spec.nodeName,
            "spec.restartPolicy": spec.restartPolicy,
            "spec.schedulerName": spec.schedulerName,
            "spec.serviceAccountName": spec.serviceAccountName,
            "status.phase": status.phase,
            "status.podIP": status.podIP,
            "status.nominatedNodeName": status.nominatedNodeName,
        }
    if resource == "nodes":
        return {"spec.unschedulable": "true" if spec.unschedulable else "false"}
    if resource == "services":
        return {"spec.clusterIP": spec.clusterIP, "spec.type": spec.type}
    return {"status.phase": status.phase}


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
